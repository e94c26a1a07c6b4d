//! The entry of the action cache: what a step gave, and who says so.
//!
//! An [`ActionResult`] is stored and sent as one JSON object; `version` comes first
//! and is [`RECORD_VERSION`]. There are no maps in it, so that its bytes follow from
//! its values: [`ActionResult::signed_bytes`] relies on that. A reader that meets
//! another version, or a field it does not know, treats the entry as unreadable,
//! that is as a miss: it must not vouch for what it does not understand.

use serde::{Deserialize, Serialize};

use super::{EntryId, Scope};
use crate::{
    digest::Sha256Digest,
    key::{CacheKey, KeyKind, RecipePart},
    oci::{
        Platform,
        layer::{ChainId, LayerBlob},
    },
};

/// Version of the JSON form of [`ActionResult`].
pub const RECORD_VERSION: u32 = 1;

/// Most bytes of the JSON form of an [`ActionResult`] that is relied on. Those of steps with ten thousand recipe
/// parts are below 2 MiB.
pub const MAX_ENTRY: usize = 8 << 20;

/// The result of a step, kept under a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionResult {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// The key it is kept under.
    pub key: CacheKey,
    /// What kind of key that is.
    pub kind: KeyKind,
    /// The step, for people.
    pub step: StepInfo,
    /// The layers the step ran on.
    pub parent: ChainId,
    /// The layers of what else it read, stages and images, in the vertex's order; empty
    /// chains for local contexts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<ChainId>,
    /// The layer it made; none if it changed nothing.
    pub layer: Option<LayerBlob>,
    /// What the key was made of, in the key's order, so that two keys can be compared
    /// by `explain`.
    pub recipe: Vec<RecipePart>,
    /// Milliseconds the execution took.
    pub duration_ms: u64,
    /// When it was executed, in seconds since 1970.
    pub created: u64,
    /// Who executed it.
    pub producer: Producer,
    /// The trust scope it was written under.
    pub scope: Scope,
    /// Who vouches for it; none where no signer is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// A step as people know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepInfo {
    /// Display name: `[ml 2/5] RUN pip install numpy`.
    pub name: String,
    /// The instruction, expanded, on one line.
    pub instruction: String,
    /// The target that brought it.
    pub target: String,
    /// The platform it was executed for.
    pub platform: Platform,
}

/// Who executed a step. The fields that only CI knows are none on a developer's machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Producer {
    /// Name and version of the program: `memobuild-ci 0.1.0`.
    pub tool: String,
    /// The repository, as the CI platform names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The Git ref that was built.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub git_ref: Option<String>,
    /// Whether that ref is protected.
    #[serde(default)]
    pub protected: bool,
    /// The CI event: `push`, `pull_request`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The CI run, by number or address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

/// A signature over [`ActionResult::signed_bytes`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Which key signed.
    pub key_id: String,
    /// How: `ed25519`, …
    pub algorithm: String,
    /// The signature in base64.
    pub value: String,
}

/// Bytes that are not an entry we can read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not JSON, or not of the shape of [`ActionResult`].
    #[error("not an action result")]
    Shape(#[source] serde_json::Error),
    /// Of another version.
    #[error("has format version {found}; this program knows {RECORD_VERSION}")]
    Version {
        /// The version it states.
        found: u32,
    },
    /// Kept in a scope that is not its own.
    #[error("says that its scope is `{found}`")]
    Scope {
        /// The scope it states.
        found: Scope,
    },
    /// Kept under a key that is not its own.
    #[error("says that its key is `{found}`")]
    Key {
        /// The key it states.
        found: CacheKey,
    },
}

impl ActionResult {
    /// The JSON form, without insignificant white space.
    pub fn encode(&self) -> Vec<u8> {
        // Serialising plain structs to memory has no way to fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the JSON form of an entry, whatever its key is.
    pub fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let read: Result<Self, _> = serde_json::from_slice(bytes);
        let found = match &read {
            Ok(record) => Some(record.version),
            // The rest may have another shape in another version.
            Err(_) => serde_json::from_slice(bytes)
                .ok()
                .map(|Version { version }| version),
        };
        match found {
            Some(found) if found != RECORD_VERSION => Err(RecordError::Version { found }),
            _ => read.map_err(RecordError::Shape),
        }
    }

