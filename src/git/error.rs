//! What can go wrong with a Git repository.

use std::path::PathBuf;

use super::ObjectId;
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
            Self::Unborn { .. } => Some("make a first commit".to_owned()),
            _ => None,
        }
    }
}
