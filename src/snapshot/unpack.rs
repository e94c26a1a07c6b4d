//! Makes the overlay form of a layer, entry by entry.
//!
//! An [`Unpacker`] takes the entries of one layer in any order and writes them below a
//! directory. Invariants, also for hostile layers:
//!
//! - Nothing outside the directory is touched: every path is walked component by
//!   component from open directories, never through a symlink.
//! - The result depends on the entries only: not on the umask, not on inherited
//!   groups or access control lists. Directories stay private (0700, no attributes) until
//!   [`Unpacker::finish`] gives them their attributes and times.
//! - The last of several entries with one path wins; a directory over a directory
//!   keeps what is in it. A whiteout concerns lower layers only.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::File,
    io::{BufReader, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid},
    io::Errno,
};

use super::{
    SnapshotError,
    meta::Meta,
    overlay::{self, Flavour},
    sparse,
};
use crate::{
    fs::{FsError, IoContext},
    oci::layer::{Entry, EntryKind, LayerError, LayerPath, TarEntries},
};

/// Directories may lie this deep: each open one costs a file descriptor.
pub(super) const MAX_DEPTH: usize = 512;

/// The time of directories that a layer doesn't describe.
const IMPLICIT_MTIME: i64 = 0;

/// Writes the entries of one layer below a directory.
#[derive(Debug)]
pub(super) struct Unpacker {
    dir: PathBuf,
    root: OwnedFd,
    flavour: Flavour,
    /// The directories open now, each with its name, from below the root on.
    open: Vec<OwnedFd>,
    open_path: LayerPath,
    /// Attributes to be given to directories at the end.
    described: BTreeMap<LayerPath, Entry>,
    /// Directories that exist only because something is in them.
    implicit: BTreeSet<LayerPath>,
    opaque_root: bool,
    bytes: u64,
}

/// Unpacks a whole layer into the empty directory `dir` and reads `tar` to its end.
pub(super) fn unpack_tar(
    dir: &Path,
    flavour: Flavour,
    tar: &mut dyn Read,
) -> Result<Meta, SnapshotError> {
    let mut tar = BufReader::with_capacity(1 << 17, tar);
    let mut unpacker = Unpacker::new(dir, flavour)?;
    let mut entries = TarEntries::new(&mut tar);
    while let Some(mut item) = entries.next_entry()? {
        let entry = item.entry.clone();
        unpacker.apply(&entry, &mut item)?;
    }
    // The diff id covers whatever follows the end mark.
    std::io::copy(&mut tar, &mut std::io::sink()).map_err(LayerError::Read)?;
    unpacker.finish()
}

