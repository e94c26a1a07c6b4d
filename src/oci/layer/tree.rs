//! The merged view of a chain of layers.
//!
//! [`Tree`] answers what a container would see, from indexes alone. From the top
//! layer down, the first that says something about a path decides: an entry shows,
//! a whiteout hides. A layer's whiteouts, opaque directories and non-directories hide
//! what lower layers have below them. A directory that a layer only implies (it has
//! something in it) keeps the attributes that a lower layer gave it, and replaces
//! what is no directory, as the layer's unpacked form does on overlayfs. Within one
//! layer nothing lies below a non-directory.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    sync::Arc,
};

use super::{EntryKind, IndexEntry, LayerIndex, LayerPath, TreeError, index::Row};

/// Most symbolic links followed for one path.
const MAX_LINKS: usize = 255;

/// The merged view of a chain of layers, lowest first.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    layers: Vec<Arc<LayerIndex>>,
}

/// Where something stands.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// Position of its layer in the chain, the lowest being 0.
    pub layer: usize,
    /// Its entry there: never a whiteout or an opaque mark. For a directory that no
    /// layer names a row with mode 0755 and owner and time zero.
    pub row: &'a IndexEntry,
}

/// What one layer adds to the search for a path.
struct Look<'a> {
    /// What it has there: an entry, or an implied directory.
    row: Option<&'a IndexEntry>,
    implied: bool,
    /// Lower layers have no say on the path itself.
    hides: bool,
    /// Lower layers have no say on what is in the directory.
    clears: bool,
}

impl<'a> Row<'a> {
    /// Takes the row by itself: as if no directory above it hid anything.
    fn look(&self) -> Look<'a> {
        let whiteout = self
            .entry
            .is_some_and(|row| row.entry.kind == EntryKind::Whiteout);
        match self.entry.filter(|_| !whiteout) {
            Some(row) => {
                let directory = row.entry.kind == EntryKind::Directory;
                Look {
                    row: Some(row),
                    implied: false,
                    hides: !directory,
                    clears: !directory || self.opaque,
                }
            }
            None => Look {
                row: self.implied,
                implied: true,
                hides: whiteout,
                clears: whiteout || self.opaque,
            },
        }
    }
}

impl<'a> Look<'a> {
    fn nothing(hides: bool) -> Self {
        Self {
            row: None,
            implied: false,
            hides,
            clears: hides,
        }
    }

    fn is_directory(&self) -> bool {
        self.row
            .is_some_and(|row| row.entry.kind == EntryKind::Directory)
    }
}

/// A search for one path going on through the layers, top to bottom.
#[derive(Default)]
struct Search<'a> {
    found: Option<Found<'a>>,
    /// Whether `found` is a directory that was only implied so far.
    implied: bool,
    ended: bool,
    /// Layers with a directory there, top first, that lower ones don't hide.
    directories: Vec<usize>,
    cleared: bool,
}

impl<'a> Search<'a> {
    /// Takes what the next lower layer says.
    fn add(&mut self, layer: usize, look: &Look<'a>) {
        if let Some(row) = look.row {
            let found = Found { layer, row };
            if self.found.is_none() {
                self.found = Some(found);
                self.implied = look.implied;
            } else if self.implied && !look.implied && look.is_directory() {
                self.found = Some(found);
                self.implied = false;
            }
            if look.is_directory() && !self.cleared {
                self.directories.push(layer);
            }
        }
        self.cleared |= look.clears || look.hides;
        self.ended |= look.hides;
    }

    /// Whether lower layers can't change what is known about the path itself.
    fn is_settled(&self) -> bool {
        self.ended || self.found.is_some() && !self.implied
    }
}

impl Tree {
    /// The view of these layers, lowest first.
    pub fn new(layers: Vec<Arc<LayerIndex>>) -> Self {
        Self { layers }
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[Arc<LayerIndex>] {
        &self.layers
    }

    /// What stands at `path`; symbolic links on the way are not followed.
    pub fn get(&self, path: &LayerPath) -> Option<Found<'_>> {
        self.get_below(path, self.layers.len())
    }

    /// The row that has the content of `found`: of a hard link the file it names, in
    /// its own layer or in one below; of all else the row itself. None if the link
    /// leads nowhere.
    pub fn source<'a>(&'a self, found: Found<'a>) -> Option<Found<'a>> {
        let mut at = found;
        for _ in 0..MAX_LINKS {
            let EntryKind::Hardlink { target } = &at.row.entry.kind else {
                return Some(at);
            };
            let same_layer = self.layers[at.layer]
                .get(target)
                .filter(|row| row.entry.kind != EntryKind::Whiteout)
                .map(|row| Found {
                    layer: at.layer,
                    row,
                });
            at = same_layer.or_else(|| self.get_below(target, at.layer))?;
        }
        None
    }

    /// The names in the directory `path`, sorted; empty if it is no directory.
    pub fn children(&self, path: &LayerPath) -> Vec<OsString> {
        let (_, directories) = self.search(path);
        self.list(path, &directories)
            .into_iter()
            .filter_map(|(path, _)| path.file_name().map(OsStr::to_owned))
            .collect()
    }

