//! The local store in one process. Several processes and `kill -9` are in
//! `tests/it/store_kill.rs`, full and read-only disks in `tests/it/store_trouble.rs`.

use std::{
    io::Read,
    os::unix::fs::PermissionsExt,
    sync::{Arc, LazyLock},
    time::Duration,
};

use super::*;
use crate::{
    cache::{
        DerivedData, DerivedUse, GcPolicy, Scope,
        conformance::{self, sample_action},
    },
    digest::Sha256Digest,
};

struct Fixture {
    dir: tempfile::TempDir,
    store: DiskStore,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path().join("cache")).unwrap();
    Fixture { dir, store }
}

impl Fixture {
    fn reopen(&self) -> DiskStore {
        DiskStore::open(self.dir.path().join("cache")).unwrap()
    }

    /// Sets back the time of last use of everything.
    fn age(&self, by: Duration) {
        let by = millis(by);
        self.store
            .shared
            .index
            .write("age", |transaction| {
                transaction.execute("UPDATE actions SET used = used - ?", [by])?;
                transaction.execute("UPDATE blobs SET used = used - ?", [by])
            })
            .unwrap();
    }
}

fn put(store: &DiskStore, bytes: &[u8]) -> Sha256Digest {
    let mut writer = store.writer().unwrap();
    io::Write::write_all(&mut writer, bytes).unwrap();
    writer.commit(None).unwrap()
}

fn read(store: &DiskStore, digest: &Sha256Digest) -> Option<Result<Vec<u8>, CacheError>> {
    let mut blob = store.open_blob_verified(digest).unwrap()?;
    let mut bytes = Vec::new();
    Some(match blob.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(CacheError::from_io("read", *digest, error)),
    })
}

/// Everything that is not protected by a lease or by use in the last minute.
fn all() -> GcPolicy {
    GcPolicy {
        max_bytes: Some(0),
        max_age: None,
        keep_recent: Duration::from_secs(60),
        ..GcPolicy::default()
    }
}

static LOCAL: LazyLock<[Scope; 1]> = LazyLock::new(|| [Scope::local()]);

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let f = fixture();
    let store = Arc::new(f.store.clone());
    conformance::blob_store(store.clone()).await;
    conformance::action_cache(store.clone()).await;
    let disk = f.store.clone();
    conformance::corruption(store, move |digest| spoil(&disk, digest)).await;
}

fn spoil(store: &DiskStore, digest: &Sha256Digest) {
    let path = store.blob_path(digest);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"bad").unwrap();
}

#[test]
fn a_blob_is_a_read_only_file_under_its_digest() {
    let f = fixture();
    let digest = put(&f.store, b"hello");
    let blob = f.store.blob(&digest).unwrap().unwrap();
    assert_eq!(blob.size, 5);
    let hex = digest.hex();
    assert!(
        blob.path
            .ends_with(format!("blobs/sha256/{}/{hex}", &hex[..2]))
    );
    let mode = std::fs::metadata(&blob.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o444);
    assert_eq!(std::fs::read_dir(f.store.temp_dir()).unwrap().count(), 0);
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let f = fixture();
    let mut writer = f.store.writer().unwrap();
    io::Write::write_all(&mut writer, b"half").unwrap();
    drop(writer);
    assert_eq!(std::fs::read_dir(f.store.temp_dir()).unwrap().count(), 0);
    assert_eq!(f.store.stats().unwrap().blobs, 0);
}

#[test]
fn a_corrupt_blob_is_an_error_once_and_then_a_miss() {
    let f = fixture();
    let digest = put(&f.store, b"hello");
    spoil(&f.store, &digest);
    assert!(matches!(
        read(&f.store, &digest),
        Some(Err(CacheError::Corrupt { .. }))
    ));
    assert!(read(&f.store, &digest).is_none());
    assert_eq!(f.store.stats().unwrap().blobs, 0);
}

#[test]
fn what_was_put_is_there_after_reopening() {
    let f = fixture();
    let digest = put(&f.store, b"hello");
    let action = sample_action(1, &[digest]);
    f.store.put_action(&action).unwrap();
    let store = f.reopen();
    assert_eq!(
        store.lookup(&*LOCAL, &[action.key]).unwrap(),
        [Some(action)]
    );
    assert_eq!(read(&store, &digest).unwrap().unwrap(), b"hello");
    assert_eq!(store.take_warnings(), []);
}

