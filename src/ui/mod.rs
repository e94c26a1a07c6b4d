//! What a person sees: the progress of a build, its summary, and error reports.
//!
//! [`Progress`] reads the stream of [`BuildEvent`](crate::event::BuildEvent)s in one of
//! the ways of [`ProgressMode`]; [`report()`] writes an error. Everything here is talk and
//! goes to stderr; all of it can be understood without colour. Text that comes from
//! steps, registries or files is made harmless first: control characters and escape
//! sequences never reach the terminal or the log.

mod json;
mod plain;
mod progress;
mod report;
mod style;
mod summary;
mod terminal;
mod text;
mod tty;

pub use progress::{Progress, ProgressMode};
pub use report::{ReportOptions, report};
pub use text::{bytes, harmless, inert, millis};

#[cfg(test)]
mod tests;
