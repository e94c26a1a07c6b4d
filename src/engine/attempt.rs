//! One attempt at solving a graph: a task for each vertex that turns out to be needed.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    BuildError, Built, BuiltTarget, ResultLayer, Session, VertexResult,
    session::{blocking, is_older},
};
use crate::{
    cache::{ActionResult, FoundAction, RECORD_VERSION, SaveJob, StepInfo},
    event::{BuildEvent, Outcome, StepId},
    graph::{Op, Vertex, VertexId},
    key::{KeyKind, KeyRecipe},
    oci::layer::{ChainId, LayerBlob},
};

/// The state of one attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) session: Arc<Session>,
    /// Cancelled when a step failed or the build was interrupted.
    pub(super) halt: CancellationToken,
    cells: Vec<Cell>,
    pub(super) tasks: Mutex<JoinSet<()>>,
    failure: Mutex<Option<BuildError>>,
    /// Definition hits, with what their results were made of besides their roots.
    hits: Mutex<Vec<(VertexId, Vec<ChainId>)>>,
}

/// The place where a vertex's result appears.
#[derive(Debug)]
struct Cell {
    started: AtomicBool,
    result: watch::Sender<Option<Done>>,
}

/// A finished vertex; none if it failed or was stopped.
type Done = Option<Arc<VertexResult>>;

/// How a step came by its result.
pub(super) struct Solved {
    pub(super) layer: Option<LayerBlob>,
    pub(super) outcome: Outcome,
    pub(super) recorded_ms: Option<u64>,
    /// The tier that had it.
    pub(super) tier: Option<String>,
}

impl Attempt {
    /// Solves all targets of the session's graph; none if hits proved to be made of
    /// other inputs than those of this build, which have been marked as stale.
    pub(super) async fn start(session: Arc<Session>) -> Result<Option<Built>, BuildError> {
        let cells = (0..session.graph.vertices.len())
            .map(|_| Cell {
                started: AtomicBool::new(false),
                result: watch::Sender::new(None),
            })
            .collect();
        let attempt = Arc::new(Self {
            halt: session.engine.stop.child_token(),
            session,
            cells,
            tasks: Mutex::default(),
            failure: Mutex::default(),
            hits: Mutex::default(),
        });
        let graph = Arc::clone(&attempt.session.graph);
        // Everything is asked for before anything is waited for: targets are solved side
        // by side.
        for target in &graph.targets {
            attempt.ask(target.root);
        }
        let mut roots = Vec::new();
        for target in &graph.targets {
            roots.push(attempt.result(target.root).await);
        }
        attempt.drain().await;
        attempt.session.keep_solved(attempt.solved());
        let failure = attempt
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(error) = failure {
            return Err(error);
        }
        let stale = attempt.stale_hits();
        if !stale.is_empty() {
            attempt.session.mark_stale(stale);
            return Ok(None);
        }
        let mut built = Built {
            targets: Vec::new(),
        };
        for (target, root) in graph.targets.iter().zip(roots) {
            let root = root.ok_or(BuildError::Interrupted)?;
            let made_layer = target
                .history
                .iter()
                .map(|vertex| {
                    vertex.is_some_and(|id| root.layers.iter().any(|layer| layer.from == id))
                })
                .collect();
            built.targets.push(BuiltTarget {
                layers: root.layers.clone(),
                made_layer,
            });
        }
        Ok(Some(built))
    }

    /// Definition hits whose results may be made of something else than what this build
    /// found for the same inputs. A definition hit does not wait for what it copied from,
    /// which may be executed meanwhile for somebody else, and give something new.
    fn stale_hits(&self) -> Vec<VertexId> {
        let session = &self.session;
        let moved = session.moved();
        let hits = self.hits.lock().unwrap_or_else(PoisonError::into_inner);
        hits.iter()
            .filter(|(id, recorded)| {
                let inputs = session.graph.vertex(*id).op.inputs();
                let others = &inputs[1..];
                others.len() != recorded.len()
                    || others.iter().zip(recorded).any(|(input, chain)| {
                        match session.solved(*input) {
                            Some(solved) => solved != *chain,
                            None => moved[input.0],
                        }
                    })
            })
            .map(|(id, _)| *id)
            .collect()
    }

