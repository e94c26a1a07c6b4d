//! Saving in the background: [`Saver`] brings what a build made to the tiers while the build
//! goes on.
//!
//! A step's blobs go first, those that the tier lacks, and then its entries, so that no entry
//! names blobs that are not there. Every save is in the local store's journal
//! ([`DiskStore::journal`]) from before it starts until every tier has it and shows it to others
//! ([`ActionCache::flush`](super::ActionCache::flush)), which is at the end of the build: what a build leaves
//! behind because it was stopped, or because its time was up, the next one takes up that writes the same
//! scope and has the same tiers.
//!
//! The trees of cache mounts go the same way, but without the journal: the newest counts.
//!
//! Not everything is worth it. A layer of a COPY that takes longer to bring to a tier and back than its step
//! took to execute is left out, by what was measured of the line so far; small layers always go, and so do those of
//! RUN, which executed again may give something else.
//!
//! No trouble reaches the caller: it is a warning. What a tier refuses is given up; what failed
//! otherwise is left to the next build.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::JoinSet, time::timeout_at};

use super::{
    ActionResult, BlobSource, CacheError, DiskStore, PendingFile, PendingSave, Scope, Vouching,
    disk::blocking,
    line::{Act, Line},
};
use crate::{
    digest::Sha256Digest,
    event::{BuildEvent, Events},
    key::KeyKind,
};

/// Steps that are saved at the same time.
const AT_ONCE: usize = 4;

/// Layers below this size in bytes are saved whatever it takes.
const SMALL: u64 = 1 << 20;

/// Layers that are brought to a tier in this time are saved whatever the step took: this costs the build
/// nothing that it would notice, and a hit alone, without bytes, spares others the step.
const PASSING: Duration = Duration::from_millis(200);

/// Indexes above this size in bytes don't go from one tier to another.
const IN_MEMORY: u64 = 64 << 20;

/// What a step gave.
#[derive(Debug, Clone)]
pub struct SaveJob {
    /// Its entries, which name the same blobs.
    pub entries: Vec<ActionResult>,
    /// Where the frames of its layer's blob end, in bytes; empty if that isn't known.
    pub ends: Vec<u64>,
    /// Numbers of the tiers that it may go to; all if none.
    pub tiers: Option<Range<usize>>,
    /// Number of a tier that has what the local store lacks of its small blobs.
    pub source: Option<usize>,
}

/// What a build saved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SaveReport {
    /// Results of steps that some tier has now.
    pub results: usize,
    /// The size of their blobs in bytes.
    pub bytes: u64,
    /// Bytes of blobs that the tiers lacked.
    pub new_bytes: u64,
    /// Results that are left in the journal.
    pub left: usize,
    /// Trees of cache mounts that some tier has now.
    pub mounts: usize,
    /// The size of their blobs in bytes.
    pub mount_bytes: u64,
    /// Bytes of these blobs that the tiers lacked.
    pub new_mount_bytes: u64,
}

/// Saves in the background.
#[derive(Debug)]
pub struct Saver {
    shared: Arc<Shared>,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<DiskStore>,
    lines: Arc<[Line]>,
    own: Scope,
    vouching: Vouching,
    events: Events,
    permits: Semaphore,
    report: Mutex<SaveReport>,
    /// Whether there was anything to save.
    used: AtomicBool,
    /// For each tier, whether something was put there that it may not show yet.
    unseen: Vec<AtomicBool>,
    /// Saves that are over but for that.
    ended: Mutex<Vec<Ended>>,
}

/// A save that was tried at all of its tiers.
#[derive(Debug)]
struct Ended {
    job: SaveJob,
    /// Tiers that have it.
    took: Vec<usize>,
    /// Bytes of blobs that they lacked.
    new_bytes: u64,
    /// Tiers that another build may bring it to.
    left: Vec<usize>,
    file: Option<PendingFile>,
}

