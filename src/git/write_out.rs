//! A commit's files on disk, without a work tree and without running anything that a checkout runs:
//! no hook, no filter.

use std::{
    ffi::OsStr,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use super::{
    GitError, Tree,
    checkout::{Dir, Node},
    listing::TreeEntryKind,
    scan,
};
use crate::{fs, oci::layer::LayerPath};

/// Writes all files of `tree` below `dest`, an empty directory, as a checkout would. Submodules that
/// are not at hand become empty directories. An error where a file's content can't be told.
pub fn write_out(tree: &Tree, dest: &Path) -> Result<(), GitError> {
    let Some(root) = tree.dir(&LayerPath::ROOT)? else {
        return Ok(());
    };
    directory(&root, &LayerPath::ROOT, dest)
}

fn directory(dir: &Dir, at: &LayerPath, dest: &Path) -> Result<(), GitError> {
    for name in dir.names() {
        let name = OsStr::from_bytes(&name);
        // Names that Git doesn't allow lead out of the directory, or into a repository.
        if matches!(name.as_bytes(), b"" | b"." | b"..") || name.eq_ignore_ascii_case(".git") {
            continue;
        }
        let Some(Node::Entry(entry)) = dir.look(name) else {
            continue;
        };
        let (path, target) = (at.join(name), dest.join(name));
        match entry.kind {
            TreeEntryKind::Directory | TreeEntryKind::Submodule => {
                fs::create_dir(&target)?;
                if let Some(below) = dir.open(name, entry)? {
                    directory(&below, &path, &target)?;
                }
            }
            TreeEntryKind::Symlink if dir.checkout.symlinks => {
                let text = super::fetch::blob(&dir.checkout.repository, entry.id)?;
                fs::symlink(std::ffi::OsString::from_vec(text), &target)?;
            }
            TreeEntryKind::Symlink => {
                let text = super::fetch::blob(&dir.checkout.repository, entry.id)?;
                fs::write_new(&target, &text, 0o644)?;
            }
            TreeEntryKind::File | TreeEntryKind::Executable => {
                let bytes = scan::read_file(dir, name, entry.id, &path)?;
                let mode = match entry.kind {
                    TreeEntryKind::Executable => 0o755,
                    _ => 0o644,
                };
                fs::write_new(&target, &bytes, mode)?;
            }
        }
    }
    Ok(())
}
