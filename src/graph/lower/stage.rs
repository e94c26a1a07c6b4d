//! Lowering the stages that are needed, one after the other.

use crate::{
    dockerfile::{
        Problem, Span,
        ast::{ArgPair, Instruction, InstructionKind, KeyValue},
        expand::{Expander, Variables},
        nearest,
    },
    graph::{
        BuildGraph, CopyAction, FileAction, FileOp, GraphTarget, ImageTable, MissingSource, Op,
        Vertex, VertexId,
    },
    oci::{
        ImageConfig, Platform,
        config::{History, RootFs},
    },
    redact,
};

use super::{
    Clock, LowerError, LowerWarning, Lowered, NoCache,
    copy::clean,
    env::Env,
    plan::{Origin, Plan},
    warning,
};

/// Length in characters at which names for people are cut.
const NAME_LENGTH: usize = 120;

/// PATH of an image that sets none, as in BuildKit and runc.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `comment` of the history entries.
const COMMENT: &str = "memobuild-ci.dockerfile.v1";

/// A stage in the making, or made.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) index: usize,
    pub(super) platform: Platform,
    pub(super) root: VertexId,
    pub(super) config: ImageConfig,
    pub(super) history: Vec<Option<VertexId>>,
    pub(super) clock: Clock,
    /// What RUN sees and words are expanded with: ENV and ARG together, the later one
    /// of a name wins.
    pub(super) env: Env,
    /// Names that ARG declared, with the value at the time if there was one.
    pub(super) args: Vec<(String, Option<String>)>,
    /// Whether this stage (not its base) had a CMD.
    pub(super) cmd_set: bool,
    /// Number of the last step that was named, and of all steps.
    step: usize,
    steps: usize,
}

/// Lowering of one Dockerfile.
pub(super) struct Lowering<'a> {
    graph: &'a mut BuildGraph,
    pub(super) plan: &'a Plan<'a>,
    images: &'a ImageTable,
    /// By stage number.
    done: Vec<Option<State>>,
    pub(super) warnings: Vec<LowerWarning>,
    pub(super) missing: Vec<MissingSource>,
}

impl<'a> Lowering<'a> {
    pub(super) fn new(
        graph: &'a mut BuildGraph,
        plan: &'a Plan<'a>,
        images: &'a ImageTable,
    ) -> Self {
        Self {
            graph,
            plan,
            images,
            done: vec![None; plan.stages.len()],
            warnings: plan.file_warnings(),
            missing: Vec::new(),
        }
    }

    pub(super) fn run(mut self) -> Result<Lowered, LowerError> {
        for index in &self.plan.needed {
            let state = self.stage(*index)?;
            self.done[*index] = Some(state);
        }
        let input = self.plan.input;
        // The target is among the needed stages, which were all lowered just now.
        let state = match self.done[self.plan.target].take() {
            Some(state) => state,
            None => self.stage(self.plan.target)?,
        };
        let mut config = state.config;
        let same =
            config.os == input.platform.os && config.architecture == input.platform.architecture;
        config.os = input.platform.os.clone();
        config.architecture = input.platform.architecture.clone();
        // A base image may be more exact (`arm64/v8`) than the platform's normal form.
        if input.platform.variant.is_some() || !same {
            config.variant = input.platform.variant.clone();
        }
        if !input.labels.is_empty() {
            let labels = config.config.labels.get_or_insert_default();
            labels.extend(input.labels.clone());
        }
        self.graph.targets.push(GraphTarget {
            name: input.target_name.clone(),
            platform: input.platform.clone(),
            root: state.root,
            config,
            history: state.history,
        });
        Ok(Lowered {
            target: self.graph.targets.len() - 1,
            clock: state.clock,
            warnings: self.warnings,
            proxies: self.plan.proxies(),
            missing: self.missing,
        })
    }

    fn stage(&mut self, index: usize) -> Result<State, LowerError> {
        let planned = &self.plan.stages[index];
        let mut state = self.base(index)?;
        if planned.replaced {
            return Ok(state);
        }
        for instruction in &planned.stage.instructions {
            self.instruction(&mut state, instruction)?;
        }
        Ok(state)
    }

