//! User namespaces: how a process without privilege becomes root over its own files.
//!
//! [`Userns`] knows the id maps this user may set up and starts hidden subcommands of
//! our own program inside a new user namespace, as its root. Unpacking, diffing and
//! removing layers run there (ids and file capabilities on disk then mean what they
//! mean to the step), and so does the sandbox of tiers 2 and 3.
//!
//! # How the namespace is entered
//!
//! The started process runs `__userns MODE UIDS GIDS SUBCOMMAND …` ([`enter()`]):
//!
//! 1. It forks a helper that stays outside and waits.
//! 2. It unshares the user namespace and tells the helper.
//! 3. The helper sets the maps: as root by writing them, else through the setuid
//!    programs `newuidmap` and `newgidmap`, which check `/etc/subuid` and
//!    `/etc/subgid`; without those a map of the user's own id alone.
//! 4. It becomes uid and gid 0, drops the supplementary groups, and goes on with
//!    `SUBCOMMAND`, in the same process with the same standard streams.
//!
//! Sources: user_namespaces(7), newuidmap(1), subuid(5).

mod enter;
mod program;
mod ranges;

pub use enter::{ENTER, EnterError, enter};
pub use program::Program;
pub use ranges::{IdMap, IdRange};

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use crate::fs::{self, FsError};

/// Where setuid helpers are looked for. `PATH` is not: who runs as a build's user
/// should not choose who sets its ids up.
const HELPER_DIRS: [&str; 5] = [
    "/usr/bin",
    "/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/run/wrappers/bin",
];

/// Why user namespaces can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum UsernsError {
    /// A file with ids or maps can't be read.
    #[error("can't find out the ids of the user namespace")]
    Ids(#[source] FsError),
}

/// Why a user namespace has one id only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SingleId {
    /// `newuidmap` or `newgidmap` is not installed.
    #[error("`newuidmap` and `newgidmap` are not installed")]
    NoHelpers,
    /// `/etc/subuid` has no range for the user.
    #[error("`/etc/subuid` has no range for this user")]
    NoSubuid,
    /// `/etc/subgid` has no range for the user.
    #[error("`/etc/subgid` has no range for this user")]
    NoSubgid,
}

/// How the maps get into the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Written by root.
    Direct,
    /// By the setuid programs in these places.
    Helpers {
        newuidmap: PathBuf,
        newgidmap: PathBuf,
    },
    /// Written by the user: the own id only, and `setgroups` denied.
    Single,
}

/// A user namespace this user can set up; each command started gets a new one with
/// the same ids.
#[derive(Debug, Clone)]
pub struct Userns {
    program: Program,
    mode: Mode,
    uids: IdMap,
    gids: IdMap,
    single: Option<SingleId>,
}

impl Userns {
    /// Finds out which ids this user may use. `program` dispatches the hidden
    /// subcommands.
    pub fn detect(program: Program) -> Result<Self, UsernsError> {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let read = |path: &str| fs::read_to_string(path).map_err(UsernsError::Ids);
        if uid == 0 {
            return Ok(Self {
                program,
                mode: Mode::Direct,
                uids: IdMap::identity(&read("/proc/self/uid_map")?),
                gids: IdMap::identity(&read("/proc/self/gid_map")?),
                single: None,
            });
        }
        // A host without these files has no ranges.
        let passwd = read("/etc/passwd").unwrap_or_default();
        let name = ranges::user_name(&passwd, uid);
        let ranges =
            |path: &str| ranges::subordinate_ranges(&read(path).unwrap_or_default(), name, uid);
        let (subuids, subgids) = (ranges("/etc/subuid"), ranges("/etc/subgid"));
        let found = match (helper("newuidmap"), helper("newgidmap")) {
            (Some(newuidmap), Some(newgidmap)) if !subuids.is_empty() && !subgids.is_empty() => {
                Ok(Mode::Helpers {
                    newuidmap,
                    newgidmap,
                })
            }
            (Some(_), Some(_)) if subuids.is_empty() => Err(SingleId::NoSubuid),
            (Some(_), Some(_)) => Err(SingleId::NoSubgid),
            _ => Err(SingleId::NoHelpers),
        };
        Ok(match found {
            Ok(mode) => Self {
                program,
                mode,
                uids: IdMap::with_subordinates(uid, &subuids),
                gids: IdMap::with_subordinates(gid, &subgids),
                single: None,
            },
            Err(reason) => Self {
                program,
                mode: Mode::Single,
                uids: IdMap::single(uid),
                gids: IdMap::single(gid),
                single: Some(reason),
            },
        })
    }

    /// Why files can belong to root only, if that is so: a step that changes an owner
    /// or becomes another user then fails.
    pub fn single_id(&self) -> Option<SingleId> {
        self.single
    }

    /// The user ids inside.
    pub fn uids(&self) -> &IdMap {
        &self.uids
    }

    /// The group ids inside.
    pub fn gids(&self) -> &IdMap {
        &self.gids
    }

    /// A command that runs the hidden subcommand `args` of our own program as root of a
    /// new user namespace. Standard streams and environment are the caller's to set.
    /// Where the namespace can't be entered it says so on standard error and ends
    /// with [`EnterError::EXIT_CODE`].
    pub fn command(&self, args: &[OsString]) -> Command {
        let mut command = self.program.command();
        command.arg(ENTER);
        match &self.mode {
            Mode::Direct => command.arg("direct"),
            Mode::Single => command.arg("single"),
            Mode::Helpers {
                newuidmap,
                newgidmap,
            } => command.arg("helpers").arg(newuidmap).arg(newgidmap),
        };
        command
            .arg(self.uids.to_string())
            .arg(self.gids.to_string())
            .args(args);
        command
    }
}

fn helper(name: &str) -> Option<PathBuf> {
    HELPER_DIRS
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| fs::exists(path))
}
