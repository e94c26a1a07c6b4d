//! What this host allows: every part of a sandbox is really tried, in a child.
//!
//! [`probe()`] starts the hidden subcommand [`PROBE`] as root, or inside a user namespace, in
//! an empty directory. It tries the parts one after the other and prints one JSON line for
//! each. A part that doesn't work gets the one fix that helps.

use std::{
    ffi::OsString,
    fmt::Write as _,
    io::{self, Write as _},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use rustix::{
    mount::{MountAttrFlags, MountPropagationFlags},
    process::WaitOptions,
    thread::UnshareFlags,
};
use serde::{Deserialize, Serialize};

use super::{
    Tier,
    mounts::{FileSystem, MountError, Overlay, open_dir, restrict, tmpfs},
    seccomp,
};
use crate::{
    fs,
    sys::{self, Forked, MOUNT_ATTR_RDONLY},
    userns::{Program, SingleId, Userns},
};

/// Name of the hidden subcommand; its arguments are `root` or `user`, and an empty
/// directory.
pub const PROBE: &str = "__sandbox-probe";

/// Says that the child runs in a user namespace, which it can't find out: its ids may look
/// like the host's.
const USER: &str = "user";

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What, for instance `overlayfs in a user namespace`.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
    /// What to do, if something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// What this host allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProbeReport {
    /// The best tier that works; none if no step can be run here.
    pub tier: Option<Tier>,
    /// What was looked at, in order.
    pub findings: Vec<Finding>,
}

/// A part of a sandbox, as the child tries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Part {
    Namespaces,
    MountApi,
    Overlay,
    Seccomp,
    Proc,
}

/// One line of the child's.
#[derive(Debug, Serialize, Deserialize)]
struct Tried {
    part: Part,
    /// What went wrong.
    error: Option<String>,
}

/// Tries everything. Takes a few dozen milliseconds.
pub fn probe(program: &Program) -> ProbeReport {
    let mut findings = vec![kernel()];
    let mut tier = None;
    let root = rustix::process::geteuid().is_root() && in_first_user_namespace();
    if root {
        let mut command = program.command();
        command.args([PROBE, "root"]);
        tier = tiers(&mut findings, command, false);
    }
    if tier.is_none() {
        match Userns::detect(program.clone()) {
            Ok(userns) => {
                let command = userns.command(&[PROBE.into(), USER.into()]);
                tier = tiers(&mut findings, command, true);
                findings.push(ids(&userns));
            }
            Err(error) => findings.push(bad("ids of the user namespace", &error.to_string(), None)),
        }
    }
    ProbeReport { tier, findings }
}

fn good(name: &str, detail: impl Into<String>) -> Finding {
    Finding {
        name: name.to_owned(),
        ok: true,
        detail: detail.into(),
        fix: None,
    }
}

fn bad(name: &str, detail: &str, fix: Option<&str>) -> Finding {
    Finding {
        name: name.to_owned(),
        ok: false,
        detail: detail.to_owned(),
        fix: fix.map(str::to_owned),
    }
}

fn kernel() -> Finding {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || {
        numbers
            .next()
            .and_then(|n| n.parse::<u32>().ok())
            .unwrap_or(0)
    };
    if (number(), number()) >= (5, 12) {
        good("kernel", format!("Linux {release}"))
    } else {
        bad(
            "kernel",
            &format!("Linux {release}"),
            Some("use Linux 5.12 or later"),
        )
    }
}

/// Whether ids are those of the host: then `trusted.*` attributes can be written.
fn in_first_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// Lets a child try the parts and turns what it says into findings; the tier if one works.
fn tiers(findings: &mut Vec<Finding>, command: Command, userns: bool) -> Option<Tier> {
    let place = if userns {
        "in a user namespace"
    } else {
        "as root"
    };
    let (tried, said) = match run(command) {
        Ok(result) => result,
        Err(error) => {
            findings.push(bad(&format!("sandbox {place}"), &error.to_string(), None));
            return None;
        }
    };
    if tried.is_empty() {
        let fix = if userns { userns_fix() } else { None };
        findings.push(bad(&format!("sandbox {place}"), &said, fix.as_deref()));
        return None;
    }
    for tried in &tried {
        findings.push(finding(tried, place, userns));
    }
    let works = |part: Part| tried.iter().any(|t| t.part == part && t.error.is_none());
    let needed = [
        Part::Namespaces,
        Part::MountApi,
        Part::Overlay,
        Part::Seccomp,
    ];
    if !needed.into_iter().all(works) {
        return None;
    }
    match (userns, works(Part::Proc)) {
        (false, true) => Some(Tier::Root),
        (false, false) => None,
        (true, true) => Some(Tier::UserNamespace),
        (true, false) => Some(Tier::UserNamespaceBoundProc),
    }
}

fn finding(tried: &Tried, place: &str, userns: bool) -> Finding {
    let name = match tried.part {
        Part::Namespaces => "namespaces",
        Part::MountApi => "mount attributes",
        Part::Overlay if userns => "overlayfs (userxattr)",
        Part::Overlay => "overlayfs",
        Part::Seccomp => "seccomp",
        Part::Proc => "new /proc",
    };
    let name = format!("{name} {place}");
    let Some(error) = &tried.error else {
        return good(&name, "works");
    };
    let fix = match tried.part {
        Part::Namespaces if userns => userns_fix(),
        Part::Namespaces => Some("run with CAP_SYS_ADMIN (`docker run --privileged`)".to_owned()),
        Part::MountApi => Some("use Linux 5.12 or later".to_owned()),
        Part::Overlay => Some(
            "put `MEMOBUILD_CACHE_DIR` on ext4, xfs, btrfs or tmpfs, not on an overlay; load the module `overlay`"
                .to_owned(),
        ),
        Part::Seccomp => Some("use a kernel with CONFIG_SECCOMP_FILTER".to_owned()),
        Part::Proc if userns => Some(
            "the container masks its /proc: run it with `--security-opt systempaths=unconfined`; until then steps see the container's /proc"
                .to_owned(),
        ),
        Part::Proc => None,
    };
    bad(&name, error, fix.as_deref())
}