/// What came of saving to one tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saved {
    /// The tier has it all.
    Whole { new_bytes: u64 },
    /// Another build may succeed.
    Later,
    /// Nobody will.
    Never,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Saver {
    pub(super) fn new(
        store: Arc<DiskStore>,
        lines: Arc<[Line]>,
        own: Scope,
        vouching: Vouching,
        events: Events,
    ) -> Self {
        let unseen = lines.iter().map(|_| AtomicBool::new(false)).collect();
        Self {
            shared: Arc::new(Shared {
                store,
                lines,
                own,
                vouching,
                events,
                permits: Semaphore::new(AT_ONCE),
                report: Mutex::default(),
                used: AtomicBool::new(false),
                unseen,
                ended: Mutex::default(),
            }),
            tasks: Mutex::default(),
        }
    }

    /// Whether there is a tier to save to.
    pub fn is_active(&self) -> bool {
        !self.shared.open_tiers(None).is_empty()
    }

    /// Whether one of the tiers with these numbers is saved to.
    pub fn reaches(&self, tiers: &Range<usize>) -> bool {
        !self.shared.open_tiers(Some(tiers.clone())).is_empty()
    }

    /// Signs the entries of a step, enters them into the journal and saves them in the
    /// background, where that is worth it. The step's blobs are in the local store.
    pub async fn save(&self, mut job: SaveJob) {
        let shared = &self.shared;
        let mut tiers = shared.open_tiers(job.tiers.clone());
        // Where it came from, its bytes are.
        if job.source.is_none() {
            tiers = shared.worthwhile(&job, tiers);
        }
        if tiers.is_empty() {
            return;
        }
        for entry in &mut job.entries {
            shared.vouching.sign(entry);
        }
        self.start(job, tiers).await;
    }

    /// As [`save`](Self::save), for entries that are worth it in any case, such as those that
    /// came from a tier. They keep a signature that they have.
    pub async fn save_anyway(&self, mut job: SaveJob) {
        let tiers = self.shared.open_tiers(job.tiers.clone());
        for entry in job.entries.iter_mut().filter(|e| e.signature.is_none()) {
            self.shared.vouching.sign(entry);
        }
        if !tiers.is_empty() {
            self.start(job, tiers).await;
        }
    }

    async fn start(&self, job: SaveJob, tiers: Vec<usize>) {
        if !is_journaled(&job) {
            return self.spawn(job, tiers, None);
        }
        let (store, pending) = (
            Arc::clone(&self.shared.store),
            self.shared.pending(&job, &tiers),
        );
        // A save that is not in the journal is a save all the same.
        let file = blocking("write", store.dir().to_owned(), move || {
            store.journal(&pending)
        })
        .await
        .unwrap_or_default();
        self.spawn(job, tiers, file);
    }

    fn spawn(&self, job: SaveJob, tiers: Vec<usize>, file: Option<PendingFile>) {
        let shared = Arc::clone(&self.shared);
        shared.used.store(true, Ordering::Relaxed);
        lock(&shared.report).left += usize::from(is_journaled(&job));
        lock(&self.tasks).spawn(async move { shared.run(job, tiers, file).await });
    }

    /// Takes up what builds before this one left for the same tiers in the same scope; gives how
    /// many saves that are.
    pub async fn resume(&self) -> usize {
        let mut taken = 0;
        if !self.is_active() {
            return taken;
        }
        let store = Arc::clone(&self.shared.store);
        let listed = blocking("read", store.dir().to_owned(), move || {
            store.unfinished_saves()
        });
        for (pending, file) in listed.await.unwrap_or_default() {
            let mine = pending
                .entries
                .iter()
                .all(|entry| entry.scope == self.shared.own);
            let tiers: Vec<usize> = self
                .shared
                .open_tiers(None)
                .into_iter()
                .filter(|n| {
                    let name = self.shared.lines[*n].name();
                    pending.tiers.iter().any(|known| known == name)
                })
                .collect();
            if mine && !tiers.is_empty() {
                let job = SaveJob {
                    entries: pending.entries,
                    ends: pending.ends,
                    tiers: None,
                    source: None,
                };
                self.spawn(job, tiers, Some(file));
                taken += 1;
            }
        }
        taken
    }

    /// Waits until everything is saved, but not longer than `limit`, and says what was. What
    /// is not done then stays in the journal. None if there was nothing to save. A call that is
    /// dropped gives up what is under way.
    pub async fn finish(&self, limit: Duration) -> Option<SaveReport> {
        let started = Instant::now();
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let mut tasks = std::mem::take(&mut *lock(&self.tasks));
            if tasks.is_empty() {
                break;
            }
            while let Ok(Some(_)) = timeout_at(deadline, tasks.join_next()).await {}
            if tasks.is_empty() {
                continue;
            }
            tasks.shutdown().await;
        }
        self.shared.show(deadline).await;
        if !self.shared.used.load(Ordering::Relaxed) {
            return None;
        }
        let report = *lock(&self.shared.report);
        if report == SaveReport::default() {
            return Some(report);
        }
        if report.mounts > 0 {
            self.shared.events.send(BuildEvent::MountsSaved {
                mounts: report.mounts,
                bytes: report.mount_bytes,
                new_bytes: report.new_mount_bytes,
            });
        }
        if report.results + report.left == 0 && report.new_bytes == 0 && report.mounts > 0 {
            return Some(report);
        }
        let busy = self.shared.lines.iter().map(|line| line.up.busy()).max();
        self.shared.events.send(BuildEvent::Saved {
            results: report.results,
            bytes: report.bytes,
            new_bytes: report.new_bytes,
            left: report.left,
            ms: millis(busy.unwrap_or_default()),
            waited_ms: millis(started.elapsed()),
        });
        Some(report)
    }
}

