//! Selections that are remembered from one run to the next: what a copy took of a directory of a commit.
//!
//! A selection follows from names of Git objects, an ignore file and the copy ([`question`]); its key
//! is remembered, so that a plan of commits that were looked at before reads no tree. One file,
//! `plan-selections` in the cache's `memo/`. Format, version 1: the magic `MBSEL01\n`; then rows of 72
//! bytes in any order: 32 bytes BLAKE3 of the question, 32 bytes key of the selection, 8 bytes: the
//! first of the BLAKE3 of the 64 before. A row whose check is wrong is no row. Writers append under a
//! lock; one that finds the end amid a row cuts it off first. A file beyond `MAX_BYTES` is begun anew.

use std::{
    collections::HashMap,
    io::Write as _,
    path::{Path, PathBuf},
};

use crate::{
    digest::{Blake3Digest, KeyEncoder},
    fs::{self, FileLock, FsError, IoContext as _},
    git::ContentIdentity,
    graph::{CopyAction, LocalContext},
    key::CacheKey,
};

const MAGIC: &[u8; 8] = b"MBSEL01\n";

/// Bytes of a row, and of what its check covers.
const ROW: usize = 72;
const CHECKED: usize = 64;

/// The file is begun anew when it is larger: 200,000 rows.
const MAX_BYTES: usize = 16 << 20;

/// What is remembered, as it was read, and what was learnt since.
#[derive(Debug, Default)]
pub struct Remembered {
    path: Option<PathBuf>,
    rows: HashMap<Blake3Digest, CacheKey>,
    learnt: Vec<(Blake3Digest, CacheKey)>,
}

/// What is asked: the selection of `copy` from `context` where the scan depends on `inputs`
/// ([`scan_inputs`](crate::git::scan_inputs)).
pub fn question(
    inputs: Blake3Digest,
    identity: ContentIdentity,
    context: &LocalContext,
    copy: &CopyAction,
) -> Blake3Digest {
    let identity = match identity {
        ContentIdentity::Content => "content",
        ContentIdentity::ObjectId => "object-id",
    };
    KeyEncoder::new("memobuild-ci 2026-11-21 remembered selection v1")
        .field("inputs", inputs.as_bytes())
        .field("identity", identity)
        .field("ignore", &context.ignore)
        .list("sources", &copy.sources)
        .list("exclude", &copy.exclude)
        .field("parents", copy.parents.to_string())
        .finish()
}

impl Remembered {
    /// Reads what is remembered below `dir`; a missing or foreign one is empty.
    pub fn load(dir: &Path) -> Self {
        let path = dir.join("plan-selections");
        let bytes = fs::read(&path).unwrap_or_default();
        let rows = bytes.strip_prefix(MAGIC).unwrap_or_default();
        Self {
            path: Some(path),
            rows: rows.chunks_exact(ROW).filter_map(row).collect(),
            learnt: Vec::new(),
        }
    }

    /// What is remembered.
    pub fn get(&self, question: &Blake3Digest) -> Option<CacheKey> {
        self.rows.get(question).copied()
    }

    /// Remembers an answer.
    pub fn learn(&mut self, question: Blake3Digest, key: CacheKey) {
        if self.rows.insert(question, key) != Some(key) {
            self.learnt.push((question, key));
        }
    }

    /// Writes what was learnt to the file. It only saves time: trouble is nobody's failure.
    pub fn save(&mut self) -> Result<(), FsError> {
        let (Some(path), false) = (&self.path, self.learnt.is_empty()) else {
            return Ok(());
        };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let _lock = FileLock::exclusive(path.with_extension("lock"))?;
        let old = fs::read(path).unwrap_or_default();
        let usable = old.starts_with(MAGIC) && old.len() < MAX_BYTES;
        let mut file = match usable {
            true => fs::append(path)?,
            false => fs::create(path)?,
        };
        let mut bytes = Vec::new();
        match usable {
            true => {
                let whole = old.len() - (old.len() - MAGIC.len()) % ROW;
                file.set_len(whole as u64).at("cut", path)?;
            }
            false => bytes.extend_from_slice(MAGIC),
        }
        for (question, key) in self.learnt.drain(..) {
            let start = bytes.len();
            bytes.extend_from_slice(question.as_bytes());
            bytes.extend_from_slice(key.0.as_bytes());
            let check = Blake3Digest::of(&bytes[start..]);
            bytes.extend_from_slice(&check.as_bytes()[..ROW - CHECKED]);
        }
        file.write_all(&bytes).at("write", path)
    }
}

fn row(bytes: &[u8]) -> Option<(Blake3Digest, CacheKey)> {
    let (body, check) = bytes.split_at_checked(CHECKED)?;
    if Blake3Digest::of(body).as_bytes()[..ROW - CHECKED] != *check {
        return None;
    }
    let (question, key) = body.split_first_chunk::<32>()?;
    let key = key.first_chunk::<32>()?;
    Some((
        Blake3Digest::from_bytes(*question),
        CacheKey(Blake3Digest::from_bytes(*key)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learnt_is_read_again_and_a_torn_end_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Blake3Digest::of(b"a"), Blake3Digest::of(b"b"));
        let mut remembered = Remembered::load(dir.path());
        remembered.learn(a, CacheKey(b));
        remembered.save().unwrap();
        let path = dir.path().join("plan-selections");
        let mut bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), MAGIC.len() + ROW);
        bytes.extend_from_slice(b"half a row");
        std::fs::write(&path, &bytes).unwrap();
        let mut remembered = Remembered::load(dir.path());
        assert_eq!(remembered.get(&a), Some(CacheKey(b)));
        remembered.learn(b, CacheKey(a));
        remembered.save().unwrap();
        let remembered = Remembered::load(dir.path());
        assert_eq!(
            (remembered.get(&a), remembered.get(&b)),
            (Some(CacheKey(b)), Some(CacheKey(a)))
        );
        assert_eq!(std::fs::read(&path).unwrap().len(), MAGIC.len() + 2 * ROW);
    }

    #[test]
    fn a_damaged_row_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let a = Blake3Digest::of(b"a");
        let mut remembered = Remembered::load(dir.path());
        remembered.learn(a, CacheKey(a));
        remembered.save().unwrap();
        let path = dir.path().join("plan-selections");
        let mut bytes = std::fs::read(&path).unwrap();
        for n in 0..bytes.len() {
            bytes[n] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(Remembered::load(dir.path()).get(&a), None, "byte {n}");
            bytes[n] ^= 1;
        }
    }
}
