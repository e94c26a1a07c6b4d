//! Image manifests (OCI image specification 1.1, "OCI Image Manifest"; Docker's
//! schema 2), and [`ResolvedManifest`], an image of one platform with everything
//! that can be known without the layers' bytes.
//!
//! A document is told apart by its own `mediaType`, else by its members. One that has the members of a manifest *and* of
//! an index is refused: two readers could see two images (CVE-2021-41190).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    config::ImageConfig,
    descriptor::{Descriptor, MediaKind, media},
    index::ImageIndex,
    layer::LayerBlob,
};
use crate::digest::Sha256Digest;

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The media type; the OCI specification leaves it optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The type of artifact, if it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers' blobs, lowest first.
    pub layers: Vec<Descriptor>,
    /// What the manifest is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Names and values, ordered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// What stands behind a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a document is taken apart at once"
)]
pub enum Document {
    /// An image of one platform.
    Manifest(Manifest),
    /// A choice of images.
    Index(ImageIndex),
}

/// An image of one platform: all but the layers' bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedManifest {
    /// SHA-256 of the manifest's bytes.
    pub digest: Sha256Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// The image configuration.
    pub config: ImageConfig,
    /// The layers, lowest first, diff ids from the configuration; no index yet.
    pub layers: Vec<LayerBlob>,
}

/// Why a document is no image we can build on.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not JSON, or members are missing.
    #[error("the {what} can't be read")]
    Json {
        /// `manifest`, `index` or `image configuration`.
        what: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// Docker's format of before 2016.
    #[error(
        "the image has a Docker manifest of schema 1, which no longer names its content safely"
    )]
    Schema1,
    /// It has the members of a manifest and of an index.
    #[error("the manifest is ambiguous: it has both `layers` and `manifests`")]
    Ambiguous,
    /// It is something else, for instance a Helm chart.
    #[error("`{media_type}` is not an image")]
    NotAnImage {
        /// The media type of the document or of its configuration.
        media_type: String,
    },
    /// A layer of a kind that we can't unpack.
    #[error("layer {number} has the media type `{media_type}`, which can't be unpacked")]
    LayerType {
        /// Position, from 1.
        number: usize,
        /// Its media type.
        media_type: String,
    },
    /// The configuration lists another number of layers.
    #[error("the manifest has {layers} layers, the image configuration lists {diff_ids}")]
    LayerCount {
        /// Layers of the manifest.
        layers: usize,
        /// Diff ids of the configuration.
        diff_ids: usize,
    },
}

impl Document {
    /// Reads a manifest or an index. `served_as` is the media type outside of the
    /// document, which only tells schema 1.
    pub fn parse(bytes: &[u8], served_as: Option<&str>) -> Result<Self, ManifestError> {
        let json = |what| move |source| ManifestError::Json { what, source };
        let value: Value = serde_json::from_slice(bytes).map_err(json("manifest"))?;
        let own_type = value.get("mediaType").and_then(Value::as_str);
        let has = |member: &str| value.get(member).is_some();
        if has("manifests") && (has("layers") || has("config") || has("fsLayers")) {
            return Err(ManifestError::Ambiguous);
        }
        let schema = value.get("schemaVersion").and_then(Value::as_u64);
        let kind = own_type
            .or(served_as)
            .map_or(MediaKind::Other, MediaKind::of);
        if kind == MediaKind::Schema1 || schema == Some(1) {
            return Err(ManifestError::Schema1);
        }
        let is_index = match (own_type, kind) {
            // Registries and layouts may name the wrong type; the members don't.
            (None, _) => has("manifests"),
            (_, MediaKind::Index) => true,
            (_, MediaKind::Manifest) => false,
            (Some(media_type), _) => {
                return Err(ManifestError::NotAnImage {
                    media_type: media_type.to_owned(),
                });
            }
        };
        match is_index {
            true => serde_json::from_slice(bytes)
                .map(Self::Index)
                .map_err(json("index")),
            false => serde_json::from_slice(bytes)
                .map(Self::Manifest)
                .map_err(json("manifest")),
        }
    }
}

impl Manifest {
    /// An OCI manifest.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media::MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }
}

