//! Writing layouts as a directory.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Layout, LayoutError, Marker, VERSION, blob_path};
use crate::{
    digest::Sha256Digest,
    fs::{self, IoContext as _},
    oci::{Descriptor, ImageIndex},
};

/// A layout under construction beside its destination; dropped without
/// [`finish`](Self::finish), it is removed.
#[derive(Debug)]
pub struct LayoutWriter {
    temp: tempfile::TempDir,
    dest: PathBuf,
}

impl LayoutWriter {
    /// Starts a layout that will stand at `dest`. What stands there is replaced, if it
    /// is a layout or an empty directory.
    pub fn create(dest: impl AsRef<Path>) -> Result<Self, LayoutError> {
        let dest = dest.as_ref().to_owned();
        if fs::exists(&dest) && !is_replaceable(&dest) {
            return Err(LayoutError::Occupied { dir: dest });
        }
        let parent = match dest.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent)?;
        let temp = tempfile::Builder::new()
            .prefix(".tmp-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir_in(parent)
            .at("create a directory in", parent)?;
        fs::create_dir_all(temp.path().join("blobs/sha256"))?;
        Ok(Self { temp, dest })
    }

    /// Takes the blob `digest` over from the file `from`, by a hard link where possible.
    /// The caller vouches for its bytes.
    pub fn add_file(
        &mut self,
        digest: &Sha256Digest,
        from: impl AsRef<Path>,
    ) -> Result<(), LayoutError> {
        let path = blob_path(self.temp.path(), digest);
        if !fs::exists(&path) {
            fs::link_or_copy(from, &path)?;
        }
        Ok(())
    }

    /// Adds a small blob.
    pub fn add_bytes(&mut self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, LayoutError> {
        let descriptor = Descriptor::of(media_type, bytes);
        let path = blob_path(self.temp.path(), &descriptor.digest);
        if !fs::exists(&path) {
            fs::write_atomic(&path, bytes)?;
        }
        Ok(descriptor)
    }

    /// Adds a JSON document, without white space.
    pub fn add_json(
        &mut self,
        media_type: &str,
        value: &impl Serialize,
    ) -> Result<Descriptor, LayoutError> {
        self.add_bytes(media_type, &json(value))
    }

    /// Writes `index.json` with these entries and moves the layout to its destination.
    pub fn finish(self, manifests: Vec<Descriptor>) -> Result<Layout, LayoutError> {
        let temp = self.temp.path();
        let index = ImageIndex::new(manifests);
        fs::write_atomic(temp.join("index.json"), &json(&index))?;
        let marker = Marker {
            image_layout_version: VERSION.to_owned(),
        };
        fs::write_atomic(temp.join("oci-layout"), &json(&marker))?;
        put_in_place(temp, &self.dest)?;
        Ok(Layout {
            dir: self.dest,
            index,
        })
        // The temporary directory, which now holds the old layout if there was one,
        // is removed with the writer.
    }
}

/// The JSON form of one of our own documents.
pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "our documents have string keys only and no failing serialisers"
    )]
    serde_json::to_vec(value).expect("a document can be written as JSON")
}

/// Whether `dir` is a layout or an empty directory.
fn is_replaceable(dir: &Path) -> bool {
    let is_dir = std::fs::symlink_metadata(dir).is_ok_and(|m| m.is_dir());
    let is_empty = || std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    is_dir && (fs::exists(dir.join("oci-layout")) || is_empty())
}

/// Moves `temp` to `dest`; what stood there is afterwards at `temp`, or gone.
fn put_in_place(temp: &Path, dest: &Path) -> Result<(), LayoutError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};

    if !fs::exists(dest) {
        return Ok(fs::rename(temp, dest)?);
    }
    if renameat_with(CWD, temp, CWD, dest, RenameFlags::EXCHANGE).is_ok() {
        return Ok(());
    }
    // File systems without exchange leave a moment without a layout.
    fs::remove_dir_all(dest)?;
    Ok(fs::rename(temp, dest)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::layout::blob_names;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_layout_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("out");
        for text in ["one", "two"] {
            let mut writer = LayoutWriter::create(&dest).unwrap();
            let blob = writer.add_bytes("text/plain", text.as_bytes()).unwrap();
            let layout = writer.finish(vec![blob.clone()]).unwrap();
            assert_eq!(blob_names(&dest).unwrap(), [blob.digest.hex()]);
            assert_eq!(layout.document(&blob.digest).unwrap(), text.as_bytes());
            assert_eq!(Layout::open(&dest).unwrap().index(), layout.index());
        }
        drop(LayoutWriter::create(&dest).unwrap());
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn other_things_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        assert!(matches!(
            LayoutWriter::create(&dir),
            Err(LayoutError::Occupied { .. })
        ));
        assert!(matches!(
            LayoutWriter::create(dir.path().join("thesis.tex")),
            Err(LayoutError::Occupied { .. })
        ));
    }

    #[test]
    fn files_are_linked_not_copied() {
        use std::os::unix::fs::MetadataExt as _;

        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("blob");
        std::fs::write(&store, b"layer").unwrap();
        let digest = Sha256Digest::of(b"layer");
        let mut writer = LayoutWriter::create(dir.path().join("out")).unwrap();
        writer.add_file(&digest, &store).unwrap();
        writer.add_file(&digest, &store).unwrap();
        let layout = writer.finish(Vec::new()).unwrap();
        let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
        assert_eq!(inode(&layout.blob_path(&digest)), inode(&store));
    }
}
