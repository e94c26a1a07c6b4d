//! Adding vertices to the graph: their names, and equal ones made once.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use crate::{
    dockerfile::{Problem, Span, expand::Expander},
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
                    name: self.plan.stages[*index].label.clone(),
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
            Origin::Image(_, platform) => platform.clone(),
            _ => state.platform.clone(),
        };
        let name = match &op {
            Op::Context(context) => self.graph.contexts.get(*context).map_or_else(
                || instruction.clone(),
                |c| format!("[internal] load build context `{}`", c.name),
            ),
            Op::Image(_) if self.plan.stages[state.index].base == *origin => {
                format!("{} {instruction}", self.prefix(state, state.step))
            }
            _ => instruction.clone(),
        };
        let has_line = matches!(op, Op::Image(_));
        let vertex = Vertex {
            op,
            name,
            instruction,
            target: self.plan.input.target_name.clone(),
            stage: self.plan.stages[state.index].label.clone(),
            platform,
            location: has_line.then(|| self.plan.location(span)),
            no_cache: false,
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
            .map_or_else(|_| instruction.to_owned(), |e| e.text);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = crate::redact::url_credentials(&text).into_owned();
        let planned = &self.plan.stages[state.index];
        let vertex = Vertex {
            op,
            name: cut(format!("{} {text}", self.prefix(state, state.step))),
            instruction: cut(text),
            target: self.plan.input.target_name.clone(),
            stage: planned.label.clone(),
            platform: state.platform.clone(),
            location: Some(self.plan.location(span)),
            no_cache: match &self.plan.input.no_cache {
                NoCache::None => false,
                NoCache::All => true,
                NoCache::Stages(stages) => stages
                    .iter()
                    .any(|s| s.eq_ignore_ascii_case(&planned.label)),
            },
        };
        self.add(vertex)
    }

    /// Adds a vertex that belongs to the next step but isn't one of its own.
    pub(super) fn helper(&mut self, state: &State, op: Op, text: &str, span: Span) -> VertexId {
        let vertex = Vertex {
            op,
            name: format!("{} {text}", self.prefix(state, state.step + 1)),
            instruction: text.to_owned(),
            target: self.plan.input.target_name.clone(),
            stage: self.plan.stages[state.index].label.clone(),
            platform: state.platform.clone(),
            location: Some(self.plan.location(span)),
            no_cache: false,
        };
        self.add(vertex)
    }

    /// `[ml builder 2/5]`.
    fn prefix(&self, state: &State, step: usize) -> String {
        let mut out = String::from("[");
        let prefix = &self.plan.input.name_prefix;
        if !prefix.is_empty() {
            out.push_str(prefix);
            out.push(' ');
        }
        // The only stage of a Dockerfile needn't be told from others.
        if self.plan.stages.len() > 1 {
            out.push_str(&self.plan.stages[state.index].label);
            out.push(' ');
        }
        let total = state.steps.to_string();
        format!("{out}{step:>width$}/{total}]", width = total.len())
    }

    /// Adds a vertex, or finds the equal one.
    fn add(&mut self, vertex: Vertex) -> VertexId {
        let is_step = vertex.op.is_step();
        let known = self.known.entry(fingerprint(&vertex.op)).or_default();
        let same = known.iter().find(|id| {
            let v = self.graph.vertex(**id);
            v.op == vertex.op
                && v.no_cache == vertex.no_cache
                && (!is_step || v.platform == vertex.platform)
        });
        if let Some(same) = same {
            return *same;
        }
        let id = VertexId(self.graph.vertices.len());
        known.push(id);
        self.graph.vertices.push(vertex);
        id
    }
}

/// By fingerprint, the vertices that a graph has already.
pub(super) fn known(graph: &BuildGraph) -> HashMap<u64, Vec<VertexId>> {
    let mut known: HashMap<u64, Vec<VertexId>> = HashMap::new();
    for (id, vertex) in graph.vertices.iter().enumerate() {
        let ids = known.entry(fingerprint(&vertex.op)).or_default();
        ids.push(VertexId(id));
    }
    known
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

/// At most [`NAME_LENGTH`] characters.
fn cut(text: String) -> String {
    match text.char_indices().nth(NAME_LENGTH) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
