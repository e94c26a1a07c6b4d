//! The table of contents of a layer.
//!
//! [`LayerIndex`] lists a layer's entries in canonical order with the BLAKE3 digest
//! of each file's content and its place in the tar, and the frames of the blob. It
//! is enough to decide COPY, USER and `--from` without the layer's bytes.
//! `etc/passwd` and `etc/group` travel inside ([`IndexEntry::inline`]).
//!
//! Invariants: entries are strictly ascending by path, an [`EntryKind::Opaque`]
//! after the other entry of its path; at most one other entry a path; frames ascend.
//! The encoding stands in [`super::index_codec`].

use std::{cmp::Ordering, collections::BTreeMap};

use super::{DiffId, Entry, EntryKind, LayerPath};
use crate::digest::Blake3Digest;

/// The entries and frames of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerIndex {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: DiffId,
    /// Length of the uncompressed tar in bytes.
    pub tar_size: u64,
    /// The entries in canonical order.
    pub entries: Vec<IndexEntry>,
    /// The independently compressed parts of the blob, in order.
    pub frames: Vec<Frame>,
    /// Directories that no entry names but that hold one; sorted, the root first.
    implied: Vec<IndexEntry>,
}

/// One row of a [`LayerIndex`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The change.
    pub entry: Entry,
    /// BLAKE3 of the content of a regular file that is not empty.
    pub content: Option<Blake3Digest>,
    /// Where the content begins in the uncompressed tar, in bytes; zero if there is none.
    pub offset: u64,
    /// The content itself, for `etc/passwd` and `etc/group` of up to 1 MiB.
    pub inline: Option<Vec<u8>>,
}

/// One independently compressed part of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Where its content begins in the uncompressed tar, in bytes.
    pub tar_offset: u64,
    /// Length of its content in bytes.
    pub tar_size: u64,
    /// Where it begins in the blob, in bytes.
    pub blob_offset: u64,
    /// Its length in the blob in bytes.
    pub blob_size: u64,
}

/// Files whose content travels in the index.
const INLINE: [&[u8]; 2] = [b"etc/passwd", b"etc/group"];

/// The longest content that travels in the index.
const INLINE_LIMIT: u64 = 1 << 20;

/// What one layer says about one path.
pub(super) struct Row<'a> {
    /// The entry that is not an opaque mark.
    pub(super) entry: Option<&'a IndexEntry>,
    /// Stands for the directory if only something in it is named.
    pub(super) implied: Option<&'a IndexEntry>,
    /// Whether the directory is marked opaque.
    pub(super) opaque: bool,
}

impl LayerIndex {
    /// The index of these rows, which may be in any order and repeat paths: the last
    /// row of a path wins. A path that is both deleted and made anew keeps what was
    /// made; if that is a directory it becomes opaque.
    pub fn new(diff_id: DiffId, tar_size: u64, rows: Vec<IndexEntry>, frames: Vec<Frame>) -> Self {
        let entries = merge_duplicates(rows);
        Self {
            diff_id,
            tar_size,
            implied: implied_directories(&entries),
            entries,
            frames,
        }
    }

    /// Where each frame of the blob ends, in bytes.
    pub fn frame_ends(&self) -> Vec<u64> {
        let end = |frame: &Frame| frame.blob_offset + frame.blob_size;
        self.frames.iter().map(end).collect()
    }

    /// The entry at `path` that is not an opaque mark.
    pub fn get(&self, path: &LayerPath) -> Option<&IndexEntry> {
        let at = self.entries.partition_point(|row| row.entry.path < *path);
        self.entries
            .get(at)
            .filter(|row| row.entry.path == *path && row.entry.kind != EntryKind::Opaque)
    }

    /// What this layer says about `path`; none if nothing, also nothing below it.
    pub(super) fn row(&self, path: &LayerPath) -> Option<Row<'_>> {
        let at = self.entries.partition_point(|row| row.entry.path < *path);
        let mut row = Row {
            entry: None,
            implied: None,
            opaque: false,
        };
        for found in self.entries[at..]
            .iter()
            .take_while(|r| r.entry.path == *path)
        {
            row.add(found);
        }
        if row
            .entry
            .is_none_or(|r| r.entry.kind == EntryKind::Whiteout)
        {
            row.implied = self
                .implied
                .binary_search_by(|r| r.entry.path.cmp(path))
                .ok()
                .map(|at| &self.implied[at]);
        }
        (row.entry.is_some() || row.implied.is_some()).then_some(row)
    }

    /// What this layer says about the paths directly in `dir`, in order.
    pub(super) fn rows_in(&self, dir: &LayerPath) -> BTreeMap<&LayerPath, Row<'_>> {
        let mut rows = BTreeMap::new();
        for table in [&self.entries, &self.implied] {
            let mut at = table.partition_point(|row| row.entry.path <= *dir);
            while let Some(found) = table.get(at) {
                let path = &found.entry.path;
                if !path.starts_with(dir) {
                    break;
                }
                if path.parent().as_ref() != Some(dir) {
                    // Deeper: on to what follows the child that it lies below.
                    let Some(name) = path.components().nth(dir.components().count()) else {
                        break;
                    };
                    let child = dir.join(name);
                    at += table[at..].partition_point(|row| row.entry.path.starts_with(&child));
                    continue;
                }
                let row = rows.entry(path).or_insert(Row {
                    entry: None,
                    implied: None,
                    opaque: false,
                });
                if std::ptr::eq(table, &self.implied) {
                    row.implied = Some(found);
                } else {
                    row.add(found);
                }
                at += 1;
            }
        }
        rows
    }
}

