//! An agent of the build's own: the program `ssh-agent`, with keys from files.
//!
//! It runs `sh` as the command that it serves, which waits for the end of its standard input:
//! the agent ends at the latest ten seconds after the build, however that ended.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::SshError;
use crate::fs;

/// Longest key file in bytes, as in BuildKit.
const LONGEST_KEY: u64 = 100 << 10;

/// A running `ssh-agent`; it ends when this is dropped.
#[derive(Debug)]
pub struct PrivateAgent {
    socket: PathBuf,
    command: Child,
    agent: Option<rustix::process::Pid>,
    _dir: tempfile::TempDir,
}

impl PrivateAgent {
    /// Starts one, with its socket in a directory of its own in `temp_dir`.
    pub(super) fn start(temp_dir: &Path) -> Result<Self, SshError> {
        let dir = fs::temp_dir_in(temp_dir)?;
        let socket = dir.path().join("agent");
        let failed = |source| SshError::Program {
            program: "ssh-agent",
            source,
        };
        let mut command = Command::new("ssh-agent")
            .arg("-a")
            .arg(&socket)
            .args(["sh", "-c", "echo \"$SSH_AGENT_PID\"; exec cat >/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut line = String::new();
        if let Some(stdout) = command.stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(failed)?;
        }
        let pid = line.trim().parse().ok();
        let Some(agent) = pid.and_then(rustix::process::Pid::from_raw) else {
            let mut said = String::new();
            if let Some(stderr) = command.stderr.take() {
                stderr
                    .take(4096)
                    .read_to_string(&mut said)
                    .map_err(failed)?;
            }
            command.wait().map_err(failed)?;
            let said = said.trim().to_owned();
            return Err(SshError::Start { said });
        };
        Ok(Self {
            socket,
            command,
            agent: Some(agent),
            _dir: dir,
        })
    }

    /// Loads a private key without a passphrase. It goes over standard input: `ssh-add` minds
    /// the mode of files, which a CI system may have set.
    pub(super) fn add(&self, path: &Path) -> Result<(), SshError> {
        let failed = |source| SshError::Program {
            program: "ssh-add",
            source,
        };
        let bad = |said: &str| SshError::BadKey {
            path: path.to_owned(),
            said: said.to_owned(),
        };
        if fs::size(path)? > LONGEST_KEY {
            return Err(bad("it is too long"));
        }
        let mut key = fs::read(path)?;
        if !key.ends_with(b"\n") {
            key.push(b'\n');
        }
        let mut child = Command::new("ssh-add")
            .args(["-q", "-"])
            .env("SSH_AUTH_SOCK", &self.socket)
            // Nobody is there to type a passphrase.
            .env("SSH_ASKPASS", "/bin/false")
            .env("SSH_ASKPASS_REQUIRE", "force")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // What it doesn't want to read it complains of.
            let _ = stdin.write_all(&key);
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().map(str::trim).find(|line| !line.is_empty());
        Err(bad(said.unwrap_or("`ssh-add` refused it")))
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for PrivateAgent {
    fn drop(&mut self) {
        // The command still runs and has not been waited for, so the agent that serves it is
        // the process with this number.
        if let Some(agent) = self.agent.take() {
            let _ = rustix::process::kill_process(agent, rustix::process::Signal::TERM);
        }
        drop(self.command.stdin.take());
        let _ = self.command.wait();
    }
}
