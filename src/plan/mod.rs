//! Planning: which targets a change affects, and what is to be done about each.
//!
//! A plan compares two [`Side`]s: the *head*, which is to be built, and the *base*, which was
//! built before. Both are graphs with definition keys, made by the same code from the same kind
//! of input, trees of Git or a directory. A target is *affected* if its [`target_key`] is another
//! on the two sides: nothing else is asked about a change, no list of paths has to be kept. What
//! changed is looked at only to tell the reason ([`Cause`]).
//!
//! [`decide()`] then brings in the caches:
//!
//! | | every step is in a cache | a step is not | the caches are not asked |
//! |---|---|---|---|
//! | affected | reuse | build | build |
//! | not affected | skip | build: somebody has to | skip |
//!
//! A side that isn't known, or a part of it, counts as changed: a target is never skipped for want
//! of knowledge.
//!
//! The plan as JSON has the version [`PLAN_VERSION`]; fields are only ever added. Its
//! [`digest`](Plan::plan_digest) is over all that was decided.

mod causes;
pub mod covers;
mod decide;
pub mod files;
pub mod gitlab;
pub mod graph;
pub mod lock;
pub mod matrix;
pub mod remembered;
mod side;
mod solve;
pub mod trailers;

pub use causes::{Cause, CauseKind, ChangedFiles};
pub use decide::{Decided, Forced, Known, decide};
pub use side::{Hits, Selected, Side, TargetInfo, target_key};
pub use solve::{Foreseen, Solution, foresee};

use schemars::JsonSchema;
use serde::Serialize;

use crate::digest::{Blake3Digest, KeyEncoder};

/// Version of the JSON form of a [`Plan`].
pub const PLAN_VERSION: u32 = 1;

/// What is to be done about a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Steps are executed.
    Build,
    /// It is new, and every step of it is in a cache.
    Reuse,
    /// It is what it was.
    Skip,
}

impl Decision {
    /// As it is written in plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Reuse => "reuse",
            Self::Skip => "skip",
        }
    }
}

/// Why it is decided so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Files that it copies differ.
    FilesChanged,
    /// Its instructions differ.
    DockerfileChanged,
    /// Arguments or settings from outside of the Dockerfile differ.
    SettingsChanged,
    /// A base image has another digest.
    BaseImageChanged,
    /// Only the image's configuration differs: no step has to be executed for that.
    MetadataChanged,
    /// The target that it is built on is affected.
    ParentChanged,
    /// There was no such target.
    NewTarget,
    /// There is nothing to compare with.
    NoBase,
    /// Something that it copies is not in the commit.
    InputsUnknown,
    /// Nothing changed, and a cache lacks a step.
    NotCached,
    /// Somebody asked for it.
    Forced,
    /// It is older than its `refresh` allows.
    RefreshDue,
    /// Somebody asked to leave it out.
    LeftOut,
    /// Nothing changed.
    Unchanged,
}

impl Reason {
    /// As it is written in plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::FilesChanged => "files-changed",
            Self::DockerfileChanged => "dockerfile-changed",
            Self::SettingsChanged => "settings-changed",
            Self::BaseImageChanged => "base-image-changed",
            Self::MetadataChanged => "metadata-changed",
            Self::ParentChanged => "parent-changed",
            Self::NewTarget => "new-target",
            Self::NoBase => "no-base",
            Self::InputsUnknown => "inputs-unknown",
            Self::NotCached => "not-cached",
            Self::Forced => "forced",
            Self::RefreshDue => "refresh-due",
            Self::LeftOut => "left-out",
            Self::Unchanged => "unchanged",
        }
    }
}

/// What was decided about all targets of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Plan {
    /// [`PLAN_VERSION`].
    pub schema_version: u32,
    /// BLAKE3 over everything that was decided: equal plans have equal digests.
    pub plan_digest: String,
    /// What the head was compared with.
    pub base: Revision,
    /// What is planned for.
    pub head: Revision,
    /// Whether the caches were asked.
    pub cache_lookup: bool,
    /// Whether a target is to be built or reused.
    pub has_work: bool,
    /// All targets, parents before their children.
    pub targets: Vec<PlannedTarget>,
    /// Base images whose upstream has moved since they were pinned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moved_images: Vec<lock::MovedImage>,
}

