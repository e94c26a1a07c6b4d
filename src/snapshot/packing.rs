//! Whole directories as layers, and back: the trees of cache mounts.
//!
//! Unlike a difference, a pack leaves the directory as it is and keeps each path's own time in whole
//! seconds, since programs look at the times of what they cached. Owners, modes, hard links and the
//! attributes that layers have are kept too. Sockets and devices are left out, for only root could make
//! the latter again; but the marks of overlayfs for what is hidden become those of layers, so the upper
//! directory of an overlay comes back as one.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    fs::File,
    io::Read,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags, Stat},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{
    DiffSummary, Sink, SnapshotError, Snapshots,
    overlay::{self, Attributes, Flavour},
    sparse::SparseReader,
    unpack::MAX_DEPTH,
};
use crate::{
    digest::{Blake3Digest, HashingReader},
    fs::{self, FsError, IoContext},
    oci::layer::{DiffId, Entry, EntryKind, LayerPath},
};

impl Snapshots {
    /// What packing the directory would give, and what state it is in, without reading a file.
    pub fn measure(&self, dir: &Path) -> Result<TreeMeasure, SnapshotError> {
        self.access.measure(dir)
    }

    /// Removes a directory with all that is in it, whoever it belongs to.
    pub fn remove_tree(&self, dir: &Path) -> Result<(), SnapshotError> {
        self.access.remove(dir)
    }

    /// Sends all that is in a directory to `sink`, and the directory itself as the root, in
    /// canonical order. Nothing must change there meanwhile.
    pub fn pack(&self, dir: &Path, sink: &mut Sink<'_>) -> Result<DiffSummary, SnapshotError> {
        self.access.pack(dir, sink)
    }

    /// Makes the directory `dest` of the uncompressed `tar`, if its SHA-256 is the diff id. It has its
    /// name only when it is complete. The caller makes sure that nobody else is at it.
    pub fn unpack_to(
        &self,
        dest: &Path,
        diff_id: &DiffId,
        tar: &mut dyn Read,
    ) -> Result<(), SnapshotError> {
        // Beside it: renaming in one directory needs no right to change the directory that is renamed,
        // which may belong to somebody else.
        let temporary = dest.with_extension("incomplete");
        self.access.remove(&temporary)?;
        let made = self.unpack_beside(&temporary, dest, diff_id, tar);
        if made.is_err() {
            // What can't be removed now is removed before the next attempt.
            let _ = self.access.remove(&temporary);
        }
        made
    }

    fn unpack_beside(
        &self,
        temporary: &Path,
        dest: &Path,
        diff_id: &DiffId,
        tar: &mut dyn Read,
    ) -> Result<(), SnapshotError> {
        rustix::fs::mkdir(temporary, Mode::RWXU).at("create directory", temporary)?;
        let mut tar = HashingReader::new(tar);
        self.access.unpack(temporary, &mut tar)?;
        let actual = DiffId(tar.hashes().sha256);
        if actual != *diff_id {
            return Err(SnapshotError::DiffId {
                expected: *diff_id,
                actual,
            });
        }
        Ok(fs::rename(temporary, dest)?)
    }
}

/// A directory's size and state, by its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeMeasure {
    /// Entries of the layer that packing it would give.
    pub entries: u64,
    /// Bytes of file contents in it.
    pub bytes: u64,
    /// A digest of the path, inode, mode, owner, size and times of everything in it: equal at two times
    /// only if nothing was changed in between, or within one tick of the clock.
    pub state: Blake3Digest,
    /// When something in it changed last, in nanoseconds since 1970.
    pub changed_ns: i64,
}

/// Measures `dir`.
pub(super) fn measure(dir: &Path, flavour: Flavour) -> Result<TreeMeasure, SnapshotError> {
    let mut state = State::default();
    let summary = pass(dir, flavour, &mut |_, _| Ok(()), Some(&mut state))?;
    Ok(TreeMeasure {
        entries: summary.entries,
        bytes: summary.bytes,
        state: Blake3Digest::from_bytes(*state.hasher.finalize().as_bytes()),
        changed_ns: state.changed_ns,
    })
}

/// Sends what is in `dir` to `sink`.
pub(super) fn pack(
    dir: &Path,
    flavour: Flavour,
    sink: &mut Sink<'_>,
) -> Result<DiffSummary, SnapshotError> {
    pass(dir, flavour, sink, None)
}

