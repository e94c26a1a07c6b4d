//! What a build would do with each step: [`forecast()`].

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    history::{History, Place},
    inquiry::{CommitOf, Inquiry, Miss, Standing},
};
use crate::{
    cache::{ActionResult, Peeked, TieredStore},
    engine::{
        BuildError, Engine, LayerBytes, ResultLayer, VertexResult,
        bytes::read_index,
        files::{Contents, Source, plan},
        session::{Inputs, blocking, is_older, unforeseen},
    },
    graph::{BuildGraph, ExecOp, FileAction, FileOp, Op, VertexId},
    key::{
        CacheKey, DefinitionKeys, KeyOptions, KeyRecipe, exec_content_recipe, file_content_recipe,
    },
    oci::layer::Tree,
};

/// What would happen to a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is a hit.
    Hit {
        /// The entry.
        entry: Box<ActionResult>,
        /// The tier that has it; none for the local store.
        tier: Option<String>,
        /// If it is found by its content only: why not by its key.
        by_content: Option<Box<Miss>>,
        /// A step that is executed, and must give what it gave before for the hit to stand.
        provided: Option<VertexId>,
    },
    /// It would be executed, unless its inputs prove to have known content.
    Run(Box<Miss>),
    /// Nobody needs it: what reads it is a hit.
    Skip,
}

/// What would happen to one step, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// The step.
    pub id: VertexId,
    /// Its definition key.
    pub key: CacheKey,
    /// What would happen.
    pub verdict: Verdict,
}

/// What a build would do.
#[derive(Debug)]
pub struct Forecast {
    /// What would be built.
    pub graph: Arc<BuildGraph>,
    /// All steps, in the graph's order.
    pub steps: Vec<Outlook>,
    /// What the local store knows.
    pub history: History,
    engine: Engine,
    inputs: Inputs,
    missed: HashSet<VertexId>,
}

/// A step before it is known who needs it.
struct State {
    peeked: Peeked,
    by_content: bool,
    provided: Option<VertexId>,
    standing: Standing,
    /// The layers that it gives, as far as they can be known.
    result: Option<VertexResult>,
    hit: bool,
}

/// Says what a build of `graph` would do with each step. `commit_of` names the commits that changed
/// files.
pub async fn forecast(
    engine: Engine,
    graph: BuildGraph,
    commit_of: Option<CommitOf<'_>>,
) -> Result<Forecast, BuildError> {
    let graph = Arc::new(graph);
    let inputs = Inputs::read(&engine, &graph).await?;
    let tiers = Arc::new(TieredStore::new(
        Arc::clone(&engine.store),
        engine.tiers.clone(),
        engine.options.scopes.clone(),
        engine.vouching.clone(),
        engine.events.clone(),
    ));
    let looker = Looker {
        bytes: LayerBytes::new(&engine, Arc::clone(&tiers), Arc::clone(&graph)),
        unforeseen: unforeseen(&graph, &vec![false; graph.vertices.len()]),
        engine: &engine,
        graph: &graph,
        inputs: &inputs,
        tiers: &tiers,
    };
    let states = looker.states().await?;
    let store = Arc::clone(&engine.store);
    // An index that can't be read is told as a warning; nothing is known then.
    let history = blocking(move || Ok(History::load(&store).unwrap_or_default())).await?;
    let steps = (0..graph.vertices.len()).map(VertexId);
    let steps: Vec<VertexId> = steps.filter(|id| graph.vertex(*id).op.is_step()).collect();
    let missed: HashSet<VertexId> = steps
        .iter()
        .copied()
        .filter(|id| states.get(id).is_some_and(|state| !state.hit))
        .collect();
    let needed = needed(&graph, &states);
    let mut forecast = Forecast {
        graph,
        steps: Vec::new(),
        history,
        engine,
        inputs,
        missed,
    };
    let mut states = states;
    for id in steps {
        let Some(state) = states.remove(&id) else {
            continue;
        };
        let verdict = match (needed.contains(&id), state.hit, state.peeked.found) {
            (false, _, _) => Verdict::Skip,
            (true, true, Some(found)) => Verdict::Hit {
                entry: Box::new(found.result),
                tier: found
                    .tier
                    .and_then(|n| tiers.tier_name(n))
                    .map(str::to_owned),
                by_content: state
                    .by_content
                    .then(|| Box::new(forecast.inquiry(commit_of).miss(id, state.standing))),
                provided: state.provided,
            },
            _ => {
                let inquiry = forecast.inquiry(commit_of);
                Verdict::Run(Box::new(inquiry.miss(id, state.standing)))
            }
        };
        let key = forecast.inputs.keys.key(id);
        forecast.steps.push(Outlook { id, key, verdict });
    }
    Ok(forecast)
}

