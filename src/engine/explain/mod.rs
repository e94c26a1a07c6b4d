//! Why steps run: for `explain`, and for builds that say it of each step that they execute.
//!
//! A step without an entry is compared with the nearest one in the local store ([`History`]): their
//! recipes are taken apart ([`KeyDiff`](crate::key::KeyDiff)), and what a recipe has only as a digest comes from a note
//! that the build left beside the entry (`note`). A difference in an input is followed down
//! to where it began. [`forecast()`] does that for all steps of a graph, without executing or saving
//! anything. Remote caches can't be searched by step; what they are asked for is keys.

mod forecast;
mod history;
mod inquiry;
mod note;
mod told;

pub use forecast::{Forecast, Outlook, Verdict, forecast};
pub use history::History;
pub use inquiry::{Cause, CommitOf, Miss};
