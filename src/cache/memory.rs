//! A cache in memory, for tests.

use std::{
    collections::HashMap,
    io::{self, Read},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{
    ActionCache, ActionResult, Blob, BlobSource, BlobStore, BoxFuture, CacheError, EntryId, Scope,
    VerifyingReader,
};
use crate::{digest::Sha256Digest, key::CacheKey};

/// Blobs and actions of one process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    blobs: Mutex<HashMap<Sha256Digest, Bytes>>,
    actions: Mutex<HashMap<EntryId, ActionResult>>,
}

impl MemoryStore {
    /// Forgets a blob, as an eviction does.
    pub fn evict(&self, digest: &Sha256Digest) {
        lock(&self.blobs).remove(digest);
    }

    /// Puts wrong bytes under a blob's name, as a bad disk does.
    pub fn spoil(&self, digest: &Sha256Digest) {
        self.replace(digest, &b"not the blob's bytes"[..]);
    }

    /// Puts these bytes under a blob's name, whatever their digest is.
    pub fn replace(&self, digest: &Sha256Digest, bytes: impl Into<Bytes>) {
        lock(&self.blobs).insert(*digest, bytes.into());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BlobStore for MemoryStore {
    fn contains<'a>(
        &'a self,
        digests: &'a [Sha256Digest],
    ) -> BoxFuture<'a, Result<Vec<bool>, CacheError>> {
        Box::pin(async move {
            let blobs = lock(&self.blobs);
            Ok(digests.iter().map(|d| blobs.contains_key(d)).collect())
        })
    }

    fn get(&self, digest: Sha256Digest) -> BoxFuture<'_, Result<Option<Blob>, CacheError>> {
        Box::pin(async move {
            let Some(bytes) = lock(&self.blobs).get(&digest).cloned() else {
                return Ok(None);
            };
            Ok(Some(Blob {
                size: bytes.len() as u64,
                reader: Box::new(VerifyingReader::new(io::Cursor::new(bytes), digest)),
            }))
        })
    }

    fn put(
        &self,
        digest: Sha256Digest,
        source: BlobSource,
    ) -> BoxFuture<'_, Result<(), CacheError>> {
        Box::pin(async move {
            let mut bytes = Vec::new();
            source
                .open()?
                .read_to_end(&mut bytes)
                .map_err(|error| CacheError::from_io("read", digest, error))?;
            let found = Sha256Digest::of(&bytes);
            if found != digest {
                return Err(CacheError::Corrupt {
                    subject: digest.into(),
                    what: format!("the bytes given for it have digest `{found}`"),
                });
            }
            lock(&self.blobs).insert(digest, bytes.into());
            Ok(())
        })
    }
}

impl ActionCache for MemoryStore {
    fn lookup<'a>(
        &'a self,
        scopes: &'a [Scope],
        keys: &'a [CacheKey],
    ) -> BoxFuture<'a, Result<Vec<Option<ActionResult>>, CacheError>> {
        Box::pin(async move {
            let actions = lock(&self.actions);
            let find = |key| {
                let mut ids = scopes.iter().map(|scope| EntryId::of(scope, key));
                ids.find_map(|id| actions.get(&id).cloned())
            };
            Ok(keys.iter().map(find).collect())
        })
    }

    fn put<'a>(&'a self, result: &'a ActionResult) -> BoxFuture<'a, Result<(), CacheError>> {
        Box::pin(async move {
            lock(&self.actions).insert(result.id(), result.clone());
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cache::conformance;

    #[tokio::test]
    async fn conforms() {
        let store = Arc::new(MemoryStore::default());
        conformance::blob_store(store.clone()).await;
        conformance::action_cache(store.clone()).await;
        let spoiled = store.clone();
        conformance::corruption(store, move |digest| spoiled.spoil(digest)).await;
    }
}
