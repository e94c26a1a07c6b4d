//! The memo of file digests: what a file's content hashed to when its metadata were
//! such and such.
//!
//! One file per context directory, in the cache's `memo/`. Format, version 1, all
//! integers little-endian: the magic `MBMEMO1\n`; `u64` number of rows; each row
//! `u32` length of the path, the path, `u64` size, `i64` mtime and `i64` ctime in
//! nanoseconds, `u64` inode, 32 bytes BLAKE3 of the content, in the order of the paths' bytes; last, 32 bytes BLAKE3 of
//! everything before. A memo that does not parse is no memo.
//!
//! A row is trusted only if size, mtime, ctime and inode are all equal, and if the
//! file had been left alone for a while when it was hashed: a file changed twice
//! within the clock's granularity would otherwise keep the first digest.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    digest::Blake3Digest,
    fs::{self, AtomicFile, FsError, IoContext as _},
};

const MAGIC: &[u8; 8] = b"MBMEMO1\n";

/// A file changed less than this long before it was hashed is hashed again next time.
const SETTLE_NS: i64 = 2_000_000_000;

/// What identifies an unchanged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStamp {
    /// Bytes.
    pub(crate) size: u64,
    /// Last change of the content, nanoseconds since 1970.
    pub(crate) mtime_ns: i64,
    /// Last change of the inode, nanoseconds since 1970.
    pub(crate) ctime_ns: i64,
    /// Inode number.
    pub(crate) inode: u64,
}

impl FileStamp {
    /// Whether a digest taken after `now_ns` may be remembered for this stamp.
    fn settled(&self, now_ns: i64) -> bool {
        self.mtime_ns.max(self.ctime_ns) < now_ns - SETTLE_NS
    }
}

/// Bytes of a row but for its path: length, stamp, digest.
const ROW: usize = 4 + 4 * 8 + 32;

/// The memo of one directory: the file as it was read, and where its rows are.
#[derive(Debug, Default)]
pub(super) struct Memo {
    bytes: Vec<u8>,
    /// Start of each row, in the order of the paths' bytes.
    rows: Vec<usize>,
}

/// A row, borrowed from the memo.
struct Row<'m> {
    path: &'m [u8],
    stamp: FileStamp,
    digest: Blake3Digest,
}

impl Memo {
    /// Where the memo of `dir` lies below `memo_dir`.
    pub(super) fn path(memo_dir: &Path, dir: &Path) -> PathBuf {
        use std::os::unix::ffi::OsStrExt as _;
        memo_dir.join(Blake3Digest::of(dir.as_os_str().as_bytes()).hex())
    }

    /// Reads the memo at `path`; a missing or damaged one is empty.
    pub(super) fn load(path: &Path) -> Self {
        fs::read(path)
            .ok()
            .and_then(Self::decode)
            .unwrap_or_default()
    }

    /// The digest remembered for the file at `path`, if it has not changed.
    pub(super) fn get(&self, path: &[u8], stamp: &FileStamp) -> Option<Blake3Digest> {
        let n = self
            .rows
            .binary_search_by(|start| self.path_at(*start).cmp(path))
            .ok()?;
        let row = self.row(self.rows[n])?;
        (row.stamp == *stamp).then_some(row.digest)
    }

