//! The local store: one directory, used by several processes at once.
//!
//! ```text
//! VERSION              "1\n"
//! CACHEDIR.TAG         tells backup programs to leave the directory out
//! blobs/sha256/ab/<64 hex digits>    mode 0444, whole from the moment it has the name
//! index.db             SQLite: actions, and when what was used (`index`)
//! tmp/                 files being written, each locked by its writer
//! locks/index, locks/gc              one at a time
//! locks/index-users                  shared by all who have the index open
//! locks/builds/        one locked file for each running build
//! pending/             what is still to be saved to tiers (`pending`)
//! snapshots/, memo/    of other modules
//! ```
//!
//! Every file gets its name by a rename, so a process killed at any moment leaves
//! whole blobs and, in `tmp/`, files that nobody holds; those are swept. Garbage
//! collection and the acts that rely on a blob's presence exclude each other by
//! SQLite's write transaction; [`BuildLease`] has the rest of that story.
//! The specification is `docs/internals/storage-format.md`.

mod actions;
mod asynchronous;
mod attachments;
mod blobs;
mod index;
mod lease;
mod maintenance;
mod owned;
mod pending;
#[cfg(test)]
mod tests;

pub use actions::StoredAction;
pub(super) use asynchronous::blocking;
pub use blobs::{BlobFile, BlobWriter, VerifiedBlob};
pub use lease::BuildLease;
pub use maintenance::{StoreStats, VerifyReport};
pub use pending::{PendingFile, PendingSave};

use std::{
    collections::HashSet,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use index::{Index, Place, lock};
use owned::OwnedFile;

use super::{CacheError, CacheWarning, gc::millis};
use crate::fs::{self, IoContext};

/// Version of the directory's layout.
const STORE_VERSION: u32 = 1;

/// See <https://bford.info/cachedir/>.
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This directory is a cache of memobuild-ci; it can be removed at any time.\n";

/// The local store. Cheap to clone; all clones share one connection to the index.
#[derive(Debug, Clone)]
pub struct DiskStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    index: Index,
    /// Leases held by this handle's clones.
    leases: AtomicUsize,
    /// When the youngest lease began, in milliseconds since 1970.
    lease_start: AtomicI64,
    /// Keys and digests that were marked as used since then.
    marked: Mutex<HashSet<[u8; 32]>>,
}

impl DiskStore {
    /// Opens the store in `dir`, making it if needed. A directory that can't be
    /// written is opened as [`open_read_only`](Self::open_read_only) does, with a
    /// warning.
    ///
    /// The index never makes this fail: what was wrong with it is among
    /// [`take_warnings`](Self::take_warnings).
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, CacheError> {
        let dir = dir.as_ref();
        match prepare(dir) {
            Ok(()) => {}
            Err(CacheError::ReadOnly { .. } | CacheError::Denied { .. })
                if dir.join("VERSION").exists() =>
            {
                let store = Self::open_read_only(dir)?;
                store.shared.index.warn(CacheWarning::ReadOnly {
                    path: dir.to_owned(),
                });
                return Ok(store);
            }
            Err(error) => return Err(error),
        }
        let store = Self::with_index(dir, true);
        // Leftovers cost space, not correctness: a failure can wait for the next time.
        let _ = owned::sweep(&store.temp_dir());
        Ok(store)
    }

    /// Opens the store in `dir`, which must exist, without writing to it. Reads work;
    /// writes give [`CacheError::ReadOnly`]; uses are not noted.
    pub fn open_read_only(dir: impl AsRef<Path>) -> Result<Self, CacheError> {
        let dir = dir.as_ref();
        check_version(dir)?;
        Ok(Self::with_index(dir, false))
    }

    fn with_index(dir: &Path, writable: bool) -> Self {
        let blobs = dir.join("blobs/sha256");
        let fill = Box::new(move |transaction: &rusqlite::Transaction<'_>| {
            maintenance::enter_all(transaction, &blobs)
        });
        let place = Place {
            path: dir.join("index.db"),
            making: dir.join("locks/index"),
            users: dir.join("locks/index-users"),
        };
        let index = Index::open(place, writable, fill);
        Self {
            shared: Arc::new(Shared {
                dir: dir.to_owned(),
                index,
                leases: AtomicUsize::new(0),
                lease_start: AtomicI64::new(0),
                marked: Mutex::default(),
            }),
        }
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Where the unpacked layers are; of the `snapshot` module.
    pub fn snapshots_dir(&self) -> PathBuf {
        self.dir().join("snapshots")
    }

