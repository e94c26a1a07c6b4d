//! A directory of a commit as a build context.
//!
//! [`scan()`] gives what [`context::scan`] gives for a directory on disk into
//! which the commit was checked out: the same paths, modes, symlinks and digests of contents,
//! so the same keys. The walk is the same code over another hierarchy.
//!
//! What a file holds after a checkout is computed from its blob where Git itself would
//! (line endings, `ident`, UTF-16) and remembered by the blob's name. Where another program
//! decides, or something is not at hand, the path is [`Unknown`]: its row then stands for
//! *some* content, another one for another blob, and never for one that a file on disk has.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStringExt,
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::{
    GitError, ObjectId, Tree,
    attributes::Treatment,
    checkout::{Dir, GitFile, Node},
    content::{self, Wanted},
    conversion::Conversion,
    fetch,
    listing::TreeEntryKind,
};
use crate::{
    context::{self, Hierarchy, Place, Row, ScannedContext, Sort, index_entry, mode_of},
    digest::{Blake3Digest, KeyEncoder},
    graph::LocalContext,
    oci::layer::{EntryKind, LayerPath},
};

/// What a row of a scan has for the content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentIdentity {
    /// Size and BLAKE3 of what a checkout would write: rows are those of the disk.
    Content,
    /// A digest of the blob's name and of how it is converted, and no size. No blob is read
    /// but those of symlinks and attributes. Rows can only be compared with rows of the same
    /// kind: keys made of them answer "did it change", never "is it in the cache".
    ObjectId,
}

/// How to scan.
#[derive(Debug, Clone, Copy)]
pub struct ScanOptions<'a> {
    /// What stands for contents.
    pub identity: ContentIdentity,
    /// Where what blobs hash to is remembered; nowhere if none.
    pub memo_dir: Option<&'a Path>,
}

/// A path whose content after a checkout can't be told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unknown {
    /// Relative to the context; for a directory all below it is meant.
    pub path: LayerPath,
    /// Why not.
    pub reason: UnknownReason,
}

/// Why the content of a path can't be told from a commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum UnknownReason {
    /// `.git` itself, which another commit changes in any case.
    #[error("it is Git's own directory, which differs between any two checkouts")]
    GitDirectory,
    /// A submodule whose repository or commit is not at hand.
    #[error("the submodule is not checked out")]
    Submodule,
    /// A filter other than Git LFS writes the file.
    #[error("the filter `{0}` of `.gitattributes` decides what is written")]
    Filter(String),
    /// An encoding that is not computed here, or content that it can't hold.
    #[error("the encoding `{0}` of `.gitattributes` is not supported")]
    Encoding(String),
    /// An object of Git LFS that is not in the repository's store, or damaged.
    #[error("the Git LFS object `{0}` is not at hand")]
    LfsObject(String),
}

/// What a scan of a tree found.
#[derive(Debug)]
pub struct ScannedTree {
    /// The rows, and how many blobs were read for them.
    pub context: ScannedContext,
    /// What could not be told, sorted.
    pub unknown: Vec<Unknown>,
}

/// What the second half of a scan needs of a file.
#[derive(Debug)]
pub(super) enum Detail {
    /// Nothing more.
    Done,
    /// The digest stands.
    Digest(Blake3Digest),
    /// The content of this.
    Wanted(Wanted),
    /// It can't be told; the digest stands for what it depends on.
    Unknown(UnknownReason, Blake3Digest),
}