impl Shared {
    /// The tiers of `among` that may be written.
    fn open_tiers(&self, among: Option<Range<usize>>) -> Vec<usize> {
        let open = |n: &usize| {
            let line = &self.lines[*n];
            line.tier.access.write && !line.refuses_writes()
        };
        let among = among.unwrap_or(0..self.lines.len());
        (0..self.lines.len())
            .filter(|n| among.contains(n))
            .filter(open)
            .collect()
    }

    /// Those of `tiers` where the layer is in no time, or from which it comes back sooner than its step
    /// could be executed again; says so where it is not.
    fn worthwhile(&self, job: &SaveJob, mut tiers: Vec<usize>) -> Vec<usize> {
        let Some(entry) = job.entries.first() else {
            return Vec::new();
        };
        let size = entry.layer.as_ref().map_or(0, |layer| layer.size);
        if size < SMALL {
            return tiers;
        }
        let step = Duration::from_millis(entry.duration_ms);
        tiers.retain(|n| {
            let line = &self.lines[*n];
            let there = line.up.time_for(size);
            let transfer = there + line.down.time_for(size);
            if there <= PASSING || transfer <= step {
                return true;
            }
            self.events.send(BuildEvent::NotWorthSaving {
                name: entry.step.name.clone(),
                tier: line.name().to_owned(),
                bytes: size,
                step_ms: entry.duration_ms,
                transfer_ms: millis(transfer),
            });
            false
        });
        tiers
    }

    fn pending(&self, job: &SaveJob, tiers: &[usize]) -> PendingSave {
        let names = tiers.iter().map(|n| self.lines[*n].name().to_owned());
        PendingSave::new(names.collect(), job.ends.clone(), job.entries.clone())
    }

    /// Saves one step to all `tiers`.
    async fn run(&self, job: SaveJob, tiers: Vec<usize>, file: Option<PendingFile>) {
        let Ok(_permit) = self.permits.acquire().await else {
            return;
        };
        let mut left = Vec::new();
        let (mut saved, mut new) = (false, 0);
        let mut took = Vec::new();
        for tier in tiers {
            match self.save_to(tier, &job).await {
                Saved::Whole { new_bytes } => {
                    saved = true;
                    new += new_bytes;
                    took.push(tier);
                    self.unseen[tier].store(true, Ordering::SeqCst);
                }
                Saved::Later => left.push(tier),
                Saved::Never => {}
            }
        }
        let first = job.entries.first();
        let layer = first.and_then(|entry| entry.layer.as_ref());
        let size = layer.map_or(0, |layer| layer.size);
        let step = first.is_some_and(|entry| entry.kind != KeyKind::LayerIndex);
        if is_journaled(&job) {
            let mut report = lock(&self.report);
            if saved {
                report.results += usize::from(step);
                // What is new may hold the layer's index besides the layer.
                report.bytes += size.max(new);
                report.new_bytes += new;
            }
            if left.is_empty() {
                report.left -= 1;
            }
        }
        lock(&self.ended).push(Ended {
            job,
            took,
            new_bytes: new,
            left,
            file,
        });
    }

    /// Has the tiers show what they were given, and takes what they do out of the journal.
    async fn show(&self, deadline: tokio::time::Instant) {
        let mut hidden = Vec::new();
        for (n, line) in self.lines.iter().enumerate() {
            if !self.unseen[n].load(Ordering::SeqCst) {
                continue;
            }
            match timeout_at(deadline, line.tier.actions.flush()).await {
                Ok(Ok(())) => self.unseen[n].store(false, Ordering::SeqCst),
                Ok(Err(error)) => {
                    line.trouble(Act::Write, &error);
                    hidden.push(n);
                }
                Err(_) => hidden.push(n),
            }
        }
        let ended = std::mem::take(&mut *lock(&self.ended));
        for mut save in ended {
            let late: Vec<usize> = save
                .took
                .iter()
                .copied()
                .filter(|n| hidden.contains(n))
                .collect();
            if !is_journaled(&save.job) {
                if late.len() < save.took.len() {
                    self.count_mount(&save);
                }
                continue;
            }
            if !late.is_empty() {
                let mut report = lock(&self.report);
                report.left += usize::from(save.left.is_empty());
                if late.len() == save.took.len() {
                    report.results = report.results.saturating_sub(1);
                }
            }
            save.left.extend(late);
            self.close_journal(&save.job, &save.left, save.file).await;
        }
    }

