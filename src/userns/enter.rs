//! The child's side: from an ordinary process to root of a new user namespace.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{
    process::{Gid, Pid, Uid, WaitOptions},
    thread::UnshareFlags,
};

use super::{IdMap, Mode};
use crate::{
    fs::{FsError, IoContext},
    sys::{self, Forked},
};

/// Name of the hidden subcommand.
pub const ENTER: &str = "__userns";

/// Why the namespace can't be entered.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// Not called by [`super::Userns::command`].
    #[error("wrong arguments of `{ENTER}`")]
    Arguments,
    /// The process that sets the maps can't be started.
    #[error("can't start the helper that sets the id maps")]
    Fork(#[source] io::Error),
    /// The kernel refuses a new user namespace.
    #[error("can't make a user namespace")]
    Unshare(#[source] io::Error),
    /// The maps were refused; the helper said why on standard error.
    #[error("can't set the id maps of the user namespace")]
    Maps,
    /// Root inside can't be had.
    #[error("can't become root of the user namespace")]
    Become(#[source] io::Error),
}

impl EnterError {
    /// Exit code of a process that could not enter.
    pub const EXIT_CODE: u8 = 125;
}

/// Why a map could not be set, said by the helper.
#[derive(Debug, thiserror::Error)]
enum MapError {
    #[error(transparent)]
    Write(#[from] FsError),
    #[error("can't run `{}`", .0.display())]
    Run(PathBuf, #[source] io::Error),
    #[error("`{}` failed", .0.display())]
    Refused(PathBuf),
}

/// Enters the namespace that `args` (all after [`ENTER`]) describe. The result is what to
/// do there: the hidden subcommand and its arguments.
pub fn enter(args: &[OsString]) -> Result<Vec<OsString>, EnterError> {
    let (mode, uids, gids, rest) = parse(args).ok_or(EnterError::Arguments)?;
    let (mut wait, mut go) = io::pipe().map_err(EnterError::Fork)?;
    let target = rustix::process::getpid();
    let helper = match sys::fork().map_err(EnterError::Fork)? {
        Forked::Parent(helper) => helper,
        Forked::Child => {
            drop(go);
            let ok =
                wait.read_exact(&mut [0]).is_ok() && report(set_maps(&mode, target, &uids, &gids));
            sys::exit_now(i32::from(!ok))
        }
    };
    drop(wait);
    let unshared = sys::unshare(UnshareFlags::NEWUSER);
    if unshared.is_ok() {
        // A helper that is gone shows in its exit code.
        let _ = go.write_all(&[1]);
    }
    drop(go);
    let status = rustix::process::waitpid(Some(helper), WaitOptions::empty());
    unshared.map_err(|e| EnterError::Unshare(e.into()))?;
    match status {
        Ok(Some((_, status))) if status.exit_status() == Some(0) => {}
        _ => return Err(EnterError::Maps),
    }
    become_root(&mode).map_err(|e| EnterError::Become(e.into()))?;
    Ok(rest.to_vec())
}

type Parsed<'a> = (Mode, IdMap, IdMap, &'a [OsString]);

fn parse(args: &[OsString]) -> Option<Parsed<'_>> {
    let (mode, rest) = args.split_first()?;
    let (mode, rest) = match mode.to_str()? {
        "direct" => (Mode::Direct, rest),
        "single" => (Mode::Single, rest),
        "helpers" => {
            let [newuidmap, newgidmap, rest @ ..] = rest else {
                return None;
            };
            let mode = Mode::Helpers {
                newuidmap: newuidmap.into(),
                newgidmap: newgidmap.into(),
            };
            (mode, rest)
        }
        _ => return None,
    };
    let [uids, gids, rest @ ..] = rest else {
        return None;
    };
    let map = |text: &OsString| text.to_str()?.parse().ok();
    Some((mode, map(uids)?, map(gids)?, rest))
}

fn set_maps(mode: &Mode, target: Pid, uids: &IdMap, gids: &IdMap) -> Result<(), MapError> {
    let file = |name: &str| format!("/proc/{target}/{name}");
    let write = |path: String, text: &str| std::fs::write(&path, text).at("write", &path);
    match mode {
        Mode::Helpers {
            newuidmap,
            newgidmap,
        } => {
            run_helper(newuidmap, target, uids)?;
            run_helper(newgidmap, target, gids)?;
        }
        Mode::Single | Mode::Direct => {
            if *mode == Mode::Single {
                // Without privilege a group map may be set only once groups can't be dropped:
                // dropping one could open files that deny access to that group.
                write(file("setgroups"), "deny")?;
            }
            write(file("uid_map"), &uids.proc_text())?;
            write(file("gid_map"), &gids.proc_text())?;
        }
    }
    Ok(())
}

fn run_helper(program: &Path, target: Pid, map: &IdMap) -> Result<(), MapError> {
    let status = Command::new(program)
        .arg(target.to_string())
        .args(map.helper_args())
        .env_clear()
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status()
        .map_err(|e| MapError::Run(program.to_owned(), e))?;
    if !status.success() {
        return Err(MapError::Refused(program.to_owned()));
    }
    Ok(())
}

fn report(result: Result<(), MapError>) -> bool {
    if let Err(error) = &result {
        let cause = std::error::Error::source(error)
            .map(|e| format!(": {e}"))
            .unwrap_or_default();
        // Nothing can be done if the caller closed standard error.
        let _ = writeln!(io::stderr(), "{error}{cause}");
    }
    result.is_ok()
}

fn become_root(mode: &Mode) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    if *mode != Mode::Single {
        rustix::thread::set_thread_groups(&[])?;
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}
