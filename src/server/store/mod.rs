//! What the server keeps: metadata in SQLite, bytes as frames in files.
//!
//! [`Store`] is used by blocking code. A blob is a list of *frames*, each a file named by the
//! BLAKE3 of its bytes, kept once in a namespace however many blobs share it; a blob that
//! comes whole is cut by the server. Invariants:
//!
//! - A frame's file appears and vanishes only under the writer's lock (`schema`), together
//!   with its row; a file without a row is left by a crash and swept away.
//! - A blob is visible once all its frames are there and their bytes had its SHA-256.
//! - Frames are compared with their name before they are sent; a wrong one is dropped with all
//!   that is made of it.
//! - Room is reserved before it is used (`space`); what is trusted less never makes what is
//!   trusted more go (`collect`).
//!
//! Layout and tables: `docs/internals/remote-cache.md`.

mod blobs;
mod collect;
mod entries;
mod frames;
mod schema;
mod space;

pub use collect::GcDemand;
pub use frames::FrameWriter;
pub use space::Quotas;

pub(super) use space::CLASSES;

pub(super) use blobs::{BlobParts, Committed};
pub(super) use entries::{NewEntry, PutEntry};
pub(super) use frames::Published;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::OptionalExtension as _;
use schema::{Database, lock};
use space::Space;

use crate::{
    cache::Trust,
    fs::{self, FileLock, FsError},
};

/// Version of the layout, which `VERSION` states.
const LAYOUT_VERSION: usize = 1;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refuses.
    #[error("can't {act} the metadata")]
    Database {
        /// The failing act, as a verb.
        act: &'static str,
        /// What it said.
        #[source]
        source: rusqlite::Error,
    },
    /// A file can't be used.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// No room is left for data of this trust.
    #[error("no space is left for data of `{class}` scopes")]
    Full {
        /// The class of scopes.
        class: &'static str,
    },
    /// Made by a version that keeps its files otherwise.
    #[error("the store `{}` has format version {found}; this program knows {supported}", path.display())]
    Version {
        /// What states the version.
        path: PathBuf,
        /// What it states.
        found: String,
        /// What this program knows.
        supported: usize,
    },
    /// It would be one namespace too many.
    #[error("token `{maker}` has made {most} namespaces, as many as it may")]
    Namespaces {
        /// The token's name.
        maker: String,
        /// How many it may make.
        most: usize,
    },
    /// Another server has it open.
    #[error("another process serves the store `{}`", path.display())]
    InUse {
        /// Its directory.
        path: PathBuf,
    },
}

impl StoreError {
    /// Whether the disk, or a quota, is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Fs(error) => error.is_full(),
            Self::Database { source, .. } => {
                source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
            }
            Self::Namespaces { .. } | Self::Version { .. } | Self::InUse { .. } => false,
        }
    }
}

/// A namespace's number in the tables, and its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Namespace {
    id: i64,
    name: String,
}

/// The store of one server.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    database: Database,
    space: Space,
    grace: Duration,
    namespaces: Mutex<HashMap<String, Namespace>>,
    /// How many one token may make.
    most_namespaces: usize,
    touched: Mutex<Touched>,
    collecting: Mutex<collect::LastTry>,
    _lock: FileLock,
}

/// What was used since it was last written down.
#[derive(Debug, Default)]
struct Touched {
    /// When, by number of the row.
    entries: HashMap<i64, i64>,
    blobs: HashMap<i64, i64>,
}

/// How many of each thing there are.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Entries, by class of scopes: local, pull, branch, protected.
    pub entries: [u64; 4],
    /// Blobs.
    pub blobs: u64,
    /// Bytes of all blobs, as if none shared frames.
    pub blob_bytes: u64,
    /// Frames.
    pub frames: u64,
    /// Bytes of all frames.
    pub frame_bytes: u64,
    /// Sets of pinned entries.
    pub pins: u64,
    /// Bytes that count towards the limits, in all namespaces, by class of scopes.
    pub used_bytes: [u64; 4],
}

impl Store {
    /// Opens the store in `dir`, or makes it. Only one process can have it open. What was
    /// written less than `grace` ago is not collected.
    pub fn open(dir: &Path, quotas: Quotas, grace: Duration) -> Result<Self, StoreError> {
        fs::create_dir_all(dir)?;
        let Some(held) = FileLock::try_exclusive(dir.join("lock"))? else {
            return Err(StoreError::InUse {
                path: dir.to_owned(),
            });
        };
        version(&dir.join("VERSION"))?;
        fs::create_dir_all(dir.join("frames"))?;
        // What stands there was being written when the last server ended.
        fs::remove_dir_all(dir.join("tmp"))?;
        fs::create_dir_all(dir.join("tmp"))?;
        let database = Database::open(dir.join("meta.db"))?;
        let space = Space::new(quotas);
        let store = Self {
            dir: dir.to_owned(),
            database,
            space,
            grace,
            namespaces: Mutex::default(),
            most_namespaces: usize::MAX,
            touched: Mutex::default(),
            collecting: Mutex::default(),
            _lock: held,
        };
        store.space.set(store.used()?);
        Ok(store)
    }

    /// Lets each token make so many namespaces, and no more.
    #[must_use]
    pub fn with_namespaces(mut self, most: usize) -> Self {
        self.most_namespaces = most;
        self
    }

