//! What a target takes from outside: build arguments, secrets, SSH agents. It is what BuildKit's
//! outline shows.

use std::collections::{BTreeMap, BTreeSet};

use crate::dockerfile::{
    Mount, MountKind, Span,
    ast::{ArgPair, Instruction, Run},
};

use super::{
    LowerError,
    origin::Origin,
    plan::Plan,
    stage::{Lowering, State},
};

/// What a target takes from outside, each list by line and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// Name of the stage.
    pub name: Option<String>,
    /// What the comment before its FROM says.
    pub description: Option<String>,
    /// Build arguments that it, or a stage that it needs, declares and uses.
    pub args: Vec<OutlineArg>,
    /// Secrets.
    pub secrets: Vec<Needed>,
    /// SSH agents.
    pub ssh: Vec<Needed>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// What the comment before its ARG says.
    pub description: Option<String>,
    /// Its value in this build: what was given, else the default.
    pub value: Option<String>,
    /// Where it is declared.
    pub span: Span,
}

/// A secret or an SSH agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// Its id.
    pub id: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// The first RUN of its stage that wants it.
    pub span: Span,
}

/// Declared arguments by name: what they are, and which others their defaults use.
#[derive(Debug, Clone, Default)]
pub(super) struct Arguments(BTreeMap<String, (OutlineArg, BTreeSet<String>)>);

impl Arguments {
    /// Notes an ARG. `used` are the variables of its default.
    pub(super) fn declare(
        &mut self,
        name: &str,
        value: Option<&str>,
        mut used: BTreeSet<String>,
        instruction: &Instruction,
    ) {
        // A default that has the variable itself in it also uses what the one before uses.
        if used.remove(name)
            && let Some((_, before)) = self.0.get(name)
        {
            used.extend(before.iter().cloned());
        }
        let arg = OutlineArg {
            name: name.to_owned(),
            description: instruction.written.description(name).map(str::to_owned),
            value: value.map(str::to_owned),
            span: instruction.span,
        };
        self.0.insert(name.to_owned(), (arg, used));
    }

    pub(super) fn is_declared(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// What one stage takes.
#[derive(Debug, Clone, Default)]
struct StageOutline {
    /// Those of its own; the global ones count too.
    arguments: Arguments,
    used: BTreeSet<String>,
    secrets: NeededById,
    ssh: NeededById,
}

/// Secrets or agents; the first of an id counts.
type NeededById = BTreeMap<String, Needed>;

impl StageOutline {
    /// The arguments that it uses, itself or in defaults of others.
    fn arguments<'a>(&'a self, globals: &'a Arguments) -> Vec<&'a OutlineArg> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        let mut todo: Vec<&String> = self.used.iter().collect();
        while let Some(name) = todo.pop() {
            let declared = self.arguments.0.get(name).or_else(|| globals.0.get(name));
            if seen.insert(name)
                && let Some((arg, used)) = declared
            {
                found.push(arg);
                todo.extend(used);
            }
        }
        found
    }
}

/// What the stages take, by number.
#[derive(Debug)]
pub(super) struct Outlines(Vec<StageOutline>);

impl Outlines {
    pub(super) fn new(plan: &Plan<'_>) -> Self {
        let mut stages: Vec<StageOutline> = Vec::new();
        for planned in &plan.stages {
            let mut outline = StageOutline::default();
            if !planned.replaced {
                outline.used.clone_from(&planned.used);
            }
            if let Origin::Stage(base) = planned.base {
                outline.used.extend(stages[base].used.iter().cloned());
            }
            stages.push(outline);
        }
        Self(stages)
    }

