//! What can go wrong with a registry, sorted by what the user can do about it.

use std::{fmt, io, sync::Arc, time::Duration};

use super::credentials::CredentialsError;
use crate::{
    digest::Sha256Digest,
    fs::FsError,
    oci::{ManifestError, Platform, layout::LayoutError, reference::ParseReferenceError},
};

/// What was asked for and of whom; the beginning of every message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What is done.
    pub act: Act,
    /// An image reference, or a blob of a repository.
    pub what: String,
    /// The registry's host as in references.
    pub host: Box<str>,
}

/// What is done with a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Something is read.
    Get,
    /// Something is written.
    Push,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::Push => "push",
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.what)
    }
}

/// What the user can do: wait, log in, look for a mistake, distrust, use another image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// Safe to try again later (exit code 40).
    Transient,
    /// Credentials are missing, wrong or not enough (exit code 41).
    Denied,
    /// There is no such image (exit code 42).
    NotFound,
    /// Bytes don't have the digest or size that they were asked by (exit code 43).
    Integrity,
    /// The image or the registry does something we can't use.
    Unsupported,
    /// The fault is on this machine: disk, certificates, a setting.
    Local,
}

impl From<&LayoutError> for Trouble {
    /// The class of a failure to read an image from a layout.
    fn from(error: &LayoutError) -> Self {
        match error {
            LayoutError::NotFound { .. }
            | LayoutError::NotOne { .. }
            | LayoutError::NotALayout { .. }
            | LayoutError::NoPlatform { .. } => Self::NotFound,
            LayoutError::Corrupt { .. } => Self::Integrity,
            // A layout that lacks a blob is broken, not absent.
            LayoutError::File(error) if error.is_not_found() => Self::Integrity,
            LayoutError::Version { .. }
            | LayoutError::Index { .. }
            | LayoutError::TooLarge { .. }
            | LayoutError::Manifest { .. } => Self::Unsupported,
            LayoutError::File(_) | LayoutError::Occupied { .. } => Self::Local,
        }
    }
}

/// How received bytes differ from what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntegrityError {
    /// Another digest.
    #[error("expected the digest `{expected}`, got `{actual}`")]
    Digest {
        /// As asked for.
        expected: Sha256Digest,
        /// As computed.
        actual: Sha256Digest,
    },
    /// The registry names a digest that its own bytes don't have.
    #[error("the registry says its digest is `{claimed}`, but it is `{actual}`")]
    Claim {
        /// The `Docker-Content-Digest` header.
        claimed: String,
        /// As computed.
        actual: Sha256Digest,
    },
    /// Another number of bytes.
    #[error("expected {expected} bytes, got {actual}")]
    Size {
        /// As the descriptor says.
        expected: u64,
        /// As received or announced.
        actual: u64,
    },
    /// A resumed download continues elsewhere.
    #[error("asked to continue at byte {expected}, the registry answered with `{actual}`")]
    Range {
        /// Where we asked to continue.
        expected: u64,
        /// The `Content-Range` header.
        actual: String,
    },
}

