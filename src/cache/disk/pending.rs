//! The journal of saves: what a build has made and not yet brought to its tiers.
//!
//! One file for each step, `pending/<hex of the first entry's id>.json`, JSON, version
//! [`PENDING_VERSION`]. It is locked by the process that works on it and removed when nothing is left
//! to do, so that a file whose lock can be had belongs to a build that was cut short.

use std::{
    fs::File,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::{DiskStore, owned::OwnedFile};
use crate::{
    cache::{ActionResult, CacheError},
    fs::{self, IoContext},
};

/// Version of the files' form.
const PENDING_VERSION: u32 = 1;

/// Saves older than this are not worth taking up.
const FORGOTTEN: Duration = Duration::from_secs(7 * 24 * 3600);

/// Something that is to be saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingSave {
    version: u32,
    /// Names of the tiers that lack it.
    pub tiers: Vec<String>,
    /// Where the frames of the layer's blob end, in bytes; empty if that isn't known.
    pub ends: Vec<u64>,
    /// The entries, all of one step, signed.
    pub entries: Vec<ActionResult>,
}

impl PendingSave {
    /// Entries of a step that are to go to the tiers with these names.
    pub fn new(tiers: Vec<String>, ends: Vec<u64>, entries: Vec<ActionResult>) -> Self {
        Self {
            version: PENDING_VERSION,
            tiers,
            ends,
            entries,
        }
    }
}

/// A file of the journal that this process works on.
#[derive(Debug)]
pub struct PendingFile {
    path: PathBuf,
    lock: File,
}

impl PendingFile {
    /// Removes it: the save is done, or given up. A later file of the same name stays.
    pub fn done(self) -> Result<(), CacheError> {
        match is_named(&self.lock, &self.path) {
            true => Ok(fs::remove_file(&self.path)?),
            false => Ok(()),
        }
    }
}

impl DiskStore {
    fn pending_dir(&self) -> PathBuf {
        self.dir().join("pending")
    }

    /// Enters a save into the journal, in place of an earlier one of the same entry.
    pub fn journal(&self, save: &PendingSave) -> Result<Option<PendingFile>, CacheError> {
        let Some(first) = save.entries.first() else {
            return Ok(None);
        };
        self.check_writable()?;
        fs::create_dir_all(self.pending_dir())?;
        let path = self
            .pending_dir()
            .join(format!("{}.json", first.id().0.hex()));
        let mut file = OwnedFile::create(&self.temp_dir(), "pending-")?;
        // Serialising plain structs to memory has no way to fail.
        let bytes = serde_json::to_vec(save).unwrap_or_default();
        file.write_all(&bytes).at("write", &path)?;
        file.rename(&path)?;
        let lock = file.handle()?;
        Ok(Some(PendingFile { path, lock }))
    }

    /// The saves that builds before this one left, locked. What can't be read or is too old is
    /// removed.
    pub fn unfinished_saves(&self) -> Result<Vec<(PendingSave, PendingFile)>, CacheError> {
        let mut saves = Vec::new();
        if !self.is_writable() || !fs::exists(self.pending_dir()) {
            return Ok(saves);
        }
        for path in fs::list_dir(self.pending_dir())? {
            let Ok(file) = fs::open(&path) else { continue };
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            // Its owner may have finished between the opening and the lock, and another one
            // may have come.
            if !is_named(&file, &path) {
                continue;
            }
            let written = file.metadata().and_then(|metadata| metadata.modified());
            let age = written
                .ok()
                .and_then(|time| SystemTime::now().duration_since(time).ok());
            let read = fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<PendingSave>(&bytes).ok())
                .filter(|save| save.version == PENDING_VERSION && !save.entries.is_empty());
            match read {
                Some(save) if age.unwrap_or_default() < FORGOTTEN => {
                    saves.push((save, PendingFile { path, lock: file }));
                }
                _ => fs::remove_file(&path)?,
            }
        }
        Ok(saves)
    }
}

/// Whether `path` is the name of this open file.
fn is_named(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::conformance::sample_action;

    fn save(number: u64) -> PendingSave {
        PendingSave::new(
            vec!["https://cache.example".to_owned()],
            vec![3, 5],
            vec![sample_action(number, &[])],
        )
    }

    #[test]
    fn what_a_process_left_is_found_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskStore::open(dir.path()).unwrap();
        assert!(store.unfinished_saves().unwrap().is_empty());
        let file = store.journal(&save(1)).unwrap().unwrap();
        assert!(
            store.unfinished_saves().unwrap().is_empty(),
            "its owner lives"
        );
        drop(file);
        let mut left = store.unfinished_saves().unwrap();
        assert_eq!(left.len(), 1);
        let (found, file) = left.remove(0);
        assert_eq!(found, save(1));
        file.done().unwrap();
        assert!(store.unfinished_saves().unwrap().is_empty());
    }

    #[test]
    fn a_later_save_takes_the_place_of_an_earlier_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskStore::open(dir.path()).unwrap();
        let first = store.journal(&save(1)).unwrap();
        let mut other = save(1);
        other.ends.push(9);
        drop(store.journal(&other).unwrap());
        first.unwrap().done().unwrap();
        let left = store.unfinished_saves().unwrap();
        assert_eq!((left.len(), &left[0].0), (1, &other));
    }

    #[test]
    fn what_is_damaged_or_old_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskStore::open(dir.path()).unwrap();
        drop(store.journal(&save(1)).unwrap());
        drop(store.journal(&save(2)).unwrap());
        let mut files = fs::list_dir(dir.path().join("pending")).unwrap();
        std::fs::write(files.pop().unwrap(), b"{\"version\":1").unwrap();
        let old = File::options().write(true).open(&files[0]).unwrap();
        old.set_modified(SystemTime::now() - FORGOTTEN - Duration::from_secs(9))
            .unwrap();
        drop(old);
        assert!(store.unfinished_saves().unwrap().is_empty());
        assert!(fs::list_dir(dir.path().join("pending")).unwrap().is_empty());
    }
}
