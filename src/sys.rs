//! System calls that neither the standard library nor rustix offers as safe
//! functions: the only file of the program with `unsafe` in it.
//!
//! Everything here is used by the hidden subcommands, which run single-threaded from
//! their first instruction to their last. Each block says why it is sound.

#![expect(
    unsafe_code,
    reason = "the one file where system calls without a safe wrapper are made"
)]

use std::{
    ffi::{CStr, CString, c_char, c_ulong},
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr,
};

use rustix::process::Pid;
use seccompiler::sock_filter;

/// Which side of a [`fork`] this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    /// The caller; the new process has this id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Makes a second process of this one. Refused (`EDEADLK`) where this process has
/// more than one thread: only the caller would live on in the child, with the locks
/// of all others held for ever.
pub fn fork() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    // SAFETY: the process has one thread, as just counted, and nobody but that thread
    // could start another. So the child is an exact copy in which every lock, the
    // allocator's included, is in the state in which its only thread left it.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid).map_or(Forked::Child, Forked::Parent)),
    }
}

/// Ends the process at once: no destructors, no flushing of inherited buffers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any integer and has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Replaces this process by the program at `path`. Returns only on failure.
pub fn exec(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings
            .iter()
            .map(|s| s.as_ptr())
            .chain([ptr::null()])
            .collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: `path` is a C string; both arrays end with a null pointer and point to
    // C strings borrowed for the whole call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Gives every signal its default disposition and unblocks all of them. (The Rust
/// runtime ignores SIGPIPE, and ignored signals stay ignored across exec.)
pub fn reset_signals() {
    // `struct sigaction` as the kernel has it: four words, all zero for SIG_DFL. The C
    // library's function would refuse the two signals that it keeps to itself, which
    // may have been inherited ignored as well.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: the structure lives for the call and is as large as the kernel's on
        // all 64-bit platforms; the old one is not asked for; 8 is the size of the mask.
        // For SIGKILL and SIGSTOP the call fails, which is as good.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<u64>(),
                8,
            );
        }
    }
    let mut none = mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set before `sigprocmask` reads it; the old
    // mask is not asked for.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// Moves this thread into new namespaces.
pub fn unshare(flags: rustix::thread::UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: what makes this unsafe is `UnshareFlags::FILES`, which would give this
    // thread other files than its siblings; callers pass namespaces only, and have
    // no siblings.
    unsafe { rustix::thread::unshare_unsafe(flags & !rustix::thread::UnshareFlags::FILES) }
}

/// Makes `fd` the process's standard stream number `stream` (0, 1 or 2).
pub fn replace_stdio(fd: BorrowedFd<'_>, stream: i32) -> io::Result<()> {
    debug_assert!((0..=2).contains(&stream));
    // SAFETY: `fd` is open for the call. Only the numbers 0 to 2 are replaced, and the
    // standard library never treats those as owned by anybody.
    if unsafe { libc::dup2(fd.as_raw_fd(), stream) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Marks every file descriptor from 3 on close-on-exec.
pub fn close_on_exec() -> io::Result<()> {
    // SAFETY: changes a flag of descriptors, closes none of them now.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Adds mount attributes (`MOUNT_ATTR_*`) to the mount that `mount` refers to, and
/// with `recursive` to all below it (`mount_setattr(2)`, Linux 5.12).
pub fn add_mount_attributes(mount: impl AsFd, set: u64, recursive: bool) -> io::Result<()> {
    let attr = MountAttr {
        set,
        clear: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, the structure lives for the call, and its exact
    // size is passed along.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Brings the loopback device of the current network namespace up.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    // SAFETY: `ifreq` consists of integers and a union of plain data, for which all
    // zeros is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = c_char::from_ne_bytes([*from]);
    }
    // IFF_UP | IFF_RUNNING.
    request.ifr_ifru.ifru_flags = 0x41;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which lives for the call; the name in it
    // ends with a zero byte.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Adds a seccomp filter to this thread and all its descendants. `no_new_privs` is
/// not needed and not set where the caller has CAP_SYS_ADMIN in its user namespace.
pub fn load_seccomp_filter(program: &[sock_filter]) -> io::Result<()> {
    /// `struct sock_fprog`.
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const sock_filter,
    }
    let program = Program {
        len: u16::try_from(program.len())
            .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?,
        filter: program.as_ptr(),
    };
    // SAFETY: `filter` points to `len` instructions that live for the call; the kernel
    // copies and verifies them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const program,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What ended and waited-for children used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time in milliseconds.
    pub cpu_ms: u64,
    /// Largest resident set of one process in bytes.
    pub peak_rss: u64,
}

/// Resources used by the children this process has waited for.
pub fn children_usage() -> Usage {
    let mut usage = mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the structure is writable for the call; all zeros is a value of it, so
    // it may be read also if the call failed.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let ms = |t: libc::timeval| {
        u64::try_from(t.tv_sec).unwrap_or(0) * 1000 + u64::try_from(t.tv_usec).unwrap_or(0) / 1000
    };
    Usage {
        cpu_ms: ms(usage.ru_utime) + ms(usage.ru_stime),
        // `ru_maxrss` is in KiB.
        peak_rss: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    }
}

/// For [`add_mount_attributes`]: nothing can be written.
pub const MOUNT_ATTR_RDONLY: u64 = 0x1;
/// For [`add_mount_attributes`]: no effect of setuid bits and file capabilities.
pub const MOUNT_ATTR_NOSUID: u64 = 0x2;
/// For [`add_mount_attributes`]: device nodes can't be opened.
pub const MOUNT_ATTR_NODEV: u64 = 0x4;
/// For [`add_mount_attributes`]: files can't be executed.
pub const MOUNT_ATTR_NOEXEC: u64 = 0x8;

const _: () = assert!(size_of::<c_ulong>() == 8, "64-bit platforms only");
