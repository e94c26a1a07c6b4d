//! The child's side: reads the request, supervises PID 1, and as PID 1 sets the
//! sandbox up in the order that the module's page lists.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::ExitCode,
};

use rustix::{
    event::{PollFd, PollFlags},
    fs::{Mode, OFlags},
    io::Errno,
    mount::{MountPropagationFlags, UnmountFlags},
    process::{Pid, PidfdFlags, Signal, WaitOptions},
    thread::UnshareFlags,
};

use super::{
    Step, Tier,
    attach::{Attacher, Generated},
    devices, limits,
    mounts::{MountError, Overlay, Root, open_dir},
    place::{Missing, place},
    spec::{Failure, Mount, Report, Request},
    user,
};
use crate::{
    graph::NetworkMode,
    sys::{self, Forked},
};

/// Name of the hidden subcommand.
pub const INIT: &str = "__sandbox-init";

/// Exit code of a process that set nothing up.
const FAILED: i32 = 125;

/// Runs the hidden subcommand [`INIT`]: standard input is the control socket. Must be called
/// before any thread is started.
pub fn init() -> ExitCode {
    let control = io::stdin().as_fd().try_clone_to_owned();
    let Ok(control) = control.map(UnixStream::from) else {
        return ExitCode::FAILURE;
    };
    let mut line = String::new();
    // The end of the stream instead of a request: the caller is gone already.
    if BufReader::new(&control).read_line(&mut line).is_err() || line.is_empty() {
        return ExitCode::FAILURE;
    }
    let result = serde_json::from_str(&line)
        .map_err(|e| failure(Step::Request, e.to_string(), Errno::INVAL))
        .and_then(|request| supervise(&request, &control));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&control, &Report::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

fn failure(step: Step, what: impl Into<String>, error: impl Into<io::Error>) -> Failure {
    Failure {
        step,
        what: what.into(),
        errno: error.into().raw_os_error().unwrap_or(libc::EIO),
    }
}

fn tell(mut control: &UnixStream, report: &Report) {
    // Serialising these reports can't fail. If nobody listens any more, the order to kill
    // is on its way.
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = control.write_all(&line);
    }
}

/// Starts PID 1 in a new pid namespace and stays until it is over.
fn supervise(request: &Request, control: &UnixStream) -> Result<(), Failure> {
    // Away from the terminal: an interrupt is for memobuild-ci, which then orders the kill.
    // That this is a session leader already is no harm.
    let _ = rustix::process::setsid();
    // Else lists of processes show the number of the descriptor it was executed from.
    let _ = rustix::thread::set_name(c"memobuild-ci");
    sys::unshare(UnshareFlags::NEWPID).map_err(|e| failure(Step::Namespaces, "pid", e))?;
    let pid = match sys::fork().map_err(|e| failure(Step::Fork, "PID 1", e))? {
        Forked::Parent(pid) => pid,
        Forked::Child => become_process(request, control),
    };
    watch(pid, control).map_err(|e| failure(Step::Fork, "PID 1", e))
}

fn watch(pid: Pid, control: &UnixStream) -> io::Result<()> {
    // The output ends when the step's processes close it, not when this one does.
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for stream in 0..=2 {
        sys::replace_stdio(null.as_fd(), stream)?;
    }
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let mut killed = false;
    loop {
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        if !killed {
            fds.push(PollFd::new(control, PollFlags::IN));
        }
        match rustix::event::poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        let over = !fds[0].revents().is_empty();
        let ordered = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        if over {
            break;
        }
        if ordered && !matches!((&*control).read(&mut [0]), Ok(1..)) {
            killed = true;
            rustix::process::pidfd_send_signal(&pidfd, Signal::KILL)?;
        }
    }
    // PID 1 can be waited for only when all others of its namespace are dead.
    let status = rustix::process::waitpid(Some(pid), WaitOptions::empty())?;
    let (code, signal) = status.map_or((None, None), |(_, status)| {
        (status.exit_status(), status.terminating_signal())
    });
    let usage = sys::children_usage();
    let report = Report::Exited {
        code,
        signal,
        cpu_ms: usage.cpu_ms,
        peak_rss: usage.peak_rss,
    };
    tell(control, &report);
    Ok(())
}

/// PID 1: sets up, then becomes the step's process.
fn become_process(request: &Request, control: &UnixStream) -> ! {
    match set_up(request) {
        Ok(stubs) => tell(control, &Report::Ready { stubs }),
        Err(failure) => {
            tell(control, &Report::Failed(failure));
            sys::exit_now(FAILED)
        }
    }
    let (message, code) = user::execute(&request.spec);
    // Standard error is the step's output.
    let _ = writeln!(io::stderr(), "{message}");
    sys::exit_now(code)
}

