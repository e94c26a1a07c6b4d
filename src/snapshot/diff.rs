//! The exact difference that a step made, read from overlayfs's upper directory.
//!
//! One pass over the upper directory in canonical order; the lower directories are not
//! looked at, the merged index of the lower layers ([`Lower`]) says what stood there.
//! The pass also *normalises* the upper directory in place, so that it becomes exactly
//! what unpacking the new layer would give:
//!
//! - what is no change (copied up and then left equal), noise, sockets and empty mount
//!   points are removed;
//! - every time becomes the step's `mtime`;
//! - overlayfs's attributes are removed, but for opaque marks that hide something.
//!
//! A directory without a change of its own gets an entry when something below it does:
//! overlayfs takes a merged directory's attributes from the uppermost layer that has
//! the directory. Only the root has an entry just when its own attributes changed.
//!
//! Two names of one file become a regular file and a hard link, if both lie in the
//! upper directory. A file with several names there is always a change: overlayfs
//! copies up one name only, so the others were made by the step.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
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
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{
    SnapshotError,
    noise::is_noise,
    overlay::{self, Attributes, Flavour},
    sparse::SparseReader,
    unpack::{MAX_DEPTH, implicit_directory},
};
use crate::{
    digest::Blake3Digest,
    fs::{FsError, IoContext},
    oci::layer::{Entry, EntryKind, LayerError, LayerPath, Tree},
};

/// How a difference is taken.
#[derive(Debug, Clone)]
pub struct DiffOptions {
    /// The time, in seconds since 1970, that every path of the layer gets.
    pub mtime: i64,
    /// Whether known noise is left out (`snapshot/noise.rs` has the list).
    pub normalise: bool,
    /// Mount points that the sandbox made: left out if absent below and still empty.
    pub stubs: Vec<LayerPath>,
}

/// What a difference came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffSummary {
    /// Entries of the layer; zero if the step changed nothing.
    pub entries: u64,
    /// Bytes of file contents in the layer.
    pub bytes: u64,
}

/// Takes the entries of a layer, in canonical order, regular files with their content.
pub type Sink<'a> = dyn FnMut(&Entry, Option<&mut dyn Read>) -> Result<(), LayerError> + 'a;

/// What the lower layers have at a path, hard links resolved.
#[derive(Debug, Clone, Copy)]
pub(super) struct LowerEntry<'a> {
    pub(super) entry: &'a Entry,
    /// Digest of a regular file's content; none for an empty one.
    pub(super) content: Option<Blake3Digest>,
}

/// The merged view of the lower layers.
pub(super) trait Lower {
    /// What stands at `path`, or nothing.
    fn get(&self, path: &LayerPath) -> Option<LowerEntry<'_>>;
    /// Whether anything lies in the directory `path`.
    fn has_children(&self, path: &LayerPath) -> bool;
}

/// Sends the difference to `sink` and normalises `upper`.
pub(super) fn diff(
    upper: &Path,
    flavour: Flavour,
    lower: &dyn Lower,
    options: &DiffOptions,
    sink: &mut Sink<'_>,
) -> Result<DiffSummary, SnapshotError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(upper, flags, Mode::empty()).at("open", upper)?;
    let mut pass = Pass {
        upper,
        flavour,
        lower,
        mtime: options.mtime,
        normalise: options.normalise,
        stubs: options.stubs.iter().collect(),
        sink,
        pending: Vec::new(),
        names: HashMap::new(),
        summary: DiffSummary::default(),
    };
    pass.root(root.as_fd())?;
    Ok(pass.summary)
}

/// The state of one pass.
struct Pass<'a, 's> {
    upper: &'a Path,
    flavour: Flavour,
    lower: &'a dyn Lower,
    mtime: i64,
    normalise: bool,
    stubs: HashSet<&'a LayerPath>,
    sink: &'a mut Sink<'s>,
    /// The directories on the way to the current path. An entry still there has not
    /// been sent: it will be as soon as something below it is.
    pending: Vec<Option<Entry>>,
    /// The first name of each file with several names, by device and inode.
    names: HashMap<(u64, u64), Entry>,
    summary: DiffSummary,
}

/// One path of the upper directory.
struct Node<'a, 'n> {
    dir: BorrowedFd<'n>,
    name: &'n OsStr,
    path: LayerPath,
    stat: Stat,
    /// What shows through from below at this path.
    lower: Option<LowerEntry<'a>>,
}