    /// Reads the JSON form of the entry kept under `key`.
    pub fn decode(key: CacheKey, bytes: &[u8]) -> Result<Self, RecordError> {
        let record = Self::read(bytes)?;
        if record.key != key {
            return Err(RecordError::Key { found: record.key });
        }
        Ok(record)
    }

    /// The bytes a signature covers: the JSON form without `signature`.
    pub fn signed_bytes(&self) -> Vec<u8> {
        Self {
            signature: None,
            ..self.clone()
        }
        .encode()
    }

    /// Reads the JSON form of the entry kept under `key` in one of `scopes`.
    pub fn decode_in(scopes: &[Scope], key: CacheKey, bytes: &[u8]) -> Result<Self, RecordError> {
        let record = Self::decode(key, bytes)?;
        match scopes.contains(&record.scope) {
            true => Ok(record),
            false => Err(RecordError::Scope {
                found: record.scope,
            }),
        }
    }

    /// The entry, if `id` is where it belongs.
    pub fn kept_at(self, id: EntryId) -> Result<Self, RecordError> {
        match self.id() == id {
            true => Ok(self),
            false => Err(RecordError::Key { found: self.key }),
        }
    }

    /// Where it is kept.
    pub fn id(&self) -> EntryId {
        EntryId::of(&self.scope, &self.key)
    }

    /// The blobs it names: the layer and the layer's index.
    pub fn blobs(&self) -> Vec<Sha256Digest> {
        self.layer
            .iter()
            .flat_map(|layer| std::iter::once(layer.digest).chain(layer.index))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cache::conformance::sample_action, digest::Blake3Digest, key::RecipeValue};

    #[test]
    fn the_json_form_is_stable() {
        let mut record = sample_action(1, &[Sha256Digest::of(b"layer")]);
        record.recipe = vec![
            RecipePart {
                name: "args".to_owned(),
                value: RecipeValue::Text("true".to_owned()),
            },
            RecipePart {
                name: "files".to_owned(),
                value: RecipeValue::Digest(Blake3Digest::of(b"")),
            },
        ];
        let text = String::from_utf8(record.encode()).unwrap();
        assert!(
            text.starts_with("{\"version\":1,\"key\":\"blake3:"),
            "{text}"
        );
        assert!(text.contains("\"recipe\":[{\"name\":\"args\",\"text\":\"true\"},{\"name\":\"files\",\"digest\":\"blake3:af1349b9"), "{text}");
        assert!(!text.contains("signature"), "{text}");
        assert_eq!(
            ActionResult::decode(record.key, text.as_bytes()).unwrap(),
            record
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let record = sample_action(1, &[]);
        let other = sample_action(2, &[]);
        let text = String::from_utf8(record.encode()).unwrap();
        let decode = |text: &str| ActionResult::decode(record.key, text.as_bytes());
        assert!(matches!(
            decode(&text.replacen("\"version\":1", "\"version\":2", 1)),
            Err(RecordError::Version { found: 2 })
        ));
        assert!(matches!(
            decode(&text.replacen("\"scope\":", "\"surprise\":1,\"scope\":", 1)),
            Err(RecordError::Shape(_))
        ));
        assert!(matches!(
            ActionResult::decode(other.key, text.as_bytes()),
            Err(RecordError::Key { .. })
        ));
        assert!(matches!(decode(&text[..40]), Err(RecordError::Shape(_))));
    }

    #[test]
    fn the_signature_does_not_cover_itself() {
        let mut record = sample_action(1, &[]);
        let before = record.signed_bytes();
        record.signature = Some(Signature {
            key_id: "k".to_owned(),
            algorithm: "ed25519".to_owned(),
            value: "AA==".to_owned(),
        });
        assert_eq!(record.signed_bytes(), before);
        record.scope = Scope::protected();
        assert_ne!(record.signed_bytes(), before);
    }
}
