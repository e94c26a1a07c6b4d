//! Looking after the store: figures, verification, garbage collection.

use std::{
    collections::{HashMap, HashSet},
    fs::DirEntry,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use rusqlite::{OptionalExtension, Transaction, params};

use super::{
    DiskStore,
    blobs::{enter, file_size},
    lease, owned, unix_millis,
};
use crate::{
    cache::{
        CacheError, EntryId, Scope,
        gc::{ActionUse, BlobUse, DerivedData, GcPolicy, GcReport, Inventory, millis, plan},
    },
    digest::{Blake3Digest, Sha256Digest},
    fs::{self, FileLock, FsError, IoContext},
    key::CacheKey,
};

/// How many removals share one transaction: long enough to be quick, short enough not
/// to keep a build waiting.
const BATCH: usize = 64;

/// Figures of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Number of actions.
    pub actions: u64,
    /// Number of blobs.
    pub blobs: u64,
    /// Bytes of all blobs.
    pub blob_bytes: u64,
    /// Bytes of the index file.
    pub index_bytes: u64,
    /// Oldest time of last use of an action or blob, in milliseconds since 1970.
    pub oldest_use: Option<i64>,
}

/// What [`DiskStore::verify`] found. What is wrong with blobs has been removed, unless
/// the store can't be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Blobs read.
    pub blobs: usize,
    /// Bytes read.
    pub bytes: u64,
    /// Blobs whose bytes are not theirs.
    pub corrupt: Vec<Sha256Digest>,
    /// Files among the blobs whose names are not those of blobs. They are left alone.
    pub foreign: Vec<PathBuf>,
    /// Actions that name a blob that is not here. They are no fault: the blob may be in
    /// another cache, else the step is executed again.
    pub incomplete: Vec<CacheKey>,
    /// Entries that can't be read; they count as misses.
    pub unreadable: usize,
}

impl DiskStore {
    /// Figures, from the index.
    pub fn stats(&self) -> Result<StoreStats, CacheError> {
        let mut stats = self.shared.index.read("read", |connection| {
            connection.query_row(
                "SELECT (SELECT count(*) FROM actions), (SELECT count(*) FROM blobs),
                        (SELECT coalesce(sum(size), 0) FROM blobs),
                        (SELECT min(used) FROM
                            (SELECT used FROM actions UNION ALL SELECT used FROM blobs))",
                [],
                |row| {
                    Ok(StoreStats {
                        actions: row.get::<_, i64>(0)?.unsigned_abs(),
                        blobs: row.get::<_, i64>(1)?.unsigned_abs(),
                        blob_bytes: row.get::<_, i64>(2)?.unsigned_abs(),
                        index_bytes: 0,
                        oldest_use: row.get(3)?,
                    })
                },
            )
        })?;
        stats.index_bytes = file_size(self.shared.index.path())?.unwrap_or(0);
        Ok(stats)
    }

    /// Reads every blob and entry. `progress` is told the bytes read so far.
    pub fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<VerifyReport, CacheError> {
        self.verify_of(&[], progress)
    }

    /// Reads the entries of `scopes` and the blobs that they name; everything if there are no
    /// scopes.
    pub fn verify_of(
        &self,
        scopes: &[Scope],
        progress: &mut dyn FnMut(u64),
    ) -> Result<VerifyReport, CacheError> {
        self.shared.index.check()?;
        let mut report = VerifyReport::default();
        let mut actions = self.actions()?;
        report.unreadable = usize::try_from(self.stats()?.actions)
            .unwrap_or(usize::MAX)
            .saturating_sub(actions.len());
        let mut listing = list_blobs(&self.blobs_dir())?;
        report.foreign = listing.foreign;
        if !scopes.is_empty() {
            actions.retain(|action| scopes.contains(&action.result.scope));
            let named = actions.iter().flat_map(|action| action.result.blobs());
            let named: HashSet<Sha256Digest> = named.collect();
            listing.blobs.retain(|blob| named.contains(&blob.digest));
        }
        for blob in listing.blobs {
            let Some(reader) = self.open_blob_verified(&blob.digest)? else {
                continue;
            };
            let size = reader.size();
            match reader.finish() {
                Ok(()) => {}
                Err(CacheError::Corrupt { .. }) => report.corrupt.push(blob.digest),
                Err(error) => return Err(error),
            }
            report.blobs += 1;
            report.bytes += size;
            progress(report.bytes);
        }
        for action in actions {
            for digest in action.result.blobs() {
                if file_size(&self.blob_path(&digest))?.is_none() {
                    report.incomplete.push(action.result.key);
                    break;
                }
            }
        }
        Ok(report)
    }

