//! The execution of COPY, ADD, WORKDIR and heredoc files.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::{
    BuildError, FailedStep, VertexResult,
    attempt::{Attempt, Solved, millis},
    bytes::{finish_layer, layer_error},
    files::{Content, Contents, FileError, Plan, Source, check, plan, write},
    session::blocking,
};
use crate::{
    event::{BuildEvent, Outcome, StepId},
    graph::{FileAction, FileOp, Op, VertexId},
    key::file_content_recipe,
    oci::layer::{LayerBlob, LayerBuilder, LayerError, LayerPath},
};

/// Entries between two progress events.
const PROGRESS_EVERY: usize = 500;

impl Attempt {
    /// Solves a File vertex whose inputs are solved.
    pub(super) async fn files(
        self: &Arc<Self>,
        id: VertexId,
        op: &FileOp,
        inputs: &[(VertexId, Arc<VertexResult>)],
    ) -> Result<Solved, BuildError> {
        let root = &inputs[0].1;
        let root_tree = self.session.bytes.tree(&root.layers).await?;
        let mut sources = self.sources(op, inputs).await?;
        let plan = {
            let (op, sources) = (op.clone(), sources.clone());
            blocking(move || Ok(plan(&op, &root_tree, &sources)))
                .await?
                .map_err(|source| self.file_error(id, source))?
        };
        let recipe = file_content_recipe(plan.key());
        if let Some(solved) = self.content_hit(id, &recipe, inputs).await? {
            return Ok(solved);
        }
        self.unpack_below(id, root);
        let (plan, bare) = (Arc::new(plan), sources.clone());
        // What the step reads comes while others still run.
        let partial = self
            .open_contents(op, &plan, &mut sources, inputs, false)
            .await?;
        let _permit = self.permit().await?;
        self.announce_run(id).await;
        let started = Instant::now();
        for name in &plan.unknown_owners {
            let instruction = &self.session.graph.vertex(id).instruction;
            self.session.engine.events.warn(
                format!(
                    "`{instruction}`: the image has no user or group `{name}`; root stands for it"
                ),
                Some("make it in a RUN before, or give numbers".to_owned()),
            );
        }
        let mut written = self.write_files(id, &plan, sources).await;
        if partial && matches!(written, Err(BuildError::Files { .. })) {
            // Parts of layers are verified by what was made of them; whole ones before.
            self.session.engine.events.warn(
                "parts of a layer in a remote cache were not right; the whole layer is fetched",
                None,
            );
            let mut sources = bare;
            self.open_contents(op, &plan, &mut sources, inputs, true)
                .await?;
            written = self.write_files(id, &plan, sources).await;
        }
        let layer = written?;
        self.record(id, &recipe, inputs, layer.as_ref(), millis(started))
            .await?;
        Ok(Solved {
            layer,
            outcome: Outcome::Ran,
            recorded_ms: None,
            tier: None,
        })
    }

