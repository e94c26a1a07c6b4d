//! Local build contexts: directories on the host, seen as a tree of metadata.
//!
//! [`scan`] walks a directory in parallel, leaves out what the ignore file names, and
//! gives a [`LayerIndex`] like that of a layer, so that COPY works the same on contexts
//! and on stages. What enters is what Git would keep: paths, file content, symlink
//! targets, and whether a file is executable. Owners, other permission bits, times
//! and extended attributes of the host don't, so two checkouts of one commit are
//! equal. Sockets, devices and pipes are left out.
//!
//! The walk (`walk`) is that of other hierarchies too, such as the trees of commits
//! ([`git`](crate::git)). Content digests are remembered between builds (`memo`).

mod memo;
mod walk;

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat},
    io::Errno,
};

use crate::{
    digest::{Blake3Digest, Sha256Digest},
    dockerfile::ignore::{Ignore, IgnoreError},
    fs::{self, FsError, IoContext as _},
    graph::LocalContext,
    oci::layer::{DiffId, Entry, EntryKind, IndexEntry, LayerIndex, LayerPath},
};
pub(crate) use memo::FileStamp;
use memo::Memo;
pub(crate) use walk::{Hierarchy, Place, Row, Sort, walk};

/// Files up to this size are hashed in one piece, larger ones in parts, each on all processors.
/// Never through a memory map: that a file is cut off meanwhile, or has a hole for which its disk
/// has no room, would be a signal that ends the process.
const PARTS_FROM: u64 = 1 << 20;

/// Bytes of a part.
const PART: u64 = 4 << 20;

/// Bytes of a directory's list that are read at a time.
const LISTED: usize = 16 << 10;

/// Why a context can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The ignore file has a pattern that does not parse.
    #[error("the ignore file of context `{context}` is invalid")]
    Ignore {
        /// The context's name.
        context: String,
        /// The pattern's error.
        #[source]
        source: IgnoreError,
    },
    /// A file or directory can't be read.
    #[error(transparent)]
    Fs(#[from] FsError),
}

/// What a scan found, with figures for progress and benchmarks.
#[derive(Debug)]
pub struct ScannedContext {
    /// The tree, as the index of a layer that has no tar.
    pub index: LayerIndex,
    /// Number of regular files.
    pub files: usize,
    /// Files whose content was read now.
    pub hashed: usize,
    /// Bytes read for that.
    pub hashed_bytes: u64,
}

/// What [`ScannedContext`] needs of a file besides its row.
struct Detail {
    stamp: FileStamp,
    digest: Option<Blake3Digest>,
    hashed: bool,
}

/// A source of digests beside the memo of paths: what a file of this path and metadata holds,
/// if that is known without reading it.
pub(crate) type Known<'a> = &'a (dyn Fn(&LayerPath, &FileStamp) -> Option<Blake3Digest> + Sync);

/// Walks `context` below each of `prefixes` and hashes every file there. `memo_dir`
/// holds the memos of earlier scans; a memo that can't be read or written is done without.
pub fn scan(
    context: &LocalContext,
    prefixes: &[LayerPath],
    memo_dir: Option<&Path>,
) -> Result<ScannedContext, ContextError> {
    scan_knowing(context, prefixes, memo_dir, &|_, _| None)
}

/// As [`scan`], asking `known` before a file is read.
pub(crate) fn scan_knowing(
    context: &LocalContext,
    prefixes: &[LayerPath],
    memo_dir: Option<&Path>,
    known: Known<'_>,
) -> Result<ScannedContext, ContextError> {
    let ignore = parse_ignore(context)?;
    let started = memo::now_ns();
    let memo_path = memo_dir.map(|dir| Memo::path(dir, &context.dir));
    let memo = memo_path.as_deref().map(Memo::load).unwrap_or_default();
    let disk = Disk {
        dir: &context.dir,
        memo: &memo,
        known,
    };
    let found = walk(&disk, &ignore, prefixes)?;
    if let Some(path) = &memo_path {
        let files = found
            .iter()
            .map(|f| (f.path.as_bytes(), &f.row.detail))
            .filter_map(|(path, detail)| Some((path, detail.stamp, detail.digest?)));
        // A memo only saves time.
        let _ = memo.save(path, started, files);
    }
    let (mut hashed, mut hashed_bytes) = (0, 0);
    let rows = found.into_iter().map(|file| {
        if file.row.detail.hashed {
            hashed += 1;
            hashed_bytes += file.row.detail.stamp.size;
        }
        let digest = file.row.detail.digest;
        index_entry(file.path, file.row.kind, file.row.mode, digest)
    });
    let rows = rows.collect();
    Ok(ScannedContext::new(rows, hashed, hashed_bytes))
}

/// The patterns of a context's ignore file.
pub(crate) fn parse_ignore(context: &LocalContext) -> Result<Ignore, ContextError> {
    Ignore::parse(&context.ignore).map_err(|source| ContextError::Ignore {
        context: context.name.clone(),
        source,
    })
}

