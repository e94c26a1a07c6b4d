//! What can go wrong with a Git repository.

use std::path::PathBuf;

use super::{ObjectId, UnknownReason};
use crate::{context::ContextError, fs::FsError};

/// Why a repository can't be read.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The repository can't be opened.
    #[error("can't open the Git repository of `{}`", path.display())]
    Open {
        /// Where it was looked for.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<gix::Error>,
    },
    /// `HEAD` names a branch that has no commits.
    #[error("the Git repository `{}` has no commits yet", path.display())]
    Unborn {
        /// The repository.
        path: PathBuf,
    },
    /// Text that names no commit.
    #[error("`{text}` names no commit of the Git repository `{}`", path.display())]
    Revision {
        /// The text.
        text: String,
        /// The repository.
        path: PathBuf,
        /// Whether the history ends early.
        shallow: bool,
        /// What was found instead.
        #[source]
        source: Box<gix::Error>,
    },
    /// An object that other objects name and that is not there.
    #[error("{kind} `{id}` is not in the Git repository `{}`", path.display())]
    Missing {
        /// `commit`, `tree` or `blob`.
        kind: &'static str,
        /// The object.
        id: ObjectId,
        /// The repository.
        path: PathBuf,
    },
    /// An object that can't be read.
    #[error("{kind} `{id}` of the Git repository `{}` can't be read", path.display())]
    Object {
        /// `commit`, `tree` or `blob`.
        kind: &'static str,
        /// The object.
        id: ObjectId,
        /// The repository.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<gix::Error>,
    },
    /// A name in a tree that no checkout would make.
    #[error("tree `{tree}` has an entry `{name}`, which Git refuses to check out")]
    UnsafeName {
        /// The tree.
        tree: ObjectId,
        /// The name, as far as it is text.
        name: String,
    },
    /// Walking the history failed.
    #[error("can't find where the histories of `{one}` and `{other}` part")]
    MergeBase {
        /// A commit.
        one: ObjectId,
        /// Another one.
        other: ObjectId,
        /// What happened.
        #[source]
        source: Box<gix::Error>,
    },
    /// Tags, or the history before the head, can't be read.
    #[error("can't find the tags behind the head in the Git repository `{}`", path.display())]
    Tags {
        /// The repository.
        path: PathBuf,
        /// What happened.
        #[source]
        source: Box<gix::Error>,
    },
    /// A path of a tree that symlinks lead out of the repository, or round in a circle.
    #[error("`{path}` leads through symlinks that leave the repository or go in a circle")]
    Symlinks {
        /// The path.
        path: String,
    },
    /// Git's index can't be read.
    #[error("can't read Git's index `{}`", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<gix::Error>,
    },
    /// A path that is no directory of a tree.
    #[error("`{path}` is not a directory in tree `{tree}`")]
    NotADirectory {
        /// From the root of the repository.
        path: String,
        /// The root tree.
        tree: ObjectId,
    },
    /// A file whose content can't be told from its blob.
    #[error("what a checkout writes to `{path}` can't be told: {reason}")]
    Unknown {
        /// From the root of the repository.
        path: String,
        /// Why not.
        reason: UnknownReason,
    },
    /// The program `git` can't be started or waited for.
    #[error("can't run the program `git`")]
    Program {
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Fetching failed.
    #[error("fetching from the remote `{remote}` failed: {said}")]
    Fetch {
        /// The remote.
        remote: String,
        /// What `git` said.
        said: String,
    },
    /// Fetching took too long.
    #[error("fetching from the remote `{remote}` took more than {seconds} s")]
    TimedOut {
        /// The remote.
        remote: String,
        /// The limit.
        seconds: u64,
    },
    /// There is nothing to fetch from.
    #[error("the Git repository `{}` has no remote that could be fetched from", path.display())]
    NoRemote {
        /// The repository.
        path: PathBuf,
    },
    /// An ignore file that can't be read, or files on disk that can't.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A file can't be read or written.
    #[error(transparent)]
    Fs(#[from] FsError),
}

impl GitError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let whole = "fetch the history with the checkout (`fetch-depth: 0`, `GIT_DEPTH: 0`), \
                     or here with `git fetch --unshallow`";
        match self {
            Self::Revision { shallow: true, .. } => Some(whole.to_owned()),
            Self::Missing { kind: "commit", .. } => Some(whole.to_owned()),
            Self::Missing { .. } => {
                Some("a partial clone needs its remote to read this; `git fsck` tells whether the repository is damaged".to_owned())
            }
            Self::Object { .. } => {
                Some("`git fsck` tells what is damaged; a new clone mends it".to_owned())
            }
            Self::Program { .. } => Some("install Git".to_owned()),
            Self::Fetch { .. } | Self::TimedOut { .. } | Self::NoRemote { .. } => {
                Some(whole.to_owned())
            }
            Self::Unborn { .. } => Some("make a first commit".to_owned()),
            _ => None,
        }
    }
}
