//! Garbage collection: the least trusted goes first, then the least recently used.
//!
//! What can go is an entry, a blob that no entry names, a frame that no blob has. A plan is
//! made from one look at the tables and carried out in small transactions, each of which
//! leaves alone what was used since. Invariants:
//!
//! - Room for one class of scopes is made of that class and of those trusted less.
//! - What is pinned stays. What was written within the grace stays too, as it may be part of
//!   an upload, unless room is needed: for a class trusted more, or for the same class by
//!   entries that are complete. What was touched in the last sixtieth of the grace stays then too.
//! - A blob that an entry names, and a frame that a blob has, stay.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant, SystemTime},
};

use rusqlite::Connection;

use super::{Namespace, Store, StoreError, blobs::unpack, now_ms, rank, schema::lock, space::ROW};
use crate::{
    cache::{Trust, http::wire::GcAnswer},
    digest::Blake3Digest,
    fs,
};

/// Rows removed in one transaction.
const BATCH: usize = 256;

/// How long a class that nothing could be collected for is refused without trying again.
const FRUITLESS: Duration = Duration::from_secs(2);

/// When collecting for each class gave nothing last.
#[derive(Debug, Default)]
pub(super) struct LastTry([Option<Instant>; 4]);

/// What is asked of a collection.
pub struct GcDemand<'a> {
    /// Only in this namespace.
    pub(in crate::server) namespace: Option<&'a Namespace>,
    /// Drop what was not used for so long.
    pub max_age: Option<Duration>,
    /// Keep at most so many bytes in it.
    pub max_bytes: Option<u64>,
    /// The most trusted class that may be touched.
    pub most: Trust,
    /// Which scopes may be touched.
    pub scopes: &'a (dyn Fn(&str) -> bool + Sync),
}

impl std::fmt::Debug for GcDemand<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GcDemand")
            .field("namespace", &self.namespace)
            .field("max_age", &self.max_age)
            .field("max_bytes", &self.max_bytes)
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

/// What has to go, in bytes.
struct Goal {
    /// What is needed.
    least: u64,
    /// What is wished, if anything is needed.
    total: u64,
    /// How much may stay, of what is looked at.
    keep: Option<u64>,
    /// From one class alone: which, what is needed, what is wished.
    class: Option<(usize, u64, u64)>,
    most: usize,
    unused_since: Option<i64>,
    /// Whether complete entries may go within the grace.
    urgent: bool,
}

struct Entry {
    id: i64,
    namespace: i64,
    scope: String,
    rank: usize,
    cost: u64,
    written: i64,
    used: i64,
    pinned: bool,
    blobs: Vec<usize>,
    gone: bool,
}

struct Blob {
    id: i64,
    namespace: i64,
    rank: usize,
    cost: u64,
    written: i64,
    used: i64,
    frames: Vec<usize>,
    /// Entries that name it and stay.
    users: usize,
    /// The most trusted of the entries that name it.
    serves: Option<usize>,
    gone: bool,
}

struct Frame {
    namespace: i64,
    digest: [u8; 32],
    rank: usize,
    size: u64,
    touched: i64,
    /// Blobs that have it and stay.
    users: usize,
    serves: usize,
    gone: bool,
}

/// The tables, and what is to be done.
#[derive(Default)]
struct Plan {
    entries: Vec<Entry>,
    blobs: Vec<Blob>,
    frames: Vec<Frame>,
    gone_entries: Vec<usize>,
    gone_blobs: Vec<usize>,
    gone_frames: Vec<usize>,
    freed: u64,
    freed_of: [u64; 4],
}

/// An entry, or a blob that no entry names.
#[derive(Clone, Copy)]
enum Item {
    Entry(usize),
    Blob(usize),
}

