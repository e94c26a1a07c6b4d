//! The new directory that a root file system is first written into.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, XattrFlags},
    io::Errno,
};

use super::{ExportError, MAX_DEPTH, open_root, set_xattrs, times, walk};
use crate::{
    fs::{FsError, IoContext as _},
    oci::layer::{Entry, EntryKind, LayerPath},
};

/// Writes entries in canonical order. Directories stay private (0700) until they are in place.
pub(super) struct Stage {
    root: OwnedFd,
    /// For messages.
    dest: PathBuf,
    /// The directories open now, from below the root on.
    open: Vec<(LayerPath, OwnedFd)>,
    /// Attributes to be given to directories at the end.
    pub(super) directories: BTreeMap<LayerPath, Entry>,
}

impl Stage {
    /// Starts in the empty directory `dir`.
    pub(super) fn open(dir: &Path, dest: &Path) -> Result<Self, ExportError> {
        Ok(Self {
            root: open_root(dir)?,
            dest: dest.to_owned(),
            open: Vec::new(),
            directories: BTreeMap::new(),
        })
    }

    /// Writes one entry.
    pub(super) fn append(
        &mut self,
        entry: &Entry,
        content: Option<&mut dyn Read>,
    ) -> Result<(), ExportError> {
        while let Some((path, _)) = self.open.last()
            && !entry.path.starts_with(path)
        {
            self.open.pop();
        }
        let Some(name) = entry.path.file_name() else {
            return Ok(());
        };
        match &entry.kind {
            EntryKind::Directory => self.directory(entry, name),
            EntryKind::Regular { .. } => {
                let mut nothing = io::empty();
                self.regular(entry, name, content.unwrap_or(&mut nothing))
            }
            EntryKind::Symlink { target } => {
                rustix::fs::symlinkat(target, self.current(), name)
                    .map_err(|e| self.error("create", entry, e))?;
                self.describe(entry, name)
            }
            EntryKind::Hardlink { target } => self.link(entry, name, target),
            EntryKind::Fifo => self.node(entry, name, FileType::Fifo, 0, 0),
            EntryKind::CharDevice { major, minor } => {
                self.node(entry, name, FileType::CharacterDevice, *major, *minor)
            }
            EntryKind::BlockDevice { major, minor } => {
                self.node(entry, name, FileType::BlockDevice, *major, *minor)
            }
            // A merged tree has neither.
            EntryKind::Whiteout | EntryKind::Opaque => Ok(()),
        }
    }

    fn current(&self) -> BorrowedFd<'_> {
        match self.open.last() {
            Some((_, fd)) => fd.as_fd(),
            None => self.root.as_fd(),
        }
    }

    fn directory(&mut self, entry: &Entry, name: &OsStr) -> Result<(), ExportError> {
        if self.open.len() == MAX_DEPTH {
            return Err(ExportError::TooDeep {
                path: entry.path.clone(),
                max: MAX_DEPTH,
            });
        }
        rustix::fs::mkdirat(self.current(), name, Mode::RWXU)
            .map_err(|e| self.error("create directory", entry, e))?;
        let fd =
            crate::fs::open_dir(self.current(), name).map_err(|e| self.error("open", entry, e))?;
        self.open.push((entry.path.clone(), fd));
        self.directories.insert(entry.path.clone(), entry.clone());
        Ok(())
    }

    fn regular(
        &self,
        entry: &Entry,
        name: &OsStr,
        content: &mut dyn Read,
    ) -> Result<(), ExportError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file: File =
            rustix::fs::openat(self.current(), name, flags, Mode::RUSR | Mode::WUSR)
                .map_err(|e| self.error("create", entry, e))?
                .into();
        io::copy(content, &mut file).at("write", self.path(entry))?;
        set_xattrs(entry, |name, value| {
            rustix::fs::fsetxattr(&file, name, value, XattrFlags::empty())
        });
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode & 0o7777))
            .map_err(|e| self.error("change mode of", entry, e))?;
        rustix::fs::futimens(&file, &times(entry.mtime))
            .map_err(|e| self.error("set times of", entry, e))?;
        Ok(())
    }

    /// One more name for a file that has been written.
    fn link(&self, entry: &Entry, name: &OsStr, target: &LayerPath) -> Result<(), ExportError> {
        let parent = target.parent().unwrap_or(LayerPath::ROOT);
        let file = target.file_name().unwrap_or(OsStr::new("."));
        walk(&self.root, &parent)
            .and_then(|dir| rustix::fs::linkat(&dir, file, self.current(), name, AtFlags::empty()))
            .map_err(|e| self.error("create", entry, e).into())
    }

    fn node(
        &self,
        entry: &Entry,
        name: &OsStr,
        kind: FileType,
        major: u32,
        minor: u32,
    ) -> Result<(), ExportError> {
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::RUSR | Mode::WUSR;
        match rustix::fs::mknodat(self.current(), name, kind, mode, device) {
            Err(errno @ (Errno::PERM | Errno::ACCESS)) if kind != FileType::Fifo => {
                Err(ExportError::Device {
                    path: entry.path.clone(),
                    dir: self.dest.clone(),
                    source: errno.into(),
                })
            }
            made => {
                made.map_err(|e| self.error("create", entry, e))?;
                self.describe(entry, name)
            }
        }
    }

    /// Gives mode and time to what was just made and can't be opened.
    fn describe(&self, entry: &Entry, name: &OsStr) -> Result<(), ExportError> {
        let dir = self.current();
        if !matches!(entry.kind, EntryKind::Symlink { .. }) {
            // It is ours, in a directory that nobody else can enter, and no symlink.
            rustix::fs::chmodat(
                dir,
                name,
                Mode::from_raw_mode(entry.mode & 0o7777),
                AtFlags::empty(),
            )
            .map_err(|e| self.error("change mode of", entry, e))?;
        }
        rustix::fs::utimensat(dir, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| self.error("set times of", entry, e).into())
    }

    fn path(&self, entry: &Entry) -> PathBuf {
        self.dest.join(entry.path.as_path())
    }

    fn error(&self, act: &'static str, entry: &Entry, errno: Errno) -> FsError {
        FsError {
            act,
            path: self.path(entry),
            source: errno.into(),
        }
    }
}
