//! Names of Git's objects.

use std::{fmt, str::FromStr};

/// The name of a commit, tree or blob: SHA-1 of its header and content, 20 bytes; shown as
/// 40 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub(super) gix::ObjectId);

/// Text that is not 40 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the name of a Git object")]
pub struct ParseObjectIdError {
    text: String,
}

impl ObjectId {
    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// The first twelve digits, for people.
    pub fn short(&self) -> String {
        self.0.to_hex_with_len(12).to_string()
    }

    /// Whether all digits are zero, which platforms write where there is no commit.
    pub fn is_zero(&self) -> bool {
        self.0.is_null()
    }
}

impl FromStr for ObjectId {
    type Err = ParseObjectIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = gix::ObjectId::from_hex(text.as_bytes());
        id.map(Self).map_err(|_| ParseObjectIdError {
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