    /// The target's outline: its own needs, then those of its base, then those of the stages that
    /// it copies from; a name counts where it is met first.
    pub(super) fn of_target(&self, plan: &Plan<'_>) -> Outline {
        let mut args: BTreeMap<&str, &OutlineArg> = BTreeMap::new();
        let (mut secrets, mut ssh) = (NeededById::new(), NeededById::new());
        let mut seen = BTreeSet::new();
        let mut todo = vec![plan.target];
        while let Some(index) = todo.pop() {
            if !seen.insert(index) {
                continue;
            }
            let stage = &self.0[index];
            for arg in stage.arguments(&plan.arguments) {
                args.entry(&arg.name).or_insert(arg);
            }
            add_new(&mut secrets, &stage.secrets);
            add_new(&mut ssh, &stage.ssh);
            let origins = &plan.stages[index].origins;
            todo.extend(origins.iter().rev().filter_map(|origin| match origin {
                Origin::Stage(other) => Some(*other),
                _ => None,
            }));
        }
        let stage = plan.stages[plan.target].stage;
        let name = stage.name.clone();
        let mut outline = Outline {
            description: name
                .as_deref()
                .and_then(|n| stage.written.description(n))
                .map(str::to_owned),
            name,
            args: args.into_values().cloned().collect(),
            secrets: secrets.into_values().collect(),
            ssh: ssh.into_values().collect(),
        };
        // Sorting keeps the order of names within a line.
        outline.args.sort_by_key(|a| a.span.start);
        outline.secrets.sort_by_key(|n| n.span.start);
        outline.ssh.sort_by_key(|n| n.span.start);
        outline
    }
}

/// Adds those whose id isn't there.
fn add_new(list: &mut NeededById, more: &NeededById) {
    for (id, needed) in more {
        list.entry(id.clone()).or_insert_with(|| needed.clone());
    }
}

impl Lowering<'_> {
    /// Notes an ARG of a stage, whose variable now has `value`.
    pub(super) fn outline_arg(
        &mut self,
        state: &State,
        pair: &ArgPair,
        value: Option<&str>,
        instruction: &Instruction,
    ) {
        let given = self.plan.input.build_args.contains_key(&pair.name);
        let inherited = !given && pair.default.is_none() && value.is_some();
        let outline = &mut self.outlines.0[state.index];
        if !inherited {
            let none = BTreeSet::new();
            outline
                .arguments
                .declare(&pair.name, value, none, instruction);
        }
        outline.used.insert(pair.name.clone());
    }

    /// Notes the secrets and agents of a RUN.
    pub(super) fn outline_mounts(
        &mut self,
        state: &State,
        run: &Run,
        span: Span,
    ) -> Result<(), LowerError> {
        for flag in &run.mounts {
            let resolved = flag.resolve(|text| {
                let expansion = self.plan.expand(text, span, &state.env);
                expansion.map(|e| e.text).map_err(Failure::Lower)
            });
            let mount = match resolved {
                Ok(mount) => mount,
                Err(Failure::Lower(error)) => return Err(error),
                // The step itself says it.
                Err(Failure::Mount) => continue,
            };
            let outline = &mut self.outlines.0[state.index];
            let list = match mount.kind {
                MountKind::Secret => &mut outline.secrets,
                MountKind::Ssh => &mut outline.ssh,
                _ => continue,
            };
            let needed = Needed {
                id: id(&mount),
                required: mount.required,
                span,
            };
            list.entry(needed.id.clone()).or_insert(needed);
        }
        Ok(())
    }
}

/// Why a mount can't be looked at.
enum Failure {
    Lower(LowerError),
    Mount,
}

impl<T> From<(crate::dockerfile::Problem, T)> for Failure {
    fn from(_: (crate::dockerfile::Problem, T)) -> Self {
        Self::Mount
    }
}

/// The id of a secret or agent, by the rules of its defaults.
fn id(mount: &Mount) -> String {
    let given = mount.source.as_ref().or(mount.id.as_ref());
    match (given, mount.kind) {
        (Some(id), _) if !id.is_empty() => id.clone(),
        (_, MountKind::Ssh) => "default".to_owned(),
        _ => {
            let name = mount.target.rsplit('/').find(|part| !part.is_empty());
            name.unwrap_or_default().to_owned()
        }
    }
}
