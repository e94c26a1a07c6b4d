//! What the local store knows of earlier builds: [`History`], and which entry of it a step is
//! compared with.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use super::note::{self, StepNote};
use crate::{
    cache::{ActionResult, CacheError, DiskStore, SearchOrder},
    graph::{BuildGraph, VertexId},
    key::{CacheKey, DefinitionKeys, KeyKind, RecipeValue},
};

/// How many of several equally near entries are looked at more closely.
const CLOSELY: usize = 4;

/// The entries of definition keys in the local store, whatever their scope.
#[derive(Debug, Default)]
pub struct History {
    /// The last used first.
    entries: Vec<ActionResult>,
    by_key: HashMap<CacheKey, Vec<usize>>,
}

/// How a step's name says where it stands: `[ml builder 2/5] RUN make`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// Target and stage, as far as the name has them: `ml builder`.
    pub(super) label: &'a str,
    /// The number in its stage.
    pub(super) number: &'a str,
}

impl<'a> Place<'a> {
    pub(super) fn of(name: &'a str) -> Option<Self> {
        let (inside, _) = name.strip_prefix('[')?.split_once(']')?;
        let (before, _) = inside.rsplit_once('/')?;
        let (label, number) = before.rsplit_once(' ').unwrap_or(("", before));
        Some(Self {
            label: label.trim(),
            number,
        })
    }
}

impl History {
    /// Reads the store's index.
    pub fn load(store: &DiskStore) -> Result<Self, CacheError> {
        let mut this = Self::default();
        for action in store.actions_of(KeyKind::Definition)? {
            let key = action.result.key;
            this.by_key.entry(key).or_default().push(this.entries.len());
            this.entries.push(action.result);
        }
        Ok(this)
    }

    /// All entries, the last used first.
    pub fn entries(&self) -> &[ActionResult] {
        &self.entries
    }

    /// The entries under a key, of any scope, the last used first.
    pub fn under(&self, key: CacheKey) -> impl Iterator<Item = &ActionResult> {
        let numbers = self.by_key.get(&key).into_iter().flatten();
        numbers.map(|n| &self.entries[*n])
    }

    /// The entry that a step which has none is compared with: of the same target and platform,
    /// with the same instruction or at the same place; among these the one on the same parent, in a scope
    /// that the build reads, with the fewest other files, used last.
    pub(super) fn nearest(
        &self,
        store: &DiskStore,
        graph: &BuildGraph,
        keys: &DefinitionKeys,
        scopes: &SearchOrder,
        listed: &[note::Selected],
        id: VertexId,
    ) -> Option<(&ActionResult, Option<StepNote>)> {
        let key = keys.key(id);
        let root = graph.vertex(id).op.root().map(|root| keys.key(root));
        let taken = instructions(graph);
        let others = self.entries.iter().filter(|entry| {
            // What is the same instruction as another step is that step's.
            let own = entry.step.instruction == graph.vertex(id).instruction;
            entry.key != key
                && (own || !taken.contains(&labelled(&entry.step.name, &entry.step.instruction)))
        });
        let mut ranked: Vec<_> = others
            .enumerate()
            .filter_map(|(age, entry)| {
                let same_root = root.is_some_and(|root| has_root(entry, root));
                let rank = rank(graph, id, entry, same_root)?;
                let foreign = !scopes.scopes().contains(&entry.scope);
                Some(((rank, !same_root, foreign), age, entry))
            })
            .collect();
        ranked.sort_by_key(|(rank, age, _)| (*rank, *age));
        let best = ranked.first()?.0;
        let near = ranked.into_iter().take_while(|(rank, _, _)| *rank == best);
        let near = near.take(CLOSELY).map(|(_, age, entry)| {
            let note = StepNote::of(store, entry);
            let changed = note.as_ref().map_or(0, |note| {
                let parts = note.files.iter().map(|(part, files)| {
                    let new = listed.iter().find(|selected| selected.part == *part)?;
                    let old = note::listing(store, files.listing)?;
                    Some(old.changes(&new.listing).len())
                });
                parts.map(|count| count.unwrap_or(0)).sum()
            });
            (changed, Reverse(note.is_some()), age, entry, note)
        });
        let near = near.min_by_key(|(changed, noted, age, ..)| (*changed, *noted, *age));
        near.map(|(_, _, _, entry, note)| (entry, note))
    }
}

