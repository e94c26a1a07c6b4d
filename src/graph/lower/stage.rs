//! Lowering the stages that are needed, one after the other.

use std::{cell::OnceCell, fmt::Write as _, sync::Arc};

use crate::{
    dockerfile::{
        Span,
        ast::{ArgPair, Instruction, InstructionKind, KeyValue},
        expand::Variables,
        ignore::Ignore,
        nearest,
    },
    graph::{BuildGraph, CopyAction, FileAction, FileOp, GraphTarget, MissingSource, Op, VertexId},
    oci::{ImageConfig, Platform, config::RootFs},
};

use super::{
    Clock, LowerError, Lowered,
    copy::clean,
    env::{Args, Env},
    lists::{Addition, Lists},
    origin::Origin,
    outline::Outlines,
    plan::Plan,
    rules::Once,
    vertices::Known,
};

/// Undefined variables for which a defined one with a similar name is looked for.
const MAX_SUGGESTIONS: usize = 50;

/// PATH of an image that sets none, as in BuildKit and runc.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Arguments that processes don't see: they are for the builder.
const NOT_IN_PROCESSES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// A stage in the making, or made.
#[derive(Debug)]
pub(super) struct State {
    pub(super) index: usize,
    pub(super) platform: Arc<Platform>,
    pub(super) root: VertexId,
    /// Without what is in `Lists`.
    pub(super) config: ImageConfig,
    /// The lists of the image or target that it starts from; those of a stage are where that
    /// stage has them.
    lists: Option<Lists>,
    /// What this stage adds to the lists.
    additions: Vec<Addition>,
    /// Whether it is the target, or what the target starts from: the lists of others are
    /// nobody's.
    pub(super) in_target: bool,
    /// The stage that it starts from.
    below: Option<usize>,
    pub(super) clock: Clock,
    /// What RUN sees and words are expanded with: ENV and ARG together, the later one
    /// of a name wins.
    pub(super) env: Env,
    /// What ARG declared.
    pub(super) args: Args,
    /// Whether this stage (not its base) had a CMD.
    pub(super) cmd_set: bool,
    /// What checks remember of the stage.
    pub(super) once: Once,
    /// Number of the last step that was named, and of all steps.
    pub(super) step: usize,
    pub(super) steps: usize,
}

impl State {
    /// Adds to the lists, if they are wanted.
    pub(super) fn add(&mut self, addition: Addition) {
        if self.in_target {
            self.additions.push(addition);
        }
    }
}

/// Lowering of one Dockerfile.
pub(super) struct Lowering<'a> {
    pub(super) graph: &'a mut BuildGraph,
    pub(super) known: Known,
    pub(super) plan: &'a Plan<'a>,
    /// By stage number.
    pub(super) done: Vec<Option<State>>,
    /// By stage number, how many stages to come start from it. The last one takes its
    /// configuration and variables.
    children: Vec<usize>,
    /// By stage number, whether it is the target or below it.
    in_target: Vec<bool>,
    pub(super) missing: Vec<MissingSource>,
    pub(super) outlines: Outlines,
    /// Undefined variables so far.
    unset: usize,
    /// The main context's ignore file, once a check wants it.
    pub(super) ignore: OnceCell<Option<Ignore>>,
}

impl<'a> Lowering<'a> {
    pub(super) fn new(graph: &'a mut BuildGraph, plan: &'a Plan<'a>) -> Self {
        Self {
            known: Known::of(graph),
            graph,
            plan,
            done: plan.stages.iter().map(|_| None).collect(),
            children: plan.children(),
            in_target: plan.below_target(),
            missing: Vec::new(),
            outlines: Outlines::new(plan),
            unset: 0,
            ignore: OnceCell::new(),
        }
    }

    pub(super) fn run(mut self) -> Result<Lowered, LowerError> {
        for index in &self.plan.needed {
            let state = self.stage(*index)?;
            self.done[*index] = Some(state);
        }
        for warning in self.plan.unused_arguments() {
            self.plan.checks.note(warning);
        }
        let input = self.plan.input;
        // The target is among the needed stages, which were all lowered just now.
        let state = match self.done[self.plan.target].take() {
            Some(state) => state,
            None => self.stage(self.plan.target)?,
        };
        let (root, clock) = (state.root, state.clock);
        let (mut config, history) = self.complete(state);
        let platform = match input.implicit_platform {
            true => config.platform(),
            false => {
                set_platform(&mut config, &input.platform);
                input.platform.clone()
            }
        };
        if !input.labels.is_empty() {
            let labels = config.config.labels.get_or_insert_default();
            labels.extend(input.labels.clone());
        }
        self.graph.targets.push(GraphTarget {
            name: input.target_name.clone(),
            platform,
            root,
            config,
            history,
        });
        Ok(Lowered {
            target: self.graph.targets.len() - 1,
            clock,
            warnings: Vec::new(),
            outline: self.outlines.of_target(self.plan),
            proxies: self.plan.proxies(),
            missing: self.missing,
        })
    }

