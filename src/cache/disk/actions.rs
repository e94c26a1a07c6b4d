//! Actions: look-up, storage, uses.

use std::collections::HashMap;

use rusqlite::{Connection, Row, params};

use super::DiskStore;
use crate::{
    cache::{ActionResult, CacheError, CacheWarning, EntryId, RecordError, Scope},
    digest::{Blake3Digest, Sha256Digest},
    key::{CacheKey, KeyKind},
};

/// An action with its time of last use, for listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAction {
    /// The action.
    pub result: ActionResult,
    /// Last use, in milliseconds since 1970.
    pub used: i64,
}

impl DiskStore {
    /// The results under `keys`, in their order, each from the first of `scopes` that has
    /// one, by one query. An unreadable entry is a miss and a warning.
    ///
    /// Under a lease, a hit counts as a use.
    pub fn lookup(
        &self,
        scopes: &[Scope],
        keys: &[CacheKey],
    ) -> Result<Vec<Option<ActionResult>>, CacheError> {
        let id_list = |key: &CacheKey| {
            let ids = scopes.iter().map(|scope| EntryId::of(scope, key));
            ids.collect::<Vec<_>>()
        };
        let ids: Vec<Vec<EntryId>> = keys.iter().map(id_list).collect();
        let all = || ids.iter().flatten().map(|id| id.0.as_bytes());
        let wanted = hex_list(all());
        let unmarked: Vec<&[u8; 32]> = all().filter(|id| self.must_mark(id)).collect();
        if !unmarked.is_empty() {
            // First the mark, then the look: what is found afterwards is protected. A
            // mark that fails costs protection, not the hit.
            let (ids, now) = (hex_list(unmarked.iter().copied()), self.now());
            let marked = self.shared.index.write("mark as used", |transaction| {
                mark(transaction, "actions", "id", &ids, now)
            });
            for id in unmarked {
                self.note_mark(id, &marked);
            }
        }
        let rows = self.shared.index.read("look up keys in", |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, record FROM actions
                 WHERE id IN (SELECT unhex(value) FROM json_each(?1))",
            )?;
            statement
                .query_map([&wanted], |row| {
                    Ok((row.get::<_, [u8; 32]>(0)?, record_bytes(row)?))
                })?
                .collect::<rusqlite::Result<HashMap<_, _>>>()
        })?;
        Ok(keys
            .iter()
            .zip(&ids)
            .map(|(key, ids)| {
                let mut records = ids.iter().filter_map(|id| rows.get(id.0.as_bytes()));
                records.find_map(|record| self.decode(scopes, *key, record))
            })
            .collect())
    }

    /// Keeps `result` under its key in its scope, in place of what stood there.
    pub fn put_action(&self, result: &ActionResult) -> Result<(), CacheError> {
        self.check_writable()?;
        let (id, record, now) = (*result.id().0.as_bytes(), result.encode(), self.now());
        let blobs = result.blobs();
        let put = self
            .shared
            .index
            .write("enter an action into", |transaction| {
                transaction
                    .prepare_cached(
                        "INSERT OR REPLACE INTO actions (id, record, used) VALUES (?, ?, ?)",
                    )?
                    .execute(params![&id[..], record, now])?;
                transaction
                    .prepare_cached("DELETE FROM action_blobs WHERE id = ?")?
                    .execute([&id[..]])?;
                let mut insert = transaction.prepare_cached(
                    "INSERT OR IGNORE INTO action_blobs (id, digest) VALUES (?, ?)",
                )?;
                for digest in &blobs {
                    insert.execute([&id[..], &digest.as_bytes()[..]])?;
                }
                Ok(())
            });
        self.note_mark(&id, &put);
        put
    }

    /// Notes that these were used now. For the end of a build, in one transaction; on
    /// a store that can't be written this does nothing.
    pub fn touch(&self, actions: &[EntryId], blobs: &[Sha256Digest]) -> Result<(), CacheError> {
        if !self.is_writable() || (actions.is_empty() && blobs.is_empty()) {
            return Ok(());
        }
        let now = self.now();
        let actions = hex_list(actions.iter().map(|id| id.0.as_bytes()));
        let blobs = hex_list(blobs.iter().map(Sha256Digest::as_bytes));
        self.shared.index.write("note uses in", |transaction| {
            mark(transaction, "actions", "id", &actions, now)?;
            mark(transaction, "blobs", "digest", &blobs, now)
        })
    }

    /// All readable actions, the last used first.
    pub fn actions(&self) -> Result<Vec<StoredAction>, CacheError> {
        self.list(None)
    }

    /// All readable actions of one kind, the last used first.
    pub fn actions_of(&self, kind: KeyKind) -> Result<Vec<StoredAction>, CacheError> {
        self.list(Some(kind))
    }

    fn list(&self, kind: Option<KeyKind>) -> Result<Vec<StoredAction>, CacheError> {
        // As it stands in an entry: what is of another kind needn't be decoded.
        let text = kind.map(|kind| format!("\"kind\":\"{}\"", kind.name()));
        let rows = self.shared.index.read("list actions of", |connection| {
            connection
                .prepare_cached("SELECT id, record, used FROM actions ORDER BY used DESC, id")?
                .query_map([], |row| {
                    Ok((row.get::<_, [u8; 32]>(0)?, record_bytes(row)?, row.get(2)?))
                })?
                .filter(|row| match (row, &text) {
                    (Ok((_, record, _)), Some(text)) => head_has(record, text.as_bytes()),
                    _ => true,
                })
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        Ok(rows
            .into_iter()
            .filter_map(|(id, record, used)| {
                let id = EntryId(Blake3Digest::from_bytes(id));
                let result = ActionResult::read(&record).and_then(|result| result.kept_at(id));
                match result {
                    Ok(result) => Some(StoredAction { result, used }),
                    Err(error) => {
                        self.warn_unreadable(&id, &error);
                        None
                    }
                }
            })
            .collect())
    }

    fn decode(&self, scopes: &[Scope], key: CacheKey, record: &[u8]) -> Option<ActionResult> {
        match ActionResult::decode_in(scopes, key, record) {
            Ok(result) => Some(result),
            Err(error) => {
                self.warn_unreadable(&key, &error);
                None
            }
        }
    }

    fn warn_unreadable(&self, entry: &dyn std::fmt::Display, error: &RecordError) {
        self.shared.index.warn(CacheWarning::UnreadableAction {
            entry: entry.to_string(),
            reason: error.to_string(),
        });
    }
}

/// Whether the first 200 bytes of an entry have `text` in them: its kind follows its key.
fn head_has(record: &[u8], text: &[u8]) -> bool {
    let head = &record[..record.len().min(200)];
    head.windows(text.len()).any(|window| window == text)
}

/// The second column as bytes, whatever type it has: a value that is no record shows
/// when it is decoded.
fn record_bytes(row: &Row<'_>) -> rusqlite::Result<Vec<u8>> {
    Ok(row
        .get_ref(1)?
        .as_bytes()
        .map(<[u8]>::to_vec)
        .unwrap_or_default())
}

/// Sets the time of last use of the rows with these ids.
fn mark(
    connection: &Connection,
    table: &str,
    column: &str,
    ids: &str,
    now: i64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(&format!(
            "UPDATE {table} SET used = max(used, ?2)
             WHERE {column} IN (SELECT unhex(value) FROM json_each(?1))"
        ))?
        .execute(params![ids, now])?;
    Ok(())
}

/// A JSON list of hex strings: a parameter that holds any number of keys.
pub(super) fn hex_list<'a>(ids: impl Iterator<Item = &'a [u8; 32]>) -> String {
    let items: Vec<String> = ids.map(|id| format!("\"{}\"", hex::encode(id))).collect();
    format!("[{}]", items.join(","))
}
