//! Unpacked layers as the cache's garbage collection sees them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{SnapshotError, Snapshots, meta::Meta};
use crate::cache::{CacheError, DerivedData, DerivedUse, Subject};

/// A layer that was used less than this long ago may lie below a running step.
const IN_USE: Duration = Duration::from_secs(60);

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
        // A step may have taken it up since the list was made.
        let idle = Meta::last_use(&self.dir.join(id))
            .and_then(|used| SystemTime::now().duration_since(used).ok());
        if idle.is_some_and(|idle| idle < IN_USE) {
            return Ok(false);
        }
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
