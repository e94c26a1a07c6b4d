//! What is fetched for a base, and what is told where that fails, with a repository that is made
//! up. `src/ci/tests/bases.rs` has real ones.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use super::*;

/// A clone, and what its remote has.
#[derive(Default)]
struct Clone {
    here: RefCell<BTreeSet<u8>>,
    references: RefCell<BTreeMap<String, u8>>,
    parents: BTreeMap<u8, Vec<u8>>,
    /// Whether the history that is at hand ends early.
    shallow: RefCell<bool>,
    /// The merge base of the head and the tip, once there is enough history.
    base: Option<u8>,
    /// What the remote has, or why it can't be reached.
    remote: Option<Result<BTreeSet<u8>, String>>,
    remote_branches: BTreeMap<String, u8>,
    /// What was fetched.
    calls: RefCell<Vec<String>>,
}

fn id(digit: u8) -> ObjectId {
    format!("{digit:x}").repeat(40).parse().unwrap()
}

fn digit(id: ObjectId) -> u8 {
    u8::from_str_radix(&id.to_string()[..1], 16).unwrap()
}

impl Clone {
    /// The answer of the remote to a call.
    fn ask(&self, call: String) -> Result<&BTreeSet<u8>, NotFetched> {
        match &self.remote {
            None => Err(NotFetched::Off),
            Some(Err(said)) => Err(NotFetched::Failed(said.clone())),
            Some(Ok(has)) => {
                self.calls.borrow_mut().push(call);
                Ok(has)
            }
        }
    }
}

impl History for Clone {
    fn has(&self, id: ObjectId) -> bool {
        self.here.borrow().contains(&digit(id))
    }

    fn with_prefix(&self, digits: &str) -> Option<ObjectId> {
        let all = self.here.borrow();
        let mut found = all
            .iter()
            .filter(|digit| id(**digit).to_string().starts_with(digits));
        found.next().map(|digit| id(*digit))
    }

    fn reference(&self, name: &str) -> Option<ObjectId> {
        self.references.borrow().get(name).map(|digit| id(*digit))
    }

    fn remote(&self) -> String {
        "origin".to_owned()
    }

    fn default_branches(&self) -> Vec<String> {
        Vec::new()
    }

    fn parents(&self, head: ObjectId) -> Result<Vec<ObjectId>, GitError> {
        let parents = self.parents.get(&digit(head)).ok_or(GitError::Unborn {
            path: "repository".into(),
        })?;
        Ok(parents.iter().map(|parent| id(*parent)).collect())
    }

    fn merge_base(&self, _: ObjectId, _: ObjectId) -> Result<Option<ObjectId>, GitError> {
        let known = self.base.filter(|base| self.here.borrow().contains(base));
        Ok(known.map(id))
    }

    fn tag_behind(&self, _: ObjectId) -> Result<Option<ObjectId>, GitError> {
        Ok(None)
    }

    fn is_shallow(&self) -> bool {
        *self.shallow.borrow()
    }

    fn fetch_commit(&self, id: ObjectId) -> Result<(), NotFetched> {
        let wanted = digit(id);
        match self.ask(format!("commit {wanted}"))?.contains(&wanted) {
            true => drop(self.here.borrow_mut().insert(wanted)),
            false => return Err(NotFetched::Failed("not our ref".to_owned())),
        }
        Ok(())
    }

    fn fetch_branch(&self, name: &str) -> Result<(), NotFetched> {
        self.ask(format!("branch {name}"))?;
        let Some(tip) = self.remote_branches.get(name) else {
            return Err(NotFetched::Failed(format!("couldn't find {name}")));
        };
        let name = format!("refs/remotes/origin/{name}");
        self.references.borrow_mut().insert(name, *tip);
        self.here.borrow_mut().insert(*tip);
        Ok(())
    }

