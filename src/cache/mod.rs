//! The cache: an action cache and a blob store.
//!
//! An *action* is the result of a step, kept under a [`CacheKey`](crate::key::CacheKey): a small JSON
//! [`ActionResult`] that names blobs. A *blob* is bytes under their SHA-256. Both are
//! narrow traits, [`ActionCache`] and [`BlobStore`], with one [`conformance`] suite
//! for everything that implements them. [`DiskStore`] is the local store, shared by
//! all processes of a machine; behind it stand [`Tier`]s that machines share. A build looks
//! through all of them by way of a [`TieredStore`], and a [`Saver`] brings them what it made.
//! [`MemoryStore`] serves tests.
//!
//! Four outcomes are kept apart all the way up: a miss is `None`, and a
//! [`CacheError`] says whether trying again can help, whether bytes are wrong, or
//! whether something is broken. A caller that is building treats every error as a
//! miss and says so with an event; no trouble of a cache fails a build.
//!
//! Every entry belongs to a trust [`Scope`]; a build reads those of its [`SearchOrder`].
//!
//! The layout of the local store is specified in `docs/internals/storage-format.md`.

pub mod actions_service;
pub mod bundle;
pub mod conformance;
mod contract;
mod disk;
mod error;
mod gc;
pub mod guard;
pub mod http;
mod line;
mod memory;
#[cfg(feature = "object-storage")]
pub mod object;
mod oci;
pub mod open;
mod rate;
mod record;
mod save;
mod scope;
mod tier;
mod tiered;
pub mod trust;
mod vouch;

pub use contract::{ActionCache, Blob, BlobSource, BlobStore, BoxFuture, VerifyingReader};
pub use disk::{
    BlobFile, BlobWriter, BuildLease, DiskStore, PendingFile, PendingSave, StoreStats,
    StoredAction, VerifiedBlob, VerifyReport,
};
pub use error::{CacheError, CacheWarning, Cause, Later, Subject};
pub use gc::{
    ActionUse, BlobUse, DerivedData, DerivedUse, GcPlan, GcPolicy, GcReport, Inventory, plan,
};
pub use memory::MemoryStore;
pub use oci::{EntryError, RegistryCache};
pub use record::{
    ActionResult, MAX_ENTRY, Producer, RECORD_VERSION, RecordError, Signature, StepInfo,
};
pub use save::{SaveJob, SaveReport, Saver};
pub use scope::{EntryId, Scope, ScopeError, SearchOrder, Trust};
pub use tier::{Access, Tier, TierAddress, TierAddressError, TierKind};
pub use tiered::{Download, FoundAction, Peeked, Piece, Pushed, RefusedEntry, TieredStore};
pub use vouch::Vouching;