    /// Removes what `policy` does not want kept, and abandoned temporary files.
    /// `derived` is what else lies in the store's directory; `&()` for nothing.
    ///
    /// Safe while builds run, see [`super::BuildLease`]. Only one process collects at a
    /// time; another one returns at once with [`GcReport::skipped`].
    pub fn gc(&self, policy: &GcPolicy, derived: &dyn DerivedData) -> Result<GcReport, CacheError> {
        self.check_writable()?;
        self.shared.index.check_shared("collect garbage in")?;
        let Some(_lock) = FileLock::try_exclusive(self.dir().join("locks/gc"))? else {
            return Ok(GcReport {
                skipped: true,
                ..GcReport::default()
            });
        };
        let mut report = GcReport {
            temporary: owned::sweep(&self.temp_dir())?.removed,
            ..GcReport::default()
        };
        self.reconcile()?;
        let now = unix_millis();
        let recent = now.saturating_sub(millis(policy.keep_recent));
        let horizon = lease::oldest(&self.leases_dir())?.map_or(recent, |start| start.min(recent));
        let mut inventory = self.inventory(derived)?;
        if !policy.scopes.is_empty() {
            let actions = self.actions()?.into_iter();
            let of_scopes = actions.filter(|a| policy.scopes.contains(&a.result.scope));
            inventory.limit_to(&of_scopes.map(|a| a.result.id()).collect());
        }
        let plan = plan(&inventory, policy, now, horizon);
        report.actions = self.remove_actions(&plan.actions, horizon)?;
        self.remove_blobs(&plan.blobs, horizon, &mut report)?;
        for item in &inventory.derived {
            if plan.derived.contains(&item.id) && derived.remove(&item.id)? {
                report.derived += 1;
                report.freed_bytes += item.bytes;
            }
        }
        report.kept_bytes = inventory.bytes().saturating_sub(report.freed_bytes);
        Ok(report)
    }

    /// Enters the blobs that the index misses, as a process without an index left
    /// them, and drops the rows of blobs that are gone.
    fn reconcile(&self) -> Result<(), CacheError> {
        let listing = list_blobs(&self.blobs_dir())?;
        let index = &self.shared.index;
        let rows: HashSet<[u8; 32]> = index.read("list blobs of", |connection| {
            connection
                .prepare_cached("SELECT digest FROM blobs")?
                .query_map([], |row| row.get(0))?
                .collect()
        })?;
        let files: HashSet<[u8; 32]> = listing.blobs.iter().map(|b| *b.digest.as_bytes()).collect();
        let new: Vec<&ListedBlob> = listing
            .blobs
            .iter()
            .filter(|blob| !rows.contains(blob.digest.as_bytes()))
            .collect();
        let gone: Vec<Sha256Digest> = rows
            .difference(&files)
            .map(|row| Sha256Digest::from_bytes(*row))
            .collect();
        index.write("reconcile", |transaction| {
            for blob in &new {
                enter(
                    transaction,
                    blob.digest.as_bytes(),
                    blob.size,
                    blob.modified,
                )?;
            }
            for digest in &gone {
                // It may have come since the files were listed.
                if matches!(file_size(&self.blob_path(digest)), Ok(None)) {
                    transaction.execute(
                        "DELETE FROM blobs WHERE digest = ?",
                        [&digest.as_bytes()[..]],
                    )?;
                }
            }
            Ok(())
        })
    }

