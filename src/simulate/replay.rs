//! A history, commit after commit, with a cache that starts empty and forgets nothing.
//!
//! A step whose definition key was seen before is a hit, any other one runs. That is an upper bound of
//! what a build executes: one that runs a step again and gets what it got before stops there, which
//! keys of commits don't show.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    fix,
    history::{
        Amount, HISTORY_VERSION, History, Invalidation, PlayedCommit, PlayedTarget, TargetHistory,
        Totals,
    },
};
use crate::{
    cache::ActionResult,
    key::CacheKey,
    plan::{
        Cause, CauseKind, ChangedFiles, Decision, Forced, Known, PlannedTarget, Reason, Side,
        decide,
    },
};

/// What steps took when they were executed, as a cache remembers it: milliseconds, and bytes of the
/// layer.
#[derive(Debug, Default)]
pub struct Costs {
    by_target: HashMap<(String, String), (u64, u64)>,
    by_instruction: HashMap<String, (u64, u64)>,
}

impl Costs {
    /// What the entries of a cache say, those that count most first.
    pub fn of(entries: impl IntoIterator<Item = ActionResult>) -> Self {
        let mut costs = Self::default();
        for entry in entries {
            let bytes = entry.layer.as_ref().map_or(0, |layer| layer.size);
            let cost = (entry.duration_ms, bytes);
            let instruction = entry.step.instruction;
            costs
                .by_instruction
                .entry(instruction.clone())
                .or_insert(cost);
            costs
                .by_target
                .entry((entry.step.target, instruction))
                .or_insert(cost);
        }
        costs
    }

    /// What the like of a step took: the same instruction, of the same target where that is known.
    fn cost(&self, target: &str, instruction: &str) -> Option<(u64, u64)> {
        let key = (target.to_owned(), instruction.to_owned());
        let known = self.by_target.get(&key);
        known
            .or_else(|| self.by_instruction.get(instruction))
            .copied()
    }
}

/// A commit that is played.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moment {
    /// Its id.
    pub commit: String,
    /// The first line of its message.
    pub subject: String,
    /// When it was committed, in seconds since 1970.
    pub time: i64,
    /// Whether it is part of the report, not only of what was built before.
    pub counted: bool,
}

/// A history that is being played, the oldest commit first.
#[derive(Debug)]
pub struct Replay {
    root: PathBuf,
    costs: Costs,
    seen: HashSet<CacheKey>,
    before: Option<Side>,
    totals: Totals,
    targets: BTreeMap<String, TargetHistory>,
    order: Vec<String>,
    groups: BTreeMap<Group, Invalidation>,
    commits: Vec<PlayedCommit>,
}

/// What counts as the same invalidation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Group {
    layer: String,
    reason: Reason,
    instruction: String,
    file: Option<String>,
    path: Option<String>,
}

impl Replay {
    /// A replay that knows what steps take from `costs`, and shows files as seen from `root`.
    pub fn new(root: &Path, costs: Costs) -> Self {
        Self {
            root: root.to_owned(),
            costs,
            seen: HashSet::new(),
            before: None,
            totals: Totals::default(),
            targets: BTreeMap::new(),
            order: Vec::new(),
            groups: BTreeMap::new(),
            commits: Vec::new(),
        }
    }

    /// Plays the next commit: what it would build, or why that can't be told, and the paths that
    /// differ from the commit before.
    pub fn play(&mut self, moment: Moment, side: Result<Side, String>, changed: &ChangedFiles) {
        let mut played = PlayedCommit {
            commit: moment.commit,
            subject: moment.subject,
            time: moment.time,
            changed_files: changed.len(),
            error: None,
            amount: Amount::default(),
            targets: Vec::new(),
        };
        let side = match side {
            Ok(side) => side,
            Err(why) => {
                played.error = Some(why);
                self.keep(played, moment.counted);
                return;
            }
        };
        let planned = self.planned(&side, changed);
        let amounts = self.amounts(&side);
        for (n, target) in planned.iter().enumerate() {
            let keys = side.steps(n).map(|id| side.keys.key(id));
            let run = keys.filter(|key| !self.seen.contains(key)).count();
            let decision = match (run, target.decision) {
                (0, Decision::Skip) => Decision::Skip,
                (0, _) => Decision::Reuse,
                (_, _) => Decision::Build,
            };
            played.amount.add(amounts[n]);
            played.targets.push(PlayedTarget {
                name: target.name.clone(),
                layer: target.layer.clone(),
                decision,
                reason: target.reason,
                detail: target.detail.clone(),
                steps: target.steps.total,
                run,
            });
        }
        if moment.counted {
            self.count_targets(&played.targets, &amounts);
            if self.before.is_some() {
                self.blame(&planned, &amounts, &played.commit);
            }
        }
        self.seen.extend(side.step_keys());
        self.before = Some(side);
        self.keep(played, moment.counted);
    }

