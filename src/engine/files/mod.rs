//! COPY, ADD, WORKDIR and heredoc files, without unpacking anything.
//!
//! A [`FileOp`](crate::graph::FileOp) is carried out in two steps. [`plan()`] decides, from trees of metadata alone, every
//! entry that the layer will hold and where each file's content comes from; the
//! digest of a plan is the step's content key. [`write()`] then streams the contents
//! into a canonical layer. The rules for destinations, trailing slashes, symlinks and
//! wildcards are those of BuildKit (`fsutil/copy`).

mod archive;
mod mode;
mod plan;
mod select;
mod view;
mod write;

#[cfg(test)]
mod tests;

pub use mode::ModeError;
pub use plan::plan;
pub use select::{Selection, places, select};
pub use write::{check, write};

use std::{borrow::Cow, collections::BTreeMap, path::PathBuf, sync::Arc};

use crate::{
    digest::{Blake3Digest, KeyEncoder},
    fs::FsError,
    key::{CacheKey, KeyKind},
    oci::layer::{Entry, EntryKind, LayerContent, LayerError, LayerPath, Tree},
};

/// Where files are copied from: a tree of metadata, and a way to their contents.
#[derive(Debug, Clone)]
pub struct Source {
    /// What it is, for messages: `the build context`, `stage builder`.
    pub name: String,
    /// The merged tree.
    pub tree: Arc<Tree>,
    /// Where contents are.
    pub contents: Contents,
}

/// The contents of a [`Source`].
#[derive(Debug, Clone)]
pub enum Contents {
    /// Files below this directory of the host.
    Directory(PathBuf),
    /// Layers by their number in the tree; those that a plan needs are enough.
    Layers(BTreeMap<usize, Arc<LayerContent>>),
    /// Not at hand: the plan can be made, not written.
    Absent,
}

/// Why a COPY, ADD or WORKDIR can't be done.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A source path that is not there.
    #[error("`{path}` not found in {source_name}")]
    NotFound {
        /// As written in the Dockerfile.
        path: String,
        /// The source's name.
        source_name: String,
        /// Whether the path exists and is left out by the ignore file.
        ignored: bool,
    },
    /// A source path that climbs out of its root.
    #[error("`{path}` lies outside {source_name}")]
    Outside {
        /// As written in the Dockerfile.
        path: String,
        /// The source's name.
        source_name: String,
    },
    /// A path component or destination that is not a directory.
    #[error("`{path}` is not a directory in the image")]
    NotADirectory {
        /// Inside the image.
        path: String,
    },
    /// A file over a directory.
    #[error("`{path}` is a directory in the image and can't be replaced by a file")]
    IsADirectory {
        /// Inside the image.
        path: String,
    },
    /// Symlinks that lead round in a circle.
    #[error("too many symlinks in `{path}`")]
    SymlinkLoop {
        /// The path.
        path: String,
    },
    /// A path with bytes that no path can have.
    #[error(transparent)]
    Path(#[from] crate::oci::layer::LayerPathError),
    /// A pattern that does not parse.
    #[error("`{pattern}` is not a valid pattern")]
    Pattern {
        /// The pattern.
        pattern: String,
    },
    /// `--chmod` that does not parse.
    #[error(transparent)]
    Mode(#[from] ModeError),
    /// A context file that changed between planning and writing.
    #[error("`{path}` changed while it was being copied")]
    Changed {
        /// Inside the context.
        path: String,
    },
    /// Reading a host file failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// Reading or writing a layer failed.
    #[error(transparent)]
    Layer(#[from] LayerError),
}

impl FileError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound {
                ignored: true,
                path,
                ..
            } => Some(format!(
                "the ignore file (`.dockerignore`) leaves it out; the line `!{}` keeps it",
                path.trim_matches('/')
            )),
            Self::Outside { .. } => Some(
                "use a context that contains the file, or pass one with `--build-context`".into(),
            ),
            _ => None,
        }
    }
}

/// One entry of the layer to be, and where its content comes from.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The entry.
    pub entry: Entry,
    /// The content of a regular file.
    pub content: Content,
    /// The source file that hard links of one COPY share.
    link: Option<LinkKey>,
}