    /// Counts the tree of a cache mount that some tier shows.
    fn count_mount(&self, save: &Ended) {
        let layer = save.job.entries.first().and_then(|e| e.layer.as_ref());
        let mut report = lock(&self.report);
        report.mounts += 1;
        let size = layer.map_or(0, |layer| layer.size);
        report.mount_bytes += size.max(save.new_bytes);
        report.new_mount_bytes += save.new_bytes;
    }

    /// Removes the save from the journal, or leaves it there for the tiers that lack it.
    async fn close_journal(&self, job: &SaveJob, left: &[usize], file: Option<PendingFile>) {
        let (store, pending) = (Arc::clone(&self.store), self.pending(job, left));
        // At worst the next build finds out that there is nothing to do.
        let _ = blocking("write", store.dir().to_owned(), move || {
            match (pending.tiers.is_empty(), file) {
                (true, Some(file)) => file.done(),
                (true, None) => Ok(()),
                (false, _) => store.journal(&pending).map(drop),
            }
        })
        .await;
    }

    async fn save_to(&self, tier: usize, job: &SaveJob) -> Saved {
        let line = &self.lines[tier];
        let error = match self.bring(line, job).await {
            Ok(Some(new_bytes)) => return Saved::Whole { new_bytes },
            Ok(None) => return Saved::Never,
            Err(error) => error,
        };
        line.trouble(Act::Write, &error);
        match error {
            _ if line.refuses_writes() => Saved::Never,
            CacheError::Corrupt { .. } => Saved::Never,
            _ => Saved::Later,
        }
    }

    /// Brings a step's blobs and entries to a tier; gives the bytes that it lacked, or none if
    /// they can't be had here.
    async fn bring(&self, line: &Line, job: &SaveJob) -> Result<Option<u64>, CacheError> {
        let mut new_bytes = 0;
        let layer = job.entries.first().and_then(|entry| entry.layer.as_ref());
        if let Some(layer) = layer {
            // The index is the smaller one: should the time be up, it is there already.
            let blobs: Vec<Sha256Digest> = layer.index.into_iter().chain([layer.digest]).collect();
            let there = line.tier.blobs.contains(&blobs).await?;
            let lacks = |(digest, there): &(Sha256Digest, bool)| !there || line.has_wrong(digest);
            for (digest, _) in blobs.into_iter().zip(there).filter(lacks) {
                let ends = match digest == layer.digest {
                    true => job.ends.as_slice(),
                    false => &[],
                };
                match self.bring_blob(line, job, digest, ends).await? {
                    Some(size) => new_bytes += size,
                    None => return Ok(None),
                }
            }
        }
        for entry in &job.entries {
            let _transfer = line.up.begin();
            line.tier.actions.put(entry).await?;
        }
        Ok(Some(new_bytes))
    }

    /// Brings one blob to a tier; gives its size, or none if it isn't here.
    async fn bring_blob(
        &self,
        line: &Line,
        job: &SaveJob,
        digest: Sha256Digest,
        ends: &[u64],
    ) -> Result<Option<u64>, CacheError> {
        let store = Arc::clone(&self.store);
        let file = blocking("look for", digest, move || store.blob(&digest)).await?;
        let (source, size) = match file {
            Some(file) => (BlobSource::File(file.path), file.size),
            None => match self.small_blob(job, digest).await {
                Some(bytes) => {
                    let size = bytes.len() as u64;
                    (BlobSource::Bytes(bytes.into()), size)
                }
                None => return Ok(None),
            },
        };
        let transfer = line.up.begin();
        match ends.last() == Some(&size) {
            true => {
                let ends: Arc<[u64]> = ends.into();
                line.tier.blobs.put_framed(digest, source, ends).await?;
            }
            false => line.tier.blobs.put(digest, source).await?,
        }
        transfer.add(size);
        Ok(Some(size))
    }

    /// A blob that only another tier has, if it is an index: layers are never kept in memory.
    async fn small_blob(&self, job: &SaveJob, digest: Sha256Digest) -> Option<Vec<u8>> {
        let layer = job.entries.first()?.layer.as_ref()?;
        let line = self.lines.get(job.source?)?;
        if layer.index != Some(digest) {
            return None;
        }
        let blob = line.tier.blobs.get(digest).await.ok()??;
        if blob.size > IN_MEMORY {
            return None;
        }
        blob.read_all(digest).await.ok()
    }
}

