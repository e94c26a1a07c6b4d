//! `memobuild.lock`: the digests that base images are pinned to.
//!
//! A JSON object with `version` 1 and `images`, a list sorted by `reference` and `platform`; each row has
//! these two and `digest`, that of the platform's manifest. It stands beside `memobuild.yml` and is
//! meant to be committed: whoever builds a commit then builds on the same images. A row that no
//! Dockerfile names any more is dropped when the file is written.

use std::{collections::BTreeMap, path::Path};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    digest::Sha256Digest,
    fs::{self, Files, FsError},
};

/// Its name.
pub const FILE_NAME: &str = "memobuild.lock";

/// The version of its format.
const VERSION: u32 = 1;

/// The pinned images, by reference and platform.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    images: BTreeMap<(String, String), Sha256Digest>,
}

/// A base image whose upstream has another digest than the pinned one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MovedImage {
    /// The reference, as Dockerfiles have it.
    pub reference: String,
    /// The platform.
    pub platform: String,
    /// The pinned digest.
    pub old: String,
    /// That of the registry.
    pub new: String,
}

/// A lock file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It can't be read or written.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// It is not of the form described above.
    #[error("`{path}` is no lock file")]
    Invalid {
        /// Where it is.
        path: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// It has another version.
    #[error("`{path}` has version {found}; this program knows {VERSION}")]
    Version {
        /// Where it is.
        path: String,
        /// What it states.
        found: u32,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    images: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    reference: String,
    platform: String,
    digest: Sha256Digest,
}

impl Lock {
    /// The lock file at `path`; none if there is none.
    pub fn load(files: &dyn Files, path: &Path) -> Result<Option<Self>, LockError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let bytes = match files.read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let shown = || path.display().to_string();
        let invalid = |source| LockError::Invalid {
            path: shown(),
            source,
        };
        let Version { version } = serde_json::from_slice(&bytes).map_err(invalid)?;
        if version != VERSION {
            return Err(LockError::Version {
                path: shown(),
                found: version,
            });
        }
        let file: File = serde_json::from_slice(&bytes).map_err(invalid)?;
        let rows = file.images.into_iter();
        Ok(Some(Self {
            images: rows
                .map(|row| ((row.reference, row.platform), row.digest))
                .collect(),
        }))
    }

    /// The digest that an image is pinned to.
    pub fn get(&self, reference: &str, platform: &str) -> Option<Sha256Digest> {
        let key = (reference.to_owned(), platform.to_owned());
        self.images.get(&key).copied()
    }

    /// Pins an image.
    pub fn pin(&mut self, reference: &str, platform: &str, digest: Sha256Digest) {
        let key = (reference.to_owned(), platform.to_owned());
        self.images.insert(key, digest);
    }

    /// Writes it to `path`, whole or not at all; nothing if that would change nothing. Tells whether it did.
    pub fn save(&self, path: &Path) -> Result<bool, LockError> {
        let rows = self
            .images
            .iter()
            .map(|((reference, platform), digest)| Row {
                reference: reference.clone(),
                platform: platform.clone(),
                digest: *digest,
            });
        let file = File {
            version: VERSION,
            images: rows.collect(),
        };
        let text = serde_json::to_string_pretty(&file).map_err(|source| LockError::Invalid {
            path: path.display().to_string(),
            source,
        })?;
        let text = format!("{text}\n");
        if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(false);
        }
        fs::write_atomic(path, text.as_bytes())?;
        Ok(true)
    }
}
