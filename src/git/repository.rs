//! Repositories: finding them, and what is in them.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use gix::{
    discover::upwards::{Options as UpwardsOptions, TrustPolicy},
    open::{Options, Permissions, permissions},
    prelude::FindExt as _,
    sec::{Permission, Trust, trust::Mapping},
};

use super::{ChangedPaths, Commit, FetchSettings, GitError, ObjectId};
use crate::{fs, oci::layer::LayerPath};

/// Bytes of memory for decoded objects, for each thread that reads.
const OBJECT_CACHE: usize = 4 << 20;

/// A Git repository that is open for reading. Clones share what they hold.
#[derive(Clone)]
pub struct Repository {
    shared: Arc<Shared>,
    settings: Option<Arc<FetchSettings>>,
}

struct Shared {
    store: gix::ThreadSafeRepository,
    /// Whose configuration counts.
    surroundings: Surroundings,
    /// The work tree, or the repository itself if it is bare; symlinks followed.
    top: PathBuf,
    /// Handles that no thread uses now: they have caches.
    free: Mutex<Vec<gix::Repository>>,
}

/// Which configuration besides the repository's own counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surroundings {
    /// That of the machine and of the user, as with the program `git`: how files are
    /// converted on checkout may stand there.
    Machine,
    /// None.
    None,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Repository({})", self.shared.store.git_dir().display())
    }
}

impl Repository {
    /// The repository that `dir` lies in: a work tree, one of several, any directory below,
    /// or a bare repository. None if it lies in none.
    pub fn discover(dir: &Path) -> Result<Option<Self>, GitError> {
        Self::discover_in(dir, Surroundings::Machine)
    }

    /// As [`Repository::discover`], with a choice of whose configuration counts.
    pub fn discover_in(dir: &Path, surroundings: Surroundings) -> Result<Option<Self>, GitError> {
        let upwards = UpwardsOptions {
            trust: TrustPolicy::Required(Trust::Reduced),
            ..Default::default()
        };
        let options = || Options::default().permissions(permissions(surroundings));
        let map = Mapping {
            full: options(),
            reduced: options(),
        };
        let store = match gix::ThreadSafeRepository::discover_opts(dir, upwards, map) {
            Ok(store) => store,
            Err(error) if is_nowhere(&error) => return Ok(None),
            Err(source) => {
                return Err(GitError::Open {
                    path: dir.to_owned(),
                    source: Box::new(source),
                });
            }
        };
        Self::of(store, surroundings).map(Some)
    }

    fn of(store: gix::ThreadSafeRepository, surroundings: Surroundings) -> Result<Self, GitError> {
        let top = fs::canonicalize(store.work_dir().unwrap_or(store.git_dir()))?;
        Ok(Self {
            shared: Arc::new(Shared {
                store,
                surroundings,
                top,
                free: Mutex::default(),
            }),
            settings: None,
        })
    }

    /// The repository, with leave to fetch what is not at hand.
    #[must_use]
    pub fn fetching(mut self, settings: FetchSettings) -> Self {
        self.settings = Some(Arc::new(settings));
        self
    }

    /// The repository that is at `place` itself, not above; none if there is none.
    pub(super) fn module_at(&self, place: &Path) -> Result<Option<Self>, GitError> {
        let surroundings = self.shared.surroundings;
        let options = Options::default().permissions(permissions(surroundings));
        if !fs::exists(place.join(".git")) && !fs::exists(place.join("HEAD")) {
            return Ok(None);
        }
        let store = gix::ThreadSafeRepository::open_opts(place, options);
        let store = store.map_err(|source| GitError::Open {
            path: place.to_owned(),
            source: Box::new(source),
        })?;
        let module = Self::of(store, surroundings)?;
        Ok(Some(Self {
            settings: self.settings.clone(),
            ..module
        }))
    }

    /// The directory of the work tree; none in a bare repository.
    pub fn work_dir(&self) -> Option<&Path> {
        self.shared.store.work_dir().map(|_| &*self.shared.top)
    }

    /// Whether there is no work tree.
    pub fn is_bare(&self) -> bool {
        self.work_dir().is_none()
    }

    /// The directory with the repository's own files, for messages.
    pub fn git_dir(&self) -> &Path {
        self.shared.store.git_dir()
    }

    /// The directory that all work trees share.
    pub(super) fn common_dir(&self) -> PathBuf {
        self.with(|repository| repository.common_dir().to_owned())
    }

    pub(super) fn settings(&self) -> Option<&FetchSettings> {
        self.settings.as_deref()
    }

    /// Whether `other` is a clone of this value.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// A setting of the configuration.
    pub(super) fn config_string(&self, key: &str) -> Option<String> {
        self.with(|repository| {
            let value = repository.config_snapshot().string(key)?;
            Some(value.to_string())
        })
    }