    /// The vertices that are solved, with what they gave.
    fn solved(&self) -> Vec<(VertexId, ChainId)> {
        let results = self.cells.iter().map(|cell| cell.result.borrow().clone());
        results
            .enumerate()
            .filter_map(|(n, result)| Some((VertexId(n), result??.chain)))
            .collect()
    }

    /// Whether somebody wants the vertex solved.
    pub(super) fn is_asked(&self, id: VertexId) -> bool {
        self.cells[id.0].started.load(Ordering::SeqCst)
    }

    /// Starts a vertex's task, once.
    fn ask(self: &Arc<Self>, id: VertexId) {
        if self.cells[id.0].started.swap(true, Ordering::SeqCst) {
            return;
        }
        let this = Arc::clone(self);
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .spawn(async move {
                // A panic in the task must not leave its waiters waiting.
                let guard = Guard(&this.cells[id.0].result);
                let done = match this.vertex(id).await {
                    Ok(result) => Some(Arc::new(result)),
                    Err(error) => {
                        this.fail(error);
                        None
                    }
                };
                guard.0.send_replace(Some(done));
            });
    }

    /// Waits for a vertex's result, starting it if needed; none if it failed.
    async fn result(self: &Arc<Self>, id: VertexId) -> Done {
        self.ask(id);
        let mut receiver = self.cells[id.0].result.subscribe();
        let done = receiver.wait_for(Option::is_some).await.ok()?;
        done.clone().flatten()
    }

    /// A vertex's result, or [`BuildError::Interrupted`] for a waiter whose cause is
    /// recorded elsewhere.
    pub(super) async fn need(
        self: &Arc<Self>,
        id: VertexId,
    ) -> Result<Arc<VertexResult>, BuildError> {
        self.result(id).await.ok_or(BuildError::Interrupted)
    }

    /// Remembers the first cause. An interruption never hides a cause.
    fn fail(&self, error: BuildError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = matches!(error, BuildError::Lost(_));
        // Steps that run while another one's bytes prove lost may end: their results
        // serve the next attempt. Nor does somebody who waited in vain stop others.
        if !lost && !matches!(error, BuildError::Interrupted) {
            self.halt.cancel();
        }
        match &*failure {
            None => *failure = Some(error),
            Some(BuildError::Interrupted | BuildError::Lost(_))
                if !matches!(error, BuildError::Interrupted | BuildError::Lost(_)) =>
            {
                *failure = Some(error);
            }
            Some(BuildError::Interrupted) if lost && !self.session.engine.stop.is_cancelled() => {
                *failure = Some(error);
            }
            Some(_) => {}
        }
    }

