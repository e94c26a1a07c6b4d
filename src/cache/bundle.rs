//! A bundle: entries and blobs of the local store as an OCI image layout, a directory or one tar,
//! to carry them where no network leads.
//!
//! [`export`] writes one, [`import`] reads one. Each entry is an image manifest of the form that
//! entries have in a registry (`docs/internals/remote-cache.md`, "Registry"), under its tag as
//! `org.opencontainers.image.ref.name`, so that a bundle copied to a repository by any tool that copies images is a cache there.
//! An entry whose blobs are not all there is left out. On import every blob is compared with its digest
//! and every entry with its tag, and the caller says whose entries it takes.

use std::{
    collections::BTreeSet,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{
    ActionResult, CacheError, DiskStore,
    oci::{
        EntryError,
        entry::{self, Found},
    },
};
use crate::{
    digest::Sha256Digest,
    fs::{self, FsError, IoContext as _},
    oci::{
        Document,
        descriptor::media,
        layout::{Archive, Layout, LayoutError, LayoutWriter, REF_NAME},
    },
};

/// Largest file of a tar that is no blob, in bytes: an index of a hundred thousand entries.
const DOCUMENT_LIMIT: u64 = 64 << 20;

/// A bundle that can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The local store failed.
    #[error("the local cache can't be used")]
    Store(#[from] CacheError),
    /// The layout can't be written or is none.
    #[error("the bundle can't be used")]
    Layout(#[from] LayoutError),
    /// A file failed.
    #[error(transparent)]
    File(#[from] FsError),
    /// The tar has a file that no layout has.
    #[error("`{}` is no bundle: it has `{name}`", bundle.display())]
    Foreign {
        /// The tar.
        bundle: PathBuf,
        /// The file in it.
        name: String,
    },
    /// A manifest of the bundle is no entry.
    #[error("`{tag}` of the bundle is no cache entry")]
    Entry {
        /// The tag it stands under.
        tag: String,
        /// Why.
        #[source]
        source: Box<EntryError>,
    },
    /// An entry stands under another entry's tag.
    #[error("`{tag}` of the bundle holds the entry of another scope or key")]
    Tag {
        /// The tag.
        tag: String,
    },
}

/// What was written or read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BundleReport {
    /// Entries.
    pub entries: usize,
    /// Entries that were left out: blobs that aren't there, or nobody vouches for them.
    pub left_out: usize,
    /// Blobs that entries name.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Writes `entries` and their blobs to `dest`: one tar if its name ends with `.tar`, else a directory.
pub fn export(
    store: &DiskStore,
    entries: &[ActionResult],
    dest: &Path,
) -> Result<BundleReport, BundleError> {
    let mut report = BundleReport::default();
    let mut archive = Archive::default();
    let mut manifests = Vec::new();
    let mut known = BTreeSet::new();
    for result in entries {
        let mut files = Vec::new();
        for digest in result.blobs() {
            match store.blob(&digest)? {
                Some(file) => files.push((digest, file)),
                None => break,
            }
        }
        if files.len() < result.blobs().len() {
            report.left_out += 1;
            continue;
        }
        for (digest, file) in &files {
            if known.insert(*digest) {
                archive.add_file(digest, &file.path);
                report.blobs += 1;
                report.bytes += file.size;
            }
        }
        let index = result.layer.as_ref().and_then(|layer| layer.index);
        let index = index.and_then(|index| files.iter().find(|(digest, _)| *digest == index));
        let json = result.encode();
        let manifest = entry::manifest(result, &json, index.map(|(_, file)| file.size));
        archive.add_bytes(entry::ENTRY, json);
        let manifest = archive.add_bytes(media::MANIFEST, manifest.to_vec());
        manifests.push(manifest.with_annotation(REF_NAME, &entry::tag(&result.scope, &result.key)));
        report.entries += 1;
    }
    match dest.extension().is_some_and(|extension| extension == "tar") {
        true => {
            let file = archive.write(manifests, fs::AtomicFile::create(dest)?, dest)?;
            file.commit()?;
        }
        false => {
            let mut writer = LayoutWriter::create(dest)?;
            archive.put_into(&mut writer)?;
            writer.finish(manifests)?;
        }
    }
    Ok(report)
}

/// Reads the bundle at `source`, a directory or a tar, into the store: the entries that `accept`
/// has no objection to, with their blobs.
pub fn import(
    store: &DiskStore,
    source: &Path,
    accept: &dyn Fn(&ActionResult) -> bool,
) -> Result<BundleReport, BundleError> {
    let unpacked;
    let layout = match source.is_dir() {
        true => Layout::open(source)?,
        false => {
            unpacked = unpack(source, &store.temp_dir())?;
            Layout::open(unpacked.path())?
        }
    };
    let mut report = BundleReport::default();
    let mut known = BTreeSet::new();
    for descriptor in &layout.index().manifests {
        let tag = descriptor
            .annotations
            .get(REF_NAME)
            .cloned()
            .unwrap_or_default();
        let result = read(&layout, &tag, &descriptor.digest)?;
        if !accept(&result) {
            report.left_out += 1;
            continue;
        }
        for digest in result.blobs() {
            if known.insert(digest) {
                report.bytes += copy(store, &layout, digest)?;
                report.blobs += 1;
            }
        }
        // The blobs are there: now the entry may say so.
        store.put_action(&result)?;
        report.entries += 1;
    }
    Ok(report)
}

/// The entry in the manifest `digest`, which stands under `tag`.
fn read(layout: &Layout, tag: &str, digest: &Sha256Digest) -> Result<ActionResult, BundleError> {
    let wrong = |source: EntryError| BundleError::Entry {
        tag: tag.to_owned(),
        source: Box::new(source),
    };
    let bytes = layout.document(digest)?;
    let manifest = match Document::parse(&bytes, None) {
        Ok(Document::Manifest(manifest)) => manifest,
        Ok(Document::Index(_)) => {
            return Err(wrong(EntryError::Type {
                found: "index".to_owned(),
            }));
        }
        Err(error) => return Err(wrong(error.into())),
    };
    let json = layout.document(&manifest.config.digest)?;
    let result = ActionResult::read(&json).map_err(|error| wrong(error.into()))?;
    // The manifest must be what the entry gives, as a reader of a registry would see it.
    match entry::read(&result.scope, result.key, &bytes).map_err(wrong)? {
        Found::Entry(inline) if inline != result => {}
        _ if entry::tag(&result.scope, &result.key) == tag => return Ok(result),
        _ => {}
    }
    Err(BundleError::Tag {
        tag: tag.to_owned(),
    })
}

/// Copies a blob into the store, which compares it with its digest; gives its size in bytes.
fn copy(store: &DiskStore, layout: &Layout, digest: Sha256Digest) -> Result<u64, BundleError> {
    let path = layout.blob_path(&digest);
    let mut file = fs::open(&path)?;
    let mut writer = store.writer()?;
    io::copy(&mut file, &mut writer).at("copy", &path)?;
    let size = writer.size();
    writer.commit(Some(digest))?;
    Ok(size)
}

/// Unpacks the tar of a layout to a temporary directory in `dir`. Nothing but the files of a layout
/// is made, whatever the tar names.
fn unpack(source: &Path, dir: &Path) -> Result<tempfile::TempDir, BundleError> {
    let foreign = |name: &str| BundleError::Foreign {
        bundle: source.to_owned(),
        name: name.to_owned(),
    };
    let root = fs::temp_dir_in(dir)?;
    fs::create_dir_all(root.path().join("blobs/sha256"))?;
    let mut archive = tar::Archive::new(fs::open(source)?);
    for entry in archive.entries().at("read", source)? {
        let mut entry = entry.at("read", source)?;
        let name = entry.path().at("read", source)?;
        let name = name.to_string_lossy().into_owned();
        let name = name
            .trim_start_matches("./")
            .trim_end_matches('/')
            .to_owned();
        if entry.header().entry_type().is_dir() {
            match name.as_str() {
                "" | "blobs" | "blobs/sha256" => continue,
                other => return Err(foreign(other)),
            }
        }
        let blob = name.strip_prefix("blobs/sha256/");
        let is_blob = blob.is_some_and(|hex| Sha256Digest::from_hex(hex).is_ok());
        let is_document = matches!(name.as_str(), "oci-layout" | "index.json");
        if !entry.header().entry_type().is_file() || !(is_blob || is_document) {
            return Err(foreign(&name));
        }
        if is_document && entry.size() > DOCUMENT_LIMIT {
            return Err(foreign(&name));
        }
        let path = root.path().join(&name);
        let mut file = fs::create(&path)?;
        let size = entry.size();
        io::copy(&mut (&mut entry).take(size), &mut file).at("unpack", &path)?;
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::cache::{Scope, conformance::sample_action};

    /// A store with entries in two scopes, one of them without its blob.
    fn filled() -> (tempfile::TempDir, DiskStore, Vec<ActionResult>) {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskStore::open(dir.path()).unwrap();
        let put = |bytes: &[u8]| {
            let mut writer = store.writer().unwrap();
            writer.write_all(bytes).unwrap();
            writer.commit(None).unwrap()
        };
        let (layer, index) = (put(b"layer"), put(b"index"));
        let entries = vec![
            sample_action(1, &[layer, index]),
            ActionResult {
                scope: Scope::protected(),
                ..sample_action(1, &[layer])
            },
            sample_action(2, &[]),
            sample_action(3, &[Sha256Digest::of(b"gone")]),
        ];
        for entry in &entries {
            store.put_action(entry).unwrap();
        }
        (dir, store, entries)
    }

    #[test]
    fn what_is_exported_can_be_imported() {
        let (dir, store, entries) = filled();
        for name in ["bundle", "bundle.tar"] {
            let dest = dir.path().join(name);
            let report = export(&store, &entries, &dest).unwrap();
            let expected = BundleReport {
                entries: 3,
                left_out: 1,
                blobs: 2,
                bytes: 10,
            };
            assert_eq!(report, expected);
            let other = tempfile::tempdir().unwrap();
            let other = DiskStore::open(other.path()).unwrap();
            let read = import(&other, &dest, &|_| true).unwrap();
            assert_eq!(
                read,
                BundleReport {
                    left_out: 0,
                    ..expected
                }
            );
            let mut found: Vec<_> = other.actions().unwrap();
            found.sort_by_key(|stored| stored.result.id());
            let mut wanted = entries[..3].to_vec();
            wanted.sort_by_key(ActionResult::id);
            let found: Vec<_> = found.into_iter().map(|stored| stored.result).collect();
            assert_eq!(found, wanted);
            assert!(other.verify(&mut |_| {}).unwrap().incomplete.is_empty());
            let some = import(&other, &dest, &|entry| entry.scope == Scope::protected());
            assert_eq!(some.unwrap().left_out, 2);
        }
    }

    #[test]
    fn what_was_changed_is_refused() {
        let (dir, store, entries) = filled();
        let dest = dir.path().join("bundle");
        let make = || export(&store, &entries[..2], &dest).unwrap();
        let import = || import(&store, &dest, &|_| true).unwrap_err();
        make();
        let blob = dest
            .join("blobs/sha256")
            .join(Sha256Digest::of(b"layer").hex());
        fs::remove_file(&blob).unwrap();
        fs::write_atomic(&blob, b"other").unwrap();
        assert!(matches!(
            import(),
            BundleError::Store(CacheError::Corrupt { .. })
        ));
        make();
        let index = dest.join("index.json");
        let text = fs::read_to_string(&index).unwrap();
        // An entry of one scope under the tag of the other.
        fs::write_atomic(
            &index,
            text.replace("e1-local-", "e1-protected-").as_bytes(),
        )
        .unwrap();
        assert!(matches!(import(), BundleError::Tag { .. }));
    }

    #[test]
    fn a_tar_makes_no_files_but_those_of_a_layout() {
        let (dir, store, _) = filled();
        for name in ["../escaped", "blobs/sha256/short", "etc/passwd"] {
            let path = dir.path().join("hostile.tar");
            let mut header = tar::Header::new_ustar();
            header.set_size(1);
            // The library refuses to write such names by its own functions.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            let mut tar = tar::Builder::new(fs::create(&path).unwrap());
            tar.append(&header, &b"x"[..]).unwrap();
            tar.finish().unwrap();
            let error = import(&store, &path, &|_| true).unwrap_err();
            assert!(matches!(error, BundleError::Foreign { .. }), "{error}");
        }
        assert!(!dir.path().join("escaped").exists());
    }
}
