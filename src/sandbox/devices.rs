//! What every root gets: `/proc`, `/sys`, `/dev`, and the paths of the kernel that are
//! hidden or read-only. The lists are those of Docker's default container.

use std::{
    ffi::OsStr,
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode},
    io::Errno,
    mount::MountAttrFlags,
};

use super::{
    Tier,
    mounts::{FileSystem, MountError, Result, Root, attach, clone, restrict, tmpfs},
    place::is_directory,
    spec::ProcessExtras,
};
use crate::sys::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};

/// Replaced by an empty file or directory.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Bound over themselves, read-only.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Device nodes of the host that a step may use; `tty` need not be there.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Further device nodes of an insecure step: name, major and minor number.
const INSECURE_NODES: [(&str, u32, u32); 6] = [
    ("kmsg", 1, 11),
    ("cuse", 10, 203),
    ("fuse", 10, 229),
    ("kvm", 10, 232),
    ("net/tun", 10, 200),
    ("loop-control", 10, 237),
];

/// Loop devices of an insecure step.
const LOOP_DEVICES: u32 = 16;

/// Symlinks of `/dev`: name, target.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Group `tty`, which owns pseudo terminals.
const TTY_GROUP: &str = "5";

const NOTHING: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Mounts `/proc`.
pub(super) fn proc(root: &mut Root, tier: Tier) -> Result<()> {
    let mount = match tier {
        Tier::Root | Tier::UserNamespace => FileSystem::new("proc")?.mount(NOTHING)?,
        Tier::UserNamespaceBoundProc => clone(CWD, "/proc")?,
    };
    root.attach(mount, "/proc")
}

/// Mounts `/sys`, read-only unless it is to be writable. A new one shows the network namespace it is made in, and may
/// be made only by that namespace's owner; else the host's is bound.
pub(super) fn sys(root: &mut Root, writable: bool) -> Result<()> {
    let attributes = match writable {
        true => NOTHING,
        false => NOTHING | MountAttrFlags::MOUNT_ATTR_RDONLY,
    };
    match FileSystem::new("sysfs").and_then(|fs| fs.mount(attributes)) {
        Ok(mount) => {
            root.attach(mount, "/sys")?;
            // A container sees its cgroup, for instance its memory limit, if the host
            // has the unified hierarchy; nothing in a build depends on it.
            if let (Ok(fs), Some(place)) =
                (FileSystem::new("cgroup2"), root.existing("/sys/fs/cgroup")?)
                && rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|s| s.f_type == CGROUP2_MAGIC)
                && let Ok(mount) = fs.mount(attributes)
            {
                attach(mount, place, "/sys/fs/cgroup")?;
            }
            Ok(())
        }
        Err(error) if error.errno == Errno::PERM => {
            let mount = clone(CWD, "/sys")?;
            let attributes =
                MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
            restrict(&mount, attributes, "/sys")?;
            root.attach(mount, "/sys")
        }
        Err(error) => Err(error),
    }
}

/// `statfs(2)`: `CGROUP2_SUPER_MAGIC`.
const CGROUP2_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// Makes `/dev`: a tmpfs on which device nodes don't work, with those of the host that
/// a step may use bound into it. An insecure step of root's has device nodes of its own.
pub(super) fn dev(root: &mut Root, tier: Tier, extras: &ProcessExtras) -> Result<()> {
    let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID;
    let nodes = extras.insecure && tier == Tier::Root;
    if !nodes {
        flags |= MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    root.attach(tmpfs(0o755, Some(64 << 20), flags)?, "/dev")?;
    if nodes {
        insecure_nodes(root)?;
    }
    for node in NODES {
        match clone(CWD, format!("/dev/{node}")) {
            Ok(mount) => root.attach(mount, &format!("/dev/{node}"))?,
            Err(error) if error.errno == Errno::NOENT && node == "tty" => {}
            Err(error) => return Err(error),
        }
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &root.fd, format!("dev/{name}"))
            .map_err(|e| MountError::new(format!("/dev/{name}"), e))?;
    }
    root.attach(devpts()?, "/dev/pts")?;
    let shm = match extras.shm_size {
        // As a mount that replaces the usual one: programs in it may be executed.
        Some(size) => tmpfs(
            0o1777,
            Some(size),
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
        )?,
        None => tmpfs(0o1777, Some(64 << 20), NOTHING)?,
    };
    root.attach(shm, "/dev/shm")?;
    match FileSystem::new("mqueue").and_then(|fs| fs.mount(NOTHING)) {
        Ok(mount) => root.attach(mount, "/dev/mqueue"),
        // A kernel without POSIX message queues.
        Err(error) if error.errno == Errno::NODEV => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the nodes that BuildKit gives to insecure steps, whether or not the host has
/// the devices.
fn insecure_nodes(root: &Root) -> Result<()> {
    let mkdir = rustix::fs::mkdirat(&root.fd, "dev/net", Mode::from_raw_mode(0o755));
    mkdir.map_err(|e| MountError::new("/dev/net", e))?;
    let character = FileType::CharacterDevice;
    let mut nodes: Vec<(String, FileType, u32, u32)> = INSECURE_NODES
        .iter()
        .map(|(name, major, minor)| ((*name).to_owned(), character, *major, *minor))
        .collect();
    for number in 0..LOOP_DEVICES {
        nodes.push((format!("loop{number}"), FileType::BlockDevice, 7, number));
    }
    for (name, kind, major, minor) in nodes {
        let path = format!("dev/{name}");
        let device = rustix::fs::makedev(major, minor);
        let result = rustix::fs::mknodat(&root.fd, &path, kind, Mode::from_raw_mode(0o666), device)
            // Whatever the umask.
            .and_then(|()| {
                let mode = Mode::from_raw_mode(0o666);
                rustix::fs::chmodat(&root.fd, &path, mode, AtFlags::empty())
            });
        result.map_err(|e| MountError::new(path, e))?;
    }
    Ok(())
}

fn devpts() -> Result<OwnedFd> {
    let mount = |group: Option<&str>| {
        let fs = FileSystem::new("devpts")?;
        fs.set_flag("newinstance")?;
        fs.set("ptmxmode", "0666")?;
        fs.set("mode", "0620")?;
        if let Some(group) = group {
            fs.set("gid", group)?;
        }
        fs.mount(MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)
    };
    // A user namespace with one id has no group 5.
    mount(Some(TTY_GROUP)).or_else(|_| mount(None))
}

/// Hides [`MASKED`] and write-protects [`READ_ONLY`]. `empty` is an empty directory.
pub(super) fn mask(root: &Root, empty: impl AsFd) -> Result<()> {
    for path in MASKED {
        let Some(place) = root.existing(path)? else {
            continue;
        };
        let directory = is_directory(&place).map_err(|e: io::Error| MountError::new(path, e))?;
        let mount = if directory {
            clone(&empty, "")?
        } else {
            clone(CWD, "/dev/null")?
        };
        restrict(&mount, MOUNT_ATTR_RDONLY, path)?;
        attach(mount, place, path)?;
    }
    for path in READ_ONLY {
        let Some(place) = root.existing(path)? else {
            continue;
        };
        let mount = clone(&root.fd, OsStr::new(path.trim_start_matches('/')))?;
        restrict(&mount, MOUNT_ATTR_RDONLY, path)?;
        attach(mount, place, path)?;
    }
    Ok(())
}
