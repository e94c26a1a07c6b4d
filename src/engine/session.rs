//! One build: contexts scanned, keys computed, attempts made until one succeeds.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::Semaphore;

use super::{
    BuildError, Engine, ResultLayer,
    attempt::Attempt,
    bytes::LayerBytes,
    contexts::{definition_keys, scan_contexts},
    exec::Runtime,
    explain::History,
    files::Source,
    mount_trees::UsedMount,
};
use crate::{
    cache::{ActionResult, EntryId, TieredStore},
    context,
    event::Totals,
    graph::{BuildGraph, LocalContext, Vertex, VertexId},
    key::{CacheKey, DefinitionKeys, KeyOptions},
    oci::layer::{ChainId, LayerPath},
};

/// A build of one graph.
#[derive(Debug)]
pub struct Session {
    pub(super) engine: Engine,
    pub(super) graph: Arc<BuildGraph>,
    pub(super) contexts: HashMap<usize, Source>,
    pub(super) keys: DefinitionKeys,
    pub(super) hits: HashMap<CacheKey, ActionResult>,
    /// The tiers that definition hits come from, where not from the local store.
    origins: HashMap<CacheKey, usize>,
    pub(super) tiers: Arc<TieredStore>,
    pub(super) bytes: LayerBytes,
    pub(super) runtime: tokio::sync::OnceCell<Arc<Runtime>>,
    pub(super) jobs: Semaphore,
    /// Results of what this build executed: trusted whatever the settings say.
    fresh: Mutex<HashMap<CacheKey, ActionResult>>,
    /// What vertices gave when they were solved last.
    solved: Mutex<HashMap<VertexId, ChainId>>,
    /// Vertices whose cached results proved to have no bytes.
    distrusted: Mutex<HashSet<VertexId>>,
    /// Vertices whose definition hits proved to be made of other inputs than this build's.
    stale: Mutex<HashSet<VertexId>>,
    /// For each vertex, whether what the cache has of it is too old.
    expired: Vec<bool>,
    /// For each vertex, whether something that it copies from or mounts comes from steps
    /// that must be executed: its definition key says nothing about what they will give.
    unforeseen: Vec<bool>,
    pub(super) counters: Counters,
    /// What earlier builds left, read when a step's execution is to be explained.
    pub(super) history: OnceLock<History>,
    /// Cache mounts that steps of this build have used, by the names of their directories.
    pub(super) used_mounts: Mutex<BTreeMap<String, UsedMount>>,
}

/// Figures that add up over the attempts of a session.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) step_ms: AtomicU64,
    pub(super) written: AtomicU64,
    /// Vertices executed, and milliseconds saved by vertex for hits.
    pub(super) ran: Mutex<HashSet<VertexId>>,
    pub(super) hits: Mutex<BTreeMap<VertexId, u64>>,
}

/// What a successful build gives.
#[derive(Debug)]
pub struct Built {
    /// In the order of the graph's targets.
    pub targets: Vec<BuiltTarget>,
}

/// One target's root file system.
#[derive(Debug)]
pub struct BuiltTarget {
    /// The layers, lowest first.
    pub layers: Vec<Arc<ResultLayer>>,
    /// For each entry of the target's `history`: whether it made a layer.
    pub made_layer: Vec<bool>,
}

impl Session {
    /// Scans the contexts, computes all definition keys and looks them up.
    pub async fn new(engine: Engine, graph: BuildGraph) -> Result<Arc<Self>, BuildError> {
        let graph = Arc::new(graph);
        let Inputs { contexts, keys } = Inputs::read(&engine, &graph).await?;
        let wanted: Vec<CacheKey> = (0..graph.vertices.len())
            .map(VertexId)
            .filter(|id| graph.vertex(*id).op.is_step())
            .map(|id| keys.key(id))
            .collect();
        let tiers = Arc::new(TieredStore::new(
            Arc::clone(&engine.store),
            engine.tiers.clone(),
            engine.options.scopes.clone(),
            engine.vouching.clone(),
            engine.events.clone(),
        ));
        tiers.saver().resume().await;
        let (mut hits, mut origins) = (HashMap::new(), HashMap::new());
        for found in tiers.lookup(&wanted).await.into_iter().flatten() {
            origins.extend(found.tier.map(|tier| (found.result.key, tier)));
            hits.insert(found.result.key, found.result);
        }
        let expired = expired(&graph, &keys, &hits);
        let bytes = LayerBytes::new(&engine, Arc::clone(&tiers), Arc::clone(&graph));
        Ok(Arc::new(Self {
            jobs: Semaphore::new(engine.options.jobs.max(1)),
            bytes,
            tiers,
            origins,
            unforeseen: unforeseen(&graph, &expired),
            expired,
            graph,
            contexts,
            keys,
            hits,
            runtime: tokio::sync::OnceCell::new(),
            fresh: Mutex::default(),
            solved: Mutex::default(),
            distrusted: Mutex::default(),
            stale: Mutex::default(),
            counters: Counters::default(),
            history: OnceLock::new(),
            used_mounts: Mutex::default(),
            engine,
        }))
    }