    /// The report.
    pub fn finish(mut self) -> History {
        self.commits.reverse();
        let commits = self.totals.commits;
        let mut invalidations: Vec<Invalidation> = self.groups.into_values().collect();
        invalidations.sort_by(|a, b| {
            let weight = |i: &Invalidation| (i.ms, i.steps, i.commits);
            weight(b).cmp(&weight(a)).then(a.layer.cmp(&b.layer))
        });
        for found in &mut invalidations {
            found.sentence = fix::sentence(found, commits);
            found.fix = fix::fix(found);
        }
        let mut targets = self.targets;
        let ordered = self.order.iter().filter_map(|name| targets.remove(name));
        let mut ordered: Vec<TargetHistory> = ordered.collect();
        // Those that the newest commit doesn't have any more.
        ordered.extend(targets.into_values());
        History {
            schema_version: HISTORY_VERSION,
            head: match self.commits.first() {
                Some(commit) => commit.commit.clone(),
                None => String::new(),
            },
            totals: self.totals,
            targets: ordered,
            invalidations,
            commits: self.commits,
        }
    }

    fn keep(&mut self, played: PlayedCommit, counted: bool) {
        if !counted {
            return;
        }
        self.totals.commits += 1;
        self.totals.unreadable += usize::from(played.error.is_some());
        let nothing = played.error.is_none() && played.built().is_empty();
        self.totals.nothing += usize::from(nothing);
        self.totals.amount.add(played.amount);
        self.commits.push(played);
    }

    /// What the plan for this commit says, with the one before as its base.
    fn planned(&self, side: &Side, changed: &ChangedFiles) -> Vec<PlannedTarget> {
        let decided = decide(&Known {
            head: side,
            base: match &self.before {
                Some(before) => Ok(before),
                None => Err("it is the first commit".to_owned()),
            },
            hits: None,
            changed,
            root: self.root.clone(),
            forced: &Forced::default(),
            now: SystemTime::UNIX_EPOCH,
        });
        decided.targets
    }

    /// The steps of each target, each step once.
    fn amounts(&self, side: &Side) -> Vec<Amount> {
        let mut counted = HashSet::new();
        let mut amounts = Vec::with_capacity(side.targets.len());
        for (n, info) in side.targets.iter().enumerate() {
            let mut amount = Amount::default();
            for id in side.own_vertices(n) {
                let vertex = side.graph.vertex(id);
                let key = side.keys.key(id);
                if vertex.op.is_step() && counted.insert(key) {
                    let cost = self.costs.cost(&info.name, &vertex.instruction);
                    amount.count(!self.seen.contains(&key), cost);
                }
            }
            amounts.push(amount);
        }
        amounts
    }

    fn count_targets(&mut self, played: &[PlayedTarget], amounts: &[Amount]) {
        self.order = played.iter().map(|target| target.name.clone()).collect();
        for (target, amount) in played.iter().zip(amounts) {
            let row = self
                .targets
                .entry(target.name.clone())
                .or_insert_with(|| TargetHistory {
                    name: target.name.clone(),
                    layer: target.layer.clone(),
                    builds: 0,
                    reuses: 0,
                    skips: 0,
                    amount: Amount::default(),
                });
            match target.decision {
                Decision::Build => row.builds += 1,
                Decision::Reuse => row.reuses += 1,
                Decision::Skip => row.skips += 1,
            }
            row.amount.add(*amount);
        }
    }

