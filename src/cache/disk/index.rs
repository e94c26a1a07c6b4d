//! The index of a local store: a SQLite database in WAL mode.
//!
//! Tables, version [`INDEX_VERSION`] (`PRAGMA user_version`):
//!
//! | table | columns |
//! |---|---|
//! | `actions` | `id` (32 bytes, see [`EntryId`](crate::cache::EntryId)), `record` (JSON), `used` |
//! | `action_blobs` | `id`, `digest`: the blobs an action names |
//! | `blobs` | `digest` (32 bytes), `size`, `created`, `used` |
//!
//! Times are milliseconds since 1970. The index says what is known and when it was
//! used; whether a blob is there, its file says.
//!
//! An index that is corrupt is moved aside and made anew from the blobs, once nobody
//! has it open: SQLite removes a write-ahead log by its name when the last
//! connection closes, and would take the new index's for the old one's. So every
//! connection goes with a shared lock on `locks/index-users`. An index that can't be
//! used or replaced now gives way to an empty one in memory, for this process only.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::{
    cache::{CacheError, CacheWarning},
    fs::{FileLock, FsError, IoContext},
};

/// Version of the tables.
pub(super) const INDEX_VERSION: i64 = 2;

/// How long to wait for another process's transaction.
const BUSY: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// The same once that was too short: a process that is stopped in a transaction must
/// not cost a build ten seconds at every turn.
const STILL_BUSY: Duration = Duration::from_millis(100);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS actions (
    id BLOB PRIMARY KEY NOT NULL, record BLOB NOT NULL, used INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS action_blobs (
    id BLOB NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (id, digest)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS action_blobs_digest ON action_blobs (digest);
CREATE TABLE IF NOT EXISTS blobs (
    digest BLOB PRIMARY KEY NOT NULL, size INTEGER NOT NULL,
    created INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 2;
";

/// Fills the `blobs` table of a new index.
type Fill = Box<dyn Fn(&Transaction<'_>) -> rusqlite::Result<()> + Send + Sync>;

/// Where the index and its locks are.
#[derive(Debug)]
pub(super) struct Place {
    /// The database.
    pub(super) path: PathBuf,
    /// Held while the index is made or replaced.
    pub(super) making: PathBuf,
    /// Held, shared, by everybody who has the index open.
    pub(super) users: PathBuf,
}

/// A connection, and the sign that it is there. In this order: the connection is
/// closed first.
struct Open {
    connection: Connection,
    _user: Option<FileLock>,
}

/// The connection of one process.
pub(super) struct Index {
    place: Place,
    writable: bool,
    fill: Fill,
    open: Mutex<Open>,
    /// Whether the connection is to an index in memory.
    private: AtomicBool,
    warnings: Mutex<Vec<CacheWarning>>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Index {
    /// Opens the index; never fails, see the module's documentation. `fill` enters the
    /// blobs into a new one.
    pub(super) fn open(place: Place, writable: bool, fill: Fill) -> Self {
        let mut warnings = Vec::new();
        let opened = if writable {
            open_or_make(&place, &fill, false, &mut warnings)
        } else {
            open_to_read(&place.path)
        };
        let private = opened.is_err();
        let open = opened.unwrap_or_else(|error| {
            // A store that nobody has written to yet has no index: nothing to tell.
            if writable || place.path.exists() {
                warnings.push(CacheWarning::IndexUnavailable {
                    path: place.path.clone(),
                    reason: error.to_string(),
                });
            }
            in_memory()
        });
        Self {
            place,
            writable,
            fill,
            open: Mutex::new(open),
            private: AtomicBool::new(private),
            warnings: Mutex::new(warnings),
        }
    }

    /// Runs `work` outside of an explicit transaction, for single statements.
    pub(super) fn read<T>(
        &self,
        act: &'static str,
        mut work: impl FnMut(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        self.attempt(act, |connection| work(connection))
    }

    /// Runs `work` in a transaction that excludes all other writers, in all processes,
    /// from its beginning.
    pub(super) fn write<T>(
        &self,
        act: &'static str,
        mut work: impl FnMut(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        self.attempt(act, |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    /// Reads the whole index and replaces it if it is corrupt.
    pub(super) fn check(&self) -> Result<(), CacheError> {
        self.attempt("check", |connection| check(connection))
    }

    /// An error if other processes don't see what this one writes.
    pub(super) fn check_shared(&self, act: &'static str) -> Result<(), CacheError> {
        if self.private.load(Ordering::Relaxed) {
            return Err(CacheError::Transient {
                act,
                subject: self.place.path.clone().into(),
                source: "the index can't be used".into(),
            });
        }
        Ok(())
    }

    /// Whether the index can be written at all.
    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    /// The index file.
    pub(super) fn path(&self) -> &Path {
        &self.place.path
    }

    /// The warnings since the last call.
    pub(super) fn take_warnings(&self) -> Vec<CacheWarning> {
        std::mem::take(&mut *lock(&self.warnings))
    }

    /// Adds a warning, once.
    pub(super) fn warn(&self, warning: CacheWarning) {
        let mut warnings = lock(&self.warnings);
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// Runs `work`; if the index turns out corrupt, replaces it and tries once more.
    fn attempt<T>(
        &self,
        act: &'static str,
        mut work: impl FnMut(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        let mut open = lock(&self.open);
        let mut result = work(&mut open.connection);
        if result.as_ref().is_err_and(is_corrupt) {
            // Our own connection has to be closed before the index can be replaced.
            *open = in_memory();
            *open = self.replace();
            result = work(&mut open.connection);
        }
        let patience = match &result {
            Err(error) if is_busy(error) => STILL_BUSY,
            _ => BUSY,
        };
        // It only fails on a closed connection, which the next use reports.
        let _ = open.connection.busy_timeout(patience);
        result.map_err(|error| self.sort(act, error))
    }

    /// A connection to use in place of one that turned out corrupt.
    fn replace(&self) -> Open {
        let mut warnings = Vec::new();
        let opened = if self.writable {
            open_or_make(&self.place, &self.fill, true, &mut warnings)
        } else {
            Err(OpenError::Corrupt)
        };
        let open = opened.unwrap_or_else(|error| {
            self.private.store(true, Ordering::Relaxed);
            warnings.push(CacheWarning::IndexUnavailable {
                path: self.place.path.clone(),
                reason: error.to_string(),
            });
            in_memory()
        });
        for warning in warnings {
            self.warn(warning);
        }
        open
    }

    /// Sorts a database error.
    fn sort(&self, act: &'static str, error: rusqlite::Error) -> CacheError {
        let subject = self.place.path.clone().into();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => CacheError::Transient {
                act,
                subject,
                source: Box::new(error),
            },
            Some(ErrorCode::DiskFull) => CacheError::Full {
                act,
                subject,
                source: Box::new(error),
            },
            Some(ErrorCode::ReadOnly) => CacheError::ReadOnly { subject },
            Some(ErrorCode::PermissionDenied) => CacheError::Denied {
                act,
                subject,
                source: Box::new(error),
            },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => CacheError::Corrupt {
                subject,
                what: error.to_string(),
            },
            _ => CacheError::Broken {
                act,
                subject,
                source: Box::new(error),
            },
        }
    }
}

/// The guarded value; a panic of another thread does not spoil it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// Why there is no usable index on disk.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{0}: {source}", source = .0.source)]
    File(#[from] FsError),
    #[error("it has format version {0}; this program knows {INDEX_VERSION}")]
    Version(i64),
    #[error("it is corrupt")]
    Corrupt,
    #[error("it is corrupt, and can't be replaced while other processes have it open")]
    CorruptInUse,
}

/// What stands at the index's path.
enum Found {
    Usable(Connection),
    Empty(Connection),
    Unusable,
}

/// Opens a usable index, making or replacing it where needed. With `suspect` an index
/// that looks usable is read through first.
fn open_or_make(
    place: &Place,
    fill: &Fill,
    suspect: bool,
    warnings: &mut Vec<CacheWarning>,
) -> Result<Open, OpenError> {
    let path = &place.path;
    let user = FileLock::shared(&place.users)?;
    if !suspect && let Found::Usable(connection) = connect(path)? {
        return Ok(opened(connection, user));
    }
    drop(user);
    // One process makes or replaces it, the others then find it.
    let _making = FileLock::exclusive(&place.making)?;
    let user = FileLock::shared(&place.users)?;
    match connect(path)? {
        Found::Usable(connection) if !suspect || check(&connection).is_ok() => {
            return Ok(opened(connection, user));
        }
        Found::Empty(mut connection) => {
            make(&mut connection, fill)?;
            return Ok(opened(connection, user));
        }
        Found::Usable(_) | Found::Unusable => {}
    }
    drop(user);
    let Some(alone) = FileLock::try_exclusive(&place.users)? else {
        return Err(OpenError::CorruptInUse);
    };
    let moved_to = move_aside(path)?;
    warnings.push(CacheWarning::IndexRebuilt { moved_to });
    let mut connection = open_file(path)?;
    make(&mut connection, fill)?;
    drop(alone);
    Ok(opened(connection, FileLock::shared(&place.users)?))
}

fn opened(connection: Connection, user: FileLock) -> Open {
    Open {
        connection,
        _user: Some(user),
    }
}

/// Opens `path`, which is created empty if missing, and looks at what it is.
fn connect(path: &Path) -> Result<Found, OpenError> {
    let looked = open_file(path).and_then(|connection| {
        let state = look(&connection)?;
        Ok((connection, state))
    });
    match looked {
        Ok((connection, (INDEX_VERSION, 3))) => Ok(Found::Usable(connection)),
        Ok((connection, (0, 0))) => Ok(Found::Empty(connection)),
        Ok((_, (version, _))) if version > INDEX_VERSION => Err(OpenError::Version(version)),
        Ok(_) => Ok(Found::Unusable),
        Err(error) if is_corrupt(&error) => Ok(Found::Unusable),
        Err(error) => Err(error.into()),
    }
}

fn open_file(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY)?;
    // With WAL this syncs only at checkpoints: a power cut may lose the last
    // transactions, never the database.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(connection)
}

/// The version of the tables, and how many of them there are. Reads a page of each, so
/// that an index that is plainly corrupt shows here.
fn look(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables = connection.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table'",
        [],
        |row| row.get(0),
    )?;
    if (version, tables) == (INDEX_VERSION, 3) {
        connection.query_row(
            "SELECT (SELECT max(id) FROM actions), (SELECT max(id) FROM action_blobs),
                    (SELECT max(digest) FROM blobs)",
            [],
            |_| Ok(()),
        )?;
    }
    Ok((version, tables))
}

/// Reads the whole index; what is wrong with it is an error as SQLite gives it on use.
fn check(connection: &Connection) -> rusqlite::Result<()> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some(verdict),
    ))
}

/// Makes the tables and enters the blobs that are there, all or nothing.
///
/// Nothing is lost with an index that is being made: what a power cut leaves of it is found corrupt
/// or empty, and made anew. So nothing is synced, which would cost a runner that starts empty more
/// than its look-ups.
fn make(connection: &mut Connection, fill: &Fill) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "OFF")?;
    let made = make_unsynced(connection, fill);
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    made
}

fn make_unsynced(connection: &mut Connection, fill: &Fill) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(SCHEMA)?;
    fill(&transaction)?;
    transaction.commit()
}

/// Renames the database and what belongs to it. Nobody may have it open.
fn move_aside(path: &Path) -> Result<PathBuf, FsError> {
    // Only the last one is kept: it is for a look by a person, not an archive.
    let dest = path.with_extension("db.corrupt");
    for suffix in ["-wal", "-shm", ""] {
        let with = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        match std::fs::rename(with(path), with(&dest)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).at("move aside", with(path));
            }
            _ => {}
        }
    }
    Ok(dest)
}

