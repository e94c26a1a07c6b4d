//! Failures of a storage service, sorted.
//!
//! What a service says in a failure can hold an address with a signature in its query, so a cause
//! is made anew of the kind and the service's own message; nothing else is kept.

use std::{error::Error as StdError, io};

use opendal::ErrorKind;

use crate::cache::{CacheError, Subject};

/// Longest message of a service that is passed on, in characters.
const LONGEST: usize = 300;

/// What a storage service answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServiceError {
    /// It refused or failed.
    #[error("the storage service answers `{message}`")]
    Answer {
        /// What it said, on one line.
        message: String,
    },
    /// Nobody answered.
    #[error("the storage service can't be reached: {reason}")]
    Unreachable {
        /// The innermost reason.
        reason: String,
    },
    /// No credentials.
    #[error("{reason}")]
    Credentials {
        /// Which ones are missing, or what is wrong with them.
        reason: String,
    },
}

/// Whether `error` says that there is no such object.
pub(super) fn is_absent(error: &opendal::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

/// Sorts a failure of `act` on `subject`.
pub(super) fn sorted(
    act: &'static str,
    subject: impl Into<Subject>,
    error: opendal::Error,
) -> CacheError {
    let subject = subject.into();
    let inner = innermost(&error);
    if !is_remote(&error)
        && let Some(error) = inner.downcast_ref::<io::Error>()
    {
        // The kind and the text are all that an I/O error has.
        let error = match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(error.kind(), error.to_string()),
        };
        return CacheError::from_io(act, subject, error);
    }
    if let Some(reason) = credentials(&error) {
        return CacheError::Denied {
            act,
            subject,
            source: Box::new(ServiceError::Credentials { reason }),
        };
    }
    // A failure that has an inner one didn't come from the service.
    let source = Box::new(match error.source() {
        Some(_) => ServiceError::Unreachable {
            reason: one_line(&inner.to_string()),
        },
        None => ServiceError::Answer {
            message: one_line(error.message()),
        },
    });
    match error.kind() {
        ErrorKind::PermissionDenied => CacheError::Denied {
            act,
            subject,
            source,
        },
        ErrorKind::RateLimited => CacheError::Transient {
            act,
            subject,
            source,
        },
        _ if error.is_temporary() => CacheError::Transient {
            act,
            subject,
            source,
        },
        _ => CacheError::Broken {
            act,
            subject,
            source,
        },
    }
}

/// The last of the chain of causes.
fn innermost(error: &opendal::Error) -> &(dyn StdError + 'static) {
    let mut last: &(dyn StdError + 'static) = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last
}

/// Whether it happened on the way to a service.
fn is_remote(error: &opendal::Error) -> bool {
    let mut next = error.source();
    while let Some(error) = next {
        if error.is::<reqwest::Error>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// What is wrong with the credentials, if that is the matter.
fn credentials(error: &opendal::Error) -> Option<String> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<reqsign_core::Error>() {
            use reqsign_core::ErrorKind as Kind;
            let known = match error.kind() {
                Kind::CredentialInvalid => Some("no credentials are found, or they have expired"),
                Kind::ConfigInvalid | Kind::PermissionDenied => Some("the credentials are refused"),
                _ => None,
            };
            return known.map(str::to_owned);
        }
        next = error.source();
    }
    None
}

/// `text` on one line and not too long. Control characters are left out.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let mut line = String::new();
    for word in words.filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sort(error: opendal::Error) -> CacheError {
        sorted("read", Subject::Url("s3://b".to_owned()), error)
    }

    #[test]
    fn failures_are_sorted_by_what_can_be_done() {
        let of = |kind| sort(opendal::Error::new(kind, "text"));
        assert!(matches!(
            of(ErrorKind::PermissionDenied),
            CacheError::Denied { .. }
        ));
        assert!(of(ErrorKind::RateLimited).is_transient());
        assert!(matches!(
            of(ErrorKind::ConfigInvalid),
            CacheError::Broken { .. }
        ));
        assert!(matches!(
            of(ErrorKind::Unexpected),
            CacheError::Broken { .. }
        ));
        let busy = opendal::Error::new(ErrorKind::Unexpected, "busy").set_temporary();
        assert!(sort(busy).is_transient());
        let full = opendal::Error::new(ErrorKind::Unexpected, "write")
            .set_source(io::Error::from(io::ErrorKind::StorageFull));
        assert!(matches!(sort(full), CacheError::Full { .. }));
    }

    #[test]
    fn missing_credentials_are_a_denial() {
        let cause = reqsign_core::Error::credential_invalid("failed");
        let error = opendal::Error::new(ErrorKind::Unexpected, "signing").set_source(cause);
        let error = sort(error);
        assert!(matches!(error, CacheError::Denied { .. }), "{error:?}");
    }

    #[test]
    fn a_cause_holds_no_address_and_stands_on_one_line() {
        let error = opendal::Error::new(ErrorKind::PermissionDenied, "no\n\u{1b}[31m entry")
            .with_context("uri", "https://x.example/?sig=hunter2");
        let error = sort(error);
        let cause = StdError::source(&error).unwrap();
        assert_eq!(
            cause.to_string(),
            "the storage service answers `no [31m entry`"
        );
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
