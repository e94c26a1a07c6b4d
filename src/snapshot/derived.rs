//! Unpacked layers as the cache's garbage collection sees them.

use std::time::UNIX_EPOCH;

use super::{SnapshotError, Snapshots};
use crate::cache::{CacheError, DerivedData, DerivedUse, Subject};

impl DerivedData for Snapshots {
    fn list(&self) -> Result<Vec<DerivedUse>, CacheError> {
        let snapshots = Self::list(self).map_err(|source| self.broken("list", source))?;
        Ok(snapshots
            .into_iter()
            .map(|snapshot| {
                let used = snapshot.used.duration_since(UNIX_EPOCH);
                DerivedUse {
                    id: snapshot.id,
                    bytes: snapshot.bytes,
                    used: used.map_or(0, |time| {
                        i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
                    }),
                }
            })
            .collect())
    }

    fn remove(&self, id: &str) -> Result<bool, CacheError> {
        Self::remove(self, id).map_err(|source| self.broken("remove", source))?;
        Ok(true)
    }
}

impl Snapshots {
    fn broken(&self, act: &'static str, source: SnapshotError) -> CacheError {
        CacheError::Broken {
            act,
            subject: Subject::Path(self.dir.clone()),
            source: Box::new(source),
        }
    }
}
