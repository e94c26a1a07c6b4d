//! What can be wrong with a Dockerfile.

use std::{fmt, fmt::Write as _, sync::Arc};

use super::{
    address::AddressError,
    expand::ExpandError,
    lint::SettingsError,
    source::{Source, Span},
};
use crate::device::DeviceError;

/// A problem, and where it is.
///
/// `Display` gives `file:line: problem` on one line; [`DockerfileError::render`] gives
/// the whole message with the lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerfileError {
    /// What is wrong.
    pub problem: Box<Problem>,
    /// The file as the user named it.
    pub file: String,
    /// Where.
    pub span: Span,
    /// What may help.
    pub hint: Option<String>,
    source: Arc<Source>,
}

/// What is wrong with a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Problem {
    #[error("the Dockerfile has no instruction")]
    Empty,
    #[error("the Dockerfile has no FROM")]
    NoStage,
    #[error("`{keyword}` stands before the first FROM; only ARG may")]
    BeforeFrom { keyword: String },
    #[error("unknown instruction `{keyword}`")]
    UnknownInstruction { keyword: String },
    #[error("`{keyword}` has no flag `{flag}`")]
    UnknownFlag { keyword: String, flag: String },
    #[error("flag `{flag}` of `{keyword}` is given twice")]
    DuplicateFlag { keyword: String, flag: String },
    #[error("flag `{flag}` of `{keyword}` needs a value")]
    FlagWithoutValue { keyword: String, flag: String },
    #[error("`{value}` is not a value of flag `{flag}`, which takes {expected}")]
    FlagValue {
        flag: String,
        value: String,
        expected: &'static str,
    },
    #[error("`{keyword}` needs {expected}")]
    Arguments {
        keyword: String,
        expected: &'static str,
    },
    #[error("`{keyword}` needs a value: `name=value`")]
    WithoutValue { keyword: String },
    #[error("`{word}` in `{keyword}` is not of the form `name=value`")]
    NotKeyValue { keyword: String, word: String },
    #[error("`{keyword}` has a variable without a name")]
    EmptyName { keyword: String },
    #[error("`{keyword}` must be a JSON array of strings")]
    NotJson { keyword: String },
    #[error("the JSON array of `{keyword}` holds something that is not a string")]
    NotStrings { keyword: String },
    #[error("`{word}` stands where FROM expects `AS name`")]
    FromWord { word: String },
    #[error("`{name}` is not a stage name")]
    StageName { name: String },
    #[error("heredoc `{name}` has no end")]
    OpenHeredoc { name: String },
    #[error("the destination of `{keyword}` can't be a heredoc")]
    HeredocDestination { keyword: String },
    #[error("frontend `{name}` of `# syntax=` is not built in")]
    Syntax { name: String },
    #[error("`{value}` is not an escape character; it is a backslash or a backtick")]
    Escape { value: String },
    #[error("can't read `# check=`: {cause}")]
    Check { cause: SettingsError },
    #[error("directive `{directive}` is given twice")]
    DuplicateDirective { directive: String },
    #[error("HEALTHCHECK type `{kind}` is unknown; it is `CMD` or `NONE`")]
    HealthcheckType { kind: String },
    #[error("`{keyword}` can't be a trigger of ONBUILD")]
    OnBuildTrigger { keyword: String },
    #[error("a trigger must be one instruction")]
    SeveralTriggers,
    #[error("`{key}` is not a key of `--mount`")]
    MountKey { key: String },
    #[error("key `{key}` of `--mount` needs a value")]
    MountKeyWithoutValue { key: String },
    #[error("`{value}` is not a value of `{key}` in `--mount`")]
    MountValue { key: String, value: String },
    #[error("key `{key}` is not for mounts of type `{kind}`")]
    MountKeyType { key: String, kind: String },
    #[error("a mount of type `{kind}` needs `{key}`")]
    MountNeeds { kind: String, key: &'static str },
    #[error("a mount of type `secret` takes `id` or `source`, not both")]
    MountSecretNames,
    #[error("`{field}` is not a field of `--device`")]
    DeviceField { field: String },
    #[error("{cause}")]
    Device { cause: DeviceError },
    #[error("{construct} is not allowed for this build")]
    NotAllowed { construct: String },
    #[error("mount target `{target}` is the root directory")]
    MountRoot { target: String },
    #[error("`{text}` holds a variable; `from` doesn't take one")]
    FromVariable { text: String },
    #[error("{construct} is not supported yet")]
    Unsupported { construct: String },
    #[error("can't expand `{text}`: {cause}")]
    Expand { text: String, cause: ExpandError },
    #[error("`{text}` is not a platform of the form `os/arch[/variant]`")]
    Platform { text: String },
    #[error("the base image's name `{text}` is empty after expansion")]
    EmptyBase { text: String },
    #[error("`{keyword}` is empty after expansion of `{text}`")]
    EmptyWord { keyword: String, text: String },
    #[error("`{name}` is a later stage, or this one; `{keyword}` can only use earlier stages")]
    ForwardReference { keyword: String, name: String },
    #[error("there is no stage number {index}")]
    StageIndex { index: usize },
    #[error("`{text}` is not an octal mode up to 7777 or a symbolic mode")]
    Mode { text: String },
    #[error("`{text}` is not a port, or a range of ports, with a protocol")]
    Port { text: String },
    #[error("`{text}` is not a signal")]
    Signal { text: String },
    #[error("`{source_path}` is an URL, which COPY can't read")]
    CopyUrl { source_path: String },
    #[error("`{address}` is not the address of a Git repository: {cause}")]
    GitAddress {
        address: String,
        cause: AddressError,
    },
    #[error("`--checksum` is for one source only")]
    ChecksumOfSeveral,
    #[error("`--checksum` is for URLs and Git repositories, and `{source_path}` is neither")]
    ChecksumOfFile { source_path: String },
    #[error("`{text}` is not a checksum of {of}, which is {expected}")]
    Checksum {
        text: String,
        of: &'static str,
        expected: &'static str,
    },
    #[error("`{flag}` and the address `{address}` contradict each other")]
    AddressConflict { flag: &'static str, address: String },
    #[error("`{name}` in `{keyword}` looks like the number of a stage; it takes names only")]
    StageNumber { keyword: String, name: String },
    #[error("{reason}")]
    ImageName { text: String, reason: String },
    #[error("stages need each other: `{stages}`")]
    Circle { stages: String },
    #[error("trigger `{trigger}`: {cause}")]
    Trigger {
        trigger: String,
        cause: Box<Problem>,
    },
}

impl Problem {
    /// Whether BuildKit sees it while it takes instructions apart, before it looks at what
    /// any of them means.
    pub(super) fn is_of_form(&self) -> bool {
        matches!(
            self,
            Self::NotStrings { .. } | Self::WithoutValue { .. } | Self::NotKeyValue { .. }
        )
    }

    /// The word of the Dockerfile that it is about, for problems that are found after
    /// parsing.
    fn word(&self) -> Option<&str> {
        match self {
            Self::Expand { text, .. }
            | Self::Platform { text }
            | Self::EmptyBase { text }
            | Self::EmptyWord { text, .. }
            | Self::ForwardReference { name: text, .. }
            | Self::StageNumber { name: text, .. }
            | Self::ImageName { text, .. }
            | Self::Mode { text }
            | Self::Port { text }
            | Self::Signal { text }
            | Self::CopyUrl { source_path: text }
            | Self::MountKey { key: text }
            | Self::MountKeyWithoutValue { key: text }
            | Self::MountKeyType { key: text, .. }
            | Self::MountRoot { target: text } => Some(text),
            Self::MountValue { value, .. } => Some(value),
            _ => None,
        }
    }
}

impl std::error::Error for DockerfileError {}

impl fmt::Display for DockerfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.span.start, self.problem)
    }
}

