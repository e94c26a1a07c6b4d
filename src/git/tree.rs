//! The files of a commit.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, sync::Arc};

pub use super::listing::{TreeEntry, TreeEntryKind};
use super::{GitError, ObjectId, Repository, listing::Listing};
use crate::oci::layer::LayerPath;

/// Symlinks that a path may lead through, as on Linux.
const MAX_SYMLINKS: usize = 40;

/// A root tree with the repository that it is read from.
#[derive(Debug, Clone)]
pub struct Tree {
    repository: Repository,
    id: ObjectId,
    root: Arc<Listing>,
}

impl Tree {
    pub(super) fn new(repository: Repository, id: ObjectId) -> Result<Self, GitError> {
        let root = Listing::read(&repository, id)?;
        Ok(Self {
            repository,
            id,
            root,
        })
    }

    /// The name of the tree.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// Where it is read from.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// What stands at `path`, symlinks not followed; none if nothing does, and for the root.
    pub fn entry(&self, path: &LayerPath) -> Result<Option<TreeEntry>, GitError> {
        let mut listing = Arc::clone(&self.root);
        let mut found: Option<TreeEntry> = None;
        for name in path.components() {
            if let Some(entry) = found {
                if entry.kind != TreeEntryKind::Directory {
                    return Ok(None);
                }
                listing = Listing::read(&self.repository, entry.id)?;
            }
            found = listing.get(name.as_bytes());
            if found.is_none() {
                return Ok(None);
            }
        }
        Ok(found)
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
            match self.entry(&next)? {
                Some(TreeEntry {
                    kind: TreeEntryKind::Symlink,
                    id,
                }) => {
                    links += 1;
                    let target = self.repository.blob(id)?;
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

    /// Whether `path`, symlinks followed, is a directory. The directory of a submodule is none.
    pub fn is_dir(&self, path: &LayerPath) -> Result<bool, GitError> {
        let at = self.resolve(path)?;
        Ok(at.is_root()
            || self
                .entry(&at)?
                .is_some_and(|entry| entry.kind == TreeEntryKind::Directory))
    }
}
