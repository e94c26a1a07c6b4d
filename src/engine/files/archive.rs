//! Local tar archives that ADD unpacks.
//!
//! An archive is read like a foreign layer: one pass makes its index, members are then
//! read through [`LayerContent`].

use std::{
    io::{Read, Seek},
    path::Path,
    sync::Arc,
};

use super::{FileError, write::open_beneath};
use crate::{
    digest::Blake3Digest,
    fs::IoContext as _,
    oci::layer::{self, IndexEntry, LayerContent, LayerError, LayerIndex, LayerPath},
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
    let mut magic = [0; 512];
    let mut filled = 0;
    while filled < magic.len() {
        match file.read(&mut magic[filled..]).at("read", path)? {
            0 => break,
            n => filled += n,
        }
    }
    let unsupported = |format| {
        Err(FileError::ArchiveFormat {
            path: named.to_string(),
            format,
        })
    };
    let media_type = match &magic[..filled] {
        [0x1f, 0x8b, ..] => "application/vnd.oci.image.layer.v1.tar+gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "application/vnd.oci.image.layer.v1.tar+zstd",
        [b'B', b'Z', b'h', ..] => return unsupported("bzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => return unsupported("xz"),
        header if is_tar_header(header) => "application/vnd.oci.image.layer.v1.tar",
        _ => return Ok(None),
    };
    file.rewind().at("read", path)?;
    // A compressed file that holds no tar is copied as it is.
    if !media_type.ends_with(".tar") {
        let mut head = Vec::new();
        let tar = layer::decompress(file.try_clone().at("read", path)?, media_type)?;
        if tar.take(512).read_to_end(&mut head).is_err() || !is_tar_header(&head) {
            return Ok(None);
        }
        file.rewind().at("read", path)?;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&file).at("read", path)?;
    if Blake3Digest::from_bytes(*hasher.finalize().as_bytes()) != digest {
        return Err(FileError::Changed {
            path: named.to_string(),
        });
    }
    file.rewind().at("read", path)?;
    let scanned = layer::scan(&file, media_type)?;
    file.rewind().at("read", path)?;
    let index = Arc::new(scanned.index);
    let content = LayerContent::open(file, media_type, Arc::clone(&index))?;
    Ok(Some(Archive { index, content }))
}

/// Whether a block is the header of a tar member: its checksum is right.
fn is_tar_header(block: &[u8]) -> bool {
    let Some(block) = block.first_chunk::<512>() else {
        return false;
    };
    let field: String = block[148..156]
        .iter()
        .map(|b| char::from(*b))
        .filter(|c| c.is_digit(8))
        .collect();
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(n, b)| {
            if (148..156).contains(&n) {
                32
            } else {
                u32::from(*b)
            }
        })
        .sum();
    // A block of zeros ends an archive; it is no header.
    sum != 256 && u32::from_str_radix(&field, 8) == Ok(sum)
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
