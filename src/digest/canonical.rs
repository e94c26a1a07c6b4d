//! The canonical encoding of key inputs.
//!
//! A key is `BLAKE3.derive_key(context, fields…)`. A field is
//! `u32 LE length of name · name · u64 LE length of value · value`. Nested lists are
//! opened with [`KeyEncoder::list`], which writes the number of items as the value
//! of its own field and then the items as fields with an empty name. As every length is
//! written before the bytes it measures, the encoding is injective. The
//! specification with test vectors is `docs/internals/cache-key-spec.md`.

use super::Blake3Digest;

/// Feeds named, length-framed fields to BLAKE3 in `derive_key` mode.
#[derive(Debug)]
pub struct KeyEncoder {
    hasher: blake3::Hasher,
}

impl KeyEncoder {
    /// Starts a key of the kind that `context` names, for instance
    /// `"memobuild-ci 2026-11-21 definition key v1"`. Two kinds of key never share a
    /// context.
    pub fn new(context: &'static str) -> Self {
        Self {
            hasher: blake3::Hasher::new_derive_key(context),
        }
    }

    /// Adds one field.
    pub fn field(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        let value = value.as_ref();
        let name_len = u32::try_from(name.len()).unwrap_or(u32::MAX);
        self.hasher.update(&name_len.to_le_bytes());
        self.hasher.update(name.as_bytes());
        self.hasher.update(&(value.len() as u64).to_le_bytes());
        self.hasher.update(value);
        self
    }

    /// Adds an integer field, as 8 bytes in little-endian order.
    pub fn number(&mut self, name: &str, value: u64) -> &mut Self {
        self.field(name, value.to_le_bytes())
    }

    /// Adds a list: its number of items, then each item.
    pub fn list<I>(&mut self, name: &str, items: I) -> &mut Self
    where
        I: IntoIterator,
        I::IntoIter: ExactSizeIterator,
        I::Item: AsRef<[u8]>,
    {
        let items = items.into_iter();
        self.number(name, items.len() as u64);
        for item in items {
            self.field("", item);
        }
        self
    }

    /// The key.
    pub fn finish(&self) -> Blake3Digest {
        Blake3Digest::from_bytes(*self.hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(fields: &[(String, Vec<u8>)]) -> Blake3Digest {
        let mut encoder = KeyEncoder::new("test");
        for (name, value) in fields {
            encoder.field(name, value);
        }
        encoder.finish()
    }

    proptest! {
        #[test]
        fn different_fields_give_different_keys(
            a in prop::collection::vec(("[a-c]{0,3}", prop::collection::vec(0u8..3, 0..4)), 0..4),
            b in prop::collection::vec(("[a-c]{0,3}", prop::collection::vec(0u8..3, 0..4)), 0..4),
        ) {
            prop_assert_eq!(key(&a) == key(&b), a == b);
        }
    }

    #[test]
    fn moving_bytes_between_fields_changes_the_key() {
        let a = [("ab".to_owned(), b"c".to_vec())];
        let b = [("a".to_owned(), b"bc".to_vec())];
        assert_ne!(key(&a), key(&b));
    }
}
