//! Directories under construction, and what killed processes leave of them.
//!
//! `work/<random>/` belongs to the process that holds the lock on `work/<random>.lock`.
//! Names are made under a shared lock on `sweep.lock`, and leftovers are looked for
//! under an exclusive one, so a lock file that is free has lost its owner.

use std::path::{Path, PathBuf};

use super::{SnapshotError, access::Access};
use crate::fs::{self, FileLock, FsError, IoContext};

/// A private directory that is removed when dropped, unless it is published.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    access: Access,
    /// Dropped after the directory and the lock file are gone.
    _lock: FileLock,
}

impl Scratch {
    /// Makes an empty one below the snapshot store `dir`.
    pub(super) fn create(dir: &Path, access: &Access) -> Result<Self, SnapshotError> {
        let _no_sweep = FileLock::shared(dir.join("sweep.lock"))?;
        let work = dir.join("work");
        let path = tempfile::Builder::new()
            .prefix("")
            .rand_bytes(8)
            .tempdir_in(&work)
            .at("create a directory in", &work)?
            .keep();
        let lock = FileLock::exclusive(lock_path(&path))?;
        Ok(Self {
            path,
            access: access.clone(),
            _lock: lock,
        })
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the directory to `dest`. If another process has put its own there, that one
    /// stays.
    pub(super) fn publish(self, dest: &Path) -> Result<(), SnapshotError> {
        match std::fs::rename(&self.path, dest) {
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Ok(())
            }
            result => Ok(result.at("rename to", dest)?),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed now is swept when the store is opened next.
        if !fs::exists(&self.path) || self.access.remove(&self.path).is_ok() {
            let _ = fs::remove_file(lock_path(&self.path));
        }
    }
}

/// Removes what processes that are gone left in the store `dir`.
pub(super) fn sweep(dir: &Path, access: &Access) -> Result<(), SnapshotError> {
    let Some(no_creation) = FileLock::try_exclusive(dir.join("sweep.lock"))? else {
        return Ok(());
    };
    let mut dead = Vec::new();
    for path in children(&dir.join("work"))? {
        if path
            .extension()
            .is_some_and(|extension| extension == "lock")
        {
            if let Some(lock) = FileLock::try_exclusive(&path)? {
                dead.push((path.with_extension(""), lock));
            }
        } else if !fs::exists(lock_path(&path))
            && let Some(lock) = FileLock::try_exclusive(lock_path(&path))?
        {
            dead.push((path, lock));
        }
    }
    // The locks are held: others may work on while the directories go.
    drop(no_creation);
    for (path, _lock) in dead {
        access.remove(&path)?;
        fs::remove_file(lock_path(&path))?;
    }
    Ok(())
}

/// The paths of what is in a directory, sorted.
pub(super) fn children(dir: &Path) -> Result<Vec<PathBuf>, FsError> {
    let mut paths = std::fs::read_dir(dir)
        .at("list", dir)?
        .map(|entry| Ok(entry.at("list", dir)?.path()))
        .collect::<Result<Vec<_>, FsError>>()?;
    paths.sort();
    Ok(paths)
}

fn lock_path(path: &Path) -> PathBuf {
    path.with_extension("lock")
}
