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
