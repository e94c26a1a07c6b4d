//! OCI image layouts (OCI image specification 1.1, "OCI Image Layout").
//!
//! ```text
//! oci-layout            {"imageLayoutVersion":"1.0.0"}
//! index.json            an image index; its entries name tags by annotation
//! blobs/sha256/<hex>    everything else
//! ```
//!
//! [`Layout`] reads one, [`LayoutWriter`] makes one: beside its destination, which it
//! replaces as a whole, so that readers see the old layout or the new one.
//! [`Archive`] writes one as a tar with a fixed order and fixed attributes: equal
//! layouts have equal tars. Blobs are verified when they are read whole; large ones are
//! for the reader to hash.

mod archive;
mod reference;
mod write;

pub use archive::Archive;
pub use reference::{LayoutReference, ParseLayoutReferenceError, Selector};
pub use write::LayoutWriter;

use std::{
    fmt,
    io::Read as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    descriptor::{Descriptor, media},
    index::ImageIndex,
    manifest::{Document, Manifest, ManifestError, ResolvedManifest},
    platform::Platform,
};
use crate::{
    digest::Sha256Digest,
    fs::{self, FsError, IoContext as _},
};

/// The annotation of an entry of `index.json` that names its tag.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Version of the format.
const VERSION: &str = "1.0.0";
/// Largest JSON document that is read into memory, in bytes.
const DOCUMENT_LIMIT: u64 = 16 << 20;
/// Documents looked at in nested indexes before we give up.
const NESTING_LIMIT: usize = 16;

/// The file `oci-layout`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

/// A failure to read or write a layout.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file can't be read or written.
    #[error(transparent)]
    File(#[from] FsError),
    /// The directory has no valid `oci-layout` file.
    #[error("`{}` is not an OCI image layout", dir.display())]
    NotALayout {
        /// The directory.
        dir: PathBuf,
    },
    /// A later version of the format.
    #[error("`{}` has the layout version `{version}`, only 1.x is known", dir.display())]
    Version {
        /// The directory.
        dir: PathBuf,
        /// Its version.
        version: String,
    },
    /// `index.json` is not an index.
    #[error("`{}` is not an image index", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// No image has the tag or digest.
    #[error("`{}` has no image `{wanted}`{}", dir.display(), Names(available))]
    NotFound {
        /// The directory.
        dir: PathBuf,
        /// The tag or digest.
        wanted: String,
        /// The tags there are.
        available: Vec<String>,
    },
    /// No tag was given and there are several images, or none.
    #[error("`{}` has {count} images; name one{}", dir.display(), Names(available))]
    NotOne {
        /// The directory.
        dir: PathBuf,
        /// Images in `index.json`.
        count: usize,
        /// The tags there are.
        available: Vec<String>,
    },
    /// The image is not there for this platform.
    #[error("the image in `{}` has no variant for `{platform}`", dir.display())]
    NoPlatform {
        /// The directory.
        dir: PathBuf,
        /// The platform asked for.
        platform: Box<Platform>,
        /// The platforms it has.
        available: Vec<Platform>,
    },
    /// A blob's bytes don't have its digest or size.
    #[error("`{}` is corrupt: it has {actual_size} bytes and the digest `{actual}`", path.display())]
    Corrupt {
        /// The blob's file.
        path: PathBuf,
        /// The digest of its bytes.
        actual: Sha256Digest,
        /// Their number.
        actual_size: u64,
    },
    /// A document is too large to be one.
    #[error("`{}` is too large for a manifest or configuration", path.display())]
    TooLarge {
        /// The blob's file.
        path: PathBuf,
    },
    /// The manifest is no image we can build on.
    #[error("the image `{digest}` in `{}` can't be used", dir.display())]
    Manifest {
        /// The directory.
        dir: PathBuf,
        /// The document.
        digest: Sha256Digest,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// Something else stands where the layout should be written.
    #[error("`{}` exists and is not an OCI image layout", dir.display())]
    Occupied {
        /// The destination.
        dir: PathBuf,
    },
}

/// `; it has …`, or nothing.
struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            write!(f, "{}`{name}`", if i == 0 { "; it has " } else { ", " })?;
        }
        Ok(())
    }
}

