//! From two sides and what the caches answered to decisions.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Cause, Decision, Foreseen, PlannedTarget, Reason, Side, Solution,
    causes::{self, ChangedFiles},
    foresee,
    side::{Hits, target_key},
};
use crate::cache::ActionResult;

/// What a decision is made of.
#[derive(Debug)]
pub struct Known<'s> {
    /// What is to be built.
    pub head: &'s Side,
    /// What was built before, or why that isn't known.
    pub base: Result<&'s Side, String>,
    /// What the caches have of the head, by definition key; none if they were not asked.
    pub hits: Option<&'s Hits>,
    /// Paths that differ, absolute as those of contexts are.
    pub changed: &'s ChangedFiles,
    /// Where paths are shown from.
    pub root: PathBuf,
    /// What somebody asked for.
    pub forced: &'s Forced,
    /// The time, for `refresh`.
    pub now: SystemTime,
}

/// What somebody asked for, whatever changed: names of layers or of targets, and `*` for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forced {
    /// To be built, with the targets that are built on them.
    pub rebuild: BTreeSet<String>,
    /// To be left out.
    pub skip: BTreeSet<String>,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Whether the caches were asked.
    pub cache_lookup: bool,
    /// In the order of the head's targets.
    pub targets: Vec<PlannedTarget>,
}

impl Forced {
    /// The names in `rebuild` and `skip` that no target of `side` has.
    pub fn unknown(&self, side: &Side) -> Vec<&str> {
        let names = self.rebuild.iter().chain(&self.skip);
        let is_known = |name: &&String| {
            *name == "*" || (0..side.targets.len()).any(|n| names_target(name, side, n))
        };
        names
            .filter(|name| !is_known(name))
            .map(String::as_str)
            .collect()
    }
}

fn names_target(name: &str, side: &Side, target: usize) -> bool {
    let info = &side.targets[target];
    name == info.layer || name == info.name || name == format!("{}-{}", info.variant, info.layer)
}

fn has(names: &BTreeSet<String>, side: &Side, target: usize) -> bool {
    names
        .iter()
        .any(|name| name == "*" || names_target(name, side, target))
}

/// Decides about every target of the head.
pub fn decide(known: &Known<'_>) -> Decided {
    let head = known.head;
    let mut foreseen = Foreseen::default();
    let mut targets: Vec<PlannedTarget> = Vec::new();
    for (n, info) in head.targets.iter().enumerate() {
        let change = Change::of(known, n);
        let solution = known.hits.map(|hits| foresee(&mut foreseen, head, hits, n));
        let forced_above = targets.iter().any(|parent: &PlannedTarget| {
            info.needs.contains(&parent.name)
                && parent.decision == Decision::Build
                && matches!(parent.reason, Reason::Forced | Reason::RefreshDue)
        });
        let (decision, reason, detail) =
            verdict(known, n, &change, solution.as_ref(), forced_above);
        let root = head.graph.targets[n].root;
        let hit = known.hits.and_then(|hits| hits.get(&head.keys.key(root)));
        let mut target = PlannedTarget::of(head, n, (decision, reason, detail));
        let total = target.steps.total;
        target.steps.run = solution.map(|solution| match (decision, reason) {
            (Decision::Build, Reason::Forced | Reason::RefreshDue) => solution.run.len().max(total),
            _ => solution.run.len(),
        });
        target.changed = change.causes;
        target.producer = hit.filter(|_| decision == Decision::Reuse).map(producer);
        targets.push(target);
    }
    Decided {
        cache_lookup: known.hits.is_some(),
        targets,
    }
}

/// How a target stands to the base.
struct Change {
    affected: bool,
    reason: Reason,
    detail: String,
    causes: Vec<Cause>,
}

