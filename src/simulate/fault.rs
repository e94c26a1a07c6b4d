//! A cache with a fault, to try what a build makes of it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    cache::{
        ActionCache, ActionResult, Blob, BlobSource, BlobStore, BoxFuture, CacheError, Scope,
        Subject, VerifyingReader,
    },
    digest::Sha256Digest,
    key::CacheKey,
};

/// What is wrong with a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It answers nothing.
    Down,
    /// It answers late, each time.
    Slow(Duration),
    /// The bytes of its blobs are wrong.
    Corrupt,
}

/// A cache in front of another one, with a fault.
#[derive(Debug, Clone)]
pub struct FaultyCache<S> {
    inner: Arc<S>,
    fault: Fault,
    name: String,
}

impl<S> FaultyCache<S> {
    /// What `inner` has, with `fault`; errors name the cache `name`.
    pub fn new(inner: Arc<S>, fault: Fault, name: &str) -> Self {
        Self {
            inner,
            fault,
            name: name.to_owned(),
        }
    }

    /// What happens before any answer.
    async fn before(&self, act: &'static str) -> Result<(), CacheError> {
        match self.fault {
            Fault::Down => Err(CacheError::Transient {
                act,
                subject: Subject::Url(self.name.clone()),
                source: "the cache is simulated to be down".into(),
            }),
            Fault::Slow(delay) => {
                tokio::time::sleep(delay).await;
                Ok(())
            }
            Fault::Corrupt => Ok(()),
        }
    }
}

impl<S: BlobStore> BlobStore for FaultyCache<S> {
    fn contains<'a>(
        &'a self,
        digests: &'a [Sha256Digest],
    ) -> BoxFuture<'a, Result<Vec<bool>, CacheError>> {
        Box::pin(async move {
            self.before("look for blobs").await?;
            self.inner.contains(digests).await
        })
    }

    fn get(&self, digest: Sha256Digest) -> BoxFuture<'_, Result<Option<Blob>, CacheError>> {
        Box::pin(async move {
            self.before("fetch a blob").await?;
            let Some(blob) = self.inner.get(digest).await? else {
                return Ok(None);
            };
            if self.fault != Fault::Corrupt {
                return Ok(Some(blob));
            }
            let size = blob.size;
            let mut bytes = blob.read_all(digest).await?;
            for byte in bytes.iter_mut().take(1) {
                *byte ^= 0xff;
            }
            let reader = std::io::Cursor::new(Bytes::from(bytes));
            Ok(Some(Blob {
                size,
                reader: Box::new(VerifyingReader::new(reader, digest)),
            }))
        })
    }

    fn put(
        &self,
        digest: Sha256Digest,
        source: BlobSource,
    ) -> BoxFuture<'_, Result<(), CacheError>> {
        // Nothing that is simulated is kept anywhere.
        Box::pin(async move {
            let _ = (digest, source);
            self.before("save a blob").await
        })
    }
}

impl<S: ActionCache> ActionCache for FaultyCache<S> {
    fn lookup<'a>(
        &'a self,
        scopes: &'a [Scope],
        keys: &'a [CacheKey],
    ) -> BoxFuture<'a, Result<Vec<Option<ActionResult>>, CacheError>> {
        Box::pin(async move {
            self.before("look keys up").await?;
            self.inner.lookup(scopes, keys).await
        })
    }

    fn put<'a>(&'a self, _: &'a ActionResult) -> BoxFuture<'a, Result<(), CacheError>> {
        Box::pin(self.before("save a result"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{MemoryStore, conformance::sample_action};

    async fn asked(fault: Fault) -> (Result<usize, CacheError>, Result<Vec<u8>, CacheError>) {
        let digest = Sha256Digest::of(b"layer");
        let inner = Arc::new(MemoryStore::default());
        let source = BlobSource::Bytes(Bytes::from_static(b"layer"));
        BlobStore::put(&*inner, digest, source).await.unwrap();
        let entry = sample_action(1, &[digest]);
        ActionCache::put(&*inner, &entry).await.unwrap();
        let cache = FaultyCache::new(Arc::clone(&inner), fault, "c");
        let scopes = [entry.scope.clone()];
        let keys = [entry.key];
        let found = cache.lookup(&scopes, &keys).await;
        let bytes = match cache.get(digest).await {
            Ok(blob) => blob.unwrap().read_all(digest).await,
            Err(error) => Err(error),
        };
        // Nothing is kept.
        let other = Sha256Digest::of(b"other");
        let source = BlobSource::Bytes(Bytes::from_static(b"other"));
        let _ = BlobStore::put(&cache, other, source).await;
        assert_eq!(inner.contains(&[other]).await.unwrap(), [false]);
        (found.map(|found| found.iter().flatten().count()), bytes)
    }

    #[tokio::test]
    async fn a_cache_that_is_down_answers_nothing() {
        let (found, bytes) = asked(Fault::Down).await;
        assert!(matches!(found, Err(CacheError::Transient { .. })));
        assert!(matches!(bytes, Err(CacheError::Transient { .. })));
    }

    #[tokio::test]
    async fn a_slow_cache_answers_rightly() {
        let (found, bytes) = asked(Fault::Slow(Duration::from_millis(1))).await;
        assert_eq!((found.unwrap(), bytes.unwrap()), (1, b"layer".to_vec()));
    }

    #[tokio::test]
    async fn corrupt_bytes_are_told_as_such() {
        let (found, bytes) = asked(Fault::Corrupt).await;
        assert_eq!(found.unwrap(), 1);
        assert!(matches!(bytes, Err(CacheError::Corrupt { .. })));
    }
}
