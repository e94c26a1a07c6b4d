//! What can be wrong with a bake file, and where.

use std::{fmt, ops::Range};

use crate::dockerfile::{Source, Span};

/// A problem and its place in one of the files.
///
/// `Display` gives the problem alone; [`place`](Self::place) and
/// [`excerpt`](Self::excerpt) say where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BakeError {
    /// What is wrong.
    pub problem: Box<Problem>,
    /// The file as the user named it; empty where no file is at fault.
    pub file: String,
    /// Line, from 1; 0 if unknown.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What may help.
    pub hint: Option<String>,
    excerpt: String,
}

/// What is wrong with bake files, or with what was asked of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Problem {
    #[error("the bake file is neither HCL nor JSON nor YAML: {message}")]
    Unreadable { message: String },
    #[error("not valid HCL: {message}")]
    Hcl { message: String },
    #[error("not valid JSON: {message}")]
    Json { message: String },
    #[error("not valid YAML: {message}")]
    Yaml { message: String },
    #[error("`{kind}` is not a block of a bake file")]
    UnknownBlock { kind: String },
    #[error("block `{kind}` needs exactly one name")]
    Labels { kind: String },
    #[error("`{name}` is set twice")]
    Twice { name: String },
    #[error(
        "`{name}` can't be the name of a {what}: it holds more than letters, digits, `_` and `-`"
    )]
    Name { what: &'static str, name: String },
    #[error("two targets of one matrix are called `{name}`")]
    DuplicateName { name: String },
    #[error("`{attribute}` is only for targets with a `matrix`")]
    NameWithoutMatrix { attribute: &'static str },
    #[error("a group takes no `{attribute}`")]
    InGroup { attribute: &'static str },
    #[error("`matrix` must be a map of lists")]
    Matrix,
    #[error("the matrix would make more than {limit} targets")]
    MatrixTooLarge { limit: usize },
    #[error("variable `{name}` is not defined")]
    UnknownVariable { name: String },
    #[error("function `{name}` is not defined")]
    UnknownFunction { name: String },
    #[error("there is no {kind} `{name}`")]
    UnknownReference { kind: &'static str, name: String },
    #[error("`{kind}` needs a name and an attribute, as in `{kind}.name.args`")]
    BareReference { kind: &'static str },
    #[error("variables refer to each other: {cycle}")]
    VariableCycle { cycle: String },
    #[error("function `{name}` calls itself")]
    FunctionCycle { name: String },
    #[error("`{path}` refers to itself")]
    ReferenceCycle { path: String },
    #[error("references are nested more than {limit} deep")]
    TooDeep { limit: usize },
    #[error("{what} has no attribute `{name}`")]
    NoAttribute { what: String, name: String },
    #[error("{what} has no element {index}")]
    NoElement { what: String, index: String },
    #[error("{what} is null")]
    NullValue { what: &'static str },
    #[error("expected {expected}, found {found}")]
    WrongType { expected: String, found: String },
    #[error("can't use {found} as {expected}: {reason}")]
    Convert {
        expected: String,
        found: String,
        reason: String,
    },
    #[error("division by zero")]
    DivisionByZero,
    #[error("two elements have the key `{key}`; add `...` after the value to group them")]
    DuplicateKey { key: String },
    #[error("the value would be larger than {limit} elements or bytes")]
    TooLarge { limit: usize },
    #[error("function `{name}`: {message}")]
    Function { name: String, message: String },
    #[error("function `{name}` takes {expected}, not {given}")]
    Arity {
        name: String,
        expected: String,
        given: usize,
    },
    #[error("function `{name}` has no `{attribute}`")]
    FunctionWithout {
        name: String,
        attribute: &'static str,
    },
    #[error("parameter names are plain words")]
    ParameterName,
    #[error("`{text}` is not a type")]
    Type { text: String },
    #[error("variable `{name}`: {reason}")]
    VariableValue { name: String, reason: String },
    #[error("variable `{name}` is not valid: {message}")]
    Validation { name: String, message: String },
    #[error("`{attribute}`: {reason}")]
    Attribute { attribute: String, reason: String },
    #[error("there is no target or group `{name}`")]
    UnknownTarget { name: String },
    #[error("no target matches `{pattern}`")]
    NoMatch { pattern: String },
    #[error("target `{target}` is built on unknown target `{name}`")]
    UnknownInherits { target: String, name: String },
    #[error("target `{target}` uses unknown target `{name}` as context")]
    UnknownContext { target: String, name: String },
    #[error("targets use each other as contexts: {cycle}")]
    ContextCycle { cycle: String },
    #[error(
        "target `{target}` can't use target `{name}` as context: it isn't built for {platforms}"
    )]
    ContextPlatforms {
        target: String,
        name: String,
        platforms: String,
    },
    #[error("override `{text}`: {reason}")]
    Override { text: String, reason: String },
    #[error("`{attribute}` is not supported")]
    Unsupported { attribute: String },
    #[error("{message}")]
    Compose { message: String },
    #[error("can't read `{path}`: {message}")]
    Read { path: String, message: String },
    #[error("none of the default bake files is in `{dir}`")]
    NoFile { dir: String },
}

impl std::error::Error for BakeError {}

impl fmt::Display for BakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl BakeError {
    /// A problem that no place in a file has.
    pub fn without_place(problem: Problem, hint: Option<String>) -> Self {
        Self {
            problem: Box::new(problem),
            file: String::new(),
            line: 0,
            column: 0,
            hint,
            excerpt: String::new(),
        }
    }

    /// `file:line:column`, or the file alone; none if no file is at fault.
    pub fn place(&self) -> Option<String> {
        match (self.file.as_str(), self.line) {
            ("", _) => None,
            (file, 0) => Some(file.to_owned()),
            (file, line) => Some(format!("{file}:{line}:{}", self.column)),
        }
    }

    /// The line it is about and the one before, numbered, each with a line feed.
    pub fn excerpt(&self) -> &str {
        &self.excerpt
    }
}

/// Where something stands: which file, and which bytes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: usize,
    pub(super) range: Range<usize>,
}

impl Place {
    /// The line and the column, in characters, of its start in `text`; both from 1.
    pub(super) fn line_and_column(&self, text: &str) -> (usize, usize) {
        let before = text.get(..self.range.start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }
}

/// A problem that may know its place, but not yet the text there.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) problem: Box<Problem>,
    pub(super) place: Option<Place>,
    pub(super) hint: Option<String>,
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self {
            problem: Box::new(problem),
            place: None,
            hint: None,
        }
    }
}

impl Fault {
    /// The same at `place`, unless a more exact one is known.
    pub(super) fn at(mut self, place: &Place) -> Self {
        self.place.get_or_insert_with(|| place.clone());
        self
    }

    /// The same with a hint, unless it has one.
    pub(super) fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = self.hint.or(hint);
        self
    }

    /// The error as a user sees it.
    pub(super) fn in_files(self, files: &[super::File]) -> BakeError {
        let mut error = BakeError::without_place(*self.problem, self.hint);
        let Some((place, file)) = self.place.and_then(|p| files.get(p.file).map(|f| (p, f))) else {
            return error;
        };
        let (line, column) = place.line_and_column(&file.text);
        let source = Source {
            name: file.name.clone(),
            text: file.text.clone(),
        };
        error.excerpt = source.excerpt(Span {
            start: line,
            end: line,
            column,
        });
        error.file = source.name;
        error.line = line;
        error.column = column;
        error
    }
}

/// Adds the place to a failure.
pub(super) trait AtPlace<T> {
    /// The same at `place`, unless a more exact one is known.
    fn at(self, place: &Place) -> Result<T, Fault>;
}

impl<T, E: Into<Fault>> AtPlace<T> for Result<T, E> {
    fn at(self, place: &Place) -> Result<T, Fault> {
        self.map_err(|error| error.into().at(place))
    }
}
