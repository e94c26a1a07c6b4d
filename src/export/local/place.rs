//! Moves the new directory's contents over a destination that exists.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode},
    io::Errno,
};

use super::{ExportError, MAX_DEPTH, open_root};
use crate::{
    fs::{FsError, open_dir},
    oci::layer::LayerPath,
};

/// Moves all that is in `from` to `to`. Directories are merged, anything else replaces what stands
/// there. With `delete`, what `from` doesn't have is removed from `to`.
pub(super) fn merge(from: &Path, to: &Path, delete: bool) -> Result<(), ExportError> {
    let (source, target) = (open_root(from)?, open_root(to)?);
    let merge = Merge {
        dest: to,
        delete,
        // It lies in the destination when that exists.
        keep: from.file_name().map(OsStr::to_owned),
    };
    merge.directory(&source, &target, &LayerPath::ROOT, 0)
}

struct Merge<'m> {
    dest: &'m Path,
    delete: bool,
    keep: Option<OsString>,
}

impl Merge<'_> {
    fn directory(
        &self,
        from: &OwnedFd,
        to: &OwnedFd,
        path: &LayerPath,
        depth: usize,
    ) -> Result<(), ExportError> {
        if depth > MAX_DEPTH {
            return Err(ExportError::TooDeep {
                path: path.clone(),
                max: MAX_DEPTH,
            });
        }
        let names = self.names(from, path)?;
        if self.delete {
            for name in self.names(to, path)? {
                let kept = path.is_root() && self.keep.as_ref() == Some(&name);
                if !kept && !names.contains(&name) {
                    let at = path.join(&name);
                    remove(to, &name).map_err(|e| self.error("remove", &at, e))?;
                }
            }
        }
        for name in &names {
            self.entry(from, to, name, &path.join(name), depth)?;
        }
        Ok(())
    }

    fn entry(
        &self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &OsStr,
        path: &LayerPath,
        depth: usize,
    ) -> Result<(), ExportError> {
        let new = kind(from, name).map_err(|e| self.error("look at", path, e))?;
        let old = match kind(to, name) {
            Ok(kind) => Some(kind),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(self.error("look at", path, errno).into()),
        };
        match (new, old) {
            (FileType::Directory, Some(FileType::Directory)) => {
                let below =
                    |dir: &OwnedFd| open_dir(dir, name).map_err(|e| self.error("open", path, e));
                let (from, to) = (below(from)?, below(to)?);
                make_writable(&to);
                return self.directory(&from, &to, path, depth + 1);
            }
            // A rename replaces what is of its kind.
            (FileType::Directory, Some(_)) | (_, Some(FileType::Directory)) => {
                remove(to, name).map_err(|e| self.error("remove", path, e))?;
            }
            (_, _) => {}
        }
        rustix::fs::renameat(from, name, to, name)
            .map_err(|e| self.error("rename to", path, e).into())
    }

    fn names(&self, dir: &OwnedFd, path: &LayerPath) -> Result<BTreeSet<OsString>, FsError> {
        names(dir).map_err(|e| self.error("list", path, e))
    }

    fn error(&self, act: &'static str, path: &LayerPath, errno: Errno) -> FsError {
        let host: PathBuf = match path.is_root() {
            true => self.dest.to_owned(),
            false => self.dest.join(path.as_path()),
        };
        FsError {
            act,
            path: host,
            source: errno.into(),
        }
    }
}

fn kind(dir: &OwnedFd, name: &OsStr) -> rustix::io::Result<FileType> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

fn names(dir: &OwnedFd) -> rustix::io::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.insert(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// An earlier result may have directories that deny writing; they get their mode back at the end.
fn make_writable(dir: &OwnedFd) {
    if let Ok(stat) = rustix::fs::fstat(dir) {
        let mode = Mode::from_raw_mode(stat.st_mode);
        if !mode.contains(Mode::RWXU) {
            // What can't be changed shows when something is written.
            let _ = rustix::fs::fchmod(dir, mode | Mode::RWXU);
        }
    }
}

/// Removes what stands at `name`, a directory with all that is in it, through no symlink.
fn remove(dir: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    if kind(dir, name)? != FileType::Directory {
        return rustix::fs::unlinkat(dir, name, AtFlags::empty());
    }
    let below = open_dir(dir, name)?;
    make_writable(&below);
    for name in names(&below)? {
        remove(&below, &name)?;
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}