/// A failed conversation with a registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No connection, or it broke or stalled more often than we retry.
    #[error("can't {} {subject}: the connection to `{}` failed", subject.act, subject.host)]
    Unreachable {
        /// What was asked for.
        subject: Subject,
        /// What the network said.
        #[source]
        source: reqwest::Error,
    },
    /// The certificate or the TLS session was refused.
    #[error("can't {} {subject}: `{}` can't be trusted (TLS)", subject.act, subject.host)]
    Tls {
        /// What was asked for.
        subject: Subject,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// A redirect to plain http, or too many of them.
    #[error("can't {} {subject}: `{}` redirects to where we don't follow", subject.act, subject.host)]
    Redirect {
        /// What was asked for.
        subject: Subject,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The registry failed with 5xx or 408.
    #[error("can't {} {subject}: `{}` failed with status {status}{}", subject.act, subject.host, Said(message))]
    Server {
        /// What was asked for.
        subject: Subject,
        /// The HTTP status.
        status: u16,
        /// What the registry said.
        message: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// Too many requests.
    #[error("can't {} {subject}: `{}` limits the rate of requests{}", subject.act, subject.host, Wait(retry_after))]
    RateLimited {
        /// What was asked for.
        subject: Subject,
        /// How long the registry asks to wait.
        retry_after: Option<Duration>,
    },
    /// Nothing has moved for too long.
    #[error("can't {} {subject}: `{}` has been silent for {} s", subject.act, subject.host, limit.as_secs_f64())]
    Stalled {
        /// What was asked for.
        subject: Subject,
        /// The longest silence that is borne.
        limit: Duration,
    },
    /// The time for the whole operation is up.
    #[error("can't {} {subject}: `{}` took longer than {} s", subject.act, subject.host, limit.as_secs_f64())]
    Deadline {
        /// What was asked for.
        subject: Subject,
        /// The time it had.
        limit: Duration,
    },
    /// The registry refuses.
    #[error("can't {} {subject}: access denied by `{}`{}", subject.act, subject.host, Said(message))]
    Denied {
        /// What was asked for.
        subject: Subject,
        /// What the registry said.
        message: String,
        /// Whether we had credentials to show.
        with_credentials: bool,
    },
    /// There is no room left for the user.
    #[error("can't {} {subject}: no space left in `{}`{}", subject.act, subject.host, Said(message))]
    Quota {
        /// What was to be pushed.
        subject: Subject,
        /// What the registry said.
        message: String,
    },
    /// The registry takes no pushes.
    #[error("can't {} {subject}: `{}` is read-only{}", subject.act, subject.host, Said(message))]
    ReadOnly {
        /// What was to be pushed.
        subject: Subject,
        /// What the registry said.
        message: String,
    },
    /// The registry doesn't accept what was pushed, for instance a manifest whose blobs it lacks.
    #[error("can't {} {subject}: refused by `{}`{}", subject.act, subject.host, Said(message))]
    Refused {
        /// What was to be pushed.
        subject: Subject,
        /// What the registry said.
        message: String,
    },
    /// The credentials can't be had.
    #[error("can't {} {subject}: no credentials for `{}`", subject.act, subject.host)]
    Credentials {
        /// What was asked for.
        subject: Subject,
        /// Why.
        #[source]
        source: CredentialsError,
    },
    /// No such image or blob.
    #[error("{subject} does not exist in `{}`{}", subject.host, Said(message))]
    NotFound {
        /// What was asked for.
        subject: Subject,
        /// What the registry said.
        message: String,
    },
    /// The image is not there for this platform.
    #[error("{subject} has no image for `{platform}`")]
    NoPlatform {
        /// What was asked for.
        subject: Subject,
        /// The platform asked for.
        platform: Box<Platform>,
        /// The platforms it has.
        available: Vec<Platform>,
    },
    /// The bytes are not those asked for.
    #[error("{subject} from `{}` is corrupt", subject.host)]
    Integrity {
        /// What was asked for.
        subject: Subject,
        /// How they differ.
        #[source]
        source: IntegrityError,
    },
    /// The manifest is no image we can build on.
    #[error("{subject} can't be used")]
    Manifest {
        /// What was asked for.
        subject: Subject,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// There is no such part of a blob, or an upload is not where we think.
    #[error("can't {} {subject}: `{}` refuses the range", subject.act, subject.host)]
    Range {
        /// What was asked for.
        subject: Subject,
    },
    /// The registry answered outside of the protocol.
    #[error("can't {} {subject}: `{}` {problem}", subject.act, subject.host)]
    Protocol {
        /// What was asked for.
        subject: Subject,
        /// What it did, as a verb phrase.
        problem: String,
    },
    /// The repository is not `host/path`.
    #[error("the repository is not valid")]
    Repository(#[from] ParseReferenceError),
    /// The bytes can't be stored.
    #[error("can't store {subject}")]
    Write {
        /// What was asked for.
        subject: Subject,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The bytes to be pushed can't be read.
    #[error("can't push {subject}")]
    Read {
        /// What was to be pushed.
        subject: Subject,
        /// Why.
        #[source]
        source: FsError,
    },
    /// The HTTP client can't be set up, for instance for want of root certificates.
    #[error("can't set up the HTTP client")]
    Client(#[source] Arc<reqwest::Error>),
}

/// `: message`, or nothing.
struct Said<'a>(&'a str);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            message => write!(f, ": {message}"),
        }
    }
}

/// ` and asks to wait …`, or nothing.
struct Wait<'a>(&'a Option<Duration>);

impl fmt::Display for Wait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(wait) => write!(f, " and asks to wait {} s", wait.as_secs()),
            None => Ok(()),
        }
    }
}

