//! Directories of cache mounts as the cache's garbage collection sees them.
//!
//! ```text
//! mounts/<64 hex digits>            what steps have left
//! mounts/<64 hex digits>.lock       held by who uses it; its time is that of the last use
//! mounts/<64 hex digits>.size       bytes of the directory in decimal, measured after that use
//! mounts/<anything else>            of one step alone, left behind by a build that was killed
//! ```
//!
//! A lock is never removed: two processes would hold two files of one name.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    cache::{CacheError, DerivedData, DerivedUse, DiskStore, Subject},
    digest::Blake3Digest,
    fs::{self, FileLock},
    snapshot::{SnapshotError, Snapshots},
};

/// What the identifiers of directories begin with, among those of all derived data.
const ID_PREFIX: &str = "mount:";

/// The directories of cache mounts in a store.
#[derive(Debug)]
pub struct MountDirs<'s> {
    dir: PathBuf,
    snapshots: &'s Snapshots,
}

/// The directory in which the cache mounts of a store are.
pub(super) fn place(store: &DiskStore) -> PathBuf {
    store.dir().join("mounts")
}

impl<'s> MountDirs<'s> {
    /// Those of `store`, if it has any. They belong to the users that steps see, as unpacked layers do.
    pub fn existing(store: &DiskStore, snapshots: &'s Snapshots) -> Option<Self> {
        let dir = place(store);
        fs::exists(&dir).then_some(Self { dir, snapshots })
    }

    /// Whether an identifier is that of a cache mount.
    pub fn owns(id: &str) -> bool {
        id.starts_with(ID_PREFIX)
    }

    /// The size of a directory that nobody uses, measured if it was used since that was done.
    fn size(&self, name: &str) -> Result<u64, CacheError> {
        let dir = self.dir.join(name);
        let note = dir.with_extension("size");
        let noted = fs::modified(&note).ok();
        if noted.is_some_and(|time| Some(time) >= self.used(name))
            && let Ok(text) = fs::read_to_string(&note)
            && let Ok(bytes) = text.trim().parse()
        {
            return Ok(bytes);
        }
        let measured = self.snapshots.measure(&dir);
        let bytes = measured.map_err(|e| self.broken("measure", e))?.bytes;
        fs::write_atomic(&note, format!("{bytes}\n").as_bytes())?;
        Ok(bytes)
    }

    /// When it was used last; none if nobody ever did.
    fn used(&self, name: &str) -> Option<SystemTime> {
        let dir = self.dir.join(name);
        let lock = fs::modified(dir.with_extension("lock"));
        lock.or_else(|_| fs::modified(&dir)).ok()
    }

    fn broken(&self, act: &'static str, source: SnapshotError) -> CacheError {
        CacheError::Broken {
            act,
            subject: Subject::Path(self.dir.clone()),
            source: Box::new(source),
        }
    }
}

/// Whether a name is that of a directory which steps share.
fn is_shared(name: &str) -> bool {
    Blake3Digest::from_hex(name).is_ok()
}

/// Whether a name is that of a file beside such a directory.
fn is_beside(name: &str) -> bool {
    let stem = name.rsplit_once('.').map(|(stem, _)| stem);
    stem.is_some_and(is_shared)
}

impl DerivedData for MountDirs<'_> {
    fn list(&self) -> Result<Vec<DerivedUse>, CacheError> {
        let mut all = Vec::new();
        for name in fs::names(&self.dir)? {
            let Some(name) = name.to_str().filter(|name| !is_beside(name)) else {
                continue;
            };
            let lock = self.dir.join(name).with_extension("lock");
            let bytes = match is_shared(name) {
                false => 0,
                true => match FileLock::try_exclusive(lock)? {
                    Some(_lock) => self.size(name)?,
                    // In use: it stays whatever its size is.
                    None => continue,
                },
            };
            let used = self.used(name).unwrap_or(UNIX_EPOCH);
            let used = used.duration_since(UNIX_EPOCH).unwrap_or_default();
            all.push(DerivedUse {
                id: format!("{ID_PREFIX}{name}"),
                bytes,
                used: i64::try_from(used.as_millis()).unwrap_or(i64::MAX),
            });
        }
        Ok(all)
    }

    fn remove(&self, id: &str) -> Result<bool, CacheError> {
        let name = id.trim_start_matches(ID_PREFIX);
        if name.is_empty() || name.contains('/') {
            return Ok(false);
        }
        let dir = self.dir.join(name);
        let _lock = match is_shared(name) {
            true => match FileLock::try_exclusive(dir.with_extension("lock"))? {
                Some(lock) => Some(lock),
                None => return Ok(false),
            },
            false => None,
        };
        let removed = self.snapshots.remove_tree(&dir);
        removed.map_err(|source| self.broken("remove", source))?;
        if is_shared(name) {
            fs::remove_file(dir.with_extension("size"))?;
            // What it was packed to says nothing about another one of its name.
            fs::remove_file(dir.with_extension("state"))?;
        }
        Ok(true)
    }
}
