//! What a scan depends on, without making it.

use std::ffi::OsStr;

use super::{
    GitError, Tree, attributes::Attributes, checkout::makes_symlinks, listing::TreeEntryKind,
};
use crate::{
    digest::{Blake3Digest, KeyEncoder},
    oci::layer::LayerPath,
};

/// The digest of everything in a tree and around it that decides what [`scan()`](super::scan()) gives
/// for `prefixes` of the directory `dir`: the names of the objects there, those of the files of
/// attributes above them, and the repository's settings. The ignore file is not in it. None where a
/// symlink leads elsewhere, or a submodule with settings of its own may be: only a scan can tell what
/// it depends on then.
pub fn scan_inputs(
    tree: &Tree,
    dir: &LayerPath,
    prefixes: &[LayerPath],
) -> Result<Option<Blake3Digest>, GitError> {
    let modules = LayerPath::ROOT.join(OsStr::new(".gitmodules"));
    if tree.entry(&modules)?.is_some() {
        return Ok(None);
    }
    let outside = Attributes::outside(tree.repository())?.digest();
    let mut encoder = KeyEncoder::new("memobuild-ci 2026-11-21 inputs of a git scan v1");
    encoder
        .field("outside", outside.to_string())
        .field("symlinks", makes_symlinks(tree.repository()).to_string())
        .field("dir", dir.as_bytes())
        .number("prefixes", prefixes.len() as u64);
    for prefix in prefixes {
        let mut at = LayerPath::ROOT;
        encoder.field("prefix", prefix.as_bytes());
        attributes_in(tree, &at, &mut encoder)?;
        let names = dir.components().chain(prefix.components());
        let mut kind = Some(TreeEntryKind::Directory);
        for name in names {
            at = at.join(name);
            let entry = tree.entry(&at)?;
            kind = entry.map(|entry| entry.kind);
            match entry {
                Some(entry) if entry.kind == TreeEntryKind::Symlink => return Ok(None),
                Some(entry) if entry.kind == TreeEntryKind::Directory => {
                    attributes_in(tree, &at, &mut encoder)?;
                }
                _ => {}
            }
        }
        let id = match at.is_root() {
            true => Some(tree.id()),
            false => tree.entry(&at)?.map(|entry| entry.id),
        };
        encoder
            .field("kind", kind.map_or("none", TreeEntryKind::mode))
            .field("id", id.map(|id| id.to_string()).unwrap_or_default());
    }
    Ok(Some(encoder.finish()))
}

/// Enters the file of attributes in a directory.
fn attributes_in(tree: &Tree, dir: &LayerPath, encoder: &mut KeyEncoder) -> Result<(), GitError> {
    let file = tree.entry(&dir.join(OsStr::new(".gitattributes")))?;
    encoder.field(
        "attributes",
        file.map(|entry| format!("{} {}", entry.kind.mode(), entry.id))
            .unwrap_or_default(),
    );
    Ok(())
}
