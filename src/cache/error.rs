//! What can go wrong in a cache, sorted by what the caller can do about it.
//!
//! A miss is not here: it is `None`.

use std::{fmt, io, path::PathBuf, time::Duration};

use crate::{digest::Sha256Digest, fs::FsError, key::CacheKey};

/// The underlying error of a [`CacheError`].
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The cause of a [`CacheError::Transient`] where the cache said when to come back: a `Retry-After`.
#[derive(Debug, thiserror::Error)]
#[error("it asks to wait for {} s", .after.as_secs())]
pub struct Later {
    /// How long to wait.
    pub after: Duration,
    /// Why.
    #[source]
    pub source: Option<Cause>,
}

impl Later {
    /// The pause that a cache asked for with this error.
    pub fn asked_by(error: &CacheError) -> Option<Duration> {
        match error {
            CacheError::Transient { source, .. } => Some(source.downcast_ref::<Self>()?.after),
            _ => None,
        }
    }
}

/// What a [`CacheError`] is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A blob.
    Blob(Sha256Digest),
    /// An action.
    Action(CacheKey),
    /// A file or directory of a local store.
    Path(PathBuf),
    /// An address of a remote store.
    Url(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(digest) => write!(f, "blob `{digest}`"),
            Self::Action(key) => write!(f, "action `{key}`"),
            Self::Path(path) => write!(f, "`{}`", path.display()),
            Self::Url(url) => write!(f, "`{url}`"),
        }
    }
}

impl From<PathBuf> for Subject {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<&std::path::Path> for Subject {
    fn from(path: &std::path::Path) -> Self {
        Self::Path(path.to_owned())
    }
}

impl From<Sha256Digest> for Subject {
    fn from(digest: Sha256Digest) -> Self {
        Self::Blob(digest)
    }
}

impl From<CacheKey> for Subject {
    fn from(key: CacheKey) -> Self {
        Self::Action(key)
    }
}

/// A failure of a cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It may work if tried again: a busy database, a network failure, a 5xx.
    #[error("can't {act} {subject} at the moment")]
    Transient {
        /// The failing act, as a verb.
        act: &'static str,
        /// What it happened to.
        subject: Subject,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The bytes are not what their name says. The cache has removed them if it could.
    #[error("{subject} is corrupt: {what}")]
    Corrupt {
        /// What is corrupt.
        subject: Subject,
        /// In what way.
        what: String,
    },
    /// The cache refuses access.
    #[error("not allowed to {act} {subject}")]
    Denied {
        /// The failing act, as a verb.
        act: &'static str,
        /// What it happened to.
        subject: Subject,
        /// Why.
        #[source]
        source: Cause,
    },
    /// No room on the disk, or a quota is used up.
    #[error("can't {act} {subject}: no space left")]
    Full {
        /// The failing act, as a verb.
        act: &'static str,
        /// What it happened to.
        subject: Subject,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A write to a cache that can only be read.
    #[error("the cache {subject} is read-only")]
    ReadOnly {
        /// The cache.
        subject: Subject,
    },
    /// The store was made by a version that keeps its files otherwise.
    #[error("the cache {subject} has format version {found}; this program knows {supported}")]
    Version {
        /// The store's version file.
        subject: Subject,
        /// What it says.
        found: String,
        /// What it should say.
        supported: u32,
    },
    /// Anything else: the environment is broken, or this program is.
    #[error("can't {act} {subject}")]
    Broken {
        /// The failing act, as a verb.
        act: &'static str,
        /// What it happened to.
        subject: Subject,
        /// Why.
        #[source]
        source: Cause,
    },
}

impl CacheError {
    /// Sorts an I/O error. An error that a cache's own reader or writer hid in an
    /// [`io::Error`] comes out again as it was.
    pub fn from_io(act: &'static str, subject: impl Into<Subject>, error: io::Error) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(inner) => return inner,
            Err(error) => error,
        };
        let subject = subject.into();
        let kind = error.kind();
        let source: Cause = Box::new(error);
        match kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full {
                act,
                subject,
                source,
            },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { subject },
            io::ErrorKind::PermissionDenied => Self::Denied {
                act,
                subject,
                source,
            },
            io::ErrorKind::TimedOut
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused => Self::Transient {
                act,
                subject,
                source,
            },
            _ => Self::Broken {
                act,
                subject,
                source,
            },
        }
    }

    /// Whether trying again can help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }
}

impl From<FsError> for CacheError {
    fn from(error: FsError) -> Self {
        Self::from_io(error.act, error.path, error.source)
    }
}

/// Something the store got over by itself. The caller shows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheWarning {
    /// The index was unreadable; actions are lost, blobs are kept.
    #[error("the cache index was corrupt and has been rebuilt; the old one is `{}`", moved_to.display())]
    IndexRebuilt {
        /// Where the unreadable index lies now.
        moved_to: PathBuf,
    },
    /// The index can't be used now; this process works without known actions.
    #[error("the cache index `{}` can't be used, so nothing is known to be cached: {reason}", path.display())]
    IndexUnavailable {
        /// The index.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Results of this build are not kept.
    #[error("the cache `{}` is read-only; results of this build are not kept", path.display())]
    ReadOnly {
        /// The store's directory.
        path: PathBuf,
    },
    /// An entry that can't be read counts as a miss.
    #[error("cache entry `{entry}` is unreadable and counts as a miss: {reason}")]
    UnreadableAction {
        /// The entry's key, or its id where that isn't known.
        entry: String,
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_are_sorted_by_what_can_be_done() {
        let sort = |kind: io::ErrorKind| {
            CacheError::from_io("write", PathBuf::from("/x"), io::Error::from(kind))
        };
        assert!(matches!(
            sort(io::ErrorKind::StorageFull),
            CacheError::Full { .. }
        ));
        assert!(matches!(
            sort(io::ErrorKind::QuotaExceeded),
            CacheError::Full { .. }
        ));
        assert!(matches!(
            sort(io::ErrorKind::ReadOnlyFilesystem),
            CacheError::ReadOnly { .. }
        ));
        assert!(matches!(
            sort(io::ErrorKind::PermissionDenied),
            CacheError::Denied { .. }
        ));
        assert!(sort(io::ErrorKind::TimedOut).is_transient());
        assert!(matches!(
            sort(io::ErrorKind::InvalidInput),
            CacheError::Broken { .. }
        ));
    }

    #[test]
    fn a_cache_error_survives_a_trip_through_io() {
        let error = CacheError::Corrupt {
            subject: Sha256Digest::of(b"x").into(),
            what: "short".to_owned(),
        };
        let back = CacheError::from_io("read", PathBuf::from("/x"), io::Error::other(error));
        assert!(matches!(back, CacheError::Corrupt { .. }));
    }
}
