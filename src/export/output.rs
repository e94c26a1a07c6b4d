//! What a build's result is written as, and where to.

use std::path::{Path, PathBuf};

use super::{Annotations, ExportError};
use crate::{fs, oci::layer::Compression};

/// One output of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// An image as an OCI layout directory, which is replaced if it is one already.
    Layout {
        /// The directory.
        dir: PathBuf,
        /// How the image is made.
        image: ImageOptions,
    },
    /// An image as one tar: an OCI layout, for Docker with its `manifest.json`.
    Archive {
        /// Where to.
        to: Stream,
        /// How the image is made.
        image: ImageOptions,
    },
    /// An image in the local Docker, by `docker load`.
    Load {
        /// Docker's context, if not its current one.
        context: Option<String>,
        /// How the image is made.
        image: ImageOptions,
    },
    /// An image in registries, under each of its names.
    Push {
        /// How the image is made.
        image: ImageOptions,
    },
    /// The root file system as one tar.
    Tar {
        /// Where to.
        to: Stream,
        /// Whether each platform has a directory; by default where there are several.
        split: Option<bool>,
    },
    /// The root file system in a directory.
    Local {
        /// The directory.
        dir: PathBuf,
        /// Whether each platform has a directory; by default where there are several.
        split: Option<bool>,
        /// Whether what the result doesn't have is removed from the directory.
        delete: bool,
    },
}

/// A place for one stream of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stream {
    /// A file, replaced as a whole.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

/// How an image is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// Whether the image is for Docker: its `manifest.json`, no zstd.
    pub docker: bool,
    /// Docker's media types instead of the OCI's.
    pub docker_types: bool,
    /// Names, where the build gives none.
    pub names: Vec<String>,
    /// Compression of layers; by default that of the build, and gzip for Docker.
    pub compression: Option<Compression>,
    /// Its level.
    pub level: Option<i32>,
    /// Compress base image layers of other formats anew too.
    pub force: bool,
    /// Annotations besides those of the build.
    pub annotations: Annotations,
}

impl Output {
    /// An OCI layout at `dir`.
    pub fn layout(dir: impl Into<PathBuf>) -> Self {
        Self::Layout {
            dir: dir.into(),
            image: ImageOptions::default(),
        }
    }

    /// How the image is made, if one is.
    pub fn image(&self) -> Option<&ImageOptions> {
        match self {
            Self::Layout { image, .. }
            | Self::Archive { image, .. }
            | Self::Load { image, .. }
            | Self::Push { image } => Some(image),
            Self::Tar { .. } | Self::Local { .. } => None,
        }
    }

    /// Whether the result goes to standard output.
    pub fn is_stdout(&self) -> bool {
        matches!(
            self,
            Self::Archive {
                to: Stream::Stdout,
                ..
            } | Self::Tar {
                to: Stream::Stdout,
                ..
            }
        )
    }

    /// The file or directory that is written, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Layout { dir, .. } | Self::Local { dir, .. } => Some(dir),
            Self::Archive { to, .. } | Self::Tar { to, .. } => match to {
                Stream::File(file) => Some(file),
                Stream::Stdout => None,
            },
            Self::Load { .. } | Self::Push { .. } => None,
        }
    }

    /// Fails where a directory stands in place of a file, or the other way round.
    pub(super) fn check_place(&self) -> Result<(), ExportError> {
        let Some(path) = self.path() else {
            return Ok(());
        };
        let path = path.to_owned();
        match self {
            Self::Local { .. } if fs::exists(&path) && !path.is_dir() => {
                Err(ExportError::NotADirectory { path })
            }
            Self::Archive { .. } | Self::Tar { .. } if path.is_dir() => {
                Err(ExportError::IsADirectory { path })
            }
            _ => Ok(()),
        }
    }

    /// Where it goes, for people.
    pub fn place(&self) -> PathBuf {
        match (self.path(), self) {
            (Some(path), _) => path.to_owned(),
            (None, Self::Load { .. }) => PathBuf::from("docker"),
            (None, Self::Push { .. }) => PathBuf::from("registry"),
            (None, _) => PathBuf::from("-"),
        }
    }
}
