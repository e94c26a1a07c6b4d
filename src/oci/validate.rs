//! Checks a whole image layout, as a distrustful consumer would.
//!
//! Every blob is hashed again; every document reachable from `index.json` is read;
//! every layer is unpacked in memory and compared with its diff id.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufReader, Read},
    path::Path,
};

use super::{
    config::ImageConfig,
    descriptor::{Descriptor, MediaKind},
    layer::{Compression, DiffId},
    layout::{Layout, LayoutError, blob_names},
    manifest::{Document, Manifest, ManifestError},
};
use crate::{
    digest::{HashingReader, Sha256Digest},
    fs,
};

/// One thing that is wrong with a layout.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A file in `blobs/sha256` is not named by a digest.
    #[error("`{name}` is not the name of a blob")]
    Name {
        /// The file's name.
        name: String,
    },
    /// A blob's bytes have another digest than its name.
    #[error("the blob `{digest}` has the digest `{actual}`")]
    Digest {
        /// Its name.
        digest: Sha256Digest,
        /// Its bytes' digest.
        actual: Sha256Digest,
    },
    /// A blob has another size than a descriptor says.
    #[error("the blob `{digest}` has {actual} bytes, its descriptor says {expected}")]
    Size {
        /// The blob.
        digest: Sha256Digest,
        /// The descriptor's size.
        expected: u64,
        /// The file's size.
        actual: u64,
    },
    /// A blob is named and not there.
    #[error("the blob `{digest}` (`{media_type}`) is missing")]
    Missing {
        /// The blob.
        digest: Sha256Digest,
        /// What it should be.
        media_type: String,
    },
    /// A descriptor's media type doesn't fit its place or its content.
    #[error("the blob `{digest}` has the media type `{media_type}`, expected {expected}")]
    MediaType {
        /// The blob.
        digest: Sha256Digest,
        /// The descriptor's type.
        media_type: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// A document can't be read.
    #[error("the document `{digest}` is not valid")]
    Document {
        /// The blob.
        digest: Sha256Digest,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// A manifest and its configuration disagree on the number of layers.
    #[error("the manifest `{digest}` has {layers} layers, its configuration {diff_ids}")]
    LayerCount {
        /// The manifest.
        digest: Sha256Digest,
        /// Its layers.
        layers: usize,
        /// The configuration's diff ids.
        diff_ids: usize,
    },
    /// A layer's tar has another digest than the configuration says.
    #[error("the layer `{digest}` has the diff id `{actual}`, the configuration says `{expected}`")]
    DiffId {
        /// The blob.
        digest: Sha256Digest,
        /// As the configuration says.
        expected: DiffId,
        /// As computed.
        actual: DiffId,
    },
    /// A layer can't be decompressed.
    #[error("the layer `{digest}` can't be decompressed")]
    Decompress {
        /// The blob.
        digest: Sha256Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The history names another number of layers than there are.
    #[error("the history of `{digest}` has {history} layers, the image {layers}")]
    History {
        /// The manifest.
        digest: Sha256Digest,
        /// Entries of the history that made a layer.
        history: usize,
        /// Layers.
        layers: usize,
    },
}

/// All problems of the layout in `dir`; none means that it is whole. An error means
/// that it can't be checked at all.
pub fn layout(dir: impl AsRef<Path>) -> Result<Vec<Problem>, LayoutError> {
    let layout = Layout::open(dir)?;
    let mut check = Check {
        sizes: BTreeMap::new(),
        seen: BTreeSet::new(),
        problems: Vec::new(),
        layout: &layout,
    };
    check.blobs()?;
    for descriptor in &layout.index().manifests {
        check.document(descriptor)?;
    }
    Ok(check.problems)
}

struct Check<'a> {
    layout: &'a Layout,
    /// The blobs that are there.
    sizes: BTreeMap<Sha256Digest, u64>,
    /// The documents and layers (with their diff ids) that were looked at.
    seen: BTreeSet<(Sha256Digest, Option<DiffId>)>,
    problems: Vec<Problem>,
}

impl Check<'_> {
    /// Hashes all files in `blobs/sha256`.
    fn blobs(&mut self) -> Result<(), LayoutError> {
        for name in blob_names(self.layout.dir())? {
            let Ok(digest) = Sha256Digest::from_hex(&name) else {
                self.problems.push(Problem::Name { name });
                continue;
            };
            let path = self.layout.blob_path(&digest);
            let file = fs::open(&path)?;
            let hashes = hash(file).map_err(|source| fs::FsError {
                act: "read",
                path,
                source,
            })?;
            self.sizes.insert(digest, hashes.size);
            if hashes.sha256 != digest {
                self.problems.push(Problem::Digest {
                    digest,
                    actual: hashes.sha256,
                });
            }
        }
        Ok(())
    }

    /// Whether the blob of a descriptor is there with the right size.
    fn is_there(&mut self, descriptor: &Descriptor) -> bool {
        let digest = descriptor.digest;
        match self.sizes.get(&digest) {
            None => {
                self.problems.push(Problem::Missing {
                    digest,
                    media_type: descriptor.media_type.clone(),
                });
                false
            }
            Some(&actual) if actual != descriptor.size => {
                self.problems.push(Problem::Size {
                    digest,
                    expected: descriptor.size,
                    actual,
                });
                true
            }
            Some(_) => true,
        }
    }

    /// A manifest or an index, and what hangs on it.
    fn document(&mut self, descriptor: &Descriptor) -> Result<(), LayoutError> {
        let first_time = self.seen.insert((descriptor.digest, None));
        if !first_time || !self.is_there(descriptor) {
            return Ok(());
        }
        let bytes = match self.layout.document(&descriptor.digest) {
            Ok(bytes) => bytes,
            // Already a problem of its own.
            Err(LayoutError::Corrupt { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let digest = descriptor.digest;
        match (
            Document::parse(&bytes, Some(&descriptor.media_type)),
            descriptor.kind(),
        ) {
            (Ok(Document::Index(index)), MediaKind::Index) => {
                for nested in &index.manifests {
                    self.document(nested)?;
                }
                Ok(())
            }
            (Ok(Document::Manifest(manifest)), MediaKind::Manifest) => {
                self.manifest(digest, &manifest)
            }
            (Ok(document), _) => {
                self.media_type(
                    descriptor,
                    match document {
                        Document::Index(_) => "that of an index",
                        Document::Manifest(_) => "that of a manifest",
                    },
                );
                Ok(())
            }
            (Err(source), _) => {
                self.problems.push(Problem::Document { digest, source });
                Ok(())
            }
        }
    }

    fn media_type(&mut self, descriptor: &Descriptor, expected: &'static str) {
        self.problems.push(Problem::MediaType {
            digest: descriptor.digest,
            media_type: descriptor.media_type.clone(),
            expected,
        });
    }

    fn manifest(&mut self, digest: Sha256Digest, manifest: &Manifest) -> Result<(), LayoutError> {
        let parts = std::iter::once(&manifest.config).chain(&manifest.layers);
        let there: Vec<bool> = parts.map(|part| self.is_there(part)).collect();
        // Attestations and artifacts have layers of their own kinds.
        if manifest.config.kind() != MediaKind::Config {
            if manifest.artifact_type.is_none() {
                self.media_type(&manifest.config, "that of an image configuration");
            }
            return Ok(());
        }
        let is_image = manifest
            .layers
            .iter()
            .all(|layer| layer.media_type != "application/vnd.in-toto+json");
        if !there[0] || !is_image {
            return Ok(());
        }
        let config = match self.layout.document(&manifest.config.digest) {
            Ok(bytes) => bytes,
            Err(LayoutError::Corrupt { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let config: ImageConfig = match serde_json::from_slice(&config) {
            Ok(config) => config,
            Err(source) => {
                self.problems.push(Problem::Document {
                    digest: manifest.config.digest,
                    source: ManifestError::Json {
                        what: "image configuration",
                        source,
                    },
                });
                return Ok(());
            }
        };
        self.counts(digest, manifest, &config);
        let layers = manifest.layers.iter().zip(&config.rootfs.diff_ids);
        for ((layer, diff_id), is_there) in layers.zip(&there[1..]) {
            if *is_there {
                self.layer(layer, *diff_id)?;
            }
        }
        Ok(())
    }

    /// The numbers of layers in manifest, configuration and history.
    fn counts(&mut self, digest: Sha256Digest, manifest: &Manifest, config: &ImageConfig) {
        let layers = manifest.layers.len();
        let diff_ids = config.rootfs.diff_ids.len();
        if layers != diff_ids {
            self.problems.push(Problem::LayerCount {
                digest,
                layers,
                diff_ids,
            });
        }
        let history = config.history.iter().filter(|step| !step.empty_layer);
        let history = history.count();
        if !config.history.is_empty() && history != layers {
            self.problems.push(Problem::History {
                digest,
                history,
                layers,
            });
        }
    }

    fn layer(&mut self, layer: &Descriptor, expected: DiffId) -> Result<(), LayoutError> {
        if !self.seen.insert((layer.digest, Some(expected))) {
            return Ok(());
        }
        let digest = layer.digest;
        let MediaKind::Layer(compression) = layer.kind() else {
            self.media_type(layer, "that of a layer");
            return Ok(());
        };
        let file = fs::open(self.layout.blob_path(&digest))?;
        match decompress(file, compression).and_then(hash) {
            Ok(hashes) if DiffId(hashes.sha256) == expected => {}
            Ok(hashes) => self.problems.push(Problem::DiffId {
                digest,
                expected,
                actual: DiffId(hashes.sha256),
            }),
            Err(source) => self.problems.push(Problem::Decompress { digest, source }),
        }
        Ok(())
    }
}

/// The digest and size of all that `reader` gives.
fn hash(reader: impl Read) -> io::Result<crate::digest::ReadHashes> {
    let mut reader = HashingReader::new(reader);
    io::copy(&mut reader, &mut io::sink())?;
    Ok(reader.hashes())
}

/// The tar in a layer's blob, all members and frames of it.
fn decompress(file: impl Read + 'static, compression: Compression) -> io::Result<Box<dyn Read>> {
    let blob = BufReader::new(file);
    Ok(match compression {
        Compression::None => Box::new(blob),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(blob)?),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::oci::{descriptor::media, layout::LayoutWriter, platform::Platform};

    struct Sample {
        dir: tempfile::TempDir,
        layout: Layout,
        layers: Vec<Descriptor>,
        config: Descriptor,
    }

    /// A layout with one image of a gzip, a zstd and a plain layer.
    fn sample(edit: impl FnOnce(&mut ImageConfig, &mut Manifest)) -> Sample {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LayoutWriter::create(dir.path().join("out")).unwrap();
        let mut config = ImageConfig::empty(&Platform::normal("linux", "amd64", None));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"one").unwrap();
        let blobs = [
            ("+gzip", gzip.finish().unwrap(), &b"one"[..]),
            ("+zstd", zstd::encode_all(&b"two"[..], 3).unwrap(), b"two"),
            ("", b"three".to_vec(), b"three"),
        ];
        let mut layers = Vec::new();
        for (suffix, blob, tar) in &blobs {
            let media_type = format!("{}{suffix}", media::LAYER);
            layers.push(writer.add_bytes(&media_type, blob).unwrap());
            config.rootfs.diff_ids.push(DiffId(Sha256Digest::of(tar)));
        }
        let mut manifest = Manifest::new(Descriptor::of(media::CONFIG, b""), layers.clone());
        edit(&mut config, &mut manifest);
        let config = writer.add_json(media::CONFIG, &config).unwrap();
        manifest.config = config.clone();
        let manifest = writer.add_json(media::MANIFEST, &manifest).unwrap();
        let layout = writer.finish(vec![manifest]).unwrap();
        Sample {
            dir,
            layout,
            layers,
            config,
        }
    }

    fn problems(sample: &Sample) -> Vec<String> {
        let found = super::layout(sample.dir.path().join("out")).unwrap();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_whole_layout_has_no_problems() {
        assert_eq!(problems(&sample(|_, _| {})), Vec::<String>::new());
    }

    #[test]
    fn damaged_blobs_are_told() {
        let sample = sample(|_, _| {});
        let digest = sample.layers[2].digest;
        fs::write_atomic(sample.layout.blob_path(&digest), b"thrEE").unwrap();
        let found = super::layout(sample.layout.dir()).unwrap();
        assert!(matches!(
            found[..],
            [Problem::Digest { .. }, Problem::DiffId { .. }]
        ));
        fs::write_atomic(sample.layout.blob_path(&sample.layers[0].digest), b"x").unwrap();
        let found = super::layout(sample.layout.dir()).unwrap();
        assert!(
            found
                .iter()
                .any(|p| matches!(p, Problem::Size { actual: 1, .. }))
        );
        assert!(
            found
                .iter()
                .any(|p| matches!(p, Problem::Decompress { .. }))
        );
    }

    #[test]
    fn missing_blobs_are_told() {
        let sample = sample(|_, _| {});
        fs::remove_file(sample.layout.blob_path(&sample.config.digest)).unwrap();
        assert_eq!(
            problems(&sample),
            [format!(
                "the blob `{}` (`{}`) is missing",
                sample.config.digest,
                media::CONFIG
            )]
        );
    }

    #[test]
    fn manifest_and_configuration_must_agree() {
        let wrong = DiffId(Sha256Digest::of(b"else"));
        let found = problems(&sample(|config, _| config.rootfs.diff_ids[1] = wrong));
        assert!(found[0].contains("the configuration says"), "{found:?}");
        let found = problems(&sample(|config, _| config.rootfs.diff_ids.truncate(2)));
        assert!(
            found[0].contains("has 3 layers, its configuration 2"),
            "{found:?}"
        );
        let found = problems(&sample(|config, _| {
            config.history = vec![Default::default()]
        }));
        assert!(found[0].contains("history"), "{found:?}");
        let found = problems(&sample(|_, manifest| {
            manifest.layers[1].media_type = "x/y".into()
        }));
        assert!(found[0].contains("expected that of a layer"), "{found:?}");
    }

    #[test]
    fn strange_files_are_told() {
        let sample = sample(|_, _| {});
        fs::write_atomic(sample.layout.dir().join("blobs/sha256/README"), b"x").unwrap();
        assert_eq!(problems(&sample), ["`README` is not the name of a blob"]);
    }
}
