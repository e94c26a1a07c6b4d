//! Local build contexts: directories on the host, seen as a tree of metadata.
//!
//! [`scan`] walks a directory in parallel, leaves out what the ignore file names, and
//! gives a [`LayerIndex`] like that of a layer, so that COPY works the same on contexts
//! and on stages. What enters is what Git would keep: paths, file content, symlink
//! targets, and whether a file is executable. Owners, other permission bits, times
//! and extended attributes of the host don't, so two checkouts of one commit are
//! equal. Sockets, devices and pipes are left out.
//!
//! Content digests are remembered between builds (`memo`).

mod memo;

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat},
    io::Errno,
};

use crate::{
    digest::{Blake3Digest, Sha256Digest},
    dockerfile::ignore::{Ignore, IgnoreError, Verdict},
    fs::{self, FsError, IoContext as _},
    graph::LocalContext,
    oci::layer::{DiffId, Entry, EntryKind, IndexEntry, LayerIndex, LayerPath},
};
use memo::{FileStamp, Memo};

/// Files up to this size are hashed in one piece, larger ones in parts, each on all processors.
/// Never through a memory map: that a file is cut off meanwhile, or has a hole for which its disk
/// has no room, would be a signal that ends the process.
const PARTS_FROM: u64 = 1 << 20;

/// Bytes of a part.
const PART: u64 = 4 << 20;

/// Bytes of a directory's list that are read at a time.
const LISTED: usize = 16 << 10;

/// Names of a directory that one task looks at.
const CHUNK: usize = 16;

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

/// One file found by the walk.
struct Found {
    path: LayerPath,
    kind: EntryKind,
    mode: u32,
    stamp: FileStamp,
    digest: Option<Blake3Digest>,
    hashed: bool,
}

/// Walks `context` below each of `prefixes` and hashes every file there. `memo_dir`
/// holds the memos of earlier scans; a memo that can't be read or written is done without.
pub fn scan(
    context: &LocalContext,
    prefixes: &[LayerPath],
    memo_dir: Option<&Path>,
) -> Result<ScannedContext, ContextError> {
    let ignore = Ignore::parse(&context.ignore).map_err(|source| ContextError::Ignore {
        context: context.name.clone(),
        source,
    })?;
    let started = memo::now_ns();
    let memo_path = memo_dir.map(|dir| Memo::path(dir, &context.dir));
    let memo = memo_path.as_deref().map(Memo::load).unwrap_or_default();
    let walk = Walk {
        dir: &context.dir,
        ignore: &ignore,
        memo: &memo,
    };
    let mut found = Vec::new();
    for prefix in roots(&walk, prefixes)? {
        found.extend(walk.from(&prefix)?);
    }
    if let Some(path) = &memo_path {
        let files = found
            .iter()
            .filter_map(|f| Some((f.path.as_bytes(), f.stamp, f.digest?)));
        // A memo only saves time.
        let _ = memo.save(path, started, files);
    }
    let mut scanned = ScannedContext {
        index: LayerIndex::new(DiffId(Sha256Digest::of(b"")), 0, Vec::new(), Vec::new()),
        files: 0,
        hashed: 0,
        hashed_bytes: 0,
    };
    let mut rows = Vec::with_capacity(found.len());
    for file in found {
        if let EntryKind::Regular { .. } = file.kind {
            scanned.files += 1;
        }
        if file.hashed {
            scanned.hashed += 1;
            scanned.hashed_bytes += file.stamp.size;
        }
        rows.push(IndexEntry {
            entry: Entry {
                path: file.path,
                kind: file.kind,
                mode: file.mode,
                uid: 0,
                gid: 0,
                mtime: 0,
                xattrs: Default::default(),
            },
            content: file.digest,
            offset: 0,
            inline: None,
        });
    }
    scanned.index = LayerIndex::new(scanned.index.diff_id, 0, rows, Vec::new());
    Ok(scanned)
}

/// The places to walk from: the prefixes that exist, none below another; the whole
/// context where a prefix leads through a symlink.
fn roots(walk: &Walk<'_>, prefixes: &[LayerPath]) -> Result<Vec<LayerPath>, ContextError> {
    let mut prefixes = prefixes.to_vec();
    prefixes.sort();
    let mut roots: Vec<LayerPath> = Vec::new();
    for prefix in prefixes {
        if roots.last().is_some_and(|root| prefix.starts_with(root)) {
            continue;
        }
        let mut at = LayerPath::ROOT;
        for part in prefix.components() {
            at = at.join(part);
            if fs::is_symlink(walk.host(&at)) {
                return Ok(vec![LayerPath::ROOT]);
            }
        }
        roots.push(prefix);
    }
    Ok(roots)
}

struct Walk<'a> {
    dir: &'a Path,
    ignore: &'a Ignore,
    memo: &'a Memo,
}

/// A name in an open directory, and the path that it has in the context.
struct Place<'d> {
    dir: BorrowedFd<'d>,
    name: &'d OsStr,
    path: LayerPath,
}