impl Unpacker {
    /// Starts in `dir`, which must be an empty directory.
    pub(super) fn new(dir: &Path, flavour: Flavour) -> Result<Self, SnapshotError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(dir, flags, Mode::empty()).at("open", dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            root,
            flavour,
            open: Vec::new(),
            open_path: LayerPath::ROOT,
            described: BTreeMap::new(),
            implicit: BTreeSet::new(),
            opaque_root: false,
            bytes: 0,
        })
    }

    /// Writes one entry; `content` is that of a regular file.
    pub(super) fn apply(
        &mut self,
        entry: &Entry,
        content: &mut dyn Read,
    ) -> Result<(), SnapshotError> {
        match &entry.kind {
            EntryKind::Directory => self.directory(entry),
            EntryKind::Opaque => self.opaque(&entry.path),
            EntryKind::Whiteout => self.whiteout(&entry.path),
            EntryKind::Regular { .. } => self.regular(entry, content),
            EntryKind::Symlink { target } => {
                self.place(&entry.path, |dir, name| {
                    rustix::fs::symlinkat(target, dir, name)
                })?;
                self.describe(entry)
            }
            EntryKind::Hardlink { target } => self.hard_link(&entry.path, target),
            EntryKind::Fifo => self.node(entry, FileType::Fifo, 0, 0),
            EntryKind::CharDevice { major, minor } => {
                self.node(entry, FileType::CharacterDevice, *major, *minor)
            }
            EntryKind::BlockDevice { major, minor } => {
                self.node(entry, FileType::BlockDevice, *major, *minor)
            }
        }
    }

    /// Gives all directories their attributes and times.
    pub(super) fn finish(mut self) -> Result<Meta, SnapshotError> {
        self.open.clear();
        for path in self.implicit.iter().chain([&LayerPath::ROOT]) {
            if !self.described.contains_key(path) {
                self.described
                    .insert(path.clone(), implicit_directory(path));
            }
        }
        for (path, entry) in self.described.iter().rev() {
            let fd = self.walk(path).map_err(|e| self.error("open", path, e))?;
            self.describe_at(fd.as_fd(), OsStr::new("."), entry)?;
        }
        Ok(Meta {
            bytes: self.bytes,
            implicit: self.implicit.into_iter().collect(),
            opaque_root: self.opaque_root,
            ..Meta::default()
        })
    }

    /// A directory: made, or its attributes taken.
    fn directory(&mut self, entry: &Entry) -> Result<(), SnapshotError> {
        if let Some((parent, name)) = split(&entry.path) {
            self.enter(&parent)?;
            self.make_directory(&entry.path, name)?;
        }
        self.implicit.remove(&entry.path);
        self.described.insert(entry.path.clone(), entry.clone());
        Ok(())
    }

    /// Makes a directory in the current one, whatever stands there.
    fn make_directory(&mut self, path: &LayerPath, name: &OsStr) -> Result<(), SnapshotError> {
        let made = rustix::fs::mkdirat(self.current(), name, Mode::RWXU);
        if made != Err(Errno::EXIST) {
            return made.map_err(|e| self.error("create directory", path, e));
        }
        let stat = self.stat(path, name)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(());
        }
        self.remove(path, name)?;
        rustix::fs::mkdirat(self.current(), name, Mode::RWXU)
            .map_err(|e| self.error("create directory", path, e))?;
        if overlay::is_whiteout(&stat) {
            self.mark_opaque(path, name)?;
        }
        Ok(())
    }

    /// Hides what lower layers have in the directory `path`.
    fn opaque(&mut self, path: &LayerPath) -> Result<(), SnapshotError> {
        self.enter(path)?;
        if path.is_root() {
            // Overlayfs ignores the mark on a root; the chain is cut instead.
            self.opaque_root = true;
            return Ok(());
        }
        self.mark_opaque(path, OsStr::new("."))
    }

    fn mark_opaque(&self, path: &LayerPath, name: &OsStr) -> Result<(), SnapshotError> {
        overlay::set_attribute(self.current(), name, self.flavour.opaque_attribute(), b"y")
            .map_err(|e| self.error("mark as opaque", path, e))
    }

    /// Hides what lower layers have at `path`; what this layer has there stays.
    fn whiteout(&mut self, path: &LayerPath) -> Result<(), SnapshotError> {
        let Some((parent, name)) = split(path) else {
            return Ok(());
        };
        self.enter(&parent)?;
        match overlay::make_whiteout(self.current(), name) {
            Err(Errno::EXIST) => {
                let stat = self.stat(path, name)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    self.mark_opaque(path, name)?;
                }
                Ok(())
            }
            result => result.map_err(|e| self.error("create whiteout", path, e)),
        }
    }

    fn regular(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), SnapshotError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file: File = self
            .place(&entry.path, |dir, name| {
                rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
            })?
            .into();
        let at = |act, result: rustix::io::Result<()>| {
            result.map_err(|e| self.error(act, &entry.path, e))
        };
        let bytes = sparse::write(&file, content).at("write", self.host_path(&entry.path))?;
        self.owned(
            entry,
            rustix::fs::fchown(
                &file,
                Some(Uid::from_raw(entry.uid)),
                Some(Gid::from_raw(entry.gid)),
            ),
        )?;
        // After the owner: changing that clears setuid bits and capabilities.
        at("change mode of", rustix::fs::fchmod(&file, mode(entry)))?;
        for (name, value) in kept(entry) {
            at(
                "set an attribute of",
                rustix::fs::fsetxattr(&file, name, value, rustix::fs::XattrFlags::empty()),
            )?;
        }
        at(
            "set times of",
            rustix::fs::futimens(&file, &overlay::times(entry.mtime)),
        )?;
        self.bytes += bytes;
        Ok(())
    }

    fn node(
        &mut self,
        entry: &Entry,
        kind: FileType,
        major: u32,
        minor: u32,
    ) -> Result<(), SnapshotError> {
        let device = rustix::fs::makedev(major, minor);
        // Device 0/0 would be a whiteout for overlayfs.
        let impossible = kind == FileType::CharacterDevice && device == 0;
        if kind != FileType::Fifo && (self.flavour == Flavour::User || impossible) {
            return Err(SnapshotError::Device {
                path: entry.path.clone(),
                major,
                minor,
            });
        }
        self.place(&entry.path, |dir, name| {
            rustix::fs::mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, device)
        })?;
        self.describe(entry)
    }

    /// One more name for a file of this layer.
    fn hard_link(&mut self, path: &LayerPath, target: &LayerPath) -> Result<(), SnapshotError> {
        let missing = || SnapshotError::HardLinkTarget {
            path: path.clone(),
            target: target.clone(),
        };
        let (parent, name) = split(target).ok_or_else(missing)?;
        if path == target {
            return Ok(());
        }
        let parent = self.walk(&parent).map_err(|_| missing())?;
        let stat = overlay::stat(parent.as_fd(), name).map_err(|_| missing())?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory || overlay::is_whiteout(&stat) {
            return Err(missing());
        }
        self.adopt(path, parent.as_fd(), name)
    }

    /// Makes `path` a hard link to `name` in the directory `from`, which may be anywhere
    /// on this file system.
    pub(super) fn adopt(
        &mut self,
        path: &LayerPath,
        from: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), SnapshotError> {
        self.place(path, |dir, new| {
            rustix::fs::linkat(from, name, dir, new, AtFlags::empty())
        })
    }

    /// Removes what has been written at `path`, with all that is in it.
    pub(super) fn delete(&mut self, path: &LayerPath) -> Result<(), SnapshotError> {
        let Some((parent, name)) = split(path) else {
            return Ok(());
        };
        self.enter(&parent)?;
        self.remove(path, name)
    }

    /// Removes what is in `path`, if that is a directory.
    pub(super) fn clear(&mut self, path: &LayerPath) -> Result<(), SnapshotError> {
        if !self.described.contains_key(path) && !self.implicit.contains(path) {
            return Ok(());
        }
        self.enter(path)?;
        let names =
            overlay::sorted_names(self.current()).map_err(|e| self.error("list", path, e))?;
        for name in names {
            self.remove(&path.join(&name), &name)?;
        }
        Ok(())
    }

    /// Makes sure that `path` is a directory, without describing it.
    pub(super) fn imply(&mut self, path: &LayerPath) -> Result<(), SnapshotError> {
        let Some((parent, name)) = split(path) else {
            return Ok(());
        };
        self.enter(&parent)?;
        self.make_directory(path, name)?;
        if !self.described.contains_key(path) {
            self.implicit.insert(path.clone());
        }
        Ok(())
    }

    /// Creates something at `path` with `make`, in place of what stands there.
    fn place<T>(
        &mut self,
        path: &LayerPath,
        mut make: impl FnMut(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<T>,
    ) -> Result<T, SnapshotError> {
        let (parent, name) =
            split(path).ok_or_else(|| SnapshotError::NotADirectory { path: path.clone() })?;
        self.enter(&parent)?;
        let made = match make(self.current(), name) {
            Err(Errno::EXIST) => {
                self.remove(path, name)?;
                make(self.current(), name)
            }
            made => made,
        };
        made.map_err(|e| self.error("create", path, e))
    }

    /// Removes `name` in the current directory and forgets what is known below it.
    fn remove(&mut self, path: &LayerPath, name: &OsStr) -> Result<(), SnapshotError> {
        overlay::remove_tree(self.current(), name).map_err(|e| self.error("remove", path, e))?;
        // Only directories are remembered.
        if self.described.contains_key(path) || self.implicit.contains(path) {
            self.described.retain(|known, _| !known.starts_with(path));
            self.implicit.retain(|known| !known.starts_with(path));
        }
        Ok(())
    }

    /// Makes `path` the current directory; directories that are missing are made.
    fn enter(&mut self, path: &LayerPath) -> Result<(), SnapshotError> {
        if *path == self.open_path {
            return Ok(());
        }
        let shared = self
            .open_path
            .components()
            .zip(path.components())
            .take_while(|(a, b)| a == b)
            .count();
        if path.components().nth(MAX_DEPTH).is_some() {
            return Err(SnapshotError::TooDeep { path: path.clone() });
        }
        self.open.truncate(shared);
        let mut at = path
            .components()
            .take(shared)
            .fold(LayerPath::ROOT, |at, name| at.join(name));
        for name in path.components().skip(shared) {
            at = at.join(name);
            let fd = self.open_or_make(&at, name)?;
            self.open.push(fd);
            self.open_path = at.clone();
        }
        self.open_path = at;
        Ok(())
    }

    /// Opens a directory in the current one, or makes it if the layer has nothing there.
    fn open_or_make(&mut self, path: &LayerPath, name: &OsStr) -> Result<OwnedFd, SnapshotError> {
        match overlay::open_dir(self.current(), name) {
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => {
                if !overlay::is_whiteout(&self.stat(path, name)?) {
                    return Err(SnapshotError::NotADirectory { path: path.clone() });
                }
            }
            result => return result.map_err(|e| self.error("open", path, e)),
        }
        self.make_directory(path, name)?;
        self.implicit.insert(path.clone());
        overlay::open_dir(self.current(), name).map_err(|e| self.error("open", path, e))
    }

    /// The directory opened last.
    fn current(&self) -> BorrowedFd<'_> {
        self.open.last().unwrap_or(&self.root).as_fd()
    }

    /// Opens an existing directory without making it the current one.
    fn walk(&self, path: &LayerPath) -> rustix::io::Result<OwnedFd> {
        let relative = if path.is_root() {
            Path::new(".")
        } else {
            path.as_path()
        };
        rustix::fs::openat2(
            &self.root,
            relative,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        )
    }

    /// Gives `entry`'s owner, mode, attributes and time to what stands at its path.
    fn describe(&self, entry: &Entry) -> Result<(), SnapshotError> {
        let name = entry.path.file_name().unwrap_or(OsStr::new("."));
        self.describe_at(self.current(), name, entry)
    }

    fn describe_at(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        entry: &Entry,
    ) -> Result<(), SnapshotError> {
        let path = &entry.path;
        let symlink = matches!(entry.kind, EntryKind::Symlink { .. });
        let uid = Some(Uid::from_raw(entry.uid));
        let gid = Some(Gid::from_raw(entry.gid));
        self.owned(
            entry,
            rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
        )?;
        if !symlink {
            rustix::fs::chmodat(dir, name, mode(entry), AtFlags::empty())
                .map_err(|e| self.error("change mode of", path, e))?;
        }
        for (attribute, value) in kept(entry) {
            // The kernel knows `user.*` on files and directories only, and no access
            // control lists on symlinks.
            if entry.kind == EntryKind::Directory
                || !(attribute.starts_with("user.") || symlink && attribute.starts_with("system."))
            {
                overlay::set_attribute(dir, name, attribute, value)
                    .map_err(|e| self.error("set an attribute of", path, e))?;
            }
        }
        overlay::set_mtime(dir, name, entry.mtime).map_err(|e| self.error("set times of", path, e))
    }

    /// Names the owner in the error of a user namespace that hasn't its id.
    fn owned(&self, entry: &Entry, result: rustix::io::Result<()>) -> Result<(), SnapshotError> {
        match result {
            Err(Errno::INVAL) => Err(SnapshotError::OwnerNotMapped {
                path: entry.path.clone(),
                uid: entry.uid,
                gid: entry.gid,
            }),
            result => result.map_err(|e| self.error("change owner of", &entry.path, e)),
        }
    }

    fn stat(&self, path: &LayerPath, name: &OsStr) -> Result<rustix::fs::Stat, SnapshotError> {
        overlay::stat(self.current(), name).map_err(|e| self.error("examine", path, e))
    }

    fn host_path(&self, path: &LayerPath) -> PathBuf {
        self.dir.join(path.as_path())
    }

    fn error(&self, act: &'static str, path: &LayerPath, errno: Errno) -> SnapshotError {
        SnapshotError::Fs(FsError {
            act,
            path: self.host_path(path),
            source: errno.into(),
        })
    }
}

/// The attributes of a directory that has no entry.
pub(super) fn implicit_directory(path: &LayerPath) -> Entry {
    Entry {
        path: path.clone(),
        kind: EntryKind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: IMPLICIT_MTIME,
        xattrs: BTreeMap::new(),
    }
}

/// Parent and name; none for the root.
fn split(path: &LayerPath) -> Option<(LayerPath, &OsStr)> {
    Some((path.parent()?, path.file_name()?))
}

fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode & 0o7777)
}

/// The extended attributes that are part of a layer.
fn kept(entry: &Entry) -> impl Iterator<Item = (&String, &Vec<u8>)> {
    entry
        .xattrs
        .iter()
        .filter(|(name, _)| overlay::is_kept(name))
}