#[test]
fn an_unreadable_entry_is_a_miss_with_a_warning() {
    let f = fixture();
    let action = sample_action(1, &[]);
    f.store.put_action(&action).unwrap();
    f.store
        .shared
        .index
        .write("spoil", |t| {
            t.execute("UPDATE actions SET record = '{'", [])
        })
        .unwrap();
    assert_eq!(f.store.lookup(&*LOCAL, &[action.key]).unwrap(), [None]);
    assert!(matches!(
        f.store.take_warnings()[..],
        [CacheWarning::UnreadableAction { .. }]
    ));
    assert_eq!(f.store.verify(&mut |_| {}).unwrap().unreadable, 1);
}

#[test]
fn a_corrupt_index_is_replaced_and_the_blobs_stay() {
    let text = b"this is no database ".repeat(500);
    // SQLite takes a file shorter than a header for a database that is still empty.
    for (garbage, rebuilt) in [(&text[..], true), (b"x", false), (b"", false)] {
        let f = fixture();
        let digest = put(&f.store, b"hello");
        f.store.put_action(&sample_action(1, &[digest])).unwrap();
        let path = f.store.shared.index.path().to_owned();
        let Fixture { dir, store } = f;
        drop(store);
        std::fs::write(&path, garbage).unwrap();
        let store = DiskStore::open(dir.path().join("cache")).unwrap();
        let warnings = store.take_warnings();
        assert_eq!(
            matches!(warnings[..], [CacheWarning::IndexRebuilt { .. }]),
            rebuilt,
            "{warnings:?}"
        );
        assert_eq!(store.stats().unwrap().blobs, 1);
        assert_eq!(store.stats().unwrap().actions, 0);
        assert_eq!(read(&store, &digest).unwrap().unwrap(), b"hello");
        store.put_action(&sample_action(1, &[digest])).unwrap();
    }
}

#[test]
fn an_index_that_goes_bad_in_use_is_replaced() {
    let f = fixture();
    for n in 0..2_000 {
        if n % 100 == 0 {
            put(&f.store, &u64::to_le_bytes(n));
        }
        f.store.put_action(&sample_action(n, &[])).unwrap();
    }
    let path = f.store.shared.index.path().to_owned();
    let Fixture { dir, store } = f;
    drop(store);
    // The first pages, which are read on opening, stay good.
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 4;
    bytes[middle..].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let store = DiskStore::open(dir.path().join("cache")).unwrap();
    let keys: Vec<_> = (0..2_000).map(|n| sample_action(n, &[]).key).collect();
    store.lookup(&*LOCAL, &keys).unwrap();
    store.put_action(&sample_action(1, &[])).unwrap();
    assert!(
        store
            .take_warnings()
            .iter()
            .any(|w| matches!(w, CacheWarning::IndexRebuilt { .. }))
    );
    assert_eq!(store.stats().unwrap().blobs, 20);
    // Closing the corrupt one has not harmed the new one.
    let again = DiskStore::open(dir.path().join("cache")).unwrap();
    assert!(again.lookup(&*LOCAL, &[sample_action(1, &[]).key]).unwrap()[0].is_some());
    assert_eq!(again.take_warnings(), []);
}

#[test]
fn a_corrupt_index_is_not_replaced_under_its_users() {
    let f = fixture();
    let digest = put(&f.store, b"hello");
    let path = f.store.shared.index.path().to_owned();
    // Else the pages in the log hide those in the file.
    f.store
        .shared
        .index
        .read("checkpoint", |c| {
            c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        })
        .unwrap();
    let Fixture { dir, store } = f;
    let cache = dir.path().join("cache");
    std::fs::write(&path, b"this is no database ".repeat(500)).unwrap();
    let second = DiskStore::open(&cache).unwrap();
    let warnings = second.take_warnings();
    assert!(
        matches!(&warnings[..], [CacheWarning::IndexUnavailable { reason, .. }]
            if reason.contains("other processes")),
        "{warnings:?}"
    );
    assert!(second.contains(&digest).unwrap());
    drop(store);
    let third = DiskStore::open(&cache).unwrap();
    assert!(matches!(
        third.take_warnings()[..],
        [CacheWarning::IndexRebuilt { .. }]
    ));
    third.put_action(&sample_action(1, &[])).unwrap();
    drop((second, third));
    let fourth = DiskStore::open(&cache).unwrap();
    assert_eq!(fourth.take_warnings(), []);
    assert_eq!(fourth.stats().unwrap().actions, 1);
}

