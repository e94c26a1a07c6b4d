//! Entries: the JSON of action results under namespace, key and scope; and pins.
//!
//! An entry is kept as it was checked, with the first 8 bytes of its BLAKE3, which are
//! compared when it is read: a record that has gone bad is a miss.

use std::collections::HashMap;

use rusqlite::{OptionalExtension as _, Transaction};

use super::{
    Namespace, Store, StoreError,
    blobs::{serve, unpack},
    now_ms, rank,
    schema::lock,
    space::ROW,
};
use crate::{
    cache::{ActionResult, Scope, http::wire::Place},
    digest::Sha256Digest,
    key::CacheKey,
};

/// The JSON of an entry.
pub(in crate::server) type StoredEntry = Vec<u8>;

/// What became of an entry that was to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) enum PutEntry {
    /// It is there.
    Done,
    /// It names blobs that are not.
    Missing(Vec<Sha256Digest>),
    /// Its layer has another size, in bytes.
    Size(u64),
}

/// An entry to keep.
#[derive(Debug)]
pub(in crate::server) struct NewEntry {
    /// The key it is found under.
    pub(in crate::server) key: CacheKey,
    /// The scope it is written in.
    pub(in crate::server) scope: Scope,
    /// The blobs it names.
    pub(in crate::server) blobs: Vec<Sha256Digest>,
    /// One of them with the size that it must have.
    pub(in crate::server) sized: Option<(Sha256Digest, u64)>,
    /// What a look-up gives.
    pub(in crate::server) record: StoredEntry,
}

impl From<&ActionResult> for NewEntry {
    fn from(entry: &ActionResult) -> Self {
        Self {
            key: entry.key,
            scope: entry.scope.clone(),
            blobs: entry.blobs(),
            sized: entry.layer.as_ref().map(|layer| (layer.digest, layer.size)),
            record: entry.encode(),
        }
    }
}

fn checksum(record: &[u8]) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(record).as_bytes()[..8]);
    first
}

impl Store {
    /// The entries under `keys`, in their order, each from the first of `scopes` that has one.
    pub(in crate::server) fn lookup(
        &self,
        namespace: &Namespace,
        scopes: &[Scope],
        keys: &[CacheKey],
    ) -> Result<Vec<Option<StoredEntry>>, StoreError> {
        let mut used = Vec::new();
        let entries = self.database.read("look up keys in", |c| {
            // Each statement by itself would lock and unlock the database.
            let one = c.unchecked_transaction()?;
            let mut find = one.prepare_cached(
                "SELECT id, record, checksum FROM entries
                 WHERE namespace = ?1 AND key = ?2 AND scope = ?3",
            )?;
            let mut entries = Vec::with_capacity(keys.len());
            for key in keys {
                let mut entry = None;
                for scope in scopes {
                    let place = (namespace.id, key.0.as_bytes(), scope.as_str());
                    let row = find
                        .query_row(place, |row| {
                            Ok((
                                row.get::<_, i64>(0)?,
                                row.get::<_, Vec<u8>>(1)?,
                                row.get::<_, [u8; 8]>(2)?,
                            ))
                        })
                        .optional()?;
                    match row {
                        Some((id, record, sum)) if checksum(&record) == sum => {
                            used.push(id);
                            entry = Some(record);
                            break;
                        }
                        Some((id, ..)) => tracing::error!(id, %key, "a damaged entry is a miss"),
                        None => {}
                    }
                }
                entries.push(entry);
            }
            drop(find);
            one.commit()?;
            Ok(entries)
        })?;
        let now = now_ms();
        let used = used.into_iter().map(|id| (id, now));
        lock(&self.touched).entries.extend(used);
        Ok(entries)
    }