/// Opens `path` without writing anything anywhere.
fn open_to_read(path: &Path) -> Result<Open, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let look_at = |connection: Connection| {
        connection.busy_timeout(BUSY)?;
        let state = look(&connection)?;
        Ok((connection, state))
    };
    let (connection, (version, _)) = Connection::open_with_flags(path, flags)
        .and_then(look_at)
        .or_else(|_| {
            // Reading a WAL database needs its -shm file, which can't be made on a
            // read-only file system. `immutable` reads the main file alone.
            Connection::open_with_flags(immutable_address(path), flags | OpenFlags::SQLITE_OPEN_URI)
                .and_then(look_at)
        })?;
    if version != INDEX_VERSION {
        return Err(OpenError::Version(version));
    }
    Ok(Open {
        connection,
        _user: None,
    })
}

/// The SQLite address of the file at `path` as one that nobody writes.
fn immutable_address(path: &Path) -> String {
    use std::fmt::Write as _;
    let mut address = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            address.push(char::from(*byte));
        } else {
            // Writing to a string has no way to fail.
            let _ = write!(address, "%{byte:02x}");
        }
    }
    address.push_str("?immutable=1");
    address
}

/// An empty index that this process has for itself.
fn in_memory() -> Open {
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_in_memory()?;
        connection.execute_batch(SCHEMA)?;
        Ok(connection)
    };
    Open {
        connection: open().expect("a database in memory needs nothing but memory"),
        _user: None,
    }
}
