//! The form of an entry in a registry: a tag, and the image manifest behind it.
//!
//! The tag is `e1-<kind of scope>-<20 hex digits of the scope>-<64 hex digits of the key>`. The
//! manifest's `config` is the entry's JSON, a blob that the descriptor also holds inline; its `layers` are the
//! blobs that the entry names, so that registries keep them and tools see them.
//! Specified in `docs/internals/remote-cache.md`, "Registry"; version 1 is the `e1` of the tag.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    cache::{ActionResult, RecordError, Scope, Trust},
    digest::{Blake3Digest, Sha256Digest},
    key::CacheKey,
    oci::{Descriptor, Document, Manifest, ManifestError},
};

/// Media type of an entry's JSON, and the type of the artifact.
pub(in crate::cache) const ENTRY: &str = "application/vnd.memobuild.action.v1+json";
/// Media type of a layer's index.
const INDEX: &str = "application/vnd.memobuild.layer-index.v1";
/// Largest entry in bytes that stands in its manifest; registries accept manifests of 4 MiB.
const INLINE_LIMIT: usize = 1 << 20;

/// Why a manifest is no entry that we can read.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// It is no manifest.
    #[error("not a manifest")]
    Manifest(#[from] ManifestError),
    /// It is a manifest of something else.
    #[error("describes `{found}`, not a cache entry")]
    Type {
        /// The media type of its configuration.
        found: String,
    },
    /// The entry in it has not the digest or the size that its descriptor says.
    #[error("holds an entry with another digest than it says")]
    Inline,
    /// The entry in it can't be read.
    #[error("holds an entry that can't be read")]
    Record(#[from] RecordError),
}

/// An entry as it was found in a manifest.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "an entry is taken apart at once")]
pub(in crate::cache) enum Found {
    /// The entry.
    Entry(ActionResult),
    /// Where the entry is: it is too large for the manifest.
    Blob(Descriptor),
}

/// The tag of the entry under `key` in `scope`.
pub(in crate::cache) fn tag(scope: &Scope, key: &CacheKey) -> String {
    let kind = match scope.trust() {
        Trust::Protected => "protected",
        Trust::Branch => "branch",
        Trust::Pull => "pull",
        Trust::Local => "local",
    };
    let name = Blake3Digest::of(scope.as_str().as_bytes()).hex();
    format!("e1-{kind}-{}-{}", &name[..20], key.0.hex())
}

/// The manifest of `result`, whose JSON form is `json`; `index_size` is the size in bytes of
/// the layer's index.
pub(in crate::cache) fn manifest(
    result: &ActionResult,
    json: &[u8],
    index_size: Option<u64>,
) -> Bytes {
    let entry = Descriptor::of(ENTRY, json);
    let mut layers = Vec::new();
    if let Some(layer) = &result.layer {
        layers.push(Descriptor::new(&layer.media_type, layer.digest, layer.size));
        if let (Some(index), Some(size)) = (layer.index, index_size) {
            layers.push(Descriptor::new(INDEX, index, size));
        }
    }
    if layers.is_empty() {
        // Some registries want a layer.
        layers.push(entry.clone());
    }
    let mut config = entry;
    if json.len() <= INLINE_LIMIT {
        let data = STANDARD.encode(json);
        config.extra.insert("data".to_owned(), data.into());
    }
    let mut manifest = Manifest::new(config, layers);
    manifest.artifact_type = Some(ENTRY.to_owned());
    let created = i64::try_from(result.created).ok();
    let created = created
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok());
    let annotations = [
        (
            "org.opencontainers.image.title",
            Some(result.step.name.clone()),
        ),
        ("org.opencontainers.image.created", created),
        ("io.github.memobuild.scope", Some(result.scope.to_string())),
        ("io.github.memobuild.key", Some(result.key.to_string())),
        (
            "io.github.memobuild.target",
            Some(result.step.target.clone()),
        ),
    ];
    for (name, value) in annotations {
        if let Some(value) = value {
            manifest.annotations.insert(name.to_owned(), value);
        }
    }
    // Serialising plain structs to memory has no way to fail.
    serde_json::to_vec(&manifest).unwrap_or_default().into()
}

