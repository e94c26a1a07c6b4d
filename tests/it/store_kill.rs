//! The local store under `kill -9` and under several processes at once.
//!
//! The processes are this test binary again: an ignored test reads what to do from
//! its environment.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use memobuild_ci::{
    cache::{DiskStore, GcPolicy, Scope, conformance::sample_action},
    digest::Sha256Digest,
};

const DIR: &str = "STORE_KILL_DIR";
const ROLE: &str = "STORE_KILL_ROLE";
const SEED: &str = "STORE_KILL_SEED";

/// Small, seeded, good enough to vary sizes and moments.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn spawn(dir: &Path, role: &str, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store_kill::child",
            "--ignored",
            "--nocapture",
            "--quiet",
        ])
        .env(DIR, dir)
        .env(ROLE, role)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Not a test by itself: what the child processes do.
#[test]
#[ignore = "started by the other tests of this file"]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    let store = DiskStore::open(dir).unwrap();
    match std::env::var(ROLE).unwrap().as_str() {
        "write" => write_for_ever(&store, seed),
        "write and check" => write_and_check(&store, seed),
        "collect" => loop {
            store.gc(&everything(), &()).unwrap();
        },
        role => panic!("no role `{role}`"),
    }
}

fn everything() -> GcPolicy {
    GcPolicy {
        max_bytes: Some(0),
        max_age: None,
        keep_recent: Duration::ZERO,
        ..GcPolicy::default()
    }
}

/// Writes a blob of a size between 0 and 200 kB, in pieces.
fn put_blob(store: &DiskStore, random: &mut Random) -> Sha256Digest {
    let mut writer = store.writer().unwrap();
    for _ in 0..random.below(20) {
        let byte = u8::try_from(random.below(256)).unwrap();
        writer.write_all(&vec![byte; 10_000]).unwrap();
    }
    writer.write_all(&random.0.to_le_bytes()).unwrap();
    writer.commit(None).unwrap()
}

/// Puts blobs and actions that name them; says the number of each action that is kept.
fn write_for_ever(store: &DiskStore, seed: u64) {
    let mut random = Random(seed);
    for n in 0.. {
        let blob = put_blob(store, &mut random);
        let number = seed * 1_000_000 + n;
        store.put_action(&sample_action(number, &[blob])).unwrap();
        println!("kept {number}");
    }
}

/// Under a lease, puts blobs and actions, and looks at all that this process has put.
fn write_and_check(store: &DiskStore, seed: u64) {
    let _lease = store.lease().unwrap();
    let mut random = Random(seed);
    let mut mine = Vec::new();
    for n in 0..60 {
        let blob = put_blob(store, &mut random);
        let action = sample_action(seed * 1_000_000 + n, &[blob]);
        store.put_action(&action).unwrap();
        // A blob that no action names, as a pulled layer is.
        let loose = put_blob(store, &mut random);
        mine.push((action, blob, loose));
        let keys: Vec<_> = mine.iter().map(|(action, ..)| action.key).collect();
        let found = store.lookup(&[Scope::local()], &keys).unwrap();
        for ((action, blob, loose), found) in mine.iter().zip(found) {
            assert_eq!(found.as_ref(), Some(action), "an action went under a lease");
            for digest in [blob, loose] {
                let reader = store.open_blob_verified(digest).unwrap();
                reader.expect("a blob went under a lease").finish().unwrap();
            }
        }
    }
    println!("kept all");
}

/// What must hold of a store whose users are all dead.
fn check(dir: &Path) -> DiskStore {
    let store = DiskStore::open(dir).unwrap();
    assert_eq!(store.take_warnings(), [], "the index is whole");
    let left: Vec<_> = std::fs::read_dir(store.temp_dir()).unwrap().collect();
    assert!(left.is_empty(), "nothing is left of half blobs: {left:?}");
    for entry in std::fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = [
            "VERSION",
            "CACHEDIR.TAG",
            "blobs",
            "index.db",
            "index.db-wal",
            "index.db-shm",
            "tmp",
            "locks",
            "snapshots",
            "memo",
        ];
        assert!(known.contains(&name.as_str()), "`{name}` is left over");
    }
    let report = store.verify(&mut |_| {}).unwrap();
    assert_eq!(store.take_warnings(), [], "the index is whole");
    assert_eq!(report.corrupt, [], "a name stands for whole bytes");
    assert_eq!(
        report.foreign.len(),
        0,
        "no other files: {:?}",
        report.foreign
    );
    assert_eq!(report.unreadable, 0, "entries are whole");
    assert_eq!(report.incomplete, [], "actions name blobs that are there");
    store
}

#[test]
fn a_store_survives_being_killed_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(2026);
    let mut kept = 0;
    for round in 0..60 {
        let mut child = spawn(dir.path(), "write", round + 1);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        // Every third child is killed while it opens the store, the others at work.
        let mut said = String::new();
        if round % 3 != 0 {
            while !said.contains("kept") {
                assert_ne!(out.read_line(&mut said).unwrap(), 0, "the child works");
            }
        }
        std::thread::sleep(Duration::from_micros(random.below(25_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut lines = said;
        std::io::Read::read_to_string(&mut out, &mut lines).unwrap();

        if !dir.path().join("VERSION").exists() {
            continue;
        }
        let store = check(dir.path());
        let keys: Vec<_> = lines
            .lines()
            .filter_map(|line| line.strip_prefix("kept ")?.parse().ok())
            .map(|number| sample_action(number, &[]).key)
            .collect();
        let found = store.lookup(&[Scope::local()], &keys).unwrap();
        assert!(
            found.iter().all(Option::is_some),
            "what was kept stays kept"
        );
        kept += keys.len();
        if round % 10 == 9 {
            store.gc(&everything(), &()).unwrap();
        }
    }
    assert!(kept > 60, "the children got to work: {kept} actions");
}

#[test]
fn collectors_and_writers_share_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(11);
    let mut writers: Vec<Child> = (1..=2)
        .map(|n| spawn(dir.path(), "write and check", n))
        .collect();
    // Collectors that are killed, one after the other, until the writers are done.
    while writers.iter_mut().any(|w| w.try_wait().unwrap().is_none()) {
        let mut collector = spawn(dir.path(), "collect", 0);
        std::thread::sleep(Duration::from_millis(20 + random.below(80)));
        assert!(
            collector.try_wait().unwrap().is_none(),
            "the collector works"
        );
        collector.kill().unwrap();
        collector.wait().unwrap();
    }
    for writer in writers {
        let output = writer.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("kept all"),
            "{text}"
        );
    }
    let store = check(dir.path());
    store.gc(&everything(), &()).unwrap();
    let stats = store.stats().unwrap();
    assert_eq!(
        (stats.actions, stats.blobs),
        (0, 0),
        "no lease is left over"
    );
}