impl ResolvedManifest {
    /// Joins a manifest and the bytes of its configuration, both verified by the caller
    /// against their digests.
    pub fn new(
        digest: Sha256Digest,
        manifest: Manifest,
        config: &[u8],
    ) -> Result<Self, ManifestError> {
        // Some registries rewrite the type to plain JSON; artifacts name their own.
        if !matches!(manifest.config.kind(), MediaKind::Config)
            && manifest.config.media_type != "application/json"
        {
            return Err(ManifestError::NotAnImage {
                media_type: manifest.config.media_type.clone(),
            });
        }
        let config: ImageConfig =
            serde_json::from_slice(config).map_err(|source| ManifestError::Json {
                what: "image configuration",
                source,
            })?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(ManifestError::LayerCount {
                layers: manifest.layers.len(),
                diff_ids: diff_ids.len(),
            });
        }
        let layers = manifest.layers.iter().zip(diff_ids).enumerate();
        let layers = layers
            .map(|(i, (blob, diff_id))| match blob.kind() {
                MediaKind::Layer(_) => Ok(LayerBlob {
                    diff_id: *diff_id,
                    digest: blob.digest,
                    size: blob.size,
                    media_type: blob.media_type.clone(),
                    index: None,
                }),
                _ => Err(ManifestError::LayerType {
                    number: i + 1,
                    media_type: blob.media_type.clone(),
                }),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            digest,
            manifest,
            config,
            layers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::layer::{Compression, DiffId};
    use crate::oci::platform::Platform;

    fn image(layer_type: &str) -> (Manifest, Vec<u8>) {
        let mut config = ImageConfig::empty(&Platform::normal("linux", "amd64", None));
        config.rootfs.diff_ids = vec![DiffId(Sha256Digest::of(b"tar"))];
        let config = serde_json::to_vec(&config).unwrap();
        let layers = vec![Descriptor::of(layer_type, b"blob")];
        (
            Manifest::new(Descriptor::of(media::CONFIG, &config), layers),
            config,
        )
    }

    #[test]
    fn documents_are_told_apart() {
        let (manifest, _) = image(media::LAYER);
        let mut bytes = serde_json::to_value(&manifest).unwrap();
        let parse = |value: &Value, served| Document::parse(value.to_string().as_bytes(), served);
        assert!(matches!(parse(&bytes, None), Ok(Document::Manifest(m)) if m == manifest));
        bytes.as_object_mut().unwrap().remove("mediaType");
        assert!(matches!(parse(&bytes, None), Ok(Document::Manifest(_))));
        assert!(matches!(
            parse(&bytes, Some("application/json")),
            Ok(Document::Manifest(_))
        ));
        bytes["manifests"] = Value::Array(Vec::new());
        assert!(matches!(parse(&bytes, None), Err(ManifestError::Ambiguous)));

        let mut index = serde_json::to_value(ImageIndex::new(Vec::new())).unwrap();
        assert!(matches!(parse(&index, None), Ok(Document::Index(_))));
        index.as_object_mut().unwrap().remove("mediaType");
        let served = Some(media::MANIFEST);
        assert!(matches!(parse(&index, served), Ok(Document::Index(_))));

        let old = serde_json::json!({"schemaVersion": 1, "fsLayers": []});
        assert!(matches!(parse(&old, None), Err(ManifestError::Schema1)));
        let chart = serde_json::json!({"schemaVersion": 2, "mediaType": "x/y"});
        assert!(matches!(
            parse(&chart, None),
            Err(ManifestError::NotAnImage { .. })
        ));
        assert!(matches!(
            Document::parse(b"<html>", None),
            Err(ManifestError::Json { .. })
        ));
    }

    #[test]
    fn unknown_members_survive() {
        let (manifest, _) = image(media::LAYER);
        for mut value in [
            serde_json::to_value(manifest).unwrap(),
            serde_json::to_value(ImageIndex::new(Vec::new())).unwrap(),
        ] {
            value["x-own"] = serde_json::json!({"b": [1], "a": null});
            value["annotations"] = serde_json::json!({"b": "2", "a": "1"});
            let written = match Document::parse(value.to_string().as_bytes(), None).unwrap() {
                Document::Manifest(manifest) => serde_json::to_value(manifest).unwrap(),
                Document::Index(index) => serde_json::to_value(index).unwrap(),
            };
            assert_eq!(written, value);
        }
    }

    #[test]
    fn an_image_is_joined_with_its_diff_ids() {
        let (manifest, config) = image("application/vnd.docker.image.rootfs.diff.tar.gzip");
        let digest = Sha256Digest::of(b"m");
        let resolved = ResolvedManifest::new(digest, manifest, &config).unwrap();
        assert_eq!(resolved.layers[0].diff_id, DiffId(Sha256Digest::of(b"tar")));
        assert_eq!(
            MediaKind::of(&resolved.layers[0].media_type),
            MediaKind::Layer(Compression::Gzip)
        );
    }

    #[test]
    fn what_can_not_be_unpacked_is_refused() {
        let digest = Sha256Digest::of(b"m");
        let (manifest, config) = image("application/x-squashfs");
        assert!(matches!(
            ResolvedManifest::new(digest, manifest, &config),
            Err(ManifestError::LayerType { number: 1, .. })
        ));
        let (mut manifest, config) = image(media::LAYER);
        manifest.layers.clear();
        assert!(matches!(
            ResolvedManifest::new(digest, manifest, &config),
            Err(ManifestError::LayerCount {
                layers: 0,
                diff_ids: 1
            })
        ));
        let (mut manifest, config) = image(media::LAYER);
        manifest.config.media_type = "application/vnd.cncf.helm.config.v1+json".to_owned();
        assert!(matches!(
            ResolvedManifest::new(digest, manifest, &config),
            Err(ManifestError::NotAnImage { .. })
        ));
    }
}