/// What the manifest `bytes` under the tag of `scope` and `key` holds.
pub(in crate::cache) fn read(
    scope: &Scope,
    key: CacheKey,
    bytes: &[u8],
) -> Result<Found, EntryError> {
    let config = match Document::parse(bytes, None)? {
        Document::Manifest(manifest) => manifest.config,
        Document::Index(_) => {
            return Err(EntryError::Type {
                found: "index".to_owned(),
            });
        }
    };
    if config.media_type != ENTRY {
        return Err(EntryError::Type {
            found: config.media_type,
        });
    }
    let Some(data) = config.extra.get("data") else {
        return Ok(Found::Blob(config));
    };
    let json = data.as_str().and_then(|text| STANDARD.decode(text).ok());
    let json = json
        .filter(|json| Sha256Digest::of(json) == config.digest && json.len() as u64 == config.size)
        .ok_or(EntryError::Inline)?;
    Ok(Found::Entry(decode(scope, key, &json)?))
}

/// The entry whose JSON form is `json`, if it belongs under `key` in `scope`.
pub(in crate::cache) fn decode(
    scope: &Scope,
    key: CacheKey,
    json: &[u8],
) -> Result<ActionResult, RecordError> {
    ActionResult::decode_in(std::slice::from_ref(scope), key, json)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{cache::conformance::sample_action, oci::Reference};

    #[test]
    fn tags_are_valid_and_their_own() {
        let keys = [1, 2].map(|number| sample_action(number, &[]).key);
        let scopes = [
            Scope::protected(),
            Scope::local(),
            Scope::branch("feature/a%b"),
            Scope::branch("feature/a-b"),
            Scope::pull("7"),
            Scope::branch(&"x".repeat(500)),
        ];
        let tags: HashSet<String> = scopes
            .iter()
            .flat_map(|scope| keys.iter().map(move |key| tag(scope, key)))
            .collect();
        assert_eq!(tags.len(), 12);
        for tag in &tags {
            assert!(
                format!("h.example/a:{tag}").parse::<Reference>().is_ok(),
                "{tag}"
            );
        }
        assert_eq!(
            tag(&Scope::pull("7"), &keys[0]),
            "e1-pull-ec3ee05dea085fe6948e-1a0d12016999e47689dae5744d2b8c1903faf7ca2886a658150083100ef2c8ee",
            "the tags stand in registries: changing them loses entries"
        );
    }

    #[test]
    fn an_entry_is_read_back() {
        let blobs = [Sha256Digest::of(b"layer"), Sha256Digest::of(b"index")];
        for action in [
            sample_action(1, &blobs),
            sample_action(1, &blobs[..1]),
            sample_action(1, &[]),
        ] {
            let bytes = manifest(&action, &action.encode(), Some(9));
            let Ok(Found::Entry(back)) = read(&action.scope, action.key, &bytes) else {
                panic!("it is there");
            };
            assert_eq!(back, action);
            let Ok(Document::Manifest(manifest)) = Document::parse(&bytes, None) else {
                panic!("it is a manifest");
            };
            let named: Vec<_> = manifest.layers.iter().map(|layer| layer.digest).collect();
            match action.layer {
                Some(_) => assert_eq!(named, action.blobs()),
                None => assert_eq!(named, [manifest.config.digest]),
            }
            assert_eq!(
                manifest.annotations["org.opencontainers.image.created"],
                "2023-11-14T22:13:20Z"
            );
        }
    }

    #[test]
    fn large_entries_stand_beside_their_manifest() {
        let mut action = sample_action(1, &[]);
        action.step.instruction = "x".repeat(INLINE_LIMIT);
        let bytes = manifest(&action, &action.encode(), None);
        let Ok(Found::Blob(blob)) = read(&action.scope, action.key, &bytes) else {
            panic!("it is a blob");
        };
        assert_eq!(blob.digest, Sha256Digest::of(&action.encode()));
        assert!(bytes.len() < 10_000);
    }

    #[test]
    fn what_does_not_belong_there_is_refused() {
        let action = sample_action(1, &[]);
        let bytes = manifest(&action, &action.encode(), None);
        let read = |scope: &Scope, key, bytes: &[u8]| read(scope, key, bytes).unwrap_err();
        let other = sample_action(2, &[]).key;
        assert!(matches!(
            read(&Scope::protected(), action.key, &bytes),
            EntryError::Record(RecordError::Scope { .. })
        ));
        assert!(matches!(
            read(&action.scope, other, &bytes),
            EntryError::Record(RecordError::Key { .. })
        ));
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let spoilt = text.replacen("\"size\":", "\"size\":1", 1);
        assert!(matches!(
            read(&action.scope, action.key, spoilt.as_bytes()),
            EntryError::Inline
        ));
        let image = text.replace(ENTRY, "application/vnd.oci.image.config.v1+json");
        assert!(matches!(
            read(&action.scope, action.key, image.as_bytes()),
            EntryError::Type { .. }
        ));
        assert!(matches!(
            read(&action.scope, action.key, b"<html>"),
            EntryError::Manifest(_)
        ));
    }
}