impl<'a> Row<'a> {
    fn add(&mut self, row: &'a IndexEntry) {
        match row.entry.kind {
            EntryKind::Opaque => self.opaque = true,
            _ => self.entry = Some(row),
        }
    }
}

impl IndexEntry {
    /// Whether the content of the file at `path` of `size` bytes travels in the index.
    pub(super) fn is_inline(path: &LayerPath, size: u64) -> bool {
        size <= INLINE_LIMIT && INLINE.contains(&path.as_bytes())
    }

    /// About what the row takes in memory, in bytes.
    pub(super) fn metadata_size(&self) -> usize {
        let link = match &self.entry.kind {
            EntryKind::Symlink { target } => target.as_os_str().len(),
            EntryKind::Hardlink { target } => target.as_bytes().len(),
            _ => 0,
        };
        let xattrs = self.entry.xattrs.iter();
        size_of::<Self>()
            + self.entry.path.as_bytes().len()
            + link
            + xattrs
                .map(|(name, value)| name.len() + value.len())
                .sum::<usize>()
            + self.inline.as_ref().map_or(0, Vec::len)
    }

    /// The directory `path` as it is made for what lies in it.
    fn implied(path: LayerPath) -> Self {
        Self {
            entry: Entry {
                path,
                kind: EntryKind::Directory,
                mode: 0o755,
                uid: 0,
                gid: 0,
                mtime: 0,
                xattrs: BTreeMap::new(),
            },
            content: None,
            offset: 0,
            inline: None,
        }
    }
}

/// The canonical order: by path, an opaque mark after the directory.
pub(super) fn canonical_order(a: &Entry, b: &Entry) -> Ordering {
    let opaque = |entry: &Entry| entry.kind == EntryKind::Opaque;
    a.path.cmp(&b.path).then(opaque(a).cmp(&opaque(b)))
}

/// Sorts rows and leaves one of those with the same path, and one opaque mark.
fn merge_duplicates(mut rows: Vec<IndexEntry>) -> Vec<IndexEntry> {
    let ascending = |pair: &[IndexEntry]| canonical_order(&pair[0].entry, &pair[1].entry).is_lt();
    if rows.windows(2).all(ascending) {
        return rows;
    }
    // Stable: of equal paths the last in the tar stays last.
    rows.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
    let mut out: Vec<IndexEntry> = Vec::with_capacity(rows.len());
    let mut rows = rows.into_iter().peekable();
    while let Some(first) = rows.next() {
        let mut same = vec![first];
        while let Some(row) = rows.next_if(|row| row.entry.path == same[0].entry.path) {
            same.push(row);
        }
        out.extend(merge_one_path(same));
    }
    out
}

/// What remains of all rows of one path, given in the order of the tar.
fn merge_one_path(rows: Vec<IndexEntry>) -> impl Iterator<Item = IndexEntry> {
    let (mut made, mut whiteout, mut opaque) = (None, None, None);
    for row in rows {
        match row.entry.kind {
            EntryKind::Opaque => opaque = Some(row),
            EntryKind::Whiteout => whiteout = Some(row),
            _ => made = Some(row),
        }
    }
    if let (Some(made), Some(mark)) = (&made, &mut whiteout)
        && made.entry.kind == EntryKind::Directory
    {
        mark.entry.kind = EntryKind::Opaque;
        opaque = opaque.or(whiteout.take());
    }
    made.or(whiteout).into_iter().chain(opaque)
}

/// The directories that hold an entry without being named by one themselves.
fn implied_directories(entries: &[IndexEntry]) -> Vec<IndexEntry> {
    let is_directory = |path: &LayerPath| {
        let at = entries.partition_point(|row| row.entry.path < *path);
        entries.get(at).is_some_and(|row| {
            row.entry.path == *path
                && !matches!(row.entry.kind, EntryKind::Opaque | EntryKind::Whiteout)
        })
    };
    let mut implied = BTreeMap::new();
    if !is_directory(&LayerPath::ROOT) {
        implied.insert(LayerPath::ROOT, IndexEntry::implied(LayerPath::ROOT));
    }
    let mut last = LayerPath::ROOT;
    for row in entries {
        let mut dir = match row.entry.kind {
            EntryKind::Opaque => row.entry.path.clone(),
            _ => row.entry.path.parent().unwrap_or(LayerPath::ROOT),
        };
        let holder = dir.clone();
        // Ancestors of the last entry have been seen to.
        while !last.starts_with(&dir) && !implied.contains_key(&dir) {
            if !is_directory(&dir) {
                implied.insert(dir.clone(), IndexEntry::implied(dir.clone()));
            }
            dir = dir.parent().unwrap_or(LayerPath::ROOT);
        }
        last = holder;
    }
    implied.into_values().collect()
}