fn pass(
    dir: &Path,
    flavour: Flavour,
    sink: &mut Sink<'_>,
    state: Option<&mut State>,
) -> Result<DiffSummary, SnapshotError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(dir, flags, Mode::empty()).at("open", dir)?;
    let mut pass = Pass {
        dir,
        flavour,
        sink,
        names: HashMap::new(),
        summary: DiffSummary::default(),
        state,
    };
    let path = LayerPath::ROOT;
    let name = OsStr::new(".");
    let stat = overlay::stat(root.as_fd(), name).map_err(|e| pass.error("examine", &path, e))?;
    pass.note(&path, &stat);
    let attributes = pass.attributes(root.as_fd(), name, &path)?;
    let entry = entry(&path, EntryKind::Directory, &stat, &attributes);
    pass.send(&entry, None)?;
    pass.contents(root.as_fd(), &path)?;
    Ok(pass.summary)
}

/// The state of one pass.
struct Pass<'a, 's> {
    dir: &'a Path,
    flavour: Flavour,
    sink: &'a mut Sink<'s>,
    /// The first name of each file with several names, by device and inode.
    names: HashMap<(u64, u64), Entry>,
    summary: DiffSummary,
    /// None if only the entries are wanted.
    state: Option<&'a mut State>,
}

/// What a pass has seen of the metadata.
#[derive(Default)]
struct State {
    hasher: blake3::Hasher,
    changed_ns: i64,
}

impl Pass<'_, '_> {
    fn note(&mut self, path: &LayerPath, stat: &Stat) {
        let Some(state) = &mut self.state else { return };
        let path = path.as_bytes();
        state.hasher.update(&(path.len() as u64).to_le_bytes());
        state.hasher.update(path);
        for number in [
            stat.st_dev,
            stat.st_ino,
            u64::from(stat.st_mode),
            u64::from(stat.st_uid),
            u64::from(stat.st_gid),
            stat.st_rdev,
        ] {
            state.hasher.update(&number.to_le_bytes());
        }
        let time = |seconds: i64, nanos: u64| {
            let nanos = i64::try_from(nanos).unwrap_or(0);
            seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
        };
        // The first may be set to any time, the second is the kernel's.
        let modified = time(stat.st_mtime, stat.st_mtime_nsec);
        let changed = time(stat.st_ctime, stat.st_ctime_nsec);
        for number in [stat.st_size, modified, changed] {
            state.hasher.update(&number.to_le_bytes());
        }
        state.changed_ns = state.changed_ns.max(changed);
    }

    fn contents(&mut self, dir: BorrowedFd<'_>, path: &LayerPath) -> Result<(), SnapshotError> {
        if path.components().nth(MAX_DEPTH).is_some() {
            return Err(SnapshotError::TooDeep { path: path.clone() });
        }
        let names = overlay::sorted_names(dir).map_err(|e| self.error("list", path, e))?;
        for name in names {
            self.node(dir, &name, &path.join(&name))?;
        }
        Ok(())
    }