    /// Solves all targets, hands them to `export`, and starts over for what proves to be
    /// gone on the way.
    pub async fn build<T>(
        self: &Arc<Self>,
        export: impl AsyncFn(&Self, &Built) -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        loop {
            let result = match Attempt::start(Arc::clone(self)).await {
                Ok(Some(built)) => export(self, &built).await,
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            match result {
                Err(BuildError::Lost(vertex)) if self.distrust(vertex) => {
                    self.engine.events.warn(
                        format!(
                            "the cached result of `{}` is gone; the step is executed again",
                            self.graph.vertex(vertex).instruction
                        ),
                        None,
                    );
                    self.tiers.recheck().await;
                }
                Err(BuildError::Lost(vertex)) => {
                    // Executed in this build and gone again: somebody empties the cache
                    // under our feet.
                    return Err(BuildError::Internal {
                        what: format!(
                            "the result of `{}` was removed from the cache twice during the build",
                            self.graph.vertex(vertex).instruction
                        ),
                    });
                }
                result => {
                    self.touch().await;
                    return result;
                }
            }
        }
    }

    /// The graph being built.
    pub fn graph(&self) -> &BuildGraph {
        &self.graph
    }

    /// The engine it is built with.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The bytes of layers.
    pub fn bytes(&self) -> &LayerBytes {
        &self.bytes
    }

    /// Waits until what was made is saved to the tiers, but not longer than `limit`. To be called
    /// once nothing is executed any more, however the build ended.
    pub async fn finish_saving(&self, limit: Duration) {
        let started = Instant::now();
        let packed = match limit.is_zero() {
            true => Vec::new(),
            false => self.save_mounts(started + limit).await,
        };
        let left = limit.saturating_sub(started.elapsed());
        self.tiers.saver().finish(left).await;
        if !packed.is_empty() {
            let store = Arc::clone(&self.engine.store);
            // The directories stay; the packed form was for the way.
            let discarded = blocking(move || {
                let discard = |digest| Ok(store.discard_blob(digest)?);
                packed.iter().try_for_each(discard)
            });
            let _ = discarded.await;
        }
    }

    /// The figures so far.
    pub fn totals(&self) -> Totals {
        let lock = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let ran = self
            .counters
            .ran
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let hits = self
            .counters
            .hits
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let hits: Vec<u64> = hits
            .iter()
            .filter(|(id, _)| !ran.contains(id))
            .map(|(_, ms)| *ms)
            .collect();
        Totals {
            ran: ran.len(),
            hits: hits.len(),
            step_ms: lock(&self.counters.step_ms),
            saved_ms: hits.iter().sum(),
            bytes_fetched: self.bytes.fetched(),
            bytes_written: lock(&self.counters.written),
            cache_requests: self.tiers.requests(),
            wall_ms: self.engine.events.elapsed_ms(),
        }
    }

    /// The vertices that this build has executed.
    pub(super) fn executed_vertices(&self) -> HashSet<VertexId> {
        let ran = self.counters.ran.lock();
        ran.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether an input other than its root comes from steps that must be executed.
    pub(super) fn is_unforeseen(&self, id: VertexId) -> bool {
        self.unforeseen[id.0]
    }

    /// Whether cached entries may stand for this vertex.
    pub(super) fn trusts(&self, id: VertexId) -> bool {
        !self.graph.vertex(id).no_cache
            && !self.expired[id.0]
            && !self
                .distrusted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&id)
    }

    /// The entry under the vertex's definition key, if this build may use it.
    pub(super) fn definition_hit(&self, id: VertexId) -> Option<ActionResult> {
        let key = self.keys.key(id);
        let stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        if stale.contains(&id) {
            return None;
        }
        if let Some(record) = self.executed(key) {
            return Some(record);
        }
        match self.trusts(id) && !self.unforeseen[id.0] {
            true => self.hits.get(&key).cloned(),
            false => None,
        }
    }

    /// The name of the tier that a definition hit comes from; none for the local store.
    pub(super) fn origin(&self, id: VertexId) -> Option<String> {
        let key = self.keys.key(id);
        if self.executed(key).is_some() {
            return None;
        }
        self.tiers
            .tier_name(*self.origins.get(&key)?)
            .map(str::to_owned)
    }

    /// Remembers what vertices gave.
    pub(super) fn keep_solved(&self, chains: Vec<(VertexId, ChainId)>) {
        let mut solved = self.solved.lock().unwrap_or_else(PoisonError::into_inner);
        solved.extend(chains);
    }

    /// What the vertex gave when it was solved last, if it was.
    pub(super) fn solved(&self, id: VertexId) -> Option<ChainId> {
        let solved = self.solved.lock().unwrap_or_else(PoisonError::into_inner);
        solved.get(&id).copied()
    }

    /// For each vertex, whether what it gives may differ from what its entry said when
    /// the build began: it was solved with another result, or it was not solved, and
    /// something below it moved.
    pub(super) fn moved(&self) -> Vec<bool> {
        let mut moved: Vec<bool> = Vec::with_capacity(self.graph.vertices.len());
        for (n, vertex) in self.graph.vertices.iter().enumerate() {
            let id = VertexId(n);
            moved.push(match self.solved(id) {
                Some(chain) => vertex.op.is_step() && self.foreseen(id) != Some(chain),
                None => vertex.op.inputs().iter().any(|input| moved[input.0]),
            });
        }
        moved
    }

    /// The chain that the vertex has by the entry that was under its definition key when
    /// the build began.
    fn foreseen(&self, id: VertexId) -> Option<ChainId> {
        let hit = self.hits.get(&self.keys.key(id))?;
        Some(match &hit.layer {
            Some(layer) => hit.parent.with(layer.diff_id),
            None => hit.parent,
        })
    }

    /// The entry under `key` for a step that this build executed.
    pub(super) fn executed(&self, key: CacheKey) -> Option<ActionResult> {
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.get(&key).cloned()
    }

    /// Keeps the entries of a step that was executed, for the attempts to come.
    pub(super) fn keep_executed(&self, records: &[ActionResult]) {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.extend(records.iter().map(|record| (record.key, record.clone())));
    }

    /// Marks vertices whose definition hits don't fit the rest of the build.
    pub(super) fn mark_stale(&self, ids: Vec<VertexId>) {
        let mut stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        stale.extend(ids);
    }

    /// Marks a vertex; false if it was marked before.
    fn distrust(&self, id: VertexId) -> bool {
        // What this build wrote for the vertex has no bytes either.
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        let key = self.keys.key(id);
        if let Some(record) = fresh.remove(&key) {
            fresh.retain(|_, other| other.layer != record.layer);
        }
        drop(fresh);
        self.distrusted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id)
    }