    /// The state at the start of a stage.
    fn base(&mut self, index: usize) -> Result<State, LowerError> {
        let planned = &self.plan.stages[index];
        let span = planned.stage.span;
        let platform = planned.platform.clone();
        let steps = planned.stage.instructions.iter();
        let steps = steps.filter(|i| is_step(&i.kind)).count();
        let mut state = State {
            index,
            root: VertexId(0),
            config: ImageConfig::empty(&platform),
            history: Vec::new(),
            clock: Clock::new(self.plan.epoch, None),
            env: Env::default(),
            args: Vec::new(),
            cmd_set: false,
            step: 0,
            steps,
            platform,
        };
        if !matches!(planned.base, Origin::Scratch | Origin::Stage(_)) {
            state.steps += 1;
            state.step = 1;
        }
        match &planned.base {
            Origin::Stage(base) => {
                if let Some(base) = self.done[*base].clone() {
                    state.root = base.root;
                    state.config = base.config;
                    state.history = base.history;
                    state.clock = base.clock;
                    state.env = base.env;
                    state.args = base.args;
                }
            }
            Origin::Parent(name) => {
                let parent = &self.plan.input.parents[name];
                state.root = parent.target.root;
                state.config = parent.target.config.clone();
                state.history = parent.target.history.clone();
                state.clock = parent.clock;
            }
            Origin::Image(reference, platform) => {
                let image = self.image(reference, platform)?;
                state.config = image.config.clone();
                state.clock = Clock::new(self.plan.epoch, image.config.created.as_deref());
                state.config.created = None;
                state.config.rootfs = RootFs::default();
                state.root = self.origin(&planned.base, &state, span)?;
            }
            Origin::Local(_) => {
                // A directory as a base: its files, as the first layer.
                let from = self.origin(&planned.base, &state, span)?;
                let root = self.origin(&Origin::Scratch, &state, span)?;
                let op = Op::File(FileOp {
                    root,
                    actions: vec![FileAction::Copy(whole_tree(from))],
                    mtime: state.clock.tick(),
                });
                let instruction = self.plan.stages[index].stage.text.clone();
                state.step = 0;
                state.root = self.step(&mut state, op, &instruction, span);
                let created_by = "COPY . /";
                commit(&mut state, created_by, true);
            }
            Origin::Scratch => state.root = self.origin(&Origin::Scratch, &state, span)?,
        }
        self.refuse_triggers(&mut state, span)?;
        let dir = &mut state.config.config.working_dir;
        if !dir.is_empty() {
            *dir = clean(dir);
        }
        for (name, value) in default_env(&mut state.config).pairs() {
            state.env.set(name, value);
        }
        Ok(state)
    }

    /// ONBUILD triggers of the base can't be left out silently.
    fn refuse_triggers(&self, state: &mut State, span: Span) -> Result<(), LowerError> {
        match state.config.config.on_build.take() {
            Some(triggers) if !triggers.is_empty() => {
                let construct = format!("a base image with ONBUILD (`{}`)", triggers[0]);
                Err(self.plan.fail(span, Problem::Unsupported { construct }))
            }
            _ => Ok(()),
        }
    }