/// An instruction and the stage that it stands in.
fn labelled<'a>(name: &'a str, instruction: &'a str) -> (&'a str, &'a str) {
    (Place::of(name).map_or("", |place| place.label), instruction)
}

/// The instructions of all steps.
fn instructions(graph: &BuildGraph) -> HashSet<(&str, &str)> {
    let steps = graph.vertices.iter().filter(|vertex| vertex.op.is_step());
    steps
        .map(|vertex| labelled(&vertex.name, &vertex.instruction))
        .collect()
}

/// How near an entry is to a step, 0 the nearest; none if they have nothing to do with each
/// other.
fn rank(graph: &BuildGraph, id: VertexId, entry: &ActionResult, same_root: bool) -> Option<u32> {
    let vertex = graph.vertex(id);
    let place = (Place::of(&vertex.name), Place::of(&entry.step.name));
    let (new, old) = (place.0?, place.1?);
    let same_target = *entry.step.target == *vertex.target;
    let same_platform = entry.step.platform == *vertex.platform;
    let same_label = new.label == old.label;
    let same_number = new.number == old.number;
    let same_text = entry.step.instruction == vertex.instruction;
    let word = |text: &str| text.split(' ').next().map(str::to_ascii_uppercase);
    let same_word = word(&entry.step.instruction) == word(&vertex.instruction);
    let related = same_root || alike(&entry.step.instruction, &vertex.instruction);
    let rank = match (same_text, same_label, same_number) {
        (true, true, true) => 0,
        (true, true, false) => 1,
        (false, true, true) if same_word && related => 2,
        (true, false, _) => 3,
        (false, true, true) if same_root => 4,
        (false, true, false) if same_word && related => 5,
        _ => return None,
    };
    let elsewhere = match (same_target, same_platform) {
        (true, true) => 0,
        (true, false) => 10,
        // The same instruction of another target says little, but more than nothing.
        (false, _) if same_text => 20,
        (false, _) => return None,
    };
    Some(rank + elsewhere)
}

/// Whether two instructions have half of their words in common.
fn alike(one: &str, two: &str) -> bool {
    let words = |text: &str| text.split_whitespace().skip(1).count();
    let shared = one.split_whitespace().skip(1);
    let shared = shared.filter(|word| two.split_whitespace().skip(1).any(|w| w == *word));
    shared.count() * 2 >= words(one).max(words(two)).max(1)
}

fn has_root(entry: &ActionResult, root: CacheKey) -> bool {
    let root = root.to_string();
    let is_root = |part: &&crate::key::RecipePart| part.name == "root";
    entry
        .recipe
        .iter()
        .find(is_root)
        .is_some_and(|part| matches!(&part.value, RecipeValue::Text(text) if *text == root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_where_a_step_stands() {
        let place = |name| Place::of(name).map(|p| (p.label, p.number));
        assert_eq!(place("[2/5] RUN make"), Some(("", "2")));
        assert_eq!(
            place("[ml builder  2/15] RUN a]b"),
            Some(("ml builder", "2"))
        );
        assert_eq!(place("[internal] load"), None);
        assert_eq!(place("index of a pulled layer"), None);
    }

    #[test]
    fn instructions_are_alike_that_share_half_of_their_words() {
        assert!(alike("RUN make all", "RUN make install"));
        assert!(!alike("RUN make", "RUN pip install numpy"));
        assert!(!alike("RUN a", "RUN b"));
    }
}
