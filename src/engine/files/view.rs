//! The destination of a [`FileOp`](crate::graph::FileOp) while it is being planned:
//! the root file system's merged tree with the changes decided so far on top.

use std::collections::BTreeMap;

use super::{FileError, Planned};
use crate::oci::layer::{Entry, EntryKind, LayerPath, Tree};

/// Symlinks followed before a path counts as a loop, as in Linux.
const MAX_SYMLINKS: usize = 255;

/// The bit that makes a directory hand its group down.
const SETGID: u32 = 0o2000;

/// Reads through planned changes to the tree below.
#[derive(Debug)]
pub(super) struct Destination<'a> {
    tree: &'a Tree,
    planned: BTreeMap<LayerPath, Planned>,
}

impl<'a> Destination<'a> {
    pub(super) fn new(tree: &'a Tree) -> Self {
        Self {
            tree,
            planned: BTreeMap::new(),
        }
    }

    /// The changes, in canonical order.
    pub(super) fn into_planned(self) -> BTreeMap<LayerPath, Planned> {
        self.planned
    }

    /// The existing directories above what is planned, but for the root.
    pub(super) fn unplanned_parents(&self) -> Vec<Planned> {
        let mut parents: BTreeMap<LayerPath, Planned> = BTreeMap::new();
        for path in self.planned.keys() {
            let mut at = path.parent();
            while let Some(dir) = at.filter(|dir| !dir.is_root()) {
                at = dir.parent();
                if self.planned.contains_key(&dir) || parents.contains_key(&dir) {
                    continue;
                }
                let mut planned = Planned::directory(dir.clone(), 0o755, (0, 0));
                // A tree may lack directories that its paths imply: they are root's, 0755.
                if let Some(entry) = self.lstat(&dir) {
                    planned.entry = entry;
                }
                parents.insert(dir, planned);
            }
        }
        parents.into_values().collect()
    }

    /// What stands at `path`, symlinks not followed. The root is always there.
    pub(super) fn lstat(&self, path: &LayerPath) -> Option<Entry> {
        if let Some(planned) = self.planned.get(path) {
            return Some(planned.entry.clone());
        }
        let found = self.tree.get(path).map(|found| found.row.entry.clone());
        let root = || Planned::directory(LayerPath::ROOT, 0o755, (0, 0)).entry;
        found.or_else(|| path.is_root().then(root))
    }

    /// The place that `path` means, every symlink followed inside the root. Components
    /// that don't exist are kept as they are.
    pub(super) fn resolve(&self, path: &str) -> Result<LayerPath, FileError> {
        resolve(path.as_bytes(), |p| self.lstat(p)).ok_or_else(|| FileError::SymlinkLoop {
            path: path.to_owned(),
        })
    }

    /// Drops what is planned below a directory that something else is about to replace.
    pub(super) fn forget_below(&mut self, path: &LayerPath) {
        self.planned
            .retain(|planned, _| planned == path || !planned.starts_with(path));
    }

    /// Plans an entry, replacing what was planned there.
    pub(super) fn put(&mut self, planned: Planned) {
        self.planned.insert(planned.entry.path.clone(), planned);
    }

    /// Plans the directory at `path` and its missing parents with this mode and owner; gives
    /// an error where something else stands. Below a directory with the setgid bit they have
    /// it too, and its group unless there is an owner, as the kernel does it.
    pub(super) fn make_dir_all(
        &mut self,
        path: &LayerPath,
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<(), FileError> {
        let mut missing = Vec::new();
        let mut at = path.clone();
        loop {
            match self.lstat(&at).map(|e| e.kind) {
                Some(EntryKind::Directory) => break,
                Some(_) => {
                    return Err(FileError::NotADirectory {
                        path: at.to_string(),
                    });
                }
                None => {
                    let Some(parent) = at.parent() else { break };
                    missing.push(at);
                    at = parent;
                }
            }
        }
        let parent = self.lstat(&at).filter(|e| e.mode & SETGID != 0);
        let setgid = parent.as_ref().map_or(0, |_| SETGID);
        let owner = owner.unwrap_or((0, parent.map_or(0, |e| e.gid)));
        for dir in missing.into_iter().rev() {
            self.put(Planned::directory(dir, mode | setgid, owner));
        }
        Ok(())
    }
}

/// Follows every symlink of `path` inside the root that `lstat` shows; none for a loop.
pub(super) fn resolve(
    path: &[u8],
    lstat: impl Fn(&LayerPath) -> Option<Entry>,
) -> Option<LayerPath> {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    // Components still to walk, the next one last.
    let split = |bytes: &[u8]| -> Vec<Vec<u8>> {
        bytes
            .split(|b| *b == b'/')
            .rev()
            .map(<[u8]>::to_vec)
            .collect()
    };
    let mut rest = split(path);
    let mut at = LayerPath::ROOT;
    let mut followed = 0;
    while let Some(component) = rest.pop() {
        match component.as_slice() {
            b"" | b"." => continue,
            b".." => {
                at = at.parent().unwrap_or_default();
                continue;
            }
            _ => {}
        }
        let next = at.join(OsStr::from_bytes(&component));
        match lstat(&next).map(|e| e.kind) {
            Some(EntryKind::Symlink { target }) => {
                followed += 1;
                if followed > MAX_SYMLINKS {
                    return None;
                }
                let target = target.as_os_str().as_bytes();
                if target.starts_with(b"/") {
                    at = LayerPath::ROOT;
                }
                rest.extend(split(target));
            }
            _ => at = next,
        }
    }
    Some(at)
}
