//! Finding the base that a [`BaseRequest`] asks for, in a [`History`].
//!
//! - What a platform says is checked: an id of zeros is no commit, a commit counts when it is in
//!   the repository, a name is looked up when Git allows it, and always as a whole reference.
//! - A commit is never its own base, nor a branch that which its own tip has in common with it:
//!   nothing would have changed, whatever was built. (Somebody who asks for it gets it.)
//! - What is missing is fetched if it may be: one commit where trees are compared, more history
//!   only for merge bases.
//! - A candidate that fails, for whatever reason, is noted and the next one tried. Without one
//!   left there is no base, which is no error.

use super::{
    GitError, ObjectId,
    base::{
        BaseCandidate, BasePlace, BaseReason, BaseRequest, BaseRevision, HeadMismatch, Other,
        Tried, WhyNot,
    },
};

/// Fewest digits that name a commit.
const SHORTEST_ID: usize = 7;

/// Longest name that is looked up, in bytes; file systems end at 255 for each part.
const LONGEST_NAME: usize = 1024;

/// Why something wasn't fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotFetched {
    /// Nobody is to be asked.
    Off,
    /// It failed; what was said.
    Failed(String),
}

/// What finding a base needs of a repository.
pub trait History {
    /// Whether the commit is at hand.
    fn has(&self, id: ObjectId) -> bool;
    /// The one commit whose id begins with these digits.
    fn with_prefix(&self, digits: &str) -> Option<ObjectId>;
    /// The commit that a reference leads to, by its full name.
    fn reference(&self, name: &str) -> Option<ObjectId>;
    /// The name of the remote that is fetched from.
    fn remote(&self) -> String;
    /// Full names of references that may be the default branch, likeliest first.
    fn default_branches(&self) -> Vec<String>;
    /// The parents as the commit names them, whether or not they are at hand.
    fn parents(&self, id: ObjectId) -> Result<Vec<ObjectId>, GitError>;
    /// The best commit that both histories have, as far as they are at hand.
    fn merge_base(&self, one: ObjectId, other: ObjectId) -> Result<Option<ObjectId>, GitError>;
    /// The nearest commit behind `head` that a tag names.
    fn tag_behind(&self, head: ObjectId) -> Result<Option<ObjectId>, GitError>;
    /// Whether the history ends early.
    fn is_shallow(&self) -> bool;
    /// Fetches one commit with its files, without history.
    fn fetch_commit(&self, id: ObjectId) -> Result<(), NotFetched>;
    /// Fetches the tip of a branch of the remote, as its tracking branch.
    fn fetch_branch(&self, name: &str) -> Result<(), NotFetched>;
    /// Fetches history until both have a common ancestor at hand, or it is complete.
    fn fetch_merge_base(&self, one: ObjectId, other: ObjectId) -> Result<(), NotFetched>;
}

/// The base that `request` asks for, for a build of `head`.
pub fn resolve(history: &dyn History, head: ObjectId, request: &BaseRequest) -> BaseRevision {
    let search = Search {
        history,
        head,
        request,
    };
    let mut tried = Vec::new();
    for candidate in &request.candidates {
        match search.look(candidate) {
            Ok(commit) => {
                return BaseRevision {
                    commit: Some(commit),
                    reason: candidate.reason,
                    found_by: Some(candidate.place.clone()),
                    tried,
                    hint: None,
                    mismatch: search.mismatch(),
                };
            }
            Err(why_not) => tried.push(Tried {
                candidate: candidate.clone(),
                why_not,
            }),
        }
    }
    let reason = search.none(&tried);
    BaseRevision {
        commit: None,
        reason,
        found_by: None,
        hint: (reason == BaseReason::Shallow)
            .then(|| format!("give the job all history: {}", request.full_clone)),
        tried,
        mismatch: search.mismatch(),
    }
}

struct Search<'a> {
    history: &'a dyn History,
    head: ObjectId,
    request: &'a BaseRequest,
}