impl Walk<'_> {
    /// Everything at and below `path`, and the directories above it.
    fn from(&self, path: &LayerPath) -> Result<Vec<Found>, ContextError> {
        let mut found = Vec::new();
        let mut verdict = self.ignore.root();
        let mut dir = fs::open_dir(rustix::fs::CWD, self.dir).at("open", self.dir)?;
        let mut at = LayerPath::ROOT;
        let count = path.components().count();
        for (n, name) in path.components().enumerate() {
            at = at.join(name);
            verdict = self.ignore.child(&verdict, at.as_path());
            let place = Place {
                dir: dir.as_fd(),
                name,
                path: at.clone(),
            };
            let Some(stat) = self.look(&place)? else {
                return Ok(Vec::new());
            };
            if n + 1 == count {
                self.at(place, &stat, &verdict, &mut found)?;
            } else {
                if !is_dir(&stat) {
                    return Ok(Vec::new());
                }
                let below = self.open(&place)?;
                self.file(place, &stat, &mut found)?;
                dir = below;
            }
        }
        if count == 0 {
            self.contents(dir.as_fd(), path, &verdict, &mut found)?;
        }
        // Directories on the way count only for what is in the place itself.
        if found.last().is_none_or(|last| !last.path.starts_with(path)) {
            found.clear();
        }
        Ok(found)
    }

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

    /// The metadata of a place; none if nothing is there.
    fn look(&self, place: &Place<'_>) -> Result<Option<Stat>, ContextError> {
        match rustix::fs::statat(place.dir, place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            result => self.said("look at", &place.path, result).map(Some),
        }
    }

    fn open(&self, place: &Place<'_>) -> Result<OwnedFd, ContextError> {
        self.said("open", &place.path, fs::open_dir(place.dir, place.name))
    }

    /// What stands at `place`, and all below it, in canonical order.
    fn at(
        &self,
        place: Place<'_>,
        stat: &Stat,
        verdict: &Verdict,
        found: &mut Vec<Found>,
    ) -> Result<(), ContextError> {
        if !is_dir(stat) {
            return match verdict.ignored {
                true => Ok(()),
                false => self.file(place, stat, found),
            };
        }
        // A directory that the ignore file leaves out is kept only as the parent of what a
        // `!` pattern takes in again.
        if self.ignore.may_skip(verdict, place.path.as_path()) {
            return Ok(());
        }
        let dir = self.open(&place)?;
        let path = place.path.clone();
        let start = found.len();
        self.file(place, stat, found)?;
        self.contents(dir.as_fd(), &path, verdict, found)?;
        if verdict.ignored && found.len() == start + 1 {
            found.truncate(start);
        }
        Ok(())
    }

    /// All that is in the open directory `dir`, its names in order, several at a time.
    fn contents(
        &self,
        dir: BorrowedFd<'_>,
        path: &LayerPath,
        verdict: &Verdict,
        found: &mut Vec<Found>,
    ) -> Result<(), ContextError> {
        let mut names = self.said("list", path, names(dir))?;
        names.sort_unstable();
        let parts: Vec<Vec<Found>> = names
            .par_chunks(CHUNK)
            .map(|names| {
                let mut found = Vec::with_capacity(names.len());
                for name in names {
                    let name = OsStr::from_bytes(name);
                    let place = Place {
                        dir,
                        name,
                        path: path.join(name),
                    };
                    let verdict = self.ignore.child(verdict, place.path.as_path());
                    // A file that vanishes while we look was not there.
                    if let Some(stat) = self.look(&place)? {
                        self.at(place, &stat, &verdict, &mut found)?;
                    }
                }
                Ok(found)
            })
            .collect::<Result<_, ContextError>>()?;
        found.extend(parts.into_iter().flatten());
        Ok(())
    }

    /// The digest of the file at `place`, which has about `size` bytes.
    fn hash(&self, place: &Place<'_>, size: u64) -> Result<Blake3Digest, ContextError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(place.dir, place.name, flags, Mode::empty());
        let mut file = File::from(self.said("open", &place.path, file)?);
        let hashed = match size < PARTS_FROM {
            true => read_small(&mut file, size).map(|bytes| Blake3Digest::of(&bytes)),
            false => hash_in_parts(&mut file),
        };
        Ok(hashed.at("read", self.host(&place.path))?)
    }

    /// Enters one file or directory, without what is in it.
    fn file(
        &self,
        place: Place<'_>,
        stat: &Stat,
        found: &mut Vec<Found>,
    ) -> Result<(), ContextError> {
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
            _ => return Ok(()),
        };
        let mode = match kind {
            EntryKind::Symlink { .. } => 0o777,
            EntryKind::Regular { .. } if stat.st_mode & 0o100 == 0 => 0o644,
            _ => 0o755,
        };
        let mut digest = None;
        let mut hashed = false;
        if let EntryKind::Regular { size } = kind
            && size > 0
        {
            digest = self.memo.get(place.path.as_bytes(), &stamp);
            if digest.is_none() {
                hashed = true;
                digest = Some(self.hash(&place, size)?);
            }
        }
        found.push(Found {
            path: place.path,
            kind,
            mode,
            stamp,
            digest,
            hashed,
        });
        Ok(())
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

/// All bytes of a file that has about `size`.
fn read_small(file: &mut File, size: u64) -> io::Result<Vec<u8>> {
    let expected = usize::try_from(size).unwrap_or(usize::MAX);
    // One byte more than expected: that it stays unread tells the end, without another call.
    let mut bytes = vec![0; expected + 1];
    let mut done = 0;
    while done != expected {
        match file.read(&mut bytes[done..]) {
            Ok(0) => break,
            Ok(n) if done + n > expected => {
                done += n;
                bytes.truncate(done);
                file.read_to_end(&mut bytes)?;
                return Ok(bytes);
            }
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

fn hash_in_parts(file: &mut File) -> io::Result<Blake3Digest> {
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

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn stamp(stat: &Stat) -> FileStamp {
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
        let sizes = [PARTS_FROM - 1, PARTS_FROM, PART, PART + 1, 2 * PART + 7];
        for size in sizes {
            let bytes: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(hash(&path, size).unwrap(), Blake3Digest::of(&bytes));
        }
        // What a file is by now counts, whatever it was.
        std::fs::write(&path, "short").unwrap();
        assert_eq!(hash(&path, PART).unwrap(), Blake3Digest::of(b"short"));
    }
}