#[test]
fn an_index_of_a_newer_version_is_left_alone() {
    let f = fixture();
    let digest = put(&f.store, b"hello");
    f.store
        .shared
        .index
        .write("set", |t| t.execute_batch("PRAGMA user_version = 99"))
        .unwrap();
    let store = f.reopen();
    assert!(matches!(
        store.take_warnings()[..],
        [CacheWarning::IndexUnavailable { .. }]
    ));
    // Blobs work; actions are kept for this process only.
    assert_eq!(read(&store, &digest).unwrap().unwrap(), b"hello");
    store.put_action(&sample_action(1, &[])).unwrap();
    assert!(store.lookup(&*LOCAL, &[sample_action(1, &[]).key]).unwrap()[0].is_some());
    assert!(store.gc(&all(), &()).unwrap_err().is_transient());
    let version: i64 = f
        .store
        .shared
        .index
        .read("get", |c| {
            c.query_row("PRAGMA user_version", [], |r| r.get(0))
        })
        .unwrap();
    assert_eq!(version, 99);
}

#[test]
fn a_store_of_another_version_is_refused_and_not_touched() {
    let f = fixture();
    std::fs::write(f.store.dir().join("VERSION"), "7\n").unwrap();
    let error = DiskStore::open(f.store.dir()).unwrap_err();
    assert!(
        matches!(&error, CacheError::Version { found, .. } if found == "7"),
        "{error}"
    );
}

#[test]
fn a_read_only_store_reads() {
    let f = fixture();
    let digest = put(&f.store, b"hello");
    let action = sample_action(1, &[digest]);
    f.store.put_action(&action).unwrap();
    let store = DiskStore::open_read_only(f.store.dir()).unwrap();
    let _lease = store.lease().unwrap();
    assert_eq!(
        store.lookup(&*LOCAL, &[action.key]).unwrap(),
        [Some(action.clone())]
    );
    assert_eq!(read(&store, &digest).unwrap().unwrap(), b"hello");
    assert!(matches!(store.writer(), Err(CacheError::ReadOnly { .. })));
    assert!(matches!(
        store.put_action(&action),
        Err(CacheError::ReadOnly { .. })
    ));
    assert!(matches!(
        store.gc(&all(), &()),
        Err(CacheError::ReadOnly { .. })
    ));
    store.touch(&[action.id()], &[digest]).unwrap();
    assert!(DiskStore::open_read_only(f.dir.path().join("none")).is_err());
}

#[test]
fn gc_removes_what_is_old_and_keeps_what_is_not() {
    let f = fixture();
    let (old, orphan) = (put(&f.store, b"old"), put(&f.store, b"orphan"));
    f.store.put_action(&sample_action(1, &[old])).unwrap();
    f.age(HOUR);
    let recent = put(&f.store, b"recent");
    f.store.put_action(&sample_action(2, &[recent])).unwrap();
    let report = f.store.gc(&all(), &()).unwrap();
    assert_eq!((report.actions, report.blobs), (1, 2));
    assert_eq!((report.freed_bytes, report.kept_bytes), (9, 6));
    assert!(!f.store.contains(&old).unwrap() && !f.store.contains(&orphan).unwrap());
    assert!(f.store.contains(&recent).unwrap());
    assert_eq!(std::fs::read_dir(f.store.temp_dir()).unwrap().count(), 0);
}

#[test]
fn gc_spares_what_a_running_build_has_looked_at() {
    let f = fixture();
    let layer = put(&f.store, b"layer of a hit");
    let base = put(&f.store, b"base image layer");
    put(&f.store, b"of no interest");
    let hit = sample_action(1, &[layer]);
    f.store.put_action(&hit).unwrap();
    f.store.put_action(&sample_action(2, &[])).unwrap();
    f.age(HOUR);

    let build = f.reopen();
    let lease = build.lease().unwrap();
    build.lookup(&*LOCAL, &[hit.key]).unwrap();
    build.contains(&base).unwrap();
    // The build goes on for long: only the lease protects what it used at its start.
    let policy = GcPolicy {
        keep_recent: Duration::ZERO,
        ..all()
    };
    std::thread::sleep(Duration::from_millis(5));
    let report = f.store.gc(&policy, &()).unwrap();
    assert_eq!((report.actions, report.blobs), (1, 1));
    assert!(build.lookup(&*LOCAL, &[hit.key]).unwrap()[0].is_some());
    assert_eq!(read(&build, &layer).unwrap().unwrap(), b"layer of a hit");
    assert_eq!(read(&build, &base).unwrap().unwrap(), b"base image layer");

    drop(lease);
    std::thread::sleep(Duration::from_millis(5));
    let report = f.store.gc(&policy, &()).unwrap();
    assert_eq!((report.actions, report.blobs), (1, 2));
}

#[test]
fn a_second_lease_marks_again() {
    let f = fixture();
    let digest = put(&f.store, b"x");
    let _first = f.store.lease().unwrap();
    f.store.contains(&digest).unwrap();
    f.age(HOUR);
    f.store.contains(&digest).unwrap();
    let used = || f.store.stats().unwrap().oldest_use.unwrap();
    assert!(used() < unix_millis() - 1_800_000, "marked once a lease");
    let _second = f.store.lease().unwrap();
    f.store.contains(&digest).unwrap();
    assert!(used() > unix_millis() - 1_800_000);
}

