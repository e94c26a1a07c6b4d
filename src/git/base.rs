//! Which commit a build is compared with: [`BaseRequest`] says where it may be found,
//! [`BaseRevision`] which one it is, or why there is none.
//!
//! A request is a list of [`BaseCandidate`]s in order, made from what a CI platform says about the
//! event (`crate::ci`). Its texts are the platform's, or those of whoever named a branch: nothing
//! is believed before [`super::resolve`] has seen it in the repository.
//!
//! A base is a commit that was built before, by the same job or by that of a branch that the build
//! trusts. It needn't be an ancestor: two trees are compared. Where none is found, that is no
//! statement about changes: everything that no cache has is built, for the reason that
//! [`BaseRevision::reason`] tells.

use std::fmt;

use serde::{Serialize, Serializer};

use super::ObjectId;

/// Why a commit is the base, or why there is none. Each has a [word](Self::word) that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseReason {
    /// Somebody named it.
    Asked,
    /// What the branch was before the push.
    PushBefore,
    /// What the branch was before it was pushed by force.
    ForcePush,
    /// What the platform built last on the branch.
    PreviousBuild,
    /// A branch is new: where it left the default branch.
    NewBranch,
    /// Where the branch left the default branch, for want of something nearer.
    DefaultBranch,
    /// The head is a merge made for a pull request: what that was merged into.
    MergeCommitParent,
    /// The target of the pull request.
    PullRequest,
    /// What a merge queue put the change on.
    MergeGroup,
    /// The tag before.
    PreviousTag,
    /// The commit before the last one.
    LastCommit,
    /// A tag is built, and none is before it.
    Tag,
    /// A scheduled job builds all.
    Schedule,
    /// A job that somebody started builds all.
    Dispatch,
    /// The event is none that has a base.
    OtherEvent,
    /// Nothing says what happened.
    NoEvent,
    /// The platform doesn't say what was built before.
    NoPreviousBuild,
    /// The branch was deleted.
    Deleted,
    /// The clone has too little history, and more couldn't be had.
    Shallow,
    /// What the platform named isn't there.
    Unreachable,
}

impl BaseReason {
    /// The word for it in answers and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::PushBefore => "push-before",
            Self::ForcePush => "force-push",
            Self::PreviousBuild => "previous-build",
            Self::NewBranch => "new-branch",
            Self::DefaultBranch => "default-branch",
            Self::MergeCommitParent => "merge-commit-parent",
            Self::PullRequest => "pull-request",
            Self::MergeGroup => "merge-group",
            Self::PreviousTag => "previous-tag",
            Self::LastCommit => "last-commit",
            Self::Tag => "tag",
            Self::Schedule => "schedule",
            Self::Dispatch => "dispatch",
            Self::OtherEvent => "other-event",
            Self::NoEvent => "no-event",
            Self::NoPreviousBuild => "no-previous-build",
            Self::Deleted => "deleted",
            Self::Shallow => "shallow",
            Self::Unreachable => "unreachable",
        }
    }

    /// All of them, for the reference page.
    pub const ALL: [Self; 20] = [
        Self::Asked,
        Self::PushBefore,
        Self::ForcePush,
        Self::PreviousBuild,
        Self::NewBranch,
        Self::DefaultBranch,
        Self::MergeCommitParent,
        Self::PullRequest,
        Self::MergeGroup,
        Self::PreviousTag,
        Self::LastCommit,
        Self::Tag,
        Self::Schedule,
        Self::Dispatch,
        Self::OtherEvent,
        Self::NoEvent,
        Self::NoPreviousBuild,
        Self::Deleted,
        Self::Shallow,
        Self::Unreachable,
    ];
}

impl fmt::Display for BaseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Serialize for BaseReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// A commit to look for a merge base with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Other {
    /// One that is named by its id, or the beginning of that.
    Commit(String),
    /// The tip of a branch, without `refs/heads/`; that of the remote goes before a local one.
    Branch(String),
    /// The tip of the branch that the repository says is its default.
    DefaultBranch,
}

/// Where a base may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BasePlace {
    /// The commit of this id, or of an id that begins so.
    Commit(String),
    /// What somebody named: an id, a branch or a tag.
    Revision(String),
    /// The nearest common ancestor of the head and another commit.
    MergeBase(Other),
    /// The first parent of the head, if the head is the merge that a platform made for a
    /// pull request. Jobs often check out something else, whose first parent would hide changes.
    MergeCommitParent {
        /// What was merged: the head's second parent.
        merged: Option<String>,
        /// The merge as the platform names it.
        merge: Option<String>,
    },
    /// The first parent of the head.
    FirstParent,
    /// The nearest tag behind the head.
    PreviousTag,
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit(id) => write!(f, "commit `{}`", id.escape_debug()),
            Self::Branch(name) => write!(f, "branch `{}`", name.escape_debug()),
            Self::DefaultBranch => f.write_str("the default branch"),
        }
    }
}