impl Change {
    fn of(known: &Known<'_>, target: usize) -> Self {
        let head = known.head;
        let info = &head.targets[target];
        let bare = |reason, detail: String| Self {
            affected: true,
            reason,
            detail,
            causes: Vec::new(),
        };
        if let Some((id, why)) = head.unknown_in(target) {
            let step = &head.graph.vertex(id).instruction;
            return bare(Reason::InputsUnknown, format!("`{step}`: {why}"));
        }
        let base = match &known.base {
            Ok(base) => *base,
            Err(why) => return bare(Reason::NoBase, why.clone()),
        };
        let Some(old) = base.target(&info.name) else {
            return bare(Reason::NewTarget, "the base has no such target".to_owned());
        };
        if target_key(head, target) == target_key(base, old) {
            return Self {
                affected: false,
                ..bare(
                    Reason::Unchanged,
                    "nothing that it is made of changed".to_owned(),
                )
            };
        }
        let causes = causes::causes(head, base, (target, old), known.changed, &known.root);
        // What is its own says more than that a parent is affected.
        let own = causes.iter().find(|c| c.kind != causes::CauseKind::Parent);
        match own.or(causes.first()) {
            Some(cause) => Self {
                affected: true,
                reason: cause.kind.reason(),
                detail: cause.sentence(),
                causes,
            },
            None => bare(
                Reason::SettingsChanged,
                "its name or tags differ".to_owned(),
            ),
        }
    }
}

fn verdict(
    known: &Known<'_>,
    target: usize,
    change: &Change,
    solution: Option<&Solution>,
    forced_above: bool,
) -> (Decision, Reason, String) {
    let head = known.head;
    if has(&known.forced.skip, head, target) {
        return (
            Decision::Skip,
            Reason::LeftOut,
            "it was asked to leave it out".to_owned(),
        );
    }
    if has(&known.forced.rebuild, head, target) {
        return (
            Decision::Build,
            Reason::Forced,
            "a rebuild was asked for".to_owned(),
        );
    }
    if let Some(detail) = refresh_due(known, target) {
        return (Decision::Build, Reason::RefreshDue, detail);
    }
    if forced_above {
        let detail = "what it is built on is made anew; its own steps run where that differs";
        return (Decision::Build, Reason::ParentChanged, detail.to_owned());
    }
    let complete = solution.map(|solution| solution.run.is_empty());
    match (change.affected, complete) {
        (true, Some(true)) => (
            Decision::Reuse,
            change.reason,
            format!("{}; every step is in the cache", change.detail),
        ),
        (true, _) => (Decision::Build, change.reason, change.detail.clone()),
        (false, Some(false)) => {
            let count = solution.map_or(0, |s| s.run.len());
            let lacks = match count {
                1 => "1 step is in no cache".to_owned(),
                count => format!("{count} steps are in no cache"),
            };
            (
                Decision::Build,
                Reason::NotCached,
                format!("nothing changed, but {lacks}"),
            )
        }
        (false, _) => (Decision::Skip, Reason::Unchanged, change.detail.clone()),
    }
}

/// Says that the oldest of a target's own results has reached the age at which it is made anew.
fn refresh_due(known: &Known<'_>, target: usize) -> Option<String> {
    let head = known.head;
    let limit = head.targets[target].refresh?;
    let hits = known.hits?;
    let created = head
        .own_vertices(target)
        .into_iter()
        .filter(|id| head.graph.vertex(*id).max_age.is_some())
        .filter_map(|id| hits.get(&head.keys.key(id)))
        .map(|hit| hit.created)
        .min()?;
    let now = known.now.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let age = now.saturating_sub(created);
    (age >= limit.as_secs()).then(|| {
        let days = |seconds: u64| match seconds / 86_400 {
            0 => format!("{} hours", seconds / 3_600),
            1 => "1 day".to_owned(),
            days => format!("{days} days"),
        };
        format!(
            "made {} ago, and `refresh` is {}",
            days(age),
            days(limit.as_secs())
        )
    })
}

/// Who made a result, for people.
fn producer(hit: &ActionResult) -> String {
    let producer = &hit.producer;
    let mut text = match (&producer.repository, &producer.git_ref) {
        (Some(repository), Some(name)) => format!("{repository} {name}"),
        (Some(repository), None) => repository.clone(),
        (None, Some(name)) => name.clone(),
        (None, None) => producer.tool.clone(),
    };
    if let Some(run) = &producer.run {
        text = format!("{text}, {run}");
    }
    text
}