/// A revision of the repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Revision {
    /// The commit; none where there is none.
    pub commit: Option<String>,
    /// How it was found, or why there is none: `push-before`, `new-branch`, …
    pub reason: String,
    /// Whether files of the working directory, rather than of the commit, went in.
    pub dirty: bool,
}

/// A target with its decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PlannedTarget {
    /// Its name: `ml (cpu, linux/amd64)`.
    pub name: String,
    /// The layer, the bake target, or `image`.
    pub layer: String,
    /// The variant.
    pub variant: String,
    /// The platform.
    pub platform: String,
    /// The targets that it is built on or copies from, by name.
    pub needs: Vec<String>,
    /// Names of the image.
    pub tags: Vec<String>,
    /// Whether the selection names it; else only a selected target is built on it.
    pub requested: bool,
    /// What is to be done.
    pub decision: Decision,
    /// Why.
    pub reason: Reason,
    /// The reason in words.
    pub detail: String,
    /// What differs from the base.
    pub changed: Vec<Cause>,
    /// The key of the target: over its steps' definition keys and its configuration.
    pub key: String,
    /// Its steps, and those that are to be executed as far as keys can tell: none if the caches
    /// were not asked. A step below which something is executed may still prove to be a hit.
    pub steps: Steps,
    /// Who made the result that is reused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer: Option<String>,
}

/// Numbers of steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Steps {
    /// All.
    pub total: usize,
    /// Those to be executed.
    pub run: Option<usize>,
}

impl Plan {
    /// A plan of these decisions.
    pub fn new(base: Revision, head: Revision, decided: Decided) -> Self {
        let mut plan = Self {
            schema_version: PLAN_VERSION,
            plan_digest: String::new(),
            base,
            head,
            cache_lookup: decided.cache_lookup,
            has_work: decided.targets.iter().any(PlannedTarget::is_work),
            targets: decided.targets,
            moved_images: Vec::new(),
        };
        plan.plan_digest = plan.digest().to_string();
        plan
    }

    /// The digest of what was decided: revisions, targets, keys, decisions, reasons. How the base was
    /// found and who made what are not in it.
    fn digest(&self) -> Blake3Digest {
        let mut encoder = KeyEncoder::new("memobuild-ci 2026-11 plan v1");
        encoder
            .number("version", u64::from(self.schema_version))
            .field("base", self.base.commit.as_deref().unwrap_or("none"))
            .field("head", self.head.commit.as_deref().unwrap_or("none"))
            .field("cache-lookup", self.cache_lookup.to_string())
            .number("targets", self.targets.len() as u64);
        for target in &self.targets {
            encoder
                .field("name", &target.name)
                .field("key", &target.key)
                .field("decision", target.decision.name())
                .field("reason", target.reason.name())
                .list("needs", &target.needs)
                .list("tags", &target.tags);
        }
        encoder.finish()
    }

    /// The targets with work: to be built or reused.
    pub fn work(&self) -> impl Iterator<Item = &PlannedTarget> {
        self.targets.iter().filter(|target| target.is_work())
    }

    /// The number of targets with this decision.
    pub fn count(&self, decision: Decision) -> usize {
        let is = |target: &&PlannedTarget| target.decision == decision;
        self.targets.iter().filter(is).count()
    }
}

impl PlannedTarget {
    /// A target of `side` with what is decided about it, and nothing yet of what differs.
    pub fn of(side: &Side, target: usize, decided: (Decision, Reason, String)) -> Self {
        let info = &side.targets[target];
        let (decision, reason, detail) = decided;
        Self {
            name: info.name.clone(),
            layer: info.layer.clone(),
            variant: info.variant.clone(),
            platform: info.platform.to_string(),
            needs: info.needs.clone(),
            tags: info.tags.clone(),
            requested: info.requested,
            decision,
            reason,
            detail,
            changed: Vec::new(),
            key: target_key(side, target).to_string(),
            steps: Steps {
                total: side.steps(target).count(),
                run: None,
            },
            producer: None,
        }
    }

    /// Whether it is to be built or reused.
    pub fn is_work(&self) -> bool {
        self.decision != Decision::Skip
    }
}
