//! The sandbox that RUN steps run in: namespaces, an overlay, and what Docker's
//! default container denies.
//!
//! [`probe()`] finds out which [`Tier`] this host allows, [`Sandbox::run`] runs a
//! [`ProcessSpec`] in it. `docs/internals/security.md` says what each tier guarantees.
//!
//! # Processes
//!
//! ```text
//! memobuild-ci ──control socket, stdout, stderr──> __sandbox-init (supervisor)
//!                                                     └─ fork ─> PID 1: set-up, then exec of the step's process
//! ```
//! The hidden subcommand [`INIT`] runs in a single-threaded process that is started from
//! a sealed copy of our program ([`crate::userns::Program`]). It reads the request
//! from its standard input, a socket, and stays as *supervisor* outside the new pid
//! namespace. When the socket closes (cancellation, or death of memobuild-ci) it kills
//! PID 1, and with it the kernel kills everything in the namespace; PID 1 in turn gets
//! SIGKILL if the supervisor dies. A user-notification supervisor for seccomp
//! would live here too.
//!
//! # Set-up, in order
//!
//! 0. Tiers 2 and 3: enter a user namespace ([`crate::userns`]).
//! 1. Supervisor: new session, new pid namespace, fork.
//! 2. PID 1: die with the supervisor; new mount, ipc, uts and cgroup namespaces, and a
//!    network namespace for `--network none`; all mounts private.
//! 3. The root: overlay of the layers, `nodev`, `index=off,redirect_dir=off,metacopy=off,
//!    volatile` (and `userxattr` in a user namespace), attached over its own upper directory.
//!    A tmpfs for generated files, attached over the work directory.
//! 4. `/proc`, `/sys` (read-only), `/dev` with its nodes, `pts`, `shm`, `mqueue`.
//! 5. `/etc/resolv.conf` and `/etc/hosts` (read-only), then the spec's mounts. Mount points
//!    that are missing are made inside the root and reported as stubs.
//! 6. Paths of `/proc` and `/sys` masked or made read-only.
//! 7. The working directory, made if missing.
//! 8. Host name; loopback up if the network namespace is new.
//! 9. `pivot_root`, the old root detached, working directory entered.
//! 10. Standard input `/dev/null`, session, umask 022, limits, signals to default, all other
//!     descriptors close-on-exec.
//! 11. Bounding set cut to Docker's default, seccomp filters loaded (they need
//!     CAP_SYS_ADMIN because `no_new_privs` stays off: su and sudo work), groups, gid, uid,
//!     capabilities.
//! 12. Report `Ready`, exec.
//!
//! A process of `--security=insecure` keeps what PID 1 has: all capabilities (ambient too, so
//! that another user than root has them), no filter; `/sys` is writable, nothing is masked,
//! devices work on its root, and root's sandbox has more device nodes.
//!
//! The child's side is `init` (order, supervision), `mounts`, `attach`, `devices`, `place`
//! (mount points), `limits`, `user`, `caps`, `seccomp`; the parent's side is `output`.

mod attach;
mod caps;
mod devices;
mod emulator;
mod init;
mod limits;
mod mounts;
mod output;
mod place;
mod probe;
mod seccomp;
mod seccomp_table;
#[cfg(target_arch = "x86_64")]
mod seccomp_table_i386;
mod spec;
mod step;
mod user;

pub use emulator::{Support, support};
pub use init::{INIT, init};
pub use output::{Exit, Finished};
pub use probe::{Finding, PROBE, ProbeReport, probe, probe_child};
pub use spec::{Mount, MountKind, ProcessExtras, ProcessSpec, RootFs, Scratch};
pub use step::Step;

use std::{future::Future, io, process::Command, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    event::Stream,
    fs::{self, FsError},
    graph::NetworkMode,
    userns::{Program, Userns, UsernsError},
};

/// How strong a sandbox this host allows; the first that works is taken. A fourth one
/// (chroot in an unprivileged container: no isolation, opt-in) has its place after these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Root of the host: namespaces and overlayfs.
    Root,
    /// A user namespace, in it as `Root`.
    UserNamespace,
    /// A user namespace where the kernel refuses a new `/proc` (in a container that masks
    /// its own): the existing `/proc` is bound. Processes of the container are then visible.
    UserNamespaceBoundProc,
}

