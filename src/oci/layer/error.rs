//! What can go wrong with a layer.

use std::io;

use super::{LayerPath, entry::LayerPathError};

/// A layer that can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// An entry came out of canonical order, or twice.
    #[error("`{path}` is out of order in the layer: it came after `{after}`")]
    Order {
        /// The late entry.
        path: LayerPath,
        /// The entry before it.
        after: LayerPath,
    },
    /// A file whose name means a whiteout in a layer.
    #[error("`{path}` can't stand in a layer: names that begin with `.wh.` mean deletions")]
    ReservedName {
        /// The file.
        path: LayerPath,
    },
    /// A hard link to a path that is no regular file written before.
    #[error("hard link `{path}` points to `{target}`, which is no file earlier in the layer")]
    LinkTarget {
        /// The link.
        path: LayerPath,
        /// Where it points.
        target: LayerPath,
    },
    /// An extended attribute that layers can't or must not carry.
    #[error("extended attribute `{name}` of `{path}` can't stand in a layer")]
    Xattr {
        /// The file.
        path: LayerPath,
        /// The attribute.
        name: String,
    },
    /// A device number above what a tar header holds (21 bits).
    #[error("device number {number} of `{path}` is too large for a tar")]
    DeviceNumber {
        /// The device file.
        path: LayerPath,
        /// Major or minor number.
        number: u32,
    },
    /// The content is shorter or longer than the entry says; the file changed.
    #[error("`{path}` should have {expected} bytes but has {}", if *longer { "more" } else { "fewer" })]
    ContentSize {
        /// The file.
        path: LayerPath,
        /// Size in the entry.
        expected: u64,
        /// Whether there was more than expected.
        longer: bool,
    },
    /// The content of a file could not be read.
    #[error("can't read the content of `{path}`")]
    ReadContent {
        /// The file.
        path: LayerPath,
        /// What the reader said.
        #[source]
        source: io::Error,
    },
    /// The blob could not be written.
    #[error("can't write the layer")]
    Write(#[source] io::Error),
    /// A frame could not be compressed.
    #[error("can't compress a frame of the layer")]
    Compress(#[source] io::Error),
    /// A thread could not be started.
    #[error("can't start a thread to compress the layer")]
    StartThread(#[source] io::Error),
    /// A thread of the pipeline ended early; a defect.
    #[error("a thread that compresses or hashes the layer ended early")]
    ThreadEnded,
    /// The blob could not be read or decompressed.
    #[error("can't read the layer")]
    Read(#[source] io::Error),
    /// A media type that names no layer we know.
    #[error("`{0}` is not the media type of a layer")]
    MediaType(String),
    /// The tar ends in the middle.
    #[error("the layer's tar ends too early, at byte {offset}")]
    Truncated {
        /// Position in the tar.
        offset: u64,
    },
    /// Bytes that are no tar.
    #[error("the layer's tar is damaged at byte {offset}: {what}")]
    Damaged {
        /// Position of the header in the tar.
        offset: u64,
        /// The part that is wrong.
        what: &'static str,
    },
    /// A tar with something that layers don't have.
    #[error("the layer's tar has {what} at byte {offset}, which is not supported")]
    Unsupported {
        /// Position of the header in the tar.
        offset: u64,
        /// What it has.
        what: &'static str,
    },
    /// A tar with absurdly long or many names, attributes or headers.
    #[error("the layer's tar has {what} beyond the limit at byte {offset}")]
    TooLarge {
        /// Position of the header in the tar.
        offset: u64,
        /// What is too large.
        what: &'static str,
    },
    /// A name in a tar that leads out of the root file system.
    #[error("the layer's tar has a bad name at byte {offset}")]
    BadPath {
        /// Position of the header in the tar.
        offset: u64,
        /// The name.
        #[source]
        source: LayerPathError,
    },
    /// An index of another format.
    #[error("the layer index has version {found}, this program reads version {expected}")]
    IndexVersion {
        /// Version in the index.
        found: u8,
        /// Version this program knows.
        expected: u8,
    },
    /// Bytes that are no layer index.
    #[error("the layer index is damaged: {0}")]
    IndexDamaged(&'static str),
    /// An entry without content was asked for its content.
    #[error("`{path}` is not a regular file of this layer")]
    NotRegular {
        /// The entry.
        path: LayerPath,
    },
    /// The temporary file for an unframed layer could not be made or written.
    #[error("can't spool the layer into a temporary file")]
    Spool(#[source] io::Error),
}

/// A path of a [`Tree`](super::Tree) that can't be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Too many symbolic links, most likely a loop.
    #[error("too many symbolic links on the way to `{path}`")]
    Loop {
        /// The path asked for.
        path: LayerPath,
    },
    /// A component that must be a directory is something else.
    #[error("`{component}` on the way to `{path}` is not a directory")]
    NotADirectory {
        /// The path asked for.
        path: LayerPath,
        /// The offending part of it, resolved.
        component: LayerPath,
    },
}
