//! The build graph: vertices, what they need, what they do.
//!
//! A [`BuildGraph`] holds the vertices of all targets and platforms. Lowering
//! (`lower`) makes it from parsed Dockerfiles; equal vertices are made once. An edge
//! always points to a vertex with a smaller [`VertexId`], so the order of the list is
//! a topological order and cycles can't be expressed. A vertex's result is a root
//! file system: the layers of its *root* input, and at most one of its own. Image
//! configurations are computed while lowering, because no step's execution changes
//! them.

mod environment;
pub mod extras;
pub mod lower;
mod shared_map;
pub mod source;

pub use environment::Environment;
pub use extras::{LimitName, SecretVariable, StepExtras, Ulimit, UlimitError};
pub use lower::{
    LowerError, LowerInput, LowerWarning, Lowered, NamedContext, NoCache, Parent, StepSettings,
    lower, needed_images,
};
pub use source::{GitSource, HttpSource, MissingSource, RemoteSource, SourceTable};

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    digest::Sha256Digest,
    oci::{ImageConfig, Platform, layer::LayerBlob},
};

/// Number of a vertex in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VertexId(pub usize);

/// All vertices of a build, and the targets asked for.
#[derive(Debug, Clone, Default)]
pub struct BuildGraph {
    /// In topological order.
    pub vertices: Vec<Vertex>,
    /// What is to be built and exported.
    pub targets: Vec<GraphTarget>,
    /// The local directories that `Op::Context` vertices name by position.
    pub contexts: Vec<LocalContext>,
    /// The texts of the Dockerfiles by the names that locations use, for errors.
    pub dockerfiles: BTreeMap<String, String>,
}

/// One image asked for.
#[derive(Debug, Clone)]
pub struct GraphTarget {
    /// Name for people, for instance `ml (cpu, linux/amd64)`.
    pub name: String,
    /// The platform it is for.
    pub platform: Platform,
    /// Its root file system.
    pub root: VertexId,
    /// The configuration, complete but for `rootfs.diff_ids` and for `created` and
    /// `empty_layer` of the history entries in `history`.
    pub config: ImageConfig,
    /// For each entry of `config.history` that this build added, in order (they are the last
    /// ones): the vertex that made its layer, or none for a metadata instruction.
    pub history: Vec<Option<VertexId>>,
}

/// A directory that instructions copy from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalContext {
    /// `context` for the main one, else the name given with `--build-context`.
    pub name: String,
    /// Absolute directory on the host.
    pub dir: PathBuf,
    /// The text of the ignore file that applies; empty if there is none.
    pub ignore: String,
}

/// Where in which Dockerfile a vertex comes from. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Location {
    /// The Dockerfile as the user named it.
    pub file: Arc<str>,
    /// First line of the instruction.
    pub start: usize,
    /// Last line of the instruction, inclusive.
    pub end: usize,
}

/// One step, or one source.
#[derive(Debug, Clone)]
pub struct Vertex {
    /// What it does.
    pub op: Op,
    /// Name for people: `[ml 2/5] RUN pip install numpy`.
    pub name: String,
    /// The instruction as written (expanded, on one line) for errors: `RUN pip install numpy`.
    pub instruction: String,
    /// The target that brought it first.
    pub target: Arc<str>,
    /// The stage's name or number, for errors.
    pub stage: Arc<str>,
    /// The platform it is executed for.
    pub platform: Arc<Platform>,
    /// Where it was written; none for sources without a line.
    pub location: Option<Location>,
    /// Whether cached results must not be used (`--no-cache`).
    pub no_cache: bool,
    /// The age from which a cached result is not used any more.
    pub max_age: Option<Duration>,
}

/// What a vertex does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Gives the root file system without anything in it.
    Scratch,
    /// Gives a base image's root file system.
    Image(ImageOp),
    /// Gives the files of `BuildGraph::contexts[n]`; only Copy reads it.
    Context(usize),
    /// Runs a process on `root` and takes what it changed.
    Exec(ExecOp),
    /// Puts files on `root`.
    File(FileOp),
}

