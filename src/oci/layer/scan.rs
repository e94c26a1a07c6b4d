//! The index of a layer that somebody else built.

use std::io::{self, BufReader, Read};
use std::sync::Arc;

use super::{
    Compression, DiffId, EntryKind, IndexEntry, LayerError, LayerIndex, TarEntries,
    compress::{FrameReader, READ_BUFFER},
    frames::TarHasher,
};
use crate::digest::{Blake3Digest, HashingReader, Sha256Digest};

/// Most bytes of names, links, attributes and inline files in one index.
const MAX_METADATA: usize = 256 << 20;

/// Bytes of tar hashed at once.
const PART: usize = 256 << 10;

/// What [`scan`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedLayer {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: DiffId,
    /// SHA-256 of the blob.
    pub digest: Sha256Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Size of the uncompressed tar in bytes.
    pub tar_size: u64,
    /// Its table of contents.
    pub index: LayerIndex,
}

/// Reads the whole of a blob once: its digests and its index. The caller compares the
/// digests with those it expects.
pub fn scan(blob: impl Read, media_type: &str) -> Result<ScannedLayer, LayerError> {
    let compression = Compression::of_media_type(media_type)?;
    let mut blob = HashingReader::new(blob);
    let frames = FrameReader::new(
        BufReader::with_capacity(READ_BUFFER, &mut blob),
        compression,
    );
    let mut tar = HashedTar {
        inner: frames,
        part: Vec::with_capacity(PART),
        hasher: TarHasher::start()?,
    };
    let mut entries = TarEntries::new(&mut tar);
    let rows = read_rows(&mut entries)?;
    let tar_size = entries.finish()?;
    let (frames, sha256) = tar.finish()?;
    let frames = frames.into_frames();
    let hashes = blob.hashes();
    let diff_id = DiffId(sha256);
    Ok(ScannedLayer {
        diff_id,
        digest: hashes.sha256,
        size: hashes.size,
        tar_size,
        index: LayerIndex::new(diff_id, tar_size, rows, frames),
    })
}

fn read_rows(entries: &mut TarEntries<impl Read>) -> Result<Vec<IndexEntry>, LayerError> {
    let mut rows = Vec::new();
    let mut metadata = 0;
    while let Some(mut item) = entries.next_entry()? {
        let mut row = IndexEntry {
            entry: item.entry.clone(),
            content: None,
            offset: 0,
            inline: None,
        };
        if let EntryKind::Regular { size } = row.entry.kind
            && size > 0
        {
            row.offset = item.offset;
            row.content = Some(if IndexEntry::is_inline(&row.entry.path, size) {
                let mut bytes = Vec::new();
                item.read_to_end(&mut bytes).map_err(LayerError::Read)?;
                let digest = Blake3Digest::of(&bytes);
                row.inline = Some(bytes);
                digest
            } else {
                Blake3Digest::of_reader(&mut item)
                    .map_err(LayerError::Read)?
                    .0
            });
        }
        metadata += row.metadata_size();
        if metadata > MAX_METADATA {
            return Err(LayerError::TooLarge {
                offset: item.offset,
                what: "names and attributes",
            });
        }
        rows.push(row);
    }
    Ok(rows)
}

/// A tar that is hashed on another thread while it is read.
struct HashedTar<R> {
    inner: R,
    part: Vec<u8>,
    hasher: TarHasher,
}

impl<R: Read> HashedTar<R> {
    fn hash_part(&mut self) -> Result<(), LayerError> {
        let part = std::mem::replace(&mut self.part, Vec::with_capacity(PART));
        self.hasher.update(Arc::new(part))
    }

    fn finish(mut self) -> Result<(R, Sha256Digest), LayerError> {
        self.hash_part()?;
        Ok((self.inner, self.hasher.finish()?))
    }
}

impl<R: Read> Read for HashedTar<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.part.extend_from_slice(&buf[..n]);
        if self.part.len() >= PART {
            self.hash_part().map_err(io::Error::other)?;
        }
        Ok(n)
    }
}