/// Identity of a source file within one COPY: the copy, the layer or archive, the path.
type LinkKey = (usize, usize, LayerPath);

/// Where the content of a planned regular file comes from.
#[derive(Debug, Clone)]
pub enum Content {
    /// There is none: not a regular file, an empty one, or a hard link.
    None,
    /// These bytes.
    Bytes(Arc<[u8]>),
    /// A file of a source.
    File {
        /// Position in the list of sources.
        source: usize,
        /// The layer of the source's tree that holds it.
        layer: usize,
        /// Its path in that layer, symlinks and hard links resolved.
        path: LayerPath,
        /// BLAKE3 of the content.
        digest: Blake3Digest,
    },
    /// A member of an archive that ADD unpacks.
    Member {
        /// Position in the plan's archives.
        archive: usize,
        /// The member's path.
        path: LayerPath,
        /// BLAKE3 of the content.
        digest: Blake3Digest,
    },
}

impl Planned {
    fn new(path: LayerPath, kind: EntryKind, mode: u32, owner: (u32, u32)) -> Self {
        Self {
            entry: Entry {
                path,
                kind,
                mode,
                uid: owner.0,
                gid: owner.1,
                mtime: 0,
                xattrs: Default::default(),
            },
            content: Content::None,
            link: None,
        }
    }

    fn directory(path: LayerPath, mode: u32, owner: (u32, u32)) -> Self {
        Self::new(path, EntryKind::Directory, mode, owner)
    }
}

/// What a layer will hold.
#[derive(Debug, Default)]
pub struct Plan {
    /// In canonical order; every entry has the step's mtime.
    pub entries: Vec<Planned>,
    /// The archives whose members are among the contents.
    pub archives: Vec<archive::Archive>,
    /// Names in `--chown` that the image does not have, and which stand for root.
    pub unknown_owners: Vec<String>,
}

impl Plan {
    /// The digest of everything that decides the layer's bytes.
    pub fn key(&self) -> CacheKey {
        use std::os::unix::ffi::OsStrExt as _;
        let mut encoder = KeyEncoder::new(KeyKind::Plan.context());
        encoder.number("entries", self.entries.len() as u64);
        for planned in &self.entries {
            let entry = &planned.entry;
            let (kind, detail): (&str, Cow<'_, [u8]>) = match &entry.kind {
                EntryKind::Directory => ("dir", Cow::Borrowed(b"")),
                EntryKind::Regular { size } => ("file", Cow::Owned(size.to_le_bytes().into())),
                EntryKind::Symlink { target } => ("symlink", target.as_os_str().as_bytes().into()),
                EntryKind::Hardlink { target } => ("hardlink", target.as_bytes().into()),
                EntryKind::CharDevice { major, minor } => {
                    ("char", Cow::Owned(format!("{major}:{minor}").into()))
                }
                EntryKind::BlockDevice { major, minor } => {
                    ("block", Cow::Owned(format!("{major}:{minor}").into()))
                }
                EntryKind::Fifo => ("fifo", Cow::Borrowed(b"")),
                EntryKind::Whiteout => ("whiteout", Cow::Borrowed(b"")),
                EntryKind::Opaque => ("opaque", Cow::Borrowed(b"")),
            };
            encoder
                .field("path", entry.path.as_bytes())
                .field(kind, detail)
                .number("mode", entry.mode.into())
                .number("uid", entry.uid.into())
                .number("gid", entry.gid.into())
                .field("mtime", entry.mtime.to_le_bytes());
            for (name, value) in &entry.xattrs {
                encoder.field("xattr", name).field("value", value);
            }
            match &planned.content {
                Content::None => {}
                Content::Bytes(bytes) => {
                    encoder.field("content", Blake3Digest::of(bytes).as_bytes());
                }
                Content::File { digest, .. } | Content::Member { digest, .. } => {
                    encoder.field("content", digest.as_bytes());
                }
            }
        }
        CacheKey(encoder.finish())
    }
}
