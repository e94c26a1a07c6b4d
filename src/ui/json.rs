//! NDJSON: one object an event, with `v`, `ms` and the fields of the event.

use std::io::Write;

use serde::Serialize;

use crate::event::{BuildEvent, EVENT_VERSION};

#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    ms: u64,
    #[serde(flatten)]
    event: &'a BuildEvent,
}

/// Writes `event` as a line to `out`.
pub(super) fn write(out: &mut dyn Write, ms: u64, event: &BuildEvent) {
    let line = Line {
        v: EVENT_VERSION,
        ms,
        event,
    };
    // A log that nobody can take must not end the build; an event is always JSON.
    if let Ok(text) = serde_json::to_string(&line) {
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }
}
