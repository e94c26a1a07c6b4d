//! Writing layers: entries to canonical tar to hashed, compressed frames.
//!
//! [`LayerBuilder`] takes entries in canonical order and does everything in one
//! pass: tar headers, BLAKE3 of each file, SHA-256 of the tar and of the blob,
//! frames, index. What it refuses it refuses before it writes; after an error the
//! builder is of no further use.

use std::io::{Read, Write};

use super::{
    DiffId, Entry, EntryKind, IndexEntry, LayerBlob, LayerError, LayerIndex, LayerPath, TarEntries,
    compress::LayerOptions,
    frames::{FrameWriter, LARGE_FILE, MAX_PIECE, ends_before, first_piece},
    header::{BLOCK, WHITEOUT_PREFIX, padding, write_header},
    index::canonical_order,
};
use crate::digest::{Blake3Digest, Sha256Digest};

/// The most threads that compress one layer.
pub(super) const MAX_THREADS: usize = 4;

/// Writes one layer to `W`.
pub struct LayerBuilder<W: Write> {
    writer: FrameWriter<W>,
    media_type: &'static str,
    /// The tar since the last cut.
    frame: Vec<u8>,
    /// Bytes of tar before `frame`.
    cut: u64,
    rows: Vec<IndexEntry>,
}

/// A layer that has been written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltLayer {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: DiffId,
    /// SHA-256 of the blob.
    pub digest: Sha256Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Size of the uncompressed tar in bytes.
    pub tar_size: u64,
    /// OCI media type of the blob.
    pub media_type: String,
    /// Its table of contents.
    pub index: LayerIndex,
}

impl BuiltLayer {
    /// The layer as caches and manifests name it; `index` is the digest of the
    /// encoded index.
    pub fn blob(&self, index: Option<Sha256Digest>) -> LayerBlob {
        LayerBlob {
            diff_id: self.diff_id,
            digest: self.digest,
            size: self.size,
            media_type: self.media_type.clone(),
            index,
        }
    }
}