    fn inventory(&self, derived: &dyn DerivedData) -> Result<Inventory, CacheError> {
        let (actions, blobs) = self.shared.index.read("take stock of", |connection| {
            let mut actions: HashMap<[u8; 32], ActionUse> = connection
                .prepare_cached("SELECT id, used FROM actions")?
                .query_map([], |row| {
                    let id: [u8; 32] = row.get(0)?;
                    let action = ActionUse {
                        id: EntryId(Blake3Digest::from_bytes(id)),
                        used: row.get(1)?,
                        blobs: Vec::new(),
                    };
                    Ok((id, action))
                })?
                .collect::<rusqlite::Result<_>>()?;
            let mut links = connection.prepare_cached("SELECT id, digest FROM action_blobs")?;
            let mut links = links.query([])?;
            while let Some(row) = links.next()? {
                if let Some(action) = actions.get_mut(&row.get::<_, [u8; 32]>(0)?) {
                    action.blobs.push(Sha256Digest::from_bytes(row.get(1)?));
                }
            }
            let blobs = connection
                .prepare_cached("SELECT digest, size, used FROM blobs")?
                .query_map([], |row| {
                    Ok(BlobUse {
                        digest: Sha256Digest::from_bytes(row.get(0)?),
                        bytes: row.get::<_, i64>(1)?.unsigned_abs(),
                        used: row.get(2)?,
                    })
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            Ok((actions.into_values().collect(), blobs))
        })?;
        Ok(Inventory {
            actions,
            blobs,
            derived: derived.list()?,
        })
    }

    /// Removes those of `actions` that have not been used since the plan was made.
    fn remove_actions(&self, actions: &[EntryId], horizon: i64) -> Result<usize, CacheError> {
        let mut removed = 0;
        for batch in actions.chunks(BATCH) {
            removed += self
                .shared
                .index
                .write("remove actions from", |transaction| {
                    let mut removed = 0;
                    for id in batch {
                        let id = &id.0.as_bytes()[..];
                        let rows = transaction
                            .prepare_cached("DELETE FROM actions WHERE id = ? AND used < ?")?
                            .execute(params![id, horizon])?;
                        if rows > 0 {
                            removed += 1;
                            transaction
                                .prepare_cached("DELETE FROM action_blobs WHERE id = ?")?
                                .execute([id])?;
                        }
                    }
                    Ok(removed)
                })?;
        }
        Ok(removed)
    }

    /// Removes those of `digests` that have not been used, and that no action has come
    /// to name, since the plan was made.
    fn remove_blobs(
        &self,
        digests: &[Sha256Digest],
        horizon: i64,
        report: &mut GcReport,
    ) -> Result<(), CacheError> {
        for batch in digests.chunks(BATCH) {
            let mut renamed: Vec<(PathBuf, u64)> = Vec::new();
            let done = self.shared.index.write("remove blobs from", |transaction| {
                for digest in batch {
                    let row = &digest.as_bytes()[..];
                    let size: Option<i64> = transaction
                        .prepare_cached(
                            "SELECT size FROM blobs WHERE digest = ?1 AND used < ?2
                             AND NOT EXISTS (SELECT 1 FROM action_blobs WHERE digest = ?1)",
                        )?
                        .query_row(params![row, horizon], |row| row.get(0))
                        .optional()?;
                    let Some(size) = size else { continue };
                    // A rename is quick; the removal of a large file may not be, and
                    // waits until others can write again.
                    let trash = self.temp_dir().join(format!("gone-{}", digest.hex()));
                    if fs::rename(self.blob_path(digest), &trash).is_ok() {
                        renamed.push((trash, size.unsigned_abs()));
                    }
                    transaction
                        .prepare_cached("DELETE FROM blobs WHERE digest = ?")?
                        .execute([row])?;
                }
                Ok(())
            });
            for (path, size) in renamed {
                fs::remove_file(path)?;
                report.blobs += 1;
                report.freed_bytes += size;
            }
            done?;
        }
        Ok(())
    }
}

/// A blob's file as found in the directory.
struct ListedBlob {
    digest: Sha256Digest,
    size: u64,
    /// In milliseconds since 1970.
    modified: i64,
}

/// All that is among the blobs.
#[derive(Default)]
struct Listing {
    blobs: Vec<ListedBlob>,
    foreign: Vec<PathBuf>,
}

/// Lists `blobs/sha256`, in the order of digests.
fn list_blobs(dir: &Path) -> Result<Listing, FsError> {
    let mut listing = Listing::default();
    for fan in std::fs::read_dir(dir).at("read directory", dir)?.flatten() {
        if !fan.file_type().is_ok_and(|t| t.is_dir()) {
            listing.foreign.push(fan.path());
            continue;
        }
        let path = fan.path();
        for entry in std::fs::read_dir(&path)
            .at("read directory", &path)?
            .flatten()
        {
            match listed(&fan, &entry) {
                Some(blob) => listing.blobs.push(blob),
                None => listing.foreign.push(entry.path()),
            }
        }
    }
    listing.blobs.sort_by_key(|blob| blob.digest);
    listing.foreign.sort();
    Ok(listing)
}

/// The blob that this file is by its name.
fn listed(fan: &DirEntry, entry: &DirEntry) -> Option<ListedBlob> {
    let name = entry.file_name().into_string().ok()?;
    let digest = Sha256Digest::from_hex(&name).ok()?;
    let metadata = entry.metadata().ok()?;
    if !metadata.is_file() || !name.starts_with(fan.file_name().to_str()?) {
        return None;
    }
    let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(ListedBlob {
        digest,
        size: metadata.len(),
        modified: millis(modified),
    })
}

/// Enters all blobs of a directory into a new index, as used now: when they were used
/// is not known any more.
pub(super) fn enter_all(transaction: &Transaction<'_>, dir: &Path) -> rusqlite::Result<()> {
    // What can't be listed now is entered by a garbage collection.
    let listing = list_blobs(dir).unwrap_or_default();
    let now = unix_millis();
    for blob in listing.blobs {
        enter(transaction, blob.digest.as_bytes(), blob.size, now)?;
    }
    Ok(())
}
