//! A key's recipe: its named parts, in order.

use serde::{Deserialize, Serialize};

use super::CacheKey;
use crate::digest::{Blake3Digest, KeyEncoder};

/// Longest value, in bytes, that is stored as text; longer ones are stored as the
/// BLAKE3 digest of the text.
pub(super) const STORED_VALUE_MAX: usize = 256;

/// The kinds of key. Each has a context string of its own, so that keys of two kinds
/// never meet; the version at its end changes whenever the meaning of a part does, or the
/// same recipe gives another layer. A context that was given up is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyKind {
    /// From the recipe and the inputs' definition keys.
    Definition,
    /// From the recipe and the inputs' content.
    Content,
    /// A layer in another compression.
    Recompression,
    /// The index of a pulled layer.
    LayerIndex,
    /// The files that a COPY selects from a context.
    Selection,
    /// The entries of the layer that a COPY and its kin will write.
    Plan,
    /// The tree of a cache mount.
    CacheMount,
}

impl KeyKind {
    /// Its name, as entries state it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Definition => "definition",
            Self::Content => "content",
            Self::Recompression => "recompression",
            Self::LayerIndex => "layer-index",
            Self::Selection => "selection",
            Self::Plan => "plan",
            Self::CacheMount => "cache-mount",
        }
    }
}

impl KeyKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Definition,
        Self::Content,
        Self::Recompression,
        Self::LayerIndex,
        Self::Selection,
        Self::Plan,
        Self::CacheMount,
    ];

    /// The context string for BLAKE3's key derivation.
    pub fn context(self) -> &'static str {
        match self {
            Self::Definition => "memobuild-ci 2026-11 definition key v2",
            Self::Content => "memobuild-ci 2026-11 content key v2",
            Self::Recompression => "memobuild-ci 2026-11 recompressed layer v1",
            Self::LayerIndex => "memobuild-ci 2026-11 layer index v1",
            Self::Selection => "memobuild-ci 2026-11 selected files v2",
            Self::Plan => "memobuild-ci 2026-11 layer plan v1",
            Self::CacheMount => "memobuild-ci 2026-11 cache mount v1",
        }
    }
}

/// One named part of a key, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipePart {
    /// What it is: `args`, `env`, `root`, `copy.0.files`, …
    pub name: String,
    /// Its value: `{"name": …, "text": …}` or `{"name": …, "digest": …}`.
    #[serde(flatten)]
    pub value: RecipeValue,
}

/// The value of a [`RecipePart`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecipeValue {
    /// Short enough to be kept as it is.
    Text(String),
    /// The BLAKE3 digest of something longer, or of bytes that are no text.
    Digest(Blake3Digest),
}

/// The parts of a key, from which the key is computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecipe {
    kind: KeyKind,
    parts: Vec<(String, Vec<u8>)>,
}

impl KeyRecipe {
    /// A recipe without parts.
    pub fn new(kind: KeyKind) -> Self {
        Self {
            kind,
            parts: Vec::new(),
        }
    }

    /// What kind of key it gives.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The parts: names and values, in order.
    pub fn parts(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.parts
            .iter()
            .map(|(name, value)| (&name[..], &value[..]))
    }

    /// Adds a part.
    pub fn part(&mut self, name: impl Into<String>, value: impl AsRef<[u8]>) -> &mut Self {
        self.parts.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// Adds a part that is displayed (a digest, a number, a flag).
    pub fn display(&mut self, name: impl Into<String>, value: impl ToString) -> &mut Self {
        self.part(name, value.to_string())
    }

    /// Adds an optional part; that it is missing differs from every value.
    pub fn option(&mut self, name: &str, value: Option<impl ToString>) -> &mut Self {
        match value {
            Some(value) => self.part(name, format!("some:{}", value.to_string())),
            None => self.part(name, "none"),
        }
    }

    /// Adds a list as one part: the length of each item stands before it.
    pub fn list<T: AsRef<[u8]>>(&mut self, name: &str, items: &[T]) -> &mut Self {
        let mut value = Vec::new();
        for item in items {
            let item = item.as_ref();
            value.extend_from_slice(item.len().to_string().as_bytes());
            value.push(b':');
            value.extend_from_slice(item);
            value.push(b'\n');
        }
        self.part(name, value)
    }

    /// The key.
    pub fn key(&self) -> CacheKey {
        let mut encoder = KeyEncoder::new(self.kind.context());
        for (name, value) in &self.parts {
            encoder.field(name, value);
        }
        CacheKey(encoder.finish())
    }

    /// The parts as they are stored beside a result.
    pub fn stored(&self) -> Vec<RecipePart> {
        self.parts
            .iter()
            .map(|(name, value)| RecipePart {
                name: name.clone(),
                value: match std::str::from_utf8(value) {
                    Ok(text) if text.len() <= STORED_VALUE_MAX => {
                        RecipeValue::Text(text.to_owned())
                    }
                    _ => RecipeValue::Digest(Blake3Digest::of(value)),
                },
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_differs_from_every_value() {
        let key = |value: Option<&str>| {
            KeyRecipe::new(KeyKind::Definition)
                .option("user", value)
                .key()
        };
        assert_ne!(key(None), key(Some("")));
        assert_ne!(key(None), key(Some("none")));
    }

    #[test]
    fn items_of_a_list_cannot_run_together() {
        let key = |items: &[&str]| {
            KeyRecipe::new(KeyKind::Definition)
                .list("args", items)
                .key()
        };
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a\n1:b"]), key(&["a", "b"]));
        assert_ne!(key(&[]), key(&[""]));
    }

    #[test]
    fn kinds_of_key_never_meet() {
        let keys: std::collections::BTreeSet<_> = KeyKind::ALL
            .map(|kind| KeyRecipe::new(kind).part("a", "b").key())
            .into();
        assert_eq!(keys.len(), KeyKind::ALL.len());
    }

    #[test]
    fn long_values_are_stored_as_digests() {
        let mut recipe = KeyRecipe::new(KeyKind::Content);
        recipe.part("short", "x").part("long", "y".repeat(600));
        let stored = recipe.stored();
        assert_eq!(stored[0].value, RecipeValue::Text("x".to_owned()));
        assert_eq!(
            stored[1].value,
            RecipeValue::Digest(Blake3Digest::of("y".repeat(600).as_bytes()))
        );
    }
}
