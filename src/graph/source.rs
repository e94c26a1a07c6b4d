//! What comes from elsewhere: files of URLs, trees of Git repositories.
//!
//! The graph has no vertex for them. A [`RemoteSource`] is fetched to a directory before
//! the final lowering, and is then a [`LocalContext`](super::LocalContext) like any other:
//! its content is in the keys, its address isn't.

use std::{borrow::Cow, collections::BTreeMap};

use super::Location;
use crate::{digest::Sha256Digest, dockerfile::address::GitAddress, redact};

/// Something to fetch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RemoteSource {
    /// The file that a URL gives: a directory with this one file.
    Http(HttpSource),
    /// A tree of a Git repository.
    Git(GitSource),
}

/// A file from a web server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpSource {
    /// The URL as written, credentials included.
    pub url: String,
    /// The file's name in the directory.
    pub name: String,
    /// What its content must be.
    pub checksum: Option<Sha256Digest>,
}

/// A tree of a Git repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GitSource {
    /// What `git` is given, credentials included.
    pub remote: String,
    /// Branch, tag or whole commit; the default branch if empty.
    pub reference: String,
    /// The directory to take; the whole tree if empty.
    pub subdir: String,
    /// The commit it must be, or its first digits.
    pub checksum: Option<String>,
    /// Whether `.git` is kept.
    pub keep_git_dir: bool,
    /// Whether submodules are fetched.
    pub submodules: bool,
    /// Whether `checksum` is the commit, without a question to the server.
    pub fetch_by_commit: bool,
}

/// A source that lowering needs, and the instruction that does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingSource {
    /// What to fetch.
    pub source: RemoteSource,
    /// Where it is named.
    pub location: Location,
}

/// Fetched sources: positions in [`BuildGraph::contexts`](super::BuildGraph::contexts).
pub type SourceTable = BTreeMap<RemoteSource, usize>;

impl RemoteSource {
    /// Its address for people, credentials masked.
    pub fn shown(&self) -> Cow<'_, str> {
        match self {
            Self::Http(source) => redact::url_credentials(&source.url),
            Self::Git(source) => source.shown(),
        }
    }
}

impl GitSource {
    /// What `address` means, `.git` left out unless it says otherwise.
    pub fn of(address: GitAddress, checksum: Option<String>) -> Self {
        Self {
            remote: address.remote,
            reference: address.reference,
            subdir: address.subdir,
            checksum,
            keep_git_dir: address.keep_git_dir.unwrap_or(false),
            submodules: address.submodules.unwrap_or(true),
            fetch_by_commit: address.fetch_by_commit,
        }
    }

    /// The repository and what is meant of it, for people.
    pub fn shown(&self) -> Cow<'_, str> {
        let remote = redact::url_credentials(&self.remote);
        match (self.reference.as_str(), self.subdir.as_str()) {
            ("", "") => remote,
            (reference, "") => format!("{remote}#{reference}").into(),
            (reference, subdir) => format!("{remote}#{reference}:{subdir}").into(),
        }
    }
}
