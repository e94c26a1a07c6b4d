//! Layers' blobs, at hand and verified once in an export.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

use crate::{
    digest::{HashingReader, Sha256Digest},
    engine::{BuildError, ExportCompression, ResultLayer, Session},
    fs::{self, IoContext as _},
};

/// The blobs whose bytes have been found right.
#[derive(Debug, Default)]
pub(super) struct Verified(HashSet<Sha256Digest>);

impl Verified {
    /// The layer in the compression asked for, or as it is, and the file with its blob. `earlier`
    /// is a layout that an earlier export may have linked the blob into.
    pub(super) async fn layer(
        &mut self,
        session: &Session,
        solved: &ResultLayer,
        compression: Option<ExportCompression>,
        earlier: Option<&Path>,
    ) -> Result<(ResultLayer, PathBuf), BuildError> {
        loop {
            let layer = match compression {
                Some(wanted) => session.exported(solved, wanted).await?,
                None => solved.clone(),
            };
            let file = session.bytes().ensure(&layer).await?;
            if session.bytes().is_verified(&layer.blob.digest)
                || self.is_right(&file.path, earlier, &layer)?
            {
                return Ok((layer, file.path));
            }
            // Removing it makes the next round fetch it, compress it anew, or have its
            // step run again.
            fs::remove_file(&file.path)?;
            session.engine().events.warn(
                format!(
                    "cached blob `{}` was corrupt and has been dropped",
                    layer.blob.digest
                ),
                None,
            );
        }
    }

    /// Whether the blob's bytes are right. A blob that an earlier export to the same place
    /// linked was verified then; its size is enough now.
    fn is_right(
        &mut self,
        path: &Path,
        earlier: Option<&Path>,
        layer: &ResultLayer,
    ) -> Result<bool, BuildError> {
        if self.0.contains(&layer.blob.digest) {
            return Ok(true);
        }
        let linked = earlier.map(|dir| dir.join("blobs/sha256").join(layer.blob.digest.hex()));
        let right = match linked {
            Some(linked) if fs::same_file(path, &linked) => fs::size(path)? == layer.blob.size,
            _ => {
                let mut reader = HashingReader::new(fs::open(path)?);
                io::copy(&mut reader, &mut io::sink()).at("read", path)?;
                reader.hashes().sha256 == layer.blob.digest
            }
        };
        if right {
            self.0.insert(layer.blob.digest);
        }
        Ok(right)
    }
}
