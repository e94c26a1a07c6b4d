//! What a target needs: stages, where they start from, what they copy from.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    dockerfile::{
        DockerfileError, Problem, Span,
        ast::{Instruction, InstructionKind, Stage},
        expand::{Expander, Expansion, Variables},
        nearest,
    },
    oci::Platform,
};

use super::{
    LowerError, LowerInput, LowerWarning, NamedContext, check::Checks, env::Env,
    outline::Arguments, warning,
};

/// Whose files an instruction uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nobody's: `scratch`.
    Scratch,
    /// A stage, by number.
    Stage(usize),
    /// An image for a platform: a key of the image table.
    Image(String, Platform),
    /// A layer target: a key of `LowerInput::parents`.
    Parent(String),
    /// A local directory: a position in `BuildGraph::contexts`.
    Local(usize),
}

/// One stage, its FROM understood.
#[derive(Debug)]
pub(super) struct PlannedStage<'a> {
    pub(super) stage: &'a Stage,
    /// Name, or `stage-0`.
    pub(super) label: String,
    pub(super) base: Origin,
    pub(super) platform: Platform,
    /// Whether `--build-context` replaces it; its instructions don't count then.
    pub(super) replaced: bool,
    /// Variables that its FROM uses.
    pub(super) used: BTreeSet<String>,
}

/// The Dockerfile with all that can be known before images are resolved.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) input: &'a LowerInput<'a>,
    /// Global ARGs and platform variables.
    pub(super) globals: Env,
    pub(super) stages: Vec<PlannedStage<'a>>,
    pub(super) target: usize,
    /// Stages to lower; a stage's needs have smaller numbers.
    pub(super) needed: BTreeSet<usize>,
    /// `SOURCE_DATE_EPOCH`, if given in any way.
    pub(super) epoch: Option<i64>,
    pub(super) checks: &'a Checks,
    /// The ARGs before the first FROM.
    pub(super) arguments: Arguments,
}

impl<'a> Plan<'a> {
    pub(super) fn new(input: &'a LowerInput<'a>, checks: &'a Checks) -> Result<Self, LowerError> {
        let mut plan = Self {
            input,
            globals: Env::default(),
            stages: Vec::new(),
            target: 0,
            needed: BTreeSet::new(),
            epoch: input.epoch,
            checks,
            arguments: Arguments::default(),
        };
        plan.set_globals()?;
        for (index, stage) in input.dockerfile.stages.iter().enumerate() {
            checks.enter(&stage.written.comments);
            let planned = plan.stage(index, stage)?;
            plan.stages.push(planned);
        }
        checks.leave();
        plan.target = plan.find_target()?;
        plan.need(plan.target)?;
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
        DockerfileError::new(&self.input.dockerfile.source, span, problem)
            .with_hint(hint)
            .into()
    }