fn set_up(request: &Request) -> Result<Vec<Vec<u8>>, Failure> {
    let at = |step: Step| move |e: MountError| failure(step, e.what, e.errno);
    let spec = &request.spec;
    let tied = || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|e| failure(Step::Process, "parent death signal", e))
    };
    tied()?;
    namespaces(spec.network)?;
    let (mut root, generated) = root(request)?;
    devices::proc(&mut root, request.tier).map_err(at(Step::Proc))?;
    devices::sys(&mut root, spec.extras.insecure).map_err(at(Step::Sys))?;
    devices::dev(&mut root, request.tier, &spec.extras).map_err(at(Step::Dev))?;
    // As with other runtimes, the places of the kernel's file systems stay in the layer.
    root.stubs.clear();
    for (name, target, text) in [
        ("resolv.conf", "/etc/resolv.conf", &request.resolv_conf),
        ("hosts", "/etc/hosts", &request.hosts),
    ] {
        generated
            .file(&mut root, name, target, text)
            .map_err(at(Step::Mount))?;
    }
    let mut mounts: Vec<&Mount> = spec.mounts.iter().collect();
    mounts.sort_by_key(|m| Path::new(&m.target).components().count());
    let mut attacher = Attacher::new(&generated, request.tier);
    for (number, mount) in mounts.into_iter().enumerate() {
        attacher
            .attach(&mut root, number, mount)
            .map_err(at(Step::Mount))?;
    }
    if !spec.extras.insecure {
        devices::mask(&root, &generated.empty).map_err(at(Step::Mask))?;
    }
    place(&root.fd, spec.cwd.as_ref(), Missing::Directory)
        .map_err(|e| failure(Step::WorkDir, &spec.cwd, e))?;
    rustix::system::sethostname(spec.hostname.as_bytes())
        .map_err(|e| failure(Step::HostName, &spec.hostname, e))?;
    if spec.network == NetworkMode::None {
        sys::loopback_up().map_err(|e| failure(Step::Loopback, "lo", e))?;
    }
    pivot(&root.fd).map_err(|e| failure(Step::PivotRoot, "/", e))?;
    rustix::process::chdir(&*spec.cwd).map_err(|e| failure(Step::WorkDir, &spec.cwd, e))?;
    user::prepare(spec).map_err(|e| failure(Step::Process, "/dev/null", e))?;
    limits::set(&spec.extras.limits).map_err(|(what, e)| failure(Step::Limit, what, e))?;
    user::become_user(spec, request.groups_settable)
        .map_err(|(step, e)| failure(step, format!("uid {}, gid {}", spec.uid, spec.gid), e))?;
    // The kernel forgets it when the user changes.
    tied()?;
    Ok(root.stubs)
}

fn namespaces(network: NetworkMode) -> Result<(), Failure> {
    let mut flags =
        UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP;
    if network == NetworkMode::None {
        flags |= UnshareFlags::NEWNET;
    }
    sys::unshare(flags).map_err(|e| failure(Step::Namespaces, "mount, ipc, uts, cgroup", e))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(|e| failure(Step::Propagation, "/", e))
}

fn root(request: &Request) -> Result<(Root, Generated<'_>), Failure> {
    let at = |step: Step| move |e: MountError| failure(step, e.what, e.errno);
    let rootfs = &request.spec.rootfs;
    let (upper, work) = (&rootfs.upper, &rootfs.work);
    // Opened before they are mounted over.
    let upper_dirs = Some((upper.as_path(), work.as_path()));
    let userxattr = request.tier != Tier::Root;
    let opened = |empty| Overlay::open(&rootfs.lowers, upper_dirs, userxattr, empty);
    let placeholder = open_dir(upper).map_err(at(Step::Root))?;
    let mut overlay = opened(placeholder).map_err(at(Step::Root))?;
    overlay.devices = request.spec.extras.insecure;
    let generated = Generated::new(work).map_err(at(Step::Generated))?;
    overlay.empty = generated.open_empty().map_err(at(Step::Generated))?;
    let root = overlay.mount(upper).map_err(at(Step::Root))?;
    let root = Root {
        fd: root,
        stubs: Vec::new(),
    };
    Ok((root, generated))
}

fn pivot(root: &OwnedFd) -> rustix::io::Result<()> {
    rustix::process::fchdir(root)?;
    // Stacks the old root on the new one, then takes it away: no directory is needed for it.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}
