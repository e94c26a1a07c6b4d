//! The program that hidden subcommands are started from.

use std::{
    fs::File,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use rustix::fs::{MemfdFlags, SealFlags};

use crate::fs::{FsError, IoContext};

/// What the copy is called in lists of processes.
const NAME: &str = "memobuild-ci";

/// Our own program as a sealed copy in memory.
///
/// The first process of a sandbox is started from it and has it as its
/// `/proc/self/exe` until it becomes the step's process. A step can make the kernel
/// execute that link again, in the sandbox and under the step's control, and could
/// then open it for writing (as in CVE-2019-5736). What it would get hold of is this
/// copy, which nobody can change, never the file on the host.
#[derive(Debug, Clone)]
pub struct Program {
    copy: Arc<OwnedFd>,
}

impl Program {
    /// Copies the running program.
    pub fn current() -> Result<Self, FsError> {
        Self::copy_of("/proc/self/exe")
    }

    /// Copies the program at `path`; it must dispatch the hidden subcommands.
    pub fn copy_of(path: impl AsRef<Path>) -> Result<Self, FsError> {
        let path = path.as_ref();
        let mut from = File::open(path).at("open", path)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // `MFD_EXEC` asks for what older kernels, which don't know the flag, do anyway.
        let copy = rustix::fs::memfd_create(NAME, flags | MemfdFlags::EXEC)
            .or_else(|_| rustix::fs::memfd_create(NAME, flags))
            .at("make an executable copy in memory of", path)?;
        let mut copy = File::from(copy);
        std::io::copy(&mut from, &mut copy).at("copy to memory", path)?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&copy, seals).at("seal the copy of", path)?;
        Ok(Self {
            copy: Arc::new(copy.into()),
        })
    }

    /// A command that executes it, called `memobuild-ci`. To be started while `self` lives.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.path());
        command.arg0(NAME);
        command
    }

    /// Where a child of this process finds it.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.copy.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_copy_runs_and_nobody_can_change_it() {
        let program = Program::copy_of("/bin/true").unwrap();
        assert!(program.command().status().unwrap().success());
        let result = std::fs::OpenOptions::new()
            .write(true)
            .open(program.path())
            .and_then(|mut file| file.write_all(b"x"));
        assert!(result.is_err());
    }
}
