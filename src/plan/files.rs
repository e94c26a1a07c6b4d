//! The files of a commit by the paths that they have, or would have, in the work tree.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

use crate::{
    fs::{Disk, FileKind, Files, FsError, IoContext as _},
    git::{GitError, Tree, TreeEntryKind},
    oci::layer::LayerPath,
};

/// [`Files`] of a commit. Paths outside of the repository lead to the disk: nothing else is known
/// of them.
#[derive(Debug, Clone)]
pub struct CommitFiles {
    tree: Tree,
    /// The directory of the work tree; of a bare repository its own.
    top: PathBuf,
    /// Where relative paths start.
    directory: PathBuf,
}

impl CommitFiles {
    /// The files of `tree`; relative paths start at `directory`, which is absolute. In a bare
    /// repository that is the root of the tree.
    pub fn new(tree: Tree, directory: &Path) -> Self {
        let repository = tree.repository();
        let (top, directory) = match repository.work_dir() {
            Some(top) => (top.to_owned(), directory.to_owned()),
            None => (
                repository.git_dir().to_owned(),
                repository.git_dir().to_owned(),
            ),
        };
        Self {
            tree,
            top,
            directory,
        }
    }

    /// The tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The place of an absolute path in the tree; none outside of the repository.
    pub fn place(&self, path: &Path) -> Option<LayerPath> {
        let mut whole = PathBuf::new();
        for part in self.directory.join(path).components() {
            match part {
                Component::CurDir => {}
                Component::ParentDir => {
                    whole.pop();
                }
                part => whole.push(part),
            }
        }
        LayerPath::new(whole.strip_prefix(&self.top).ok()?).ok()
    }

    fn entry(&self, place: &LayerPath) -> Result<Option<TreeEntryKind>, GitError> {
        let at = self.tree.resolve(place)?;
        if at.is_root() {
            return Ok(Some(TreeEntryKind::Directory));
        }
        Ok(self.tree.entry(&at)?.map(|entry| entry.kind))
    }
}

fn failed(error: GitError) -> io::Error {
    io::Error::other(error)
}

impl Files for CommitFiles {
    fn read(&self, path: &Path) -> Result<Vec<u8>, FsError> {
        let Some(place) = self.place(path) else {
            return Disk.read(path);
        };
        let bytes = self.tree.read(&place).map_err(failed).at("read", path)?;
        let missing = || io::Error::new(io::ErrorKind::NotFound, "it is not in the commit");
        bytes.ok_or_else(missing).at("read", path)
    }

    fn kind(&self, path: &Path) -> Option<FileKind> {
        let Some(place) = self.place(path) else {
            return Disk.kind(path);
        };
        Some(match self.entry(&place).ok()?? {
            TreeEntryKind::Directory => FileKind::Directory,
            _ => FileKind::File,
        })
    }

    fn canonicalize(&self, path: &Path) -> Result<PathBuf, FsError> {
        let Some(place) = self.place(path) else {
            return Disk.canonicalize(path);
        };
        let at = self.tree.resolve(&place).map_err(failed).at("find", path)?;
        let there = at.is_root()
            || self
                .tree
                .entry(&at)
                .map_err(failed)
                .at("find", path)?
                .is_some();
        match there {
            true => Ok(self.top.join(at.as_path())),
            false => {
                let missing = io::Error::new(io::ErrorKind::NotFound, "it is not in the commit");
                Err(missing).at("find", path)
            }
        }
    }
}
