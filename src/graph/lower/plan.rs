//! What a target needs: stages, where they start from, what they copy from.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use crate::{
    dockerfile::{
        DockerfileError, Problem, Span,
        ast::{Instruction, InstructionKind, Stage},
        expand::{ExpandError, Expander, Expansion, Variables},
        is_builtin_frontend, nearest,
    },
    graph::ImageTable,
    oci::Platform,
};

use super::{
    LowerError, LowerInput, LowerWarning,
    check::Checks,
    env::Env,
    origin::{Origin, named_origin},
    outline::Arguments,
    warning,
};

/// Bytes that all words together may have after expansion.
const MAX_EXPANDED: usize = 32 << 20;

/// One stage, its FROM understood.
#[derive(Debug)]
pub(super) struct PlannedStage<'a> {
    pub(super) stage: &'a Stage,
    /// Name, or `stage-0`.
    pub(super) label: Arc<str>,
    pub(super) base: Origin,
    pub(super) platform: Arc<Platform>,
    /// Whether `--build-context` replaces it; its instructions don't count then.
    pub(super) replaced: bool,
    /// Variables that its FROM uses.
    pub(super) used: BTreeSet<String>,
    /// What ONBUILD of its base says, to be done first. Known for stages that are needed.
    pub(super) triggers: Vec<Instruction>,
    /// Everything it uses: its base first, then in order of its instructions. Known for stages
    /// that are needed.
    pub(super) origins: Vec<Origin>,
}

impl PlannedStage<'_> {
    /// What the stage does, in order.
    pub(super) fn instructions(&self) -> impl Iterator<Item = &Instruction> {
        let own: &[Instruction] = match self.replaced {
            true => &[],
            false => &self.stage.instructions,
        };
        self.triggers.iter().chain(own)
    }
}

