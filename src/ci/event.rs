//! What happened: one vocabulary for the events of all platforms.

use std::fmt;

use serde::{Serialize, Serializer};

/// Why the platform runs the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A branch was pushed.
    Push,
    /// A tag was pushed.
    Tag,
    /// A pull or merge request was opened or changed.
    PullRequest,
    /// The same, with the rights of the branch that it is for.
    PullRequestTarget,
    /// A merge queue or merge train tries a change.
    MergeGroup,
    /// It was time for it.
    Schedule,
    /// Somebody, or a program, started it.
    Dispatch,
    /// A release was made.
    Release,
    /// Something is deployed.
    Deployment,
    /// A branch or tag was deleted.
    Delete,
    /// Another event, in the platform's word.
    Other(String),
    /// Nothing says what happened.
    Unknown,
}

impl Event {
    /// Its name: of all events but [`Event::Other`] one of ours.
    pub fn name(&self) -> &str {
        match self {
            Self::Push => "push",
            Self::Tag => "tag",
            Self::PullRequest => "pull-request",
            Self::PullRequestTarget => "pull-request-target",
            Self::MergeGroup => "merge-group",
            Self::Schedule => "schedule",
            Self::Dispatch => "dispatch",
            Self::Release => "release",
            Self::Deployment => "deployment",
            Self::Delete => "delete",
            Self::Other(name) => name,
            Self::Unknown => "unknown",
        }
    }

    /// Whether a pull request is built, or what would become of it.
    pub fn is_pull_request(&self) -> bool {
        matches!(
            self,
            Self::PullRequest | Self::PullRequestTarget | Self::MergeGroup
        )
    }

    /// A push of the ref with this full name.
    pub(super) fn push_of(git_ref: Option<&str>) -> Self {
        match git_ref.is_some_and(|name| name.starts_with("refs/tags/")) {
            true => Self::Tag,
            false => Self::Push,
        }
    }

    /// An event in the platform's word, which nothing of ours fits.
    pub(super) fn other(name: Option<&str>) -> Self {
        match name {
            Some(name) => Self::Other(name.to_owned()),
            None => Self::Unknown,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
