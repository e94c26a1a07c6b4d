//! What is kept beside a step's entry in the local store so that a later miss can be
//! explained: the values that the entry has as digests only, what its inputs were, and
//! which files it selected.
//!
//! A [`StepNote`] is a blob attached to the entry of the definition key: one JSON object with `note`
//! ([`NAME`]) and `version` ([`VERSION`]). The listings that it names are blobs of their own,
//! attached too, so that steps which select the same files share one. Entries that travel have none of
//! this. Losing a note costs an explanation its details.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read as _,
};

use serde::{Deserialize, Serialize};

use crate::{
    cache::{ActionResult, CacheError, DiskStore, EntryId},
    digest::Sha256Digest,
    engine::{
        bytes::store_bytes,
        files::{Source, select},
    },
    graph::{BuildGraph, FileAction, MountOp, Op, VertexId},
    key::{CacheKey, DefinitionKeys, FileListing, OldPart, OldValue, RecipeValue, hidden_items},
};

/// What the JSON object says that it is.
const NAME: &str = "memobuild-ci step note";

/// Version of its form.
const VERSION: u32 = 1;

/// Bytes up to which a note or a listing is read.
const LONGEST: u64 = 256 << 20;

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StepNote {
    note: String,
    version: u32,
    /// Parts of the recipe that the entry has as digests.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    values: BTreeMap<String, NoteValue>,
    /// The vertices that the recipe has keys of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) inputs: Vec<NoteInput>,
    /// What was selected from contexts, by the part of the recipe.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) files: BTreeMap<String, NoteFiles>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum NoteValue {
    Text(String),
    /// Items of a list, secrets hidden.
    Items(Vec<String>),
}

/// An input of the step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NoteInput {
    /// As the recipe has it.
    pub(super) key: CacheKey,
    /// The name of the step or source.
    pub(super) name: String,
    /// For a base image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<NoteImage>,
}

/// A base image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NoteImage {
    pub(super) reference: String,
    pub(super) manifest: Sha256Digest,
}

/// A selection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NoteFiles {
    /// The blob with the [`FileListing`].
    pub(super) listing: Sha256Digest,
    /// The text of the ignore file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) ignore: String,
}

/// The inputs that a step's recipe has keys of, with the names of the parts.
pub(super) fn inputs(graph: &BuildGraph, op: &Op) -> Vec<(String, VertexId)> {
    let mut inputs: Vec<(String, VertexId)> = Vec::new();
    inputs.extend(op.root().map(|root| ("root".to_owned(), root)));
    match op {
        Op::Exec(exec) => {
            let mounts = exec.mounts.iter().enumerate();
            let from =
                |(n, mount): (usize, &MountOp)| Some((format!("mount.{n}.from"), mount.from()?));
            inputs.extend(mounts.filter_map(from));
        }
        Op::File(file) => {
            for (n, action) in file.actions.iter().enumerate() {
                if let FileAction::Copy(copy) = action
                    && !matches!(graph.vertex(copy.from).op, Op::Context(_))
                {
                    inputs.push((format!("copy.{n}.from"), copy.from));
                }
            }
        }
        Op::Scratch | Op::Image(_) | Op::Context(_) => {}
    }
    inputs
}

/// What an action of a step selects from a context.
pub(super) struct Selected {
    /// The part of the recipe.
    pub(super) part: String,
    /// The number of the context.
    pub(super) context: usize,
    pub(super) listing: FileListing,
}

/// What the actions of a step select from contexts.
pub(super) fn selections(
    graph: &BuildGraph,
    sources: &HashMap<usize, Source>,
    id: VertexId,
) -> Vec<Selected> {
    let Op::File(file) = &graph.vertex(id).op else {
        return Vec::new();
    };
    let mut selections = Vec::new();
    for (n, action) in file.actions.iter().enumerate() {
        if let FileAction::Copy(copy) = action
            && let Op::Context(context) = graph.vertex(copy.from).op
            && let Some(source) = sources.get(&context)
            // The keys were computed of the same, so it can be selected.
            && let Ok(selection) = select(source, copy)
        {
            selections.push(Selected {
                part: format!("copy.{n}.files"),
                context,
                listing: selection.listing(source),
            });
        }
    }
    selections
}