impl DockerfileError {
    /// The problem at `span` of `source`.
    pub fn new(source: &Source, span: Span, problem: Problem) -> Self {
        Self {
            hint: problem.hint(),
            problem: Box::new(problem),
            file: source.name.clone(),
            span,
            source: Arc::new(source.clone()),
        }
    }

    /// The problem with the instruction at `span`, narrowed down to the word that it is
    /// about where that word stands there as it is.
    pub fn in_instruction(source: &Source, span: Span, problem: Problem) -> Self {
        let word = problem.word().and_then(|word| source.find(span, word));
        Self::new(source, word.unwrap_or(span), problem)
    }

    /// The same with a better hint, if there is one.
    #[must_use]
    pub fn with_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// The lines it is about, numbered.
    pub fn excerpt(&self) -> String {
        self.source.excerpt(self.span)
    }

    /// The file that it is about.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The whole message:
    ///
    /// ```text
    /// error: unknown instruction `RUNN`
    ///   --> Dockerfile:2:1
    ///  1 | FROM scratch
    ///  2 | RUNN x
    /// hint: did you mean `RUN`?
    /// ```
    pub fn render(&self) -> String {
        let mut out = format!("error: {}\n", self.problem);
        let _ = writeln!(
            out,
            "  --> {}:{}:{}",
            self.file, self.span.start, self.span.column
        );
        out.push_str(&self.excerpt());
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "hint: {hint}");
        }
        out
    }
}