impl<'a> Pass<'a, '_> {
    fn root(&mut self, dir: BorrowedFd<'_>) -> Result<(), SnapshotError> {
        let path = LayerPath::ROOT;
        let name = OsStr::new(".");
        let stat = overlay::stat(dir, name).map_err(|e| self.error("examine", &path, e))?;
        let attributes = self.attributes(dir, name, &path)?;
        let entry = self.entry(&path, EntryKind::Directory, &stat, &attributes);
        let plain = implicit_directory(&path);
        let lower = self.lower.get(&path).map_or(&plain, |found| found.entry);
        let changed = !same_attributes(&entry, lower);
        if changed {
            self.send(&entry, None)?;
        }
        self.contents(dir, &path, true)?;
        self.strip(dir, name, &path, &attributes, false)?;
        if changed {
            return self.set_mtime(dir, name, &path, self.mtime);
        }
        // Without an entry the root is what unpacking makes of it.
        self.make_plain(dir, &attributes, &plain)
    }

    /// Passes over what is in a directory. `merged` says whether the lower layers show
    /// through there.
    fn contents(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &LayerPath,
        merged: bool,
    ) -> Result<(), SnapshotError> {
        if path.components().nth(MAX_DEPTH).is_some() {
            return Err(SnapshotError::TooDeep { path: path.clone() });
        }
        let names = overlay::sorted_names(dir).map_err(|e| self.error("list", path, e))?;
        for name in names {
            let path = path.join(&name);
            let stat = overlay::stat(dir, &name).map_err(|e| self.error("examine", &path, e))?;
            let lower = if merged { self.lower.get(&path) } else { None };
            let node = Node {
                dir,
                name: &name,
                path,
                stat,
                lower,
            };
            let noise = self.normalise && is_noise(&node.path);
            if noise || !self.node(&node)? {
                overlay::remove_tree(dir, &name)
                    .map_err(|e| self.error("remove", &node.path, e))?;
            }
        }
        Ok(())
    }

    /// Sends what changed at one path; gives whether the path stays in the upper
    /// directory.
    fn node(&mut self, node: &Node<'a, '_>) -> Result<bool, SnapshotError> {
        match FileType::from_raw_mode(node.stat.st_mode) {
            FileType::CharacterDevice if overlay::is_whiteout(&node.stat) => self.whiteout(node),
            FileType::Socket => self.socket(node),
            FileType::Directory => self.directory(node),
            FileType::RegularFile => self.regular(node),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(node.dir, node.name, Vec::new())
                    .map_err(|e| self.error("read link", &node.path, e))?;
                let target = PathBuf::from(OsStr::from_bytes(target.as_bytes()));
                self.special(node, EntryKind::Symlink { target })
            }
            FileType::CharacterDevice => {
                let (major, minor) = device(&node.stat);
                self.special(node, EntryKind::CharDevice { major, minor })
            }
            FileType::BlockDevice => {
                let (major, minor) = device(&node.stat);
                self.special(node, EntryKind::BlockDevice { major, minor })
            }
            FileType::Fifo => self.special(node, EntryKind::Fifo),
            FileType::Unknown => Ok(false),
        }
    }

    fn whiteout(&mut self, node: &Node<'a, '_>) -> Result<bool, SnapshotError> {
        if node.lower.is_none() {
            return Ok(false);
        }
        self.send(&self.mark(&node.path, EntryKind::Whiteout), None)?;
        Ok(true)
    }

    /// A socket can't stand in a layer, but what it replaced is gone.
    fn socket(&mut self, node: &Node<'a, '_>) -> Result<bool, SnapshotError> {
        if node.lower.is_none() {
            return Ok(false);
        }
        overlay::remove_tree(node.dir, node.name)
            .map_err(|e| self.error("remove", &node.path, e))?;
        overlay::make_whiteout(node.dir, node.name)
            .map_err(|e| self.error("create whiteout", &node.path, e))?;
        self.whiteout(node)
    }

    fn directory(&mut self, node: &Node<'a, '_>) -> Result<bool, SnapshotError> {
        let path = &node.path;
        let dir =
            overlay::open_dir(node.dir, node.name).map_err(|e| self.error("open", path, e))?;
        let attributes = self.attributes(node.dir, node.name, path)?;
        let entry = self.entry(path, EntryKind::Directory, &node.stat, &attributes);
        let lower = node
            .lower
            .filter(|lower| lower.entry.kind == EntryKind::Directory);
        let hides = attributes.opaque && lower.is_some() && self.lower.has_children(path);
        let equal = lower.is_some_and(|lower| same_attributes(&entry, lower.entry));
        if hides || !(equal || self.is_stub(node)) {
            self.send(&entry, None)?;
            self.pending.push(None);
        } else {
            self.pending.push(Some(entry));
        }
        if hides {
            self.send(&self.mark(path, EntryKind::Opaque), None)?;
        }
        self.contents(dir.as_fd(), path, lower.is_some() && !attributes.opaque)?;
        let sent = self.pending.pop().flatten().is_none();
        if sent {
            self.strip(node.dir, node.name, path, &attributes, hides)?;
            self.set_mtime(node.dir, node.name, path, self.mtime)?;
        }
        Ok(sent)
    }

    fn regular(&mut self, node: &Node<'a, '_>) -> Result<bool, SnapshotError> {
        let path = &node.path;
        let size = u64::try_from(node.stat.st_size).unwrap_or(0);
        let attributes = self.attributes(node.dir, node.name, path)?;
        let entry = self.entry(path, EntryKind::Regular { size }, &node.stat, &attributes);
        let identity = (node.stat.st_dev, node.stat.st_ino);
        let several_names = node.stat.st_nlink > 1;
        if let Some(first) = self.names.get(&identity) {
            let entry = Entry {
                path: path.clone(),
                kind: EntryKind::Hardlink {
                    target: first.path.clone(),
                },
                ..first.clone()
            };
            self.send(&entry, None)?;
            return Ok(true);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::CLOEXEC;
        let file: File = rustix::fs::openat(node.dir, node.name, flags, Mode::empty())
            .map_err(|e| self.error("open", path, e))?
            .into();
        if several_names {
            self.names.insert(identity, entry.clone());
        } else if (size == 0 && self.is_stub(node)) || self.is_unchanged(node, &entry, &file)? {
            return Ok(false);
        }
        self.summary.bytes += size;
        self.send(&entry, Some(&mut SparseReader::new(&file, size)))?;
        self.strip(node.dir, node.name, path, &attributes, false)?;
        self.set_mtime(node.dir, node.name, path, self.mtime)?;
        Ok(true)
    }

    /// Anything that is not a directory and has no content.
    fn special(&mut self, node: &Node<'a, '_>, kind: EntryKind) -> Result<bool, SnapshotError> {
        let attributes = self.attributes(node.dir, node.name, &node.path)?;
        let entry = self.entry(&node.path, kind, &node.stat, &attributes);
        let unchanged = node.lower.is_some_and(|lower| {
            lower.entry.kind == entry.kind && same_attributes(&entry, lower.entry)
        });
        if unchanged {
            return Ok(false);
        }
        self.send(&entry, None)?;
        self.strip(node.dir, node.name, &node.path, &attributes, false)?;
        self.set_mtime(node.dir, node.name, &node.path, self.mtime)?;
        Ok(true)
    }

    /// Whether a regular file was copied up and then left as it was. Times are compared
    /// first, so the content of a file that was written to is read once only.
    fn is_unchanged(
        &self,
        node: &Node<'_, '_>,
        entry: &Entry,
        file: &File,
    ) -> Result<bool, SnapshotError> {
        let Some(lower) = node.lower else {
            return Ok(false);
        };
        let EntryKind::Regular { size } = entry.kind else {
            return Ok(false);
        };
        if lower.entry.kind != entry.kind
            || !same_attributes(entry, lower.entry)
            || node.stat.st_mtime != lower.entry.mtime
            || node.stat.st_mtime_nsec != 0
        {
            return Ok(false);
        }
        if size == 0 {
            return Ok(true);
        }
        let (digest, _) = Blake3Digest::of_reader(SparseReader::new(file, size))
            .at("read", self.host_path(&node.path))?;
        Ok(lower.content == Some(digest))
    }

    /// Whether the sandbox made this path as a mount point.
    fn is_stub(&self, node: &Node<'_, '_>) -> bool {
        node.lower.is_none() && self.stubs.contains(&node.path)
    }

    /// Sends an entry, and before it those of the directories it lies in.
    fn send(&mut self, entry: &Entry, content: Option<&mut dyn Read>) -> Result<(), SnapshotError> {
        for dir in self.pending.iter_mut().filter_map(Option::take) {
            self.summary.entries += 1;
            (self.sink)(&dir, None).map_err(SnapshotError::Layer)?;
        }
        self.summary.entries += 1;
        (self.sink)(entry, content).map_err(SnapshotError::Layer)
    }

    fn entry(
        &self,
        path: &LayerPath,
        kind: EntryKind,
        stat: &Stat,
        attributes: &Attributes,
    ) -> Entry {
        Entry {
            path: path.clone(),
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: self.mtime,
            xattrs: attributes.kept.clone(),
        }
    }

    /// A whiteout or an opaque mark.
    fn mark(&self, path: &LayerPath, kind: EntryKind) -> Entry {
        Entry {
            path: path.clone(),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: self.mtime,
            xattrs: BTreeMap::new(),
        }
    }

    fn attributes(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &LayerPath,
    ) -> Result<Attributes, SnapshotError> {
        Ok(Attributes::read(dir, name, self.flavour)
            .at("read attributes of", self.host_path(path))?)
    }

    /// Removes overlayfs's attributes, but for the opaque mark if that is to stay.
    fn strip(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &LayerPath,
        attributes: &Attributes,
        keep_opaque: bool,
    ) -> Result<(), SnapshotError> {
        for attribute in &attributes.overlay {
            if !(keep_opaque && attribute == self.flavour.opaque_attribute()) {
                overlay::remove_attribute(dir, name, attribute)
                    .map_err(|e| self.error("remove an attribute of", path, e))?;
            }
        }
        Ok(())
    }

    /// Makes the root what unpacking makes of a root without an entry.
    fn make_plain(
        &self,
        dir: BorrowedFd<'_>,
        attributes: &Attributes,
        plain: &Entry,
    ) -> Result<(), SnapshotError> {
        let name = OsStr::new(".");
        let at = |act, result: rustix::io::Result<()>| {
            result.map_err(|e| self.error(act, &plain.path, e))
        };
        for attribute in attributes.kept.keys() {
            at(
                "remove an attribute of",
                overlay::remove_attribute(dir, name, attribute),
            )?;
        }
        at(
            "change owner of",
            rustix::fs::fchown(dir, Some(Uid::ROOT), Some(Gid::ROOT)),
        )?;
        at(
            "change mode of",
            rustix::fs::chmodat(dir, name, Mode::from_raw_mode(plain.mode), AtFlags::empty()),
        )?;
        self.set_mtime(dir, name, &plain.path, plain.mtime)
    }

    fn set_mtime(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &LayerPath,
        mtime: i64,
    ) -> Result<(), SnapshotError> {
        overlay::set_mtime(dir, name, mtime).map_err(|e| self.error("set times of", path, e))
    }

    fn host_path(&self, path: &LayerPath) -> PathBuf {
        self.upper.join(path.as_path())
    }

    fn error(&self, act: &'static str, path: &LayerPath, errno: Errno) -> SnapshotError {
        SnapshotError::Fs(FsError {
            act,
            path: self.host_path(path),
            source: errno.into(),
        })
    }
}

/// Whether mode, owner and extended attributes are equal. The mode of a symlink means
/// nothing.
fn same_attributes(a: &Entry, b: &Entry) -> bool {
    let kept = |entry: &'_ Entry| {
        entry
            .xattrs
            .iter()
            .filter(|(name, _)| overlay::is_kept(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect::<BTreeMap<_, _>>()
    };
    let symlink = matches!(a.kind, EntryKind::Symlink { .. });
    (symlink || a.mode == b.mode) && a.uid == b.uid && a.gid == b.gid && kept(a) == kept(b)
}

/// Major and minor number.
fn device(stat: &Stat) -> (u32, u32) {
    (
        rustix::fs::major(stat.st_rdev),
        rustix::fs::minor(stat.st_rdev),
    )
}

impl Lower for Tree {
    fn get(&self, path: &LayerPath) -> Option<LowerEntry<'_>> {
        let found = self.source(Tree::get(self, path)?)?;
        Some(LowerEntry {
            entry: &found.row.entry,
            content: found.row.content,
        })
    }

    fn has_children(&self, path: &LayerPath) -> bool {
        !self.children(path).is_empty()
    }
}
