//! Who was refused what: one line for each refusal.
//!
//! A line goes to the log (target `audit`) and, as one JSON object with its fields only ever
//! growing, to the file that the server was given: `time` (RFC 3339), `event` (`denied`),
//! `token` (its name, or null), `peer`, `namespace`, `act`, `scope`, `key`, `reason`. Tokens
//! themselves never appear.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::{Mutex, PoisonError},
};

use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::fs::{self, FsError};

/// A refusal.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Refusal<'a> {
    /// The token's name.
    pub(super) token: Option<&'a str>,
    /// Where the request came from.
    pub(super) peer: String,
    /// The namespace it was about.
    pub(super) namespace: &'a str,
    /// What was attempted.
    pub(super) act: &'a str,
    /// In which scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<&'a str>,
    /// Under which key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    /// Why it was refused.
    pub(super) reason: &'a str,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    event: &'static str,
    #[serde(flatten)]
    refusal: &'a Refusal<'a>,
}

/// Where refusals are written to.
#[derive(Debug, Default)]
pub(super) struct Audit {
    file: Option<Mutex<File>>,
}

impl Audit {
    /// Appends to the file at `path`, if there is one.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, FsError> {
        let file = path.map(fs::append).transpose()?;
        Ok(Self {
            file: file.map(Mutex::new),
        })
    }

    /// Writes a refusal down.
    pub(super) fn denied(&self, refusal: &Refusal<'_>) {
        let Refusal {
            token,
            peer,
            namespace,
            act,
            scope,
            key,
            reason,
        } = refusal;
        tracing::warn!(
            target: "audit",
            token, peer, namespace, act, scope, key, reason,
            "denied"
        );
        let Some(file) = &self.file else { return };
        let line = Line {
            time: OffsetDateTime::now_utc()
                .format(&Rfc3339)
                .unwrap_or_default(),
            event: "denied",
            refusal,
        };
        let Ok(mut text) = serde_json::to_vec(&line) else {
            return;
        };
        text.push(b'\n');
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write, so that lines of several processes stay whole.
        if let Err(error) = file.write_all(&text) {
            tracing::error!(%error, "can't write to the audit log");
        }
    }
}
