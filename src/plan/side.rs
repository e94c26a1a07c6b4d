//! A revision as it would be built: its graph, its targets, their keys.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use crate::{
    cache::ActionResult,
    digest::{Blake3Digest, KeyEncoder},
    graph::{BuildGraph, VertexId},
    key::{CacheKey, DefinitionKeys, KeyOptions},
    oci::Platform,
};

/// A target apart from its graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetInfo {
    /// Its name, as the graph has it: `ml (cpu, linux/amd64)`.
    pub name: String,
    /// The layer, the bake target, or `image`.
    pub layer: String,
    /// The variant.
    pub variant: String,
    /// The platform.
    pub platform: Platform,
    /// The targets that it is built on or copies from, by name.
    pub needs: Vec<String>,
    /// Names of the image.
    pub tags: Vec<String>,
    /// Whether the selection names it.
    pub requested: bool,
    /// The age from which it is built anew.
    pub refresh: Option<Duration>,
}

/// What selections of local contexts have as keys: a key, or why it can't be known.
pub type Selected = Result<CacheKey, String>;

/// A revision with the keys of all its steps.
#[derive(Debug)]
pub struct Side {
    /// What would be built.
    pub graph: BuildGraph,
    /// The graph's targets, in its order.
    pub targets: Vec<TargetInfo>,
    /// The definition keys. Where a selection isn't known they are made up, and equal to no other.
    pub keys: DefinitionKeys,
    /// The vertices whose selections aren't known, and why.
    pub unknown: BTreeMap<VertexId, String>,
}

impl Side {
    /// Computes the keys. `name` tells two sides apart; `selection` gives the key of what a copy,
    /// action number so much of a vertex, selects of a local context.
    pub fn new(
        name: &str,
        graph: BuildGraph,
        targets: Vec<TargetInfo>,
        options: KeyOptions,
        selections: &HashMap<(VertexId, usize), Selected>,
    ) -> Self {
        let mut unknown = BTreeMap::new();
        let keys = DefinitionKeys::compute(&graph, options, |id, n| {
            let known = selections.get(&(id, n)).cloned();
            let key = known.unwrap_or_else(|| Err("it was not looked at".to_owned()));
            Ok::<_, std::convert::Infallible>(key.unwrap_or_else(|why| {
                let made_up = nobodys_key(name, id, n);
                unknown.insert(id, why);
                made_up
            }))
        });
        let keys = match keys {
            Ok(keys) => keys,
            Err(never) => match never {},
        };
        Self {
            graph,
            targets,
            keys,
            unknown,
        }
    }

    /// The number of the target with this name.
    pub fn target(&self, name: &str) -> Option<usize> {
        self.targets.iter().position(|target| target.name == name)
    }

    /// Everything that a target is made of.
    pub fn vertices(&self, target: usize) -> BTreeSet<VertexId> {
        let mut found = BTreeSet::new();
        let mut open = vec![self.graph.targets[target].root];
        while let Some(id) = open.pop() {
            if found.insert(id) {
                open.extend(self.graph.vertex(id).op.inputs());
            }
        }
        found
    }

    /// The same without what belongs to the targets that it needs.
    pub fn own_vertices(&self, target: usize) -> BTreeSet<VertexId> {
        let mut own = self.vertices(target);
        for needed in &self.targets[target].needs {
            if let Some(needed) = self.target(needed) {
                let theirs = self.vertices(needed);
                own.retain(|id| !theirs.contains(id));
            }
        }
        own
    }

    /// The steps among the vertices of a target.
    pub fn steps(&self, target: usize) -> impl Iterator<Item = VertexId> {
        let vertices = self.vertices(target);
        vertices
            .into_iter()
            .filter(|id| self.graph.vertex(*id).op.is_step())
    }

    /// Why a part of a target isn't known.
    pub fn unknown_in(&self, target: usize) -> Option<(VertexId, &str)> {
        let vertices = self.vertices(target);
        let found = self.unknown.iter().find(|(id, _)| vertices.contains(id));
        found.map(|(id, why)| (*id, why.as_str()))
    }

    /// The keys of all steps, each once.
    pub fn step_keys(&self) -> Vec<CacheKey> {
        let ids = (0..self.graph.vertices.len()).map(VertexId);
        let keys = ids
            .filter(|id| self.graph.vertex(*id).op.is_step())
            .map(|id| self.keys.key(id));
        keys.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// A key that nothing else has.
fn nobodys_key(side: &str, id: VertexId, action: usize) -> CacheKey {
    let mut encoder = KeyEncoder::new("memobuild-ci 2026-11 unknown selection v1");
    encoder
        .field("side", side)
        .number("vertex", id.0 as u64)
        .number("action", action as u64);
    CacheKey(encoder.finish())
}

/// What a target is: the definition key of its root file system, the configuration of its image,
/// its names.
pub fn target_key(side: &Side, target: usize) -> CacheKey {
    let made = &side.graph.targets[target];
    let mut encoder = KeyEncoder::new("memobuild-ci 2026-11 target v1");
    encoder
        .field("root", side.keys.key(made.root).to_string())
        .field("config", metadata_digest(side, target).to_string())
        .field("platform", made.platform.to_string())
        .list("tags", &side.targets[target].tags);
    CacheKey(encoder.finish())
}

/// The digest of the image's configuration, which no step's execution changes.
pub(super) fn metadata_digest(side: &Side, target: usize) -> Blake3Digest {
    let config = &side.graph.targets[target].config;
    // A plain structure has no way to fail.
    Blake3Digest::of(&serde_json::to_vec(config).unwrap_or_default())
}

/// Results by key.
pub type Hits = HashMap<CacheKey, ActionResult>;