impl Store {
    /// Collects what `demand` says; also frames that belong to nothing.
    pub fn collect(&self, demand: &GcDemand<'_>) -> Result<GcAnswer, StoreError> {
        let mut held = lock(&self.collecting);
        let age = demand
            .max_age
            .map(|age| now_ms().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
        let goal = Goal {
            least: 0,
            total: 0,
            keep: demand.max_bytes,
            class: None,
            most: rank(demand.most),
            unused_since: age,
            urgent: false,
        };
        *held = LastTry::default();
        let id = demand.namespace.map(|namespace| namespace.id);
        self.collect_for(&goal, id, demand.scopes)
    }

    /// Makes room for `bytes` of `trust`; that there is still none then, the caller sees.
    pub(super) fn make_room(&self, trust: Trust, bytes: u64) -> Result<(), StoreError> {
        let rank = rank(trust);
        let mut held = lock(&self.collecting);
        // Somebody may have made room while this one waited.
        let Some(lack) = self.space.lack(trust, bytes) else {
            return Ok(());
        };
        if held.0[rank].is_some_and(|last| last.elapsed() < FRUITLESS) {
            return Ok(());
        }
        // Somewhat more than is needed, or each upload would collect anew.
        let quotas = self.space.quotas();
        let generous = |lack: u64, limit: u64| match lack {
            0 => 0,
            lack => lack.saturating_add(limit / 20),
        };
        let goal = Goal {
            least: lack.total,
            total: generous(lack.total, quotas.total),
            keep: None,
            class: (lack.class > 0)
                .then(|| (rank, lack.class, generous(lack.class, quotas.classes[rank]))),
            most: rank,
            unused_since: None,
            urgent: true,
        };
        let done = self.collect_for(&goal, None, &|_| true)?;
        held.0[rank] = (done.freed_bytes == 0).then(Instant::now);
        Ok(())
    }

    fn collect_for(
        &self,
        goal: &Goal,
        namespace: Option<i64>,
        scopes: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<GcAnswer, StoreError> {
        self.flush()?;
        let mut plan = self.database.read("read", Plan::read)?;
        let fresh = now_ms() - i64::try_from(self.grace.as_millis()).unwrap_or(i64::MAX);
        plan.make(goal, namespace, scopes, fresh, self.hot());
        let done = self.carry_out(&plan, fresh)?;
        tracing::debug!(?done, "collected garbage");
        Ok(done)
    }

    /// What was touched since then is on its way.
    fn hot(&self) -> i64 {
        now_ms() - i64::try_from(self.grace.as_millis() / 60).unwrap_or(i64::MAX)
    }

    fn carry_out(&self, plan: &Plan, fresh: i64) -> Result<GcAnswer, StoreError> {
        let mut done = GcAnswer::default();
        let mut freed = Vec::new();
        for part in plan.gone_entries.chunks(BATCH) {
            self.database.write("collect entries of", |t| {
                let mut entry = t.prepare_cached(
                    "DELETE FROM entries WHERE id = ?1 AND written = ?2 AND used = ?3",
                )?;
                let mut named = t.prepare_cached("DELETE FROM entry_blobs WHERE entry = ?1")?;
                for entry_at in part {
                    let e = &plan.entries[*entry_at];
                    if entry.execute((e.id, e.written, e.used))? == 1 {
                        named.execute([e.id])?;
                        freed.push((e.rank, e.cost));
                        done.entries += 1;
                    }
                }
                Ok(())
            })?;
        }
        let mut kept: HashSet<usize> = HashSet::new();
        for part in plan.gone_blobs.chunks(BATCH) {
            self.database.write("collect blobs of", |t| {
                let mut blob = t.prepare_cached(
                    "DELETE FROM blobs WHERE id = ?1 AND written = ?2 AND used = ?3
                     AND NOT EXISTS (SELECT 1 FROM entry_blobs WHERE blob = ?1)",
                )?;
                for blob_at in part {
                    let b = &plan.blobs[*blob_at];
                    if blob.execute((b.id, b.written, b.used))? == 1 {
                        freed.push((b.rank, b.cost));
                        done.blobs += 1;
                    } else {
                        kept.extend(&b.frames);
                    }
                }
                Ok(())
            })?;
        }
        for part in plan.gone_frames.chunks(BATCH) {
            // Files go under the same lock as their rows: who sends such a frame anew comes
            // before or after both.
            let mut writer = self.database.writer();
            let mut files = Vec::new();
            writer.transaction("collect frames of", |t| {
                let mut frame = t.prepare_cached(
                    "DELETE FROM frames WHERE namespace = ?1 AND digest = ?2 AND touched = ?3",
                )?;
                for frame_at in part.iter().filter(|at| !kept.contains(at)) {
                    let f = &plan.frames[*frame_at];
                    if frame.execute((f.namespace, f.digest, f.touched))? == 1 {
                        freed.push((f.rank, f.size + ROW));
                        files.push((f.namespace, Blake3Digest::from_bytes(f.digest)));
                        done.frames += 1;
                    }
                }
                Ok(())
            })?;
            for (namespace, digest) in files {
                if let Some(namespace) = self.namespace_of(namespace) {
                    fs::remove_file(self.frame_path(&namespace, &digest))?;
                }
            }
        }
        for (rank, bytes) in freed {
            self.space.free(rank, bytes);
            done.freed_bytes += bytes;
        }
        self.lower(plan, fresh)?;
        done.kept_bytes = self.space.used().iter().sum();
        Ok(done)
    }

    /// Lets what served a more trusted class once count for the one that it serves now.
    fn lower(&self, plan: &Plan, fresh: i64) -> Result<(), StoreError> {
        let mut lowered = Vec::new();
        let blobs = plan.blobs.iter().filter_map(|b| {
            let serves = b.serves.filter(|_| !b.gone && b.written < fresh)?;
            (serves < b.rank).then_some((b, serves))
        });
        let frames = plan
            .frames
            .iter()
            .filter(|f| !f.gone && f.users > 0 && f.touched < fresh && f.serves < f.rank);
        self.database.write("write", |t| {
            for (blob, serves) in blobs {
                let changed = t.execute(
                    "UPDATE blobs SET trust = ?2 WHERE id = ?1 AND trust = ?3 AND written = ?4",
                    (blob.id, serves, blob.rank, blob.written),
                )?;
                if changed == 1 {
                    lowered.push((blob.rank, serves, blob.cost));
                }
            }
            for frame in frames {
                let changed = t.execute(
                    "UPDATE frames SET trust = ?3 WHERE namespace = ?1 AND digest = ?2
                     AND trust = ?4 AND touched = ?5",
                    (
                        frame.namespace,
                        frame.digest,
                        frame.serves,
                        frame.rank,
                        frame.touched,
                    ),
                )?;
                if changed == 1 {
                    lowered.push((frame.rank, frame.serves, frame.size + ROW));
                }
            }
            Ok(())
        })?;
        for (from, to, bytes) in lowered {
            self.space.raise(from, to, bytes);
        }
        Ok(())
    }

    /// Removes frames' files that no row knows, which a crash left. They are younger than
    /// the grace if they are just being written.
    pub fn sweep(&self) -> Result<u64, StoreError> {
        let mut swept = 0;
        let frames = self.dir.join("frames");
        for name in fs::names(&frames)? {
            let Some(namespace) = name.to_str() else {
                continue;
            };
            let Some(namespace) = self.existing_namespace(namespace)? else {
                continue;
            };
            let dir = frames.join(&name);
            for part in fs::names(&dir)? {
                let part = dir.join(part);
                for file in fs::names(&part)? {
                    let digest = file
                        .to_str()
                        .and_then(|hex| Blake3Digest::from_hex(hex).ok());
                    let path = part.join(&file);
                    let age = SystemTime::now().duration_since(fs::modified(&path)?);
                    if age.is_ok_and(|age| age < self.grace) {
                        continue;
                    }
                    let writer = self.database.writer();
                    let known = match digest {
                        Some(digest) => writer.has_frame(namespace.id, digest.as_bytes())?,
                        None => false,
                    };
                    if !known {
                        fs::remove_file(&path)?;
                        swept += 1;
                    }
                }
            }
        }
        Ok(swept)
    }

    fn namespace_of(&self, id: i64) -> Option<Namespace> {
        let known = lock(&self.namespaces)
            .values()
            .find(|namespace| namespace.id == id)
            .cloned();
        known.or_else(|| {
            let read = self.database.read("read", |c| {
                c.query_row("SELECT name FROM namespaces WHERE id = ?1", [id], |row| {
                    row.get(0)
                })
            });
            read.ok().map(|name| Namespace { id, name })
        })
    }
}

impl Plan {
    /// Reads the tables; the caller has begun a transaction.
    fn read(c: &Connection) -> rusqlite::Result<Self> {
        let mut plan = Self::default();
        let mut frame_at = HashMap::new();
        let mut statement =
            c.prepare("SELECT namespace, digest, trust, size, touched FROM frames")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let frame = Frame {
                namespace: row.get(0)?,
                digest: row.get(1)?,
                rank: row.get(2)?,
                size: row.get(3)?,
                touched: row.get(4)?,
                users: 0,
                serves: 0,
                gone: false,
            };
            frame_at.insert((frame.namespace, frame.digest), plan.frames.len());
            plan.frames.push(frame);
        }
        let mut blob_at: HashMap<i64, usize> = HashMap::new();
        let mut statement =
            c.prepare("SELECT id, namespace, frames, trust, written, used FROM blobs")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let namespace: i64 = row.get(1)?;
            let packed: Vec<u8> = row.get(2)?;
            let own: HashSet<usize> = unpack(&packed)
                .iter()
                .filter_map(|f| frame_at.get(&(namespace, *f.digest.as_bytes())).copied())
                .collect();
            blob_at.insert(row.get(0)?, plan.blobs.len());
            plan.blobs.push(Blob {
                id: row.get(0)?,
                namespace,
                rank: row.get(3)?,
                cost: packed.len() as u64 + ROW,
                written: row.get(4)?,
                used: row.get(5)?,
                frames: own.into_iter().collect(),
                users: 0,
                serves: None,
                gone: false,
            });
        }
        let mut named: HashMap<i64, Vec<usize>> = HashMap::new();
        let mut statement = c.prepare("SELECT entry, blob FROM entry_blobs")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let blob: i64 = row.get(1)?;
            let at = blob_at.get(&blob).copied();
            named.entry(row.get(0)?).or_default().extend(at);
        }
        let mut statement = c.prepare(
            "SELECT id, namespace, scope, trust, length(record), written, used, EXISTS (
                 SELECT 1 FROM pins p WHERE p.namespace = e.namespace AND p.key = e.key
                 AND p.scope = e.scope) FROM entries e",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            let length: u64 = row.get(4)?;
            plan.entries.push(Entry {
                id,
                namespace: row.get(1)?,
                scope: row.get(2)?,
                rank: row.get(3)?,
                cost: length + ROW,
                written: row.get(5)?,
                used: row.get(6)?,
                pinned: row.get(7)?,
                blobs: named.remove(&id).unwrap_or_default(),
                gone: false,
            });
        }
        Ok(plan)
    }

    /// Decides what goes. What was written since `fresh` is within the grace, what was since `hot`
    /// is on its way.
    fn make(
        &mut self,
        goal: &Goal,
        namespace: Option<i64>,
        scopes: &(dyn Fn(&str) -> bool + Sync),
        fresh: i64,
        hot: i64,
    ) {
        for entry in &self.entries {
            for blob in &entry.blobs {
                let blob = &mut self.blobs[*blob];
                blob.users += 1;
                blob.serves = blob.serves.max(Some(entry.rank));
            }
        }
        for blob in &self.blobs {
            // Within the grace what a writer of this trust sent is not counted for less.
            let serves = match blob.serves {
                Some(serves) if blob.written < fresh => serves,
                serves => serves.unwrap_or_default().max(blob.rank),
            };
            for frame in &blob.frames {
                let frame = &mut self.frames[*frame];
                frame.users += 1;
                frame.serves = frame.serves.max(serves);
            }
        }
        for at in 0..self.frames.len() {
            self.drop_frame(at, fresh);
        }
        let mut items = self.items(goal.most, namespace, scopes);
        items.sort_by_key(|(rank, used, _)| (*rank, *used));
        for (_, used, item) in &items {
            if goal.unused_since.is_some_and(|since| *used < since) {
                self.drop_item(*item, fresh);
            }
        }
        let over = goal
            .keep
            .map_or(0, |keep| self.size(namespace).saturating_sub(keep));
        let (class, least_of_class, of_class) = goal.class.unwrap_or_default();
        let (least, total) = (goal.least.max(over), goal.total.max(over));
        let (lower, own): (Vec<_>, Vec<_>) =
            items.into_iter().partition(|(rank, ..)| *rank < goal.most);
        let passes = [
            (&lower, fresh, true, true),
            (&lower, i64::MAX, goal.urgent, true),
            (&own, fresh, true, true),
            (&own, hot, goal.urgent, false),
        ];
        for (items, since, is_on, with_orphans) in passes {
            // More than is needed goes only where something has to go at all.
            let lacks = self.freed < least || self.freed_of[class] < least_of_class;
            if !is_on || !lacks {
                continue;
            }
            for (rank, _, item) in items {
                let helps_class = *rank == class && self.freed_of[class] < of_class;
                // A blob without an entry is on its way within the grace.
                let may_go = with_orphans || matches!(item, Item::Entry(_));
                if may_go && (helps_class || self.freed < total) {
                    self.drop_item(*item, since);
                }
            }
        }
    }

    /// What a namespace, or all of them, took before anything was dropped.
    fn size(&self, namespace: Option<i64>) -> u64 {
        let mine = |id: i64| namespace.is_none_or(|own| own == id);
        let entries = self.entries.iter().filter(|e| mine(e.namespace));
        let blobs = self.blobs.iter().filter(|b| mine(b.namespace));
        let frames = self.frames.iter().filter(|f| mine(f.namespace));
        let frames = frames.map(|f| f.size + ROW);
        entries
            .map(|e| e.cost)
            .chain(blobs.map(|b| b.cost))
            .chain(frames)
            .sum()
    }

    /// What may go: class, last use, what it is.
    fn items(
        &self,
        most: usize,
        namespace: Option<i64>,
        scopes: &(dyn Fn(&str) -> bool + Sync),
    ) -> Vec<(usize, i64, Item)> {
        let mine = |id: i64| namespace.is_none_or(|own| own == id);
        let entries =
            self.entries.iter().enumerate().filter(|(_, e)| {
                !e.pinned && e.rank <= most && mine(e.namespace) && scopes(&e.scope)
            });
        let entries = entries.map(|(at, e)| (e.rank, e.used, Item::Entry(at)));
        let blobs = self.blobs.iter().enumerate();
        let blobs = blobs.filter(|(_, b)| b.users == 0 && b.rank <= most && mine(b.namespace));
        let blobs = blobs.map(|(at, b)| (b.rank, b.used, Item::Blob(at)));
        entries.chain(blobs).collect()
    }

    fn drop_item(&mut self, item: Item, fresh: i64) {
        match item {
            Item::Entry(at) => {
                let entry = &mut self.entries[at];
                if entry.gone || entry.written >= fresh {
                    return;
                }
                entry.gone = true;
                let (rank, cost) = (entry.rank, entry.cost);
                let blobs = std::mem::take(&mut entry.blobs);
                self.gone_entries.push(at);
                self.count(rank, cost);
                for blob in blobs {
                    self.blobs[blob].users -= 1;
                    self.drop_blob(blob, fresh);
                }
            }
            Item::Blob(at) => self.drop_blob(at, fresh),
        }
    }

    fn drop_blob(&mut self, at: usize, fresh: i64) {
        let blob = &mut self.blobs[at];
        if blob.gone || blob.users > 0 || blob.written.max(blob.used) >= fresh {
            return;
        }
        blob.gone = true;
        self.gone_blobs.push(at);
        let (rank, cost) = (blob.rank, blob.cost);
        let frames = blob.frames.clone();
        self.count(rank, cost);
        for frame in frames {
            self.frames[frame].users -= 1;
            self.drop_frame(frame, fresh);
        }
    }

    fn drop_frame(&mut self, at: usize, fresh: i64) {
        let frame = &mut self.frames[at];
        if frame.gone || frame.users > 0 || frame.touched >= fresh {
            return;
        }
        frame.gone = true;
        self.gone_frames.push(at);
        let (rank, cost) = (frame.rank, frame.size + ROW);
        self.count(rank, cost);
    }

    fn count(&mut self, rank: usize, bytes: u64) {
        self.freed += bytes;
        self.freed_of[rank] += bytes;
    }
}
