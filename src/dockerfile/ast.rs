//! The tree of a Dockerfile. Words stand in it as written, unexpanded.

use std::sync::Arc;

use super::{
    mount::{DeviceFlag, MountFlag},
    source::{Source, Span},
};

/// A parsed Dockerfile. It has at least one stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Dockerfile {
    /// What was parsed, for excerpts in errors.
    pub source: Arc<Source>,
    /// `# escape=`: a backslash or a backtick.
    pub escape: char,
    /// `# syntax=`, as written.
    pub syntax: Option<String>,
    /// The ARG instructions before the first FROM.
    pub global_args: Vec<Instruction>,
    /// The stages, in order.
    pub stages: Vec<Stage>,
    /// What is odd but allowed.
    pub warnings: Vec<ParseWarning>,
}

/// Something odd but allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseWarning {
    /// BuildKit's name of the rule: `NoEmptyContinuation`.
    pub rule: &'static str,
    /// What is odd.
    pub message: String,
    /// Where.
    pub span: Span,
}

/// FROM, and what follows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// The image or stage it starts from.
    pub base: String,
    /// `AS`, in lower case.
    pub name: Option<String>,
    /// `--platform`.
    pub platform: Option<String>,
    /// The instructions after FROM.
    pub instructions: Vec<Instruction>,
    /// The FROM instruction on one line.
    pub text: String,
    /// Where FROM stands.
    pub span: Span,
    /// How FROM is written.
    pub written: Written,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// What it means.
    pub kind: InstructionKind,
    /// The instruction on one line, without the content of heredocs.
    pub text: String,
    /// Where it stands, heredocs included.
    pub span: Span,
    /// How it is written.
    pub written: Written,
}

/// What of an instruction's looks matters: to checks and to descriptions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// The keyword as it stands there.
    pub keyword: String,
    /// FROM: what follows the image, `as` and the name of the stage.
    pub words: Vec<String>,
    /// The comments right before it, without `#`; an empty comment forgets those above.
    pub comments: Vec<String>,
}

impl Written {
    /// What a comment `# name text` says about `name`.
    pub fn description(&self, name: &str) -> Option<&str> {
        let comments = self.comments.iter();
        comments
            .filter_map(|c| c.strip_prefix(name)?.strip_prefix(' '))
            .next()
    }
}

/// The meaning of an instruction.
#[derive(Debug, Clone, PartialEq)]
pub enum InstructionKind {
    /// ARG.
    Arg(Vec<ArgPair>),
    /// ENV.
    Env(Vec<KeyValue>),
    /// LABEL.
    Label(Vec<KeyValue>),
    /// RUN.
    Run(Run),
    /// COPY, and ADD.
    Copy(Copy),
    /// WORKDIR.
    Workdir(String),
    /// USER.
    User(String),
    /// ENTRYPOINT.
    Entrypoint(CommandLine),
    /// CMD.
    Cmd(CommandLine),
    /// EXPOSE, each `port[-port][/protocol]`.
    Expose(Vec<String>),
    /// VOLUME.
    Volume(Vec<String>),
    /// HEALTHCHECK.
    Healthcheck(Healthcheck),
    /// STOPSIGNAL.
    StopSignal(String),
    /// SHELL.
    Shell(Vec<String>),
    /// MAINTAINER.
    Maintainer(String),
    /// ONBUILD: the instruction to run in a build on top of the image.
    OnBuild(String),
}

/// One variable of an ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgPair {
    /// Its name.
    pub name: String,
    /// What follows `=`.
    pub default: Option<String>,
}

/// One variable or label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Name.
    pub key: String,
    /// Value.
    pub value: String,
    /// Whether it was written `key value`.
    pub legacy: bool,
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// A JSON array: the process and its arguments.
    Exec(Vec<String>),
    /// A line for the shell.
    Shell(String),
}

/// RUN.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The command; in the shell form with its `<<NAME` words.
    pub command: CommandLine,
    /// The heredocs, in order.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`.
    pub mounts: Vec<MountFlag>,
    /// `--network`.
    pub network: Option<RunNetwork>,
    /// Whether it has `--security=insecure`.
    pub insecure: bool,
    /// `--device`.
    pub devices: Vec<DeviceFlag>,
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunNetwork {
    /// What the build was started with.
    Default,
    /// The host's.
    Host,
    /// None.
    None,
}

/// COPY and ADD.
#[derive(Debug, Clone, PartialEq)]
pub struct Copy {
    /// Whether it is an ADD.
    pub add: bool,
    /// What is copied, in order.
    pub sources: Vec<CopySource>,
    /// Where to.
    pub dest: String,
    /// `--from`.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: Vec<String>,
    /// `--checksum` (ADD).
    pub checksum: Option<String>,
    /// `--keep-git-dir` (ADD).
    pub keep_git_dir: Option<bool>,
    /// `--unpack` (ADD).
    pub unpack: Option<bool>,
}

/// One source of a COPY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path, a pattern, or with ADD an URL.
    Path(String),
    /// A file that stands in the Dockerfile.
    Heredoc(Heredoc),
}

/// A heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word after `<<`, unquoted: the terminator and the file's name.
    pub name: String,
    /// The lines, with their ends.
    pub content: String,
    /// Whether variables are expanded: no part of the word was quoted.
    pub expand: bool,
    /// Whether it was `<<-`: leading tabs go.
    pub chomp: bool,
}

/// HEALTHCHECK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`.
    None,
    /// `HEALTHCHECK [options] CMD …`; times in nanoseconds, 0 when not given.
    Command {
        /// What is run.
        command: CommandLine,
        /// `--interval`.
        interval: i64,
        /// `--timeout`.
        timeout: i64,
        /// `--start-period`.
        start_period: i64,
        /// `--start-interval`.
        start_interval: i64,
        /// `--retries`.
        retries: i64,
    },
}

impl Heredoc {
    /// The content, without leading tabs if it was `<<-`.
    pub fn text(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content
            .split_inclusive('\n')
            .map(|line| line.trim_start_matches('\t'))
            .collect()
    }
}

impl InstructionKind {
    /// The keyword, in upper case.
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::Arg(_) => "ARG",
            Self::Env(_) => "ENV",
            Self::Label(_) => "LABEL",
            Self::Run(_) => "RUN",
            Self::Copy(copy) if copy.add => "ADD",
            Self::Copy(_) => "COPY",
            Self::Workdir(_) => "WORKDIR",
            Self::User(_) => "USER",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Cmd(_) => "CMD",
            Self::Expose(_) => "EXPOSE",
            Self::Volume(_) => "VOLUME",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::Shell(_) => "SHELL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::OnBuild(_) => "ONBUILD",
        }
    }
}