    /// The configuration of the target, with the lists of all stages below it, and the
    /// vertices of the last entries of its history.
    fn complete(&mut self, state: State) -> (ImageConfig, Vec<Option<VertexId>>) {
        let mut config = state.config;
        let mut additions = vec![state.additions];
        let (mut lists, mut below) = (state.lists, state.below);
        while let Some(stage) = below.and_then(|index| self.done[index].as_mut()) {
            additions.push(std::mem::take(&mut stage.additions));
            (lists, below) = (stage.lists.take(), stage.below);
        }
        let mut lists = lists.unwrap_or_default();
        lists.add(additions.into_iter().rev().flatten());
        let history = lists.put(&mut config);
        (config, history)
    }

    fn stage(&mut self, index: usize) -> Result<State, LowerError> {
        let plan = self.plan;
        let planned = &plan.stages[index];
        let mut state = self.base(index)?;
        plan.checks.enter_triggers(planned.stage.span);
        for trigger in &planned.triggers {
            self.instruction(&mut state, trigger)
                .map_err(|error| plan.in_trigger(trigger, error))?;
        }
        plan.checks.leave();
        if planned.replaced {
            return Ok(state);
        }
        for instruction in &planned.stage.instructions {
            plan.checks.enter(&instruction.written.comments);
            self.instruction(&mut state, instruction)?;
        }
        plan.checks.leave();
        Ok(state)
    }

    /// The state at the start of a stage.
    fn base(&mut self, index: usize) -> Result<State, LowerError> {
        let planned = &self.plan.stages[index];
        let span = planned.stage.span;
        let platform = Arc::clone(&planned.platform);
        let steps = planned.instructions();
        let steps = steps.filter(|i| is_step(&i.kind)).count();
        let mut state = State {
            index,
            root: VertexId(0),
            config: ImageConfig::empty(&platform),
            lists: None,
            additions: Vec::new(),
            in_target: self.in_target[index],
            below: None,
            clock: Clock::new(self.plan.epoch, None),
            env: Env::default(),
            args: Args::default(),
            cmd_set: false,
            once: Once::default(),
            step: 0,
            steps,
            platform,
        };
        if !matches!(planned.base, Origin::Scratch | Origin::Stage(_)) {
            state.steps += 1;
            state.step = 1;
        }
        let mut inherited = Vec::new();
        match &planned.base {
            Origin::Stage(below) => {
                self.children[*below] -= 1;
                let last = self.children[*below] == 0;
                if let Some(base) = &mut self.done[*below] {
                    state.root = base.root;
                    state.below = Some(*below);
                    state.clock = base.clock;
                    state.once = base.once.inherited();
                    if last {
                        std::mem::swap(&mut state.config, &mut base.config);
                        state.env = std::mem::take(&mut base.env);
                        state.args = std::mem::take(&mut base.args);
                    } else {
                        state.config = base.config.clone();
                        state.env = base.env.clone();
                        state.args = base.args.clone();
                    }
                }
            }
            Origin::Parent(name) => {
                let parent = &self.plan.input.parents[name];
                state.root = parent.target.root;
                state.config = parent.target.config.clone();
                inherited.clone_from(&parent.target.history);
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
                commit(&mut state, "COPY . /".to_owned(), true);
            }
            Origin::Scratch => {
                state.config.config.working_dir = "/".to_owned();
                state.root = self.origin(&Origin::Scratch, &state, span)?;
            }
        }
        if matches!(planned.base, Origin::Scratch | Origin::Local(_)) {
            state.config.config.working_dir = "/".to_owned();
        }
        // They were for this stage, not for what is built on it.
        state.config.config.on_build = None;
        let dir = &mut state.config.config.working_dir;
        if !dir.is_empty() {
            *dir = clean(dir);
        }
        if state.below.is_none() {
            add_default_path(&mut state.config);
            let list = state.config.config.env.as_deref();
            state.env = Env::from_config(list.unwrap_or_default());
            state.lists = Some(Lists::take(&mut state.config, inherited));
        }
        Ok(state)
    }

