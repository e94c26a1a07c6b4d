//! A layout as one tar: `oci-layout`, `index.json`, then the blobs in the order of their digests;
//! owner 0, modification time 0. Equal layouts have equal tars.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write},
    path::{Path, PathBuf},
};

use super::{LayoutError, Marker, VERSION, write::json};
use crate::{
    digest::Sha256Digest,
    fs::{self, IoContext as _},
    oci::{Descriptor, ImageIndex},
};

/// The parts of a layout, as bytes or as files, before they are written.
#[derive(Debug, Clone, Default)]
pub struct Archive {
    files: BTreeMap<String, Vec<u8>>,
    blobs: BTreeMap<Sha256Digest, BlobSource>,
}

#[derive(Debug, Clone)]
enum BlobSource {
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl Archive {
    /// Takes the blob `digest` from the file `from`. The caller vouches for its bytes.
    pub fn add_file(&mut self, digest: &Sha256Digest, from: impl AsRef<Path>) {
        let source = BlobSource::File(from.as_ref().to_owned());
        self.blobs.entry(*digest).or_insert(source);
    }

    /// Adds a small blob; gives its descriptor.
    pub fn add_json(&mut self, media_type: &str, value: &impl serde::Serialize) -> Descriptor {
        self.add_bytes(media_type, json(value))
    }

    /// Adds a small blob; gives its descriptor.
    pub fn add_bytes(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::of(media_type, &bytes);
        self.blobs
            .insert(descriptor.digest, BlobSource::Bytes(bytes));
        descriptor
    }

    /// Adds a document beside `index.json`, for instance Docker's `manifest.json`.
    pub fn add_document(&mut self, name: &str, value: &impl serde::Serialize) {
        self.files.insert(name.to_owned(), json(value));
    }

    /// The bytes of a small blob.
    pub fn document(&self, digest: &Sha256Digest) -> Option<&[u8]> {
        match self.blobs.get(digest)? {
            BlobSource::Bytes(bytes) => Some(bytes),
            BlobSource::File(_) => None,
        }
    }

    /// The small blobs, and the files of the others.
    pub fn put_into(self, writer: &mut super::LayoutWriter) -> Result<(), LayoutError> {
        for (digest, source) in &self.blobs {
            match source {
                BlobSource::Bytes(bytes) => {
                    writer.add_bytes("", bytes)?;
                }
                BlobSource::File(path) => writer.add_file(digest, path)?,
            }
        }
        Ok(())
    }

    /// Writes the tar, with these entries of `index.json`. `dest` is for messages.
    pub fn write<W: Write>(
        &self,
        manifests: Vec<Descriptor>,
        out: W,
        dest: &Path,
    ) -> Result<W, LayoutError> {
        let mut tar = tar::Builder::new(out);
        let marker = Marker {
            image_layout_version: VERSION.to_owned(),
        };
        let index = ImageIndex::new(manifests);
        append(&mut tar, "oci-layout", &json(&marker), dest)?;
        append(&mut tar, "index.json", &json(&index), dest)?;
        for (name, bytes) in &self.files {
            append(&mut tar, name, bytes, dest)?;
        }
        for name in ["blobs/", "blobs/sha256/"] {
            let mut header = header(tar::EntryType::Directory, 0o755, 0);
            tar.append_data(&mut header, name, std::io::empty())
                .at("write", dest)?;
        }
        for (digest, source) in &self.blobs {
            let name = format!("blobs/sha256/{}", digest.hex());
            match source {
                BlobSource::Bytes(bytes) => append(&mut tar, &name, bytes, dest)?,
                BlobSource::File(path) => append_file(&mut tar, &name, path, dest)?,
            }
        }
        Ok(tar.into_inner().at("write", dest)?)
    }
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    bytes: &[u8],
    dest: &Path,
) -> Result<(), LayoutError> {
    let mut header = header(tar::EntryType::Regular, 0o644, bytes.len() as u64);
    Ok(tar
        .append_data(&mut header, name, bytes)
        .at("write", dest)?)
}

fn append_file<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    path: &Path,
    dest: &Path,
) -> Result<(), LayoutError> {
    let file = fs::open(path)?;
    let size = file.metadata().at("inspect", path)?.len();
    let mut header = header(tar::EntryType::Regular, 0o644, size);
    // A file that grows meanwhile must not break the archive; one that shrinks does.
    Ok(tar
        .append_data(&mut header, name, file.take(size))
        .at("write", dest)?)
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_layouts_have_equal_tars() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("layer");
        std::fs::write(&file, b"layer").unwrap();
        let pack = |order: [&str; 2]| {
            let mut archive = Archive::default();
            for text in order {
                archive.add_json("m", &text);
            }
            archive.add_file(&Sha256Digest::of(b"layer"), &file);
            archive.add_document("manifest.json", &[1]);
            archive
                .write(Vec::new(), Vec::new(), Path::new("x.tar"))
                .unwrap()
        };
        let packed = pack(["x", "y"]);
        assert_eq!(packed, pack(["y", "x"]));
        let mut archive = tar::Archive::new(&packed[..]);
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().display().to_string())
            .collect();
        let mut blobs: Vec<String> = [&b"\"x\""[..], b"\"y\"", b"layer"]
            .iter()
            .map(|bytes| format!("blobs/sha256/{}", Sha256Digest::of(bytes).hex()))
            .collect();
        blobs.sort();
        let first = [
            "oci-layout",
            "index.json",
            "manifest.json",
            "blobs/",
            "blobs/sha256/",
        ];
        assert_eq!(names[..5], first);
        assert_eq!(names[5..], blobs);
    }
}
