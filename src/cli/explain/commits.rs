//! Which commit changed a file last, where a context lies in a Git repository.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use crate::{
    fs,
    git::{ChangedPaths, Commit, Repository, Tree},
    oci::layer::LayerPath,
};

/// How many commits are looked at.
const COMMITS: usize = 200;

/// How many files are looked up: nobody reads more.
const FILES: usize = 100;

/// The histories of the repositories that contexts lie in.
#[derive(Default)]
pub(super) struct Commits {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    repositories: HashMap<PathBuf, Option<History>>,
    asked: usize,
}

/// The history of a repository back from HEAD, along first parents.
struct History {
    repository: Repository,
    head: Tree,
    /// The newest first.
    commits: Vec<(Commit, OnceLock<Option<ChangedPaths>>)>,
}

impl Commits {
    /// The last commit that changed the file `path` of the context in `dir`. None where there is
    /// no telling: no repository, not in the history at hand, or other content on disk than in HEAD.
    pub(super) fn last(&self, dir: &Path, path: &str) -> Option<String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.asked += 1;
        if known.asked > FILES {
            return None;
        }
        let history = known
            .repositories
            .entry(dir.to_owned())
            .or_insert_with(|| History::of(dir));
        history.as_ref()?.last(&dir.join(path))
    }
}

impl History {
    fn of(dir: &Path) -> Option<Self> {
        // What can't be read of a repository is a detail less.
        let repository = Repository::discover(dir).ok()??;
        let head = repository.commit("HEAD").ok()?;
        let commits = repository.history(&head, COMMITS + 1).ok()?;
        Some(Self {
            head: head.files(&repository).ok()?,
            commits: commits
                .into_iter()
                .map(|commit| (commit, OnceLock::new()))
                .collect(),
            repository,
        })
    }

    fn last(&self, file: &Path) -> Option<String> {
        let path = self.repository.relative(file)?;
        if !self.is_committed(file, &path) {
            return None;
        }
        for (n, (commit, changes)) in self.commits.iter().enumerate() {
            let before = match (self.commits.get(n + 1), commit.parents.is_empty()) {
                (Some((before, _)), _) => Some(before),
                (None, true) => None,
                // The history at hand ends here.
                (None, false) => return None,
            };
            let changes = changes.get_or_init(|| self.repository.changes(before, commit).ok());
            if changes.as_ref()?.get(&path).is_some() {
                return Some(commit.id.to_string());
            }
        }
        None
    }

    /// Whether the file is on disk as it is in HEAD.
    fn is_committed(&self, file: &Path, path: &LayerPath) -> bool {
        let Ok(committed) = self.head.read(path) else {
            return false;
        };
        match committed {
            Some(committed) => {
                !fs::is_symlink(file) && fs::read(file).is_ok_and(|disk| disk == committed)
            }
            None => !fs::exists(file),
        }
    }
}
