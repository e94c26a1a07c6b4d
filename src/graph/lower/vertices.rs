//! Adding vertices to the graph: their names, and equal ones made once.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
    fmt::Write as _,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use crate::{
    dockerfile::{Problem, Span, expand::Expander, one_line},
    graph::{BuildGraph, FileAction, Op, Vertex, VertexId},
    oci::Platform,
};

use super::{
    LowerError, NoCache,
    origin::Origin,
    stage::{Lowering, State},
};

/// Length in characters at which names for people are cut.
const NAME_LENGTH: usize = 120;

impl<'a> Lowering<'a> {
    pub(super) fn image(
        &self,
        reference: &str,
        platform: &Platform,
    ) -> Result<&'a crate::graph::ResolvedImage, LowerError> {
        let key = (reference.to_owned(), platform.clone());
        self.plan.images.get(&key).ok_or(LowerError::MissingImage {
            reference: key.0,
            platform: key.1,
        })
    }

    /// The vertex with the files of `origin`, for the stage `state`.
    pub(super) fn origin(
        &mut self,
        origin: &Origin,
        state: &State,
        span: Span,
    ) -> Result<VertexId, LowerError> {
        let (op, instruction) = match origin {
            Origin::Stage(index) => {
                // Only earlier stages get here, and those were lowered before.
                if let Some(done) = &self.done[*index] {
                    return Ok(done.root);
                }
                let problem = Problem::ForwardReference {
                    keyword: "--from".to_owned(),
                    name: self.plan.stages[*index].label.to_string(),
                };
                return Err(self.plan.fail(span, problem));
            }
            Origin::Parent(name) => return Ok(self.plan.input.parents[name].target.root),
            Origin::Scratch => (Op::Scratch, "FROM scratch".to_owned()),
            Origin::Local(context) => (Op::Context(*context), format!("context {context}")),
            Origin::Image(reference, platform) => {
                let image = self.image(reference, platform)?;
                self.check_image(reference, platform, &image.config, span);
                (Op::Image(image.op.clone()), format!("FROM {reference}"))
            }
        };
        let platform = match origin {
            Origin::Image(_, platform) => Arc::new(platform.clone()),
            _ => Arc::clone(&state.platform),
        };
        let name = match &op {
            Op::Context(context) => self.graph.contexts.get(*context).map_or_else(
                || instruction.clone(),
                |c| format!("[internal] load build context `{}`", c.name),
            ),
            Op::Image(_) if self.plan.stages[state.index].base == *origin => {
                self.name(state, state.step, &instruction)
            }
            _ => instruction.clone(),
        };
        let has_line = matches!(op, Op::Image(_));
        let vertex = Vertex {
            op,
            name,
            instruction,
            target: Arc::clone(&self.plan.target_name),
            stage: Arc::clone(&self.plan.stages[state.index].label),
            platform,
            location: has_line.then(|| self.plan.location(span)),
            no_cache: false,
            max_age: None,
        };
        Ok(self.add(vertex))
    }

    /// Adds a step of the stage and numbers it.
    pub(super) fn step(
        &mut self,
        state: &mut State,
        op: Op,
        instruction: &str,
        span: Span,
    ) -> VertexId {
        state.step += 1;
        let lexer = Expander {
            keep_quotes: true,
            keep_escapes: true,
            keep_unset: true,
            ..Expander::new(self.plan.input.dockerfile.escape)
        };
        let text = lexer
            .expand(instruction, &state.env)
            .and_then(|expansion| self.plan.count(expansion))
            .map_or_else(|_| instruction.to_owned(), |e| e.text);
        let text = replaced(text, one_line);
        let text = replaced(text, crate::redact::url_credentials);
        let planned = &self.plan.stages[state.index];
        // Copying gives the same at any time.
        let max_age = match &op {
            Op::Exec(_) => self.plan.input.refresh,
            _ => None,
        };
        let vertex = Vertex {
            op,
            name: cut(self.name(state, state.step, &text)),
            instruction: cut(text),
            target: Arc::clone(&self.plan.target_name),
            stage: Arc::clone(&planned.label),
            platform: Arc::clone(&state.platform),
            location: Some(self.plan.location(span)),
            no_cache: match &self.plan.input.no_cache {
                NoCache::None => false,
                NoCache::All => true,
                NoCache::Stages(stages) => stages
                    .iter()
                    .any(|s| s.eq_ignore_ascii_case(&planned.label)),
            },
            max_age,
        };
        self.add(vertex)
    }

    /// Adds a vertex that belongs to the next step but isn't one of its own.
    pub(super) fn helper(&mut self, state: &State, op: Op, text: &str, span: Span) -> VertexId {
        let vertex = Vertex {
            op,
            name: self.name(state, state.step + 1, text),
            instruction: text.to_owned(),
            target: Arc::clone(&self.plan.target_name),
            stage: Arc::clone(&self.plan.stages[state.index].label),
            platform: Arc::clone(&state.platform),
            location: Some(self.plan.location(span)),
            no_cache: false,
            max_age: None,
        };
        self.add(vertex)
    }

    /// `[ml builder 2/5] RUN make`.
    fn name(&self, state: &State, step: usize, text: &str) -> String {
        let prefix = &self.plan.input.name_prefix;
        let label = &self.plan.stages[state.index].label;
        let mut out = String::with_capacity(prefix.len() + label.len() + text.len() + 20);
        out.push('[');
        if !prefix.is_empty() {
            out.push_str(prefix);
            out.push(' ');
        }
        // The only stage of a Dockerfile needn't be told from others.
        if self.plan.stages.len() > 1 {
            out.push_str(label);
            out.push(' ');
        }
        let total = state.steps;
        let width = total.checked_ilog10().unwrap_or(0) as usize + 1;
        let _ = write!(out, "{step:>width$}/{total}] {text}");
        out
    }

    /// Adds a vertex, or finds the equal one.
    fn add(&mut self, vertex: Vertex) -> VertexId {
        let is_step = vertex.op.is_step();
        let next = VertexId(self.graph.vertices.len());
        let graph = &self.graph;
        let id = self.known.find_or_add(&vertex.op, next, |id| {
            let v = graph.vertex(id);
            v.op == vertex.op
                && v.no_cache == vertex.no_cache
                && v.max_age == vertex.max_age
                && (!is_step || v.platform == vertex.platform)
        });
        if id == next {
            self.graph.vertices.push(vertex);
        }
        id
    }
}

