//! Descriptors, the typed links between the parts of an image, and the media types
//! they carry (OCI image specification 1.1, "OCI Content Descriptors", and Docker's
//! image manifest version 2, schema 2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{layer::Compression, platform::Platform};
use crate::digest::Sha256Digest;

/// Media types by name.
pub mod media {
    /// An OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An OCI image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// An OCI layer, not compressed; `+gzip` and `+zstd` follow when it is.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// Docker's manifest list.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's layer, not compressed; `.gzip` and `.zstd` follow when it is.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Prefix of Docker's manifests of schema 1, signed or not.
    pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+";
}

/// What a media type stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// An index or manifest list.
    Index,
    /// An image manifest.
    Manifest,
    /// An image configuration.
    Config,
    /// A layer, compressed like this.
    Layer(Compression),
    /// A layer that registries don't hold (Windows base layers).
    ForeignLayer,
    /// A Docker manifest of schema 1.
    Schema1,
    /// Anything else, for instance an attestation.
    Other,
}

impl MediaKind {
    /// The kind that `media_type` names, its parameters left aside.
    pub fn of(media_type: &str) -> Self {
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        match media_type {
            media::INDEX | media::DOCKER_INDEX => return Self::Index,
            media::MANIFEST | media::DOCKER_MANIFEST => return Self::Manifest,
            media::CONFIG | media::DOCKER_CONFIG => return Self::Config,
            _ if media_type.starts_with(media::DOCKER_SCHEMA1) => return Self::Schema1,
            _ => {}
        }
        if media_type.contains(".rootfs.foreign.") || media_type.contains(".nondistributable.") {
            return Self::ForeignLayer;
        }
        let compression = [media::LAYER, media::DOCKER_LAYER]
            .iter()
            .find_map(|plain| media_type.strip_prefix(plain));
        match compression {
            Some("") => Self::Layer(Compression::None),
            Some("+gzip" | ".gzip") => Self::Layer(Compression::Gzip),
            Some("+zstd" | ".zstd") => Self::Layer(Compression::Zstd),
            _ => Self::Other,
        }
    }
}

/// A link to content: what it is, its digest, its size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: String,
    /// SHA-256 of the content.
    pub digest: Sha256Digest,
    /// Size of the content in bytes.
    pub size: u64,
    /// The platform, in the entries of an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
    /// The type of the artifact that a manifest describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Names and values, ordered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else (`urls`, `data`, …).
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// The `platform` member of a descriptor, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorPlatform {
    /// Go's name of the architecture.
    pub architecture: String,
    /// Operating system.
    pub os: String,
    /// Variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Everything else (`os.version`, `os.features`).
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl Descriptor {
    /// The descriptor of these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Sha256Digest::of(bytes), bytes.len() as u64)
    }

    /// The descriptor of content with this digest and size.
    pub fn new(media_type: &str, digest: Sha256Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            artifact_type: None,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// The same descriptor for one platform.
    #[must_use]
    pub fn with_platform(mut self, platform: &Platform) -> Self {
        self.platform = Some(platform.into());
        self
    }

    /// The same descriptor with an annotation.
    #[must_use]
    pub fn with_annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }

    /// What the content is.
    pub fn kind(&self) -> MediaKind {
        MediaKind::of(&self.media_type)
    }

    /// Whether BuildKit put it into an index as an attestation of another entry.
    pub fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
    }
}

impl From<&Platform> for DescriptorPlatform {
    fn from(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            extra: BTreeMap::new(),
        }
    }
}

impl DescriptorPlatform {
    /// The platform in normal form.
    pub fn normal(&self) -> Platform {
        Platform::normal(&self.os, &self.architecture, self.variant.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_of_both_families_are_known() {
        for (text, kind) in [
            (
                "application/vnd.oci.image.layer.v1.tar+zstd",
                MediaKind::Layer(Compression::Zstd),
            ),
            (
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                MediaKind::Layer(Compression::Gzip),
            ),
            (
                "application/vnd.oci.image.layer.v1.tar",
                MediaKind::Layer(Compression::None),
            ),
            (
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                MediaKind::ForeignLayer,
            ),
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                MediaKind::ForeignLayer,
            ),
            (
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
                MediaKind::Schema1,
            ),
            (
                "application/vnd.oci.image.index.v1+json; charset=utf-8",
                MediaKind::Index,
            ),
            (
                "application/vnd.docker.distribution.manifest.v2+json",
                MediaKind::Manifest,
            ),
            ("application/vnd.in-toto+json", MediaKind::Other),
        ] {
            assert_eq!(MediaKind::of(text), kind, "{text}");
        }
    }

    #[test]
    fn unknown_members_survive() {
        let text = format!(
            r#"{{"mediaType":"m","digest":"{}","size":3,"platform":{{"architecture":"amd64","os":"windows","os.version":"10"}},"annotations":{{"a":"1","b":"2"}},"urls":["https://x"]}}"#,
            Sha256Digest::of(b"")
        );
        let descriptor: Descriptor = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&descriptor).unwrap(), text);
    }
}