    /// Keeps an entry in place of the one that stood there.
    pub(in crate::server) fn put_entry(
        &self,
        namespace: &Namespace,
        entry: &NewEntry,
    ) -> Result<PutEntry, StoreError> {
        let record = entry.record.as_slice();
        let trust = entry.scope.trust();
        let rank = rank(trust);
        let room = self.reserve(trust, record.len() as u64 + ROW)?;
        let mut raised = Vec::new();
        let mut replaced = None;
        let outcome = self.database.write("write an entry to", |t| {
            let blobs = named_blobs(t, namespace, &entry.blobs)?;
            let missing: Vec<Sha256Digest> = entry
                .blobs
                .iter()
                .filter(|digest| !blobs.contains_key(*digest))
                .copied()
                .collect();
            if !missing.is_empty() {
                return Ok(PutEntry::Missing(missing));
            }
            if let Some((digest, size)) = &entry.sized
                && let Some(blob) = blobs.get(digest)
                && blob.size != *size
            {
                return Ok(PutEntry::Size(blob.size));
            }
            let place = (namespace.id, entry.key.0.as_bytes(), entry.scope.as_str());
            replaced = t
                .query_row(
                    "SELECT length(record) FROM entries
                     WHERE namespace = ?1 AND key = ?2 AND scope = ?3",
                    place,
                    |row| row.get::<_, u64>(0),
                )
                .optional()?;
            let id: i64 = t.query_row(
                "INSERT INTO entries (namespace, key, scope, trust, record, checksum, written, used)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)
                 ON CONFLICT (namespace, key, scope) DO UPDATE SET record = excluded.record,
                     checksum = excluded.checksum, written = excluded.written, used = excluded.used
                 RETURNING id",
                (
                    namespace.id,
                    entry.key.0.as_bytes(),
                    entry.scope.as_str(),
                    rank,
                    record,
                    checksum(record),
                    now_ms(),
                ),
                |row| row.get(0),
            )?;
            t.execute("DELETE FROM entry_blobs WHERE entry = ?1", [id])?;
            for blob in blobs.values() {
                t.execute(
                    "INSERT INTO entry_blobs (entry, blob) VALUES (?1, ?2)",
                    [id, blob.id],
                )?;
                if blob.rank < rank {
                    t.execute("UPDATE blobs SET trust = ?2 WHERE id = ?1", (blob.id, rank))?;
                    raised.push((blob.rank, rank, blob.packed.len() as u64 + ROW));
                }
                raised.extend(serve(t, namespace.id, &unpack(&blob.packed), rank)?);
            }
            Ok(PutEntry::Done)
        })?;
        for (from, to, bytes) in raised {
            self.space.raise(from, to, bytes);
        }
        if let Some(old) = replaced {
            self.space.free(rank, old + ROW);
        }
        if outcome == PutEntry::Done {
            room.used();
        }
        Ok(outcome)
    }

    /// Keeps the entries at `places` from being collected, under the name `id`; what had this
    /// name is pinned no more.
    pub(in crate::server) fn pin(
        &self,
        namespace: &Namespace,
        id: &str,
        places: &[Place],
    ) -> Result<(), StoreError> {
        self.database.write("pin entries in", |t| {
            t.execute(
                "DELETE FROM pins WHERE namespace = ?1 AND id = ?2",
                (namespace.id, id),
            )?;
            let mut insert = t.prepare_cached(
                "INSERT INTO pins (namespace, id, key, scope) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO NOTHING",
            )?;
            for Place { scope, key } in places {
                insert.execute((namespace.id, id, key.0.as_bytes(), scope.as_str()))?;
            }
            Ok(())
        })
    }

    /// The scopes in which `id` pins entries.
    pub(in crate::server) fn pinned_scopes(
        &self,
        namespace: &Namespace,
        id: &str,
    ) -> Result<Vec<String>, StoreError> {
        self.database.read("look for pins in", |c| {
            let mut find = c.prepare_cached(
                "SELECT DISTINCT scope FROM pins WHERE namespace = ?1 AND id = ?2",
            )?;
            find.query_map((namespace.id, id), |row| row.get(0))?
                .collect()
        })
    }

    /// Takes a pin away; false if there is none.
    pub(in crate::server) fn unpin(
        &self,
        namespace: &Namespace,
        id: &str,
    ) -> Result<bool, StoreError> {
        let removed = self.database.write("unpin entries in", |t| {
            t.execute(
                "DELETE FROM pins WHERE namespace = ?1 AND id = ?2",
                (namespace.id, id),
            )
        })?;
        Ok(removed > 0)
    }
}

/// A blob that an entry names.
struct NamedBlob {
    id: i64,
    size: u64,
    rank: usize,
    packed: Vec<u8>,
}

/// Those of the named blobs that are there.
fn named_blobs(
    t: &Transaction<'_>,
    namespace: &Namespace,
    digests: &[Sha256Digest],
) -> rusqlite::Result<HashMap<Sha256Digest, NamedBlob>> {
    let mut find = t.prepare_cached(
        "SELECT id, size, trust, frames FROM blobs WHERE namespace = ?1 AND digest = ?2",
    )?;
    let mut blobs = HashMap::new();
    for digest in digests {
        let blob = find
            .query_row((namespace.id, digest.as_bytes()), |row| {
                Ok(NamedBlob {
                    id: row.get(0)?,
                    size: row.get(1)?,
                    rank: row.get(2)?,
                    packed: row.get(3)?,
                })
            })
            .optional()?;
        blobs.extend(blob.map(|blob| (*digest, blob)));
    }
    Ok(blobs)
}