impl Search<'_> {
    /// Why there is no base, after all that was `tried`.
    fn none(&self, tried: &[Tried]) -> BaseReason {
        let wanted = tried.iter().any(|tried| tried.why_not.wants_history());
        if wanted && self.history.is_shallow() {
            return BaseReason::Shallow;
        }
        self.request.otherwise
    }

    /// The commit at the candidate's place.
    fn look(&self, candidate: &BaseCandidate) -> Result<ObjectId, WhyNot> {
        let found = match &candidate.place {
            BasePlace::Commit(id) => self.commit(id)?,
            BasePlace::Revision(name) => return self.revision(name),
            BasePlace::MergeBase(other) => self.merge_base(other)?,
            BasePlace::MergeCommitParent { merged, merge } => {
                self.merge_commit_parent(merged.as_deref(), merge.as_deref())?
            }
            BasePlace::FirstParent => {
                let parents = self.parents()?;
                self.present(*parents.first().ok_or(WhyNot::NoParent)?)?
            }
            BasePlace::PreviousTag => {
                let tag = self.history.tag_behind(self.head);
                tag.map_err(unreadable)?.ok_or(WhyNot::NoTag)?
            }
        };
        match found == self.head {
            true => Err(WhyNot::SameAsHead),
            false => Ok(found),
        }
    }

    /// The commit with an id that begins so.
    fn commit(&self, id: &str) -> Result<ObjectId, WhyNot> {
        if !id.is_empty() && id.bytes().all(|digit| digit == b'0') {
            return Err(WhyNot::Zero);
        }
        if let Ok(id) = id.parse() {
            return self.present(id);
        }
        let is_id = (SHORTEST_ID..40).contains(&id.len())
            && id.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !is_id {
            return Err(WhyNot::NoId);
        }
        // Servers give commits by whole ids alone.
        self.history.with_prefix(id).ok_or(WhyNot::NotHere)
    }

    /// `id`, fetched if it isn't at hand.
    fn present(&self, id: ObjectId) -> Result<ObjectId, WhyNot> {
        if self.history.has(id) {
            return Ok(id);
        }
        self.history.fetch_commit(id).map_err(not_fetched)?;
        match self.history.has(id) {
            true => Ok(id),
            false => Err(WhyNot::NotHere),
        }
    }

    /// What somebody named, with the names of branches before ids, as with `git`.
    fn revision(&self, name: &str) -> Result<ObjectId, WhyNot> {
        let tag = || self.history.reference(&format!("refs/tags/{name}"));
        let known = is_name(name).then(|| self.tip(name).or_else(tag)).flatten();
        match (known, self.commit(name)) {
            (Some(id), _) | (None, Ok(id)) => Ok(id),
            (None, Err(WhyNot::NoId)) => self.branch(name),
            (None, Err(why_not)) => Err(why_not),
        }
    }

    /// The tip of a branch as it is at hand.
    fn tip(&self, name: &str) -> Option<ObjectId> {
        let name = name.strip_prefix("refs/heads/").unwrap_or(name);
        let remote = self
            .history
            .reference(&format!("refs/remotes/{}/{name}", self.history.remote()));
        remote.or_else(|| self.history.reference(&format!("refs/heads/{name}")))
    }

    /// The tip of a branch, fetched if it isn't at hand.
    fn branch(&self, name: &str) -> Result<ObjectId, WhyNot> {
        let name = name.strip_prefix("refs/heads/").unwrap_or(name);
        if !is_name(name) {
            return Err(WhyNot::NoName);
        }
        if let Some(id) = self.tip(name) {
            return Ok(id);
        }
        self.history.fetch_branch(name).map_err(not_fetched)?;
        self.tip(name).ok_or(WhyNot::NotHere)
    }

    /// The tip to look for a common ancestor with.
    fn other(&self, other: &Other) -> Result<ObjectId, WhyNot> {
        let own = |name: &str| self.request.branch.as_deref() == Some(name);
        match other {
            Other::Commit(id) => self.commit(id),
            Other::Branch(name) if own(name.strip_prefix("refs/heads/").unwrap_or(name)) => {
                Err(WhyNot::OwnBranch)
            }
            Other::Branch(name) => self.branch(name),
            Other::DefaultBranch => {
                let names = self.history.default_branches();
                let name = names.first().ok_or(WhyNot::NoDefault)?;
                let remote = format!("refs/remotes/{}/", self.history.remote());
                let short = [&*remote, "refs/heads/"]
                    .iter()
                    .find_map(|place| name.strip_prefix(place));
                if short.is_some_and(own) {
                    return Err(WhyNot::OwnBranch);
                }
                self.history.reference(name).ok_or(WhyNot::NoDefault)
            }
        }
    }

    fn merge_base(&self, other: &Other) -> Result<ObjectId, WhyNot> {
        let other = self.other(other)?;
        let find = || {
            let found = self.history.merge_base(self.head, other);
            found.map_err(unreadable)
        };
        if let Some(base) = find()? {
            return Ok(base);
        }
        if !self.history.is_shallow() {
            return Err(WhyNot::Unrelated);
        }
        match self.history.fetch_merge_base(self.head, other) {
            Ok(()) => find()?.ok_or(match self.history.is_shallow() {
                true => WhyNot::HistoryEnds,
                false => WhyNot::Unrelated,
            }),
            Err(NotFetched::Off) => Err(WhyNot::HistoryEnds),
            Err(failed) => Err(not_fetched(failed)),
        }
    }

    fn merge_commit_parent(
        &self,
        merged: Option<&str>,
        merge: Option<&str>,
    ) -> Result<ObjectId, WhyNot> {
        let parents = self.parents()?;
        let [onto, brought] = parents[..] else {
            return Err(WhyNot::NotThatMerge);
        };
        let is = |said: Option<&str>, id: ObjectId| said.is_some_and(|said| is_same(said, id));
        match is(merged, brought) || is(merge, self.head) {
            true => self.present(onto),
            false => Err(WhyNot::NotThatMerge),
        }
    }

    fn parents(&self) -> Result<Vec<ObjectId>, WhyNot> {
        self.history.parents(self.head).map_err(unreadable)
    }

    /// Whether the platform says that something else is built.
    fn mismatch(&self) -> Option<HeadMismatch> {
        let said = self.request.head.as_deref()?;
        // A job of Buildkite for whatever is the newest.
        if said == "HEAD" || is_same(said, self.head) {
            return None;
        }
        // Some platforms name the commit and check out a merge of it that they have just made.
        let parents = self.history.parents(self.head).unwrap_or_default();
        if parents.len() == 2 && parents.iter().any(|parent| is_same(said, *parent)) {
            return None;
        }
        Some(HeadMismatch {
            said: said.to_owned(),
            actual: self.head,
        })
    }
}

/// Whether `said` is the id, or enough of its beginning.
fn is_same(said: &str, id: ObjectId) -> bool {
    said.len() >= SHORTEST_ID && id.to_string().starts_with(&said.to_ascii_lowercase())
}

fn unreadable(error: GitError) -> WhyNot {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    WhyNot::Unreadable { said }
}

fn not_fetched(error: NotFetched) -> WhyNot {
    match error {
        NotFetched::Off => WhyNot::NotHere,
        NotFetched::Failed(said) => WhyNot::NotFetched { said },
    }
}

/// Whether Git allows `name` as the name of a branch or tag (`git help check-ref-format`). What
/// begins with a dash is none either, so that no program takes it for an option.
fn is_name(name: &str) -> bool {
    let bad = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name != "@"
        && !name.starts_with('-')
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains(bad)
        && name.split('/').all(part)
}

#[cfg(test)]
mod tests;
