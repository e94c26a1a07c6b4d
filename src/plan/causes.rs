//! What makes a target differ from the base: the first steps that do, and in what.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::Serialize;

use super::{Reason, Side, covers, side::metadata_digest};
use crate::{
    graph::{FileAction, Location, Op, Vertex, VertexId},
    key::{CacheKey, KeyRecipe, RecipeValue},
};

/// Most names of files that a cause lists.
const FILES_MAX: usize = 20;

/// Characters that two values may have to be shown.
const SHORT: usize = 120;

/// Something of a target that differs from the base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Cause {
    /// In what.
    pub kind: CauseKind,
    /// The step or source: `[ml 2/5] COPY requirements.txt .`.
    pub step: String,
    /// Its instruction.
    pub instruction: String,
    /// Where that is written: `docker/Dockerfile.ml:8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// The changed files that it selects, as paths in the repository: the first twenty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// How many they are.
    pub file_count: usize,
    /// What it was and what it is, where that is short: digests, values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<String>,
}

/// In what a step differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CauseKind {
    /// In the files that it copies.
    Files,
    /// It is new, or is written otherwise.
    Instruction,
    /// In variables, the user, the platform, options: what its own line doesn't say.
    Settings,
    /// The base image.
    BaseImage,
    /// The image's configuration.
    Metadata,
    /// A target that it is built on.
    Parent,
}

impl CauseKind {
    /// The reason that a target has for such a cause.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Files => Reason::FilesChanged,
            Self::Instruction => Reason::DockerfileChanged,
            Self::Settings => Reason::SettingsChanged,
            Self::BaseImage => Reason::BaseImageChanged,
            Self::Metadata => Reason::MetadataChanged,
            Self::Parent => Reason::ParentChanged,
        }
    }
}

impl Cause {
    /// In words: ``COPY requirements/ in docker/Dockerfile.ml:8: requirements/app.txt``.
    pub fn sentence(&self) -> String {
        let place = match &self.location {
            Some(location) => format!("`{}` in {location}", self.instruction),
            None => format!("`{}`", self.instruction),
        };
        let difference = self.difference.as_deref().unwrap_or_default();
        match self.kind {
            CauseKind::Files => match (self.files.first(), self.file_count) {
                (Some(first), 1) => format!("{place}: {first}"),
                (Some(first), count) => {
                    let more = count - 1;
                    let files = if more == 1 { "file" } else { "files" };
                    format!("{place}: {first} and {more} more {files}")
                }
                (None, _) => format!("{place} selects other files"),
            },
            CauseKind::Instruction => format!("{place} is new or was changed"),
            CauseKind::Settings => format!("{place}: {difference}"),
            CauseKind::BaseImage => format!("{}: {difference}", self.instruction),
            CauseKind::Metadata => "only the image's configuration".to_owned(),
            CauseKind::Parent => format!("{} is affected", self.step),
        }
    }
}

/// Paths that differ between the two sides, absolute as those of contexts are.
pub type ChangedFiles = BTreeSet<PathBuf>;

/// Why target `target` of `head` is another than target `old` of `base`. Files are named as seen
/// from `root`.
pub(super) fn causes(
    head: &Side,
    base: &Side,
    (target, old): (usize, usize),
    changed: &ChangedFiles,
    root: &Path,
) -> Vec<Cause> {
    let info = &head.targets[target];
    let mut causes = Vec::new();
    for needed in &info.needs {
        let same = match (head.target(needed), base.target(needed)) {
            (Some(a), Some(b)) => root_key(head, a) == root_key(base, b),
            _ => false,
        };
        if !same {
            causes.push(Cause::bare(CauseKind::Parent, needed));
        }
    }
    let known: BTreeSet<CacheKey> = base
        .vertices(old)
        .into_iter()
        .map(|id| base.keys.key(id))
        .collect();
    let (mut by_text, mut by_place) = (HashMap::new(), HashMap::new());
    for row in rows(base, base.own_vertices(old)) {
        by_text.insert(row.text, row.id);
        by_place.insert(row.place, row.id);
    }
    for row in rows(head, head.own_vertices(target)) {
        if known.contains(&head.keys.key(row.id)) {
            continue;
        }
        let before = by_text.get(&row.text).or_else(|| by_place.get(&row.place));
        let before = before.map(|id| (base, *id));
        causes.extend(compare((head, row.id), before, changed, root));
    }
    if causes.is_empty() && metadata_digest(head, target) != metadata_digest(base, old) {
        causes.push(Cause::bare(CauseKind::Metadata, &info.name));
    }
    causes
}

fn root_key(side: &Side, target: usize) -> CacheKey {
    side.keys.key(side.graph.targets[target].root)
}

/// A vertex with what it is recognised by on the other side: what it says and where it stands.
struct Row<'s> {
    id: VertexId,
    /// The instruction, and how many like it came before.
    text: (&'s str, usize),
    /// The stage, and how many of it came before.
    place: (&'s str, usize),
}

/// Counts one more of `name`.
fn count<'s>(of: &mut HashMap<&'s str, usize>, name: &'s str) -> usize {
    let count = of.entry(name).or_insert(0);
    *count += 1;
    *count
}