/// The row of a context for a file.
pub(crate) fn index_entry(
    path: LayerPath,
    kind: EntryKind,
    mode: u32,
    content: Option<Blake3Digest>,
) -> IndexEntry {
    IndexEntry {
        entry: Entry {
            path,
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: Default::default(),
        },
        content,
        offset: 0,
        inline: None,
    }
}

impl ScannedContext {
    /// What a scan that gave `rows` found.
    pub(crate) fn new(rows: Vec<IndexEntry>, hashed: usize, hashed_bytes: u64) -> Self {
        let is_file = |row: &&IndexEntry| matches!(row.entry.kind, EntryKind::Regular { .. });
        Self {
            files: rows.iter().filter(is_file).count(),
            index: LayerIndex::new(DiffId(Sha256Digest::of(b"")), 0, rows, Vec::new()),
            hashed,
            hashed_bytes,
        }
    }
}

/// A directory on disk.
struct Disk<'a> {
    dir: &'a Path,
    memo: &'a Memo,
    known: Known<'a>,
}

impl Disk<'_> {
    fn host(&self, path: &LayerPath) -> PathBuf {
        self.dir.join(path.as_path())
    }

    /// Adds the host's path to an error.
    fn said<T>(
        &self,
        act: &'static str,
        path: &LayerPath,
        result: rustix::io::Result<T>,
    ) -> Result<T, ContextError> {
        match result {
            Ok(value) => Ok(value),
            Err(errno) => Ok(Err(errno).at(act, self.host(path))?),
        }
    }
}

impl Hierarchy for Disk<'_> {
    type Dir = OwnedFd;
    type Node = Stat;
    type Detail = Detail;
    type Error = ContextError;

    fn root(&self) -> Result<OwnedFd, ContextError> {
        Ok(fs::open_dir(rustix::fs::CWD, self.dir).at("open", self.dir)?)
    }

    fn names(&self, dir: &OwnedFd, path: &LayerPath) -> Result<Vec<Vec<u8>>, ContextError> {
        self.said("list", path, names(dir.as_fd()))
    }

    fn look(&self, place: &Place<'_, OwnedFd>) -> Result<Option<Stat>, ContextError> {
        match rustix::fs::statat(place.dir, place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            result => self.said("look at", &place.path, result).map(Some),
        }
    }

    fn sort(&self, stat: &Stat) -> Sort {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Sort::Directory,
            FileType::Symlink => Sort::Symlink,
            _ => Sort::File,
        }
    }

    fn open(&self, place: &Place<'_, OwnedFd>, _: &Stat) -> Result<OwnedFd, ContextError> {
        self.said("open", &place.path, fs::open_dir(place.dir, place.name))
    }

    fn row(
        &self,
        place: &Place<'_, OwnedFd>,
        stat: &Stat,
    ) -> Result<Option<Row<Detail>>, ContextError> {
        let stamp = stamp(stat);
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => EntryKind::Directory,
            FileType::RegularFile => EntryKind::Regular { size: stamp.size },
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(place.dir, place.name, Vec::new());
                let target = self.said("read link", &place.path, target)?;
                EntryKind::Symlink {
                    target: OsString::from_vec(target.into_bytes()).into(),
                }
            }
            _ => return Ok(None),
        };
        let executable = stat.st_mode & 0o100 != 0;
        let mut detail = Detail {
            stamp,
            digest: None,
            hashed: false,
        };
        if let EntryKind::Regular { size } = kind
            && size > 0
        {
            detail.digest = self
                .memo
                .get(place.path.as_bytes(), &stamp)
                .or_else(|| (self.known)(&place.path, &stamp));
            if detail.digest.is_none() {
                detail.hashed = true;
                detail.digest = Some(self.hash(place, size)?);
            }
        }
        Ok(Some(Row {
            mode: mode_of(&kind, executable),
            kind,
            detail,
        }))
    }
}

impl Disk<'_> {
    /// The digest of the file at `place`, which has about `size` bytes.
    fn hash(&self, place: &Place<'_, OwnedFd>, size: u64) -> Result<Blake3Digest, ContextError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(place.dir, place.name, flags, Mode::empty());
        let mut file = File::from(self.said("open", &place.path, file)?);
        Ok(hash(&mut file, size).at("read", self.host(&place.path))?)
    }
}

/// The permission bits that a context gives a file.
pub(crate) fn mode_of(kind: &EntryKind, executable: bool) -> u32 {
    match kind {
        EntryKind::Symlink { .. } => 0o777,
        EntryKind::Regular { .. } if !executable => 0o644,
        _ => 0o755,
    }
}

