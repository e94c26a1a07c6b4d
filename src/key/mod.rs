//! Cache keys: what a step's result depends on, and nothing else.
//!
//! Every step has a *definition key*, made of its recipe and of the definition keys
//! of its inputs, and computable before anything runs; and a *content key*, in which
//! the digests of the inputs' content stand for their definition keys. Both are made
//! from a [`KeyRecipe`], a list of named parts that is stored with the result, so
//! that a miss can be explained ([`KeyDiff`], [`FileListing`]). What is in, what is left out, and test vectors:
//! `docs/internals/cache-key-spec.md`.

mod definition;
mod difference;
mod explain;
mod listing;
mod recipe;
#[cfg(test)]
mod tests;

pub use definition::{DefinitionKeys, KeyOptions, exec_content_recipe, file_content_recipe};
pub use difference::{Difference, Topic};
pub use explain::{KeyDiff, OldPart, OldValue, hidden_items};
pub use listing::{ChangedFile, FileChange, FileListing, Listed, ListedPath};
pub use recipe::{KeyKind, KeyRecipe, RecipePart, RecipeValue};

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::digest::{Blake3Digest, ParseDigestError};

/// The name of a cached result, `blake3:<64 hex digits>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CacheKey(pub Blake3Digest);

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for CacheKey {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}