fn rows(side: &Side, ids: BTreeSet<VertexId>) -> Vec<Row<'_>> {
    let (mut texts, mut places) = (HashMap::new(), HashMap::new());
    let mut rows = Vec::new();
    for id in ids {
        let vertex = side.graph.vertex(id);
        let (text, place) = (vertex.instruction.as_str(), &*vertex.stage);
        rows.push(Row {
            id,
            text: (text, count(&mut texts, text)),
            place: (place, count(&mut places, place)),
        });
    }
    rows
}

/// In what a vertex differs from the one that stood in its place; none if only in its inputs.
fn compare(
    (head, id): (&Side, VertexId),
    before: Option<(&Side, VertexId)>,
    changed: &ChangedFiles,
    root: &Path,
) -> Option<Cause> {
    let vertex = head.graph.vertex(id);
    let old = before.map(|(base, old)| (base.graph.vertex(old), base.keys.recipe_of(old)));
    match (&vertex.op, old.map(|(old, _)| &old.op)) {
        (Op::Scratch | Op::Context(_), _) => return None,
        (Op::Image(image), Some(Op::Image(old))) => {
            let difference = match image.reference == old.reference {
                true => format!("{} -> {}", old.manifest.short(), image.manifest.short()),
                false => format!("`{}` -> `{}`", old.reference, image.reference),
            };
            return Some(Cause {
                difference: Some(difference),
                instruction: format!("FROM {}", image.reference),
                ..Cause::at(CauseKind::BaseImage, vertex)
            });
        }
        (Op::Image(image), _) => {
            return Some(Cause {
                difference: Some("it was not used".to_owned()),
                instruction: format!("FROM {}", image.reference),
                ..Cause::at(CauseKind::BaseImage, vertex)
            });
        }
        (Op::Exec(_) | Op::File(_), _) => {}
    }
    let Some((old, recipe)) = old.filter(|(old, _)| old.op.is_step()) else {
        return Some(Cause::at(CauseKind::Instruction, vertex));
    };
    let differing = differing(recipe, head.keys.recipe_of(id));
    let is_files = |name: &String| name.starts_with("copy.") && name.ends_with(".files");
    let mut own = differing.iter().map(|(name, _)| name);
    if own.clone().all(is_files) {
        own.next()?;
        let files = files(head, vertex, changed, root);
        return Some(Cause {
            file_count: files.len(),
            files: files.into_iter().take(FILES_MAX).collect(),
            ..Cause::at(CauseKind::Files, vertex)
        });
    }
    if old.instruction != vertex.instruction {
        return Some(Cause::at(CauseKind::Instruction, vertex));
    }
    let settings: Vec<String> = differing
        .into_iter()
        .filter(|(name, _)| !is_files(name))
        .map(|(_, told)| told)
        .collect();
    Some(Cause {
        difference: Some(settings.join(", ")),
        ..Cause::at(CauseKind::Settings, vertex)
    })
}

/// The parts of two recipes that differ, each with words for it; those that stand for inputs are
/// left out.
fn differing(old: &KeyRecipe, new: &KeyRecipe) -> Vec<(String, String)> {
    let is_input = |name: &str| name == "root" || name.ends_with(".from");
    let parts = |recipe: &KeyRecipe| -> BTreeMap<String, RecipeValue> {
        let parts = recipe.stored().into_iter();
        parts.map(|part| (part.name, part.value)).collect()
    };
    let (old, new) = (parts(old), parts(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .filter(|name| !is_input(name) && old.get(*name) != new.get(*name))
        .map(|name| {
            let told = match (old.get(name), new.get(name)) {
                (Some(RecipeValue::Text(old)), Some(RecipeValue::Text(new)))
                    if old.len() + new.len() < SHORT && !old.contains('\n') =>
                {
                    format!("`{name}`: `{old}` -> `{new}`")
                }
                _ => format!("`{name}` differs"),
            };
            (name.clone(), told)
        })
        .collect()
}

/// The changed files that a vertex copies from local contexts.
fn files(side: &Side, vertex: &Vertex, changed: &ChangedFiles, root: &Path) -> Vec<String> {
    let Op::File(op) = &vertex.op else {
        return Vec::new();
    };
    let mut found = BTreeSet::new();
    for action in &op.actions {
        let FileAction::Copy(copy) = action else {
            continue;
        };
        let Op::Context(number) = side.graph.vertex(copy.from).op else {
            continue;
        };
        let covered = covers::Covered::of(&side.graph.contexts[number], copy);
        let paths = changed.iter().filter(|path| covered.has(path));
        found.extend(paths.map(|path| {
            let shown = path.strip_prefix(root).unwrap_or(path);
            shown.display().to_string()
        }));
    }
    found.into_iter().collect()
}

impl Cause {
    fn bare(kind: CauseKind, step: &str) -> Self {
        Self {
            kind,
            step: step.to_owned(),
            instruction: String::new(),
            location: None,
            files: Vec::new(),
            file_count: 0,
            difference: None,
        }
    }

    fn at(kind: CauseKind, vertex: &Vertex) -> Self {
        let place = |location: &Location| format!("{}:{}", location.file, location.start);
        Self {
            instruction: vertex.instruction.clone(),
            location: vertex.location.as_ref().map(place),
            ..Self::bare(kind, &vertex.name)
        }
    }
}
