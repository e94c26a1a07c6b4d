//! The memo of blobs: what the file that a checkout makes of a blob hashes to.
//!
//! One file for all repositories, `git-blobs` in the cache's `memo/`; a blob's name says what
//! it holds wherever it is. Format, version 1, integers little-endian: the magic `MBGITB1\n`;
//! then rows of 72 bytes in any order: 20 bytes name of the blob, `u8` conversion
//! ([`Conversion`]), 3 zero bytes, `u64` size and 32 bytes BLAKE3 of the converted content,
//! 8 bytes: the first of the BLAKE3 of the 64 before. A row whose check is wrong is no row.
//!
//! Writers append under a lock; one that finds the file's end amid a row, as a writer that
//! was killed leaves it, cuts it off first. A file beyond [`MAX_BYTES`] is begun anew.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    io::Write as _,
    path::{Path, PathBuf},
};

use super::{ObjectId, conversion::Conversion};
use crate::{
    digest::Blake3Digest,
    fs::{self, FileLock, FsError, IoContext as _},
};

const MAGIC: &[u8; 8] = b"MBGITB1\n";

/// Bytes of a row, and of what its check covers.
const ROW: usize = 72;
const CHECKED: usize = 64;

/// The file is begun anew when it is larger: 900,000 rows.
const MAX_BYTES: usize = 64 << 20;

/// Size in bytes and digest of a file.
pub(super) type Content = (u64, Blake3Digest);

/// The memo as it was read.
#[derive(Debug, Default)]
pub(super) struct Memo {
    path: Option<PathBuf>,
    bytes: Vec<u8>,
    /// Where the row of a blob and conversion starts.
    rows: ByName<usize>,
}

/// A map from blobs and conversions.
pub(super) type ByName<T> = HashMap<(ObjectId, Conversion), T, BuildHasherDefault<NameHasher>>;

/// Names of objects are hashes already.
#[derive(Debug, Default)]
pub(super) struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut first = [0; 8];
        let n = bytes.len().min(8);
        first[..n].copy_from_slice(&bytes[..n]);
        self.0 = self.0.rotate_left(5) ^ u64::from_le_bytes(first);
    }
}

impl Memo {
    /// Reads the memo below `dir`; a missing or foreign one is empty.
    pub(super) fn load(dir: Option<&Path>) -> Self {
        let Some(dir) = dir else {
            return Self::default();
        };
        let path = dir.join("git-blobs");
        let mut bytes = fs::read(&path).unwrap_or_default();
        if !bytes.starts_with(MAGIC) || bytes.len() > MAX_BYTES {
            bytes.clear();
        }
        let mut memo = Self {
            path: Some(path),
            bytes,
            rows: ByName::default(),
        };
        let mut start = MAGIC.len();
        memo.rows.reserve(memo.bytes.len() / ROW);
        while let Some(row) = memo.bytes.get(start..start + ROW) {
            if let Ok(id) = gix::ObjectId::try_from(&row[..20]) {
                let conversion = Conversion::from_byte(row[20]);
                memo.rows.insert((ObjectId(id), conversion), start);
            }
            start += ROW;
        }
        memo
    }

    /// What is remembered.
    pub(super) fn get(&self, id: ObjectId, conversion: Conversion) -> Option<Content> {
        let start = *self.rows.get(&(id, conversion))?;
        let row: &[u8; ROW] = self.bytes.get(start..start + ROW)?.try_into().ok()?;
        if check(&row[..CHECKED]) != row[CHECKED..] {
            return None;
        }
        let size = u64::from_le_bytes(row[24..32].try_into().ok()?);
        let digest = Blake3Digest::from_bytes(row[32..64].try_into().ok()?);
        Some((size, digest))
    }

    /// Adds what was learnt to the file.
    pub(super) fn append(&self, learnt: &[(ObjectId, Conversion, Content)]) -> Result<(), FsError> {
        let Some(path) = self.path.as_ref().filter(|_| !learnt.is_empty()) else {
            return Ok(());
        };
        let mut rows = Vec::with_capacity(learnt.len() * ROW);
        for (id, conversion, (size, digest)) in learnt {
            let start = rows.len();
            rows.extend_from_slice(id.as_bytes());
            rows.extend_from_slice(&[conversion.byte(), 0, 0, 0]);
            rows.extend_from_slice(&size.to_le_bytes());
            rows.extend_from_slice(digest.as_bytes());
            let sum = check(&rows[start..]);
            rows.extend_from_slice(&sum);
        }
        let _lock = FileLock::exclusive(path.with_extension("lock"))?;
        let mut file = fs::append(path)?;
        let size = fs::size(path)?;
        let head = MAGIC.len() as u64;
        let foreign = self.bytes.is_empty() && !starts_with_magic(path);
        let whole = match size.checked_sub(head) {
            Some(rows) if size <= MAX_BYTES as u64 && !foreign => size - rows % ROW as u64,
            _ => 0,
        };
        if whole < size {
            file.set_len(whole).at("cut", path)?;
        }
        if whole == 0 {
            rows.splice(..0, *MAGIC);
        }
        file.write_all(&rows).at("write", path)
    }
}

fn starts_with_magic(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.starts_with(MAGIC))
}

fn check(bytes: &[u8]) -> [u8; ROW - CHECKED] {
    let mut sum = [0; ROW - CHECKED];
    sum.copy_from_slice(&Blake3Digest::of(bytes).as_bytes()[..ROW - CHECKED]);
    sum
}