/// Why a step could not be run, or not to its end. What the process itself did is no
/// error: see [`Exit`].
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No tier works here.
    #[error("this host allows no sandbox; `memobuild-ci doctor` says why")]
    NoTier,
    /// Our own program can't be copied to memory.
    #[error("can't prepare the program that sandboxes start from")]
    Program(#[source] FsError),
    /// The user namespace can't be described.
    #[error("can't use a user namespace")]
    Userns(#[source] UsernsError),
    /// The host's resolver configuration can't be read.
    #[error("can't make `/etc/resolv.conf` for the step")]
    ResolvConf(#[source] FsError),
    /// The specification can't be handed over.
    #[error("can't encode the process specification")]
    Encode(#[source] serde_json::Error),
    /// The first process can't be started or talked to.
    #[error("can't start the sandbox")]
    Start(#[source] io::Error),
    /// The first process ended before it could set anything up.
    #[error("can't start the sandbox: {said}")]
    Entering {
        /// Its last words.
        said: String,
    },
    /// A step of the set-up failed.
    #[error("can't set the sandbox up: {step}: `{what}`")]
    Setup {
        /// Which.
        step: Step,
        /// The path or file system it was about.
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The supervising process was killed.
    #[error("the sandbox was killed from outside")]
    Lost,
    /// The process's output can't be read.
    #[error("can't read the output of the step")]
    Output(#[source] io::Error),
}

impl SandboxError {
    /// What to do about it, where something can be done.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Setup { step, source, .. } => step.hint(source),
            Self::NoTier | Self::Entering { .. } => {
                Some("run `memobuild-ci doctor` to see what this host allows".to_owned())
            }
            _ => None,
        }
    }
}

/// Runs processes in one tier.
#[derive(Debug, Clone)]
pub struct Sandbox {
    access: Access,
}

#[derive(Debug, Clone)]
enum Access {
    Root(Program),
    Userns(Tier, Userns),
}

impl Sandbox {
    /// A sandbox of this tier. `program` dispatches the hidden subcommands.
    pub fn new(tier: Tier, program: Program) -> Result<Self, SandboxError> {
        let access = match tier {
            Tier::Root => Access::Root(program),
            Tier::UserNamespace | Tier::UserNamespaceBoundProc => {
                let userns = Userns::detect(program).map_err(SandboxError::Userns)?;
                Access::Userns(tier, userns)
            }
        };
        Ok(Self { access })
    }

    /// A sandbox of the best tier that works here.
    pub fn detect(program: Program) -> Result<Self, SandboxError> {
        let tier = probe(&program).tier.ok_or(SandboxError::NoTier)?;
        Self::new(tier, program)
    }

    /// The tier.
    pub fn tier(&self) -> Tier {
        match &self.access {
            Access::Root(_) => Tier::Root,
            Access::Userns(tier, _) => *tier,
        }
    }

    /// The user namespace that layers must be unpacked and diffed in; none as root.
    pub fn userns(&self) -> Option<&Userns> {
        match &self.access {
            Access::Root(_) => None,
            Access::Userns(_, userns) => Some(userns),
        }
    }

    /// Runs the process to its end. `output` gets what it writes as it comes, in pieces of at
    /// most 64 KiB that end anywhere. When `stop` completes or `timeout` has passed, the
    /// process and all it started are killed. Dropping the future does that too, without
    /// waiting for the end.
    pub async fn run(
        &self,
        spec: &ProcessSpec,
        output: &mut (dyn FnMut(Stream, &[u8]) + Send),
        stop: impl Future<Output = ()> + Send,
        timeout: Option<Duration>,
    ) -> Result<Finished, SandboxError> {
        let request = spec::Request {
            tier: self.tier(),
            groups_settable: self.userns().is_none_or(|u| u.single_id().is_none()),
            resolv_conf: resolv_conf(spec.network)?,
            hosts: hosts(spec),
            spec: spec.clone(),
        };
        let mut request = serde_json::to_vec(&request).map_err(SandboxError::Encode)?;
        request.push(b'\n');
        output::run(self.command(), &request, output, stop, timeout).await
    }

    fn command(&self) -> Command {
        let mut command = match &self.access {
            Access::Root(program) => {
                let mut command = program.command();
                command.arg(INIT);
                command
            }
            Access::Userns(_, userns) => userns.command(&[INIT.into()]),
        };
        command.env_clear().current_dir("/");
        command
    }
}

/// As Docker's builder with the host's network: the host's own file, also where it
/// names a resolver on the loopback device, which the step reaches as well.
fn resolv_conf(network: NetworkMode) -> Result<String, SandboxError> {
    if network == NetworkMode::None {
        return Ok(String::new());
    }
    match fs::read("/etc/resolv.conf") {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.is_not_found() => Ok(String::new()),
        Err(error) => Err(SandboxError::ResolvConf(error)),
    }
}

fn hosts(spec: &ProcessSpec) -> String {
    let mut text = format!(
        "127.0.0.1\tlocalhost {}\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        spec.hostname
    );
    for (name, address) in &spec.hosts {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}