    fn node(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &LayerPath,
    ) -> Result<(), SnapshotError> {
        let stat = overlay::stat(dir, name).map_err(|e| self.error("examine", path, e))?;
        self.note(path, &stat);
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice if overlay::is_whiteout(&stat) => {
                return self.send(&mark(path, EntryKind::Whiteout), None);
            }
            FileType::RegularFile => return self.regular(dir, name, path, &stat),
            FileType::Directory => EntryKind::Directory,
            FileType::Fifo => EntryKind::Fifo,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new())
                    .map_err(|e| self.error("read link", path, e))?;
                let target = PathBuf::from(OsStr::from_bytes(target.as_bytes()));
                EntryKind::Symlink { target }
            }
            _ => return Ok(()),
        };
        let directory = kind == EntryKind::Directory;
        let attributes = self.attributes(dir, name, path)?;
        self.send(&entry(path, kind, &stat, &attributes), None)?;
        if directory {
            if attributes.opaque {
                self.send(&mark(path, EntryKind::Opaque), None)?;
            }
            let child = overlay::open_dir(dir, name).map_err(|e| self.error("open", path, e))?;
            self.contents(child.as_fd(), path)?;
        }
        Ok(())
    }

    fn regular(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &LayerPath,
        stat: &Stat,
    ) -> Result<(), SnapshotError> {
        let identity = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.names.get(&identity) {
            let entry = Entry {
                path: path.clone(),
                kind: EntryKind::Hardlink {
                    target: first.path.clone(),
                },
                ..first.clone()
            };
            return self.send(&entry, None);
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let attributes = self.attributes(dir, name, path)?;
        let entry = entry(path, EntryKind::Regular { size }, stat, &attributes);
        if stat.st_nlink > 1 {
            self.names.insert(identity, entry.clone());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::CLOEXEC;
        let file: File = rustix::fs::openat(dir, name, flags, Mode::empty())
            .map_err(|e| self.error("open", path, e))?
            .into();
        self.summary.bytes += size;
        self.send(&entry, Some(&mut SparseReader::new(&file, size)))
    }

    fn send(&mut self, entry: &Entry, content: Option<&mut dyn Read>) -> Result<(), SnapshotError> {
        self.summary.entries += 1;
        (self.sink)(entry, content).map_err(SnapshotError::Layer)
    }

    fn attributes(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &LayerPath,
    ) -> Result<Attributes, SnapshotError> {
        Ok(Attributes::read(dir, name, self.flavour)
            .at("read attributes of", self.dir.join(path.as_path()))?)
    }

    fn error(&self, act: &'static str, path: &LayerPath, errno: Errno) -> SnapshotError {
        SnapshotError::Fs(FsError {
            act,
            path: self.dir.join(path.as_path()),
            source: errno.into(),
        })
    }
}

fn entry(path: &LayerPath, kind: EntryKind, stat: &Stat, attributes: &Attributes) -> Entry {
    let mode = match kind {
        EntryKind::Symlink { .. } => 0o777,
        _ => stat.st_mode & 0o7777,
    };
    Entry {
        path: path.clone(),
        kind,
        mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtime.max(0),
        xattrs: attributes.kept.clone(),
    }
}

/// A whiteout or an opaque mark.
fn mark(path: &LayerPath, kind: EntryKind) -> Entry {
    Entry {
        path: path.clone(),
        kind,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: 0,
        xattrs: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{hard_link, set_permissions},
        os::unix::{
            fs::{MetadataExt, PermissionsExt, symlink},
            net::UnixListener,
        },
        time::{Duration, UNIX_EPOCH},
    };

    use super::*;
    use crate::{
        oci::layer::{Compression, LayerBuilder, LayerOptions},
        snapshot::Access,
    };

    /// The tar of a directory, and its diff id.
    fn packed(snapshots: &Snapshots, dir: &Path) -> (Vec<u8>, DiffId) {
        let options = LayerOptions {
            compression: Compression::None,
            level: None,
        };
        let mut builder = LayerBuilder::new(Vec::new(), options);
        snapshots
            .pack(dir, &mut |entry, content| builder.append(entry, content))
            .unwrap();
        let (tar, layer) = builder.finish().unwrap();
        (tar, layer.diff_id)
    }

    /// Unpacking as this user needs no right that a test may lack.
    fn store(dir: &Path) -> Option<Snapshots> {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "the test needs root");
            println!("skipped: needs root");
            return None;
        }
        Some(Snapshots::open(&dir.join("snapshots"), Access::Root).unwrap())
    }

    #[test]
    fn a_tree_comes_back_with_times_owners_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let Some(snapshots) = store(dir.path()) else {
            return;
        };
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("sub/empty")).unwrap();
        std::fs::write(from.join("sub/file"), b"text").unwrap();
        std::fs::write(from.join("nothing"), b"").unwrap();
        hard_link(from.join("sub/file"), from.join("two")).unwrap();
        symlink("sub/file", from.join("link")).unwrap();
        let _socket = UnixListener::bind(from.join("socket")).unwrap();
        std::os::unix::fs::chown(from.join("sub"), Some(7), Some(8)).unwrap();
        set_permissions(from.join("sub"), PermissionsExt::from_mode(0o2710)).unwrap();
        let time = UNIX_EPOCH + Duration::from_millis(1_600_000_000_700);
        for path in ["sub/file", "sub", ""] {
            let file = File::open(from.join(path)).unwrap();
            file.set_modified(time).unwrap();
        }
        let measured = snapshots.measure(&from).unwrap();
        assert_eq!((measured.entries, measured.bytes), (7, 4));
        assert_eq!(snapshots.measure(&from).unwrap(), measured);
        let (tar, diff_id) = packed(&snapshots, &from);
        snapshots.unpack_to(&to, &diff_id, &mut &tar[..]).unwrap();
        let meta = |path: &str| std::fs::symlink_metadata(to.join(path)).unwrap();
        for path in ["sub/file", "sub", ""] {
            assert_eq!(meta(path).mtime(), 1_600_000_000, "{path}");
        }
        let sub = meta("sub");
        assert_eq!((sub.uid(), sub.gid(), sub.mode() & 0o7777), (7, 8, 0o2710));
        assert_eq!(meta("two").ino(), meta("sub/file").ino());
        assert_eq!(std::fs::read(to.join("link")).unwrap(), b"text");
        assert!(meta("sub/empty").is_dir() && meta("nothing").len() == 0);
        assert!(!to.join("socket").exists());
        // Packing changes nothing, and what came back packs the same.
        assert_eq!(packed(&snapshots, &from).1, diff_id);
        assert_eq!(packed(&snapshots, &to).1, diff_id);
    }

    #[test]
    fn what_overlayfs_hides_stays_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let Some(snapshots) = store(dir.path()) else {
            return;
        };
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("sub")).unwrap();
        let open = File::open(&from).unwrap();
        if overlay::make_whiteout(open.as_fd(), OsStr::new("gone")).is_err() {
            println!("skipped: no whiteouts here");
            assert!(std::env::var_os("CI").is_none());
            return;
        }
        let opaque = Flavour::Root.opaque_attribute();
        overlay::set_attribute(open.as_fd(), OsStr::new("sub"), opaque, b"y").unwrap();
        let (tar, diff_id) = packed(&snapshots, &from);
        snapshots.unpack_to(&to, &diff_id, &mut &tar[..]).unwrap();
        let open = File::open(&to).unwrap();
        let stat = overlay::stat(open.as_fd(), OsStr::new("gone")).unwrap();
        assert!(overlay::is_whiteout(&stat));
        let attributes = Attributes::read(open.as_fd(), OsStr::new("sub"), Flavour::Root);
        assert!(attributes.unwrap().opaque);
    }

    #[test]
    fn another_tar_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let Some(snapshots) = store(dir.path()) else {
            return;
        };
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir(&from).unwrap();
        let (tar, diff_id) = packed(&snapshots, &from);
        std::fs::write(from.join("file"), b"text").unwrap();
        let (other, _) = packed(&snapshots, &from);
        let error = snapshots.unpack_to(&to, &diff_id, &mut &other[..]);
        assert!(matches!(error, Err(SnapshotError::DiffId { .. })));
        let cut = snapshots.unpack_to(&to, &diff_id, &mut &tar[..100]);
        assert!(cut.is_err());
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 2, "`from` and `snapshots`");
    }

    #[test]
    fn whatever_changes_in_a_tree_changes_its_state() {
        let dir = tempfile::tempdir().unwrap();
        let Some(snapshots) = store(dir.path()) else {
            return;
        };
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("sub")).unwrap();
        std::fs::write(tree.join("sub/file"), b"text").unwrap();
        std::fs::write(tree.join("other"), b"text").unwrap();
        let time = std::fs::metadata(tree.join("sub/file"))
            .unwrap()
            .modified()
            .unwrap();
        let changes: [&dyn Fn(); 6] = [
            // The same size and the same time, which a program can set.
            &|| {
                std::fs::write(tree.join("sub/file"), b"TEXT").unwrap();
                let file = File::open(tree.join("sub/file")).unwrap();
                file.set_modified(time).unwrap();
            },
            &|| set_permissions(tree.join("other"), PermissionsExt::from_mode(0o600)).unwrap(),
            &|| std::os::unix::fs::chown(tree.join("other"), Some(7), Some(8)).unwrap(),
            &|| std::fs::rename(tree.join("other"), tree.join("another")).unwrap(),
            &|| symlink("another", tree.join("link")).unwrap(),
            &|| std::fs::remove_file(tree.join("link")).unwrap(),
        ];
        let mut states = vec![snapshots.measure(&tree).unwrap()];
        for change in changes {
            // More than a tick of the clock.
            std::thread::sleep(Duration::from_millis(20));
            change();
            states.push(snapshots.measure(&tree).unwrap());
        }
        for (n, state) in states.iter().enumerate() {
            let times = states.iter().filter(|other| other.state == state.state);
            assert_eq!(times.count(), 1, "state {n}");
        }
        assert!(states.is_sorted_by_key(|state| state.changed_ns));
    }
}