/// Keeps a note of the step beside `entry`, which stands under its definition key.
pub(super) fn keep(
    store: &DiskStore,
    graph: &BuildGraph,
    keys: &DefinitionKeys,
    sources: &HashMap<usize, Source>,
    id: VertexId,
    entry: EntryId,
) -> Result<(), CacheError> {
    let mut note = StepNote {
        note: NAME.to_owned(),
        version: VERSION,
        values: BTreeMap::new(),
        inputs: Vec::new(),
        files: BTreeMap::new(),
    };
    let recipe = keys.recipe_of(id);
    for (part, (name, value)) in recipe.stored().iter().zip(recipe.parts()) {
        let (RecipeValue::Digest(_), Ok(text)) = (&part.value, std::str::from_utf8(value)) else {
            continue;
        };
        let kept = match (name, hidden_items(value)) {
            ("env", Some(items)) => NoteValue::Items(items),
            _ => NoteValue::Text(text.to_owned()),
        };
        note.values.insert(name.to_owned(), kept);
    }
    for (_, input) in inputs(graph, &graph.vertex(id).op) {
        let vertex = graph.vertex(input);
        note.inputs.push(NoteInput {
            key: keys.key(input),
            name: vertex.name.clone(),
            image: match &vertex.op {
                Op::Image(image) => Some(NoteImage {
                    reference: image.reference.clone(),
                    manifest: image.manifest,
                }),
                _ => None,
            },
        });
    }
    let mut blobs = Vec::new();
    for selected in selections(graph, sources, id) {
        let listing = store_once(store, &selected.listing.encode())?;
        blobs.push(listing);
        let ignore = graph.contexts[selected.context].ignore.clone();
        note.files
            .insert(selected.part, NoteFiles { listing, ignore });
    }
    // Serialising plain structs to memory has no way to fail.
    let bytes = serde_json::to_vec(&note).unwrap_or_default();
    blobs.push(store_once(store, &bytes)?);
    store.attach(entry, &blobs)
}

/// Writes a blob unless it is there.
fn store_once(store: &DiskStore, bytes: &[u8]) -> Result<Sha256Digest, CacheError> {
    let digest = Sha256Digest::of(bytes);
    match store.contains(&digest)? {
        true => Ok(digest),
        false => store_bytes(store, bytes),
    }
}

impl StepNote {
    /// The note beside `entry`, if there is one that can be read.
    pub(super) fn of(store: &DiskStore, entry: &ActionResult) -> Option<Self> {
        let attached = store.attached(entry).ok()?;
        let mut notes = attached.into_iter().filter_map(|digest| {
            let note: Self = serde_json::from_slice(&read(store, digest, b"{")?).ok()?;
            (note.note == NAME && note.version == VERSION).then_some(note)
        });
        notes.next()
    }

    /// The input with this key.
    pub(super) fn input(&self, key: &str) -> Option<&NoteInput> {
        self.inputs
            .iter()
            .find(|input| input.key.to_string() == key)
    }
}

/// The recipe of an entry, with the values that its note knows.
pub(super) fn old_parts(entry: &ActionResult, note: Option<&StepNote>) -> Vec<OldPart> {
    let mut parts: Vec<OldPart> = entry.recipe.iter().map(OldPart::from).collect();
    for part in &mut parts {
        if let (OldValue::Digest(_), Some(note)) = (&part.value, note)
            && let Some(value) = note.values.get(&part.name)
        {
            part.value = match value {
                NoteValue::Text(text) => OldValue::Text(text.clone()),
                NoteValue::Items(items) => OldValue::Items(items.clone()),
            };
        }
    }
    parts
}

/// A listing that a note names, if it can be read.
pub(super) fn listing(store: &DiskStore, digest: Sha256Digest) -> Option<FileListing> {
    FileListing::decode(&read(store, digest, b"")?)
}

/// The bytes of a blob that starts with `start`.
fn read(store: &DiskStore, digest: Sha256Digest, start: &[u8]) -> Option<Vec<u8>> {
    let mut blob = store.open_blob_verified(&digest).ok()??;
    if blob.size() > LONGEST {
        return None;
    }
    let mut first = vec![0; start.len()];
    blob.read_exact(&mut first).ok()?;
    if first != start {
        return None;
    }
    blob.read_to_end(&mut first).ok()?;
    blob.finish().ok()?;
    Some(first)
}
