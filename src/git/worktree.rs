//! The work tree: what in it differs from a commit, and a scan of it that reads only what
//! must be read.
//!
//! A file is clean if its metadata are those in Git's index and it was not written in the
//! instant in which the index was: Git's own rule, with all of the times. What a clean file
//! holds is known by the name of its blob. No program is asked: neither a filter nor an
//! `fsmonitor`, and marks such as `assume-unchanged` are not believed.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{Mutex, PoisonError},
};

use gix::{
    bstr::BStr,
    index::entry::{Flags, Mode, Stage},
};
use rayon::prelude::*;
use rustix::{fs::FileType, io::Errno};

use super::{
    Commit, GitError, ObjectId, Repository, Tree, TreeEntry, TreeEntryKind,
    attributes::Treatment,
    checkout::{Dir, Node},
    content,
    conversion::Conversion,
    memo::{Content, Memo},
};
use crate::{
    context::{self, FileStamp, ScannedContext, stamp},
    digest::Blake3Digest,
    fs::{self, IoContext as _},
    graph::LocalContext,
    oci::layer::LayerPath,
};

/// How a path of the work tree differs from a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorktreeChange {
    /// The commit doesn't have it, and no ignore file of Git names it. For a directory all
    /// that is in it is meant.
    Added,
    /// The commit doesn't have it, and `.gitignore` or its like names it.
    Ignored,
    /// It is another file: by content, executable bit or type.
    Modified,
    /// It is not there.
    Deleted,
}

/// All paths of a part of a work tree that differ from a commit, with how.
pub type WorktreeState = BTreeMap<LayerPath, WorktreeChange>;

impl Repository {
    /// Whether files of the commit are left out of the work tree on purpose.
    pub fn is_sparse(&self) -> Result<bool, GitError> {
        let Some(index) = self.index()? else {
            return Ok(false);
        };
        let left_out = |flags: Flags| flags.contains(Flags::SKIP_WORKTREE);
        Ok(index.is_sparse() || index.entries().iter().any(|entry| left_out(entry.flags)))
    }

    /// What below directory `dir` of the work tree differs from `commit`, whether staged or
    /// not. What a sparse checkout leaves out doesn't; nor is looked at what is in submodules,
    /// only which commit they are at.
    pub fn worktree_state(
        &self,
        commit: &Commit,
        dir: &LayerPath,
    ) -> Result<WorktreeState, GitError> {
        let (Some(top), Some(index)) = (self.work_dir(), self.index()?) else {
            return Ok(WorktreeState::new());
        };
        let tree = commit.files(self)?;
        let status = Status {
            top,
            index: &index,
            tree: &tree,
        };
        let mut state = status.tracked(dir)?;
        status.untracked(dir, &mut state)?;
        Ok(state)
    }

    /// Git's index; none if there is none.
    fn index(&self) -> Result<Option<gix::index::File>, GitError> {
        self.with(|repository| {
            if !fs::exists(repository.index_path()) {
                return Ok(None);
            }
            let index = repository.open_index();
            index.map(Some).map_err(|source| GitError::Index {
                path: repository.index_path(),
                source: Box::new(source),
            })
        })
    }
}

/// Scans the build context `context`, a directory in the work tree of `repository`, as
/// [`context::scan`] does, with the same result. Clean files are not read: their digests come from
/// the memo in `memo_dir` of what blobs hash to, or from their blobs.
pub fn scan_worktree(
    repository: &Repository,
    context: &LocalContext,
    prefixes: &[LayerPath],
    memo_dir: Option<&Path>,
) -> Result<ScannedContext, GitError> {
    let known = match repository.relative(&context.dir) {
        Some(dir) if !repository.is_bare() => Clean::new(repository, dir, memo_dir)?,
        _ => None,
    };
    let Some(known) = known else {
        return Ok(context::scan(context, prefixes, memo_dir)?);
    };
    let scanned = context::scan_knowing(context, prefixes, memo_dir, &|path, stamp| {
        known.digest(path, stamp)
    })?;
    let learnt = known.learnt.into_inner();
    // A memo only saves time.
    let _ = known
        .memo
        .append(&learnt.unwrap_or_else(PoisonError::into_inner));
    Ok(scanned)
}

