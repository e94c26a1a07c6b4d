//! Which files of a source a COPY names: cleaning, wildcards, symlinks.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use super::{FileError, Source, view};
use crate::{
    digest::KeyEncoder,
    dockerfile::{
        ignore::{Ignore, Verdict},
        pattern::{self, Pattern},
    },
    graph::CopyAction,
    key::{CacheKey, FileListing, KeyKind, Listed, ListedPath},
    oci::layer::{EntryKind, Found, LayerPath},
};

/// One path that a COPY names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// As it was matched: gives the base name at the destination.
    pub named: LayerPath,
    /// The place it means, symlinks followed.
    pub at: LayerPath,
    /// For `--parents`: what is taken of that directory.
    include: Option<Ignore>,
    /// `--exclude`: what is not taken of that directory.
    exclude: Option<Ignore>,
}

/// A file or directory that a copy takes.
#[derive(Debug)]
pub(super) struct Taken {
    /// Its place in the source.
    pub(super) path: LayerPath,
    /// The same, seen from the place that was matched.
    pub(super) below: LayerPath,
    /// A directory that is taken only because of what follows it.
    pub(super) on_the_way: bool,
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
    let exclude = match copy.exclude.as_slice() {
        [] => None,
        patterns => Some(patterns_of(patterns)?),
    };
    let mut matches = Vec::new();
    for text in &copy.sources {
        if copy.parents {
            select_parents(source, text, exclude.as_ref(), &mut matches)?;
            continue;
        }
        for named in named(source, text)? {
            let at = place(source, text, &named)?;
            matches.push(Match {
                named,
                at,
                include: None,
                exclude: exclude.clone(),
            });
        }
    }
    Ok(Selection { matches })
}

/// `--parents`: the directories before the pivot `/./`, and of each what matches the
/// pattern behind it. Unlike other sources, that is a pattern as in an ignore file.
fn select_parents(
    source: &Source,
    text: &str,
    exclude: Option<&Ignore>,
    matches: &mut Vec<Match>,
) -> Result<(), FileError> {
    let (pivot, rest) = text.split_once("/./").unwrap_or(("", text));
    let pattern = clean(source, rest)?;
    let include = match pattern.is_root() {
        true => None,
        false => Some(patterns_of(&[pattern.as_path().display().to_string()])?),
    };
    let mut any = false;
    for named in named(source, pivot)? {
        let matched = Match {
            at: place(source, text, &named)?,
            named,
            include: include.clone(),
            exclude: exclude.cloned(),
        };
        any |= include.is_none()
            || matched
                .taken(source)
                .iter()
                .any(|taken| !taken.below.is_root());
        matches.push(matched);
    }
    if !any && !pattern::is_pattern(text) {
        return Err(not_found(source, text, &clean(source, text)?));
    }
    Ok(())
}

/// The places that the names of a copy lead to, as far as `source` knows: symlinks may
/// lead to what has not been scanned.
pub fn places(source: &Source, copy: &CopyAction) -> Vec<LayerPath> {
    let mut places = Vec::new();
    for text in &copy.sources {
        let text = match (copy.parents, text.split_once("/./")) {
            (true, Some((pivot, _))) => pivot,
            (true, None) => continue,
            (false, _) => text.as_str(),
        };
        let names = named(source, text).unwrap_or_default();
        places.extend(names.iter().filter_map(|name| follow(source, name).ok()));
    }
    places
}

fn patterns_of(patterns: &[String]) -> Result<Ignore, FileError> {
    Ignore::new(patterns).map_err(|error| FileError::Pattern {
        pattern: error.text,
    })
}

/// The names that a source path stands for.
fn named(source: &Source, text: &str) -> Result<Vec<LayerPath>, FileError> {
    let whole = clean(source, text)?;
    if pattern::is_pattern(text) {
        expand(source, &whole, text)
    } else {
        Ok(vec![whole])
    }
}

/// The place that a name means, which must be there.
fn place(source: &Source, text: &str, named: &LayerPath) -> Result<LayerPath, FileError> {
    let at = follow(source, named)?;
    if source.tree.get(&at).is_none() && !at.is_root() {
        let text = match pattern::is_pattern(text) {
            true => &named.as_path().display().to_string(),
            false => text,
        };
        return Err(not_found(source, text, named));
    }
    Ok(at)
}

