//! Why something could not be fetched, sorted by what the user can do about it.

use std::{io, time::Duration};

use crate::{
    cache::CacheError, digest::Sha256Digest, fs::FsError, oci::layer::LayerError, registry::Trouble,
};

/// A failed fetch. `what` is the address, credentials masked.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Not an address that a client of HTTP takes.
    #[error("`{what}` is not a valid URL")]
    Url {
        /// The address.
        what: String,
    },
    /// The HTTP client can't be set up.
    #[error("can't set up the HTTP client")]
    Client(#[source] reqwest::Error),
    /// No connection, or it broke or stalled more often than we retry.
    #[error("can't fetch `{what}`: the connection failed")]
    Unreachable {
        /// The address.
        what: String,
        /// What the network said.
        #[source]
        source: reqwest::Error,
    },
    /// The certificate or the TLS session was refused.
    #[error("can't fetch `{what}`: the server can't be trusted (TLS)")]
    Tls {
        /// The address.
        what: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Too many redirects.
    #[error("can't fetch `{what}`: it redirects to where we don't follow")]
    Redirect {
        /// The address.
        what: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// An answer other than success.
    #[error("can't fetch `{what}`: the server answers with status {status}")]
    Status {
        /// The address.
        what: String,
        /// The HTTP status.
        status: u16,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// The time for the whole fetch is up.
    #[error("can't fetch `{what}`: it took longer than {} s", limit.as_secs())]
    Deadline {
        /// The address.
        what: String,
        /// The time it had.
        limit: Duration,
    },
    /// The content is not what `--checksum` says.
    #[error("`{what}` is not what it should be: expected `{expected}`, got `{actual}`")]
    Checksum {
        /// The address.
        what: String,
        /// As asked for.
        expected: String,
        /// As found.
        actual: String,
    },
    /// The content's encoding is broken.
    #[error("can't decode the content of `{what}`")]
    Encoding {
        /// The address.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no program `git`, or it can't be started.
    #[error("can't start `git` to fetch `{what}`")]
    GitProgram {
        /// The address.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `git` failed.
    #[error("can't fetch `{what}`: `git {command}` failed: {said}")]
    Git {
        /// The address.
        what: String,
        /// Its subcommand.
        command: String,
        /// The end of what it said, credentials masked.
        said: String,
    },
    /// The repository has no such branch or tag.
    #[error("`{what}` has no branch, tag or commit `{reference}`")]
    Reference {
        /// The address.
        what: String,
        /// The name.
        reference: String,
    },
    /// The directory is not in the repository.
    #[error("`{what}` has no directory `{subdir}`")]
    Subdir {
        /// The address.
        what: String,
        /// The directory.
        subdir: String,
    },
    /// An archive that can't be unpacked.
    #[error("can't unpack the archive from `{what}`")]
    Archive {
        /// Where it is from.
        what: String,
        /// Why.
        #[source]
        source: LayerError,
    },
    /// A member of an archive that would lie elsewhere.
    #[error("can't unpack the archive from `{what}`: `{member}` leads out of it")]
    Outside {
        /// Where it is from.
        what: String,
        /// The member.
        member: String,
    },
    /// Nothing came from standard input.
    #[error("can't read from standard input")]
    Stdin(#[source] io::Error),
    /// The program is about to end.
    #[error("the fetch was interrupted")]
    Interrupted,
    /// A local file or directory.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The cache directory.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// A failed fetch for an instruction of a Dockerfile. Its message is its source's.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct FetchError {
    /// File and line.
    pub place: String,
    /// The lines of the instruction.
    pub excerpt: String,
    /// Why.
    pub source: RemoteError,
}

impl RemoteError {
    /// The digest that is wrong.
    pub(super) fn checksum(what: &str, expected: Sha256Digest, actual: Sha256Digest) -> Self {
        Self::Checksum {
            what: what.to_owned(),
            expected: expected.to_string(),
            actual: actual.to_string(),
        }
    }

    /// What the user can do.
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Unreachable { .. } | Self::Deadline { .. } => Trouble::Transient,
            Self::Status { status, .. } => match status {
                401 | 403 | 407 => Trouble::Denied,
                404 | 410 => Trouble::NotFound,
                408 | 425 | 429 | 500.. => Trouble::Transient,
                _ => Trouble::Unsupported,
            },
            Self::Reference { .. } | Self::Subdir { .. } => Trouble::NotFound,
            Self::Checksum { .. } | Self::Encoding { .. } | Self::Archive { .. } => {
                Trouble::Integrity
            }
            Self::Git { said, .. } => trouble_of_git(said),
            Self::Outside { .. } => Trouble::Integrity,
            Self::Url { .. } | Self::Redirect { .. } => Trouble::Unsupported,
            Self::Client(_)
            | Self::Tls { .. }
            | Self::GitProgram { .. }
            | Self::Stdin(_)
            | Self::Interrupted
            | Self::Fs(_)
            | Self::Cache(_) => Trouble::Local,
        }
    }

    /// What may help.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::GitProgram { .. } => Some("install `git`, or ADD an archive of the commit"),
            Self::Git { .. } if self.trouble() == Trouble::Denied => Some(
                "`git` takes credentials from its credential helpers, from `ssh-agent`, or from the address: `https://user:token@host/…`",
            ),
            Self::Status {
                status: 401 | 403, ..
            } => Some("credentials stand in the address: `https://user:password@host/…`"),
            Self::Tls { .. } => Some(
                "name your certificate authorities with the environment variable `SSL_CERT_FILE`",
            ),
            Self::Checksum { .. } => {
                Some("see whether the content changed on purpose, then correct the checksum")
            }
            _ => None,
        }
    }

    /// Whether the disk or a quota is full, or the place can't be written after all.
    pub(super) fn is_no_room(&self) -> bool {
        match self {
            Self::Fs(error) => {
                error.is_full()
                    || matches!(
                        error.source.kind(),
                        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
                    )
            }
            Self::Git { said, .. } => is_full(said),
            _ => false,
        }
    }

    /// How long the server asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Whether `git` found no room for what it fetched or checks out. A checkout doesn't say why a
/// file can't be written.
fn is_full(said: &str) -> bool {
    let texts = [
        "No space left on device",
        "Disk quota exceeded",
        "Out of diskspace",
        "unable to write file",
    ];
    texts.iter().any(|text| said.contains(text))
}

/// What kind of failure `git` tells of, in its own words of the C locale.
fn trouble_of_git(said: &str) -> Trouble {
    let has = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    // The connection breaks off too then, which is no reason to try again.
    if is_full(said) {
        return Trouble::Local;
    }
    if has(&[
        "Authentication failed",
        "could not read Username",
        "could not read Password",
        "Permission denied",
        "Host key verification failed",
        "error: 401",
        "error: 403",
        "HTTP Basic: Access denied",
    ]) {
        return Trouble::Denied;
    }
    if has(&[
        "error: 404",
        "not found",
        "does not exist",
        "not appear to be a git repository",
        "couldn't find remote ref",
        "not our ref",
        "unadvertised object",
    ]) {
        return Trouble::NotFound;
    }
    if has(&[
        "Could not resolve host",
        "Connection refused",
        "Connection reset",
        "Connection timed out",
        "Failed to connect",
        "timed out",
        "early EOF",
        "hung up unexpectedly",
        "unexpected disconnect",
        "Empty reply from server",
        "Operation too slow",
        "error: 408",
        "error: 429",
        "error: 50",
    ]) {
        return Trouble::Transient;
    }
    Trouble::Unsupported
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_says_is_sorted() {
        for (said, trouble) in [
            (
                "fatal: unable to access 'http://h/': The requested URL returned error: 503",
                Trouble::Transient,
            ),
            (
                "fatal: unable to access 'http://h/': Could not resolve host: h",
                Trouble::Transient,
            ),
            (
                "fatal: could not read Username for 'http://h': terminal prompts disabled",
                Trouble::Denied,
            ),
            ("git@h: Permission denied (publickey).", Trouble::Denied),
            (
                "fatal: repository 'http://h/x.git/' not found",
                Trouble::NotFound,
            ),
            ("fatal: couldn't find remote ref x", Trouble::NotFound),
            ("fatal: bad object", Trouble::Unsupported),
            (
                "fatal: write error: No space left on device; fatal: early EOF",
                Trouble::Local,
            ),
            (
                "error: unable to write file a; fatal: '/x/index.lock' write error. Out of diskspace",
                Trouble::Local,
            ),
        ] {
            assert_eq!(trouble_of_git(said), trouble, "{said}");
        }
    }
}