/// What is known of clean files.
struct Clean<'r> {
    repository: &'r Repository,
    /// The context's place in the work tree.
    dir: LayerPath,
    index: gix::index::File,
    tree: Tree,
    /// The directories of the tree, for their attributes.
    dirs: Mutex<BTreeMap<LayerPath, Option<Dir>>>,
    memo: Memo,
    learnt: Mutex<Vec<(ObjectId, Conversion, Content)>>,
}

impl<'r> Clean<'r> {
    /// None where the index can't tell what files hold: there is no commit, attributes differ
    /// from the commit's, or filters other than Git LFS may have written files.
    fn new(
        repository: &'r Repository,
        dir: LayerPath,
        memo_dir: Option<&Path>,
    ) -> Result<Option<Self>, GitError> {
        let (Some(top), Some(index)) = (repository.work_dir(), repository.index()?) else {
            return Ok(None);
        };
        let head = match repository.commit("HEAD") {
            Ok(head) => head,
            Err(GitError::Unborn { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let tree = head.files(repository)?;
        let status = Status {
            top,
            index: &index,
            tree: &tree,
        };
        if repository.has_filters() || !status.attributes_are_clean()? {
            return Ok(None);
        }
        Ok(Some(Self {
            repository,
            dir,
            index,
            tree,
            dirs: Mutex::default(),
            memo: Memo::load(memo_dir),
            learnt: Mutex::default(),
        }))
    }

    /// The digest of the file at `path` of the context, if it is clean and a checkout writes
    /// its blob as it is.
    fn digest(&self, path: &LayerPath, stamp: &FileStamp) -> Option<Blake3Digest> {
        let path = path.components().fold(self.dir.clone(), |at, n| at.join(n));
        let key: &BStr = path.as_bytes().into();
        let entry = self
            .index
            .entry_by_path_and_stage(key, Stage::Unconflicted)?;
        let id = ObjectId(entry.id);
        if !is_clean(&self.index, entry, stamp) || !self.is_as_it_is(&path)? {
            return None;
        }
        let known = self.memo.get(id, Conversion::NONE);
        let (size, digest) = known.or_else(|| {
            // A blob that isn't at hand, or damaged, is on disk all the same.
            let blob = self.repository.blob(id).ok()?;
            let content = (blob.len() as u64, Blake3Digest::of(&blob));
            let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
            learnt.push((id, Conversion::NONE, content));
            Some(content)
        })?;
        (size == stamp.size).then_some(digest)
    }

    fn is_as_it_is(&self, path: &LayerPath) -> Option<bool> {
        let (above, name) = (path.parent()?, path.file_name()?);
        let mut dirs = self.dirs.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = match dirs.get(&above) {
            Some(dir) => dir.clone(),
            None => {
                let dir = self.tree.dir(&above).ok().flatten();
                dirs.insert(above, dir.clone());
                dir
            }
        };
        drop(dirs);
        Some(dir?.treatment(name) == Treatment::Converted(Conversion::NONE))
    }
}

impl Repository {
    /// Whether the configuration has filters besides Git LFS.
    fn has_filters(&self) -> bool {
        self.with(|repository| {
            let config = repository.config_snapshot();
            let sections = config.plumbing().sections_by_name("filter");
            sections.into_iter().flatten().any(|section| {
                let name = section.header().subsection_name();
                name.is_none_or(|name| name != "lfs")
            })
        })
    }
}

/// Whether a file with this metadata is what the index has.
fn is_clean(index: &gix::index::File, entry: &gix::index::Entry, stamp: &FileStamp) -> bool {
    let nanos = |secs: u32, nsecs: u32| i64::from(secs) * 1_000_000_000 + i64::from(nsecs);
    let written = index.timestamp();
    let written = written
        .unix_seconds()
        .saturating_mul(1_000_000_000)
        .saturating_add(written.nanoseconds().into());
    // The index keeps 32 bits of some.
    let low = |n: u64| u32::try_from(n & u64::from(u32::MAX)).unwrap_or(0);
    let stat = &entry.stat;
    stat.size == low(stamp.size)
        && stat.ino == low(stamp.inode)
        && nanos(stat.mtime.secs, stat.mtime.nsecs) == stamp.mtime_ns
        && nanos(stat.ctime.secs, stat.ctime.nsecs) == stamp.ctime_ns
        && stamp.mtime_ns < written
}

/// A work tree beside its index and a tree.
struct Status<'a> {
    top: &'a Path,
    index: &'a gix::index::File,
    tree: &'a Tree,
}

/// An entry of the index, without stages that a conflict left.
type Indexed<'i> = Option<&'i gix::index::Entry>;

/// What a tree and the index have at the same paths.
type Joined<'i> = BTreeMap<LayerPath, (Option<TreeEntry>, Indexed<'i>)>;

impl<'a> Status<'a> {
    /// Whether every file of attributes in the work tree is that of the tree.
    fn attributes_are_clean(&self) -> Result<bool, GitError> {
        let is_attributes = |name: &OsStr| name == ".gitattributes";
        for (path, (entry, indexed)) in self.joined(&LayerPath::ROOT, &is_attributes)? {
            if self.change(&path, entry, indexed)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All that the tree or the index has below `dir` under names that are `wanted`.
    fn joined(
        &self,
        dir: &LayerPath,
        wanted: &dyn Fn(&OsStr) -> bool,
    ) -> Result<Joined<'a>, GitError> {
        let mut all = BTreeMap::new();
        if let Some(open) = self.tree.dir(dir)? {
            flatten(&open, dir, wanted, &mut all)?;
        }
        for entry in self.index.entries() {
            let path = Path::new(OsStr::from_bytes(entry.path(self.index)));
            if entry.mode.is_sparse() || !path.file_name().is_some_and(wanted) {
                continue;
            }
            let Ok(path) = LayerPath::new(path) else {
                continue;
            };
            if path.starts_with(dir) {
                let found = all.entry(path).or_insert((None, None));
                found.1 = Some(entry).filter(|entry| entry.stage() == Stage::Unconflicted);
            }
        }
        Ok(all)
    }

    fn tracked(&self, dir: &LayerPath) -> Result<WorktreeState, GitError> {
        let all: Vec<_> = self.joined(dir, &|_| true)?.into_iter().collect();
        let changes: Vec<_> = all
            .into_par_iter()
            .map(|(path, (entry, indexed))| {
                let change = self.change(&path, entry, indexed)?;
                Ok(change.map(|change| (path, change)))
            })
            .collect::<Result<_, GitError>>()?;
        Ok(changes.into_iter().flatten().collect())
    }

    /// How the file at `path` differs from `entry` of the tree.
    fn change(
        &self,
        path: &LayerPath,
        entry: Option<TreeEntry>,
        indexed: Indexed<'_>,
    ) -> Result<Option<WorktreeChange>, GitError> {
        let place = self.top.join(path.as_path());
        let stat = match rustix::fs::lstat(&place) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                let left_out = |e: &gix::index::Entry| e.flags.contains(Flags::SKIP_WORKTREE);
                let gone = entry.is_some() && !indexed.is_some_and(left_out);
                return Ok(gone.then_some(WorktreeChange::Deleted));
            }
            result => result.at("look at", &place)?,
        };
        let Some(entry) = entry else {
            return Ok(Some(WorktreeChange::Added));
        };
        let is_executable = stat.st_mode & 0o100 != 0;
        let same = match (FileType::from_raw_mode(stat.st_mode), entry.kind) {
            (FileType::Directory, TreeEntryKind::Submodule) => {
                let module = self.tree.repository().module_at(&place)?;
                match module.map(|module| module.commit("HEAD")) {
                    Some(Ok(commit)) => commit.id == entry.id,
                    // One that is not checked out has no other content.
                    None => true,
                    Some(Err(_)) => false,
                }
            }
            (FileType::Symlink, TreeEntryKind::Symlink) => {
                let target = rustix::fs::readlink(&place, Vec::new()).at("read link", &place)?;
                is_blob(entry.id, target.as_bytes())
            }
            (FileType::RegularFile, TreeEntryKind::File | TreeEntryKind::Executable)
                if is_executable == (entry.kind == TreeEntryKind::Executable) =>
            {
                let is_clean = indexed.is_some_and(|indexed| {
                    indexed.id == entry.id.0 && is_clean(self.index, indexed, &stamp(&stat))
                });
                is_clean || self.holds(path, &fs::read(&place)?, entry.id)?
            }
            _ => false,
        };
        Ok((!same).then_some(WorktreeChange::Modified))
    }

