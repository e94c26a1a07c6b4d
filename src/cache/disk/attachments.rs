//! Blobs that stand beside an entry without being named by it: what `explain` wants to know of
//! it. They are in `action_blobs` like those that it names, so they are collected with it.

use rusqlite::params;

use super::DiskStore;
use crate::{
    cache::{ActionResult, CacheError, EntryId},
    digest::Sha256Digest,
};

impl DiskStore {
    /// Keeps `blobs`, which must be in the store, as long as the entry is there. The next
    /// [`put_action`](Self::put_action) of the same entry lets go of them.
    pub fn attach(&self, entry: EntryId, blobs: &[Sha256Digest]) -> Result<(), CacheError> {
        self.check_writable()?;
        let id = *entry.0.as_bytes();
        self.shared
            .index
            .write("attach to an entry of", |transaction| {
                let mut insert = transaction.prepare_cached(
                    "INSERT OR IGNORE INTO action_blobs (id, digest)
                 SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM actions WHERE id = ?1)",
                )?;
                for digest in blobs {
                    insert.execute(params![&id[..], &digest.as_bytes()[..]])?;
                }
                Ok(())
            })
    }

    /// The blobs that were attached to the entry.
    pub fn attached(&self, entry: &ActionResult) -> Result<Vec<Sha256Digest>, CacheError> {
        let (id, named) = (*entry.id().0.as_bytes(), entry.blobs());
        let all = self
            .shared
            .index
            .read("look up attachments in", |connection| {
                connection
                    .prepare_cached("SELECT digest FROM action_blobs WHERE id = ? ORDER BY digest")?
                    .query_map([&id[..]], |row| row.get(0))?
                    .collect::<rusqlite::Result<Vec<[u8; 32]>>>()
            })?;
        let all = all.into_iter().map(Sha256Digest::from_bytes);
        Ok(all.filter(|digest| !named.contains(digest)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, time::Duration};

    use super::*;
    use crate::cache::{GcPolicy, conformance::sample_action};

    fn put(store: &DiskStore, bytes: &[u8]) -> Sha256Digest {
        let mut out = store.writer().unwrap();
        out.write_all(bytes).unwrap();
        out.commit(None).unwrap()
    }

    #[test]
    fn attachments_live_as_long_as_their_entry() {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskStore::open(dir.path()).unwrap();
        let (layer, note) = (put(&store, b"layer"), put(&store, b"note"));
        let entry = sample_action(1, &[layer]);
        store.attach(entry.id(), &[note]).unwrap();
        store.put_action(&entry).unwrap();
        assert!(
            store.attached(&entry).unwrap().is_empty(),
            "there was no entry yet"
        );
        store.attach(entry.id(), &[note, layer]).unwrap();
        assert_eq!(store.attached(&entry).unwrap(), [note]);

        // The entry is young enough to stay, and so is what belongs to it.
        let policy = GcPolicy {
            max_bytes: Some(0),
            max_age: None,
            keep_recent: Duration::from_secs(3600),
            ..GcPolicy::default()
        };
        store.gc(&policy, &()).unwrap();
        assert!(store.contains(&note).unwrap());
        let policy = GcPolicy {
            keep_recent: Duration::ZERO,
            ..policy
        };
        std::thread::sleep(Duration::from_millis(2));
        store.gc(&policy, &()).unwrap();
        assert!(!store.contains(&note).unwrap());
        assert!(store.attached(&entry).unwrap().is_empty());
    }

    #[test]
    fn a_new_result_lets_go_of_what_was_attached() {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskStore::open(dir.path()).unwrap();
        let entry = sample_action(1, &[]);
        store.put_action(&entry).unwrap();
        store.attach(entry.id(), &[put(&store, b"note")]).unwrap();
        store.put_action(&entry).unwrap();
        assert!(store.attached(&entry).unwrap().is_empty());
    }
}