impl RegistryError {
    /// What the user can do about it.
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Unreachable { .. }
            | Self::Server { .. }
            | Self::RateLimited { .. }
            | Self::Stalled { .. }
            | Self::Deadline { .. } => Trouble::Transient,
            Self::Denied { .. }
            | Self::Credentials { .. }
            | Self::Quota { .. }
            | Self::ReadOnly { .. } => Trouble::Denied,
            Self::NotFound { .. } | Self::NoPlatform { .. } => Trouble::NotFound,
            Self::Integrity { .. } => Trouble::Integrity,
            Self::Manifest { .. }
            | Self::Protocol { .. }
            | Self::Redirect { .. }
            | Self::Range { .. }
            | Self::Refused { .. } => Trouble::Unsupported,
            Self::Tls { .. }
            | Self::Repository(_)
            | Self::Write { .. }
            | Self::Read { .. }
            | Self::Client(_) => Trouble::Local,
        }
    }

    /// What to do next, where we know.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Denied {
                subject,
                with_credentials,
                ..
            } => Some(match with_credentials {
                false => format!("log in with `{}`", login(&subject.host)),
                true => format!(
                    "the credentials for `{}` don't allow it; check the name, or log in again with `{}`",
                    subject.host,
                    login(&subject.host)
                ),
            }),
            Self::Credentials { subject, .. } => {
                Some(format!("log in again with `{}`", login(&subject.host)))
            }
            Self::RateLimited { subject, .. } => Some(format!(
                "registries allow more to known users: log in with `{}`",
                login(&subject.host)
            )),
            Self::NotFound { .. } => Some("check the name and the tag".to_owned()),
            Self::NoPlatform { available, .. } if !available.is_empty() => {
                let names: Vec<String> = available.iter().map(|p| format!("`{p}`")).collect();
                Some(format!("it has {}", names.join(", ")))
            }
            Self::Tls { subject, .. } => Some(format!(
                "trust the authority that signed the certificate of `{}`; plain http is spoken with this machine only",
                subject.host
            )),
            Self::Unreachable { subject, .. } => Some(format!(
                "check the network, `HTTPS_PROXY`, and the name `{}`",
                subject.host
            )),
            Self::Client(_) => Some(
                "install the system's root certificates (package `ca-certificates`)".to_owned(),
            ),
            _ => None,
        }
    }

    /// Whether the same request may succeed when repeated.
    pub(super) fn may_pass(&self) -> bool {
        self.trouble() == Trouble::Transient && !matches!(self, Self::Deadline { .. })
    }

    /// How long the registry asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Server { retry_after, .. } | Self::RateLimited { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }
}

/// The command that logs in to `host`.
fn login(host: &str) -> String {
    match host {
        "docker.io" => "docker login".to_owned(),
        host => format!("docker login {host}"),
    }
}

/// Whether `error` came out of the TLS layer.
pub(crate) fn is_tls(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return true;
        }
        // An `io::Error` hides what it wraps from `source()`.
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}

/// Whether what a registry says with a refusal means that the user's room is used up; there is
/// no code for it.
pub(super) fn is_quota(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    [
        "quota",
        "storage limit",
        "exceed the configured upper limit",
    ]
    .iter()
    .any(|sign| message.contains(sign))
}

/// The first message of a registry's error document, shortened and printable; empty
/// if there is none (distribution specification 1.1, "Error Codes").
pub(super) fn message_in(body: &[u8]) -> String {
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(body) else {
        return String::new();
    };
    // Token servers say `details` or `error_description`.
    let text = [
        "/errors/0/message",
        "/errors/0/code",
        "/details",
        "/error_description",
    ]
    .iter()
    .find_map(|path| document.pointer(path)?.as_str().filter(|s| !s.is_empty()))
    .unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_and_who_and_hints_can_be_pasted() {
        let subject = Subject {
            act: Act::Get,
            what: "ghcr.io/acme/app:1".to_owned(),
            host: "ghcr.io".into(),
        };
        let error = RegistryError::Denied {
            subject: subject.clone(),
            message: "nope".to_owned(),
            with_credentials: false,
        };
        assert_eq!(
            error.to_string(),
            "can't get `ghcr.io/acme/app:1`: access denied by `ghcr.io`: nope"
        );
        assert_eq!(error.hint().unwrap(), "log in with `docker login ghcr.io`");
        let error = RegistryError::RateLimited {
            subject,
            retry_after: Some(Duration::from_secs(90)),
        };
        assert_eq!(
            error.to_string(),
            "can't get `ghcr.io/acme/app:1`: `ghcr.io` limits the rate of requests and asks to wait 90 s"
        );
        assert_eq!(error.trouble(), Trouble::Transient);
    }

    #[tokio::test]
    async fn failures_of_tls_are_told_apart() {
        use std::io::{Read as _, Write as _};

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1000]).unwrap();
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .unwrap();
        });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]);
        let client = client.build().unwrap();
        let error = client.get(format!("https://{address}/")).send().await;
        assert!(is_tls(&error.unwrap_err()));
        server.join().unwrap();
        let error = client.get(format!("https://{address}/")).send().await;
        assert!(
            !is_tls(&error.unwrap_err()),
            "refused connections are no TLS"
        );
    }

    #[test]
    fn the_registrys_own_words_are_made_safe() {
        let body = br#"{"errors":[{"code":"DENIED","message":"a\u001b[31mb\n"}]}"#;
        assert_eq!(message_in(body), "a[31mb");
        assert_eq!(message_in(b"<html>"), "");
        let long = format!(r#"{{"details":"{}"}}"#, "x".repeat(1000));
        assert_eq!(message_in(long.as_bytes()).len(), 200);
    }
}
