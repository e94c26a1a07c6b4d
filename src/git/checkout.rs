//! A tree as a checkout would lay it out: directories with their attributes, submodules with
//! what is in them.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    GitError, ObjectId, Repository,
    attributes::{Attributes, Treatment},
    listing::{Listing, TreeEntry, TreeEntryKind},
};
use crate::{fs, oci::layer::LayerPath};

/// The tree of one commit, of the repository or of a submodule.
#[derive(Debug)]
pub(super) struct Checkout {
    pub(super) repository: Repository,
    /// What the tree was taken from, as far as that is known.
    commit: Option<ObjectId>,
    root: Arc<Listing>,
    attributes: Arc<Attributes>,
    /// Whether symlinks are made, not files that hold their targets.
    pub(super) symlinks: bool,
    /// For a submodule: its `.git`.
    git_file: Option<GitFile>,
    /// The submodules that were looked for, by their places.
    modules: Mutex<BTreeMap<LayerPath, Option<Arc<Checkout>>>>,
    /// Blobs that were needed to go on, and are not at hand.
    missing: Mutex<Vec<ObjectId>>,
}

/// What stands at `.git` in a work tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GitFile {
    /// A file with this content.
    File(Vec<u8>),
    /// A directory, or nothing that can be told.
    Unknown,
}

/// A directory in a [`Checkout`].
#[derive(Debug, Clone)]
pub(super) struct Dir {
    pub(super) checkout: Arc<Checkout>,
    /// From the root of its repository.
    path: LayerPath,
    listing: Arc<Listing>,
    attributes: Arc<Attributes>,
}

/// What a name in a directory stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// An entry of the tree.
    Entry(TreeEntry),
    /// The `.git` of a repository.
    Git(GitFile),
}

impl Checkout {
    /// The tree `tree` of `commit`.
    pub(super) fn new(
        repository: Repository,
        tree: ObjectId,
        commit: Option<ObjectId>,
        git_file: Option<GitFile>,
    ) -> Result<Arc<Self>, GitError> {
        let root = Listing::read(&repository, tree)?;
        let attributes = Arc::new(Attributes::outside(&repository)?);
        let symlinks = makes_symlinks(&repository);
        Ok(Arc::new(Self {
            repository,
            commit,
            root,
            attributes,
            symlinks,
            git_file,
            modules: Mutex::default(),
            missing: Mutex::default(),
        }))
    }

    /// The root directory.
    pub(super) fn top(self: &Arc<Self>) -> Result<Dir, GitError> {
        let listing = Arc::clone(&self.root);
        Dir::new(self, LayerPath::ROOT, listing, &self.attributes)
    }

    /// What stands for the content of its `.git`: that is another one with each commit.
    pub(super) fn commit(&self) -> Option<ObjectId> {
        self.commit
    }

    /// Takes the names of blobs that were missed, of this and of all submodules.
    pub(super) fn take_missing(&self) -> Vec<(Repository, Vec<ObjectId>)> {
        let mut missing = std::mem::take(&mut *lock(&self.missing));
        missing.sort_unstable();
        missing.dedup();
        let mut all = Vec::new();
        if !missing.is_empty() {
            all.push((self.repository.clone(), missing));
        }
        for module in lock(&self.modules).values().flatten() {
            all.extend(module.take_missing());
        }
        all
    }