    fn fetch_merge_base(&self, one: ObjectId, other: ObjectId) -> Result<(), NotFetched> {
        let call = format!("history of {} and {}", digit(one), digit(other));
        self.ask(call)?;
        self.here.borrow_mut().extend(self.base);
        *self.shallow.borrow_mut() = false;
        Ok(())
    }
}

/// A shallow clone with commit 9 alone, a merge of 2 and 3; the remote has all.
fn shallow() -> Clone {
    Clone {
        here: RefCell::new([9].into()),
        parents: [(9, vec![2, 3])].into(),
        shallow: RefCell::new(true),
        base: Some(1),
        remote: Some(Ok([1, 2, 3].into())),
        remote_branches: [("main".to_owned(), 2)].into(),
        ..Clone::default()
    }
}

fn request(place: BasePlace) -> BaseRequest {
    BaseRequest {
        full_clone: "all of it",
        ..BaseRequest::none(BaseReason::OtherEvent).or(place, BaseReason::PushBefore)
    }
}

/// The base, what was fetched, and why there is none.
fn look(clone: &Clone, place: BasePlace) -> String {
    let base = resolve(clone, id(9), &request(place));
    let calls = clone.calls.borrow().join(", ");
    match base.commit {
        Some(commit) => format!("{} {}: {calls}", base.reason, digit(commit)),
        None => format!("{}: {calls}: {}", base.reason, base.tried[0].why_not),
    }
}

fn commit(digit: u8) -> BasePlace {
    BasePlace::Commit(id(digit).to_string())
}

fn branch(name: &str) -> BasePlace {
    BasePlace::MergeBase(Other::Branch(name.to_owned()))
}

fn merge() -> BasePlace {
    BasePlace::MergeCommitParent {
        merged: Some(id(3).to_string()),
        merge: None,
    }
}

#[test]
fn exactly_what_is_needed_is_fetched() {
    assert_eq!(look(&shallow(), commit(1)), "push-before 1: commit 1");
    assert_eq!(look(&shallow(), merge()), "push-before 2: commit 2");
    assert_eq!(
        look(&shallow(), BasePlace::FirstParent),
        "push-before 2: commit 2"
    );
    assert_eq!(
        look(&shallow(), branch("main")),
        "push-before 1: branch main, history of 9 and 2"
    );
    assert_eq!(
        look(
            &shallow(),
            BasePlace::MergeBase(Other::Commit(id(2).to_string()))
        ),
        "push-before 1: commit 2, history of 9 and 2"
    );
    // What is at hand isn't asked for.
    let clone = shallow();
    clone.here.borrow_mut().extend([1, 2]);
    assert_eq!(look(&clone, commit(2)), "push-before 2: ");
    clone
        .references
        .borrow_mut()
        .insert("refs/remotes/origin/main".to_owned(), 2);
    assert_eq!(look(&clone, branch("main")), "push-before 1: ");
    assert_eq!(look(&clone, branch("refs/heads/main")), "push-before 1: ");
}

#[test]
fn the_remotes_branch_goes_before_a_local_one() {
    let mut clone = shallow();
    clone.base = Some(3);
    clone.here.borrow_mut().extend([1, 2, 3]);
    clone.references = RefCell::new(
        [
            ("refs/heads/main".to_owned(), 1),
            ("refs/tags/main".to_owned(), 9),
        ]
        .into(),
    );
    let asked = |clone: &Clone| look(clone, BasePlace::Revision("main".to_owned()));
    assert_eq!(asked(&clone), "push-before 1: ");
    clone
        .references
        .borrow_mut()
        .insert("refs/remotes/origin/main".to_owned(), 2);
    assert_eq!(asked(&clone), "push-before 2: ");
    clone
        .references
        .borrow_mut()
        .retain(|name, _| name.starts_with("refs/tags"));
    assert_eq!(asked(&clone), "push-before 9: ");
    let other = shallow();
    assert_eq!(
        asked(&other),
        "push-before 2: branch main",
        "nobody had heard of it"
    );
}