/// The Dockerfile with all that can be known before images are resolved.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) input: &'a LowerInput<'a>,
    pub(super) images: &'a ImageTable,
    /// Global ARGs and platform variables.
    pub(super) globals: Env,
    pub(super) stages: Vec<PlannedStage<'a>>,
    /// The numbers of the stages of each name, in order.
    pub(super) names: HashMap<&'a str, Vec<usize>>,
    pub(super) target: usize,
    /// Stages to lower; a stage's needs have smaller numbers.
    pub(super) needed: BTreeSet<usize>,
    /// `SOURCE_DATE_EPOCH`, if given in any way.
    pub(super) epoch: Option<i64>,
    pub(super) checks: &'a Checks,
    /// The Dockerfile's name, for locations.
    file: Arc<str>,
    /// The target's name, for vertices.
    pub(super) target_name: Arc<str>,
    /// The ARGs before the first FROM.
    pub(super) arguments: Arguments,
    /// Bytes of all words expanded so far.
    expanded: Cell<usize>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        input: &'a LowerInput<'a>,
        images: &'a ImageTable,
        checks: &'a Checks,
    ) -> Result<Self, LowerError> {
        let mut plan = Self {
            input,
            images,
            names: HashMap::new(),
            globals: Env::default(),
            stages: Vec::new(),
            target: 0,
            needed: BTreeSet::new(),
            epoch: input.epoch,
            checks,
            file: input.dockerfile.source.name.as_str().into(),
            target_name: input.target_name.as_str().into(),
            arguments: Arguments::default(),
            expanded: Cell::new(0),
        };
        plan.check_frontend()?;
        plan.set_globals()?;
        for (index, stage) in input.dockerfile.stages.iter().enumerate() {
            checks.enter(&stage.written.comments);
            let planned = plan.stage(index, stage)?;
            plan.stages.push(planned);
            if let Some(name) = &stage.name {
                plan.names.entry(name).or_default().push(index);
            }
        }
        checks.leave();
        plan.check_numbers()?;
        plan.target = plan.find_target()?;
        plan.need(plan.target)?;
        plan.check_cycles()?;
        if checks.all_stages() {
            for index in 0..plan.stages.len() {
                plan.need(index)?;
            }
        }
        Ok(plan)
    }

    /// The error `problem` at `span`.
    pub(super) fn fail(&self, span: Span, problem: Problem) -> LowerError {
        self.fail_with(span, problem, None)
    }

    pub(super) fn fail_with(
        &self,
        span: Span,
        problem: Problem,
        hint: Option<String>,
    ) -> LowerError {
        DockerfileError::in_instruction(&self.input.dockerfile.source, span, problem)
            .with_hint(hint)
            .into()
    }

    /// The part of an instruction where `word` stands, if it does.
    pub(super) fn find(&self, span: Span, word: &str) -> Span {
        let source = &self.input.dockerfile.source;
        source.find(span, word).unwrap_or(span)
    }

    pub(super) fn expand(
        &self,
        text: &str,
        span: Span,
        variables: &dyn Variables,
    ) -> Result<Expansion, LowerError> {
        Expander::new(self.input.dockerfile.escape)
            .expand(text, variables)
            .and_then(|expansion| self.count(expansion))
            .map_err(|cause| {
                let text = text.to_owned();
                self.fail(span, Problem::Expand { text, cause })
            })
    }

    /// Counts what an expansion made: histories and environments keep it, and variables
    /// that hold each other would fill the memory in a few lines.
    pub(super) fn count(&self, expansion: Expansion) -> Result<Expansion, ExpandError> {
        self.expanded
            .set(self.expanded.get() + expansion.text.len());
        if self.expanded.get() > MAX_EXPANDED {
            return Err(ExpandError::TooLongTogether);
        }
        Ok(expansion)
    }

    /// `BUILDKIT_SYNTAX` names the frontend as `# syntax=` does.
    fn check_frontend(&self) -> Result<(), LowerError> {
        match self.input.build_args.get("BUILDKIT_SYNTAX") {
            Some(name) if !is_builtin_frontend(name) => {
                let name = name.clone();
                Err(LowerError::Frontend { name })
            }
            _ => Ok(()),
        }
    }

    /// Numbers of stages must exist, also in stages that aren't needed.
    fn check_numbers(&self) -> Result<(), LowerError> {
        for planned in &self.stages {
            for instruction in &planned.stage.instructions {
                if let InstructionKind::Copy(copy) = &instruction.kind
                    && let Some(name) = &copy.from
                {
                    self.stage_number(name, instruction.span)?;
                }
            }
        }
        Ok(())
    }

    /// Platform variables, then the ARGs before the first FROM.
    fn set_globals(&mut self) -> Result<(), LowerError> {
        let dockerfile = self.input.dockerfile;
        let last = dockerfile.stages.last().and_then(|s| s.name.clone());
        let stage = self.input.target_stage.clone().or(last);
        let platforms = [
            ("BUILD", &self.input.build_platform),
            ("TARGET", &self.input.platform),
        ];
        for (prefix, platform) in platforms {
            let variant = platform.variant.clone().unwrap_or_default();
            for (name, value) in [
                ("PLATFORM", platform.to_string()),
                ("OS", platform.os.clone()),
                ("OSVERSION", String::new()),
                ("ARCH", platform.architecture.clone()),
                ("VARIANT", variant),
            ] {
                self.globals.set(&format!("{prefix}{name}"), &value);
            }
        }
        let stage = stage.unwrap_or_else(|| "default".to_owned());
        self.globals.set("TARGETSTAGE", &stage);
        let names: Vec<String> = self.globals.names().map(str::to_owned).collect();
        for name in names {
            if let Some(value) = self.input.build_args.get(&name) {
                self.globals.set(&name, value);
            }
        }
        self.check_default_bases();
        for instruction in &dockerfile.global_args {
            self.global_arg(instruction)?;
        }
        if self.epoch.is_none() {
            let given = self.input.build_args.get("SOURCE_DATE_EPOCH");
            let text = given
                .map(String::as_str)
                .or_else(|| Variables::get(&self.globals, "SOURCE_DATE_EPOCH"))
                .filter(|text| !text.is_empty());
            let parse = |text: &str| {
                let text = text.to_owned();
                text.parse().map_err(|_| LowerError::Epoch { text })
            };
            self.epoch = text.map(parse).transpose()?;
        }
        Ok(())
    }

    fn global_arg(&mut self, instruction: &Instruction) -> Result<(), LowerError> {
        let InstructionKind::Arg(pairs) = &instruction.kind else {
            return Ok(());
        };
        for pair in pairs {
            let given = self.input.build_args.get(&pair.name).cloned();
            let mut used = BTreeSet::new();
            let value = match (given, &pair.default) {
                (Some(value), _) => Some(value),
                (None, Some(default)) => {
                    let expansion = self.expand(default, instruction.span, &self.globals)?;
                    used = expansion.used;
                    Some(expansion.text)
                }
                (None, None) => None,
            };
            if let Some(value) = &value {
                self.globals.set(&pair.name, value);
            }
            self.arguments
                .declare(&pair.name, value.as_deref(), used, instruction);
        }
        Ok(())
    }

    fn stage(&mut self, index: usize, stage: &'a Stage) -> Result<PlannedStage<'a>, LowerError> {
        let mut platform = self.input.platform.clone();
        let mut used = BTreeSet::new();
        if let Some(text) = &stage.platform {
            let expansion = self.expand_from(text, stage.span)?;
            self.check_platform(stage, &expansion);
            used.extend(expansion.used);
            let expanded = expansion.text;
            platform = expanded.parse().map_err(|_| {
                let problem = Problem::Platform { text: expanded };
                let span = self.find(stage.span, text);
                self.fail_with(span, problem, self.unset_hint(text))
            })?;
        }
        let named = stage
            .name
            .as_ref()
            .and_then(|name| self.input.named_contexts.get(name));
        let base = match named {
            Some(context) => named_origin(context, &platform),
            None => {
                let expansion = self.expand_from(&stage.base, stage.span)?;
                used.extend(expansion.used);
                let reference = expansion.text;
                if reference.is_empty() {
                    let problem = Problem::EmptyBase {
                        text: stage.base.clone(),
                    };
                    let hint = self.unset_hint(&stage.base).unwrap_or_else(|| {
                        "give the ARG before FROM a default, or use `--build-arg`".to_owned()
                    });
                    return Err(self.fail_with(stage.span, problem, Some(hint)));
                }
                let earlier = self.names.get(reference.as_str());
                match earlier.and_then(|stages| stages.last()) {
                    Some(stage) => Origin::Stage(*stage),
                    None => self.image_origin("FROM", &reference, &platform, stage.span)?,
                }
            }
        };
        let platform = match base {
            Origin::Stage(earlier) => Arc::clone(&self.stages[earlier].platform),
            Origin::Scratch => Arc::new(self.input.platform.clone()),
            _ => Arc::new(platform),
        };
        Ok(PlannedStage {
            stage,
            label: match &stage.name {
                Some(name) => name.as_str().into(),
                None => format!("stage-{index}").into(),
            },
            base,
            platform,
            replaced: named.is_some(),
            used,
            triggers: Vec::new(),
            origins: Vec::new(),
        })
    }

    /// A name that an unset variable of a word of FROM was probably meant to be.
    fn unset_hint(&self, text: &str) -> Option<String> {
        let expander = Expander::new(self.input.dockerfile.escape);
        let unset = expander.expand(text, &self.globals).ok()?.unset;
        let args = self.input.dockerfile.global_args.iter();
        let declared = args.filter_map(|arg| match &arg.kind {
            InstructionKind::Arg(pairs) => Some(pairs.iter().map(|p| p.name.as_str())),
            _ => None,
        });
        let names: Vec<&str> = declared.flatten().chain(self.globals.names()).collect();
        let near = |name: &String| nearest(name, names.iter().copied().filter(|n| n != name));
        let name = unset.iter().find_map(near)?;
        Some(format!("did you mean `{name}`?"))
    }

    /// Expands a word of FROM with the global variables.
    fn expand_from(&self, text: &str, span: Span) -> Result<Expansion, LowerError> {
        let expansion = self.expand(text, span, &self.globals)?;
        self.check_from_variables(&expansion, span);
        Ok(expansion)
    }

    pub(super) fn location(&self, span: Span) -> crate::graph::Location {
        crate::graph::Location {
            file: Arc::clone(&self.file),
            start: span.start,
            end: span.end,
        }
    }

    fn find_target(&self) -> Result<usize, LowerError> {
        let Some(target) = &self.input.target_stage else {
            return Ok(self.stages.len() - 1);
        };
        let lower = target.to_lowercase();
        let by_name = self
            .stages
            .iter()
            .rposition(|s| s.stage.name.as_ref() == Some(&lower));
        let by_number = || target.parse().ok().filter(|n| *n < self.stages.len());
        by_name.or_else(by_number).ok_or_else(|| {
            let names: Vec<&str> = self
                .stages
                .iter()
                .filter_map(|s| s.stage.name.as_deref())
                .collect();
            let hint = match nearest(target, names.iter().copied()) {
                Some(name) => Some(format!("did you mean `{name}`?")),
                None if names.is_empty() => None,
                None => Some(format!("it has `{}`", names.join("`, `"))),
            };
            LowerError::UnknownStage {
                file: self.input.dockerfile.source.name.clone(),
                stage: target.clone(),
                hint,
            }
        })
    }

    /// Marks a stage and all that it needs.
    fn need(&mut self, first: usize) -> Result<(), LowerError> {
        let mut todo = vec![first];
        while let Some(index) = todo.pop() {
            if !self.needed.insert(index) {
                continue;
            }
            self.stages[index].triggers = self.triggers(index)?;
            self.stages[index].origins = self.origins(index)?;
            for origin in &self.stages[index].origins {
                if let Origin::Stage(other) = origin {
                    todo.push(*other);
                }
            }
        }
        Ok(())
    }

    fn origins(&self, index: usize) -> Result<Vec<Origin>, LowerError> {
        let planned = &self.stages[index];
        let mut origins = vec![planned.base.clone()];
        for trigger in &planned.triggers {
            let used = self.used(index, trigger);
            origins.extend(used.map_err(|error| self.in_trigger(trigger, error))?);
        }
        if !planned.replaced {
            for instruction in &planned.stage.instructions {
                origins.extend(self.used(index, instruction)?);
            }
        }
        Ok(origins)
    }

    /// What an instruction of stage number `index` reads besides the stage.
    fn used(&self, index: usize, instruction: &Instruction) -> Result<Vec<Origin>, LowerError> {
        let span = instruction.span;
        match &instruction.kind {
            InstructionKind::Copy(copy) => {
                let from = copy.from.iter();
                from.map(|name| self.from(index, "COPY --from", name, span))
                    .collect()
            }
            InstructionKind::Run(run) => {
                let from = run.mounts.iter().filter_map(|m| m.from());
                from.map(|name| self.from(index, "RUN --mount", name, span))
                    .collect()
            }
            _ => Ok(Vec::new()),
        }
    }

    /// By stage number, how many of the needed stages start from it; the target counts as
    /// started from.
    pub(super) fn children(&self) -> Vec<usize> {
        let mut children = vec![0; self.stages.len()];
        children[self.target] = 1;
        for index in &self.needed {
            if let Origin::Stage(base) = self.stages[*index].base {
                children[base] += 1;
            }
        }
        children
    }

    /// By stage number, whether it is the target, or the target starts from it, directly or
    /// through other stages.
    pub(super) fn below_target(&self) -> Vec<bool> {
        let mut below = vec![false; self.stages.len()];
        let mut next = Some(self.target);
        while let Some(index) = next {
            below[index] = true;
            next = match self.stages[index].base {
                Origin::Stage(base) => Some(base),
                _ => None,
            };
        }
        below
    }

    pub(super) fn needed_images(&self) -> Vec<(String, Platform)> {
        let mut images = Vec::new();
        let mut seen = HashSet::new();
        let needed = self.needed.iter().map(|index| &self.stages[*index]);
        for origin in needed.flat_map(|stage| &stage.origins) {
            if let Origin::Image(reference, platform) = origin
                && seen.insert((reference, platform))
            {
                let image = (reference.clone(), platform.clone());
                if !self.images.contains_key(&image) {
                    images.push(image);
                }
            }
        }
        images
    }

    /// The FROM of the first needed stage that wants this image.
    pub(super) fn place_of(&self, reference: &str) -> Option<Span> {
        let is_it = |o: &Origin| matches!(o, Origin::Image(name, _) if name == reference);
        let mut needed = self.needed.iter().map(|index| &self.stages[*index]);
        let planned = needed.find(|stage| stage.origins.iter().any(is_it))?;
        Some(planned.stage.span)
    }

    /// Proxy variables among the build arguments, by the names they were given.
    pub(super) fn proxies(&self) -> BTreeMap<String, String> {
        let args = self.input.build_args.iter();
        args.filter(|(name, _)| is_proxy(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// Warnings about build arguments that nobody uses.
    pub(super) fn unused_arguments(&self) -> Vec<LowerWarning> {
        let mut warnings = Vec::new();
        let dockerfile = self.input.dockerfile;
        let own = dockerfile.stages.iter().flat_map(|s| &s.instructions);
        let stages = own.chain(self.stages.iter().flat_map(|s| &s.triggers));
        let declared: BTreeSet<&str> = dockerfile
            .global_args
            .iter()
            .chain(stages)
            .filter_map(|i| match &i.kind {
                InstructionKind::Arg(pairs) => Some(pairs),
                _ => None,
            })
            .flatten()
            .map(|pair| pair.name.as_str())
            .chain(self.globals.names())
            .collect();
        for name in self.input.build_args.keys() {
            let special =
                is_proxy(name) || name == "SOURCE_DATE_EPOCH" || name.starts_with("BUILDKIT_");
            if !special && !declared.contains(name.as_str()) {
                warnings.push(warning::unused_build_arg(name, &declared));
            }
        }
        warnings
    }
}

/// Build arguments that RUN sees without an ARG.
fn is_proxy(name: &str) -> bool {
    const NAMES: [&str; 5] = [
        "http_proxy",
        "https_proxy",
        "ftp_proxy",
        "no_proxy",
        "all_proxy",
    ];
    NAMES.iter().any(|n| name.eq_ignore_ascii_case(n))
}