/// The vertices of a graph by fingerprint. Those that share one are numbered.
pub(super) struct Known(HashMap<(u64, usize), VertexId>);

impl Known {
    /// Those that a graph has already.
    pub(super) fn of(graph: &BuildGraph) -> Self {
        let mut known = Self(HashMap::new());
        for (id, vertex) in graph.vertices.iter().enumerate() {
            known.find_or_add(&vertex.op, VertexId(id), |_| false);
        }
        known
    }

    /// The vertex that is the same, or `next`, which is added.
    fn find_or_add(
        &mut self,
        op: &Op,
        next: VertexId,
        is_same: impl Fn(VertexId) -> bool,
    ) -> VertexId {
        let fingerprint = fingerprint(op);
        let mut number = 0;
        loop {
            match self.0.entry((fingerprint, number)) {
                Entry::Occupied(known) if is_same(*known.get()) => return *known.get(),
                Entry::Occupied(_) => number += 1,
                Entry::Vacant(place) => return *place.insert(next),
            }
        }
    }
}

/// A hash of what tells most operations apart; equal ones have the same.
fn fingerprint(op: &Op) -> u64 {
    let mut hasher = DefaultHasher::new();
    std::mem::discriminant(op).hash(&mut hasher);
    op.root().hash(&mut hasher);
    match op {
        Op::Scratch => {}
        Op::Context(context) => context.hash(&mut hasher),
        Op::Image(image) => image.reference.hash(&mut hasher),
        Op::Exec(exec) => (&exec.args, exec.mtime).hash(&mut hasher),
        Op::File(file) => {
            file.mtime.hash(&mut hasher);
            for action in &file.actions {
                match action {
                    FileAction::Copy(copy) => (copy.from, &copy.sources).hash(&mut hasher),
                    FileAction::Write { name, content, .. } => (name, content).hash(&mut hasher),
                    FileAction::MakeDir { path, .. } => path.hash(&mut hasher),
                }
            }
        }
    }
    hasher.finish()
}

/// What `change` makes of a text, which it may leave as it is.
fn replaced(text: String, change: impl Fn(&str) -> Cow<'_, str>) -> String {
    match change(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(changed) => changed,
    }
}

/// At most [`NAME_LENGTH`] characters.
fn cut(text: String) -> String {
    if text.len() <= NAME_LENGTH {
        return text;
    }
    match text.char_indices().nth(NAME_LENGTH) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
