//! Merges several unpacked layers into one directory, by hard links.
//!
//! Overlayfs takes a limited number of layers, and each costs time at every look-up; so
//! the lower part of a long chain is folded. A chain is also folded where a layer has
//! files in a directory that it doesn't describe: overlayfs would show the attributes
//! of the directory that unpacking had to make up, in place of the lower layer's.
//! A folded directory has no whiteouts and no opaque marks.

use std::{
    collections::HashSet,
    ffi::OsStr,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{FileType, Mode, OFlags};

use super::{
    SnapshotError,
    meta::Meta,
    overlay::{self, Attributes, Flavour},
    unpack::Unpacker,
};
use crate::{
    fs::IoContext,
    oci::layer::{Entry, EntryKind, LayerPath},
};

/// Merges the snapshot directories `layers`, lowest first, into the empty directory
/// `dest` on the same file system.
pub(super) fn fold(
    dest: &Path,
    layers: &[PathBuf],
    flavour: Flavour,
) -> Result<Meta, SnapshotError> {
    let mut into = Unpacker::new(dest, flavour)?;
    let mut bytes = 0;
    for layer in layers {
        let meta = Meta::read(layer).ok_or_else(|| SnapshotError::Missing {
            path: layer.clone(),
        })?;
        bytes += meta.bytes;
        let dir = layer.join("fs");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&dir, flags, Mode::empty()).at("open", &dir)?;
        let mut merge = Merge {
            dir: &dir,
            flavour,
            implicit: meta.implicit.iter().collect(),
            into: &mut into,
        };
        merge.contents(root.as_fd(), &LayerPath::ROOT)?;
    }
    let meta = into.finish()?;
    Ok(Meta { bytes, ..meta })
}

/// One layer on its way into the folded directory.
struct Merge<'a> {
    dir: &'a Path,
    flavour: Flavour,
    implicit: HashSet<&'a LayerPath>,
    into: &'a mut Unpacker,
}

impl Merge<'_> {
    fn contents(&mut self, dir: BorrowedFd<'_>, path: &LayerPath) -> Result<(), SnapshotError> {
        let names = overlay::sorted_names(dir).at("list", self.host_path(path))?;
        for name in names {
            self.node(dir, &name, path.join(&name))?;
        }
        Ok(())
    }

    fn node(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: LayerPath,
    ) -> Result<(), SnapshotError> {
        let stat = overlay::stat(dir, name).at("examine", self.host_path(&path))?;
        if overlay::is_whiteout(&stat) {
            return self.into.delete(&path);
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return self.into.adopt(&path, dir, name);
        }
        let attributes = Attributes::read(dir, name, self.flavour)
            .at("read attributes of", self.host_path(&path))?;
        if attributes.opaque {
            self.into.clear(&path)?;
        }
        if self.implicit.contains(&path) {
            self.into.imply(&path)?;
        } else {
            let entry = Entry {
                path: path.clone(),
                kind: EntryKind::Directory,
                mode: stat.st_mode & 0o7777,
                uid: stat.st_uid,
                gid: stat.st_gid,
                mtime: stat.st_mtime,
                xattrs: attributes.kept,
            };
            self.into.apply(&entry, &mut std::io::empty())?;
        }
        let child = overlay::open_dir(dir, name).at("open", self.host_path(&path))?;
        self.contents(child.as_fd(), &path)
    }

    fn host_path(&self, path: &LayerPath) -> PathBuf {
        self.dir.join(path.as_path())
    }
}
