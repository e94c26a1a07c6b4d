//! Files whose owner can be seen to live: temporary files and leases.
//!
//! An [`OwnedFile`] is locked (`flock`) by the process that made it for as long as it
//! is open. The kernel frees the lock when the process dies, however it dies, so
//! whoever gets the lock of such a file knows that it is abandoned.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::FlockOperation;

use crate::fs::{FsError, IoContext, remove_file};

/// Age from which an abandoned file is removed where the file system has no locks.
const STALE: Duration = Duration::from_secs(3600);

/// A locked file, for writing; removed when dropped, unless it was renamed before.
#[derive(Debug)]
pub(super) struct OwnedFile {
    file: File,
    path: PathBuf,
    /// Whether `path` still names the file.
    named: bool,
}

impl OwnedFile {
    /// Makes a new file `<dir>/<prefix><random>`, mode 0600, and locks it.
    pub(super) fn create(dir: &Path, prefix: &str) -> Result<Self, FsError> {
        loop {
            let (file, path) = tempfile::Builder::new()
                .prefix(prefix)
                .rand_bytes(12)
                .make_in(dir, |path| {
                    OpenOptions::new()
                        .read(true)
                        .write(true)
                        .create_new(true)
                        .mode(0o600)
                        .open(path)
                })
                .and_then(|temp| temp.keep().map_err(|e| e.error))
                .at("create a file in", dir)?;
            // A file system without locks leaves only the age to judge by.
            let _ = rustix::fs::flock(&file, FlockOperation::LockExclusive);
            // Between creation and lock a sweeper may have taken it for abandoned.
            if file.metadata().at("read", &path)?.nlink() > 0 {
                return Ok(Self {
                    file,
                    path,
                    named: true,
                });
            }
        }
    }

    /// Sets the permission bits, whatever the umask.
    pub(super) fn set_mode(&self, mode: u32) -> Result<(), FsError> {
        self.file
            .set_permissions(Permissions::from_mode(mode))
            .at("set the mode of", &self.path)
    }

    /// Another handle to the open file, which keeps it locked.
    pub(super) fn handle(&self) -> Result<File, FsError> {
        self.file.try_clone().at("open again", &self.path)
    }

    /// Moves the file to `dest`, replacing what stands there; it is no longer removed.
    pub(super) fn rename(&mut self, dest: &Path) -> Result<(), FsError> {
        crate::fs::rename(&self.path, dest)?;
        self.named = false;
        Ok(())
    }
}

impl Write for OwnedFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for OwnedFile {
    fn drop(&mut self) {
        if self.named {
            // What remains is swept later.
            let _ = remove_file(&self.path);
        }
    }
}

/// What [`sweep`] saw.
#[derive(Debug, Default)]
pub(super) struct Swept {
    /// Abandoned files removed.
    pub(super) removed: usize,
    /// Names of the files that have an owner.
    pub(super) living: Vec<String>,
}

/// Removes the abandoned files in `dir`; directories are left alone.
pub(super) fn sweep(dir: &Path) -> Result<Swept, FsError> {
    let mut swept = Swept::default();
    for entry in std::fs::read_dir(dir).at("read directory", dir)?.flatten() {
        if !entry.file_type().is_ok_and(|t| t.is_file()) {
            continue;
        }
        if remove_abandoned(&entry.path())? {
            swept.removed += 1;
        } else {
            swept
                .living
                .push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(swept)
}

/// Removes the file at `path` if its owner is gone. Whether it is gone now.
fn remove_abandoned(path: &Path) -> Result<bool, FsError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        // Another user's file: its owner, or a sweep by root, will see to it.
        Err(_) => return Ok(false),
    };
    let abandoned = match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => true,
        Err(rustix::io::Errno::WOULDBLOCK) => false,
        Err(_) => is_stale(&file),
    };
    if abandoned {
        remove_file(path)?;
    }
    Ok(abandoned)
}

fn is_stale(file: &File) -> bool {
    file.metadata()
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|modified| {
            SystemTime::now()
                .duration_since(modified)
                .is_ok_and(|age| age > STALE)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeping_spares_what_has_an_owner() {
        let dir = tempfile::tempdir().unwrap();
        let owned = OwnedFile::create(dir.path(), "w-").unwrap();
        std::fs::write(dir.path().join("left"), b"x").unwrap();
        let swept = sweep(dir.path()).unwrap();
        assert_eq!((swept.removed, swept.living.len()), (1, 1));
        assert!(owned.path.exists());
        assert!(!dir.path().join("left").exists());
        drop(owned);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_renamed_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("there");
        OwnedFile::create(dir.path(), "w-")
            .unwrap()
            .rename(&dest)
            .unwrap();
        assert!(dest.exists());
    }
}
