//! The description of an event, a JSON file of the form of GitHub's webhooks.
//!
//! Every value is looked up alone: what is absent, or has another form than expected, is absent
//! and spoils nothing else.

use std::path::PathBuf;

use serde_json::Value;

use crate::{
    config::env::Env,
    fs::{self, FsError},
};

/// Longest description of an event in bytes; GitHub's end at 25 MB.
const LONGEST: u64 = 32 << 20;

/// Why there is no description.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The file can't be read.
    #[error("can't read the description of the event")]
    Read(#[from] FsError),
    /// The file is longer than any description.
    #[error("`{}`, the description of the event, has {size} bytes, more than {LONGEST}", path.display())]
    Long {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        size: u64,
    },
    /// The file is no JSON.
    #[error("`{}`, the description of the event, is no JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it isn't.
        #[source]
        source: serde_json::Error,
    },
}

/// The description of an event.
#[derive(Debug, Default)]
pub(super) struct Payload(Value);

impl Payload {
    /// The one that `GITHUB_EVENT_PATH` names; empty if it names none.
    pub(super) fn read(env: &Env) -> Result<Self, PayloadError> {
        let Some(path) = env.platform("GITHUB_EVENT_PATH") else {
            return Ok(Self::default());
        };
        let size = fs::size(path)?;
        if size > LONGEST {
            return Err(PayloadError::Long {
                path: path.into(),
                size,
            });
        }
        let json = serde_json::from_slice(&fs::read(path)?);
        json.map(Self).map_err(|source| PayloadError::Json {
            path: path.into(),
            source,
        })
    }

    /// Whether there is something at `pointer` (RFC 6901), and not `null`.
    pub(super) fn has(&self, pointer: &str) -> bool {
        self.0
            .pointer(pointer)
            .is_some_and(|value| !value.is_null())
    }

    /// The text there, unless it is empty.
    pub(super) fn text(&self, pointer: &str) -> Option<String> {
        let text = self.0.pointer(pointer)?.as_str()?;
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// The number there, as text.
    pub(super) fn number(&self, pointer: &str) -> Option<String> {
        Some(self.0.pointer(pointer)?.as_u64()?.to_string())
    }

    /// Whether there is `true`.
    pub(super) fn is(&self, pointer: &str) -> bool {
        self.0.pointer(pointer).and_then(Value::as_bool) == Some(true)
    }

    /// Of each element of the array at `pointer` the text called `name`.
    pub(super) fn texts(&self, pointer: &str, name: &str) -> Vec<String> {
        let list = self.0.pointer(pointer).and_then(Value::as_array);
        let texts = list.into_iter().flatten();
        texts
            .filter_map(|element| Some(element.get(name)?.as_str()?.to_owned()))
            .collect()
    }
}
