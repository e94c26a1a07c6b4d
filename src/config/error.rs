//! What can be wrong with a `memobuild.yml`, and where.

use std::{fmt, path::PathBuf};

use super::at::Place;
use crate::{
    dockerfile::{Source, Span},
    fs::FsError,
};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("the configuration can't be read")]
    Read {
        /// What failed.
        #[source]
        source: FsError,
    },
    /// The file is not valid.
    #[error(transparent)]
    Invalid(Box<InvalidConfig>),
}

/// A problem and its place in the file.
///
/// `Display` gives the problem alone; [`place`](Self::place) and
/// [`excerpt`](Self::excerpt) say where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidConfig {
    /// What is wrong.
    pub problem: Problem,
    /// The file as the user named it.
    pub file: String,
    /// Line, from 1; 0 if unknown.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What may help.
    pub hint: Option<String>,
    excerpt: String,
}

/// What is wrong with a `memobuild.yml`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Problem {
    #[error("{message}")]
    Yaml { message: String },
    #[error("unknown key `{key}`")]
    UnknownKey { key: String },
    #[error("key `{key}` is missing")]
    MissingKey { key: String },
    #[error("key `{key}` is there twice")]
    DuplicateKey { key: String },
    #[error("expected {expected}")]
    Expected { expected: &'static str },
    #[error("no anchor `&…` with this name stands above")]
    UnknownAnchor,
    #[error("expected {expected}, found {found}")]
    WrongType { expected: String, found: String },
    #[error("`{value}` is none of {allowed}")]
    NotAllowed { value: String, allowed: String },
    #[error("version {version} is not supported")]
    Version { version: u64 },
    #[error("`{image}` is not an image name without a tag")]
    Image { image: String },
    #[error("`{name}` can't be the name of a {what}")]
    Name { what: &'static str, name: String },
    #[error("there is no layer")]
    NoLayers,
    #[error("`bake` takes the place of `image` and `layers`")]
    BakeWithLayers,
    #[error("`{key}` is empty")]
    Empty { key: &'static str },
    #[error("layer `{layer}` is built from unknown layer `{parent}`")]
    UnknownParent { layer: String, parent: String },
    #[error("layers are built from each other: {cycle}")]
    Cycle { cycle: String },
    #[error("layer `{layer}` has a `base-arg` and no `from`")]
    BaseArgWithoutFrom { layer: String },
    #[error("`{name}` can't be the name of a build argument")]
    ArgName { name: String },
    #[error("variant `{variant}` changes unknown layer `{layer}`")]
    UnknownLayer { variant: String, layer: String },
    #[error(transparent)]
    Platform(#[from] crate::oci::platform::ParsePlatformError),
    #[error("platform `{platform}` is there twice")]
    DuplicatePlatform { platform: String },
    #[error(
        "two targets would be tagged `{tag}`: layer `{layer}` of variant `{variant}` and {other}"
    )]
    DuplicateTarget {
        tag: String,
        layer: String,
        variant: String,
        other: String,
    },
    #[error(transparent)]
    Unit(#[from] super::units::UnitError),
    #[error("unknown placeholder `{placeholder}`")]
    Placeholder { placeholder: String },
    #[error("`{text}` has a `{{` without `}}`")]
    OpenBrace { text: String },
    #[error("`{path}` is not relative")]
    AbsolutePath { path: String },
    #[error("Dockerfile `{}` of {target} does not exist", path.display())]
    NoDockerfile { path: PathBuf, target: String },
    #[error("Dockerfile `{}` of {target} is a directory", path.display())]
    DockerfileIsDirectory { path: PathBuf, target: String },
    #[error("context `{}` of {target} is not a directory", path.display())]
    NoContext { path: PathBuf, target: String },
    #[error("the certificate file `{}` does not exist", path.display())]
    NoCertificates { path: PathBuf },
    #[error("`jobs` must be at least 1")]
    NoJobs,
    #[error("the key file `{}` does not exist", path.display())]
    NoKey { path: PathBuf },
}

impl std::error::Error for InvalidConfig {}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl InvalidConfig {
    /// `file:line:column`, or the file alone.
    pub fn place(&self) -> String {
        match self.line {
            0 => self.file.clone(),
            line => format!("{}:{line}:{}", self.file, self.column),
        }
    }

    /// The line it is about and the one before, numbered, each with a line feed.
    pub fn excerpt(&self) -> &str {
        &self.excerpt
    }
}

/// A problem that knows its place but not yet the file.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) problem: Box<Problem>,
    pub(super) place: Place,
    pub(super) hint: Option<String>,
}

impl Fault {
    /// `problem` at `place`.
    pub(super) fn new(place: Place, problem: impl Into<Problem>) -> Self {
        Self {
            problem: Box::new(problem.into()),
            place,
            hint: None,
        }
    }

    /// The same with a hint.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The error as a user sees it.
    pub(super) fn in_file(self, file: &str, text: &str) -> ConfigError {
        let (start, column) = (self.place.line, self.place.column);
        let source = Source {
            name: file.to_owned(),
            text: text.to_owned(),
        };
        let excerpt = match start {
            0 => String::new(),
            end => source.excerpt(Span { start, end, column }),
        };
        ConfigError::Invalid(Box::new(InvalidConfig {
            problem: *self.problem,
            file: source.name,
            line: start,
            column,
            hint: self.hint,
            excerpt,
        }))
    }
}