    /// Writes a memo of these files, hashed after `started_ns`, and of what this one
    /// knows of others.
    pub(super) fn save<'a>(
        &self,
        path: &Path,
        started_ns: i64,
        files: impl Iterator<Item = (&'a [u8], FileStamp, Blake3Digest)>,
    ) -> Result<(), FsError> {
        let mut fresh: BTreeMap<&[u8], Option<(FileStamp, Blake3Digest)>> = BTreeMap::new();
        for (name, stamp, digest) in files {
            if self.get(name, &stamp) != Some(digest) {
                let settled = stamp.settled(started_ns);
                fresh.insert(name, settled.then_some((stamp, digest)));
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let known = self.rows.iter().filter_map(|start| self.row(*start));
        let mut rows: BTreeMap<&[u8], (FileStamp, Blake3Digest)> = known
            .map(|row| (row.path, (row.stamp, row.digest)))
            .collect();
        for (name, value) in fresh {
            match value {
                Some(value) => rows.insert(name, value),
                None => rows.remove(name),
            };
        }
        let mut file = AtomicFile::create(path)?;
        file.write_all(&encode(&rows)).at("write", path)?;
        // It has a check sum.
        file.commit_unsynced()
    }

    fn path_at(&self, start: usize) -> &[u8] {
        self.row(start).map_or(&[], |row| row.path)
    }

    fn row(&self, start: usize) -> Option<Row<'_>> {
        let mut rest = self.bytes.get(start..)?;
        let len = u32::from_le_bytes(*take(&mut rest)?) as usize;
        let (path, tail) = rest.split_at_checked(len)?;
        rest = tail;
        Some(Row {
            path,
            stamp: FileStamp {
                size: u64::from_le_bytes(*take(&mut rest)?),
                mtime_ns: i64::from_le_bytes(*take(&mut rest)?),
                ctime_ns: i64::from_le_bytes(*take(&mut rest)?),
                inode: u64::from_le_bytes(*take(&mut rest)?),
            },
            digest: Blake3Digest::from_bytes(*take(&mut rest)?),
        })
    }

    fn decode(bytes: Vec<u8>) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<32>()?;
        if Blake3Digest::of(body).as_bytes() != sum {
            return None;
        }
        let end = body.len();
        let mut rest = body.strip_prefix(MAGIC)?;
        let count = u64::from_le_bytes(*take(&mut rest)?);
        let mut start = end - rest.len();
        let mut memo = Self {
            rows: Vec::new(),
            bytes,
        };
        for _ in 0..count {
            let path = memo.row(start)?.path;
            let ordered = match memo.rows.last() {
                Some(last) => memo.path_at(*last) < path,
                None => true,
            };
            let next = start + ROW + path.len();
            if !ordered || next > end {
                return None;
            }
            memo.rows.push(start);
            start = next;
        }
        (start == end).then_some(memo)
    }
}

fn encode(rows: &BTreeMap<&[u8], (FileStamp, Blake3Digest)>) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + rows.len() * (ROW + 64));
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(rows.len() as u64).to_le_bytes());
    for (path, (stamp, digest)) in rows {
        let len = u32::try_from(path.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(path);
        out.extend_from_slice(&stamp.size.to_le_bytes());
        out.extend_from_slice(&stamp.mtime_ns.to_le_bytes());
        out.extend_from_slice(&stamp.ctime_ns.to_le_bytes());
        out.extend_from_slice(&stamp.inode.to_le_bytes());
        out.extend_from_slice(digest.as_bytes());
    }
    let sum = Blake3Digest::of(&out);
    out.extend_from_slice(sum.as_bytes());
    out
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(head)
}

/// Nanoseconds since 1970.
pub(super) fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|d| i64::try_from(d.as_nanos()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(mtime_ns: i64) -> FileStamp {
        FileStamp {
            size: 3,
            mtime_ns,
            ctime_ns: mtime_ns,
            inode: 7,
        }
    }

    #[test]
    fn a_settled_file_is_remembered_until_its_stamp_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memo");
        let digest = Blake3Digest::of(b"abc");
        let files = [(&b"a"[..], stamp(1), digest)];
        Memo::default()
            .save(&path, now_ns(), files.into_iter())
            .unwrap();
        let memo = Memo::load(&path);
        assert_eq!(memo.get(b"a", &stamp(1)), Some(digest));
        assert_eq!(memo.get(b"a", &stamp(2)), None);
        assert_eq!(memo.get(b"b", &stamp(1)), None);
    }

    #[test]
    fn a_file_that_has_just_changed_is_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memo");
        let fresh = stamp(now_ns());
        let files = [(&b"a"[..], fresh, Blake3Digest::of(b"abc"))];
        Memo::default()
            .save(&path, now_ns(), files.into_iter())
            .unwrap();
        assert_eq!(Memo::load(&path).get(b"a", &fresh), None);
    }

    #[test]
    fn a_damaged_memo_is_empty() {
        let digest = Blake3Digest::of(b"abc");
        let rows = [(&b"a"[..], (stamp(1), digest)), (b"b", (stamp(2), digest))];
        let bytes = encode(&rows.into());
        let memo = Memo::decode(bytes.clone()).unwrap();
        assert_eq!(memo.get(b"b", &stamp(2)), Some(digest));
        for n in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[n] ^= 1;
            assert!(Memo::decode(bad).is_none(), "byte {n}");
            assert!(Memo::decode(bytes[..n].to_vec()).is_none(), "length {n}");
        }
    }
}