impl<W: Write> LayerBuilder<W> {
    /// A layer without entries that will be written to `out`.
    pub fn new(out: W, options: LayerOptions) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_threads(out, options, threads.min(MAX_THREADS))
    }

    /// As [`new`](Self::new) with this number of compressing threads.
    pub(super) fn with_threads(out: W, options: LayerOptions, threads: usize) -> Self {
        Self {
            writer: FrameWriter::new(out, options, threads),
            media_type: options.compression.media_type(),
            frame: Vec::new(),
            cut: 0,
            rows: Vec::new(),
        }
    }

    /// Adds an entry, which must come after all others in canonical order. A regular
    /// file that is not empty needs its `content`, of exactly the size that the entry
    /// says; for all others it is not looked at.
    pub fn append(
        &mut self,
        entry: &Entry,
        content: Option<&mut dyn Read>,
    ) -> Result<(), LayerError> {
        self.check(entry)?;
        let size = match entry.kind {
            EntryKind::Regular { size } => size,
            _ => 0,
        };
        if ends_before(self.frame.len(), &entry.path, size) {
            self.end_frame(self.frame.len())?;
        }
        write_header(&mut self.frame, entry)?;
        let mut row = IndexEntry {
            entry: entry.clone(),
            content: None,
            offset: 0,
            inline: None,
        };
        if size > 0 {
            row.offset = self.cut + self.frame.len() as u64;
            let mut nothing = std::io::empty();
            let content = content.unwrap_or(&mut nothing);
            row.content = Some(self.append_content(&entry.path, size, content)?);
            if IndexEntry::is_inline(&entry.path, size) {
                // Small files are never divided: the content ends the frame.
                let start = self.frame.len() as u64 - size;
                row.inline = Some(self.frame[usize::try_from(start).unwrap_or(0)..].to_vec());
            }
            self.frame.resize(self.frame.len() + padding(size), 0);
        }
        self.rows.push(row);
        Ok(())
    }

    /// Adds all entries of a tar whose entries are in canonical order.
    pub fn append_tar(&mut self, tar: impl Read) -> Result<(), LayerError> {
        let mut entries = TarEntries::new(tar);
        while let Some(mut item) = entries.next_entry()? {
            let entry = item.entry.clone();
            self.append(&entry, Some(&mut item))?;
        }
        Ok(())
    }

    /// Ends the layer; gives back the writer and what was written.
    pub fn finish(mut self) -> Result<(W, BuiltLayer), LayerError> {
        self.frame.resize(self.frame.len() + 2 * BLOCK, 0);
        let written = self.writer.finish(self.frame)?;
        let diff_id = DiffId(written.tar.sha256);
        let layer = BuiltLayer {
            diff_id,
            digest: written.blob.sha256,
            size: written.blob.size,
            tar_size: written.tar.size,
            media_type: self.media_type.to_owned(),
            index: LayerIndex::new(diff_id, written.tar.size, self.rows, written.frames),
        };
        Ok((written.out, layer))
    }

    /// Refuses what canonical layers don't have.
    fn check(&self, entry: &Entry) -> Result<(), LayerError> {
        if let Some(last) = self.rows.last().map(|row| &row.entry)
            && (canonical_order(last, entry).is_ge()
                // An opaque mark is for a directory.
                || last.path == entry.path && last.kind != EntryKind::Directory)
        {
            return Err(LayerError::Order {
                path: entry.path.clone(),
                after: last.path.clone(),
            });
        }
        let reserved = |path: &LayerPath| {
            path.as_bytes()
                .split(|b| *b == b'/')
                .any(|component| component.starts_with(WHITEOUT_PREFIX))
        };
        if reserved(&entry.path) || entry.path.is_root() && !may_be_root(&entry.kind) {
            return Err(LayerError::ReservedName {
                path: entry.path.clone(),
            });
        }
        if let EntryKind::Hardlink { target } = &entry.kind
            && !self.has_file(target)
        {
            return Err(LayerError::LinkTarget {
                path: entry.path.clone(),
                target: target.clone(),
            });
        }
        Ok(())
    }

    /// Whether a regular file at `path` has been added.
    fn has_file(&self, path: &LayerPath) -> bool {
        let at = self.rows.partition_point(|row| row.entry.path < *path);
        self.rows.get(at).is_some_and(|row| {
            row.entry.path == *path && matches!(row.entry.kind, EntryKind::Regular { .. })
        })
    }

    fn append_content(
        &mut self,
        path: &LayerPath,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<Blake3Digest, LayerError> {
        let mut hasher = blake3::Hasher::new();
        let mut start = self.frame.len();
        let mut left = size;
        if size < LARGE_FILE {
            self.read_content(path, size, content, left, &mut hasher)?;
            left = 0;
        }
        while left > 0 || self.frame.len() > start && size >= LARGE_FILE {
            let held = self.frame.len() - start;
            let want = left.min((MAX_PIECE - held) as u64);
            self.read_content(path, size, content, want, &mut hasher)?;
            left -= want;
            let piece = first_piece(&self.frame[start..]);
            if left == 0 && start + piece == self.frame.len() {
                break;
            }
            self.end_frame(start + piece)?;
            start = 0;
        }
        let longer = content
            .take(1)
            .read_to_end(&mut Vec::new())
            .map_err(|source| LayerError::ReadContent {
                path: path.clone(),
                source,
            })?;
        if longer > 0 {
            return Err(LayerError::ContentSize {
                path: path.clone(),
                expected: size,
                longer: true,
            });
        }
        Ok(Blake3Digest::from_bytes(*hasher.finalize().as_bytes()))
    }

    /// Reads `want` bytes of a file of `size` bytes into the frame.
    fn read_content(
        &mut self,
        path: &LayerPath,
        size: u64,
        content: &mut dyn Read,
        want: u64,
        hasher: &mut blake3::Hasher,
    ) -> Result<(), LayerError> {
        let from = self.frame.len();
        self.frame.reserve(usize::try_from(want).unwrap_or(0));
        let got = content
            .take(want)
            .read_to_end(&mut self.frame)
            .map_err(|source| LayerError::ReadContent {
                path: path.clone(),
                source,
            })?;
        if (got as u64) < want {
            return Err(LayerError::ContentSize {
                path: path.clone(),
                expected: size,
                longer: false,
            });
        }
        hasher.update(&self.frame[from..]);
        Ok(())
    }

    /// Ends the frame after `length` bytes; the rest begins the next one.
    fn end_frame(&mut self, length: usize) -> Result<(), LayerError> {
        // A copy of the exact size: the buffer itself has room for 8 MiB and more.
        let ended = self.frame[..length].to_vec();
        self.frame.drain(..length);
        self.cut += length as u64;
        self.writer.push(ended)
    }
}

/// Whether the root itself can change like this.
fn may_be_root(kind: &EntryKind) -> bool {
    matches!(kind, EntryKind::Directory | EntryKind::Opaque)
}
