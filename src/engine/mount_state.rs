//! What a cache mount's directory was packed to, for as long as nobody changes it.
//!
//! Packing reads and hashes the whole tree. A [`KnownTree`] beside the directory says which layer it
//! is in which state of its metadata, so a directory that no step has changed is recognised by a
//! walk alone. It is derived data: one that is gone or damaged costs a packing.
//!
//! Format, version 1, `mounts/<64 hex digits>.state`: three lines, `1`, the
//! [state](crate::snapshot::TreeMeasure::state), the diff id.
//!
//! Invariant: it is written only if the last change was more than a tick of the clock before the
//! walk, so that any later change gives another state.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    digest::Blake3Digest,
    fs::{self, AtomicFile, FsError, IoContext as _},
    oci::layer::DiffId,
    snapshot::{SnapshotError, Snapshots, TreeMeasure},
};

/// Longer than a tick of the clock by which kernels date changes.
const TICK: Duration = Duration::from_millis(20);

const VERSION: &str = "1";

/// A state of a directory, and the layer that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KnownTree {
    state: Blake3Digest,
    diff_id: DiffId,
}

impl KnownTree {
    /// What is known of the directory.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        let text = fs::read_to_string(path(dir)).ok()?;
        let mut lines = text.lines();
        if lines.next()? != VERSION {
            return None;
        }
        Some(Self {
            state: lines.next()?.parse().ok()?,
            diff_id: DiffId(lines.next()?.parse().ok()?),
        })
    }

    /// Whether a directory that measures so is still this layer.
    pub(super) fn is(&self, measured: &TreeMeasure, diff_id: DiffId) -> bool {
        self.state == measured.state && self.diff_id == diff_id
    }

    /// Notes that `dir`, which nobody may change meanwhile, is the layer `diff_id`.
    pub(super) fn note(
        snapshots: &Snapshots,
        dir: &Path,
        diff_id: DiffId,
    ) -> Result<(), SnapshotError> {
        let mut began = now_ns();
        let mut measured = snapshots.measure(dir)?;
        if !is_settled(&measured, began) {
            std::thread::sleep(TICK);
            began = now_ns();
            measured = snapshots.measure(dir)?;
        }
        if is_settled(&measured, began) {
            let state = measured.state;
            Self { state, diff_id }.write(dir)?;
        }
        Ok(())
    }

    fn write(self, dir: &Path) -> Result<(), FsError> {
        let path = path(dir);
        let text = format!("{VERSION}\n{}\n{}\n", self.state, self.diff_id.0);
        let mut file = AtomicFile::create(&path)?;
        file.write_all(text.as_bytes()).at("write", &path)?;
        // What a crash of the machine leaves of it does not parse, or is an older state.
        file.commit_unsynced()
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.with_extension("state")
}

/// Whether what changes after a walk that began then gets another time.
fn is_settled(measured: &TreeMeasure, began_ns: i64) -> bool {
    let tick = i64::try_from(TICK.as_nanos()).unwrap_or(i64::MAX);
    measured.changed_ns.saturating_add(tick) <= began_ns
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{digest::Sha256Digest, snapshot::Access};

    #[test]
    fn a_tree_is_known_until_it_changes() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "the test needs root");
            println!("skipped: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(&dir.path().join("snapshots"), Access::Root).unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("file"), b"text").unwrap();
        let [layer, other] = [b"a", b"b"].map(|text| DiffId(Sha256Digest::of(text)));
        assert_eq!(KnownTree::read(&tree), None);
        // What has just been written has to settle.
        KnownTree::note(&snapshots, &tree, layer).unwrap();
        let known = KnownTree::read(&tree).unwrap();
        let measured = snapshots.measure(&tree).unwrap();
        assert!(known.is(&measured, layer));
        assert!(!known.is(&measured, other));
        std::fs::write(tree.join("file"), b"TEXT").unwrap();
        assert!(!known.is(&snapshots.measure(&tree).unwrap(), layer));
        for damaged in ["", "1\n", "2\nx\ny\n", "1\nblake3:00\nsha256:00\n"] {
            std::fs::write(tree.with_extension("state"), damaged).unwrap();
            assert_eq!(KnownTree::read(&tree), None, "{damaged:?}");
        }
    }
}