impl fmt::Display for BasePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit(id) => write!(f, "commit `{}`", id.escape_debug()),
            Self::Revision(name) => write!(f, "`{}`", name.escape_debug()),
            Self::MergeBase(other) => write!(f, "the merge base with {other}"),
            Self::MergeCommitParent { .. } => {
                f.write_str("the first parent of the pull request's merge commit")
            }
            Self::FirstParent => f.write_str("the first parent of the head"),
            Self::PreviousTag => f.write_str("the nearest tag behind the head"),
        }
    }
}

/// One place where the base may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseCandidate {
    /// The place.
    pub place: BasePlace,
    /// Why it is the base if it is there.
    pub reason: BaseReason,
}

/// Where the base of a build may be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseRequest {
    /// The places, the best first.
    pub candidates: Vec<BaseCandidate>,
    /// Why there is no base if none of them gives one.
    pub otherwise: BaseReason,
    /// The commit that is said to be built; what is built is what is checked out.
    pub head: Option<String>,
    /// The branch whose push is built, without `refs/heads/`. It is no branch to compare with.
    pub branch: Option<String>,
    /// How the job gets a clone with all history, as part of a hint.
    pub full_clone: &'static str,
}

impl BaseRequest {
    /// A request without candidates.
    pub fn none(reason: BaseReason) -> Self {
        Self {
            candidates: Vec::new(),
            otherwise: reason,
            head: None,
            branch: None,
            full_clone: "git fetch --unshallow",
        }
    }

    /// The same with one more candidate, behind the others.
    #[must_use]
    pub fn or(mut self, place: BasePlace, reason: BaseReason) -> Self {
        self.candidates.push(BaseCandidate { place, reason });
        self
    }

    /// The same with a candidate more if the platform named one.
    #[must_use]
    pub fn or_some(self, place: Option<BasePlace>, reason: BaseReason) -> Self {
        match place {
            Some(place) => self.or(place, reason),
            None => self,
        }
    }

    /// The request for the base that somebody named, and no other.
    pub fn asked(name: &str) -> Self {
        Self::none(BaseReason::Unreachable)
            .or(BasePlace::Revision(name.to_owned()), BaseReason::Asked)
    }
}

/// Why a candidate isn't the base.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhyNot {
    /// A text that is no id.
    #[error("it isn't the id of a commit")]
    NoId,
    /// The id that stands for nothing.
    #[error("the id of zeros stands for no commit")]
    Zero,
    /// Git allows no such name.
    #[error("it isn't a name that Git allows")]
    NoName,
    /// Not in the clone, and nobody was to be asked for it.
    #[error("the clone doesn't have it")]
    NotHere,
    /// Not in the clone, and it couldn't be had.
    #[error("the clone doesn't have it, and it can't be fetched: {said}")]
    NotFetched {
        /// What went wrong.
        said: String,
    },
    /// Nothing says which branch is the default.
    #[error("the clone doesn't say which branch it is")]
    NoDefault,
    /// A branch compared with itself.
    #[error("it is the branch that is built")]
    OwnBranch,
    /// A commit compared with itself.
    #[error("it is the commit that is built")]
    SameAsHead,
    /// The history ends before a common ancestor.
    #[error("the clone's history ends before a common ancestor")]
    HistoryEnds,
    /// The histories are complete and have nothing in common.
    #[error("the histories have nothing in common")]
    Unrelated,
    /// Another commit was checked out than the merge.
    #[error("what is checked out isn't that merge")]
    NotThatMerge,
    /// The first commit.
    #[error("there is no commit before")]
    NoParent,
    /// No tag behind the head.
    #[error("there is no tag")]
    NoTag,
    /// The repository can't be read there.
    #[error("the repository can't be read: {said}")]
    Unreadable {
        /// What went wrong.
        said: String,
    },
}

impl WhyNot {
    /// Whether a clone with more history might have had it.
    pub(super) fn wants_history(&self) -> bool {
        matches!(
            self,
            Self::NotHere | Self::NotFetched { .. } | Self::HistoryEnds | Self::NoTag
        )
    }
}

/// A candidate that isn't the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The candidate.
    pub candidate: BaseCandidate,
    /// Why not.
    pub why_not: WhyNot,
}

impl Serialize for Tried {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut row = serializer.serialize_struct("Tried", 3)?;
        row.serialize_field("place", &self.candidate.place.to_string())?;
        row.serialize_field("reason", &self.candidate.reason)?;
        row.serialize_field("why_not", &self.why_not.to_string())?;
        row.end()
    }
}

/// Another commit is checked out than the platform says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is said to be built, `{actual}` is checked out and so is built", said.escape_debug())]
pub struct HeadMismatch {
    /// What is said.
    pub said: String,
    /// What is so.
    pub actual: ObjectId,
}

/// The commit that a build is compared with, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseRevision {
    /// The commit; it is in the repository. None: everything that no cache has is built.
    pub commit: Option<ObjectId>,
    /// Why it is this one, or why there is none.
    pub reason: BaseReason,
    /// The candidate that gave it.
    pub found_by: Option<BasePlace>,
    /// The candidates before that, which gave none.
    pub tried: Vec<Tried>,
    /// What to do so that there is one.
    pub hint: Option<String>,
    /// What is built isn't what the platform says.
    pub mismatch: Option<HeadMismatch>,
}