    fn instruction(
        &mut self,
        state: &mut State,
        instruction: &Instruction,
    ) -> Result<(), LowerError> {
        match &instruction.kind {
            InstructionKind::Arg(pairs) => self.arg(state, pairs, instruction),
            InstructionKind::Env(pairs) => self.env(state, pairs, instruction.span),
            InstructionKind::Run(run) => {
                self.outline_mounts(state, run, instruction.span)?;
                self.run_step(state, run, instruction)
            }
            InstructionKind::Copy(copy) => self.copy_step(state, copy, instruction),
            InstructionKind::Workdir(path) => self.workdir(state, path, instruction),
            _ => self.metadata(state, instruction),
        }
    }

    fn arg(
        &mut self,
        state: &mut State,
        pairs: &[ArgPair],
        instruction: &Instruction,
    ) -> Result<(), LowerError> {
        let span = instruction.span;
        let mut message = String::from("ARG");
        for pair in pairs {
            self.check_secret("ARG", &pair.name, span);
            let given = self.plan.input.build_args.get(&pair.name).cloned();
            let value = match (given, &pair.default) {
                (Some(value), _) => Some(value),
                (None, Some(default)) => Some(self.word(state, default, span)?),
                (None, None) => Variables::get(&self.plan.globals, &pair.name).map(str::to_owned),
            };
            self.outline_arg(state, pair, value.as_deref(), instruction);
            message.push(' ');
            message.push_str(&pair.name);
            if let Some(value) = &value {
                if !NOT_IN_PROCESSES.contains(&pair.name.as_str()) {
                    state.env.set(&pair.name, value);
                }
                message.push('=');
                message.push_str(value);
            }
            state.args.declare(&pair.name, value.as_deref());
        }
        commit(state, message, false);
        Ok(())
    }

    fn env(&mut self, state: &mut State, pairs: &[KeyValue], span: Span) -> Result<(), LowerError> {
        let mut message = String::from("ENV");
        // All values of one ENV see the variables as they were before it.
        let expanded = self.key_values(state, pairs, span)?;
        for (key, value) in expanded {
            self.check_secret("ENV", &key, span);
            let _ = write!(message, " {key}={value}");
            let variable = state.env.set(&key, &value);
            state.args.changed(&key);
            state.add(Addition::Variable(variable));
        }
        commit(state, message, false);
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
            let message = "the form `name value` is old; write `name=value`";
            self.warn("LegacyKeyValueFormat", message.to_owned(), span, None);
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
            if state.args.contains(name) {
                continue;
            }
            // A file full of undefined variables has another problem than a wrong letter, and
            // each is compared with all names.
            self.unset += 1;
            let near = (self.unset <= MAX_SUGGESTIONS)
                .then(|| nearest(name, state.env.names()))
                .flatten();
            let hint = near.map(|n| format!("did you mean `{n}`?"));
            let message = format!("variable `{name}` is not defined");
            self.warn("UndefinedVar", message, span, hint);
        }
    }

    pub(super) fn warn(
        &self,
        rule: &'static str,
        message: String,
        span: Span,
        hint: Option<String>,
    ) {
        let input = self.plan.input;
        self.plan.checks.report(input, rule, message, span, hint);
    }
}

/// Whether an instruction is counted as a step.
fn is_step(kind: &InstructionKind) -> bool {
    use InstructionKind::{Copy, Run, Workdir};
    matches!(kind, Run(_) | Copy(_) | Workdir(_))
}

/// Says that the image is for this platform.
fn set_platform(config: &mut ImageConfig, platform: &Platform) {
    let same = config.os == platform.os && config.architecture == platform.architecture;
    config.os.clone_from(&platform.os);
    config.architecture.clone_from(&platform.architecture);
    // A base image may be more exact (`arm64/v8`) than the platform's normal form.
    if platform.variant.is_some() || !same {
        config.variant.clone_from(&platform.variant);
    }
}

/// Sets PATH if the image sets none.
fn add_default_path(config: &mut ImageConfig) {
    let list = config.config.env.get_or_insert_default();
    if !list.iter().any(|entry| entry.starts_with("PATH=")) {
        list.push(format!("PATH={DEFAULT_PATH}"));
    }
}

/// Adds a history entry. The last vertex of the stage made its layer, if it has one.
pub(super) fn commit(state: &mut State, created_by: String, layer: bool) {
    let vertex = layer.then_some(state.root);
    state.add(Addition::History(created_by, vertex));
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