/// Scans the directory `dir` of `tree` as the build context `context`, whose `dir` is not
/// looked at. `prefixes` are as those of [`context::scan`].
pub fn scan(
    tree: &Tree,
    dir: &LayerPath,
    context: &LocalContext,
    prefixes: &[LayerPath],
    options: ScanOptions<'_>,
) -> Result<ScannedTree, GitError> {
    let ignore = context::parse_ignore(context)?;
    let dir = tree.resolve(dir)?;
    let (found, mut unknown) = fetch::until_complete(tree, || {
        let Some(root) = tree.dir(&dir)? else {
            return Err(GitError::NotADirectory {
                path: dir.as_path().display().to_string(),
                tree: tree.id(),
            });
        };
        let hierarchy = Scan {
            root,
            identity: options.identity,
            unknown: Mutex::default(),
        };
        let found = context::walk(&hierarchy, &ignore, prefixes)?;
        let unknown = hierarchy.unknown.into_inner();
        Ok((found, unknown.unwrap_or_else(PoisonError::into_inner)))
    })?;
    let wanted = found.iter().filter_map(|file| match &file.row.detail {
        Detail::Wanted(wanted) => Some(wanted),
        _ => None,
    });
    let contents = content::of(wanted, options.memo_dir)?;
    let mut rows = Vec::with_capacity(found.len());
    for file in found {
        let mut kind = file.row.kind;
        let digest = match file.row.detail {
            Detail::Done => None,
            Detail::Digest(digest) => Some(digest),
            Detail::Unknown(reason, digest) => {
                unknown.push(Unknown {
                    path: file.path.clone(),
                    reason,
                });
                Some(digest)
            }
            Detail::Wanted(wanted) => match contents.get(&wanted) {
                Ok((size, digest)) => {
                    kind = EntryKind::Regular { size };
                    (size > 0).then_some(digest)
                }
                Err(reason) => {
                    let digest = identity(wanted.id, wanted.conversion.byte(), &reason.to_string());
                    unknown.push(Unknown {
                        path: file.path.clone(),
                        reason,
                    });
                    Some(digest)
                }
            },
        };
        rows.push(index_entry(file.path, kind, file.row.mode, digest));
    }
    unknown.sort();
    unknown.dedup();
    Ok(ScannedTree {
        context: ScannedContext::new(rows, contents.read, contents.read_bytes),
        unknown,
    })
}

/// The file called `name` in `dir`, of blob `id`, as a checkout writes it. `path` is for
/// messages.
pub(super) fn read_file(
    dir: &Dir,
    name: &OsStr,
    id: ObjectId,
    path: &LayerPath,
) -> Result<Vec<u8>, GitError> {
    let unknown = |reason| GitError::Unknown {
        path: path.as_path().display().to_string(),
        reason,
    };
    let repository = &dir.checkout.repository;
    match dir.treatment(name) {
        Treatment::Unknown(reason) => Err(unknown(reason)),
        Treatment::Converted(conversion) => {
            let blob = fetch::blob(repository, id)?;
            content::converted(repository, id, conversion, blob)?.map_err(unknown)
        }
    }
}

/// What stands for a content that isn't computed.
fn identity(id: ObjectId, conversion: u8, reason: &str) -> Blake3Digest {
    KeyEncoder::new("memobuild-ci 2026-11-21 git object identity v1")
        .field("object", id.as_bytes())
        .number("conversion", conversion.into())
        .field("unknown", reason)
        .finish()
}

/// A directory of a tree, as the walk over a context sees it.
struct Scan {
    root: Dir,
    identity: ContentIdentity,
    unknown: Mutex<Vec<Unknown>>,
}

impl Scan {
    fn is_unknown(&self, path: &LayerPath, reason: UnknownReason) {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        unknown.push(Unknown {
            path: path.clone(),
            reason,
        });
    }

    fn file(&self, dir: &Dir, name: &OsStr, id: ObjectId) -> Detail {
        match dir.treatment(name) {
            Treatment::Converted(conversion) => self.converted(dir, id, conversion),
            Treatment::Unknown(reason) => {
                let digest = identity(id, 0, &reason.to_string());
                match self.identity {
                    ContentIdentity::Content => Detail::Unknown(reason, digest),
                    ContentIdentity::ObjectId => Detail::Digest(digest),
                }
            }
        }
    }

    fn converted(&self, dir: &Dir, id: ObjectId, conversion: Conversion) -> Detail {
        match self.identity {
            ContentIdentity::ObjectId => Detail::Digest(identity(id, conversion.byte(), "")),
            ContentIdentity::Content => Detail::Wanted(Wanted {
                repository: dir.checkout.repository.clone(),
                id,
                conversion,
            }),
        }
    }
}