impl Forecast {
    /// How the recipe of `entry` differs from that of a step.
    pub fn compare(
        &self,
        id: VertexId,
        entry: &ActionResult,
        commit_of: Option<CommitOf<'_>>,
    ) -> Miss {
        self.inquiry(commit_of).compare_with(id, entry)
    }

    /// The step that an entry is of, by its name, or by its place.
    pub fn step_like(&self, entry: &ActionResult) -> Option<&Outlook> {
        let name = |outlook: &Outlook| self.graph.vertex(outlook.id).name.as_str();
        let same = |outlook: &&Outlook| name(outlook) == entry.step.name;
        let place = Place::of(&entry.step.name);
        let near = |outlook: &&Outlook| place.is_some() && Place::of(name(outlook)) == place;
        let mut steps = self.steps.iter();
        steps.clone().find(same).or_else(|| steps.find(near))
    }

    fn inquiry<'a>(&'a self, commit_of: Option<CommitOf<'a>>) -> Inquiry<'a> {
        Inquiry {
            graph: &self.graph,
            keys: &self.inputs.keys,
            contexts: &self.inputs.contexts,
            store: &self.engine.store,
            history: &self.history,
            scopes: &self.engine.options.scopes,
            missed: &self.missed,
            commit_of,
        }
    }
}

/// Looks keys up.
struct Looker<'a> {
    engine: &'a Engine,
    graph: &'a Arc<BuildGraph>,
    inputs: &'a Inputs,
    tiers: &'a Arc<TieredStore>,
    bytes: LayerBytes,
    unforeseen: Vec<bool>,
}