    /// Whether a checkout of blob `id` at `path` gives `bytes`. False where that can't be told.
    fn holds(&self, path: &LayerPath, bytes: &[u8], id: ObjectId) -> Result<bool, GitError> {
        let above = path.parent().unwrap_or_default();
        let treatment = match self.tree.dir(&above)? {
            Some(dir) => dir.treatment(path.file_name().unwrap_or_default()),
            None => return Ok(false),
        };
        Ok(match treatment {
            Treatment::Converted(Conversion::NONE) => is_blob(id, bytes),
            Treatment::Converted(conversion) => {
                let repository = self.tree.repository();
                let blob = super::fetch::blob(repository, id)?;
                let content = content::converted(repository, id, conversion, blob)?;
                content.is_ok_and(|content| content == bytes)
            }
            Treatment::Unknown(_) => false,
        })
    }

    /// Adds what neither the tree nor the index has.
    fn untracked(&self, dir: &LayerPath, state: &mut WorktreeState) -> Result<(), GitError> {
        use gix::worktree::stack::state::ignore::Source;
        let repository = self.tree.repository();
        let error = |source| GitError::Index {
            path: repository.git_dir().to_owned(),
            source: Box::new(source),
        };
        repository.with(|handle| {
            let source = Source::WorktreeThenIdMappingIfNotSkipped;
            let mut ignores = handle.excludes(self.index, None, source).map_err(error)?;
            let mut open = vec![dir.clone()];
            while let Some(dir) = open.pop() {
                let place = self.top.join(dir.as_path());
                if !dir.is_root() && (fs::is_symlink(&place) || !place.is_dir()) {
                    continue;
                }
                for name in fs::names(&place)? {
                    let path = dir.join(&name);
                    if name == ".git" || self.is_tracked(&path) || state.contains_key(&path) {
                        continue;
                    }
                    let place = place.join(&name);
                    let is_dir = place.is_dir() && !fs::is_symlink(&place);
                    let prefix = [path.as_bytes(), b"/"].concat();
                    let holds_tracked = self.index.prefixed_entries_range(prefix.as_slice().into());
                    if is_dir && holds_tracked.is_some() {
                        open.push(path);
                        continue;
                    }
                    let mode = if is_dir { Mode::DIR } else { Mode::FILE };
                    let found = ignores.at_path(path.as_path(), Some(mode)).map_err(error)?;
                    let change = match found.is_excluded() {
                        true => WorktreeChange::Ignored,
                        false => WorktreeChange::Added,
                    };
                    state.insert(path, change);
                }
            }
            Ok(())
        })
    }

    fn is_tracked(&self, path: &LayerPath) -> bool {
        let path: &BStr = path.as_bytes().into();
        self.index.entry_by_path(path).is_some()
    }
}

/// Adds all files below the open directory `dir`, which is at `path`, whose names are
/// `wanted`. What is in submodules is theirs.
fn flatten(
    dir: &Dir,
    path: &LayerPath,
    wanted: &dyn Fn(&OsStr) -> bool,
    all: &mut Joined<'_>,
) -> Result<(), GitError> {
    for name in dir.names() {
        let name = OsStr::from_bytes(&name);
        let Some(Node::Entry(entry)) = dir.look(name) else {
            continue;
        };
        let path = path.join(name);
        match entry.kind {
            TreeEntryKind::Directory => {
                if let Some(below) = dir.open(name, entry)? {
                    flatten(&below, &path, wanted, all)?;
                }
            }
            _ if wanted(name) => {
                all.insert(path, (Some(entry), None));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the blob `id` holds `bytes`.
fn is_blob(id: ObjectId, bytes: &[u8]) -> bool {
    let found = gix::objs::compute_hash(id.0.kind(), gix::objs::Kind::Blob, bytes);
    found.is_ok_and(|found| found == id.0)
}
