//! What a replay found: the data of its report.

use serde::Serialize;

use crate::plan::{Decision, Reason};

/// Version of the JSON form of a [`History`].
pub const HISTORY_VERSION: u32 = 1;

/// What a cache would have spared over a history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct History {
    /// [`HISTORY_VERSION`].
    pub schema_version: u32,
    /// The newest commit.
    pub head: String,
    /// What was played, over all commits and targets.
    pub totals: Totals,
    /// The targets, in the order of the newest commit that has them.
    pub targets: Vec<TargetHistory>,
    /// What made steps run, the most expensive first.
    pub invalidations: Vec<Invalidation>,
    /// The commits, the newest first.
    pub commits: Vec<PlayedCommit>,
}

/// Figures over a whole history.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Commits that were played.
    pub commits: usize,
    /// Commits of these for which no step runs.
    pub nothing: usize,
    /// Commits of these that couldn't be read.
    pub unreadable: usize,
    /// Their steps.
    #[serde(flatten)]
    pub amount: Amount,
}

/// Executions of steps, and what they take as far as the local cache knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Steps that a build without a cache executes.
    pub steps: usize,
    /// Steps that are executed with one.
    pub ran: usize,
    /// Steps of the former that the local cache knows the like of: time and bytes are theirs.
    pub known: usize,
    /// Milliseconds without a cache.
    pub ms: u64,
    /// Milliseconds with one.
    pub ran_ms: u64,
    /// Bytes of layers that are made without a cache.
    pub bytes: u64,
    /// Bytes of layers that are made with one.
    pub ran_bytes: u64,
}

impl Amount {
    /// Counts one step.
    pub(super) fn count(&mut self, ran: bool, cost: Option<(u64, u64)>) {
        let (ms, bytes) = cost.unwrap_or_default();
        self.steps += 1;
        self.known += usize::from(cost.is_some());
        self.ms += ms;
        self.bytes += bytes;
        if ran {
            self.ran += 1;
            self.ran_ms += ms;
            self.ran_bytes += bytes;
        }
    }

    /// The share of steps that were hits, in percent; 100 where there are none.
    pub fn hit_percent(&self) -> f64 {
        percent(self.steps - self.ran, self.steps)
    }

    /// The same by bytes of layers; none if no size is known.
    pub fn byte_percent(&self) -> Option<f64> {
        let hit = self.bytes - self.ran_bytes;
        (self.bytes > 0).then(|| ratio(hit, self.bytes))
    }
}

/// `part` of `all` in percent.
pub(super) fn percent(part: usize, all: usize) -> f64 {
    ratio(part as u64, all as u64)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a percentage is shown with one digit"
)]
fn ratio(part: u64, all: u64) -> f64 {
    match all {
        0 => 100.0,
        all => part as f64 * 100.0 / all as f64,
    }
}

/// A target over a history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TargetHistory {
    /// Its name: `ml (cpu, linux/amd64)`.
    pub name: String,
    /// The layer, the bake target, or `image`.
    pub layer: String,
    /// Commits that steps run for.
    pub builds: usize,
    /// Commits that change it and for which every step is known.
    pub reuses: usize,
    /// Commits that don't change it.
    pub skips: usize,
    /// Its own steps, without those of the targets it is built on.
    #[serde(flatten)]
    pub amount: Amount,
}

/// Something that made steps run, time and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Invalidation {
    /// The layer whose step it is.
    pub layer: String,
    /// In what the step differed.
    pub reason: Reason,
    /// Its instruction.
    pub instruction: String,
    /// Where that is written, in the newest of the commits.
    pub location: Option<String>,
    /// The file that changed, or the directory of several, as a path in the repository.
    pub path: Option<String>,
    /// Commits that did it.
    pub commits: usize,
    /// The newest of them.
    pub last: String,
    /// Steps that ran for it, of this layer and of those that are built on it.
    pub steps: usize,
    /// Milliseconds that these take, as far as the local cache knows.
    pub ms: u64,
    /// In words.
    pub sentence: String,
    /// What to do about it.
    pub fix: String,
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlayedCommit {
    /// Its id.
    pub commit: String,
    /// The first line of its message.
    pub subject: String,
    /// When it was committed, in seconds since 1970.
    pub time: i64,
    /// Files that differ from the commit before.
    pub changed_files: usize,
    /// Why nothing can be said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its steps, over all targets.
    #[serde(flatten)]
    pub amount: Amount,
    /// Its targets.
    pub targets: Vec<PlayedTarget>,
}

/// A target of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlayedTarget {
    /// Its name.
    pub name: String,
    /// Its layer.
    pub layer: String,
    /// What a build would do.
    pub decision: Decision,
    /// Why.
    pub reason: Reason,
    /// The reason in words.
    pub detail: String,
    /// All its steps, those of the targets it is built on included.
    pub steps: usize,
    /// Those of them that run.
    pub run: usize,
}

impl PlayedCommit {
    /// The layers for which steps run, each once.
    pub fn built(&self) -> Vec<&str> {
        let mut layers: Vec<&str> = Vec::new();
        for target in &self.targets {
            if target.decision == Decision::Build && !layers.contains(&&*target.layer) {
                layers.push(&target.layer);
            }
        }
        layers
    }
}
