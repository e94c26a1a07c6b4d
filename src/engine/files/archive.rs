//! Local tar archives that ADD unpacks.
//!
//! An archive is read like a foreign layer: one pass makes its index, members are then
//! read through [`LayerContent`].

use std::{
    fs::File,
    io::{self, Read, Seek},
    path::Path,
    sync::Arc,
};

use super::{FileError, write::open_beneath};
use crate::{
    digest::Blake3Digest,
    fs::{self, IoContext as _},
    oci::layer::{
        self, ArchiveFormat, Compression, IndexEntry, LayerContent, LayerError, LayerIndex,
        LayerPath,
    },
};

/// An archive in the build context.
#[derive(Debug)]
pub struct Archive {
    index: Arc<LayerIndex>,
    content: LayerContent,
}

/// Opens the file at `at` in `dir` as an archive; none if it is not one. Its content must
/// have this digest: the definition key was made of it. `named` is its path as it was
/// written, for messages.
pub(super) fn open(
    dir: &Path,
    at: &LayerPath,
    digest: Blake3Digest,
    named: &LayerPath,
) -> Result<Option<Archive>, FileError> {
    let path = &dir.join(at.as_path());
    let mut file = open_beneath(dir, at)?;
    let head = layer::head(&mut file).at("read", path)?;
    let Some(format) = ArchiveFormat::of(&head) else {
        return Ok(None);
    };
    // A compressed file that holds no tar is copied as it is.
    file.rewind().at("read", path)?;
    if !layer::holds_tar(format, file.try_clone().at("read", path)?) {
        return Ok(None);
    }
    file.rewind().at("read", path)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&file).at("read", path)?;
    if Blake3Digest::from_bytes(*hasher.finalize().as_bytes()) != digest {
        return Err(FileError::Changed {
            path: named.to_string(),
        });
    }
    file.rewind().at("read", path)?;
    let (mut file, media_type) = match format.layer_media_type() {
        Some(media_type) => (file, media_type),
        None => (
            decompressed(format, &file, path)?,
            Compression::None.media_type(),
        ),
    };
    let scanned = layer::scan(&file, media_type)?;
    file.rewind().at("read", path)?;
    let index = Arc::new(scanned.index);
    let content = LayerContent::open(file, media_type, Arc::clone(&index))?;
    Ok(Some(Archive { index, content }))
}

/// The tar in `file` as a temporary file without a name: members are read in any order,
/// and these formats can only be read from the start.
fn decompressed(format: ArchiveFormat, file: &File, path: &Path) -> Result<File, FileError> {
    let mut tar = fs::temp_file().at("make a temporary file for", path)?;
    io::copy(&mut format.reader(file), &mut tar).at("decompress", path)?;
    tar.rewind().at("decompress", path)?;
    Ok(tar)
}

impl Archive {
    /// The members, in canonical order.
    pub(super) fn rows(&self) -> &[IndexEntry] {
        &self.index.entries
    }

    /// The member at `path`.
    pub(super) fn row(&self, path: &LayerPath) -> Option<&IndexEntry> {
        let n = self
            .index
            .entries
            .binary_search_by(|row| row.entry.path.cmp(path))
            .ok()?;
        self.index.entries.get(n)
    }

    /// The content of the member at `path`.
    pub(super) fn read(&self, path: &LayerPath) -> Option<Result<Box<dyn Read + '_>, LayerError>> {
        let row = self.row(path)?;
        Some(match self.content.read(row) {
            Ok(reader) => Ok(reader),
            Err(error) => Err(error),
        })
    }
}