#[test]
fn touch_counts_as_use() {
    let f = fixture();
    let digest = put(&f.store, b"x");
    let action = sample_action(1, &[]);
    f.store.put_action(&action).unwrap();
    f.age(HOUR);
    f.store.touch(&[action.id()], &[digest]).unwrap();
    let report = f.store.gc(&all(), &()).unwrap();
    assert_eq!((report.actions, report.blobs), (0, 0));
}

#[test]
fn gc_enters_blobs_that_the_index_does_not_know() {
    let f = fixture();
    let digest = put(&f.store, b"x");
    f.store
        .shared
        .index
        .write("forget", |t| t.execute("DELETE FROM blobs", []))
        .unwrap();
    let report = f.store.gc(&all(), &()).unwrap();
    assert_eq!((report.blobs, report.kept_bytes), (0, 1));
    std::fs::remove_file(f.store.blob_path(&digest)).unwrap();
    f.store.gc(&all(), &()).unwrap();
    assert_eq!(f.store.stats().unwrap().blobs, 0);
}

#[test]
fn gc_runs_once_at_a_time() {
    let f = fixture();
    let _held = fs::FileLock::exclusive(f.store.dir().join("locks/gc")).unwrap();
    assert!(f.store.gc(&all(), &()).unwrap().skipped);
}

#[test]
fn gc_asks_the_owner_of_derived_data() {
    struct Unpacked(Mutex<Vec<String>>);
    impl DerivedData for Unpacked {
        fn list(&self) -> Result<Vec<DerivedUse>, CacheError> {
            Ok(["in-use", "free"]
                .map(|id| DerivedUse {
                    id: id.to_owned(),
                    bytes: 10,
                    used: 0,
                })
                .into())
        }
        fn remove(&self, id: &str) -> Result<bool, CacheError> {
            lock(&self.0).push(id.to_owned());
            Ok(id == "free")
        }
    }
    let f = fixture();
    let unpacked = Unpacked(Mutex::default());
    let report = f.store.gc(&all(), &unpacked).unwrap();
    assert_eq!(lock(&unpacked.0).len(), 2);
    assert_eq!(
        (report.derived, report.freed_bytes, report.kept_bytes),
        (1, 10, 10)
    );
}

#[test]
fn verify_finds_corrupt_foreign_and_incomplete() {
    let f = fixture();
    let (good, bad, gone) = (
        put(&f.store, b"good"),
        put(&f.store, b"bad!"),
        put(&f.store, b"gone"),
    );
    spoil(&f.store, &bad);
    std::fs::remove_file(f.store.blob_path(&gone)).unwrap();
    let foreign = f.store.blobs_dir().join("readme");
    std::fs::write(&foreign, b"x").unwrap();
    let action = sample_action(1, &[gone]);
    f.store.put_action(&action).unwrap();
    f.store.put_action(&sample_action(2, &[good])).unwrap();
    let mut seen = 0;
    let report = f.store.verify(&mut |bytes| seen = bytes).unwrap();
    assert_eq!(report.corrupt, [bad]);
    assert_eq!(report.foreign, [foreign]);
    assert_eq!(report.incomplete, [action.key]);
    assert_eq!((report.blobs, report.bytes, seen), (2, 7, 7));
    assert!(!f.store.contains(&bad).unwrap());
}

#[test]
fn opening_sweeps_what_a_killed_writer_left() {
    let f = fixture();
    let living = f.store.writer().unwrap();
    std::fs::write(f.store.temp_dir().join("blob-left"), b"x").unwrap();
    f.reopen();
    assert!(!f.store.temp_dir().join("blob-left").exists());
    assert_eq!(living.commit(None).unwrap(), Sha256Digest::of(b""));
}

#[test]
fn a_busy_index_costs_one_wait() {
    let f = fixture();
    let digest = put(&f.store, b"x");
    let _lease = f.store.lease().unwrap();
    let other = rusqlite::Connection::open(f.store.shared.index.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let start = std::time::Instant::now();
    for _ in 0..3 {
        assert!(f.store.contains(&digest).unwrap(), "reads go on");
        let error = f.store.put_action(&sample_action(1, &[])).unwrap_err();
        assert!(error.is_transient(), "{error}");
    }
    let waited = start.elapsed();
    assert!(
        waited < Duration::from_secs(3),
        "six writes took {waited:?}"
    );
    other.execute_batch("ROLLBACK").unwrap();
    f.store.put_action(&sample_action(1, &[])).unwrap();
}
