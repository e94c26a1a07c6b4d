//! What a sandbox is to run, and what goes over the pipe to its first process.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Step, Tier};
use crate::{
    graph::{FileOwner, NetworkMode, Ulimit},
    redact::SecretBytes,
};

/// A process and all it sees.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// The program (a path, or a name looked up in `PATH` of `env`) and its arguments.
    pub args: Vec<String>,
    /// The whole environment, in this order.
    pub env: Vec<(String, String)>,
    /// Absolute working directory; made (0755, root) if it is missing.
    pub cwd: String,
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Supplementary group ids inside.
    pub groups: Vec<u32>,
    /// Host name inside; Docker's builder says `buildkitsandbox`.
    pub hostname: String,
    /// Which network the process sees.
    #[serde(with = "Network")]
    pub network: NetworkMode,
    /// The root file system.
    pub rootfs: RootFs,
    /// Further mounts. Where one lies in another, order does not matter: those with
    /// fewer components go first.
    pub mounts: Vec<Mount>,
    /// Further lines of `/etc/hosts`: name, address.
    pub hosts: Vec<(String, String)>,
    /// What it gets otherwise than other processes.
    pub extras: ProcessExtras,
}

/// What few processes ask for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ProcessExtras {
    /// All capabilities, no system call filter, nothing of the kernel hidden or read-only.
    pub insecure: bool,
    /// Bytes of `/dev/shm`.
    pub shm_size: Option<u64>,
    /// Resource limits instead of the usual ones.
    pub limits: Vec<Ulimit>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "NetworkMode")]
enum Network {
    Host,
    None,
}

/// An overlay of unpacked layers. All paths are absolute directories on the host;
/// `upper` and `work` are empty, lie on one file system and serve one process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RootFs {
    /// Unpacked layers, lowest first; may be empty.
    pub lowers: Vec<PathBuf>,
    /// Takes the changes.
    pub upper: PathBuf,
    /// overlayfs's own.
    pub work: PathBuf,
}

/// A mount on the root file system; nothing mounted enters the step's layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside; symlinks in it are followed inside the root. Made if missing.
    pub target: String,
    /// What is mounted.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum MountKind {
    /// A directory or file of the host, with what is mounted below it.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Whether writing is refused.
        readonly: bool,
    },
    /// A path in a directory of the host, resolved inside that.
    Inside {
        /// Absolute path of the directory on the host.
        dir: PathBuf,
        /// Absolute path in it; must be there.
        path: String,
        /// Whether writing is refused.
        readonly: bool,
    },
    /// An empty file system in memory. Its directory has the mode of the one it hides, else 1777.
    Tmpfs {
        /// Limit in bytes.
        size: Option<u64>,
        /// Whether writing is refused.
        readonly: bool,
    },
    /// A path in a stack of unpacked layers.
    Overlay {
        /// Unpacked layers, lowest first.
        lowers: Vec<PathBuf>,
        /// Absolute path in the merged tree, resolved inside it.
        source: String,
        /// Takes the writes; without it writing is refused.
        scratch: Option<Scratch>,
    },
    /// A file in memory, read-only.
    Secret {
        /// Its content.
        content: SecretBytes,
        /// Its mode and owner.
        owner: FileOwner,
    },
    /// A socket of the host, which gets another mode and owner.
    Socket {
        /// Absolute path on the host.
        source: PathBuf,
        /// Its mode and owner.
        owner: FileOwner,
    },
    /// A device node of the host.
    Device {
        /// Absolute path on the host.
        source: PathBuf,
        /// Its mode, if other than the host's. Root's sandbox only, as its owner.
        mode: Option<u32>,
        /// Its owner.
        uid: Option<u32>,
        /// Its group.
        gid: Option<u32>,
    },
}

/// Two directories on one file system. Mounts of one process with the same `upper` are
/// the same file system.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scratch {
    /// Takes the changes.
    pub upper: PathBuf,
    /// overlayfs's own; empty.
    pub work: PathBuf,
    /// Whether the changes are wanted afterwards, also if the machine crashes.
    pub kept: bool,
}

/// First message on the control socket, towards the child: one line of JSON. The end
/// of the stream after it is the order to kill.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) tier: Tier,
    /// Whether the namespace lets supplementary groups be set.
    pub(super) groups_settable: bool,
    pub(super) spec: ProcessSpec,
    /// Content of `/etc/resolv.conf`.
    pub(super) resolv_conf: String,
    /// Content of `/etc/hosts`.
    pub(super) hosts: String,
}

/// Messages from the child, one line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// Set up; the process is being executed. The paths that were made as mount points,
    /// as bytes.
    Ready { stubs: Vec<Vec<u8>> },
    /// Not set up.
    Failed(Failure),
    /// The process is over, and so is everything it started.
    Exited {
        code: Option<i32>,
        signal: Option<i32>,
        cpu_ms: u64,
        peak_rss: u64,
    },
}

/// A set-up step that failed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) step: Step,
    /// What it was about: a path, a file system with the kernel's own words.
    pub(super) what: String,
    pub(super) errno: i32,
}