/// A layout that exists.
#[derive(Debug, Clone)]
pub struct Layout {
    dir: PathBuf,
    index: ImageIndex,
}

impl Layout {
    /// Opens the layout in `dir`.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, LayoutError> {
        let dir = dir.as_ref().to_owned();
        let marker = match fs::read(dir.join("oci-layout")) {
            Ok(bytes) => serde_json::from_slice::<Marker>(&bytes).ok(),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let Some(marker) = marker else {
            return Err(LayoutError::NotALayout { dir });
        };
        if !marker.image_layout_version.starts_with("1.") {
            return Err(LayoutError::Version {
                dir,
                version: marker.image_layout_version,
            });
        }
        let path = dir.join("index.json");
        let index = serde_json::from_slice(&fs::read(&path)?)
            .map_err(|source| LayoutError::Index { path, source })?;
        Ok(Self { dir, index })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The content of `index.json`.
    pub fn index(&self) -> &ImageIndex {
        &self.index
    }

    /// Where the blob `digest` lies, if it is there.
    pub fn blob_path(&self, digest: &Sha256Digest) -> PathBuf {
        blob_path(&self.dir, digest)
    }

    /// The bytes of a manifest, index or configuration, verified.
    pub fn document(&self, digest: &Sha256Digest) -> Result<Vec<u8>, LayoutError> {
        let path = self.blob_path(digest);
        let mut bytes = Vec::new();
        fs::open(&path)?
            .take(DOCUMENT_LIMIT + 1)
            .read_to_end(&mut bytes)
            .at("read", &path)?;
        if bytes.len() as u64 > DOCUMENT_LIMIT {
            return Err(LayoutError::TooLarge { path });
        }
        let actual = Sha256Digest::of(&bytes);
        if actual != *digest {
            return Err(LayoutError::Corrupt {
                path,
                actual,
                actual_size: bytes.len() as u64,
            });
        }
        Ok(bytes)
    }

    /// The entry of `index.json` that `selector` means.
    pub fn select(&self, selector: &Selector) -> Result<Descriptor, LayoutError> {
        let entries = &self.index.manifests;
        let not_found = |wanted: String| LayoutError::NotFound {
            dir: self.dir.clone(),
            wanted,
            available: self.tags(),
        };
        match selector {
            Selector::Tag(tag) => entries
                .iter()
                .find(|d| tag_of(d) == Some(tag))
                .cloned()
                .ok_or_else(|| not_found(tag.clone())),
            Selector::Digest(digest) => {
                if let Some(entry) = entries.iter().find(|d| d.digest == *digest) {
                    return Ok(entry.clone());
                }
                // A platform's manifest stands in a nested index only.
                match std::fs::metadata(self.blob_path(digest)) {
                    Ok(found) => Ok(Descriptor::new(media::MANIFEST, *digest, found.len())),
                    Err(_) => Err(not_found(digest.to_string())),
                }
            }
            Selector::Only => {
                let images: Vec<&Descriptor> =
                    entries.iter().filter(|d| !d.is_attestation()).collect();
                match images[..] {
                    [image] => Ok(image.clone()),
                    // One image under several tags is still one.
                    [first, ..] if images.iter().all(|d| d.digest == first.digest) => {
                        Ok(first.clone())
                    }
                    _ => Err(LayoutError::NotOne {
                        dir: self.dir.clone(),
                        count: images.len(),
                        available: self.tags(),
                    }),
                }
            }
        }
    }

    /// The image that `selector` means, for `platform`: its manifest and configuration,
    /// verified. The layers' blobs are not looked at.
    pub fn resolve(
        &self,
        selector: &Selector,
        platform: &Platform,
    ) -> Result<ResolvedManifest, LayoutError> {
        // Several images without tags may be the platforms of one.
        let top = match (self.select(selector), selector) {
            (Err(LayoutError::NotOne { count, .. }), Selector::Only)
                if count > 0 && self.is_one_image() =>
            {
                None
            }
            (found, _) => Some(found?),
        };
        let mut available = Vec::new();
        let mut open = match top {
            Some(descriptor) => vec![descriptor],
            None => best_last(&self.index, platform, &mut available),
        };
        for _ in 0..NESTING_LIMIT {
            let Some(next) = open.pop() else { break };
            match self.parse(&next)? {
                Document::Manifest(manifest) => return self.join(next.digest, manifest),
                Document::Index(index) => {
                    open.extend(best_last(&index, platform, &mut available));
                }
            }
        }
        Err(LayoutError::NoPlatform {
            dir: self.dir.clone(),
            platform: Box::new(platform.clone()),
            available,
        })
    }

    /// Reads the manifest or index of a descriptor.
    fn parse(&self, descriptor: &Descriptor) -> Result<Document, LayoutError> {
        let bytes = self.document(&descriptor.digest)?;
        Document::parse(&bytes, Some(&descriptor.media_type))
            .map_err(|source| self.unusable(descriptor.digest, source))
    }

    fn join(
        &self,
        digest: Sha256Digest,
        manifest: Manifest,
    ) -> Result<ResolvedManifest, LayoutError> {
        let config = self.document(&manifest.config.digest)?;
        ResolvedManifest::new(digest, manifest, &config)
            .map_err(|source| self.unusable(digest, source))
    }

    fn unusable(&self, digest: Sha256Digest, source: ManifestError) -> LayoutError {
        LayoutError::Manifest {
            dir: self.dir.clone(),
            digest,
            source,
        }
    }

    /// Whether all entries have a platform and none, or all the same, a tag.
    fn is_one_image(&self) -> bool {
        let entries = &self.index.manifests;
        entries
            .iter()
            .all(|d| d.platform.is_some() && tag_of(d) == tag_of(&entries[0]))
    }

    fn tags(&self) -> Vec<String> {
        let tags = self.index.manifests.iter().filter_map(tag_of);
        tags.map(str::to_owned).collect()
    }
}

fn tag_of(descriptor: &Descriptor) -> Option<&str> {
    descriptor.annotations.get(REF_NAME).map(String::as_str)
}

fn best_last(
    index: &ImageIndex,
    platform: &Platform,
    available: &mut Vec<Platform>,
) -> Vec<Descriptor> {
    available.extend(index.platforms());
    let candidates = index.candidates(platform).into_iter().rev();
    candidates.cloned().collect()
}

fn blob_path(dir: &Path, digest: &Sha256Digest) -> PathBuf {
    dir.join("blobs/sha256").join(digest.hex())
}

/// The names of the files in `blobs/sha256`, sorted; temporary files are left out.
pub(super) fn blob_names(dir: &Path) -> Result<Vec<String>, LayoutError> {
    let blobs = dir.join("blobs/sha256");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&blobs).at("list", &blobs)? {
        let entry = entry.at("list", &blobs)?;
        match entry.file_name().into_string() {
            Ok(name) if !name.starts_with('.') => names.push(name),
            _ => {}
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{ImageConfig, layer::DiffId};

    /// Writes an image whose only layer is the text of its platform.
    fn image(writer: &mut LayoutWriter, platform: &str) -> Descriptor {
        let platform: Platform = platform.parse().unwrap();
        let layer = platform.to_string();
        let mut config = ImageConfig::empty(&platform);
        config.rootfs.diff_ids = vec![DiffId(Sha256Digest::of(layer.as_bytes()))];
        let layer = writer.add_bytes(media::LAYER, layer.as_bytes()).unwrap();
        let config = writer.add_json(media::CONFIG, &config).unwrap();
        let manifest = Manifest::new(config, vec![layer]);
        let manifest = writer.add_json(media::MANIFEST, &manifest).unwrap();
        manifest.with_platform(&platform)
    }

    fn tag(descriptor: Descriptor, tag: &str) -> Descriptor {
        descriptor.with_annotation(REF_NAME, tag)
    }

    fn resolved(layout: &Layout, selector: &Selector, platform: &str) -> Result<String, String> {
        match layout.resolve(selector, &platform.parse().unwrap()) {
            Ok(resolved) => Ok(resolved.config.platform().to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn images_are_chosen_by_tag_digest_and_platform() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("out");
        let mut writer = LayoutWriter::create(&dest).unwrap();
        let amd64 = image(&mut writer, "linux/amd64");
        let arm = image(&mut writer, "linux/arm/v6");
        let index = ImageIndex::new(vec![amd64.clone(), arm.clone()]);
        let index = writer.add_json(media::INDEX, &index).unwrap();
        let layout = writer
            .finish(vec![tag(index, "many"), tag(arm.clone(), "arm")])
            .unwrap();
        let many = Selector::Tag("many".into());
        for (selector, platform, expected) in [
            (&many, "linux/amd64", "linux/amd64"),
            (&many, "linux/arm/v7", "linux/arm/v6"),
            (&Selector::Tag("arm".into()), "linux/arm/v6", "linux/arm/v6"),
            (
                &Selector::Digest(amd64.digest),
                "linux/amd64",
                "linux/amd64",
            ),
        ] {
            assert_eq!(resolved(&layout, selector, platform).unwrap(), expected);
        }
        for (selector, platform, expected) in [
            (&many, "linux/s390x", "has no variant for `linux/s390x`"),
            (
                &Selector::Only,
                "linux/amd64",
                "has 2 images; name one; it has `many`, `arm`",
            ),
            (
                &Selector::Tag("x".into()),
                "linux/amd64",
                "has no image `x`; it has `many`",
            ),
            (
                &Selector::Digest(Sha256Digest::of(b"")),
                "linux/amd64",
                "has no image `sha256:e3b0",
            ),
        ] {
            let error = resolved(&layout, selector, platform).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_only_image_needs_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, images: &[&str], tags: &[&str]| {
            let mut writer = LayoutWriter::create(dir.path().join(name)).unwrap();
            let mut entries: Vec<Descriptor> =
                images.iter().map(|p| image(&mut writer, p)).collect();
            if let ([entry], [_, ..]) = (&entries[..], tags) {
                entries = tags.iter().map(|t| tag(entry.clone(), t)).collect();
            }
            writer.finish(entries).unwrap()
        };
        let only = &Selector::Only;
        let one = write("one", &["linux/amd64"], &[]);
        assert_eq!(resolved(&one, only, "linux/amd64").unwrap(), "linux/amd64");
        let twice = write("twice", &["linux/amd64"], &["a", "b"]);
        assert_eq!(
            resolved(&twice, only, "linux/amd64").unwrap(),
            "linux/amd64"
        );
        let platforms = write("platforms", &["linux/amd64", "linux/arm64"], &[]);
        assert_eq!(
            resolved(&platforms, only, "linux/arm64").unwrap(),
            "linux/arm64"
        );
        let none = write("none", &[], &[]);
        assert!(
            resolved(&none, only, "linux/amd64")
                .unwrap_err()
                .contains("0 images")
        );
    }

    #[test]
    fn changed_bytes_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("out");
        let mut writer = LayoutWriter::create(&dest).unwrap();
        let entry = image(&mut writer, "linux/amd64");
        let layout = writer.finish(vec![entry.clone()]).unwrap();
        std::fs::write(layout.blob_path(&entry.digest), b"{}").unwrap();
        let platform = "linux/amd64".parse().unwrap();
        assert!(matches!(
            layout.resolve(&Selector::Only, &platform),
            Err(LayoutError::Corrupt { actual_size: 2, .. })
        ));
    }

    #[test]
    fn what_is_no_layout_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            Layout::open(&dir),
            Err(LayoutError::NotALayout { .. })
        ));
        assert!(matches!(
            Layout::open("/nonexistent"),
            Err(LayoutError::NotALayout { .. })
        ));
        let marker = dir.path().join("oci-layout");
        std::fs::write(marker, r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
        assert!(matches!(
            Layout::open(&dir),
            Err(LayoutError::Version { .. })
        ));
    }
}
