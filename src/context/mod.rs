//! Local build contexts: directories on the host, seen as a tree of metadata.
//!
//! [`scan`] walks a directory in parallel, leaves out what the ignore file names, and
//! gives a [`LayerIndex`] like that of a layer, so that COPY works the same on contexts
//! and on stages. What enters is what Git would keep: paths, file content, symlink
//! targets, and whether a file is executable. Owners, other permission bits, times
//! and extended attributes of the host don't, so two checkouts of one commit are
//! equal. Sockets, devices and pipes are left out.
//!
//! Content digests are remembered between builds ([`memo`]).

mod memo;

use std::{
    fs::Metadata,
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use crate::{
    digest::{Blake3Digest, Sha256Digest},
    dockerfile::ignore::{Ignore, IgnoreError, Verdict},
    fs::{self, FsError, IoContext as _},
    graph::LocalContext,
    oci::layer::{DiffId, Entry, EntryKind, IndexEntry, LayerIndex, LayerPath},
};
use memo::{FileStamp, Memo};

/// Files up to this size are hashed by one `read`, larger ones through a memory map.
const MMAP_FROM: u64 = 1 << 20;

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
        found.extend(walk.from(prefix)?);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.dedup_by(|a, b| a.path == b.path);
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
            match std::fs::symlink_metadata(walk.dir.join(at.as_path())) {
                Ok(meta) if meta.is_symlink() => return Ok(vec![LayerPath::ROOT]),
                _ => {}
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

impl Walk<'_> {
    /// Everything at and below `path`, and the directories above it.
    fn from(&self, path: LayerPath) -> Result<Vec<Found>, ContextError> {
        let mut found = Vec::new();
        let mut verdict = self.ignore.root();
        let mut at = LayerPath::ROOT;
        for part in path.components() {
            at = at.join(part);
            verdict = self.ignore.child(&verdict, at.as_path());
            if at == path {
                break;
            }
            let Some(meta) = self.look(&at)? else {
                return Ok(Vec::new());
            };
            found.extend(self.file(at.clone(), &meta)?);
        }
        if let Some(meta) = self.look(&path)? {
            found.extend(self.at(path, &meta, &verdict)?);
        }
        // Directories on the way count only for what is in the place itself.
        if found.last().is_none_or(|last| !last.path.starts_with(&at)) {
            found.clear();
        }
        Ok(found)
    }

    /// The metadata of a path of the context; none if nothing is there.
    fn look(&self, path: &LayerPath) -> Result<Option<Metadata>, ContextError> {
        let host = self.host(path);
        match std::fs::symlink_metadata(&host) {
            Ok(meta) => Ok(Some(meta)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) => Ok(Err(error).at("look at", &host)?),
        }
    }

    /// What stands at `path`, and all below it.
    fn at(
        &self,
        path: LayerPath,
        meta: &Metadata,
        verdict: &Verdict,
    ) -> Result<Vec<Found>, ContextError> {
        if meta.is_dir() {
            return self.directory(&path, meta, verdict);
        }
        if verdict.ignored {
            return Ok(Vec::new());
        }
        Ok(self.file(path, meta)?.into_iter().collect())
    }

    fn host(&self, path: &LayerPath) -> PathBuf {
        self.dir.join(path.as_path())
    }

    /// A directory and all below it. A directory that the ignore file leaves out is
    /// kept only as the parent of what a `!` pattern takes in again.
    fn directory(
        &self,
        path: &LayerPath,
        meta: &Metadata,
        verdict: &Verdict,
    ) -> Result<Vec<Found>, ContextError> {
        if self.ignore.may_skip(verdict, path.as_path()) {
            return Ok(Vec::new());
        }
        let host = self.host(path);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&host).at("list", &host)? {
            names.push(entry.at("list", &host)?.file_name());
        }
        let below: Vec<Vec<Found>> = names
            .into_par_iter()
            .with_min_len(32)
            .map(|name| {
                let path = path.join(&name);
                let host = self.host(&path);
                let meta = std::fs::symlink_metadata(&host).at("look at", &host)?;
                let verdict = self.ignore.child(verdict, path.as_path());
                self.at(path, &meta, &verdict)
            })
            .collect::<Result<_, ContextError>>()?;
        let mut found: Vec<Found> = below.into_iter().flatten().collect();
        if !path.is_root() && !(verdict.ignored && found.is_empty()) {
            found.extend(self.file(path.clone(), meta)?);
        }
        Ok(found)
    }

    fn file(&self, path: LayerPath, meta: &Metadata) -> Result<Option<Found>, ContextError> {
        let host = self.host(&path);
        let kind = if meta.is_dir() {
            EntryKind::Directory
        } else if meta.is_symlink() {
            EntryKind::Symlink {
                target: std::fs::read_link(&host).at("read link", &host)?,
            }
        } else if meta.is_file() {
            EntryKind::Regular { size: meta.len() }
        } else {
            return Ok(None);
        };
        let mode = match kind {
            EntryKind::Symlink { .. } => 0o777,
            EntryKind::Regular { .. } if meta.permissions().mode() & 0o100 == 0 => 0o644,
            _ => 0o755,
        };
        let mut found = Found {
            stamp: stamp(meta),
            path,
            kind,
            mode,
            digest: None,
            hashed: false,
        };
        if let EntryKind::Regular { size } = found.kind
            && size > 0
        {
            let known = self.memo.get(found.path.as_bytes(), &found.stamp);
            found.hashed = known.is_none();
            found.digest = Some(match known {
                Some(digest) => digest,
                None => hash(&host, size)?,
            });
        }
        Ok(Some(found))
    }
}

fn stamp(meta: &Metadata) -> FileStamp {
    let ns = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
    FileStamp {
        size: meta.len(),
        mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
        ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
        inode: meta.ino(),
    }
}

fn hash(path: &Path, size: u64) -> Result<Blake3Digest, FsError> {
    if size < MMAP_FROM {
        return Ok(Blake3Digest::of(&fs::read(path)?));
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap_rayon(path).at("read", path)?;
    Ok(Blake3Digest::from_bytes(*hasher.finalize().as_bytes()))
}

#[cfg(test)]
mod tests {
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
}
