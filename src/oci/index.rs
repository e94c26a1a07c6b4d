//! Image indexes (OCI image specification 1.1, "OCI Image Index"; Docker's manifest
//! list): one image for several platforms, and the choice among them.
//!
//! The choice is containerd's (`platforms.Only`): the platform itself first, then
//! what its processors also run: lower variants of arm down to v5, arm v8 and lower
//! on arm64, lower variants of amd64 and then 386.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    descriptor::{Descriptor, MediaKind, media},
    platform::Platform,
};

/// An image index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageIndex {
    /// Always 2.
    pub schema_version: u32,
    /// The media type; the OCI specification leaves it optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The type of artifact, if it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The images, attestations and nested indexes.
    pub manifests: Vec<Descriptor>,
    /// What the index is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Names and values, ordered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl ImageIndex {
    /// An OCI index of these.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media::INDEX.to_owned()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// The entries that can serve `wanted`, best first. Nested indexes that name no
    /// platform come last; entries of equal worth keep the index's order. An image
    /// without a platform serves only where no image of the index has one.
    pub fn candidates(&self, wanted: &Platform) -> Vec<&Descriptor> {
        let accepted = accepted(wanted);
        let none_has_a_platform = !self
            .manifests
            .iter()
            .any(|d| d.kind() == MediaKind::Manifest && d.platform.is_some());
        let mut ranked: Vec<(usize, &Descriptor)> = self
            .manifests
            .iter()
            .filter(|d| !d.is_attestation())
            .filter_map(|d| {
                let rank = match (d.kind(), &d.platform) {
                    (MediaKind::Index | MediaKind::Manifest, Some(platform)) => {
                        let platform = platform.normal();
                        accepted.iter().position(|p| *p == platform)?
                    }
                    (MediaKind::Manifest, None) if none_has_a_platform => accepted.len(),
                    (MediaKind::Index, None) => accepted.len() + 1,
                    _ => return None,
                };
                Some((rank, d))
            })
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, d)| d).collect()
    }

    /// The platforms of the index, as far as it names them, for messages.
    pub fn platforms(&self) -> Vec<Platform> {
        self.manifests
            .iter()
            .filter(|d| !d.is_attestation())
            .filter_map(|d| d.platform.as_ref())
            .map(|p| p.normal())
            .filter(|p| p.os != "unknown")
            .collect()
    }
}

/// The platforms whose images run on `wanted`, best first.
fn accepted(wanted: &Platform) -> Vec<Platform> {
    let variant = wanted.variant.as_deref();
    let with = |architecture: &str, variant: Option<&str>| {
        Platform::normal(&wanted.os, architecture, variant)
    };
    let arm_down_from = |highest: u32| -> Vec<Platform> {
        (5..=highest)
            .rev()
            .map(|n| with("arm", Some(&format!("v{n}"))))
            .collect()
    };
    let number = variant.and_then(|v| v.strip_prefix('v')?.parse::<u32>().ok());
    let mut accepted = vec![wanted.clone()];
    match wanted.architecture.as_str() {
        "amd64" => {
            let lower = (1..number.unwrap_or(1)).rev();
            accepted.extend(lower.map(|n| with("amd64", Some(&format!("v{n}")))));
            accepted.push(with("386", None));
        }
        "arm" => accepted.extend(arm_down_from(number.unwrap_or(7).saturating_sub(1).min(8))),
        "arm64" => {
            if variant.is_some() {
                accepted.push(with("arm64", None));
            }
            accepted.extend(arm_down_from(8));
        }
        _ => {}
    }
    accepted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> ImageIndex {
        ImageIndex::new(
            platforms
                .iter()
                .map(|text| {
                    let descriptor = Descriptor::of(media::MANIFEST, text.as_bytes());
                    match *text {
                        "" => descriptor,
                        "attestation" => descriptor
                            .with_platform(&Platform::normal("unknown", "unknown", None))
                            .with_annotation("vnd.docker.reference.type", "attestation-manifest"),
                        _ => descriptor.with_platform(&text.parse().unwrap()),
                    }
                })
                .collect(),
        )
    }

    fn chosen(platforms: &[&str], wanted: &str) -> Option<String> {
        let index = index(platforms);
        let candidates = index.candidates(&wanted.parse().unwrap());
        candidates.first().map(|d| match d.platform.as_ref() {
            Some(platform) => platform.normal().to_string(),
            None => "none".to_owned(),
        })
    }

    #[test]
    fn the_platform_itself_wins_and_lower_variants_serve() {
        let debian = [
            "linux/amd64",
            "attestation",
            "linux/arm/v5",
            "linux/arm/v7",
            "linux/arm64",
            "linux/386",
        ];
        for (wanted, expected) in [
            ("linux/amd64", Some("linux/amd64")),
            ("linux/amd64/v3", Some("linux/amd64")),
            ("linux/arm64", Some("linux/arm64")),
            ("linux/arm", Some("linux/arm/v7")),
            ("linux/arm/v6", Some("linux/arm/v5")),
            ("linux/386", Some("linux/386")),
            ("linux/s390x", None),
            ("windows/amd64", None),
        ] {
            assert_eq!(chosen(&debian, wanted).as_deref(), expected, "{wanted}");
        }
        assert_eq!(
            chosen(&["linux/arm/v5", "linux/arm/v6"], "linux/arm64").as_deref(),
            Some("linux/arm/v6")
        );
        assert_eq!(chosen(&["linux/arm/v7"], "linux/arm/v6"), None);
        assert_eq!(
            chosen(&["linux/386"], "linux/amd64").as_deref(),
            Some("linux/386")
        );
    }

    #[test]
    fn an_image_without_platform_serves_only_alone() {
        assert_eq!(chosen(&[""], "linux/amd64").as_deref(), Some("none"));
        assert_eq!(chosen(&["", "linux/arm64"], "linux/amd64"), None);
    }
}
