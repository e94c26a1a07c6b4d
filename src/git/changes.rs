//! What differs between two trees.
//!
//! Both trees are walked together and equal subtrees are passed by, so the cost is that of
//! what changed. Renames aren't looked for: an old path is deleted, a new one added.

use super::{
    GitError, ObjectId, Repository,
    listing::{Listing, TreeEntry, TreeEntryKind},
};
use crate::oci::layer::LayerPath;

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Relative to the root of the repository; never a directory.
    pub path: LayerPath,
    /// What was there; none if the path was added.
    pub before: Option<TreeEntry>,
    /// What is there now; none if it was deleted.
    pub after: Option<TreeEntry>,
}

/// In which way a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// It is not there any more.
    Deleted,
    /// The content of a file differs, or the target of a symlink.
    Modified,
    /// Only the executable bit differs.
    Mode,
    /// A file, symlink or submodule became another of these.
    Type,
    /// A submodule is at another commit.
    Submodule,
}

impl ChangeKind {
    /// Its name, as in the JSON of a plan.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Deleted => "deleted",
            Self::Modified => "modified",
            Self::Mode => "mode",
            Self::Type => "type",
            Self::Submodule => "submodule",
        }
    }
}

impl Change {
    /// In which way the path differs.
    pub fn kind(&self) -> ChangeKind {
        let (before, after) = match (self.before, self.after) {
            (None, _) => return ChangeKind::Added,
            (_, None) => return ChangeKind::Deleted,
            (Some(before), Some(after)) => (before, after),
        };
        let both_files = before.kind.is_file() && after.kind.is_file();
        match (before.kind, after.kind) {
            (TreeEntryKind::Submodule, TreeEntryKind::Submodule) => ChangeKind::Submodule,
            (old, new) if old != new && !both_files => ChangeKind::Type,
            _ if before.id == after.id => ChangeKind::Mode,
            _ => ChangeKind::Modified,
        }
    }
}

/// All paths that differ between two commits, in the order of their components.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangedPaths {
    changes: Vec<Change>,
}

impl ChangedPaths {
    /// What changed from tree `base` to tree `head`; from nothing if `base` is none.
    pub(super) fn between(
        repository: &Repository,
        base: Option<ObjectId>,
        head: ObjectId,
    ) -> Result<Self, GitError> {
        let mut changes = Vec::new();
        walk(repository, &LayerPath::ROOT, base, Some(head), &mut changes)?;
        Ok(Self { changes })
    }

    /// The changes, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Change> {
        self.changes.iter()
    }

    /// How many paths differ.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether no path differs.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes at and below `path`, in order.
    pub fn below(&self, path: &LayerPath) -> impl Iterator<Item = &Change> {
        let start = self.changes.partition_point(|change| change.path < *path);
        self.changes[start..]
            .iter()
            .take_while(move |change| change.path.starts_with(path))
    }

    /// The change of `path` itself.
    pub fn get(&self, path: &LayerPath) -> Option<&Change> {
        self.below(path)
            .next()
            .filter(|change| change.path == *path)
    }
}

impl<'c> IntoIterator for &'c ChangedPaths {
    type Item = &'c Change;
    type IntoIter = std::slice::Iter<'c, Change>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Compares two trees that stand at `path`.
fn walk(
    repository: &Repository,
    path: &LayerPath,
    before: Option<ObjectId>,
    after: Option<ObjectId>,
    changes: &mut Vec<Change>,
) -> Result<(), GitError> {
    if before == after {
        return Ok(());
    }
    let read = |id: Option<ObjectId>| match id {
        Some(id) => Listing::read(repository, id),
        None => Ok(Default::default()),
    };
    let (old, new) = (read(before)?, read(after)?);
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let name = match (old.peek(), new.peek()) {
            (None, None) => return Ok(()),
            (Some((name, _)), None) | (None, Some((name, _))) => *name,
            (Some((a, _)), Some((b, _))) => *a.min(b),
        };
        let name = name.to_vec();
        let was = old.next_if(|(n, _)| **n == *name).map(|(_, entry)| entry);
        let is = new.next_if(|(n, _)| **n == *name).map(|(_, entry)| entry);
        if was != is {
            use std::os::unix::ffi::OsStrExt as _;
            let path = path.join(std::ffi::OsStr::from_bytes(&name));
            entries(repository, path, was, is, changes)?;
        }
    }
}

/// Compares what two trees have at `path`, which differs.
fn entries(
    repository: &Repository,
    path: LayerPath,
    was: Option<TreeEntry>,
    is: Option<TreeEntry>,
    changes: &mut Vec<Change>,
) -> Result<(), GitError> {
    let is_dir = |entry: &TreeEntry| entry.kind == TreeEntryKind::Directory;
    let dirs = (was.filter(is_dir), is.filter(is_dir));
    let (before, after) = (was.filter(|e| !is_dir(e)), is.filter(|e| !is_dir(e)));
    if before.is_some() || after.is_some() {
        changes.push(Change {
            path: path.clone(),
            before,
            after,
        });
    }
    if dirs.0.is_some() || dirs.1.is_some() {
        let (before, after) = (dirs.0.map(|e| e.id), dirs.1.map(|e| e.id));
        walk(repository, &path, before, after, changes)?;
    }
    Ok(())
}