/// Whether a save that is cut short is taken up by the next build. The tree of a cache mount is not:
/// by then another build may have saved a newer one, and the next build packs its own.
fn is_journaled(job: &SaveJob) -> bool {
    let first = job.entries.first();
    first.is_none_or(|entry| entry.kind != KeyKind::CacheMount)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::{Access, ActionCache as _, MemoryStore, Tier, conformance::sample_action},
        event::Recorder,
    };

    struct Case {
        _dir: tempfile::TempDir,
        store: Arc<DiskStore>,
        tier: Arc<MemoryStore>,
        recorder: Arc<Recorder>,
        saver: Saver,
    }

    fn case() -> Case {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(DiskStore::open(dir.path()).unwrap());
        let (tier, recorder) = (Arc::new(MemoryStore::default()), Arc::default());
        let events = Events::new(Arc::<Recorder>::clone(&recorder));
        let line = Line::new(
            Tier {
                name: "memory://".to_owned(),
                actions: tier.clone(),
                blobs: tier.clone(),
                access: Access::FULL,
            },
            events.clone(),
        );
        let saver = Saver::new(
            store.clone(),
            Arc::new([line]),
            Scope::local(),
            Vouching::default(),
            events,
        );
        Case {
            _dir: dir,
            store,
            tier,
            recorder,
            saver,
        }
    }

    /// A step that took so long and gave a layer that is said to have so many bytes.
    fn job(case: &Case, number: u64, ms: u64, size: u64) -> SaveJob {
        let mut out = case.store.writer().unwrap();
        std::io::Write::write_all(&mut out, &number.to_le_bytes()).unwrap();
        let digest = out.commit(None).unwrap();
        let mut entry = sample_action(number, &[digest]);
        entry.duration_ms = ms;
        entry.layer.as_mut().unwrap().size = size;
        SaveJob {
            entries: vec![entry],
            ends: Vec::new(),
            tiers: None,
            source: None,
        }
    }

    #[tokio::test]
    async fn what_takes_longer_to_bring_than_to_make_is_not_saved() {
        let case = case();
        // Nothing is measured: 50 MiB a second are assumed, so 100 MiB take 2 s each way.
        let hundred = 100 << 20;
        let jobs = [
            job(&case, 1, 3_999, hundred),
            job(&case, 2, 4_000, hundred),
            job(&case, 3, 0, SMALL - 1),
            // 10 MiB are there in 0.2 s.
            job(&case, 4, 0, 10 << 20),
            job(&case, 5, 0, hundred / 9),
        ];
        for job in &jobs {
            case.saver.save(job.clone()).await;
        }
        let report = case.saver.finish(Duration::from_secs(60)).await.unwrap();
        assert_eq!((report.results, report.left, report.new_bytes), (3, 0, 24));
        let keys: Vec<_> = jobs.iter().map(|job| job.entries[0].key).collect();
        let found = case.tier.lookup(&[Scope::local()], &keys).await.unwrap();
        let there: Vec<bool> = found.iter().map(Option::is_some).collect();
        assert_eq!(there, [false, true, true, true, false]);
        let verdicts: Vec<_> = case
            .recorder
            .events()
            .into_iter()
            .filter(|event| matches!(event, BuildEvent::NotWorthSaving { .. }))
            .collect();
        let verdict = |number, bytes, step_ms, transfer_ms| BuildEvent::NotWorthSaving {
            name: format!("[app {number}/9] RUN true"),
            tier: "memory://".to_owned(),
            bytes,
            step_ms,
            transfer_ms,
        };
        assert_eq!(
            verdicts,
            [
                verdict(1, hundred, 3_999, 4_000),
                verdict(5, hundred / 9, 0, 444)
            ]
        );
        assert!(case.store.unfinished_saves().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_blob_that_is_gone_is_nothing_to_save() {
        let case = case();
        let mut job = job(&case, 1, 10, 8);
        let layer = job.entries[0].layer.as_mut().unwrap();
        layer.digest = Sha256Digest::of(b"elsewhere");
        case.saver.save(job.clone()).await;
        let report = case.saver.finish(Duration::from_secs(60)).await.unwrap();
        assert_eq!((report.results, report.left), (0, 0));
        let found = case
            .tier
            .lookup(&[Scope::local()], &[job.entries[0].key])
            .await
            .unwrap();
        assert_eq!(found, [None]);
        assert!(case.store.unfinished_saves().unwrap().is_empty());
    }
}
