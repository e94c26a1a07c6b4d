//! The program `git`, for what must come from a remote.
//!
//! It runs in the user's repository, whose configuration has the addresses and credentials
//! that the CI platform's checkout left there, so unlike the one that fetches sources it
//! reads that configuration. What else a configuration can make `git fetch` start is turned
//! off: hooks, `fsmonitor`, maintenance, submodules, remote helpers, other names for the
//! program on the server, commands that list references. It asks nobody, and it is ended at
//! a deadline. Whether the repository of another user is safe to work in is Git's own
//! decision (`safe.directory`).

use std::{
    ffi::OsString,
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{GitError, Repository};
use crate::{
    fs::{self, IoContext as _},
    redact,
};

/// What may be fetched with.
#[derive(Debug, Clone)]
pub struct FetchSettings {
    /// The environment of the program, and no more.
    pub env: Vec<(OsString, OsString)>,
    /// How long one call may take.
    pub timeout: Duration,
}

/// Settings that keep a configuration from starting programs.
const SETTINGS: [&str; 16] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.alternateRefsCommand=true",
    "gc.auto=0",
    "maintenance.auto=false",
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "fetch.writeCommitGraph=false",
    "fetch.prune=false",
    "credential.interactive=false",
    "protocol.ext.allow=never",
    "protocol.fd.allow=never",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    "advice.detachedHead=false",
    "fetch.showForcedUpdates=false",
];

/// Longest message of `git` that is passed on, in bytes.
const MESSAGE: usize = 600;

/// Runs `git fetch` of `remote` in `repository` with `args` behind the hardening ones, and
/// `input` as its standard input.
pub(super) fn fetch(
    repository: &Repository,
    settings: &FetchSettings,
    remote: &str,
    args: &[&str],
    input: &str,
) -> Result<(), GitError> {
    let started = Instant::now();
    let mut stderr = temp()?;
    let mut stdin = temp()?;
    stdin
        .write_all(input.as_bytes())
        .and_then(|()| stdin.rewind())
        .at("write", "a temporary file")?;
    let mut command = Command::new("git");
    command
        .env_clear()
        .envs(settings.env.iter().map(|(name, value)| (name, value)))
        .env("LC_ALL", "C")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_LFS_SKIP_SMUDGE", "1")
        .env("GIT_OPTIONAL_LOCKS", "0");
    let has_ssh = settings.env.iter().any(|(n, _)| n == "GIT_SSH_COMMAND")
        || repository.config_string("core.sshCommand").is_some();
    if !has_ssh {
        command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes");
    }
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command
        .args([
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--refmap=",
            "--upload-pack=git-upload-pack",
        ])
        .args(args)
        // Not by `--git-dir`: that would say that the repository is safe, whoever owns it.
        .current_dir(repository.work_dir().unwrap_or(repository.git_dir()))
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(stderr.try_clone().at("copy", "a temporary file")?);
    let error = |source| GitError::Program { source };
    let mut child = command.spawn().map_err(error)?;
    let left = settings.timeout.saturating_sub(started.elapsed());
    if !ends_within(child.id(), left).map_err(error)? {
        child.kill().map_err(error)?;
        child.wait().map_err(error)?;
        return Err(GitError::TimedOut {
            remote: remote.to_owned(),
            seconds: settings.timeout.as_secs(),
        });
    }
    let status = child.wait().map_err(error)?;
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    let read = stderr.rewind().and_then(|()| stderr.read_to_end(&mut said));
    read.at("read", "a temporary file")?;
    Err(GitError::Fetch {
        remote: remote.to_owned(),
        said: message(&String::from_utf8_lossy(&said)),
    })
}

fn temp() -> Result<File, GitError> {
    Ok(fs::temp_file().at("make", "a temporary file")?)
}

/// Waits for a child to end, `limit` at most; whether it did.
fn ends_within(child: u32, limit: Duration) -> std::io::Result<bool> {
    let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| std::io::Error::other("no such process"))?;
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(std::io::Error::other)?;
        match poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What `git` said, in one line, credentials masked: its last words.
fn message(stderr: &str) -> String {
    let masked = redact::url_credentials(stderr);
    let lines = masked.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("hint:"));
    let text = lines.collect::<Vec<_>>().join("; ");
    let from = text.len().saturating_sub(MESSAGE);
    let from = (from..text.len()).find(|at| text.is_char_boundary(*at));
    match text[from.unwrap_or(0)..].trim() {
        "" => "it said nothing".to_owned(),
        said => said.to_owned(),
    }
}
