//! A repository with a history that every event has something to say about.
//!
//! ```text
//!        v1        v2
//! main    A -- B -- C -------- M    refs/pull/7/merge, and a merge queue's branch
//!               \    \        /
//! feature        \    \      /
//!                 F1 -- F2 -+-- R   R has F2 and C as parents, in this order
//! other    O, without anything before it
//! ```

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    ci::CiContext,
    git::{
        FetchSettings, Repository,
        base::{BaseRevision, WhyNot},
        resolve::resolve,
    },
};

/// The repository, and clones of it.
pub(super) struct History {
    dir: TempDir,
    ids: BTreeMap<&'static str, String>,
}

impl History {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut history = Self {
            dir,
            ids: BTreeMap::new(),
        };
        history.git("", &["init", "-q", "-b", "main", "origin"]);
        history.commit("A");
        history.origin(&["tag", "v1"]);
        history.commit("B");
        history.origin(&["checkout", "-q", "-b", "feature"]);
        history.commit("F1");
        history.commit("F2");
        history.origin(&["checkout", "-q", "main"]);
        history.commit("C");
        history.origin(&["tag", "-a", "-m", "two", "v2"]);
        history.origin(&["checkout", "-q", "--detach"]);
        history.merge("M", "feature");
        history.origin(&["update-ref", "refs/pull/7/merge", "HEAD"]);
        history.origin(&["update-ref", "refs/pull/7/head", "feature"]);
        history.origin(&["branch", "gh-readonly-queue/main/pr-7"]);
        history.origin(&["checkout", "-q", "--detach", "feature"]);
        history.merge("R", "main");
        history.origin(&["branch", "merged-locally"]);
        history.origin(&["checkout", "-q", "--orphan", "other"]);
        history.commit("O");
        history.origin(&["checkout", "-q", "main"]);
        history
    }

    fn origin(&self, args: &[&str]) -> String {
        self.git("origin", args)
    }

    /// Runs `git` below the directory, with nobody's configuration.
    pub(super) fn git(&self, dir: &str, args: &[&str]) -> String {
        // Each commit is a minute after the one before.
        let date = format!("{} +0000", 1_700_000_000 + 60 * self.ids.len());
        let output = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(args)
            .current_dir(self.dir.path().join(dir))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.dir.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_DATE", &date)
            .env("GIT_COMMITTER_DATE", &date)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?}: {said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(&mut self, name: &'static str) {
        self.origin(&["commit", "-q", "--allow-empty", "-m", name]);
        self.remember(name);
    }

    fn merge(&mut self, name: &'static str, what: &str) {
        self.origin(&["merge", "-q", "--no-ff", "-m", name, what]);
        self.remember(name);
    }

    fn remember(&mut self, name: &'static str) {
        let id = self.origin(&["rev-parse", "HEAD"]);
        self.ids.insert(name, id);
    }

    /// The id of a commit.
    pub(super) fn id(&self, name: &str) -> &str {
        &self.ids[name]
    }

    /// `text` with `{A}` replaced by the id of commit A, for all of them.
    pub(super) fn fill(&self, text: &str) -> String {
        let fill =
            |text: String, (name, id): (&&str, &String)| text.replace(&format!("{{{name}}}"), id);
        self.ids.iter().fold(text.to_owned(), fill)
    }

    /// A clone in which `name` is checked out, with `depth` commits of history if that is given.
    pub(super) fn clone_at(&self, name: &str, depth: Option<u32>) -> PathBuf {
        self.clone_as(&format!("clone-{name}-{depth:?}"), name, depth)
    }

    fn clone_as(&self, clone: &str, name: &str, depth: Option<u32>) -> PathBuf {
        let path = self.dir.path().join(clone);
        if path.exists() {
            return path;
        }
        match depth {
            None => {
                self.git("", &["clone", "-q", "--no-checkout", "origin", clone]);
                // Merges lie on no branch.
                self.git(clone, &["fetch", "-q", "origin", self.id(name)]);
            }
            Some(depth) => {
                let address = format!("file://{}/origin", self.dir.path().display());
                let depth = format!("--depth={depth}");
                self.git("", &["init", "-q", clone]);
                self.git(clone, &["remote", "add", "origin", &address]);
                self.git(clone, &["fetch", "-q", &depth, "origin", self.id(name)]);
            }
        }
        self.git(clone, &["checkout", "-q", "--detach", self.id(name)]);
        path
    }

    /// What the base of `context` is where `name` is checked out: the reason and the commit's
    /// name.
    pub(super) fn base(&self, context: &CiContext, name: &str, depth: Option<u32>) -> String {
        self.told(&self.revision(context, name, depth))
    }

    pub(super) fn revision(
        &self,
        context: &CiContext,
        name: &str,
        depth: Option<u32>,
    ) -> BaseRevision {
        let dir = self.clone_at(name, depth);
        let repository = Repository::discover(&dir).unwrap().unwrap();
        let head = repository.commit("HEAD").unwrap().id;
        resolve(&repository, head, &context.base)
    }

    /// As [`History::base`] in a new clone of one commit, for which may be fetched; and how many
    /// commits it has then.
    pub(super) fn fetched(&self, context: &CiContext, name: &str) -> String {
        let clone = tempfile::tempdir_in(self.dir.path()).unwrap();
        let path = self.clone_as(clone.path().join("clone").to_str().unwrap(), name, Some(1));
        let told = self.told(&self.revision_in(&path, context));
        let all = self.git(
            path.to_str().unwrap(),
            &[
                "cat-file",
                "--batch-all-objects",
                "--batch-check=%(objecttype)",
            ],
        );
        let commits = all.lines().filter(|kind| *kind == "commit").count();
        format!("{told}, {commits} commits")
    }

    /// The base in a clone for which may be fetched.
    pub(super) fn revision_in(&self, clone: &Path, context: &CiContext) -> BaseRevision {
        let variable = |name: &str, value: &OsStr| (name.into(), value.to_owned());
        let settings = FetchSettings {
            env: vec![
                variable("PATH", &std::env::var_os("PATH").unwrap()),
                variable("HOME", self.dir.path().as_os_str()),
            ],
            timeout: Duration::from_secs(60),
        };
        let repository = Repository::discover(clone).unwrap().unwrap();
        let repository = repository.fetching(settings);
        let head = repository.commit("HEAD").unwrap().id;
        resolve(&repository, head, &context.base)
    }

    /// Makes the place that clones come from vanish.
    pub(super) fn lose_origin(&self) {
        let dir = self.dir.path();
        std::fs::rename(dir.join("origin"), dir.join("lost")).unwrap();
    }

    /// `reason name`, or the reason and why each candidate was none.
    fn told(&self, base: &BaseRevision) -> String {
        let Some(commit) = base.commit else {
            let why: Vec<&WhyNot> = base.tried.iter().map(|tried| &tried.why_not).collect();
            assert_eq!(base.hint.is_some(), base.reason.word() == "shallow");
            return match why.is_empty() {
                true => base.reason.to_string(),
                false => format!("{}: {why:?}", base.reason),
            };
        };
        let commit = commit.to_string();
        let name = self.ids.iter().find(|(_, id)| **id == commit);
        format!("{} {}", base.reason, name.unwrap().0)
    }
}