/// A base image, resolved to a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageOp {
    /// As the user wrote it, expanded: `debian:12`.
    pub reference: String,
    /// Digest of the platform's manifest: in the key.
    pub manifest: Sha256Digest,
    /// The layers, lowest first; their `index` is none until somebody read them.
    pub layers: Vec<LayerBlob>,
    /// Where the bytes can be had.
    pub origin: ImageOrigin,
}

/// Where an image's blobs lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageOrigin {
    /// In a registry, under this full reference (`host/repository`).
    Registry {
        /// For instance `registry-1.docker.io/library/debian`.
        repository: String,
    },
    /// In an OCI layout directory.
    Layout {
        /// Absolute directory.
        dir: PathBuf,
    },
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOp {
    /// The root file system it runs on and changes.
    pub root: VertexId,
    /// The process and its arguments, shell included: `["/bin/sh", "-c", "…"]`.
    pub args: Vec<String>,
    /// What the process sees, complete: image ENV and visible ARGs, in the order in which
    /// they were set last. Without the values that the executor adds (HOME,
    /// `SOURCE_DATE_EPOCH`, proxies, CA variables).
    pub env: Environment,
    /// Absolute working directory; made if it is missing.
    pub cwd: String,
    /// USER as in the image configuration, names unresolved; empty for root.
    pub user: String,
    /// Which network the process sees.
    pub network: NetworkMode,
    /// Further mounts.
    pub mounts: Vec<MountOp>,
    /// Names added to /etc/hosts (`--add-host`).
    pub hosts: Vec<(String, String)>,
    /// Seconds since 1970 that every path of the step's layer gets as mtime.
    pub mtime: i64,
    /// `SOURCE_DATE_EPOCH` that the process sees.
    pub epoch: i64,
    /// What it asks for beyond that; nothing for most steps.
    pub extras: StepExtras,
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkMode {
    /// The host's network.
    #[default]
    Host,
    /// A loopback device only.
    None,
}

/// `RUN --mount`. Nothing mounted enters the step's layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountOp {
    /// `type=bind`: files of a stage, an image or a context, read-only or with writes
    /// thrown away.
    Bind {
        /// Whose files.
        from: VertexId,
        /// Which directory or file of it, absolute.
        source: String,
        /// Where, absolute.
        target: String,
        /// Whether writes are allowed (and discarded).
        writable: bool,
    },
    /// `type=cache`: a directory kept between builds, outside keys and layers.
    Cache {
        /// Identity.
        id: String,
        /// Whose files a new cache starts with, and is another cache for.
        from: Option<VertexId>,
        /// Which directory or file of the cache, absolute; `/` for all of it.
        source: String,
        /// Where, absolute.
        target: String,
        /// Whether the step may only read.
        readonly: bool,
        /// `shared`, `private` or `locked`.
        sharing: CacheSharing,
        /// Mode and owner of a new cache directory, where they were given: a cache with
        /// others is another one.
        owner: Option<FileOwner>,
    },
    /// `type=tmpfs`.
    Tmpfs {
        /// Where, absolute.
        target: String,
        /// Limit in bytes.
        size: Option<u64>,
        /// Whether the step may only look at it.
        readonly: bool,
    },
    /// `type=secret`: a file in memory.
    Secret {
        /// Which secret.
        id: String,
        /// Where, absolute.
        target: String,
        /// Whether the step fails without it.
        required: bool,
        /// Mode and owner of the file.
        owner: FileOwner,
    },
    /// `type=ssh`: the socket of an SSH agent.
    Ssh {
        /// Which agent.
        id: String,
        /// Where, absolute.
        target: String,
        /// Whether the step fails without it.
        required: bool,
        /// Mode and owner of the socket.
        owner: FileOwner,
    },
}

/// Permission bits and owner, as numbers that the step sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileOwner {
    /// Permission bits.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl MountOp {
    /// The vertex whose files it shows.
    pub fn from(&self) -> Option<VertexId> {
        match self {
            Self::Bind { from, .. } => Some(*from),
            Self::Cache { from, .. } => *from,
            Self::Tmpfs { .. } | Self::Secret { .. } | Self::Ssh { .. } => None,
        }
    }
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheSharing {
    /// Everybody.
    #[default]
    Shared,
    /// A second user gets a directory of its own.
    Private,
    /// A second user waits.
    Locked,
}

