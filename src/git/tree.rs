//! The files of a commit.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, sync::Arc};

pub use super::listing::{TreeEntry, TreeEntryKind};
use super::{
    GitError, ObjectId, Repository,
    checkout::{Checkout, Dir, Node},
};
use crate::oci::layer::LayerPath;

/// Symlinks that a path may lead through, as on Linux.
const MAX_SYMLINKS: usize = 40;

/// All that a checkout of a commit would hold, read from the repository.
///
/// Submodules belong to it where they are at hand: those that are checked out beside a work
/// tree, in a bare repository those below its `modules`.
#[derive(Debug, Clone)]
pub struct Tree {
    id: ObjectId,
    pub(super) checkout: Arc<Checkout>,
}

impl Tree {
    pub(super) fn new(
        repository: &Repository,
        id: ObjectId,
        commit: Option<ObjectId>,
    ) -> Result<Self, GitError> {
        Ok(Self {
            id,
            checkout: Checkout::new(repository.clone(), id, commit, None)?,
        })
    }

    /// The name of the root tree.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// Where it is read from.
    pub fn repository(&self) -> &Repository {
        &self.checkout.repository
    }

    /// What stands at `path`, symlinks not followed; none if nothing does, and for the root.
    pub fn entry(&self, path: &LayerPath) -> Result<Option<TreeEntry>, GitError> {
        Ok(self.find(path)?.map(|(_, entry)| entry))
    }

    /// The content of the file at `path`, as a checkout would write it, symlinks followed;
    /// none if there is no file. An error if its content can't be told from its blob.
    pub fn read(&self, path: &LayerPath) -> Result<Option<Vec<u8>>, GitError> {
        let at = self.resolve(path)?;
        let Some((dir, entry)) = self.find(&at)? else {
            return Ok(None);
        };
        let name = at.file_name().unwrap_or_default();
        match entry.kind {
            TreeEntryKind::File | TreeEntryKind::Executable => {
                super::scan::read_file(&dir, name, entry.id, path).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The place that `path` means with all symlinks followed, whether or not something is
    /// there. An error where they leave the repository or never end.
    pub fn resolve(&self, path: &LayerPath) -> Result<LayerPath, GitError> {
        let error = || GitError::Symlinks {
            path: path.as_path().display().to_string(),
        };
        let mut left: Vec<Vec<u8>> = path
            .components()
            .rev()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let mut at = LayerPath::ROOT;
        let mut links = 0;
        while let Some(name) = left.pop() {
            match &*name {
                b"" | b"." => continue,
                b".." => {
                    at = at.parent().ok_or_else(error)?;
                    continue;
                }
                _ => {}
            }
            let next = at.join(OsStr::from_bytes(&name));
            match self.find(&next)? {
                Some((dir, entry)) if entry.kind == TreeEntryKind::Symlink => {
                    links += 1;
                    let target = super::fetch::blob(&dir.checkout.repository, entry.id)?;
                    if links > MAX_SYMLINKS || target.starts_with(b"/") {
                        return Err(error());
                    }
                    left.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
                }
                _ => at = next,
            }
        }
        Ok(at)
    }

    /// Whether `path`, symlinks followed, is a directory or a submodule.
    pub fn is_dir(&self, path: &LayerPath) -> Result<bool, GitError> {
        use TreeEntryKind::{Directory, Submodule};
        let at = self.resolve(path)?;
        let entry = self.entry(&at)?;
        Ok(at.is_root() || entry.is_some_and(|e| matches!(e.kind, Directory | Submodule)))
    }

    /// The directory at `path`, whose components are no symlinks; none if there is none.
    pub(super) fn dir(&self, path: &LayerPath) -> Result<Option<Dir>, GitError> {
        match self.find(path)? {
            _ if path.is_root() => self.checkout.top().map(Some),
            Some((dir, entry)) => dir.open(path.file_name().unwrap_or_default(), entry),
            None => Ok(None),
        }
    }

    /// The entry at `path` and the directory that it is in.
    fn find(&self, path: &LayerPath) -> Result<Option<(Dir, TreeEntry)>, GitError> {
        let mut dir = self.checkout.top()?;
        let mut names = path.components().peekable();
        while let Some(name) = names.next() {
            let Some(Node::Entry(entry)) = dir.look(name) else {
                return Ok(None);
            };
            if names.peek().is_none() {
                return Ok(Some((dir, entry)));
            }
            match dir.open(name, entry)? {
                Some(below) => dir = below,
                None => return Ok(None),
            }
        }
        Ok(None)
    }
}
