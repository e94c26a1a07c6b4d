//! Events as platforms tell of them, from facts of a repository.

use std::collections::BTreeMap;

use serde_json::Value;

use super::variables;
use crate::{ci::Platform, config::env::Env};

/// The platforms whose events are known.
pub const PLATFORMS: [Platform; 13] = [
    Platform::GitHub,
    Platform::Gitea,
    Platform::Forgejo,
    Platform::GitLab,
    Platform::Jenkins,
    Platform::Azure,
    Platform::Buildkite,
    Platform::Circle,
    Platform::CodeBuild,
    Platform::Drone,
    Platform::Woodpecker,
    Platform::Bitbucket,
    Platform::CloudBuild,
];

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// Commits are pushed to a branch.
    Push,
    /// A branch is pushed for the first time.
    NewBranch,
    /// A branch is pushed by force.
    ForcePush,
    /// A pull or merge request is opened or changed.
    PullRequest,
    /// A tag is pushed.
    Tag,
    /// It is time for it.
    Schedule,
    /// A merge queue or merge train tries a change.
    MergeGroup,
    /// Somebody starts it.
    Dispatch,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Push,
        Self::NewBranch,
        Self::ForcePush,
        Self::PullRequest,
        Self::Tag,
        Self::Schedule,
        Self::MergeGroup,
        Self::Dispatch,
    ];

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::NewBranch => "new-branch",
            Self::ForcePush => "force-push",
            Self::PullRequest => "pull_request",
            Self::Tag => "tag",
            Self::Schedule => "schedule",
            Self::MergeGroup => "merge_group",
            Self::Dispatch => "dispatch",
        }
    }

    /// The kind with this name, with dashes or underscores.
    pub fn of(word: &str) -> Option<Self> {
        let plain = |word: &str| word.replace('_', "-");
        Self::ALL
            .into_iter()
            .find(|kind| plain(kind.word()) == plain(word))
    }
}

/// What an event is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The commit that is built, its id.
    pub head: String,
    /// Its parents.
    pub parents: Vec<String>,
    /// Its message.
    pub message: String,
    /// What the branch was before, or what the pull request or the merge queue starts from: the id of
    /// a commit.
    pub base: Option<String>,
    /// The branch that is pushed, or that the pull request comes from.
    pub branch: String,
    /// The default branch, which pull requests are for.
    pub default_branch: String,
    /// The repository: `acme/service`.
    pub repository: String,
    /// Its address.
    pub remote: String,
    /// The tag that is pushed.
    pub tag: String,
    /// The number of the pull request.
    pub number: u64,
}

impl Facts {
    /// The commit that was merged, if the head is the merge that a platform makes for a pull request:
    /// of something into the base.
    pub(super) fn merged(&self) -> Option<&str> {
        match (&self.parents[..], &self.base) {
            ([onto, merged], Some(base)) if onto == base => Some(merged),
            _ => None,
        }
    }

    /// The full name of what a job for an event is said to build.
    pub(super) fn git_ref(&self, kind: EventKind) -> String {
        match kind {
            EventKind::Tag => format!("refs/tags/{}", self.tag),
            EventKind::Schedule => format!("refs/heads/{}", self.default_branch),
            _ => format!("refs/heads/{}", self.branch),
        }
    }
}

/// What a platform says about an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntheticEvent {
    /// The platform.
    pub platform: Platform,
    /// The event.
    pub kind: EventKind,
    /// The variables of the job.
    pub variables: BTreeMap<&'static str, String>,
    /// The description of the event, where the platform gives one in a file, which
    /// `GITHUB_EVENT_PATH` is to name.
    pub payload: Option<Value>,
    /// Whether the platform tells of [`Facts::base`]. Where it doesn't, the base follows from the
    /// branches.
    pub tells_base: bool,
}

impl SyntheticEvent {
    /// What the program sees in such a job: of `own` what doesn't come from a CI platform, and the
    /// variables of the event.
    pub fn env(&self, own: &Env) -> Env {
        own.on_platform(&self.variables)
    }
}

/// An event that a platform doesn't have, or tells nothing of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} has no event `{}` that its variables tell of", platform.name(), kind.word())]
pub struct NoSuchEvent {
    /// The platform.
    pub platform: Platform,
    /// The event.
    pub kind: EventKind,
}

impl NoSuchEvent {
    /// What to ask for instead.
    pub fn hint(&self) -> String {
        let facts = Facts::default();
        let known = EventKind::ALL
            .into_iter()
            .filter(|kind| synthesize(self.platform, *kind, &facts).is_ok());
        let words: Vec<String> = known.map(|kind| format!("`{}`", kind.word())).collect();
        match words.is_empty() {
            true => "it is no platform".to_owned(),
            false => format!("there are {}", words.join(", ")),
        }
    }
}

/// What `platform` says about an event of this kind with these facts.
pub fn synthesize(
    platform: Platform,
    kind: EventKind,
    facts: &Facts,
) -> Result<SyntheticEvent, NoSuchEvent> {
    let (set, payload, tells_base) = variables::of(platform, kind, facts)
        .filter(|_| PLATFORMS.contains(&platform))
        .ok_or(NoSuchEvent { platform, kind })?;
    let mut variables: BTreeMap<&'static str, String> = BTreeMap::new();
    variables.insert("CI", "true".to_owned());
    for (name, value) in set {
        variables.insert(name, value);
    }
    variables.retain(|_, value| !value.is_empty());
    Ok(SyntheticEvent {
        platform,
        kind,
        variables,
        payload,
        tells_base,
    })
}