    /// A blob that is needed to go on; none, and noted, if it is not at hand.
    pub(super) fn needed(&self, id: ObjectId) -> Result<Option<Vec<u8>>, GitError> {
        match self.repository.blob(id) {
            Ok(blob) => Ok(Some(blob)),
            Err(GitError::Missing { .. }) => {
                lock(&self.missing).push(id);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The submodule at `path`, which is at `commit`; none if it isn't at hand.
    fn module(
        &self,
        path: &LayerPath,
        commit: ObjectId,
    ) -> Result<Option<Arc<Checkout>>, GitError> {
        if let Some(found) = lock(&self.modules).get(path) {
            return Ok(found.clone());
        }
        let found = self.find_module(path, commit)?;
        lock(&self.modules).insert(path.clone(), found.clone());
        Ok(found)
    }

    fn find_module(
        &self,
        path: &LayerPath,
        id: ObjectId,
    ) -> Result<Option<Arc<Checkout>>, GitError> {
        let (repository, git_file) = match self.repository.work_dir() {
            Some(top) => {
                let place = top.join(path.as_path());
                // A symlink on the way would lead to a repository that is no part of this one.
                if !fs::canonicalize(&place).is_ok_and(|whole| whole == place) {
                    return Ok(None);
                }
                let Some(repository) = self.repository.module_at(&place)? else {
                    return Ok(None);
                };
                let file = fs::read(place.join(".git"));
                (repository, file.map_or(GitFile::Unknown, GitFile::File))
            }
            None => {
                let Some(name) = self.module_name(path)? else {
                    return Ok(None);
                };
                let place = self.repository.git_dir().join("modules").join(name);
                match self.repository.module_at(&place)? {
                    Some(repository) => (repository, GitFile::Unknown),
                    None => return Ok(None),
                }
            }
        };
        if !repository.has_commit(id) {
            return Ok(None);
        }
        let tree = repository.commit_of(id)?.tree;
        Self::new(repository, tree, Some(id), Some(git_file)).map(Some)
    }

    /// The name that `.gitmodules` of this tree gives the submodule at `path`; none for a
    /// name that would lead out of the directory of submodules.
    fn module_name(&self, path: &LayerPath) -> Result<Option<String>, GitError> {
        let Some(entry) = self.root.get(b".gitmodules") else {
            return Ok(None);
        };
        if !entry.kind.is_file() {
            return Ok(None);
        }
        let Some(bytes) = self.needed(entry.id)? else {
            return Ok(None);
        };
        let name = self.repository.with(|repository| {
            let config = repository.config_snapshot();
            let file = gix::submodule::File::from_bytes(&bytes, None, config.plumbing()).ok()?;
            let name = file.name_by_path(path.as_bytes().into())?;
            std::str::from_utf8(name).ok().map(str::to_owned)
        });
        Ok(name.filter(|name| {
            let path = LayerPath::new(name);
            path.is_ok_and(|path| !path.is_root() && !name.starts_with('/'))
        }))
    }
}

impl Dir {
    fn new(
        checkout: &Arc<Checkout>,
        path: LayerPath,
        listing: Arc<Listing>,
        above: &Arc<Attributes>,
    ) -> Result<Self, GitError> {
        let own = match listing.get(b".gitattributes") {
            Some(entry) if entry.kind.is_file() => checkout.needed(entry.id)?,
            _ => None,
        };
        let attributes = match own {
            Some(bytes) => above.within(&path, &bytes),
            None => Arc::clone(above),
        };
        Ok(Self {
            checkout: Arc::clone(checkout),
            path,
            listing,
            attributes,
        })
    }

    /// The names in it.
    pub(super) fn names(&self) -> Vec<Vec<u8>> {
        let names = self.listing.iter().map(|(name, _)| name.to_vec());
        let git = self.path.is_root().then(|| b".git".to_vec());
        names.chain(git).collect()
    }

    /// What `name` stands for.
    pub(super) fn look(&self, name: &OsStr) -> Option<Node> {
        if self.path.is_root() && name == ".git" {
            let file = self.checkout.git_file.clone();
            return Some(Node::Git(file.unwrap_or(GitFile::Unknown)));
        }
        self.listing.get(name.as_bytes()).map(Node::Entry)
    }

    /// The directory or submodule called `name`, which `entry` stands for; none if a submodule
    /// isn't at hand, and for other entries.
    pub(super) fn open(&self, name: &OsStr, entry: TreeEntry) -> Result<Option<Self>, GitError> {
        let path = self.path.join(name);
        match entry.kind {
            TreeEntryKind::Directory => {
                let listing = Listing::read(&self.checkout.repository, entry.id)?;
                Self::new(&self.checkout, path, listing, &self.attributes).map(Some)
            }
            TreeEntryKind::Submodule => match self.checkout.module(&path, entry.id)? {
                Some(module) => module.top().map(Some),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// What a checkout does to the file called `name`.
    pub(super) fn treatment(&self, name: &OsStr) -> Treatment {
        self.attributes.treatment(self.path.join(name).as_bytes())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a checkout of the repository makes symlinks, not files that hold their targets.
pub(super) fn makes_symlinks(repository: &Repository) -> bool {
    repository.with(|repository| {
        let config = repository.config_snapshot();
        config.boolean("core.symlinks").unwrap_or(true)
    })
}