    /// The namespace called `name`, if it was used before since the start; does not block.
    pub(super) fn known_namespace(&self, name: &str) -> Option<Namespace> {
        lock(&self.namespaces).get(name).cloned()
    }

    /// The namespace called `name`; if it is not there, it is made for the token called `maker`.
    pub(super) fn namespace(&self, name: &str, maker: &str) -> Result<Namespace, StoreError> {
        if let Some(known) = self.known_namespace(name) {
            return Ok(known);
        }
        let most = self.most_namespaces;
        let id = self.database.write("make a namespace in", |t| {
            let mut find = t.prepare("SELECT id FROM namespaces WHERE name = ?1")?;
            let known = find.query_row([name], |row| row.get(0)).optional()?;
            if let Some(id) = known {
                return Ok(Some(id));
            }
            let made = "SELECT count(*) FROM namespaces WHERE maker = ?1";
            if t.query_row(made, [maker], |row| row.get::<_, usize>(0))? >= most {
                return Ok(None);
            }
            let insert = "INSERT INTO namespaces (name, maker) VALUES (?1, ?2)";
            t.execute(insert, [name, maker])?;
            Ok(Some(t.last_insert_rowid()))
        })?;
        let id = id.ok_or_else(|| StoreError::Namespaces {
            maker: maker.to_owned(),
            most,
        })?;
        let namespace = Namespace {
            id,
            name: name.to_owned(),
        };
        lock(&self.namespaces).insert(name.to_owned(), namespace.clone());
        Ok(namespace)
    }

    /// The namespace called `name`, if there is one.
    pub(super) fn existing_namespace(&self, name: &str) -> Result<Option<Namespace>, StoreError> {
        let id = self.database.read("look for a namespace in", |c| {
            let mut find = c.prepare_cached("SELECT id FROM namespaces WHERE name = ?1")?;
            find.query_row([name], |row| row.get(0)).optional()
        })?;
        let name = name.to_owned();
        Ok(id.map(|id| Namespace { id, name }))
    }

    /// What the namespace holds.
    pub(super) fn stats(&self, namespace: &Namespace) -> Result<Stats, StoreError> {
        let id = [namespace.id];
        let mut stats = self.database.read("count", |c| {
            let mut entries = [0; 4];
            let mut by_trust = c.prepare_cached(
                "SELECT trust, count(*) FROM entries WHERE namespace = ?1 GROUP BY trust",
            )?;
            let rows = by_trust.query_map(id, |row| {
                Ok((row.get::<_, usize>(0)?, row.get::<_, u64>(1)?))
            })?;
            for row in rows {
                let (trust, count) = row?;
                if let Some(slot) = entries.get_mut(trust) {
                    *slot = count;
                }
            }
            let pair = |sql: &str| {
                c.query_row(sql, id, |row| {
                    Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?))
                })
            };
            let (blobs, blob_bytes) =
                pair("SELECT count(*), coalesce(sum(size), 0) FROM blobs WHERE namespace = ?1")?;
            let (frames, frame_bytes) =
                pair("SELECT count(*), coalesce(sum(size), 0) FROM frames WHERE namespace = ?1")?;
            let (pins, _) = pair("SELECT count(DISTINCT id), 0 FROM pins WHERE namespace = ?1")?;
            Ok(Stats {
                entries,
                blobs,
                blob_bytes,
                frames,
                frame_bytes,
                pins,
                used_bytes: [0; 4],
            })
        })?;
        stats.used_bytes = self.space.used();
        Ok(stats)
    }

    /// The limits.
    pub(super) fn quotas(&self) -> &Quotas {
        self.space.quotas()
    }

    /// Fails if the metadata can't be read.
    pub fn check(&self) -> Result<(), StoreError> {
        self.database.read("read", |c| {
            c.query_row("SELECT count(*) FROM namespaces", [], |_| Ok(()))
        })
    }

    /// Writes down what was used lately.
    pub fn flush(&self) -> Result<(), StoreError> {
        let Touched { entries, blobs } = std::mem::take(&mut *lock(&self.touched));
        if entries.is_empty() && blobs.is_empty() {
            return Ok(());
        }
        self.database.write("write", |t| {
            let mut entry = t.prepare_cached("UPDATE entries SET used = ?2 WHERE id = ?1")?;
            for use_of in entries {
                entry.execute(use_of)?;
            }
            let mut blob = t.prepare_cached("UPDATE blobs SET used = ?2 WHERE id = ?1")?;
            for use_of in blobs {
                blob.execute(use_of)?;
            }
            Ok(())
        })
    }

    fn temp_dir(&self) -> PathBuf {
        self.dir.join("tmp")
    }
}

/// Checks the layout's version, or states it in a new store.
fn version(path: &Path) -> Result<(), StoreError> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim() == LAYOUT_VERSION.to_string() => Ok(()),
        Ok(text) => Err(StoreError::Version {
            path: path.to_owned(),
            found: text.trim().chars().take(20).collect(),
            supported: LAYOUT_VERSION,
        }),
        Err(error) if error.is_not_found() => Ok(fs::write_atomic(
            path,
            format!("{LAYOUT_VERSION}\n").as_bytes(),
        )?),
        Err(error) => Err(error.into()),
    }
}

/// A class of scopes as a number that grows with the trust.
fn rank(trust: Trust) -> usize {
    match trust {
        Trust::Local => 0,
        Trust::Pull => 1,
        Trust::Branch => 2,
        Trust::Protected => 3,
    }
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
