//! Keys of selections from one commit to the next: what copies take of directories that no commit in
//! between changed is looked at once.
//!
//! A selection follows from the copy, the ignore file and the objects at the places that were looked at
//! for it; those again follow from what is at the first of them. So where the objects at all
//! the places of an earlier look are the same, so is the key.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::{Selected, files::CommitFiles};
use crate::{
    digest::{Blake3Digest, KeyEncoder},
    git::{GitError, Tree, TreeEntry, TreeEntryKind},
    graph::{CopyAction, LocalContext, VertexId},
    oci::layer::LayerPath,
};

/// Name of the files by which Git decides what a checkout writes.
const ATTRIBUTES: &str = ".gitattributes";

/// What was found so far. Threads share it.
#[derive(Debug, Default)]
pub struct SelectionMemo {
    known: Mutex<HashMap<Blake3Digest, Vec<Look>>>,
}

/// The looks at one set of places.
#[derive(Debug)]
struct Look {
    /// Relative to the context.
    places: Vec<LayerPath>,
    found: HashMap<Blake3Digest, Selected>,
}

impl SelectionMemo {
    /// The key of what `copy` takes of the context `local` in a commit, from an earlier look or by
    /// `look`, which gives the places it looked at too.
    pub fn get<E: From<GitError>>(
        &self,
        files: &CommitFiles,
        (local, copy): (&LocalContext, &CopyAction),
        look: impl FnOnce() -> Result<(Vec<LayerPath>, Selected), E>,
    ) -> Result<Selected, E> {
        let Some(dir) = files.place(&local.dir) else {
            return Ok(look()?.1);
        };
        let question = question(local, copy);
        let sets: Vec<Vec<LayerPath>> = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let looks = known.get(&question).into_iter().flatten();
            looks.map(|look| look.places.clone()).collect()
        };
        for places in &sets {
            let state = state(files.tree(), &dir, places)?;
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let looks = known.get(&question).into_iter().flatten();
            let mut looks = looks.filter(|look| look.places == *places);
            if let Some(key) = looks.find_map(|look| look.found.get(&state)) {
                return Ok(key.clone());
            }
        }
        let (places, key) = look()?;
        let state = state(files.tree(), &dir, &places)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let looks = known.entry(question).or_default();
        let found = match looks.iter_mut().find(|look| look.places == places) {
            Some(look) => &mut look.found,
            None => {
                looks.push(Look {
                    places,
                    found: HashMap::new(),
                });
                let last = looks.len() - 1;
                &mut looks[last].found
            }
        };
        found.insert(state, key.clone());
        Ok(key)
    }
}

/// What is asked: the copy and the context without its files.
fn question(local: &LocalContext, copy: &CopyAction) -> Blake3Digest {
    let copy = CopyAction {
        // Its number in the graph means nothing.
        from: VertexId(0),
        ..copy.clone()
    };
    KeyEncoder::new("memobuild-ci 2026-11 selection memo question v1")
        .field("dir", local.dir.display().to_string())
        .field("ignore", &local.ignore)
        .field("copy", format!("{copy:?}"))
        .finish()
}

/// What is at the places, as Git names it, and what decides on the way there how it is read.
fn state(tree: &Tree, dir: &LayerPath, places: &[LayerPath]) -> Result<Blake3Digest, GitError> {
    let mut encoder = KeyEncoder::new("memobuild-ci 2026-11 selection memo state v1");
    for place in places {
        let mut at = LayerPath::ROOT;
        note_attributes(&mut encoder, tree, &at)?;
        let whole = dir.components().chain(place.components());
        let count = dir.components().count() + place.components().count();
        if count == 0 {
            encoder.field("root", tree.id().to_string());
        }
        for (n, name) in whole.enumerate() {
            at = at.join(name);
            let entry = tree.entry(&at)?;
            let is_dir = entry.is_some_and(|e| e.kind == TreeEntryKind::Directory);
            if n + 1 == count || !is_dir {
                encoder.field("entry", told(entry));
            }
            if is_dir && n + 1 < count {
                note_attributes(&mut encoder, tree, &at)?;
            }
        }
    }
    Ok(encoder.finish())
}

fn note_attributes(encoder: &mut KeyEncoder, tree: &Tree, dir: &LayerPath) -> Result<(), GitError> {
    let entry = tree.entry(&dir.join(std::ffi::OsStr::new(ATTRIBUTES)))?;
    encoder.field("attributes", told(entry));
    Ok(())
}

fn told(entry: Option<TreeEntry>) -> String {
    match entry {
        Some(entry) => format!("{:?} {}", entry.kind, entry.id),
        None => String::new(),
    }
}
