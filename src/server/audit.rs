//! Who was refused what: one line for each refusal.
//!
//! A line goes to the log (target `audit`) and, as one JSON object with its fields only ever
//! growing, to the file that the server was given: `time` (RFC 3339), `event` (`denied`),
//! `token` (its name, or null), `peer`, `namespace`, `act`, `scope`, `key`, `reason`. Tokens
//! themselves never appear.
//!
//! Lines are limited: 100 a minute of one token or address, 1,000 of all. What is left out is counted, and told
//! when the minute is over: `time`, `event` (`dropped`), `lines`.

use std::{
    collections::HashMap,
    fs::File,
    io::Write as _,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
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

/// What was not written because there was too much of it.
#[derive(Serialize)]
struct Dropped {
    time: String,
    event: &'static str,
    lines: u64,
}

/// For how long lines are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// Lines in that time of one token, or of one address without a token; and of all. Whoever floods the log
/// neither fills the disk nor hides what others are refused.
const LINES_OF_ONE: u64 = 100;
const LINES: u64 = 1_000;

/// The lines since a point in time.
#[derive(Debug)]
struct Window {
    since: Instant,
    written: u64,
    by: HashMap<String, u64>,
    dropped: u64,
}

impl Window {
    fn new(since: Instant) -> Self {
        Self {
            since,
            written: 0,
            by: HashMap::new(),
            dropped: 0,
        }
    }

    /// Whether there is room for another line of `who`.
    fn takes(&mut self, who: &str) -> bool {
        if self.written < LINES {
            // Only who gets a line is remembered, so there are not many.
            let lines = self.by.entry(who.to_owned()).or_default();
            if *lines < LINES_OF_ONE {
                *lines += 1;
                self.written += 1;
                return true;
            }
        }
        self.dropped += 1;
        false
    }

    /// Begins anew if its time is over; gives how many lines were dropped until then.
    fn turn(&mut self, now: Instant) -> u64 {
        if now.duration_since(self.since) < WINDOW {
            return 0;
        }
        std::mem::replace(self, Self::new(now)).dropped
    }
}

/// Where refusals are written to.
#[derive(Debug)]
pub(super) struct Audit {
    file: Option<Mutex<File>>,
    window: Mutex<Window>,
}

impl Audit {
    /// Appends to the file at `path`, if there is one.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, FsError> {
        let file = path.map(fs::append).transpose()?;
        Ok(Self {
            file: file.map(Mutex::new),
            window: Mutex::new(Window::new(Instant::now())),
        })
    }

    /// Writes a refusal down.
    pub(super) fn denied(&self, refusal: &Refusal<'_>) {
        self.tell_dropped(Instant::now());
        let address = || refusal.peer.rsplit_once(':').map_or("", |(host, _)| host);
        let who = refusal.token.unwrap_or_else(address);
        if !lock(&self.window).takes(who) {
            return;
        }
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
        self.write(&Line {
            time: now(),
            event: "denied",
            refusal,
        });
    }

    /// Says how many lines were dropped, once the time is over in which they were.
    pub(super) fn tell_dropped(&self, now_is: Instant) {
        let lines = lock(&self.window).turn(now_is);
        if lines > 0 {
            tracing::warn!(target: "audit", lines, "too many refusals to tell them all");
            self.write(&Dropped {
                time: now(),
                event: "dropped",
                lines,
            });
        }
    }

    /// Says the same at the end of all.
    pub(super) fn close(&self) {
        self.tell_dropped(Instant::now() + WINDOW);
    }

    fn write(&self, line: &impl Serialize) {
        let Some(file) = &self.file else { return };
        let Ok(mut text) = serde_json::to_vec(line) else {
            return;
        };
        text.push(b'\n');
        // One write, so that lines of several processes stay whole.
        if let Err(error) = lock(file).write_all(&text) {
            tracing::error!(%error, "can't write to the audit log");
        }
    }
}

fn now() -> String {
    let now = OffsetDateTime::now_utc();
    now.format(&Rfc3339).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_hides_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let audit = Audit::open(Some(&path)).unwrap();
        let refuse = |token: Option<&str>, port: u32| {
            audit.denied(&Refusal {
                token,
                peer: format!("10.0.0.1:{port}"),
                ..Refusal::default()
            });
        };
        let lines = || {
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
            lines.collect::<Vec<serde_json::Value>>()
        };
        for port in 0..5_000 {
            refuse(None, port);
        }
        assert_eq!(lines().len(), 100);
        refuse(Some("main"), 1);
        assert_eq!(lines()[100]["token"], "main");
        for number in 0..5_000_u32 {
            refuse(Some(&format!("token {number}")), 1);
        }
        assert_eq!(lines().len(), 1_000);
        audit.tell_dropped(Instant::now());
        assert_eq!(lines().len(), 1_000, "while they are counted");
        audit.close();
        assert_eq!(lines()[1_000]["event"], "dropped");
        assert_eq!(lines()[1_000]["lines"], 5_000 - 100 + 5_000 - 899);
        refuse(Some("main"), 1);
        assert_eq!(lines().len(), 1_002);
    }
}