/// COPY, ADD, WORKDIR and heredoc files: a change of files without a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOp {
    /// The root file system it changes.
    pub root: VertexId,
    /// What to do, in order.
    pub actions: Vec<FileAction>,
    /// Seconds since 1970 that every path of the step's layer gets as mtime.
    pub mtime: i64,
}

/// One change of a [`FileOp`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileAction {
    /// COPY or ADD of existing files.
    Copy(CopyAction),
    /// A file with this content (heredoc).
    Write {
        /// Absolute destination; with a trailing slash the file goes into it under `name`.
        dest: String,
        /// File name of the heredoc.
        name: String,
        /// Its content.
        content: Vec<u8>,
        /// `--chown`.
        owner: Option<String>,
        /// `--chmod`; default 0644.
        mode: Option<ModeChange>,
    },
    /// WORKDIR: a directory, with its parents, if it is missing.
    MakeDir {
        /// Absolute path.
        path: String,
        /// Owner of what is made, as USER has it (names unresolved); none for root.
        owner: Option<String>,
    },
}

/// COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyAction {
    /// A context, a stage or an image.
    pub from: VertexId,
    /// Source paths relative to its root, Go patterns (`filepath.Match`) allowed, in order.
    pub sources: Vec<String>,
    /// Absolute destination as the user meant it; a trailing slash makes it a directory.
    pub dest: String,
    /// `--chown`, as written after expansion: `user[:group]`.
    pub owner: Option<String>,
    /// `--chmod`.
    pub mode: Option<ModeChange>,
    /// Whether local tar archives are unpacked (ADD).
    pub unpack: bool,
    /// Whether parent directories of the sources are kept (`--parents`).
    pub parents: bool,
    /// `--exclude` patterns.
    pub exclude: Vec<String>,
    /// `--link`: the layer is made without a look at what the image has at the destination.
    pub link: bool,
}

/// `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModeChange {
    /// Octal: exactly this (`0o7777`).
    Exact(u32),
    /// Symbolic, as written: `u+x,go-w`.
    Symbolic(String),
}

impl Op {
    /// The vertex whose layers the result starts from.
    pub fn root(&self) -> Option<VertexId> {
        match self {
            Self::Scratch | Self::Image(_) | Self::Context(_) => None,
            Self::Exec(op) => Some(op.root),
            Self::File(op) => Some(op.root),
        }
    }

    /// All vertices it reads, the root first; each once.
    pub fn inputs(&self) -> Vec<VertexId> {
        let mut inputs: Vec<VertexId> = self.root().into_iter().collect();
        let others: Vec<VertexId> = match self {
            Self::Scratch | Self::Image(_) | Self::Context(_) => Vec::new(),
            Self::Exec(op) => op.mounts.iter().filter_map(MountOp::from).collect(),
            Self::File(op) => op
                .actions
                .iter()
                .filter_map(|a| match a {
                    FileAction::Copy(copy) => Some(copy.from),
                    FileAction::Write { .. } | FileAction::MakeDir { .. } => None,
                })
                .collect(),
        };
        for id in others {
            if !inputs.contains(&id) {
                inputs.push(id);
            }
        }
        inputs
    }

    /// Whether it is a step: something that runs, or is a hit.
    pub fn is_step(&self) -> bool {
        matches!(self, Self::Exec(_) | Self::File(_))
    }
}

impl BuildGraph {
    /// The vertex with this number.
    pub fn vertex(&self, id: VertexId) -> &Vertex {
        &self.vertices[id.0]
    }
}

/// A base image as the resolver found it, before lowering.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// Digest, layers and origin.
    pub op: ImageOp,
    /// Its configuration.
    pub config: ImageConfig,
}

/// Base images by the pair of reference (expanded, as written) and platform.
pub type ImageTable = BTreeMap<(String, Platform), ResolvedImage>;