    fn image(
        &self,
        reference: &str,
        platform: &Platform,
    ) -> Result<&'a crate::graph::ResolvedImage, LowerError> {
        let key = (reference.to_owned(), platform.clone());
        self.images.get(&key).ok_or(LowerError::MissingImage {
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
        let text = redact::url_credentials(&text).into_owned();
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
        let same = self.graph.vertices.iter().position(|v| {
            v.op == vertex.op
                && v.no_cache == vertex.no_cache
                && (!is_step || v.platform == vertex.platform)
        });
        VertexId(same.unwrap_or_else(|| {
            self.graph.vertices.push(vertex);
            self.graph.vertices.len() - 1
        }))
    }

    fn instruction(
        &mut self,
        state: &mut State,
        instruction: &Instruction,
    ) -> Result<(), LowerError> {
        match &instruction.kind {
            InstructionKind::Arg(pairs) => self.arg(state, pairs, instruction.span),
            InstructionKind::Env(pairs) => self.env(state, pairs, instruction.span),
            InstructionKind::Run(run) => self.run_step(state, run, instruction),
            InstructionKind::Copy(copy) => self.copy_step(state, copy, instruction),
            InstructionKind::Workdir(path) => self.workdir(state, path, instruction),
            _ => self.metadata(state, instruction),
        }
    }

    fn arg(&mut self, state: &mut State, pairs: &[ArgPair], span: Span) -> Result<(), LowerError> {
        let mut message = String::from("ARG");
        for pair in pairs {
            self.warn_secret("ARG", &pair.name, span);
            let given = self.plan.input.build_args.get(&pair.name).cloned();
            let value = match (given, &pair.default) {
                (Some(value), _) => Some(value),
                (None, Some(default)) => Some(self.word(state, default, span)?),
                (None, None) => Variables::get(&self.plan.globals, &pair.name).map(str::to_owned),
            };
            message.push(' ');
            message.push_str(&pair.name);
            if let Some(value) = &value {
                state.env.set(&pair.name, value);
                message.push('=');
                message.push_str(value);
            }
            state.args.push((pair.name.clone(), value));
        }
        commit(state, &message, false);
        Ok(())
    }

    fn env(&mut self, state: &mut State, pairs: &[KeyValue], span: Span) -> Result<(), LowerError> {
        let mut message = String::from("ENV");
        let mut list = Env::from_config(state.config.config.env.as_deref().unwrap_or_default());
        // All values of one ENV see the variables as they were before it.
        let expanded = self.key_values(state, pairs, span)?;
        for (key, value) in expanded {
            self.warn_secret("ENV", &key, span);
            message.push_str(&format!(" {key}={value}"));
            state.env.set(&key, &value);
            list.set(&key, &value);
        }
        state.config.config.env = list.to_config();
        commit(state, &message, false);
        Ok(())
    }

    /// Expands names and values.
    pub(super) fn key_values(
        &mut self,
        state: &State,
        pairs: &[KeyValue],
        span: Span,
    ) -> Result<Vec<(String, String)>, LowerError> {
        if pairs.iter().any(|p| p.legacy) {
            self.warn(
                "LegacyKeyValueFormat",
                "the form `name value` is old; write `name=value`".to_owned(),
                span,
                None,
            );
        }
        let mut out = Vec::new();
        for pair in pairs {
            let key = self.word(state, &pair.key, span)?;
            let value = self.word(state, &pair.value, span)?;
            out.push((key, value));
        }
        Ok(out)
    }

    /// Expands one word with the stage's variables.
    pub(super) fn word(
        &mut self,
        state: &State,
        text: &str,
        span: Span,
    ) -> Result<String, LowerError> {
        let expansion = self.plan.expand(text, span, &state.env)?;
        self.warn_unset(state, &expansion.unset, span);
        Ok(expansion.text)
    }

    pub(super) fn warn_unset(
        &mut self,
        state: &State,
        unset: &std::collections::BTreeSet<String>,
        span: Span,
    ) {
        for name in unset {
            if state.args.iter().any(|(arg, _)| arg == name) {
                continue;
            }
            let near = nearest(name, state.env.names());
            let hint = near.map(|n| format!("did you mean `{n}`?"));
            let message = format!("variable `{name}` is not defined; it is empty");
            self.warn("UndefinedVar", message, span, hint);
        }
    }

    fn warn_secret(&mut self, keyword: &str, name: &str, span: Span) {
        if warning::looks_secret(name) {
            let message = format!(
                "{keyword} `{name}` looks like a secret, which stays readable in the image"
            );
            self.warn("SecretsUsedInArgOrEnv", message, span, None);
        }
    }

    pub(super) fn warn(
        &mut self,
        rule: &'static str,
        message: String,
        span: Span,
        hint: Option<String>,
    ) {
        let warning = LowerWarning {
            rule,
            message,
            location: Some(self.plan.location(span)),
            hint,
        };
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

/// Whether an instruction is counted as a step.
fn is_step(kind: &InstructionKind) -> bool {
    use InstructionKind::{Copy, Run, Workdir};
    matches!(kind, Run(_) | Copy(_) | Workdir(_))
}

/// Sets PATH if the image sets none; gives the variables.
fn default_env(config: &mut ImageConfig) -> Env {
    let mut env = Env::from_config(config.config.env.as_deref().unwrap_or_default());
    if Variables::get(&env, "PATH").is_none() {
        env.set("PATH", DEFAULT_PATH);
        config.config.env = env.to_config();
    }
    env
}

/// Adds a history entry. The last vertex of the stage made its layer, if it has one.
pub(super) fn commit(state: &mut State, created_by: &str, layer: bool) {
    state.config.history.push(History {
        created: None,
        created_by: Some(created_by.to_owned()),
        author: None,
        comment: Some(COMMENT.to_owned()),
        empty_layer: !layer,
    });
    state.history.push(layer.then_some(state.root));
}

/// A copy of everything to the root directory.
fn whole_tree(from: VertexId) -> CopyAction {
    CopyAction {
        from,
        sources: vec![".".to_owned()],
        dest: "/".to_owned(),
        owner: None,
        mode: None,
        unpack: false,
        parents: false,
        exclude: Vec::new(),
        link: false,
    }
}

/// At most [`NAME_LENGTH`] characters.
fn cut(text: String) -> String {
    match text.char_indices().nth(NAME_LENGTH) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
