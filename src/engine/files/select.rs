//! Which files of a source a COPY names: cleaning, wildcards, symlinks.

use std::os::unix::ffi::OsStrExt;

use super::{FileError, Source, view};
use crate::{
    digest::KeyEncoder,
    dockerfile::pattern::{self, Pattern},
    graph::CopyAction,
    key::{CacheKey, KeyKind},
    oci::layer::{EntryKind, LayerPath},
};

/// One path that a COPY names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// As it was matched: gives the base name at the destination.
    pub named: LayerPath,
    /// The place it means, symlinks followed.
    pub at: LayerPath,
    /// For `--parents`: the part of `named` that is kept below the destination.
    pub kept: LayerPath,
}

/// All paths that a COPY names in one source, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// In the order of the instruction's sources.
    pub matches: Vec<Match>,
}

/// Finds what `copy` names in `source`. A path without wildcards must exist; a pattern
/// may match nothing.
pub fn select(source: &Source, copy: &CopyAction) -> Result<Selection, FileError> {
    let mut selection = Selection::default();
    for text in &copy.sources {
        let (pivot, text_after) = match text.split_once("/./") {
            Some((pivot, rest)) if copy.parents => (clean(source, pivot)?, rest),
            _ => (LayerPath::ROOT, text.as_str()),
        };
        let whole = clean(source, text)?;
        let kept_from = pivot.components().count();
        let kept = |named: &LayerPath| {
            let parts: Vec<_> = named.components().skip(kept_from).collect();
            parts
                .iter()
                .fold(LayerPath::ROOT, |path, part| path.join(part))
        };
        if pattern::is_pattern(text) {
            for named in expand(source, &whole, text_after)? {
                selection.matches.push(Match {
                    at: follow(source, &named)?,
                    kept: kept(&named),
                    named,
                });
            }
            continue;
        }
        let at = follow(source, &whole)?;
        if source.tree.get(&at).is_none() && !at.is_root() {
            return Err(not_found(source, text, &whole));
        }
        selection.matches.push(Match {
            at,
            kept: kept(&whole),
            named: whole,
        });
    }
    Ok(selection)
}

impl Selection {
    /// The digest of what is selected: the names, and below each the type, mode, owner
    /// and content of every file.
    pub fn key(&self, source: &Source) -> CacheKey {
        // Straight to the encoder: a selection can be a hundred thousand files.
        let mut encoder = KeyEncoder::new(KeyKind::Selection.context());
        for matched in &self.matches {
            encoder.field("match", matched.named.as_bytes());
            for (path, found) in source.tree.walk(&matched.at) {
                let entry = &found.row.entry;
                encoder
                    .field("path", &path.as_bytes()[matched.at.as_bytes().len()..])
                    .number("mode", entry.mode.into())
                    .number("uid", entry.uid.into())
                    .number("gid", entry.gid.into());
                match &entry.kind {
                    EntryKind::Symlink { target } => {
                        encoder.field("symlink", target.as_os_str().as_bytes())
                    }
                    EntryKind::Regular { size } => encoder.number("size", *size),
                    kind => encoder.field("kind", format!("{kind:?}")),
                };
                if let Some(digest) = found.row.content {
                    encoder.field("content", digest.as_bytes());
                }
            }
        }
        CacheKey(encoder.finish())
    }
}

/// A source path, relative to its root. Climbing above the root is an error.
fn clean(source: &Source, text: &str) -> Result<LayerPath, FileError> {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err(FileError::Outside {
                        path: text.to_owned(),
                        source_name: source.name.clone(),
                    });
                }
            }
            part => parts.push(part),
        }
    }
    Ok(LayerPath::new(parts.join("/"))?)
}

/// The place `path` means inside the source.
fn follow(source: &Source, path: &LayerPath) -> Result<LayerPath, FileError> {
    view::resolve(path.as_bytes(), |p| {
        source.tree.get(p).map(|found| found.row.entry.clone())
    })
    .ok_or_else(|| FileError::SymlinkLoop {
        path: path.to_string(),
    })
}

fn not_found(source: &Source, text: &str, path: &LayerPath) -> FileError {
    let ignored = match &source.contents {
        // A symlink that leads nowhere is in the tree; what is left out is not.
        super::Contents::Directory(dir) if source.tree.get(path).is_none() => {
            crate::fs::exists(dir.join(path.as_path()))
        }
        _ => false,
    };
    FileError::NotFound {
        path: text.to_owned(),
        source_name: source.name.clone(),
        ignored,
    }
}

/// The paths that match a pattern. A directory that matches stands for all below it.
fn expand(source: &Source, whole: &LayerPath, text: &str) -> Result<Vec<LayerPath>, FileError> {
    let invalid = || FileError::Pattern {
        pattern: text.to_owned(),
    };
    let mut literal = LayerPath::ROOT;
    let mut rest = Vec::new();
    for part in whole.components() {
        let part = part.to_str().ok_or_else(invalid)?;
        if rest.is_empty() && !pattern::is_pattern(part) {
            literal = literal.join(part.as_ref());
        } else {
            rest.push(part);
        }
    }
    let base = follow(source, &literal)?;
    // Pairs of the name as matched and the place it is.
    let mut found: Vec<LayerPath> = vec![base];
    for (n, part) in rest.iter().enumerate() {
        let mut next = Vec::new();
        let pattern = Pattern::new(part).map_err(|_| invalid())?;
        for dir in &found {
            for name in source.tree.children(dir) {
                if pattern.matches(name.as_ref()) {
                    let path = dir.join(&name);
                    // Wildcards don't look through symlinks on the way.
                    let is_dir = source
                        .tree
                        .get(&path)
                        .is_some_and(|f| f.row.entry.kind == EntryKind::Directory);
                    if is_dir || n + 1 == rest.len() {
                        next.push(path);
                    }
                }
            }
        }
        found = next;
    }
    Ok(found)
}