impl Looker<'_> {
    fn keys(&self) -> &DefinitionKeys {
        &self.inputs.keys
    }

    /// What is known of all vertices, from the sources upwards.
    async fn states(&self) -> Result<HashMap<VertexId, State>, BuildError> {
        let all = || (0..self.graph.vertices.len()).map(VertexId);
        let steps: Vec<VertexId> = all()
            .filter(|id| self.graph.vertex(*id).op.is_step())
            .collect();
        let wanted: Vec<CacheKey> = steps.iter().map(|id| self.keys().key(*id)).collect();
        let peeked = self.tiers.peek(&wanted).await;
        let mut peeked: HashMap<VertexId, Peeked> = steps.into_iter().zip(peeked).collect();
        let mut states = HashMap::new();
        for id in all() {
            let state = match &self.graph.vertex(id).op {
                Op::Scratch | Op::Context(_) => source(VertexResult::empty()),
                Op::Image(image) => {
                    let mut result = VertexResult::empty();
                    for blob in self.bytes.with_indexes(&image.layers).await? {
                        result = result.with(Some(ResultLayer { blob, from: id }));
                    }
                    source(result)
                }
                Op::Exec(_) | Op::File(_) => {
                    let peeked = peeked.remove(&id).unwrap_or_default();
                    self.step(id, peeked, &states).await?
                }
            };
            states.insert(id, state);
        }
        Ok(states)
    }

    async fn step(
        &self,
        id: VertexId,
        peeked: Peeked,
        states: &HashMap<VertexId, State>,
    ) -> Result<State, BuildError> {
        let vertex = self.graph.vertex(id);
        let mut state = State {
            peeked,
            by_content: false,
            provided: None,
            standing: Standing::Nothing,
            result: None,
            hit: false,
        };
        if vertex.no_cache {
            state.standing = Standing::Policy;
            return Ok(state);
        }
        let root_id = vertex.op.root();
        let root = root_id.and_then(|root| states.get(&root)?.result.as_ref());
        if let Some(refused) = state.peeked.refused.take() {
            state.standing = Standing::Refused {
                tier: refused.tier,
                why: refused.why,
            };
        }
        let found = state.peeked.found.as_ref();
        if found.is_some_and(|found| is_older(&found.result, vertex.max_age)) {
            state.standing = Standing::Policy;
            return Ok(state);
        }
        if self.unforeseen[id.0] {
            state.standing = Standing::Unforeseen;
        } else if let Some(found) = &state.peeked.found {
            let layer = found.result.layer.as_ref();
            let at_hand = self.bytes.at_hand(layer);
            match root {
                Some(root) if root.chain != found.result.parent => {
                    state.standing = Standing::OtherParent;
                }
                _ if !at_hand => state.standing = Standing::Lost,
                Some(root) => {
                    let layer = layer.cloned();
                    state.result =
                        Some(root.with(layer.map(|blob| ResultLayer { blob, from: id })));
                    state.hit = true;
                    return Ok(state);
                }
                None => {
                    state.provided = root_id;
                    state.hit = true;
                    return Ok(state);
                }
            }
        }
        let Some(root) = root.cloned() else {
            return Ok(state);
        };
        let Some(recipe) = self.content(id, &root, states).await? else {
            return Ok(state);
        };
        let peeked = self.tiers.peek(&[recipe.key()]).await.into_iter().next();
        let Some(peeked) = peeked.filter(|peeked| peeked.found.is_some()) else {
            return Ok(state);
        };
        let layer = peeked.found.as_ref().and_then(|f| f.result.layer.clone());
        if self.bytes.at_hand(layer.as_ref()) {
            state.result = Some(root.with(layer.map(|blob| ResultLayer { blob, from: id })));
            state.peeked = peeked;
            state.by_content = true;
            state.hit = true;
        }
        Ok(state)
    }

    /// The recipe of the content key, if it can be known without fetching or executing anything.
    async fn content(
        &self,
        id: VertexId,
        root: &VertexResult,
        states: &HashMap<VertexId, State>,
    ) -> Result<Option<KeyRecipe>, BuildError> {
        let result = |id: VertexId| states.get(&id)?.result.as_ref();
        match &self.graph.vertex(id).op {
            Op::Exec(op) => Ok(self.exec_content(id, op, root, result)),
            Op::File(op) => self.file_content(op, root, result).await,
            Op::Scratch | Op::Image(_) | Op::Context(_) => Ok(None),
        }
    }

    fn exec_content<'s>(
        &self,
        id: VertexId,
        op: &ExecOp,
        root: &VertexResult,
        result: impl Fn(VertexId) -> Option<&'s VertexResult>,
    ) -> Option<KeyRecipe> {
        let from = op.mounts.iter().filter_map(|mount| mount.from());
        let chains: Option<Vec<_>> = from.map(|id| Some(result(id)?.chain)).collect();
        let options = KeyOptions {
            normalise: self.engine.options.normalise,
        };
        let platform = &self.graph.vertex(id).platform;
        Some(exec_content_recipe(
            op, platform, options, root.chain, &chains?,
        ))
    }

    async fn file_content<'s>(
        &self,
        op: &FileOp,
        root: &VertexResult,
        result: impl Fn(VertexId) -> Option<&'s VertexResult>,
    ) -> Result<Option<KeyRecipe>, BuildError> {
        let Some(root) = self.local_tree(root) else {
            return Ok(None);
        };
        let mut sources = Vec::new();
        for action in &op.actions {
            let FileAction::Copy(copy) = action else {
                sources.push(None);
                continue;
            };
            let source = match self.graph.vertex(copy.from).op {
                Op::Context(context) => self.inputs.contexts.get(&context).cloned(),
                _ => result(copy.from)
                    .and_then(|from| self.local_tree(from))
                    .map(|tree| Source {
                        name: String::new(),
                        tree,
                        contents: Contents::Absent,
                    }),
            };
            match source {
                Some(source) => sources.push(Some(source)),
                None => return Ok(None),
            }
        }
        let op = op.clone();
        let planned = blocking(move || Ok(plan(&op, &root, &sources).ok())).await?;
        // What can't be done fails in the build, with all that there is to say.
        Ok(planned.map(|plan| file_content_recipe(plan.key())))
    }

    /// The tree of a stack, if all its indexes are in the local store.
    fn local_tree(&self, result: &VertexResult) -> Option<Arc<Tree>> {
        let indexes = result.layers.iter().map(|layer| {
            let index = read_index(&self.engine.store, layer.blob.index?)?;
            (index.diff_id == layer.blob.diff_id).then(|| Arc::new(index))
        });
        Some(Arc::new(Tree::new(indexes.collect::<Option<_>>()?)))
    }
}

fn source(result: VertexResult) -> State {
    State {
        peeked: Peeked::default(),
        by_content: false,
        provided: None,
        standing: Standing::Nothing,
        result: Some(result),
        hit: true,
    }
}

/// The vertices that a build of the targets would look at.
fn needed(graph: &BuildGraph, states: &HashMap<VertexId, State>) -> HashSet<VertexId> {
    let mut needed = HashSet::new();
    let mut open: Vec<VertexId> = graph.targets.iter().map(|target| target.root).collect();
    while let Some(id) = open.pop() {
        if !needed.insert(id) {
            continue;
        }
        let op = &graph.vertex(id).op;
        match states.get(&id) {
            Some(state) if state.hit && !state.by_content => open.extend(op.root()),
            _ => open.extend(op.inputs()),
        }
    }
    needed
}
