//! The server's metadata: a SQLite database in WAL mode.
//!
//! Tables, version [`SCHEMA_VERSION`] (`PRAGMA user_version`); they are described in
//! `docs/internals/remote-cache.md`. One connection writes, a few read. A version is reached from the one
//! before it by one element of [`MIGRATIONS`], in one transaction; a database of a later
//! version is refused.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::StoreError;

/// Version of the tables.
pub(super) const SCHEMA_VERSION: usize = MIGRATIONS.len();

/// What leads from each version to the next one; the first makes the tables.
const MIGRATIONS: [&str; 2] = ["
CREATE TABLE namespaces (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE entries (
    id INTEGER PRIMARY KEY, namespace INTEGER NOT NULL, key BLOB NOT NULL, scope TEXT NOT NULL,
    trust INTEGER NOT NULL, record BLOB NOT NULL, checksum BLOB NOT NULL,
    written INTEGER NOT NULL, used INTEGER NOT NULL, UNIQUE (namespace, key, scope));
CREATE TABLE entry_blobs (
    entry INTEGER NOT NULL, blob INTEGER NOT NULL, PRIMARY KEY (entry, blob)) WITHOUT ROWID;
CREATE INDEX entry_blobs_blob ON entry_blobs (blob);
CREATE TABLE blobs (
    id INTEGER PRIMARY KEY, namespace INTEGER NOT NULL, digest BLOB NOT NULL, size INTEGER NOT NULL,
    frames BLOB NOT NULL, trust INTEGER NOT NULL, written INTEGER NOT NULL, used INTEGER NOT NULL,
    UNIQUE (namespace, digest));
CREATE TABLE frames (
    namespace INTEGER NOT NULL, digest BLOB NOT NULL, size INTEGER NOT NULL,
    trust INTEGER NOT NULL, touched INTEGER NOT NULL, PRIMARY KEY (namespace, digest)) WITHOUT ROWID;
CREATE TABLE pins (
    namespace INTEGER NOT NULL, id TEXT NOT NULL, key BLOB NOT NULL, scope TEXT NOT NULL,
    PRIMARY KEY (namespace, id, key, scope)) WITHOUT ROWID;
", "ALTER TABLE namespaces ADD COLUMN maker TEXT NOT NULL DEFAULT '';"];

/// How long to wait for a checkpoint.
const BUSY: Duration = Duration::from_secs(10);

/// Connections for reading that are kept open.
const READERS: usize = 8;

/// The database.
pub(super) struct Database {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// The connection that writes. Frames appear in and vanish from the disk only under it.
pub(super) struct Writer<'a>(MutexGuard<'a, Connection>);

impl Database {
    /// Opens the database at `path`, making it or bringing it to this version.
    pub(super) fn open(path: PathBuf) -> Result<Self, StoreError> {
        let mut writer = connect(&path).map_err(database("open"))?;
        migrate(&mut writer, &path)?;
        Ok(Self {
            path,
            writer: Mutex::new(writer),
            readers: Mutex::new(Vec::new()),
        })
    }

    /// Runs `work` on a connection of its own.
    pub(super) fn read<T>(
        &self,
        act: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let pooled = lock(&self.readers).pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => connect(&self.path).map_err(database(act))?,
        };
        let result = connection.unchecked_transaction().and_then(|transaction| {
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        });
        let mut readers = lock(&self.readers);
        if result.is_ok() && readers.len() < READERS {
            readers.push(connection);
        }
        drop(readers);
        result.map_err(database(act))
    }

    /// Waits until nobody else writes.
    pub(super) fn writer(&self) -> Writer<'_> {
        Writer(lock(&self.writer))
    }

    /// Runs `work` in a transaction.
    pub(super) fn write<T>(
        &self,
        act: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.writer().transaction(act, work)
    }
}

impl Writer<'_> {
    /// Whether a frame has a row.
    pub(super) fn has_frame(&self, namespace: i64, digest: &[u8; 32]) -> Result<bool, StoreError> {
        self.0
            .prepare_cached("SELECT 1 FROM frames WHERE namespace = ?1 AND digest = ?2")
            .and_then(|mut find| find.exists((namespace, digest)))
            .map_err(database("look for a frame in"))
    }

    /// Runs `work` in a transaction.
    pub(super) fn transaction<T>(
        &mut self,
        act: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let connection = &mut self.0;
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(database(act))?;
        let value = work(&transaction).map_err(database(act))?;
        transaction.commit().map_err(database(act))?;
        Ok(value)
    }
}

/// Adds the failing act to a database error.
pub(super) fn database(act: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |source| StoreError::Database { act, source }
}

/// The guarded value; a panic of another thread does not spoil it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // With WAL this syncs only at checkpoints: a power cut may lose the last transactions,
    // never the database.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "mmap_size", 1_i64 << 30)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let found: usize = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(database("open"))?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::Version {
            path: path.to_owned(),
            found: found.to_string(),
            supported: SCHEMA_VERSION,
        });
    }
    for (version, step) in (1..).zip(MIGRATIONS).skip(found) {
        let apply = |connection: &mut Connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(step)?;
            transaction.pragma_update(None, "user_version", version)?;
            transaction.commit()
        };
        apply(connection).map_err(database("migrate"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_a_later_version_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.db");
        drop(Database::open(path.clone()).unwrap());
        let connection = Connection::open(&path).unwrap();
        connection
            .pragma_update(None, "user_version", SCHEMA_VERSION + 1)
            .unwrap();
        drop(connection);
        let error = Database::open(path.clone()).unwrap_err();
        assert!(matches!(error, StoreError::Version { .. }), "{error}");
    }

    #[test]
    fn opening_again_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.db");
        let one = Database::open(path.clone()).unwrap();
        one.write("write", |t| {
            t.execute("INSERT INTO namespaces (name) VALUES ('a')", [])
        })
        .unwrap();
        drop(one);
        let two = Database::open(path).unwrap();
        let count: i64 = two
            .read("read", |c| {
                c.query_row("SELECT count(*) FROM namespaces", [], |row| row.get(0))
            })
            .unwrap();
        assert_eq!(count, 1);
    }
}
