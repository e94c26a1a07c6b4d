//! Git repositories, read without a checkout.
//!
//! [`Repository`] finds commits, their [`Tree`]s and what [`ChangedPaths`] lie between two of
//! them. [`scan()`] sees a directory of a tree as [`context::scan`](crate::context::scan) would see it
//! on disk after a checkout: the same rows, so the same keys.
//!
//! # Whom it trusts
//!
//! Objects are read by a library, in this process. Nothing that a repository or its
//! configuration names is ever started on the way: no hook, no filter driver, no `textconv`,
//! no `fsmonitor`, no alias. What only such a program could tell is [`Unknown`] and is told
//! as that. Variables such as `GIT_DIR` mean nothing here. A repository that belongs to
//! another user may be read; its configuration then names no file outside that would be read.
//!
//! # Versions of formats
//!
//! The digests of objects' contents are remembered between runs (`memo`);
//! `docs/internals/storage-format.md` has the format.

mod at_hand;
mod attributes;
pub mod base;
mod changes;
mod checkout;
mod commit;
mod content;
mod conversion;
mod error;
mod fetch;
mod listing;
mod memo;
mod object_id;
mod program;
mod repository;
pub mod resolve;
mod scan;
mod scan_inputs;
mod tree;
mod worktree;
mod write_out;

pub use changes::{Change, ChangeKind, ChangedPaths};
pub use commit::Commit;
pub use error::GitError;
pub use object_id::{ObjectId, ParseObjectIdError};
pub use program::FetchSettings;
pub use repository::{Repository, Surroundings};
pub use scan::{ContentIdentity, ScanOptions, ScannedTree, Unknown, UnknownReason, scan};
pub use scan_inputs::scan_inputs;
pub use tree::{Tree, TreeEntry, TreeEntryKind};
pub use worktree::{WorktreeChange, WorktreeState, scan_worktree};
pub use write_out::write_out;

#[cfg(test)]
mod tests;