impl Match {
    /// What the copy takes of this, in canonical order: the place itself, and below it what
    /// the patterns leave.
    pub(super) fn taken(&self, source: &Source) -> Vec<Taken> {
        let prefix = self.at.as_bytes().len();
        let mut taken = Vec::new();
        // The directories above, with what the patterns say of them, and whether they are taken.
        let mut above: Vec<Above> = Vec::new();
        for (path, found) in source.tree.walk(&self.at) {
            let below = path.as_bytes()[prefix..].strip_prefix(b"/");
            let below = LayerPath::new(OsStr::from_bytes(
                below.unwrap_or(&path.as_bytes()[prefix..]),
            ))
            .unwrap_or_default();
            while above
                .last()
                .is_some_and(|dir| !below.starts_with(&dir.below))
            {
                above.pop();
            }
            let (included, include) = match (&self.include, above.last()) {
                (Some(patterns), Some(dir)) => decide(patterns, dir.include.as_ref(), &below),
                (Some(patterns), None) => (true, Some(patterns.root())),
                (None, _) => (true, None),
            };
            let (excluded, exclude) = match (&self.exclude, above.last()) {
                (Some(patterns), Some(dir)) => decide(patterns, dir.exclude.as_ref(), &below),
                (Some(patterns), None) => (false, Some(patterns.root())),
                (None, _) => (false, None),
            };
            let takes = included && !excluded;
            if takes {
                for dir in above.iter_mut().filter(|dir| !dir.taken) {
                    dir.taken = true;
                    taken.push(Taken {
                        path: dir.path.clone(),
                        below: dir.below.clone(),
                        on_the_way: true,
                    });
                }
            }
            if found.row.entry.kind == EntryKind::Directory {
                above.push(Above {
                    path: path.clone(),
                    below: below.clone(),
                    include,
                    exclude,
                    taken: takes,
                });
            }
            if takes {
                taken.push(Taken {
                    path,
                    below,
                    on_the_way: false,
                });
            }
        }
        taken
    }
}

/// A directory above the one that a walk is at.
struct Above {
    path: LayerPath,
    below: LayerPath,
    include: Option<Verdict>,
    exclude: Option<Verdict>,
    taken: bool,
}

/// Whether patterns match what is at `below`, whose directory has the verdict `above`.
fn decide(
    patterns: &Ignore,
    above: Option<&Verdict>,
    below: &LayerPath,
) -> (bool, Option<Verdict>) {
    let root = patterns.root();
    let verdict = patterns.child(above.unwrap_or(&root), below.as_path());
    (verdict.ignored, Some(verdict))
}

impl Selection {
    /// The digest of what is selected: the names, and below each the type, mode, owner
    /// and content of every file.
    pub fn key(&self, source: &Source) -> CacheKey {
        // Straight to the encoder: a selection can be a hundred thousand files.
        let mut encoder = KeyEncoder::new(KeyKind::Selection.context());
        for matched in &self.matches {
            encoder.field("match", matched.named.as_bytes());
            let prefix = matched.at.as_bytes().len();
            if matched.include.is_none() && matched.exclude.is_none() {
                for (path, found) in source.tree.walk(&matched.at) {
                    encode(&mut encoder, &path.as_bytes()[prefix..], &found);
                }
                continue;
            }
            for taken in matched.taken(source) {
                if let Some(found) = source.tree.get(&taken.path) {
                    let on_the_way = u64::from(taken.on_the_way);
                    encoder.number("on the way", on_the_way);
                    encode(&mut encoder, &taken.path.as_bytes()[prefix..], &found);
                }
            }
        }
        CacheKey(encoder.finish())
    }
}

impl Selection {
    /// The same as a list, for comparing it with another.
    pub fn listing(&self, source: &Source) -> FileListing {
        let mut paths = Vec::new();
        for matched in &self.matches {
            let prefix = matched.at.as_bytes().len();
            let mut list = |path: &LayerPath, found: &Found<'_>, on_the_way: bool| {
                let below = &path.as_bytes()[prefix..];
                let below = below.strip_prefix(b"/").unwrap_or(below);
                let named = matched.named.as_bytes();
                let parts = [named, below];
                let parts: Vec<&[u8]> = parts.into_iter().filter(|p| !p.is_empty()).collect();
                let entry = &found.row.entry;
                paths.push(ListedPath {
                    path: parts.join(&b'/'),
                    mode: entry.mode,
                    what: match &entry.kind {
                        EntryKind::Directory => Listed::Directory { on_the_way },
                        EntryKind::Regular { size } => Listed::File {
                            size: *size,
                            digest: found.row.content,
                        },
                        EntryKind::Symlink { target } => {
                            Listed::Symlink(target.as_os_str().as_bytes().to_vec())
                        }
                        kind => Listed::Other(format!("{kind:?}").into_bytes()),
                    },
                });
            };
            if matched.include.is_none() && matched.exclude.is_none() {
                for (path, found) in source.tree.walk(&matched.at) {
                    list(&path, &found, false);
                }
                continue;
            }
            for taken in matched.taken(source) {
                if let Some(found) = source.tree.get(&taken.path) {
                    list(&taken.path, &found, taken.on_the_way);
                }
            }
        }
        FileListing { paths }
    }
}

fn encode(encoder: &mut KeyEncoder, path: &[u8], found: &Found<'_>) {
    let entry = &found.row.entry;
    encoder
        .field("path", path)
        .number("mode", entry.mode.into())
        .number("uid", entry.uid.into())
        .number("gid", entry.gid.into());
    match &entry.kind {
        EntryKind::Symlink { target } => encoder.field("symlink", target.as_os_str().as_bytes()),
        EntryKind::Regular { size } => encoder.number("size", *size),
        kind => encoder.field("kind", format!("{kind:?}")),
    };
    if let Some(digest) = found.row.content {
        encoder.field("content", digest.as_bytes());
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
    if source.tree.get(&base).is_none() && !base.is_root() {
        return Err(not_found(
            source,
            &literal.as_path().display().to_string(),
            &literal,
        ));
    }
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
