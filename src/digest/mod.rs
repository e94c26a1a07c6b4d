//! Digests and the canonical encoding that keys are made of.
//!
//! [`Sha256Digest`] names bytes where the OCI specifications ask for it (blobs,
//! diff ids); [`Blake3Digest`] names everything that is our own (keys, file
//! contents). Both are printed as `<algorithm>:<64 hex digits>` and serialised as
//! that string. [`KeyEncoder`] turns named fields into a [`Blake3Digest`] in a way
//! that is injective: no two different lists of fields give the same bytes.

mod canonical;
mod stream;

pub use canonical::KeyEncoder;
pub use stream::{HashingReader, HashingWriter, ReadHashes};

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// A text that is not a digest of the expected algorithm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a digest of the form `{algorithm}:<64 hex digits>`")]
pub struct ParseDigestError {
    text: String,
    algorithm: &'static str,
}

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident, $algorithm:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The algorithm's name as it stands before the colon.
            pub const ALGORITHM: &'static str = $algorithm;

            /// The digest with these 32 bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// 64 lower-case hex digits, without the algorithm.
            pub fn hex(&self) -> String {
                hex::encode(self.0)
            }

            /// The first 12 hex digits, for people.
            pub fn short(&self) -> String {
                hex::encode(&self.0[..6])
            }

            /// The digest with these 64 hex digits.
            pub fn from_hex(text: &str) -> Result<Self, ParseDigestError> {
                let mut bytes = [0; 32];
                // Upper case is refused: a digest must have one spelling.
                if text.bytes().any(|b| b.is_ascii_uppercase())
                    || hex::decode_to_slice(text, &mut bytes).is_err()
                {
                    return Err(ParseDigestError {
                        text: text.to_owned(),
                        algorithm: $algorithm,
                    });
                }
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($algorithm, ":{}"), self.hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.strip_prefix(concat!($algorithm, ":"))
                    .and_then(|hex| Self::from_hex(hex).ok())
                    .ok_or_else(|| ParseDigestError {
                        text: text.to_owned(),
                        algorithm: $algorithm,
                    })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

digest_type! {
    /// A SHA-256 digest: the name of an OCI blob.
    Sha256Digest, "sha256"
}

digest_type! {
    /// A BLAKE3 digest (256 bits): the name of a key or of a file's content.
    Blake3Digest, "blake3"
}

impl Sha256Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl Blake3Digest {
    /// The digest of these bytes, in BLAKE3's plain hash mode.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_print_and_parse_in_one_spelling() {
        let digest = Sha256Digest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        assert!(text.to_uppercase().parse::<Sha256Digest>().is_err());
        assert!(
            text.replace("e3b0", "E3b0")
                .parse::<Sha256Digest>()
                .is_err()
        );
        assert!(text.parse::<Blake3Digest>().is_err());
        assert!("sha256:e3".parse::<Sha256Digest>().is_err());
        assert_eq!(
            Blake3Digest::of(b"").hex(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
    }
}