/// A directory that is open: none for one whose entries can't be told.
type Open = Option<Dir>;

impl Hierarchy for Scan {
    type Dir = Open;
    type Node = Node;
    type Detail = Detail;
    type Error = GitError;

    fn root(&self) -> Result<Open, GitError> {
        Ok(Some(self.root.clone()))
    }

    fn names(&self, dir: &Open, _: &LayerPath) -> Result<Vec<Vec<u8>>, GitError> {
        Ok(dir.as_ref().map(Dir::names).unwrap_or_default())
    }

    fn look(&self, place: &Place<'_, Open>) -> Result<Option<Node>, GitError> {
        Ok(place.dir.as_ref().and_then(|dir| dir.look(place.name)))
    }

    fn sort(&self, node: &Node) -> Sort {
        let Node::Entry(entry) = node else {
            return match node {
                Node::Git(GitFile::Unknown) => Sort::Directory,
                _ => Sort::File,
            };
        };
        match entry.kind {
            TreeEntryKind::Directory | TreeEntryKind::Submodule => Sort::Directory,
            TreeEntryKind::Symlink if self.root.checkout.symlinks => Sort::Symlink,
            _ => Sort::File,
        }
    }

    fn open(&self, place: &Place<'_, Open>, node: &Node) -> Result<Open, GitError> {
        let (Some(dir), Node::Entry(entry)) = (place.dir, node) else {
            self.is_unknown(&place.path, UnknownReason::GitDirectory);
            return Ok(None);
        };
        let open = dir.open(place.name, *entry)?;
        if open.is_none() {
            self.is_unknown(&place.path, UnknownReason::Submodule);
        }
        Ok(open)
    }

    fn row(&self, place: &Place<'_, Open>, node: &Node) -> Result<Option<Row<Detail>>, GitError> {
        let Some(dir) = place.dir else {
            return Ok(None);
        };
        let entry = match node {
            Node::Entry(entry) => entry,
            Node::Git(GitFile::File(bytes)) => return Ok(Some(git_file(bytes))),
            Node::Git(GitFile::Unknown) => {
                let commit = dir.checkout.commit();
                let digest = commit.map(|commit| identity(commit, 0, ".git"));
                return Ok(Some(directory(digest)));
            }
        };
        let file = EntryKind::Regular { size: 0 };
        let (kind, detail) = match entry.kind {
            TreeEntryKind::Directory => return Ok(Some(directory(None))),
            // What is in the submodule stands in rows of its own, if it is at hand.
            TreeEntryKind::Submodule => {
                let absent = dir.open(place.name, *entry)?.is_none();
                let digest = absent.then(|| identity(entry.id, 0, "submodule"));
                return Ok(Some(directory(digest)));
            }
            TreeEntryKind::Symlink if dir.checkout.symlinks => {
                let target = dir.checkout.needed(entry.id)?.unwrap_or_default();
                let target = OsString::from_vec(target).into();
                (EntryKind::Symlink { target }, Detail::Done)
            }
            TreeEntryKind::Symlink => (file, self.converted(dir, entry.id, Conversion::NONE)),
            TreeEntryKind::File | TreeEntryKind::Executable => {
                (file, self.file(dir, place.name, entry.id))
            }
        };
        Ok(Some(Row {
            mode: mode_of(&kind, entry.kind == TreeEntryKind::Executable),
            kind,
            detail,
        }))
    }
}

fn directory(digest: Option<Blake3Digest>) -> Row<Detail> {
    Row {
        kind: EntryKind::Directory,
        mode: 0o755,
        detail: digest.map_or(Detail::Done, Detail::Digest),
    }
}

/// The `.git` of a submodule beside a work tree.
fn git_file(bytes: &[u8]) -> Row<Detail> {
    let size = bytes.len() as u64;
    let kind = EntryKind::Regular { size };
    Row {
        mode: mode_of(&kind, false),
        kind,
        detail: Detail::Digest(Blake3Digest::of(bytes)),
    }
}