    /// A setting that is a truth value.
    pub(super) fn config_boolean(&self, key: &str) -> Option<bool> {
        self.with(|repository| repository.config_snapshot().boolean(key))
    }

    /// The names of the remotes.
    pub(super) fn remotes(&self) -> Vec<String> {
        self.with(|repository| {
            let config = repository.config_snapshot();
            let sections = config.plumbing().sections_by_name("remote");
            let names = sections.into_iter().flatten();
            let names = names.filter_map(|section| section.header().subsection_name());
            let mut names: Vec<String> = names.map(ToString::to_string).collect();
            names.sort();
            names.dedup();
            names
        })
    }

    /// Whether the history ends early.
    pub fn is_shallow(&self) -> bool {
        // A file that can't be read might say so.
        self.with(|repository| repository.is_shallow().unwrap_or(true))
    }

    /// `path` as seen from the root of the repository; none if it lies outside. A relative
    /// path counts from the current directory, in a bare repository from its root. What
    /// doesn't exist is no obstacle.
    pub fn relative(&self, path: &Path) -> Option<LayerPath> {
        if self.is_bare() && path.is_relative() {
            return LayerPath::new(path).ok();
        }
        let mut existing = fs::absolute(path).ok()?;
        let mut below = Vec::new();
        let whole = loop {
            if let Ok(whole) = fs::canonicalize(&existing) {
                break whole;
            }
            below.push(existing.file_name()?.to_owned());
            existing.pop();
        };
        let whole = below.iter().rev().fold(whole, |at, name| at.join(name));
        LayerPath::new(whole.strip_prefix(&self.shared.top).ok()?).ok()
    }

    /// The commit that `text` names: digits of its name, a reference, `HEAD^1` and the like;
    /// tags are followed.
    pub fn commit(&self, text: &str) -> Result<Commit, GitError> {
        let id = self.with(|repository| {
            let wanted = format!("{text}^{{commit}}");
            let found = repository.rev_parse_single(&*wanted);
            found.map(|id| id.detach()).map_err(|source| {
                if repository.head().is_ok_and(|head| head.is_unborn()) && text.starts_with("HEAD")
                {
                    return GitError::Unborn {
                        path: self.git_dir().to_owned(),
                    };
                }
                GitError::Revision {
                    text: text.to_owned(),
                    path: self.git_dir().to_owned(),
                    shallow: repository.is_shallow().unwrap_or(true),
                    source: Box::new(source),
                }
            })
        })?;
        self.commit_of(ObjectId(id))
    }

    /// The commit of this name.
    pub fn commit_of(&self, id: ObjectId) -> Result<Commit, GitError> {
        self.with(|repository| {
            if !repository.has_object(id.0) {
                return Err(self.missing("commit", id));
            }
            let commit = repository.find_commit(id.0).map_err(Box::new);
            commit
                .and_then(|commit| Commit::decode(id.0, &commit))
                .map_err(|source| self.unreadable("commit", id, source))
        })
    }

    /// Whether the commit of this name is at hand.
    pub fn has_commit(&self, id: ObjectId) -> bool {
        self.with(|repository| {
            let header = repository.try_find_header(id.0);
            header
                .ok()
                .flatten()
                .is_some_and(|header| header.kind() == gix::objs::Kind::Commit)
        })
    }

    /// Up to `n` commits from `head` back along first parents, newest first. It ends where the
    /// history at hand does.
    pub fn history(&self, head: &Commit, n: usize) -> Result<Vec<Commit>, GitError> {
        let cut = self.shallow_commits();
        let mut commits = Vec::new();
        let mut next = Some(head.clone());
        while let Some(commit) = next.filter(|_| commits.len() < n) {
            next = match commit.parents.first() {
                Some(parent) if !cut.contains(&commit.id) => Some(self.commit_of(*parent)?),
                _ => None,
            };
            commits.push(commit);
        }
        Ok(commits)
    }

    /// The best commit that both histories have; none if there is none at hand.
    pub fn merge_base(&self, one: ObjectId, other: ObjectId) -> Result<Option<ObjectId>, GitError> {
        self.with(|repository| {
            let bases = repository.merge_bases_many(one.0, &[other.0]);
            let bases = bases.map_err(|source| GitError::MergeBase {
                one,
                other,
                source: Box::new(source),
            })?;
            Ok(bases.first().map(|id| ObjectId(id.detach())))
        })
    }

