//! The walk over a context: which files of a hierarchy it holds.
//!
//! What is walked is a [`Hierarchy`]: a directory on disk, or the tree of a commit. The
//! ignore file and the prefixes mean the same in all.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use rayon::prelude::*;

use crate::{
    dockerfile::ignore::{Ignore, Verdict},
    oci::layer::{EntryKind, LayerPath},
};

/// Names of a directory that one task looks at.
const CHUNK: usize = 16;

/// Something that has directories with files in them.
pub(crate) trait Hierarchy: Sync {
    /// An open directory.
    type Dir: Sync;
    /// What a look at a name gives.
    type Node;
    /// What is known of a file besides what a layer would say.
    type Detail: Send;
    /// Why it can't be walked.
    type Error: Send;

    /// Opens the root.
    fn root(&self) -> Result<Self::Dir, Self::Error>;

    /// The names in a directory that stands at `path`, in any order.
    fn names(&self, dir: &Self::Dir, path: &LayerPath) -> Result<Vec<Vec<u8>>, Self::Error>;

    /// What stands at a place, symlinks not followed; none if nothing does.
    fn look(&self, place: &Place<'_, Self::Dir>) -> Result<Option<Self::Node>, Self::Error>;

    /// Which sort of file a node is, as far as the walk must know.
    fn sort(&self, node: &Self::Node) -> Sort;

    /// Opens the directory at a place.
    fn open(
        &self,
        place: &Place<'_, Self::Dir>,
        node: &Self::Node,
    ) -> Result<Self::Dir, Self::Error>;

    /// The row for what stands at a place; none for what no context holds.
    fn row(
        &self,
        place: &Place<'_, Self::Dir>,
        node: &Self::Node,
    ) -> Result<Option<Row<Self::Detail>>, Self::Error>;
}

/// Sorts of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// A directory.
    Directory,
    /// A symlink.
    Symlink,
    /// Anything else.
    File,
}

/// A name in an open directory, and the path that it has in the context.
pub(crate) struct Place<'d, D> {
    /// The directory.
    pub(crate) dir: &'d D,
    /// The name.
    pub(crate) name: &'d OsStr,
    /// The path.
    pub(crate) path: LayerPath,
}

/// What a hierarchy says of a file.
#[derive(Debug, Clone)]
pub(crate) struct Row<T> {
    /// What it is.
    pub(crate) kind: EntryKind,
    /// Its permission bits.
    pub(crate) mode: u32,
    /// What else is known.
    pub(crate) detail: T,
}

/// One file found by the walk.
#[derive(Debug, Clone)]
pub(crate) struct Found<T> {
    /// Relative to the context.
    pub(crate) path: LayerPath,
    /// The file.
    pub(crate) row: Row<T>,
}

/// Everything below `prefixes` that `ignore` leaves, with the directories above it, in
/// canonical order below each prefix.
pub(crate) fn walk<H: Hierarchy>(
    hierarchy: &H,
    ignore: &Ignore,
    prefixes: &[LayerPath],
) -> Result<Vec<Found<H::Detail>>, H::Error> {
    let walk = Walk { hierarchy, ignore };
    let mut found = Vec::new();
    for prefix in walk.roots(prefixes)? {
        found.extend(walk.from(&prefix)?);
    }
    Ok(found)
}

struct Walk<'a, H> {
    hierarchy: &'a H,
    ignore: &'a Ignore,
}

type Rows<H> = Vec<Found<<H as Hierarchy>::Detail>>;

