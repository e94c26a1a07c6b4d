//! The local store on a full disk and on a read-only one.
//!
//! The disk is a small tmpfs in a mount namespace of its own, where this test binary
//! runs again. Where such a namespace can't be made the tests are skipped; in CI as
//! root they fail.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use memobuild_ci::{
    cache::{CacheError, CacheWarning, DiskStore, GcPolicy, Scope, conformance::sample_action},
    digest::Sha256Digest,
};

const ROLE: &str = "STORE_TROUBLE_ROLE";
const DIR: &str = "STORE_TROUBLE_DIR";

/// `mount` options that make a disk of 4 MiB.
const SMALL: &str = "size=4m,mode=0700";

/// Runs `role` with a small disk mounted on a new directory.
fn on_small_disk(role: &str) {
    let enter = |command: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount"]);
        if rustix::process::geteuid().is_root() {
            unshare = Command::new("unshare");
            unshare.arg("--mount");
        }
        unshare.args(command).stdin(Stdio::null());
        unshare
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let able = enter(&["mount", "-t", "tmpfs", "-o", SMALL, "tmpfs", path])
        .output()
        .is_ok_and(|output| output.status.success());
    if !able {
        assert!(
            std::env::var_os("CI").is_none() || !rustix::process::geteuid().is_root(),
            "root can make mount namespaces"
        );
        println!("skipped: no mount namespace can be made here");
        return;
    }
    let binary = std::env::current_exe().unwrap();
    let script = format!(
        "mount -t tmpfs -o {SMALL} tmpfs \"$1\" && exec \"$2\" --exact store_trouble::child --ignored --nocapture"
    );
    let output = enter(&["sh", "-c", &script, "sh", path])
        .arg(binary)
        .env(ROLE, role)
        .env(DIR, path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("all held"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Not a test by itself: what runs on the small disk.
#[test]
#[ignore = "started by the other tests of this file"]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    match std::env::var(ROLE).unwrap().as_str() {
        "full" => full(Path::new(&dir)),
        "read-only" => read_only(Path::new(&dir)),
        role => panic!("no role `{role}`"),
    }
    println!("all held");
}

fn put(store: &DiskStore, bytes: &[u8]) -> Result<Sha256Digest, CacheError> {
    let mut writer = store.writer()?;
    writer
        .write_all(bytes)
        .map_err(|error| CacheError::from_io("write", store.temp_dir(), error))?;
    writer.commit(None)
}

fn full(disk: &Path) {
    let store = DiskStore::open(disk.join("cache")).unwrap();
    let small = put(&store, b"small").unwrap();
    let action = sample_action(1, &[small]);
    store.put_action(&action).unwrap();

    let error = put(&store, &vec![1; 8 << 20]).unwrap_err();
    assert!(matches!(error, CacheError::Full { .. }), "{error}");
    let left = std::fs::read_dir(store.temp_dir()).unwrap().count();
    assert_eq!(left, 0, "the half blob is gone");

    // Not a byte is left for anybody.
    let mut filler = std::fs::File::create(disk.join("filler")).unwrap();
    while filler.write(&[0; 512]).is_ok() {}
    let mut refused = None;
    for n in 2..2_000 {
        if let Err(error) = store.put_action(&sample_action(n, &[])) {
            refused = Some(error);
            break;
        }
    }
    assert!(
        matches!(refused, Some(CacheError::Full { .. })),
        "{refused:?}"
    );
    let lease = store.lease();
    assert_eq!(
        store.lookup(&[Scope::local()], &[action.key]).unwrap(),
        [Some(action.clone())]
    );
    let blob = store.open_blob_verified(&small).unwrap().unwrap();
    blob.finish().unwrap();
    // A second process may find no room for its part of the index; it works without.
    let second = DiskStore::open(disk.join("cache")).unwrap();
    second.lookup(&[Scope::local()], &[action.key]).unwrap();
    assert!(second.contains(&small).unwrap());
    drop((second, lease, filler));

    std::fs::remove_file(disk.join("filler")).unwrap();
    drop(store);
    let store = DiskStore::open(disk.join("cache")).unwrap();
    assert_eq!(store.take_warnings(), [], "the index is whole");
    assert_eq!(
        store.lookup(&[Scope::local()], &[action.key]).unwrap(),
        [Some(action)]
    );
    assert_eq!(store.verify(&mut |_| {}).unwrap().corrupt, []);
    store.put_action(&sample_action(9_999, &[])).unwrap();
}

fn read_only(disk: &Path) {
    let dir = disk.join("cache");
    let store = DiskStore::open(&dir).unwrap();
    let blob = put(&store, b"small").unwrap();
    let action = sample_action(1, &[blob]);
    store.put_action(&action).unwrap();
    drop(store);
    let remounted = Command::new("mount")
        .args(["-o", "remount,bind,ro"])
        .arg(disk)
        .status()
        .unwrap();
    assert!(remounted.success());

    let store = DiskStore::open(&dir).unwrap();
    assert_eq!(
        store.take_warnings(),
        [CacheWarning::ReadOnly { path: dir }]
    );
    let lease = store.lease().unwrap();
    assert_eq!(
        store.lookup(&[Scope::local()], &[action.key]).unwrap(),
        [Some(action.clone())]
    );
    let reader = store.open_blob_verified(&blob).unwrap().unwrap();
    reader.finish().unwrap();
    store.touch(&[action.id()], &[blob]).unwrap();
    for error in [
        put(&store, b"more").unwrap_err(),
        store.put_action(&action).unwrap_err(),
        store.gc(&GcPolicy::default(), &()).unwrap_err(),
    ] {
        assert!(matches!(error, CacheError::ReadOnly { .. }), "{error}");
    }
    drop(lease);
    assert_eq!(store.take_warnings(), [], "warned once");
}

#[test]
fn a_full_disk_costs_the_write_and_nothing_else() {
    on_small_disk("full");
}

#[test]
fn a_read_only_disk_can_be_read() {
    on_small_disk("read-only");
}
