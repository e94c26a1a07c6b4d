//! Files that are read before anything is built: [`Files`].
//!
//! Dockerfiles, ignore files and configurations lie on the disk ([`Disk`]), or in a commit
//! that nobody has checked out. Whoever reads them asks for them by the same paths.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use super::{FsError, IoContext as _};

/// Where paths lead. Relative ones start at the working directory.
pub trait Files: fmt::Debug + Send + Sync {
    /// The bytes of a file.
    fn read(&self, path: &Path) -> Result<Vec<u8>, FsError>;

    /// What is at `path`, symlinks followed; none if nothing is.
    fn kind(&self, path: &Path) -> Option<FileKind>;

    /// The absolute path of what is at `path`, without symlinks.
    fn canonicalize(&self, path: &Path) -> Result<PathBuf, FsError>;

    /// The text of a file, which must be UTF-8.
    fn read_to_string(&self, path: &Path) -> Result<String, FsError> {
        let bytes = self.read(path)?;
        let invalid = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8");
        String::from_utf8(bytes).map_err(invalid).at("read", path)
    }

    /// Whether a directory is at `path`.
    fn is_dir(&self, path: &Path) -> bool {
        self.kind(path) == Some(FileKind::Directory)
    }

    /// Whether anything is at `path`.
    fn exists(&self, path: &Path) -> bool {
        self.kind(path).is_some()
    }
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file, or something else that may be read.
    File,
}

/// The files of the disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<Vec<u8>, FsError> {
        super::read(path)
    }

    fn kind(&self, path: &Path) -> Option<FileKind> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(match metadata.is_dir() {
            true => FileKind::Directory,
            false => FileKind::File,
        })
    }

    fn canonicalize(&self, path: &Path) -> Result<PathBuf, FsError> {
        super::canonicalize(path)
    }
}