/// The names in an open directory that nobody has listed yet.
fn names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    let mut room = [MaybeUninit::uninit(); LISTED];
    let mut entries = RawDir::new(dir, &mut room);
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// The digest of a file that has about `size` bytes.
fn hash(file: &mut File, size: u64) -> io::Result<Blake3Digest> {
    if size < PARTS_FROM {
        return Ok(Blake3Digest::of(&read_small(file, size)?));
    }
    let mut hasher = blake3::Hasher::new();
    let mut part = Vec::new();
    loop {
        part.clear();
        let mut limited = Read::take(&mut *file, PART);
        if limited.read_to_end(&mut part)? == 0 {
            break;
        }
        hasher.update_rayon(&part);
    }
    Ok(Blake3Digest::from_bytes(*hasher.finalize().as_bytes()))
}

/// All bytes of a file that has about `size`.
fn read_small(file: &mut File, size: u64) -> io::Result<Vec<u8>> {
    let expected = usize::try_from(size).unwrap_or(usize::MAX);
    // One byte more than expected: that it stays unread tells the end, without another call.
    let mut bytes = vec![0; expected + 1];
    let mut done = 0;
    loop {
        match file.read(&mut bytes[done..]) {
            Ok(0) => break,
            Ok(n) if done + n > expected => {
                done += n;
                bytes.truncate(done);
                file.read_to_end(&mut bytes)?;
                return Ok(bytes);
            }
            Ok(n) => {
                done += n;
                if done == expected {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// What identifies the file with this metadata, as long as it isn't changed.
pub(crate) fn stamp(stat: &Stat) -> FileStamp {
    let ns = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
    FileStamp {
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime_ns: ns(
            stat.st_mtime,
            i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
        ),
        ctime_ns: ns(
            stat.st_ctime,
            i64::try_from(stat.st_ctime_nsec).unwrap_or(0),
        ),
        inode: stat.st_ino,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn context(dir: &Path, ignore: &str) -> LocalContext {
        LocalContext {
            name: "context".to_owned(),
            dir: dir.to_owned(),
            ignore: ignore.to_owned(),
        }
    }

    fn paths(dir: &Path, ignore: &str, prefixes: &[&str]) -> Vec<String> {
        let prefixes: Vec<_> = prefixes
            .iter()
            .map(|p| LayerPath::new(p).unwrap())
            .collect();
        scan(&context(dir, ignore), &prefixes, None)
            .unwrap()
            .index
            .entries
            .iter()
            .map(|row| row.entry.path.to_string())
            .collect()
    }

    #[test]
    fn a_scan_gives_what_the_ignore_file_leaves() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/x", "a/y", "b/keep/z", "b/drop", "c"] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "text").unwrap();
        }
        assert_eq!(
            paths(dir.path(), "a/x\nb\n!b/keep\n", &[""]),
            ["/a", "/a/y", "/b", "/b/keep", "/b/keep/z", "/c"]
        );
        assert_eq!(
            paths(dir.path(), "", &["a", "c"]),
            ["/a", "/a/x", "/a/y", "/c"]
        );
        assert_eq!(
            paths(dir.path(), "", &["b/keep"]),
            ["/b", "/b/keep", "/b/keep/z"]
        );
        assert_eq!(paths(dir.path(), "", &["nothing/here"]), [""; 0]);
    }

    #[test]
    fn only_the_executable_bit_of_a_mode_counts() {
        let dir = tempfile::tempdir().unwrap();
        for (name, mode, expected) in [
            ("a", 0o600, 0o644),
            ("b", 0o664, 0o644),
            ("c", 0o700, 0o755),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, "text").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let prefix = LayerPath::new(name).unwrap();
            let scanned = scan(&context(dir.path(), ""), &[prefix], None).unwrap();
            assert_eq!(scanned.index.entries[0].entry.mode, expected);
        }
    }

    #[test]
    fn the_memo_saves_reading_and_notices_changes() {
        let dir = tempfile::tempdir().unwrap();
        let memos = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "one").unwrap();
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        std::fs::File::open(&file)
            .unwrap()
            .set_modified(old)
            .unwrap();
        let scan = || {
            scan(
                &context(dir.path(), ""),
                &[LayerPath::ROOT],
                Some(memos.path()),
            )
            .unwrap()
        };
        let first = scan();
        assert_eq!(first.hashed, 1);
        // The inode changed just now, so the digest is not trusted yet.
        assert_eq!(scan().hashed, 1);
        std::fs::write(&file, "two").unwrap();
        std::fs::File::open(&file)
            .unwrap()
            .set_modified(old)
            .unwrap();
        let second = scan();
        assert_ne!(
            first.index.entries[0].content,
            second.index.entries[0].content
        );
    }

    #[test]
    fn large_files_are_hashed_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        let hash = |size| super::hash(&mut File::open(&path).unwrap(), size).unwrap();
        let sizes = [PARTS_FROM - 1, PARTS_FROM, PART, PART + 1, 2 * PART + 7];
        for size in sizes {
            let bytes: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(hash(size), Blake3Digest::of(&bytes));
        }
        // What a file is by now counts, whatever it was.
        std::fs::write(&path, "short").unwrap();
        for size in [0, 1, 4, 5, 6, 1000, PART] {
            assert_eq!(hash(size), Blake3Digest::of(b"short"), "{size}");
        }
    }
}
