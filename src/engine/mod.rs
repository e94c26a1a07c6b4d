//! The engine: solves a graph, vertex by vertex, from the targets backwards.
//!
//! # How a vertex is solved
//!
//! 1. All definition keys are computed from the graph and from scans of the local
//!    contexts, and looked up in one batch.
//! 2. A definition hit stands if its recorded parent is the chain that the vertex's root
//!    turned out to have. Only the root is solved for that, not what a COPY reads; should
//!    another step need that too, and find something else there than the hit was made of,
//!    the hit is *stale*: the solve is repeated without it, by content keys.
//! 3. Otherwise all inputs are solved and the content key is looked up: a dirty parent
//!    with equal content ends here.
//! 4. Otherwise the vertex is executed: RUN in the sandbox, COPY and its kin from
//!    metadata and contents. Its layer goes to the store, its entry under both keys.
//!
//! # Laziness and lost bytes
//!
//! Results are metadata. Bytes are wanted by a RUN (to unpack), by a COPY (contents) and
//! by an export. A base image's bytes are fetched again where they are gone, a step's from
//! the tiers; a step's bytes that nobody has make its vertex *distrusted*: the solve is repeated, in which that
//! vertex is executed and everything else is a hit, as the first round left it. Every
//! repetition distrusts one more vertex, so it ends.

mod attempt;
mod bytes;
pub mod contexts;
mod error;
mod exec;
pub mod explain;
mod file_step;
pub mod files;
mod log;
mod mount_dirs;
mod mount_state;
mod mount_trees;
mod mounts;
mod pulled_index;
mod recompress;
mod restore;
mod result;
mod session;
mod unpack;
mod user;

pub use bytes::LayerBytes;
pub use error::{BuildError, FailedStep, ProcessEnd};
pub use exec::snapshot_access;
pub use mount_dirs::MountDirs;
pub use recompress::{BaseLayers, ExportCompression};
pub use result::{ResultLayer, VertexResult};
pub use session::{Built, BuiltTarget, Session};
pub use user::{ProcessUser, UserDatabase, UserError};

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    cache::{DiskStore, Producer, SearchOrder, Tier, Vouching},
    event::Events,
    oci::layer::LayerOptions,
    redact::{Redactor, SecretBytes},
    registry::Registry,
    ssh::Agents,
};

/// What a build works with.
#[derive(Debug, Clone)]
pub struct Engine {
    /// The local store.
    pub store: Arc<DiskStore>,
    /// The caches behind it, in the order in which they are asked.
    pub tiers: Vec<Tier>,
    /// What is demanded of their entries, and given to those that go there.
    pub vouching: Vouching,
    /// Base images come from here.
    pub registry: Arc<Registry>,
    /// What happens is told here.
    pub events: Events,
    /// Hides secrets in step output.
    pub redactor: Arc<Redactor>,
    /// Cancelled by an interrupt.
    pub stop: CancellationToken,
    /// Settings.
    pub options: EngineOptions,
}

/// Settings of the engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Steps executed at the same time.
    pub jobs: usize,
    /// Whether to say of each executed step why it was.
    pub explain: bool,
    /// Whether known noise is dropped from what a RUN changed.
    pub normalise: bool,
    /// How new layers are compressed.
    pub layer: LayerOptions,
    /// Longest time a RUN may take.
    pub step_timeout: Option<Duration>,
    /// A bundle of CA certificates shown to RUN.
    pub ca_certificates: Option<PathBuf>,
    /// Proxy variables given to RUN; in no key.
    pub proxies: Vec<(String, String)>,
    /// What `--mount=type=secret` shows, by id; in no key.
    pub secrets: BTreeMap<String, SecretBytes>,
    /// What `--mount=type=ssh` leads to; in no key.
    pub agents: Agents,
    /// Our own program, which hidden subcommands are started from.
    pub program: PathBuf,
    /// Where sockets for steps are made.
    pub temp_dir: PathBuf,
    /// Who executes.
    pub producer: Producer,
    /// The trust scopes that entries are looked for in, and the one they are written under.
    pub scopes: SearchOrder,
    /// Bytes up to which the tree of a cache mount, as a tar, is saved to the tiers and restored from them;
    /// none if that is not done.
    pub mount_limit: Option<u64>,
}
