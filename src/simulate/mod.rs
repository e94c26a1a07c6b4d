//! The pipeline on a machine of one's own: events that no platform sent, and history again.
//!
//! [`synthesize`] says by which variables and which description a CI platform would tell of an event: what
//! [`crate::ci::detect`] makes of them is what it makes of real ones. [`Replay`] is told what each
//! commit of a history would build, and tells what a cache would have spared ([`History`]).
//!
//! Neither talks to anybody: who calls them brings the facts.
//!
//! The JSON form of a [`History`] has the version [`HISTORY_VERSION`]; fields are only ever added.

mod event;
mod fault;
mod fix;
mod history;
mod html;
mod replay;
mod variables;

pub use event::{EventKind, Facts, NoSuchEvent, PLATFORMS, SyntheticEvent, synthesize};
pub use fault::{Fault, FaultyCache};
pub use history::{
    Amount, HISTORY_VERSION, History, Invalidation, PlayedCommit, PlayedTarget, TargetHistory,
    Totals,
};
pub use html::page;
pub use replay::{Costs, Moment, Replay};

#[cfg(test)]
mod tests;
