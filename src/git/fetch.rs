//! What isn't at hand: commits of a shallow clone, trees and blobs of a partial one.
//!
//! Exactly that is fetched, in as few calls of `git` as may be, and only where a repository
//! was opened with [`Repository::fetching`].

use super::{Commit, GitError, ObjectId, Repository, Tree, program};

/// Commits by which a shallow history is first deepened; then twice as many, and so on.
const DEEPEN: u32 = 50;

impl Repository {
    /// The commit `id`, fetched from the remote if it isn't at hand: alone where the history is
    /// cut off anyway, else with what of its history is not there.
    pub fn ensure_commit(&self, id: ObjectId) -> Result<Commit, GitError> {
        if !self.has_commit(id) {
            let depth = match self.is_shallow() {
                true => &["--depth=1"][..],
                false => &[],
            };
            self.fetch(&self.remote()?, depth, &[id])?;
        }
        self.commit_of(id)
    }

    /// The best commit that both histories have, which are deepened until there is one; none
    /// if they prove to have nothing in common.
    pub fn ensure_merge_base(
        &self,
        one: ObjectId,
        other: ObjectId,
    ) -> Result<Option<ObjectId>, GitError> {
        let mut step = DEEPEN;
        loop {
            let found = self.merge_base(one, other)?;
            if found.is_some() || !self.is_shallow() || self.settings().is_none() {
                return Ok(found);
            }
            let before = self.shallow_commits();
            let deepen = format!("--deepen={step}");
            self.fetch(&self.remote()?, &[&deepen], &[one, other])?;
            if self.shallow_commits() == before {
                return self.merge_base(one, other);
            }
            step = step.saturating_mul(2);
        }
    }

    /// Fetches the tip of a branch of the remote, as its tracking branch. `name` must be one
    /// that Git allows.
    pub(super) fn fetch_branch(&self, name: &str) -> Result<(), GitError> {
        let remote = self.remote()?;
        let Some(settings) = self.settings() else {
            return Err(GitError::NoRemote {
                path: self.git_dir().to_owned(),
            });
        };
        let mut args = match self.is_shallow() {
            true => vec!["--depth=1"],
            false => Vec::new(),
        };
        args.extend(["--stdin", "--", &remote]);
        let refspec = format!("+refs/heads/{name}:refs/remotes/{remote}/{name}\n");
        program::fetch(self, settings, &remote, &args, &refspec)
    }

    /// Fetches these objects from `remote`.
    fn fetch(&self, remote: &str, options: &[&str], ids: &[ObjectId]) -> Result<(), GitError> {
        let Some(settings) = self.settings() else {
            return Err(self.missing("object", ids[0]));
        };
        // Names on standard input: there may be more than fit on a command line.
        let names: String = ids.iter().map(|id| format!("{id}\n")).collect();
        let mut args = options.to_vec();
        args.extend(["--stdin", "--", remote]);
        program::fetch(self, settings, remote, &args, &names)
    }

    /// The remote that commits come from: `origin`, or the only one.
    fn remote(&self) -> Result<String, GitError> {
        let names = self.remotes();
        let origin = names.iter().find(|name| *name == "origin");
        match (origin, names.as_slice()) {
            (Some(name), _) => self.usable(name),
            (None, [name]) => self.usable(name),
            _ => Err(GitError::NoRemote {
                path: self.git_dir().to_owned(),
            }),
        }
    }

    /// The remote of a partial clone that has what was left out.
    fn promisor(&self) -> Result<String, GitError> {
        let is_promisor =
            |name: &&String| self.config_boolean(&format!("remote.{name}.promisor")) == Some(true);
        let names = self.remotes();
        match self.config_string("extensions.partialClone") {
            Some(name) => self.usable(&name),
            None => match names.iter().find(is_promisor) {
                Some(name) => self.usable(name),
                None => self.remote(),
            },
        }
    }

    /// `name`, if a remote of that name can be fetched from without starting another program.
    fn usable(&self, name: &str) -> Result<String, GitError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        let has_helper = self.config_string(&format!("remote.{name}.vcs")).is_some();
        if name.starts_with('-') || !name.chars().all(plain) || has_helper {
            return Err(GitError::NoRemote {
                path: self.git_dir().to_owned(),
            });
        }
        Ok(name.to_owned())
    }
}

/// The content of a blob, fetched if need be.
pub(super) fn blob(repository: &Repository, id: ObjectId) -> Result<Vec<u8>, GitError> {
    match repository.blob(id) {
        Err(GitError::Missing { .. }) if repository.settings().is_some() => {
            objects([(repository, id)].into_iter())?;
            repository.blob(id)
        }
        result => result,
    }
}

/// Fetches blobs and trees that are not at hand, those of one repository by one call.
pub(super) fn objects<'r>(
    wanted: impl Iterator<Item = (&'r Repository, ObjectId)>,
) -> Result<(), GitError> {
    let mut all: Vec<(&Repository, Vec<ObjectId>)> = Vec::new();
    for (repository, id) in wanted {
        match all.iter_mut().find(|(other, _)| other.is_same(repository)) {
            Some((_, ids)) => ids.push(id),
            None => all.push((repository, vec![id])),
        }
    }
    for (repository, mut ids) in all {
        ids.sort_unstable();
        ids.dedup();
        if repository.settings().is_none() {
            return Err(repository.missing("blob", ids[0]));
        }
        // As Git itself asks for what a partial clone lacks.
        let options = ["--filter=blob:none"];
        repository.fetch(&repository.promisor()?, &options, &ids)?;
    }
    Ok(())
}

/// Does `work` on `tree` until nothing was missing on the way.
pub(super) fn until_complete<T>(
    tree: &Tree,
    mut work: impl FnMut() -> Result<T, GitError>,
) -> Result<T, GitError> {
    let mut asked: Vec<ObjectId> = Vec::new();
    loop {
        let result = work()?;
        let missing = tree.checkout.take_missing();
        let all = || {
            missing
                .iter()
                .flat_map(|(repository, ids)| ids.iter().map(move |id| (repository, *id)))
        };
        let Some((repository, id)) = all().next() else {
            return Ok(result);
        };
        if all().all(|(_, id)| asked.contains(&id)) {
            // It was asked for, and did not come.
            return Err(repository.missing("blob", id));
        }
        objects(all())?;
        asked.extend(all().map(|(_, id)| id));
    }
}