    /// Tells the store what was used, for its garbage collection.
    async fn touch(&self) {
        let store = Arc::clone(&self.engine.store);
        let actions: Vec<EntryId> = self.hits.values().map(ActionResult::id).collect();
        let blobs = self
            .hits
            .values()
            .flat_map(ActionResult::blobs)
            .collect::<Vec<_>>();
        // Failing to note a use costs an eviction at worst.
        let _ = blocking(move || Ok(store.touch(&actions, &blobs)?)).await;
    }
}

/// What is known before anything is looked up.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) contexts: HashMap<usize, Source>,
    pub(super) keys: DefinitionKeys,
}

impl Inputs {
    /// Scans the contexts and computes all definition keys.
    pub(super) async fn read(engine: &Engine, graph: &Arc<BuildGraph>) -> Result<Self, BuildError> {
        let (graph, memo_dir) = (Arc::clone(graph), engine.store.memo_dir());
        let options = KeyOptions {
            normalise: engine.options.normalise,
        };
        blocking(move || {
            let scan = |local: &LocalContext, prefixes: &[LayerPath]| {
                context::scan(local, prefixes, Some(&memo_dir)).map_err(BuildError::from)
            };
            let contexts = scan_contexts(&graph, scan)?;
            let keys = definition_keys(&graph, options, &contexts)?;
            Ok(Self { contexts, keys })
        })
        .await
    }
}

/// Runs blocking work off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BuildError> + Send + 'static,
) -> Result<T, BuildError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(BuildError::Internal {
            what: error.to_string(),
        }),
    }
}

/// For each vertex, whether the cache has a result of it that is older than it may be. What the cache
/// doesn't have at all is executed anyhow.
pub(super) fn expired(
    graph: &BuildGraph,
    keys: &DefinitionKeys,
    hits: &HashMap<CacheKey, ActionResult>,
) -> Vec<bool> {
    let old = |(n, vertex): (usize, &Vertex)| {
        let hit = hits.get(&keys.key(VertexId(n)));
        hit.is_some_and(|hit| is_older(hit, vertex.max_age))
    };
    graph.vertices.iter().enumerate().map(old).collect()
}

/// Whether a result has reached the age from which it is not used any more.
pub(super) fn is_older(result: &ActionResult, limit: Option<Duration>) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    limit.is_some_and(|limit| now.saturating_sub(result.created) >= limit.as_secs())
}

/// For each vertex, whether an input other than its root comes from steps that must not
/// be taken from the cache. The root needs no such care: a hit names its chain.
pub(super) fn unforeseen(graph: &BuildGraph, expired: &[bool]) -> Vec<bool> {
    let mut executed: Vec<bool> = Vec::with_capacity(graph.vertices.len());
    let mut unforeseen = Vec::with_capacity(graph.vertices.len());
    for (vertex, expired) in graph.vertices.iter().zip(expired) {
        let inputs = vertex.op.inputs();
        let others = inputs.iter().filter(|id| vertex.op.root() != Some(**id));
        unforeseen.push(others.into_iter().any(|id| executed[id.0]));
        executed.push(vertex.no_cache || *expired || inputs.iter().any(|id| executed[id.0]));
    }
    unforeseen
}

impl Counters {
    pub(super) fn ran(&self, id: VertexId, ms: u64) {
        self.ran
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id);
        self.step_ms.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) fn hit(&self, id: VertexId, saved_ms: u64) {
        self.hits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, saved_ms);
    }
}
