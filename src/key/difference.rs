//! One thing in which two recipes differ, and the sentence that says so: [`Difference`].

use std::fmt;

use serde::Serialize;

use super::{ChangedFile, FileChange};

/// Characters of a value in a sentence.
const SHOWN: usize = 60;

/// What a difference is about. The order is that in which differences are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// Which kind of step it is: a RUN, a copy, a directory, files from heredocs.
    Kind,
    /// The platform.
    Platform,
    /// The program that a RUN's text is given to, by SHELL.
    Shell,
    /// What a RUN executes.
    Command,
    /// What a COPY or ADD names.
    Sources,
    /// Where it goes.
    Destination,
    /// `--chown`, or the owner of what WORKDIR makes.
    Owner,
    /// `--chmod`.
    Mode,
    /// `--exclude`.
    Exclude,
    /// `unpack` (ADD), `parents`, `link`.
    Flag,
    /// A file from a heredoc.
    Heredoc,
    /// A mount.
    Mount,
    /// A variable that has a secret's value.
    Secret,
    /// `--security`.
    Security,
    /// `--device`.
    Devices,
    /// `--ulimit`.
    Ulimits,
    /// `--shm-size`.
    ShmSize,
    /// The host name.
    Hostname,
    /// The network mode.
    Network,
    /// Lines of /etc/hosts.
    Hosts,
    /// A variable: ENV or ARG.
    Environment,
    /// The working directory.
    Workdir,
    /// USER.
    User,
    /// Whether noise is dropped from layers.
    Normalise,
    /// `SOURCE_DATE_EPOCH`.
    Epoch,
    /// The ignore file, which decides what is selected.
    Ignore,
    /// The selected files.
    Files,
    /// The image that it stands on or reads from.
    Image,
    /// What another stage or image gives that it copies from or mounts.
    Input,
    /// What it stands on.
    Parent,
    /// The time that paths get, which follows from base image, position and epoch.
    Time,
    /// A part that this program doesn't know.
    Other,
}

impl Topic {
    /// Whether parts about it are lists.
    pub(super) fn is_list(self) -> bool {
        matches!(
            self,
            Self::Command
                | Self::Environment
                | Self::Hosts
                | Self::Sources
                | Self::Exclude
                | Self::Devices
                | Self::Ulimits
        )
    }
}

/// One thing in which two recipes differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The part's name: `env`, `copy.0.files`, …
    pub part: String,
    /// What it is about.
    pub topic: Topic,
    /// Which of several: a variable's name, a mount's target with the field, a file's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// What it was; none if it was not there.
    pub old: Option<String>,
    /// What it is; none if it is not there.
    pub new: Option<String>,
    /// How a file differs; only for files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<FileChange>,
    /// The commit that changed the file, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

impl Difference {
    /// A file that is selected from a context.
    pub fn of_file(part: &str, file: ChangedFile) -> Self {
        Self {
            part: part.to_owned(),
            topic: Topic::Files,
            item: Some(file.path),
            old: file.old,
            new: file.new,
            change: Some(file.change),
            commit: None,
        }
    }

    /// Something else.
    pub fn new(
        part: &str,
        topic: Topic,
        item: Option<String>,
        old: Option<String>,
        new: Option<String>,
    ) -> Self {
        Self {
            part: part.to_owned(),
            topic,
            item,
            old,
            new,
            change: None,
            commit: None,
        }
    }
}

impl fmt::Display for Difference {
    /// One sentence: ``environment variable `V` changed (`1` -> `2`)``.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Topic::Parent | Topic::Input, None, Some(new)) = (self.topic, &self.old, &self.new)
        {
            let what = match self.topic {
                Topic::Parent => "what it stands on",
                _ => "what it reads from",
            };
            return write!(f, "{what} is no hit: `{}`", shown(new));
        }
        let what = match self.topic {
            Topic::Kind => "the kind of step",
            Topic::Platform => "the platform",
            Topic::Shell => "the shell",
            Topic::Command => "the command",
            Topic::Sources => "what it copies",
            Topic::Destination => "the destination",
            Topic::Owner => "the owner",
            Topic::Mode => "the mode",
            Topic::Exclude => "what it excludes",
            Topic::Flag => "flag",
            Topic::Heredoc => "the heredoc's",
            Topic::Mount => "mount",
            Topic::Secret => "secret variable",
            Topic::Security => "the security mode",
            Topic::Devices => "the devices",
            Topic::Ulimits => "the limits",
            Topic::ShmSize => "the size of /dev/shm",
            Topic::Hostname => "the host name",
            Topic::Network => "the network",
            Topic::Hosts => "host",
            Topic::Environment => "environment variable",
            Topic::Workdir => "the working directory",
            Topic::User => "the user",
            Topic::Normalise => "whether noise is dropped",
            Topic::Epoch => "SOURCE_DATE_EPOCH",
            Topic::Ignore => "the ignore file",
            Topic::Files => "file",
            Topic::Image => "base image",
            Topic::Input => "what it reads from",
            Topic::Parent => "what it stands on",
            Topic::Time => "the time of its files",
            Topic::Other => "part",
        };
        f.write_str(what)?;
        match (&self.item, self.topic) {
            (Some(item), Topic::Heredoc) => write!(f, " {item}")?,
            (Some(item), _) => write!(f, " `{}`", shown(item))?,
            (None, Topic::Other) => write!(f, " `{}`", self.part)?,
            (None, _) => {}
        }
        let quoted = |text: &str| format!("`{}`", shown(text));
        let word = match (self.topic, self.change) {
            // The values would be texts of many lines.
            (Topic::Ignore, _) => return f.write_str(" changed"),
            (_, Some(FileChange::Mode)) => "has another mode",
            (_, Some(FileChange::Target)) => "links to something else",
            (_, Some(FileChange::Kind)) => "is something else",
            _ => "changed",
        };
        match (&self.old, &self.new) {
            (Some(old), Some(new)) if old == "(hidden)" && old == new => write!(f, " {word}"),
            (Some(old), Some(new)) => write!(f, " {word} ({} -> {})", quoted(old), quoted(new)),
            (None, Some(new)) => write!(f, " added ({})", quoted(new)),
            (Some(old), None) => write!(f, " removed (was {})", quoted(old)),
            (None, None) => write!(f, " {word}"),
        }
    }
}

/// A value as it may stand in a sentence: on one line, digests short, cut in the middle of
/// nothing.
fn shown(text: &str) -> String {
    for algorithm in ["blake3:", "sha256:"] {
        if let Some(hex) = text.strip_prefix(algorithm)
            && hex.len() == 64
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            return format!("{algorithm}{}", &hex[..12]);
        }
    }
    let line = text.replace('\n', "\\n");
    match line.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}
