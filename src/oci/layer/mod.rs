//! Layers: what one step changes in the root file system.
//!
//! A layer has four faces. Its *entries* ([`Entry`]) are the changes in canonical
//! order. Its *tar* is one deterministic encoding of them and has a [`DiffId`]. Its
//! *blob* is the compressed tar, a sequence of independent frames, and has a
//! [`Descriptor`](LayerBlob). Its *index* is a small table of the entries with
//! digests and offsets, enough to decide COPY, USER and `--from` without the bytes.

mod archive;
mod builder;
mod compress;
mod content;
mod entry;
mod error;
mod frames;
mod header;
mod index;
mod index_codec;
mod read;
mod recompress;
mod scan;
#[cfg(test)]
mod tests;
mod tree;

pub use archive::{ARCHIVE_HEAD, ArchiveFormat, head, holds_tar};
pub use builder::{BuiltLayer, LayerBuilder};
pub use compress::{LayerOptions, decompress};
pub use content::{LayerContent, stretches};
pub use entry::{Entry, EntryKind, LayerPath, LayerPathError};
pub use error::{LayerError, TreeError};
pub use index::{Frame, IndexEntry, LayerIndex};
pub use read::{TarEntries, TarEntry};
pub use recompress::compress_tar;
pub use scan::{ScannedLayer, scan};
pub use tree::{Found, Tree, Walk};

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;

/// SHA-256 of a layer's uncompressed tar (OCI image specification, "DiffID").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Sha256Digest);

impl std::fmt::Display for DiffId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of a stack of layers (OCI image specification, "ChainID").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(pub Sha256Digest);

impl ChainId {
    /// The chain of no layers. The specification leaves it undefined; ours is the
    /// digest of the empty string.
    pub fn empty() -> Self {
        Self(Sha256Digest::of(b""))
    }

    /// The chain `self` with one more layer on top.
    #[must_use]
    pub fn with(self, diff_id: DiffId) -> Self {
        if self == Self::empty() {
            return Self(diff_id.0);
        }
        Self(Sha256Digest::of(
            format!("{} {}", self.0, diff_id.0).as_bytes(),
        ))
    }

    /// The chain of these layers, lowest first.
    pub fn of(layers: impl IntoIterator<Item = DiffId>) -> Self {
        layers.into_iter().fold(Self::empty(), Self::with)
    }
}

/// How a layer's tar is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all (`…layer.v1.tar`).
    None,
    /// gzip members (`…layer.v1.tar+gzip`).
    Gzip,
    /// zstd frames (`…layer.v1.tar+zstd`).
    #[default]
    Zstd,
}

/// A layer as a registry or a cache knows it: metadata, no bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerBlob {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: DiffId,
    /// SHA-256 of the blob, that is of the tar as compressed.
    pub digest: Sha256Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// The OCI or Docker media type of the blob.
    pub media_type: String,
    /// SHA-256 of the encoded layer index, itself a blob of the cache; none for a
    /// pulled layer that nobody has read yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Sha256Digest>,
}
