//! What keeps garbage collection away from running builds.
//!
//! A build holds a [`BuildLease`] from before its first look-up to its end. While a
//! handle has a lease, whatever is looked up or opened through it is marked as used
//! *now*, in a write transaction. Garbage collection removes only what was last used
//! before the oldest living lease began, and looks again at the time of last use
//! in the write transaction in which it removes. So either the build's mark comes
//! first, and the thing stays, or the removal does, and the build sees a miss.

use std::{path::Path, sync::atomic::Ordering};

use super::{
    DiskStore,
    index::lock,
    owned::{self, OwnedFile},
    unix_millis,
};
use crate::{cache::CacheError, fs::FsError};

/// The sign of a running build: a file `locks/builds/<start>-<random>`, where start is
/// in milliseconds since 1970, locked until this is dropped or the process is dead.
#[derive(Debug)]
pub struct BuildLease {
    store: DiskStore,
    _file: Option<OwnedFile>,
}

impl DiskStore {
    /// Begins a lease. On a store that can't be written it protects nothing.
    pub fn lease(&self) -> Result<BuildLease, CacheError> {
        let start = unix_millis();
        let file = if self.is_writable() {
            Some(OwnedFile::create(&self.leases_dir(), &format!("{start}-"))?)
        } else {
            None
        };
        // What was marked before may be older than this lease.
        lock(&self.shared.marked).clear();
        self.shared.lease_start.fetch_max(start, Ordering::Relaxed);
        self.shared.leases.fetch_add(1, Ordering::Relaxed);
        Ok(BuildLease {
            store: self.clone(),
            _file: file,
        })
    }
}

impl Drop for BuildLease {
    fn drop(&mut self) {
        self.store.shared.leases.fetch_sub(1, Ordering::Relaxed);
    }
}

/// When the oldest living lease in `dir` began, in milliseconds since 1970.
pub(super) fn oldest(dir: &Path) -> Result<Option<i64>, FsError> {
    let swept = owned::sweep(dir)?;
    Ok(swept
        .living
        .iter()
        // A name that can't be read protects everything.
        .map(|name| {
            name.split('-')
                .next()
                .and_then(|start| start.parse().ok())
                .unwrap_or(i64::MIN)
        })
        .min())
}