impl<H: Hierarchy> Walk<'_, H> {
    /// The places to walk from: the prefixes that exist, none below another; the whole
    /// context where a prefix leads through a symlink.
    fn roots(&self, prefixes: &[LayerPath]) -> Result<Vec<LayerPath>, H::Error> {
        let mut prefixes = prefixes.to_vec();
        prefixes.sort();
        let mut roots: Vec<LayerPath> = Vec::new();
        for prefix in prefixes {
            if roots.last().is_some_and(|root| prefix.starts_with(root)) {
                continue;
            }
            if self.leads_through_symlink(&prefix)? {
                return Ok(vec![LayerPath::ROOT]);
            }
            roots.push(prefix);
        }
        Ok(roots)
    }

    fn leads_through_symlink(&self, prefix: &LayerPath) -> Result<bool, H::Error> {
        let mut dir = self.hierarchy.root()?;
        let mut path = LayerPath::ROOT;
        for name in prefix.components() {
            path = path.join(name);
            let place = Place {
                dir: &dir,
                name,
                path: path.clone(),
            };
            let Some(node) = self.hierarchy.look(&place)? else {
                return Ok(false);
            };
            match self.hierarchy.sort(&node) {
                Sort::Symlink => return Ok(true),
                Sort::File => return Ok(false),
                Sort::Directory if path == *prefix => return Ok(false),
                Sort::Directory => dir = self.hierarchy.open(&place, &node)?,
            }
        }
        Ok(false)
    }

    /// Everything at and below `path`, and the directories above it.
    fn from(&self, path: &LayerPath) -> Result<Rows<H>, H::Error> {
        let mut found = Vec::new();
        let mut verdict = self.ignore.root();
        let mut dir = self.hierarchy.root()?;
        let mut at = LayerPath::ROOT;
        let count = path.components().count();
        for (n, name) in path.components().enumerate() {
            at = at.join(name);
            verdict = self.ignore.child(&verdict, at.as_path());
            let place = Place {
                dir: &dir,
                name,
                path: at.clone(),
            };
            let Some(node) = self.hierarchy.look(&place)? else {
                return Ok(Vec::new());
            };
            if n + 1 == count {
                self.at(place, &node, &verdict, &mut found)?;
            } else {
                if self.hierarchy.sort(&node) != Sort::Directory {
                    return Ok(Vec::new());
                }
                let below = self.hierarchy.open(&place, &node)?;
                self.enter(place, &node, &mut found)?;
                dir = below;
            }
        }
        if count == 0 {
            self.contents(&dir, path, &verdict, &mut found)?;
        }
        // Directories on the way count only for what is in the place itself.
        if found.last().is_none_or(|last| !last.path.starts_with(path)) {
            found.clear();
        }
        Ok(found)
    }

    /// What stands at `place`, and all below it, in canonical order.
    fn at(
        &self,
        place: Place<'_, H::Dir>,
        node: &H::Node,
        verdict: &Verdict,
        found: &mut Rows<H>,
    ) -> Result<(), H::Error> {
        if self.hierarchy.sort(node) != Sort::Directory {
            return match verdict.ignored {
                true => Ok(()),
                false => self.enter(place, node, found),
            };
        }
        // A directory that the ignore file leaves out is kept only as the parent of what a
        // `!` pattern takes in again.
        if self.ignore.may_skip(verdict, place.path.as_path()) {
            return Ok(());
        }
        let dir = self.hierarchy.open(&place, node)?;
        let path = place.path.clone();
        let start = found.len();
        self.enter(place, node, found)?;
        self.contents(&dir, &path, verdict, found)?;
        if verdict.ignored && found.len() == start + 1 {
            found.truncate(start);
        }
        Ok(())
    }

    /// All that is in the open directory `dir`, its names in order, several at a time.
    fn contents(
        &self,
        dir: &H::Dir,
        path: &LayerPath,
        verdict: &Verdict,
        found: &mut Rows<H>,
    ) -> Result<(), H::Error> {
        let mut names = self.hierarchy.names(dir, path)?;
        names.sort_unstable();
        let parts: Vec<Rows<H>> = names
            .par_chunks(CHUNK)
            .map(|names| {
                let mut found = Vec::with_capacity(names.len());
                for name in names {
                    let name = OsStr::from_bytes(name);
                    let place = Place {
                        dir,
                        name,
                        path: path.join(name),
                    };
                    let verdict = self.ignore.child(verdict, place.path.as_path());
                    // A file that vanishes while we look was not there.
                    if let Some(node) = self.hierarchy.look(&place)? {
                        self.at(place, &node, &verdict, &mut found)?;
                    }
                }
                Ok(found)
            })
            .collect::<Result<_, H::Error>>()?;
        found.extend(parts.into_iter().flatten());
        Ok(())
    }

    /// Enters one file or directory, without what is in it.
    fn enter(
        &self,
        place: Place<'_, H::Dir>,
        node: &H::Node,
        found: &mut Rows<H>,
    ) -> Result<(), H::Error> {
        if let Some(row) = self.hierarchy.row(&place, node)? {
            found.push(Found {
                path: place.path,
                row,
            });
        }
        Ok(())
    }
}
