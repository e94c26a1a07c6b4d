//! One reader of the stream, in several forms.

use std::{
    io::{IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
};

use super::{json, plain::Plain, style::Style, terminal::size_of_stderr, tty::Tty};
use crate::event::{BuildEvent, EventSink};

/// How to show progress, as `--progress` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProgressMode {
    /// Bars if stderr is a terminal, else lines.
    #[default]
    Auto,
    /// Bars.
    Tty,
    /// Lines.
    Plain,
    /// Events as NDJSON, on stderr: stdout stays data.
    Json,
    /// Warnings and failures only.
    Quiet,
}

impl ProgressMode {
    /// The mode meant by `Auto` where `bars` says whether bars make sense.
    #[must_use]
    pub fn resolve(self, bars: bool) -> Self {
        match self {
            Self::Auto if bars => Self::Tty,
            Self::Auto => Self::Plain,
            other => other,
        }
    }

    /// How many lines of a failed step's output its report repeats: a few where all of
    /// them were shown before, else what tells the cause.
    #[must_use]
    pub fn log_lines(self) -> usize {
        match self {
            Self::Plain | Self::Json => 5,
            Self::Auto | Self::Tty | Self::Quiet => 25,
        }
    }
}

/// Shows a build to a person or a program.
pub struct Progress(Mutex<Form>);

enum Form {
    Tty(Tty),
    Plain(Plain),
    Json(Box<dyn Write + Send>),
}

impl Progress {
    /// Shows what it is told on `out`, which is stderr outside of tests. `Auto` looks
    /// whether stderr is a terminal; see [`ProgressMode::resolve`] to know more.
    #[expect(clippy::new_ret_no_self, reason = "it is only used as a sink")]
    pub fn new(mode: ProgressMode, color: bool, out: Box<dyn Write + Send>) -> Arc<dyn EventSink> {
        let style = Style::new(color);
        let form = match mode.resolve(std::io::stderr().is_terminal()) {
            ProgressMode::Tty => Form::Tty(Tty::new(out, style, size_of_stderr)),
            ProgressMode::Json => Form::Json(out),
            ProgressMode::Quiet => Form::Plain(Plain::new(out, style, true)),
            ProgressMode::Plain | ProgressMode::Auto => Form::Plain(Plain::new(out, style, false)),
        };
        Arc::new(Self(Mutex::new(form)))
    }
}

impl EventSink for Progress {
    fn event(&self, ms: u64, event: &BuildEvent) {
        let mut form = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *form {
            Form::Tty(tty) => tty.event(event),
            Form::Plain(plain) => plain.event(ms, event),
            Form::Json(out) => json::write(out, ms, event),
        }
    }
}