/// What stands against user namespaces on this host.
fn userns_fix() -> Option<String> {
    let setting = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").is_ok_and(|v| v == "1") {
        return Some(
            "AppArmor denies unprivileged user namespaces (Ubuntu 23.10 and later): run with `sudo`, or `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
                .to_owned(),
        );
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone").is_ok_and(|v| v == "0") {
        return Some("`sudo sysctl -w kernel.unprivileged_userns_clone=1`".to_owned());
    }
    if setting("/proc/sys/user/max_user_namespaces").is_ok_and(|v| v == "0") {
        return Some("`sudo sysctl -w user.max_user_namespaces=15000`".to_owned());
    }
    Some(
        "the container's seccomp profile denies namespaces: run it with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`"
            .to_owned(),
    )
}

fn ids(userns: &Userns) -> Finding {
    let name = "ids of the user namespace";
    match userns.single_id() {
        None => good(
            name,
            format!("uids {}, gids {}", userns.uids(), userns.gids()),
        ),
        Some(reason) => {
            let fix = match reason {
                SingleId::NoHelpers => "install the package `uidmap` (`shadow-utils` on Fedora)",
                SingleId::NoSubuid | SingleId::NoSubgid => {
                    "`sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 \"$USER\"`"
                }
            };
            let detail = format!("root only, so steps can't use other owners: {reason}");
            bad(name, &detail, Some(fix))
        }
    }
}

/// The lines of the child, and its last words.
fn run(mut command: Command) -> io::Result<(Vec<Tried>, String)> {
    let dir = tempfile::tempdir()?;
    let output = command
        .arg(dir.path())
        .env_clear()
        .stdin(Stdio::null())
        .output()?;
    let tried = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    // overlayfs leaves a directory without any rights, which the drop would trip over.
    fs::remove_dir_all(dir.path()).map_err(io::Error::other)?;
    let mut said = String::from_utf8_lossy(&output.stderr)
        .trim()
        .replace('\n', "; ");
    if said.is_empty() {
        let _ = write!(said, "{}", output.status);
    }
    Ok((tried, said))
}

/// Runs the hidden subcommand [`PROBE`] with these arguments. Must be called before any
/// thread is started.
pub fn probe_child(args: &[OsString]) -> ExitCode {
    let [flavour, dir] = args else {
        return ExitCode::FAILURE;
    };
    let flags = UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    let unshared = sys::unshare(flags)
        .and_then(|()| rustix::mount::mount_change("/", private))
        .map_err(|e| MountError::new("unshare", e));
    if !told(Part::Namespaces, unshared) {
        return ExitCode::FAILURE;
    }
    match sys::fork() {
        Ok(Forked::Child) => {
            parts(Path::new(dir), flavour == USER);
            sys::exit_now(0)
        }
        Ok(Forked::Parent(pid)) => {
            // What it found out it has printed.
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
            ExitCode::SUCCESS
        }
        Err(error) => {
            told(Part::Namespaces, Err(MountError::new("fork", error)));
            ExitCode::FAILURE
        }
    }
}

fn parts(dir: &Path, userxattr: bool) {
    let nothing = MountAttrFlags::empty();
    let restricted =
        tmpfs(0o755, None, nothing).and_then(|mount| restrict(mount, MOUNT_ATTR_RDONLY, "tmpfs"));
    told(Part::MountApi, restricted);
    told(Part::Overlay, overlay(dir, userxattr));
    let proc = FileSystem::new("proc").and_then(|fs| fs.mount(nothing));
    told(Part::Proc, proc.map(drop));
    told(
        Part::Seccomp,
        seccomp::load().map_err(|e| MountError::new("filter", e)),
    );
}

/// Mounts an overlay, changes a file on it and removes another.
fn overlay(dir: &Path, userxattr: bool) -> Result<(), MountError> {
    let [lower, upper, work]: [PathBuf; 3] = ["lower", "upper", "work"].map(|n| dir.join(n));
    let error = |path: &Path| {
        let path = path.to_owned();
        move |e: io::Error| MountError::new(path, e)
    };
    for path in [&lower, &upper, &work] {
        std::fs::create_dir(path).map_err(error(path))?;
    }
    for name in ["changed", "removed"] {
        let path = lower.join(name);
        std::fs::write(&path, "before").map_err(error(&path))?;
    }
    let lowers = [lower];
    let overlay = Overlay::open(&lowers, Some((&upper, &work)), userxattr, open_dir(&work)?)?;
    let merged = overlay.mount(&upper)?;
    for (name, remove) in [("changed", false), ("removed", true)] {
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::TRUNC;
        let mode = rustix::fs::Mode::empty();
        let result = if remove {
            rustix::fs::unlinkat(merged.as_fd(), name, rustix::fs::AtFlags::empty())
        } else {
            rustix::fs::openat(merged.as_fd(), name, flags, mode).map(drop)
        };
        result.map_err(|e| MountError::new(name, e))?;
    }
    Ok(())
}

fn told(part: Part, result: Result<(), MountError>) -> bool {
    let error = result
        .err()
        .map(|e| format!("{}: {}", e.what, io::Error::from(e.errno)));
    let ok = error.is_none();
    if let Ok(line) = serde_json::to_string(&Tried { part, error }) {
        // Nobody to tell that nobody listens.
        let _ = writeln!(io::stdout(), "{line}");
        let _ = io::stdout().flush();
    }
    ok
}