    /// Puts the steps that ran down to what made them run: what is a target's own, else what its
    /// parent's are put down to.
    fn blame(&mut self, planned: &[PlannedTarget], amounts: &[Amount], commit: &str) {
        let mut roots: HashMap<&str, Group> = HashMap::new();
        let mut done = HashSet::new();
        for (target, amount) in planned.iter().zip(amounts) {
            let own = target.changed.iter().find(|c| c.kind != CauseKind::Parent);
            let inherited = || {
                let mut parents = target.needs.iter();
                parents.find_map(|name| roots.get(name.as_str()).cloned())
            };
            let group = match own {
                Some(cause) => Some(Group::of(target, Some(cause))),
                None => inherited().or_else(|| {
                    let alone = matches!(target.reason, Reason::InputsUnknown | Reason::NewTarget);
                    alone.then(|| Group::of(target, None))
                }),
            };
            let Some(group) = group else { continue };
            roots.insert(&target.name, group.clone());
            if amount.ran == 0 {
                continue;
            }
            let found = self
                .groups
                .entry(group.clone())
                .or_insert_with(|| Invalidation {
                    layer: group.layer.clone(),
                    reason: group.reason,
                    instruction: group.instruction.clone(),
                    location: None,
                    path: group.path.clone(),
                    commits: 0,
                    last: String::new(),
                    steps: 0,
                    ms: 0,
                    sentence: String::new(),
                    fix: String::new(),
                });
            found.steps += amount.ran;
            found.ms += amount.ran_ms;
            commit.clone_into(&mut found.last);
            if let Some(cause) = own {
                found.location.clone_from(&cause.location);
            }
            if done.insert(group) {
                found.commits += 1;
            }
        }
    }
}

impl Amount {
    fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.ran += other.ran;
        self.known += other.known;
        self.ms += other.ms;
        self.ran_ms += other.ran_ms;
        self.bytes += other.bytes;
        self.ran_bytes += other.ran_bytes;
    }
}

impl Group {
    fn of(target: &PlannedTarget, cause: Option<&Cause>) -> Self {
        let location = cause.and_then(|cause| cause.location.as_deref());
        // Lines move.
        let file = location.and_then(|place| Some(place.rsplit_once(':')?.0.to_owned()));
        let instruction = match cause {
            Some(cause) => cause.instruction.clone(),
            None => target.detail.clone(),
        };
        Self {
            layer: target.layer.clone(),
            reason: target.reason,
            instruction: match target.reason {
                // The line itself is what changes.
                Reason::DockerfileChanged => first_word(&instruction),
                Reason::BaseImageChanged => without_tag(&instruction),
                _ => instruction,
            },
            file,
            path: cause.and_then(|cause| {
                let path = common(&cause.files, cause.file_count)?;
                Some(fix::first_below(&cause.instruction, &path))
            }),
        }
    }
}

fn first_word(text: &str) -> String {
    text.split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// `FROM debian:12` without what names the version.
fn without_tag(text: &str) -> String {
    let text = text.split('@').next().unwrap_or_default();
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name.to_owned(),
        _ => text.to_owned(),
    }
}

/// The file, or the deepest directory that all of several lie in, with a slash at its end; none
/// if that is the repository.
fn common(files: &[String], count: usize) -> Option<String> {
    let first = files.first()?;
    if count == 1 {
        return Some(first.clone());
    }
    let mut dir = Path::new(first).parent()?;
    while !files.iter().all(|file| Path::new(file).starts_with(dir)) {
        dir = dir.parent()?;
    }
    match dir.as_os_str().is_empty() {
        true => None,
        false => Some(format!("{}/", dir.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_files_are_named_by_their_directory() {
        let common = |files: &[&str]| {
            let files: Vec<String> = files.iter().map(|f| (*f).to_owned()).collect();
            common(&files, files.len())
        };
        assert_eq!(common(&["a/b.txt"]), Some("a/b.txt".to_owned()));
        assert_eq!(common(&["a/b/c", "a/b/d"]), Some("a/b/".to_owned()));
        assert_eq!(common(&["a/b/c", "a/x"]), Some("a/".to_owned()));
        assert_eq!(common(&["a/b", "c"]), None);
        assert_eq!(common(&[]), None);
    }

    #[test]
    fn versions_of_images_are_one_image() {
        assert_eq!(without_tag("FROM debian:12"), "FROM debian");
        assert_eq!(without_tag("FROM h:5000/a"), "FROM h:5000/a");
        assert_eq!(without_tag("FROM h:5000/a:1@sha256:00"), "FROM h:5000/a");
    }
}
