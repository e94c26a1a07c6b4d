//! What would be executed: the solver's walk over keys and metadata alone.

use std::collections::{BTreeSet, HashMap};

use super::{Side, side::Hits};
use crate::{
    graph::{Op, VertexId},
    oci::layer::ChainId,
};

/// What the caches' answers mean for a graph.
#[derive(Debug, Default)]
pub struct Foreseen {
    chains: HashMap<VertexId, Option<ChainId>>,
}

/// What they mean for a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Solution {
    /// The steps that are executed, unless their inputs prove to be what they were.
    pub run: BTreeSet<VertexId>,
}

/// What has to be executed for a target, given what the caches have by definition key. As in the
/// engine, a hit stands if the layers below it are those it was made on.
pub fn foresee(foreseen: &mut Foreseen, side: &Side, hits: &Hits, target: usize) -> Solution {
    let mut run = BTreeSet::new();
    let mut open = vec![side.graph.targets[target].root];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let op = &side.graph.vertex(id).op;
        if foreseen.chain(side, hits, id).is_some() {
            // Only what it stands on is looked at for a hit.
            open.extend(op.root());
            continue;
        }
        if op.is_step() {
            run.insert(id);
        }
        open.extend(op.inputs());
    }
    Solution { run }
}

impl Foreseen {
    /// The layers that a vertex gives, if that is known without executing it.
    fn chain(&mut self, side: &Side, hits: &Hits, id: VertexId) -> Option<ChainId> {
        // Roots stand in a row that may be thousands long: no recursion.
        let mut row = vec![id];
        while let Some(last) = row.last() {
            if self.chains.contains_key(last) {
                break;
            }
            match side.graph.vertex(*last).op.root() {
                Some(root) => row.push(root),
                None => break,
            }
        }
        while let Some(id) = row.pop() {
            if self.chains.contains_key(&id) {
                continue;
            }
            let vertex = side.graph.vertex(id);
            let chain = match &vertex.op {
                Op::Scratch | Op::Context(_) => Some(ChainId::empty()),
                Op::Image(image) => {
                    Some(ChainId::of(image.layers.iter().map(|layer| layer.diff_id)))
                }
                Op::Exec(_) | Op::File(_) => {
                    let root = vertex.op.root().and_then(|root| self.chains[&root]);
                    let hit = hits
                        .get(&side.keys.key(id))
                        .filter(|hit| !vertex.no_cache && Some(hit.parent) == root);
                    hit.zip(root).map(|(hit, root)| match &hit.layer {
                        Some(layer) => root.with(layer.diff_id),
                        None => root,
                    })
                }
            };
            self.chains.insert(id, chain);
        }
        self.chains.get(&id).copied().flatten()
    }
}