    /// Leave to execute a step.
    pub(super) async fn permit(&self) -> Result<tokio::sync::SemaphorePermit<'_>, BuildError> {
        tokio::select! {
            permit = self.session.jobs.acquire() => permit.map_err(|_| BuildError::Interrupted),
            () = self.halt.cancelled() => Err(BuildError::Interrupted),
        }
    }

    /// Where each action copies from: metadata only.
    async fn sources(
        &self,
        op: &FileOp,
        inputs: &[(VertexId, Arc<VertexResult>)],
    ) -> Result<Vec<Option<Source>>, BuildError> {
        let mut sources = Vec::new();
        for action in &op.actions {
            let FileAction::Copy(copy) = action else {
                sources.push(None);
                continue;
            };
            let vertex = self.session.graph.vertex(copy.from);
            if let Op::Context(context) = vertex.op {
                sources.push(self.session.contexts.get(&context).cloned());
                continue;
            }
            let layers = layers_of(inputs, copy.from);
            sources.push(Some(Source {
                name: match &vertex.op {
                    Op::Image(image) => format!("image `{}`", image.reference),
                    _ => format!("stage `{}`", vertex.stage),
                },
                tree: self.session.bytes.tree(&layers).await?,
                contents: Contents::Absent,
            }));
        }
        Ok(sources)
    }

    /// Opens the layers that the plan reads from, and no others; of layers that are not local, with
    /// `whole` unset, what is needed of them where that is little. Whether there is such a one.
    async fn open_contents(
        &self,
        op: &FileOp,
        plan: &Plan,
        sources: &mut [Option<Source>],
        inputs: &[(VertexId, Arc<VertexResult>)],
        whole: bool,
    ) -> Result<bool, BuildError> {
        let mut needed: BTreeMap<usize, BTreeMap<usize, Vec<LayerPath>>> = BTreeMap::new();
        for planned in &plan.entries {
            if let Content::File {
                source,
                layer,
                path,
                ..
            } = &planned.content
                && let Some(Source {
                    contents: Contents::Absent,
                    ..
                }) = &sources[*source]
            {
                let layers = needed.entry(*source).or_default();
                layers.entry(*layer).or_default().push(path.clone());
            }
        }
        let mut partial = false;
        for (number, wanted) in needed {
            let FileAction::Copy(copy) = &op.actions[number] else {
                continue;
            };
            let layers = layers_of(inputs, copy.from);
            let mut contents = BTreeMap::new();
            for (n, paths) in wanted {
                let (content, part) = tokio::select! {
                    opened = self.session.bytes.content(&layers[n], &paths, whole) => opened?,
                    () = self.halt.cancelled() => return Err(BuildError::Interrupted),
                };
                partial |= part;
                contents.insert(n, content);
            }
            if let Some(source) = &mut sources[number] {
                source.contents = Contents::Layers(contents);
            }
        }
        Ok(partial)
    }

    async fn write_files(
        &self,
        id: VertexId,
        plan: &Arc<Plan>,
        sources: Vec<Option<Source>>,
    ) -> Result<Option<LayerBlob>, BuildError> {
        if plan.entries.is_empty() {
            return Ok(None);
        }
        let plan = Arc::clone(plan);
        let engine = &self.session.engine;
        let (store, events) = (Arc::clone(&engine.store), engine.events.clone());
        let options = engine.options.layer;
        let total = plan.entries.len();
        let written = blocking(move || {
            let mut builder = LayerBuilder::new(store.writer()?, options);
            let written = write(&plan, &sources, &mut builder, |current| {
                if current % PROGRESS_EVERY == 0 {
                    events.send(BuildEvent::StepProgress {
                        step: StepId(id.0),
                        what: "files".to_owned(),
                        current: current as u64,
                        total: Some(total as u64),
                    });
                }
            });
            match written {
                Ok(()) => {
                    let (blob, index) = finish_layer(&store, builder)?;
                    Ok(check(&plan, &index).map(|()| (blob, index)))
                }
                // A full disk is no fault of the step.
                Err(FileError::Layer(error @ LayerError::Write(_))) => {
                    Err(layer_error(&store, error))
                }
                Err(error) => Ok(Err(error)),
            }
        })
        .await?;
        let (blob, index) = written.map_err(|source| self.file_error(id, source))?;
        self.session.bytes.remember(&blob, index);
        Ok(Some(blob))
    }

    fn file_error(&self, id: VertexId, source: FileError) -> BuildError {
        BuildError::Files {
            step: FailedStep::of(&self.session.graph, id),
            source,
        }
    }
}

fn layers_of(
    inputs: &[(VertexId, Arc<VertexResult>)],
    id: VertexId,
) -> Vec<Arc<super::ResultLayer>> {
    inputs
        .iter()
        .find(|(input, _)| *input == id)
        .map(|(_, result)| result.layers.clone())
        .unwrap_or_default()
}