    /// Where memos of file contents are; of the `context` module.
    pub fn memo_dir(&self) -> PathBuf {
        self.dir().join("memo")
    }

    /// Where files are written before they are renamed. Files here that nobody holds
    /// locked are removed when a store is opened; directories are left alone.
    pub fn temp_dir(&self) -> PathBuf {
        self.dir().join("tmp")
    }

    fn blobs_dir(&self) -> PathBuf {
        self.dir().join("blobs/sha256")
    }

    fn leases_dir(&self) -> PathBuf {
        self.dir().join("locks/builds")
    }

    /// Whether the store can be written.
    pub fn is_writable(&self) -> bool {
        self.shared.index.is_writable()
    }

    /// What the store got over by itself since the last call.
    pub fn take_warnings(&self) -> Vec<CacheWarning> {
        self.shared.index.take_warnings()
    }

    fn check_writable(&self) -> Result<(), CacheError> {
        if self.is_writable() {
            return Ok(());
        }
        Err(CacheError::ReadOnly {
            subject: self.dir().into(),
        })
    }

    /// The time to note for a use, in milliseconds since 1970; never before the
    /// youngest lease, should the clock have gone back.
    fn now(&self) -> i64 {
        unix_millis().max(self.shared.lease_start.load(Ordering::Relaxed))
    }

    /// Whether a use of this key or digest has to be noted now.
    fn must_mark(&self, id: &[u8; 32]) -> bool {
        self.is_writable()
            && self.shared.leases.load(Ordering::Relaxed) > 0
            && !lock(&self.shared.marked).contains(id)
    }

    /// Remembers that a use was noted. If it could not be, the next use tries again.
    fn note_mark<T>(&self, id: &[u8; 32], marked: &Result<T, CacheError>) {
        if marked.is_ok() && self.shared.leases.load(Ordering::Relaxed) > 0 {
            lock(&self.shared.marked).insert(*id);
        }
    }
}

/// Milliseconds since 1970.
fn unix_millis() -> i64 {
    millis(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

/// Makes the directories and the version file where they are missing.
fn prepare(dir: &Path) -> Result<(), CacheError> {
    for sub in ["blobs/sha256", "tmp", "locks/builds", "snapshots", "memo"] {
        fs::create_dir_all(dir.join(sub))?;
    }
    if !fs::exists(dir.join("VERSION")) {
        place(dir, "CACHEDIR.TAG", CACHEDIR_TAG)?;
        place(dir, "VERSION", &format!("{STORE_VERSION}\n"))?;
    }
    check_version(dir)?;
    rustix::fs::access(dir.join("tmp"), rustix::fs::Access::WRITE_OK)
        .at("write to", dir.join("tmp"))?;
    Ok(())
}

/// Writes a small file by way of `tmp/`, so that a half one is swept like all others.
fn place(dir: &Path, name: &str, text: &str) -> Result<(), CacheError> {
    let dest = dir.join(name);
    let mut file = OwnedFile::create(&dir.join("tmp"), "new-")?;
    file.write_all(text.as_bytes()).at("write", &dest)?;
    file.set_mode(0o644)?;
    file.rename(&dest)?;
    Ok(())
}

/// Whether the directory is a store of our version.
fn check_version(dir: &Path) -> Result<(), CacheError> {
    let path = dir.join("VERSION");
    let text = fs::read_to_string(&path).map_err(|error| {
        if error.source.kind() == io::ErrorKind::InvalidData {
            CacheError::Corrupt {
                subject: path.as_path().into(),
                what: "it is not text".to_owned(),
            }
        } else {
            error.into()
        }
    })?;
    if text.trim_end() == STORE_VERSION.to_string() {
        return Ok(());
    }
    Err(CacheError::Version {
        subject: path.into(),
        found: text.trim_end().chars().take(32).collect(),
        supported: STORE_VERSION,
    })
}
