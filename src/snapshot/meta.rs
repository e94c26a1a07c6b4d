//! What is known of an unpacked layer besides its files: `meta.json` beside `fs/`.
//!
//! ```json
//! {"version": 1, "bytes": 5, "implicit": ["<path in hex>"], "opaque_root": false}
//! ```
//!
//! The time of the file's last change is the time of the layer's last use.

use std::{path::Path, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::SnapshotError;
use crate::{
    fs::{self, IoContext},
    oci::layer::LayerPath,
};

/// Version of `meta.json`.
const VERSION: u32 = 1;

/// The name of the file.
const FILE: &str = "meta.json";

/// Facts about an unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) version: u32,
    /// Bytes of file contents.
    pub(super) bytes: u64,
    /// Directories that the layer has no entry for but something in, without the root.
    /// Lower layers decide on their attributes.
    #[serde(with = "hex_paths")]
    pub(super) implicit: Vec<LayerPath>,
    /// Whether the layer hides everything below it.
    pub(super) opaque_root: bool,
}

impl Default for Meta {
    fn default() -> Self {
        Self {
            version: VERSION,
            bytes: 0,
            implicit: Vec::new(),
            opaque_root: false,
        }
    }
}

impl Meta {
    /// Reads that of the snapshot directory `dir`; none if there is no such snapshot or
    /// it is of another version.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        let bytes = fs::read(dir.join(FILE)).ok()?;
        serde_json::from_slice(&bytes)
            .ok()
            .filter(|meta: &Self| meta.version == VERSION)
    }

    /// Writes it.
    pub(super) fn write(&self, dir: &Path) -> Result<(), SnapshotError> {
        let path = dir.join(FILE);
        let json = serde_json::to_vec(self).map_err(std::io::Error::from);
        Ok(std::fs::write(&path, json.at("encode", &path)?).at("write", &path)?)
    }

    /// When the snapshot was used last.
    pub(super) fn last_use(dir: &Path) -> Option<SystemTime> {
        std::fs::metadata(dir.join(FILE)).ok()?.modified().ok()
    }

    /// Notes that the snapshot is being used. A cache that can't be written to keeps its
    /// times.
    pub(super) fn touch(dir: &Path) {
        if let Ok(file) = std::fs::File::open(dir.join(FILE)) {
            let _ = file.set_modified(SystemTime::now());
        }
    }
}

/// Paths are bytes, JSON knows only text.
mod hex_paths {
    use std::os::unix::ffi::OsStringExt;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::oci::layer::LayerPath;

    pub(super) fn serialize<S: Serializer>(paths: &[LayerPath], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(paths.iter().map(|path| hex::encode(path.as_bytes())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<LayerPath>, D::Error> {
        Vec::<String>::deserialize(from)?
            .iter()
            .map(|text| {
                let bytes = hex::decode(text).map_err(Error::custom)?;
                LayerPath::new(std::ffi::OsString::from_vec(bytes)).map_err(Error::custom)
            })
            .collect()
    }
}
