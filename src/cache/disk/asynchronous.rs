//! The local store behind the contracts of all caches. Blocking work runs on
//! threads for it.

use std::io;

use super::DiskStore;
use crate::{
    cache::{
        ActionCache, ActionResult, Blob, BlobSource, BlobStore, BoxFuture, CacheError, Scope,
        Subject, VerifyingReader,
    },
    digest::Sha256Digest,
    key::CacheKey,
};

/// Runs `work` where it may block.
pub(in crate::cache) async fn blocking<T: Send + 'static>(
    act: &'static str,
    subject: impl Into<Subject>,
    work: impl FnOnce() -> Result<T, CacheError> + Send + 'static,
) -> Result<T, CacheError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // A panic of ours, or the runtime is shutting down.
        Err(error) => Err(CacheError::Broken {
            act,
            subject: subject.into(),
            source: Box::new(error),
        }),
    }
}

impl BlobStore for DiskStore {
    fn contains<'a>(
        &'a self,
        digests: &'a [Sha256Digest],
    ) -> BoxFuture<'a, Result<Vec<bool>, CacheError>> {
        let (store, digests) = (self.clone(), digests.to_vec());
        Box::pin(blocking("look for blobs in", self.dir(), move || {
            digests
                .iter()
                .map(|digest| store.contains(digest))
                .collect()
        }))
    }

    fn get(&self, digest: Sha256Digest) -> BoxFuture<'_, Result<Option<Blob>, CacheError>> {
        let store = self.clone();
        Box::pin(blocking("read", digest, move || {
            let Some(blob) = store.open_blob_verified(&digest)? else {
                return Ok(None);
            };
            let size = blob.size();
            let (file, inode) = blob.into_file();
            let file = tokio::fs::File::from_std(file);
            let reader = VerifyingReader::new(file, digest).on_corrupt(move || {
                // As for blocking readers: the error is reported in any case.
                let _ = store.remove_corrupt(&digest, inode);
            });
            Ok(Some(Blob {
                size,
                reader: Box::new(reader),
            }))
        }))
    }

    fn put(
        &self,
        digest: Sha256Digest,
        source: BlobSource,
    ) -> BoxFuture<'_, Result<(), CacheError>> {
        let store = self.clone();
        Box::pin(blocking("write", digest, move || {
            let mut writer = store.writer()?;
            let mut reader = source.open()?;
            io::copy(&mut reader, &mut writer)
                .map_err(|error| CacheError::from_io("write", digest, error))?;
            writer.commit(Some(digest)).map(|_| ())
        }))
    }
}

impl ActionCache for DiskStore {
    fn lookup<'a>(
        &'a self,
        scopes: &'a [Scope],
        keys: &'a [CacheKey],
    ) -> BoxFuture<'a, Result<Vec<Option<ActionResult>>, CacheError>> {
        let (store, scopes, keys) = (self.clone(), scopes.to_vec(), keys.to_vec());
        Box::pin(blocking("look up keys in", self.dir(), move || {
            Self::lookup(&store, &scopes, &keys)
        }))
    }

    fn put<'a>(&'a self, result: &'a ActionResult) -> BoxFuture<'a, Result<(), CacheError>> {
        let (store, result) = (self.clone(), result.clone());
        Box::pin(blocking("write", result.key, move || {
            store.put_action(&result)
        }))
    }
}