    pub(super) fn expand(
        &self,
        text: &str,
        span: Span,
        variables: &dyn Variables,
    ) -> Result<Expansion, LowerError> {
        Expander::new(self.input.dockerfile.escape)
            .expand(text, variables)
            .map_err(|cause| {
                let text = text.to_owned();
                self.fail(span, Problem::Expand { text, cause })
            })
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
                self.fail(
                    stage.span,
                    Problem::Platform {
                        text: expanded.clone(),
                    },
                )
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
                    let hint = "give the ARG before FROM a default, or use `--build-arg`";
                    return Err(self.fail_with(stage.span, problem, Some(hint.to_owned())));
                }
                let earlier = self
                    .stages
                    .iter()
                    .rposition(|s| s.stage.name.as_ref() == Some(&reference));
                match earlier {
                    Some(stage) => Origin::Stage(stage),
                    None => self.image_origin(&reference, &platform),
                }
            }
        };
        match base {
            Origin::Stage(earlier) => platform = self.stages[earlier].platform.clone(),
            Origin::Scratch => platform = self.input.platform.clone(),
            _ => {}
        }
        Ok(PlannedStage {
            stage,
            label: stage
                .name
                .clone()
                .unwrap_or_else(|| format!("stage-{index}")),
            base,
            platform,
            replaced: named.is_some(),
            used,
        })
    }

    /// Expands a word of FROM with the global variables.
    fn expand_from(&self, text: &str, span: Span) -> Result<Expansion, LowerError> {
        let expansion = self.expand(text, span, &self.globals)?;
        self.check_from_variables(&expansion, span);
        Ok(expansion)
    }

    pub(super) fn location(&self, span: Span) -> crate::graph::Location {
        crate::graph::Location {
            file: self.input.dockerfile.source.name.clone(),
            start: span.start,
            end: span.end,
        }
    }

    /// What a reference means that isn't a stage's name.
    fn image_origin(&self, reference: &str, platform: &Platform) -> Origin {
        if self.input.parents.contains_key(reference) {
            return Origin::Parent(reference.to_owned());
        }
        if reference == "scratch" {
            return Origin::Scratch;
        }
        let normal = normal_reference(reference);
        let named = self
            .input
            .named_contexts
            .iter()
            .find(|(name, _)| *name == reference || normal_reference(name) == normal);
        match named {
            Some((_, context)) => named_origin(context, platform),
            None => Origin::Image(reference.to_owned(), platform.clone()),
        }
    }

    /// What `--from=name` of a COPY or mount in stage number `stage` means.
    pub(super) fn from(
        &self,
        stage: usize,
        keyword: &str,
        name: &str,
        span: Span,
    ) -> Result<Origin, LowerError> {
        let count = self.input.dockerfile.stages.len();
        let index = if name.bytes().all(|b| b.is_ascii_digit()) {
            let index = name.parse().unwrap_or(usize::MAX);
            if index >= count {
                let hint = format!("stages are numbered from 0 to {}", count - 1);
                return Err(self.fail_with(span, Problem::StageIndex { index }, Some(hint)));
            }
            Some(index)
        } else {
            let lower = name.to_lowercase();
            let stages = &self.input.dockerfile.stages;
            let named = |s: &Stage| s.name.as_ref() == Some(&lower);
            let earlier = stages[..stage].iter().rposition(named);
            earlier.or_else(|| stages.iter().position(named))
        };
        match index {
            Some(index) if index < stage => Ok(Origin::Stage(index)),
            Some(_) => {
                let problem = Problem::ForwardReference {
                    keyword: keyword.to_owned(),
                    name: name.to_owned(),
                };
                Err(self.fail(span, problem))
            }
            None => Ok(self.image_origin(name, &self.input.platform)),
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
            for origin in self.origins(index)? {
                if let Origin::Stage(other) = origin {
                    todo.push(other);
                }
            }
        }
        Ok(())
    }

    /// Everything a stage uses: its base first, then in order of its instructions.
    pub(super) fn origins(&self, index: usize) -> Result<Vec<Origin>, LowerError> {
        let planned = &self.stages[index];
        let mut origins = vec![planned.base.clone()];
        if planned.replaced {
            return Ok(origins);
        }
        for instruction in &planned.stage.instructions {
            match &instruction.kind {
                InstructionKind::Copy(copy) => {
                    if let Some(name) = &copy.from {
                        origins.push(self.from(index, "COPY --from", name, instruction.span)?);
                    }
                }
                InstructionKind::Run(run) => {
                    for name in run.mounts.iter().filter_map(|m| m.from()) {
                        origins.push(self.from(index, "RUN --mount", name, instruction.span)?);
                    }
                }
                _ => {}
            }
        }
        Ok(origins)
    }

    pub(super) fn needed_images(&self) -> Result<Vec<(String, Platform)>, LowerError> {
        let mut images = Vec::new();
        for index in &self.needed {
            for origin in self.origins(*index)? {
                if let Origin::Image(reference, platform) = origin {
                    let image = (reference, platform);
                    if !images.contains(&image) {
                        images.push(image);
                    }
                }
            }
        }
        Ok(images)
    }

    /// The FROM of the first needed stage that wants this image.
    pub(super) fn place_of(&self, reference: &str) -> Option<Span> {
        let is_it = |o: &Origin| matches!(o, Origin::Image(name, _) if name == reference);
        self.needed
            .iter()
            .find(|index| self.origins(**index).is_ok_and(|o| o.iter().any(is_it)))
            .map(|index| self.stages[*index].stage.span)
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
        let stages = dockerfile.stages.iter().flat_map(|s| &s.instructions);
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

fn named_origin(context: &NamedContext, platform: &Platform) -> Origin {
    match context {
        NamedContext::Local(context) => Origin::Local(*context),
        NamedContext::Image(reference) => Origin::Image(reference.clone(), platform.clone()),
    }
}

/// A reference with registry, `library/` and tag, so that two spellings compare equal.
fn normal_reference(text: &str) -> String {
    let (host, rest) = match text.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => ("docker.io", text),
    };
    let library = if host == "docker.io" && !rest.contains('/') {
        "library/"
    } else {
        ""
    };
    let tag = if rest.contains([':', '@']) {
        ""
    } else {
        ":latest"
    };
    format!("{host}/{library}{rest}{tag}")
}