    /// Waits until no task is left.
    async fn drain(&self) {
        loop {
            let mut tasks =
                std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
            if tasks.is_empty() {
                return;
            }
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended {
                    self.fail(BuildError::Internal {
                        what: error.to_string(),
                    });
                }
            }
        }
    }

    async fn vertex(self: &Arc<Self>, id: VertexId) -> Result<VertexResult, BuildError> {
        if self.halt.is_cancelled() {
            return Err(BuildError::Interrupted);
        }
        match &self.session.graph.vertex(id).op {
            Op::Scratch | Op::Context(_) => Ok(VertexResult::empty()),
            Op::Image(image) => {
                let mut result = VertexResult::empty();
                for blob in self.session.bytes.with_indexes(&image.layers).await? {
                    result = result.with(Some(ResultLayer { blob, from: id }));
                }
                Ok(result)
            }
            Op::Exec(_) | Op::File(_) => self.step(id).await,
        }
    }

    async fn step(self: &Arc<Self>, id: VertexId) -> Result<VertexResult, BuildError> {
        let session = &self.session;
        let vertex = session.graph.vertex(id);
        let root_id = vertex.op.root().ok_or_else(|| BuildError::Internal {
            what: "a step without a root".to_owned(),
        })?;
        if let Some(hit) = session.definition_hit(id) {
            let root = self.need(root_id).await?;
            if root.chain == hit.parent && session.bytes.at_hand(hit.layer.as_ref()) {
                self.hits
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((id, hit.inputs));
                let solved = Solved {
                    layer: hit.layer.clone(),
                    outcome: Outcome::Hit,
                    recorded_ms: Some(hit.duration_ms),
                    tier: session.origin(id),
                };
                self.announce(id);
                return Ok(self.finished(id, &root, solved, Instant::now()));
            }
        }
        if let Op::Exec(_) = vertex.op {
            self.ready_runtime();
        }
        let inputs = vertex.op.inputs();
        for input in &inputs {
            self.ask(*input);
        }
        let mut results = Vec::new();
        for input in inputs {
            results.push((input, self.need(input).await?));
        }
        let root = Arc::clone(&results[0].1);
        let started = Instant::now();
        let solved = match &vertex.op {
            Op::Exec(op) => self.exec(id, op, &results).await,
            Op::File(op) => self.files(id, op, &results).await,
            Op::Scratch | Op::Image(_) | Op::Context(_) => Err(BuildError::Internal {
                what: "a source is no step".to_owned(),
            }),
        };
        match solved {
            Ok(solved) => Ok(self.finished(id, &root, solved, started)),
            Err(error) => {
                self.announce_failure(id, &error, started);
                Err(error)
            }
        }
    }

    /// Looks a content key up, and on a hit files the entry under the definition key too.
    pub(super) async fn content_hit(
        &self,
        id: VertexId,
        recipe: &KeyRecipe,
        inputs: &[(VertexId, Arc<VertexResult>)],
    ) -> Result<Option<Solved>, BuildError> {
        let session = &self.session;
        let key = recipe.key();
        let mut found = session
            .executed(key)
            .map(|result| FoundAction { result, tier: None });
        if found.is_none() && session.trusts(id) {
            found = session
                .tiers
                .lookup(&[key])
                .await
                .into_iter()
                .flatten()
                .find(|found| !is_older(&found.result, session.graph.vertex(id).max_age));
        }
        let Some(FoundAction {
            result: mut record,
            tier,
        }) = found
        else {
            return Ok(None);
        };
        if !session.bytes.at_hand(record.layer.as_ref()) {
            return Ok(None);
        }
        let solved = Solved {
            layer: record.layer.clone(),
            outcome: Outcome::ContentHit,
            recorded_ms: Some(record.duration_ms),
            tier: tier
                .and_then(|n| session.tiers.tier_name(n))
                .map(str::to_owned),
        };
        let definition = session.keys.recipe_of(id);
        record.key = definition.key();
        record.kind = KeyKind::Definition;
        record.recipe = definition.stored();
        record.step = step_info(session.graph.vertex(id));
        (record.parent, record.inputs) = chains(inputs);
        // It is this build that says so of this key.
        record.producer = session.engine.options.producer.clone();
        record.scope = session.engine.options.scopes.own().clone();
        record.signature = None;
        match tier {
            // Bytes that are not local yet bring the entry with them.
            Some(tier) if record.layer.is_some() => session.tiers.offer_as(tier, &record),
            _ => {
                self.save(vec![record.clone()]).await?;
                self.keep_note(id, record.id());
            }
        }
        let ends = self.frame_ends(record.layer.as_ref());
        let job = SaveJob {
            entries: vec![record],
            ends,
            tiers: None,
            source: tier,
        };
        self.send(id, job).await;
        Ok(Some(solved))
    }

    /// Where the frames of a layer end, if its index has been read.
    fn frame_ends(&self, layer: Option<&LayerBlob>) -> Vec<u64> {
        let index = layer.and_then(|layer| self.session.bytes.cached_index(layer));
        index.map_or_else(Vec::new, |index| index.frame_ends())
    }

    /// Files the result of an executed step under both its keys.
    pub(super) async fn record(
        &self,
        id: VertexId,
        content: &KeyRecipe,
        inputs: &[(VertexId, Arc<VertexResult>)],
        layer: Option<&LayerBlob>,
        duration_ms: u64,
    ) -> Result<(), BuildError> {
        let session = &self.session;
        let vertex = session.graph.vertex(id);
        let (parent, others) = chains(inputs);
        let records = [session.keys.recipe_of(id), content].map(|recipe| ActionResult {
            version: RECORD_VERSION,
            key: recipe.key(),
            kind: recipe.kind(),
            step: step_info(vertex),
            parent,
            inputs: others.clone(),
            layer: layer.cloned(),
            recipe: recipe.stored(),
            duration_ms,
            created: unix_now(),
            producer: session.engine.options.producer.clone(),
            scope: session.engine.options.scopes.own().clone(),
            signature: None,
        });
        session.counters.ran(id, duration_ms);
        let written = layer.map_or(0, |l| l.size);
        session
            .counters
            .written
            .fetch_add(written, Ordering::Relaxed);
        session.keep_executed(&records);
        self.save(records.to_vec()).await?;
        self.keep_note(id, records[0].id());
        let job = SaveJob {
            ends: self.frame_ends(layer),
            entries: records.to_vec(),
            tiers: None,
            source: None,
        };
        self.send(id, job).await;
        Ok(())
    }

    /// Saves a result in the tiers. That of a RUN goes in any case: executed again it may give
    /// something else, and all that stands on it would have to be executed too. What COPY gives can
    /// be had again as it was, so it goes where that is worth it.
    async fn send(&self, id: VertexId, job: SaveJob) {
        let saver = self.session.tiers.saver();
        match self.session.graph.vertex(id).op {
            Op::Exec(_) => saver.save_anyway(job).await,
            _ => saver.save(job).await,
        }
    }

    /// Keeps entries in the local store. A store that refuses costs a later build its hit, not this one its
    /// success.
    async fn save(&self, records: Vec<ActionResult>) -> Result<(), BuildError> {
        let store = Arc::clone(&self.session.engine.store);
        let events = self.session.engine.events.clone();
        blocking(move || {
            for record in &records {
                if let Err(error) = store.put_action(record) {
                    events.warn(
                        format!(
                            "a result of `{}` was not saved: {error}",
                            record.step.instruction
                        ),
                        None,
                    );
                    break;
                }
            }
            Ok(())
        })
        .await
    }

    fn finished(
        &self,
        id: VertexId,
        root: &VertexResult,
        solved: Solved,
        started: Instant,
    ) -> VertexResult {
        let session = &self.session;
        let vertex = session.graph.vertex(id);
        if matches!(solved.outcome, Outcome::Hit | Outcome::ContentHit) {
            session.counters.hit(id, solved.recorded_ms.unwrap_or(0));
        }
        if solved.outcome == Outcome::ContentHit {
            self.announce(id);
        }
        session.engine.events.send(BuildEvent::StepFinished {
            step: StepId(id.0),
            name: vertex.name.clone(),
            outcome: solved.outcome,
            ms: millis(started),
            recorded_ms: solved.recorded_ms,
            tier: solved.tier,
            layer_bytes: solved.layer.as_ref().map(|l| l.size),
        });
        root.with(solved.layer.map(|blob| ResultLayer { blob, from: id }))
    }

    fn announce_failure(&self, id: VertexId, error: &BuildError, started: Instant) {
        let name = self.session.graph.vertex(id).name.clone();
        let step = StepId(id.0);
        self.session.engine.events.send(match error {
            BuildError::Interrupted | BuildError::Lost(_) => {
                BuildEvent::StepCancelled { step, name }
            }
            error => BuildEvent::StepFailed {
                step,
                name,
                reason: std::error::Error::source(error)
                    .map_or_else(|| error.to_string(), ToString::to_string),
                ms: millis(started),
            },
        });
    }
}

/// Answers the waiters of a vertex whose task ends without an answer.
struct Guard<'a>(&'a watch::Sender<Option<Done>>);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.send_if_modified(|value| {
            let unanswered = value.is_none();
            if unanswered {
                *value = Some(None);
            }
            unanswered
        });
    }
}

/// A step as its entries have it.
fn step_info(vertex: &Vertex) -> StepInfo {
    StepInfo {
        name: vertex.name.clone(),
        instruction: vertex.instruction.clone(),
        target: vertex.target.to_string(),
        platform: (*vertex.platform).clone(),
    }
}

/// The chain of the root, and those of the other inputs.
fn chains(inputs: &[(VertexId, Arc<VertexResult>)]) -> (ChainId, Vec<ChainId>) {
    let mut chains = inputs.iter().map(|(_, result)| result.chain);
    let root = chains.next().unwrap_or_else(ChainId::empty);
    (root, chains.collect())
}

/// Milliseconds since `start`.
pub(super) fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn unix_now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}