    /// `path` and all below it, in canonical order; nothing if `path` does not exist.
    pub fn walk(&self, path: &LayerPath) -> Walk<'_> {
        let (found, directories) = self.search(path);
        Walk {
            tree: self,
            stack: found
                .map(|found| (path.clone(), found, directories))
                .into_iter()
                .collect(),
        }
    }

    /// `path` with symbolic links followed as in a chroot: absolute targets and `..`
    /// stay inside the root. With `follow_last` also the last component is followed.
    /// What does not exist is kept as it stands.
    pub fn resolve(&self, path: &LayerPath, follow_last: bool) -> Result<LayerPath, TreeError> {
        let mut todo: VecDeque<OsString> = path.components().map(OsStr::to_owned).collect();
        let mut at = LayerPath::ROOT;
        let mut links = 0;
        while let Some(component) = todo.pop_front() {
            if component == ".." {
                at = at.parent().unwrap_or(LayerPath::ROOT);
                continue;
            }
            let next = at.join(&component);
            let source = self.get(&next).and_then(|found| self.source(found));
            match source.map(|found| &found.row.entry.kind) {
                Some(EntryKind::Symlink { target }) if follow_last || !todo.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(TreeError::Loop { path: path.clone() });
                    }
                    let target = target.as_os_str().as_bytes();
                    if target.starts_with(b"/") {
                        at = LayerPath::ROOT;
                    }
                    let components = target
                        .split(|b| *b == b'/')
                        .filter(|c| !matches!(*c, b"" | b"."))
                        .map(|c| OsStr::from_bytes(c).to_owned());
                    for component in components.rev() {
                        todo.push_front(component);
                    }
                }
                Some(kind) if *kind != EntryKind::Directory && !todo.is_empty() => {
                    return Err(TreeError::NotADirectory {
                        path: path.clone(),
                        component: next,
                    });
                }
                _ => at = next,
            }
        }
        Ok(at)
    }

    /// The content of a file that travels in the indexes, as `etc/passwd`; symbolic
    /// links are followed.
    pub fn inline_file(&self, path: &LayerPath) -> Option<&[u8]> {
        let path = self.resolve(path, true).ok()?;
        let found = self.source(self.get(&path)?)?;
        match found.row.entry.kind {
            EntryKind::Regular { size: 0 } => Some(&[]),
            _ => found.row.inline.as_deref(),
        }
    }

    /// What the lowest `layers` layers have at `path`.
    fn get_below(&self, path: &LayerPath, layers: usize) -> Option<Found<'_>> {
        let mut search = Search::default();
        for (layer, index) in self.layers[..layers].iter().enumerate().rev() {
            search.add(layer, &look(index, path));
            if search.is_settled() {
                break;
            }
        }
        search.found
    }

    /// What stands at `path`, and the layers that have a part in it as a directory.
    fn search(&self, path: &LayerPath) -> (Option<Found<'_>>, Vec<usize>) {
        let mut search = Search::default();
        for (layer, index) in self.layers.iter().enumerate().rev() {
            search.add(layer, &look(index, path));
            if search.ended || search.cleared && search.is_settled() {
                break;
            }
        }
        (search.found, search.directories)
    }

    /// What is in `dir`, given the layers that have a part in it, top first.
    fn list(&self, dir: &LayerPath, directories: &[usize]) -> Vec<(LayerPath, Search<'_>)> {
        let mut children = BTreeMap::<&LayerPath, Search<'_>>::new();
        for &layer in directories {
            for (path, row) in self.layers[layer].rows_in(dir) {
                let search = children.entry(path).or_default();
                if !search.ended {
                    search.add(layer, &row.look());
                }
            }
        }
        children
            .into_iter()
            .filter(|(_, search)| search.found.is_some())
            .map(|(path, search)| (path.clone(), search))
            .collect()
    }
}

/// What `index` says about `path`, also through the directories above it.
fn look<'a>(index: &'a LayerIndex, path: &LayerPath) -> Look<'a> {
    let mut hidden = false;
    let mut at = LayerPath::ROOT;
    let mut components = path.components();
    loop {
        // A layer with something in a directory has a row for the directory.
        let Some(row) = index.row(&at) else {
            return Look::nothing(hidden);
        };
        let mut look = row.look();
        let Some(component) = components.next() else {
            look.hides |= hidden;
            look.clears |= hidden;
            return look;
        };
        hidden |= look.clears || look.hides;
        if !look.is_directory() {
            return Look::nothing(hidden);
        }
        at = at.join(component);
    }
}

/// The paths of a [`Tree`] from one on, in canonical order.
pub struct Walk<'a> {
    tree: &'a Tree,
    /// What comes next is last.
    stack: Vec<(LayerPath, Found<'a>, Vec<usize>)>,
}

impl<'a> Iterator for Walk<'a> {
    type Item = (LayerPath, Found<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (path, found, directories) = self.stack.pop()?;
        if found.row.entry.kind == EntryKind::Directory {
            let children = self.tree.list(&path, &directories);
            let children = children.into_iter().rev().filter_map(|(path, search)| {
                search.found.map(|found| (path, found, search.directories))
            });
            self.stack.extend(children);
        }
        Some((path, found))
    }
}
