//! The last steps before the program: who the process is and what it may use.

use std::{
    ffi::CString,
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    process::{Gid, Resource, Rlimit, Uid},
};

use super::{caps, seccomp, spec::ProcessSpec, step::Step};
use crate::{graph::LimitName, sys};

/// Docker's limit of open files.
const OPEN_FILES: u64 = 1 << 20;

/// Standard input, session, umask, limits, signals, descriptors.
pub(super) fn prepare(spec: &ProcessSpec) -> io::Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    sys::replace_stdio(null.as_fd(), 0)?;
    rustix::process::setsid()?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // What is lowered here could not be raised again.
    let asked = |name| spec.extras.limits.iter().any(|limit| limit.name == name);
    if !asked(LimitName::Nofile) {
        limit_open_files();
    }
    if !asked(LimitName::Core) {
        // A core file would end up in the layer.
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        rustix::process::setrlimit(Resource::Core, none)?;
    }
    sys::reset_signals();
    sys::close_on_exec()
}

fn limit_open_files() {
    let wanted = Rlimit {
        current: Some(OPEN_FILES),
        maximum: Some(OPEN_FILES),
    };
    if rustix::process::setrlimit(Resource::Nofile, wanted).is_err() {
        // Raising the hard limit needs a privilege; up to it anybody may go.
        let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
        let up_to_hard = Rlimit {
            current: hard.map(|h| h.min(OPEN_FILES)),
            maximum: hard,
        };
        // What was inherited works too.
        let _ = rustix::process::setrlimit(Resource::Nofile, up_to_hard);
    }
}

/// Gives up everything that the step shall not have and becomes its user.
pub(super) fn become_user(
    spec: &ProcessSpec,
    groups_settable: bool,
) -> Result<(), (Step, io::Error)> {
    let at = |step: Step| move |e: Errno| (step, io::Error::from(e));
    if spec.extras.insecure {
        return caps::keep_all(|| change_user(spec, groups_settable)).map_err(at(Step::User));
    }
    caps::limit().map_err(at(Step::Capabilities))?;
    // Before the capabilities go: without `no_new_privs` the kernel asks for CAP_SYS_ADMIN.
    seccomp::load().map_err(|e| (Step::Seccomp, e))?;
    change_user(spec, groups_settable).map_err(at(Step::User))?;
    caps::keep(spec.uid == 0).map_err(at(Step::Capabilities))
}

fn change_user(spec: &ProcessSpec, groups_settable: bool) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(spec.uid), Gid::from_raw(spec.gid));
    if groups_settable {
        let groups: Vec<Gid> = spec.groups.iter().map(|g| Gid::from_raw(*g)).collect();
        rustix::thread::set_thread_groups(&groups)?;
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

/// Executes the step's program. Returns only on failure, with a message as Docker's
/// builder words it and the exit code of a shell: 127 not found, 126 not executable.
pub(super) fn execute(spec: &ProcessSpec) -> (String, i32) {
    let c_string = |text: String| CString::new(text).ok();
    let args: Option<Vec<CString>> = spec.args.iter().cloned().map(c_string).collect();
    let env: Option<Vec<CString>> = spec
        .env
        .iter()
        .map(|(name, value)| c_string(format!("{name}={value}")))
        .collect();
    let (Some(args), Some(env), Some(program)) = (args, env, spec.args.first()) else {
        return (
            "exec: no program, or a NUL byte in its arguments".to_owned(),
            126,
        );
    };
    let found = if program.contains('/') {
        program.clone()
    } else {
        match look_up(program, spec) {
            Some(path) => path,
            None => {
                return (
                    format!("exec: \"{program}\": executable file not found in $PATH"),
                    127,
                );
            }
        }
    };
    let Some(path) = c_string(found.clone()) else {
        return ("exec: no program".to_owned(), 126);
    };
    let error = sys::exec(&path, &args, &env);
    let said = match Errno::from_io_error(&error) {
        // The file is there: then its interpreter is not.
        Some(Errno::NOENT) if std::fs::metadata(&found).is_ok() => {
            "no such file or directory (its interpreter or loader is missing)"
        }
        Some(Errno::NOENT) => "no such file or directory",
        Some(Errno::ACCESS) => "permission denied",
        Some(Errno::NOEXEC) => "exec format error",
        _ => return (format!("exec: \"{program}\": {error}"), 126),
    };
    let code = if error.kind() == io::ErrorKind::NotFound {
        127
    } else {
        126
    };
    (format!("exec: \"{program}\": {said}"), code)
}

/// The first executable file of this name in `PATH`; if there is none, the first file.
fn look_up(program: &str, spec: &ProcessSpec) -> Option<String> {
    let path = spec.env.iter().rev().find(|(name, _)| name == "PATH")?;
    let candidates = path.1.split(':').map(|dir| {
        let dir = if dir.is_empty() { "." } else { dir };
        format!("{dir}/{program}")
    });
    let mut first = None;
    for candidate in candidates {
        if let Ok(data) = std::fs::metadata(&candidate)
            && data.is_file()
        {
            if data.mode() & 0o111 != 0 {
                return Some(candidate);
            }
            first.get_or_insert(candidate);
        }
    }
    first
}
