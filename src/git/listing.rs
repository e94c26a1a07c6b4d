//! The entries of one tree object, sorted by name.
//!
//! Git sorts directories as if their names ended with a slash; here the order is that of
//! the names' bytes, as [`LayerPath`](crate::oci::layer::LayerPath) has it.

use std::{ops::Range, sync::Arc};

use gix::objs::TreeRefIter;

use super::{GitError, ObjectId, Repository, fetch};

/// An entry of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeEntry {
    /// What it is.
    pub kind: TreeEntryKind,
    /// The blob, tree, or commit of a submodule.
    pub id: ObjectId,
}

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeEntryKind {
    /// `100644`.
    File,
    /// `100755`.
    Executable,
    /// `120000`.
    Symlink,
    /// `040000`.
    Directory,
    /// `160000`.
    Submodule,
}

impl TreeEntryKind {
    /// The mode as Git writes it: six octal digits.
    pub fn mode(self) -> &'static str {
        match self {
            Self::File => "100644",
            Self::Executable => "100755",
            Self::Symlink => "120000",
            Self::Directory => "040000",
            Self::Submodule => "160000",
        }
    }

    /// Whether it is a regular file.
    pub fn is_file(self) -> bool {
        matches!(self, Self::File | Self::Executable)
    }

    fn of(mode: gix::objs::tree::EntryMode) -> Self {
        use gix::objs::tree::EntryKind;
        match mode.kind() {
            EntryKind::Tree => Self::Directory,
            EntryKind::Blob => Self::File,
            EntryKind::BlobExecutable => Self::Executable,
            EntryKind::Link => Self::Symlink,
            EntryKind::Commit => Self::Submodule,
        }
    }
}

/// A tree object, decoded.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The names, one after the other.
    names: Vec<u8>,
    rows: Vec<(Range<usize>, TreeEntry)>,
}

impl Listing {
    /// Reads tree `id`, which is fetched if need be.
    pub(super) fn read(repository: &Repository, id: ObjectId) -> Result<Arc<Self>, GitError> {
        let read = || repository.object("tree", id, |data| Self::decode(id, data));
        match read() {
            Err(GitError::Missing { .. }) if repository.settings().is_some() => {
                fetch::objects([(repository, id)].into_iter())?;
                read()?
            }
            result => result?,
        }
    }

    /// Decodes the tree object `data`, whose name is `id`.
    fn decode(id: ObjectId, data: &[u8]) -> Result<Result<Arc<Self>, GitError>, Box<gix::Error>> {
        let mut listing = Self::default();
        for entry in TreeRefIter::from_bytes(data, id.0.kind()) {
            let entry = entry?;
            let name: &[u8] = entry.filename.as_ref();
            if !is_safe(name) {
                return Ok(Err(GitError::UnsafeName {
                    tree: id,
                    name: String::from_utf8_lossy(name).into_owned(),
                }));
            }
            let start = listing.names.len();
            listing.names.extend_from_slice(name);
            let found = TreeEntry {
                kind: TreeEntryKind::of(entry.mode),
                id: ObjectId(entry.oid.to_owned()),
            };
            listing.rows.push((start..listing.names.len(), found));
        }
        let Self { names, rows } = &mut listing;
        rows.sort_by(|(a, _), (b, _)| names[a.clone()].cmp(&names[b.clone()]));
        Ok(Ok(Arc::new(listing)))
    }

    /// The entries with their names, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], TreeEntry)> {
        self.rows
            .iter()
            .map(|(name, entry)| (&self.names[name.clone()], *entry))
    }

    /// The entry called `name`.
    pub(super) fn get(&self, name: &[u8]) -> Option<TreeEntry> {
        let n = self
            .rows
            .binary_search_by(|(row, _)| self.names[row.clone()].cmp(name))
            .ok()?;
        Some(self.rows[n].1)
    }
}

/// Whether Git would check out an entry of this name.
fn is_safe(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && !name.eq_ignore_ascii_case(b".git")
        && !name.contains(&b'/')
        && !name.contains(&0)
}