#[test]
fn without_a_remote_the_reason_is_the_shallow_clone() {
    for remote in [None, Some(Err("no route to host".to_owned()))] {
        for place in [
            commit(1),
            merge(),
            branch("main"),
            BasePlace::PreviousTag,
            BasePlace::Commit("1111111".to_owned()),
        ] {
            let clone = Clone {
                remote: remote.clone(),
                ..shallow()
            };
            let base = resolve(&clone, id(9), &request(place.clone()));
            assert_eq!(base.commit, None);
            assert_eq!(base.reason, BaseReason::Shallow, "{place}");
            assert_eq!(
                base.hint.as_deref(),
                Some("give the job all history: all of it")
            );
        }
    }
    let clone = Clone {
        remote: Some(Err("no route to host".to_owned())),
        ..shallow()
    };
    assert_eq!(
        look(&clone, commit(1)),
        "shallow: : the clone doesn't have it, and it can't be fetched: no route to host"
    );
}

#[test]
fn what_is_in_no_repository_is_no_base() {
    let whole = || Clone {
        shallow: RefCell::new(false),
        base: None,
        ..shallow()
    };
    assert_eq!(
        look(&whole(), commit(7)),
        "other-event: commit 7: the clone doesn't have it, and it can't be fetched: not our ref"
    );
    assert_eq!(
        look(&whole(), branch("main")),
        "other-event: branch main: the histories have nothing in common"
    );
    assert_eq!(
        look(&whole(), branch("gone")),
        "other-event: branch gone: the clone doesn't have it, and it can't be fetched: couldn't find gone"
    );
    for (place, why) in [
        (commit(0), "the id of zeros stands for no commit"),
        (
            BasePlace::Commit(String::new()),
            "it isn't the id of a commit",
        ),
        (
            BasePlace::Commit("HEAD".to_owned()),
            "it isn't the id of a commit",
        ),
        (
            BasePlace::Commit("1".repeat(41)),
            "it isn't the id of a commit",
        ),
        (branch("-x"), "it isn't a name that Git allows"),
        (branch(&"x".repeat(5000)), "it isn't a name that Git allows"),
        (commit(9), "it is the commit that is built"),
        (
            BasePlace::MergeBase(Other::DefaultBranch),
            "the clone doesn't say which branch it is",
        ),
        (
            BasePlace::MergeCommitParent {
                merged: None,
                merge: None,
            },
            "what is checked out isn't that merge",
        ),
    ] {
        assert_eq!(look(&whole(), place), format!("other-event: : {why}"));
    }
}

#[test]
fn a_repository_that_cant_be_read_is_no_base() {
    let clone = Clone {
        parents: BTreeMap::new(),
        ..shallow()
    };
    assert_eq!(
        look(&clone, merge()),
        "other-event: : the repository can't be read: the Git repository `repository` has no commits yet"
    );
}

#[test]
fn candidates_are_tried_in_order_and_told() {
    let clone = shallow();
    let all = request(commit(7))
        .or(commit(0), BaseReason::ForcePush)
        .or(commit(1), BaseReason::NewBranch);
    let base = resolve(&clone, id(9), &all);
    assert_eq!(
        (base.commit, base.reason),
        (Some(id(1)), BaseReason::NewBranch)
    );
    assert_eq!(base.found_by, Some(commit(1)));
    let told = serde_json::to_string(&base.tried).unwrap();
    let seven = id(7);
    let zero = id(0);
    assert_eq!(
        told,
        format!(
            r#"[{{"place":"commit `{seven}`","reason":"push-before","why_not":"the clone doesn't have it, and it can't be fetched: not our ref"}},"#
        ) + &format!(
            r#"{{"place":"commit `{zero}`","reason":"force-push","why_not":"the id of zeros stands for no commit"}}]"#
        )
    );
}
