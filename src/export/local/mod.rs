//! A root file system written to a directory of the host.
//!
//! Everything is first written into a new directory on the same file system, then put in
//! place: as a whole where nothing stands at the destination, else entry by entry, each by a
//! rename. What ends early leaves no half-written file, and until the last moment nothing at all.
//!
//! As with BuildKit, what the destination has besides stays unless it is to be deleted; files
//! belong to whom the program runs as; modes, times, links and devices are those of the image.
//! Extended attributes are kept where the file system and the user's rights allow it.
//!
//! The image is not trusted: paths are walked from open directories, one component at a time,
//! never through a symlink, in the new directory and in the destination alike.

mod place;
mod stage;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::Read,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, Timespec, Timestamps};

use super::ExportError;
use crate::{
    fs::{self, FsError, IoContext as _},
    oci::layer::{Entry, LayerPath},
};

use stage::Stage;

/// Directories may lie this deep: each open one costs a file descriptor.
const MAX_DEPTH: usize = 512;

/// Writes one root file system; dropped without [`finish`](Self::finish), it leaves nothing.
pub(super) struct Writer {
    /// The directory that is being filled, in `dest` or beside it.
    temp: tempfile::TempDir,
    stage: Stage,
    dest: PathBuf,
    exists: bool,
}

impl Writer {
    /// Starts a directory that will be at `dest`, or be merged with what is there.
    pub(super) fn create(dest: &Path) -> Result<Self, ExportError> {
        let exists = dest.is_dir();
        if !exists && fs::exists(dest) {
            return Err(ExportError::NotADirectory {
                path: dest.to_owned(),
            });
        }
        let dest = match exists {
            true => fs::canonicalize(dest)?,
            false => fs::absolute(dest)?,
        };
        let beside = match (exists, dest.parent()) {
            (false, Some(parent)) => parent.to_owned(),
            _ => dest.clone(),
        };
        fs::create_dir_all(&beside)?;
        let temp = tempfile::Builder::new()
            .prefix(".tmp-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir_in(&beside)
            .at("create a directory in", &beside)?;
        let stage = Stage::open(temp.path(), &dest)?;
        Ok(Self {
            temp,
            stage,
            dest,
            exists,
        })
    }

    /// Adds an entry, after all others in canonical order.
    pub(super) fn append(
        &mut self,
        entry: &Entry,
        content: Option<&mut dyn Read>,
    ) -> Result<(), ExportError> {
        self.stage.append(entry, content)
    }

    /// Puts everything in place. With `delete`, nothing else stays in the destination.
    pub(super) fn finish(self, delete: bool) -> Result<(), ExportError> {
        let directories = self.stage.directories;
        if !self.exists {
            describe_directories(self.temp.path(), &directories)?;
            // From here on it is no temporary directory any more; a failure leaves it.
            let path = self.temp.keep();
            let moved = fs::rename(&path, &self.dest);
            if moved.is_err() {
                fs::remove_dir_all(&path)?;
            }
            return Ok(moved?);
        }
        place::merge(self.temp.path(), &self.dest, delete)?;
        describe_directories(&self.dest, &directories)
    }
}

/// Gives directories below `root` their attributes, the deepest first.
fn describe_directories(
    root: &Path,
    directories: &BTreeMap<LayerPath, Entry>,
) -> Result<(), ExportError> {
    let top = open_root(root)?;
    for (path, entry) in directories.iter().rev() {
        let at = |act, result: rustix::io::Result<()>| result.at(act, root.join(path.as_path()));
        let fd = walk(&top, path).at("open", root.join(path.as_path()))?;
        set_xattrs(entry, |name, value| {
            rustix::fs::fsetxattr(&fd, name, value, rustix::fs::XattrFlags::empty())
        });
        let mode = Mode::from_raw_mode(entry.mode & 0o7777);
        at("change mode of", rustix::fs::fchmod(&fd, mode))?;
        at(
            "set times of",
            rustix::fs::futimens(&fd, &times(entry.mtime)),
        )?;
    }
    Ok(())
}

/// Opens the directory that the user named, symlinks and all.
fn open_root(path: &Path) -> Result<OwnedFd, FsError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).at("open", path)
}

/// Opens a directory below `root`, through no symlink.
fn walk(root: &OwnedFd, path: &LayerPath) -> rustix::io::Result<OwnedFd> {
    let mut at = root.try_clone().map_err(|_| rustix::io::Errno::MFILE)?;
    for name in path.components() {
        at = fs::open_dir(&at, name)?;
    }
    Ok(at)
}

/// Sets attributes as far as it goes: file systems without them and users without the right keep
/// the file without them.
fn set_xattrs(entry: &Entry, set: impl Fn(&OsStr, &[u8]) -> rustix::io::Result<()>) {
    for (name, value) in &entry.xattrs {
        let _ = set(OsStr::from_bytes(name.as_bytes()), value);
    }
}

fn times(mtime: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