    /// References that may be the main branch, likeliest first: what the remote says it is,
    /// then `main` and `master` there, then here. Only those that exist.
    pub fn default_branch_candidates(&self) -> Vec<String> {
        self.with(|repository| {
            let mut names = Vec::new();
            let remote_head = repository
                .try_find_reference("refs/remotes/origin/HEAD")
                .ok()
                .flatten();
            if let Some(head) = remote_head
                && let Some(name) = head.target().try_name()
            {
                names.push(name.as_bstr().to_string());
            }
            for place in ["refs/remotes/origin/", "refs/heads/"] {
                for branch in ["main", "master", "trunk"] {
                    names.push(format!("{place}{branch}"));
                }
            }
            let mut seen = std::collections::BTreeSet::new();
            names.retain(|name| {
                let exists = repository.try_find_reference(&**name);
                seen.insert(name.clone()) && exists.is_ok_and(|found| found.is_some())
            });
            names
        })
    }

    /// The branch that is checked out, without `refs/heads/`; none if it is a commit alone.
    pub fn branch(&self) -> Option<String> {
        self.with(|repository| {
            let name = repository.head_name().ok()??;
            let name = name.as_bstr().to_string();
            name.strip_prefix("refs/heads/").map(str::to_owned)
        })
    }

    /// The address of the remote `origin`, as the configuration has it: it may hold a password.
    pub fn remote_url(&self) -> Option<String> {
        self.config_string("remote.origin.url")
    }

    /// What changed from commit `base` to commit `head`; with no base everything was added.
    pub fn changes(&self, base: Option<&Commit>, head: &Commit) -> Result<ChangedPaths, GitError> {
        ChangedPaths::between(self, base.map(|base| base.tree), head.tree)
    }

    /// Commits whose parents were left out when the repository was cloned.
    pub(super) fn shallow_commits(&self) -> Vec<ObjectId> {
        self.with(|repository| {
            let commits = repository.shallow_commits().ok().flatten();
            commits
                .map(|commits| commits.iter().copied().map(ObjectId).collect())
                .unwrap_or_default()
        })
    }

    /// The content of a blob.
    pub(super) fn blob(&self, id: ObjectId) -> Result<Vec<u8>, GitError> {
        self.object("blob", id, |data| Ok(data.to_vec()))
    }

    /// Gives `read` the bytes of an object of `kind`.
    pub(super) fn object<T>(
        &self,
        kind: &'static str,
        id: ObjectId,
        read: impl FnOnce(&[u8]) -> Result<T, Box<gix::Error>>,
    ) -> Result<T, GitError> {
        self.with(|repository| {
            if id.0.is_empty_tree() || id.0.is_empty_blob() {
                return read(b"").map_err(|source| self.unreadable(kind, id, source));
            }
            let mut buffer = Vec::new();
            let found = match repository.objects.find(&id.0, &mut buffer) {
                Ok(found) => found,
                Err(_) if !repository.has_object(id.0) => return Err(self.missing(kind, id)),
                Err(source) => return Err(self.unreadable(kind, id, Box::new(source))),
            };
            read(found.data).map_err(|source| self.unreadable(kind, id, source))
        })
    }

    /// Lends a handle to `work`.
    pub(super) fn with<T>(&self, work: impl FnOnce(&gix::Repository) -> T) -> T {
        let free = || {
            self.shared
                .free
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let taken = free().pop();
        let handle = taken.unwrap_or_else(|| {
            let mut handle = self.shared.store.to_thread_local();
            handle.object_cache_size_if_unset(OBJECT_CACHE);
            handle
        });
        let result = work(&handle);
        free().push(handle);
        result
    }

    pub(super) fn missing(&self, kind: &'static str, id: ObjectId) -> GitError {
        GitError::Missing {
            kind,
            id,
            path: self.git_dir().to_owned(),
        }
    }

    fn unreadable(&self, kind: &'static str, id: ObjectId, source: Box<gix::Error>) -> GitError {
        GitError::Object {
            kind,
            id,
            path: self.git_dir().to_owned(),
            source,
        }
    }
}

/// What the library may look at besides the repository. Of the environment only the places
/// of the user's configuration.
fn permissions(surroundings: Surroundings) -> Permissions {
    let mut all = Permissions::isolated();
    if surroundings == Surroundings::Machine {
        all.env.home = Permission::Allow;
        all.env.xdg_config_home = Permission::Allow;
        all.config = permissions::Config {
            env: false,
            ..permissions::Config::all()
        };
        all.attributes = permissions::Attributes::all();
    }
    all
}

/// Whether discovery found that there is no repository.
fn is_nowhere(error: &gix::Error) -> bool {
    use gix::discover::upwards::Error;
    error.iter_errors().any(|cause| {
        matches!(
            cause.downcast_ref::<Error>(),
            Some(
                Error::NoGitRepository { .. }
                    | Error::NoGitRepositoryWithinCeiling { .. }
                    | Error::NoGitRepositoryWithinFs { .. }
            )
        )
    })
}
