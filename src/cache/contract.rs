//! What a cache backend must do: [`BlobStore`] and [`ActionCache`].
//!
//! The traits are narrow so that decorators (retry, deadline, circuit breaker,
//! meter) can be stacked on any backend, and are used as `Arc<dyn BlobStore>` and
//! `Arc<dyn ActionCache>`. [`super::conformance`] tests what the comments promise.

use std::{
    future::Future,
    io::{self, Read},
    ops::Range,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use sha2::Digest as _;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::{ActionResult, CacheError, Scope};
use crate::{digest::Sha256Digest, fs, key::CacheKey};

/// A future that borrows for `'a` and can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Bytes by their SHA-256.
pub trait BlobStore: Send + Sync {
    /// Which of `digests` are there, in their order.
    fn contains<'a>(
        &'a self,
        digests: &'a [Sha256Digest],
    ) -> BoxFuture<'a, Result<Vec<bool>, CacheError>>;

    /// The blob, or none. The reader ends with [`CacheError::Corrupt`] (see
    /// [`CacheError::from_io`]) instead of the end of file if the bytes were not the
    /// blob's; what was read until then must not be trusted.
    fn get(&self, digest: Sha256Digest) -> BoxFuture<'_, Result<Option<Blob>, CacheError>>;

    /// Keeps the blob. `source` must have this digest, else [`CacheError::Corrupt`]
    /// and nothing is kept. That the blob is there already is no error.
    fn put(
        &self,
        digest: Sha256Digest,
        source: BlobSource,
    ) -> BoxFuture<'_, Result<(), CacheError>>;

    /// Keeps a blob that is a sequence of frames, which end at the offsets `ends` (ascending,
    /// the last one is the blob's size). Backends that keep frames take only those that
    /// they lack. The same promises as [`put`](Self::put), which it is elsewhere.
    fn put_framed(
        &self,
        digest: Sha256Digest,
        source: BlobSource,
        ends: Arc<[u64]>,
    ) -> BoxFuture<'_, Result<(), CacheError>> {
        drop(ends);
        self.put(digest, source)
    }

    /// Whether [`read_range`](Self::read_range) reads less than the whole blob.
    fn has_ranges(&self) -> bool {
        false
    }

    /// The bytes `range` of a blob, **not verified**: the caller compares what it
    /// reads with digests of its own. None if the blob isn't there; fewer bytes than asked for are
    /// [`CacheError::Corrupt`].
    fn read_range(
        &self,
        digest: Sha256Digest,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Option<Bytes>, CacheError>> {
        Box::pin(async move {
            let Some(blob) = self.get(digest).await? else {
                return Ok(None);
            };
            let bytes = blob.read_all(digest).await?;
            let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
            match bytes.get(at(range.start)..at(range.end)) {
                Some(part) => Ok(Some(Bytes::copy_from_slice(part))),
                None => Err(CacheError::Corrupt {
                    subject: digest.into(),
                    what: format!("it has {} bytes", bytes.len()),
                }),
            }
        })
    }
}

/// Results of steps by their keys, in trust scopes.
pub trait ActionCache: Send + Sync {
    /// The results under `keys`, in their order, each from the first of `scopes` that has
    /// one; one round trip for all of them where the backend can.
    fn lookup<'a>(
        &'a self,
        scopes: &'a [Scope],
        keys: &'a [CacheKey],
    ) -> BoxFuture<'a, Result<Vec<Option<ActionResult>>, CacheError>>;

    /// Keeps `result` under its key in its scope, in place of what stood there; other
    /// scopes' entries stay. The blobs it names should be put first.
    fn put<'a>(&'a self, result: &'a ActionResult) -> BoxFuture<'a, Result<(), CacheError>>;

    /// Makes what was put visible to others, entries and blobs, where a backend gathers it. Whoever
    /// saves calls this once after the last put. Calling it again is fine, and continues after a failure.
    fn flush(&self) -> BoxFuture<'_, Result<(), CacheError>> {
        Box::pin(async { Ok(()) })
    }
}

/// A blob being read.
pub struct Blob {
    /// Its size in bytes as the backend states it.
    pub size: u64,
    /// Its bytes, verified by the end.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blob")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Blob {
    /// All bytes in memory, for blobs that are known to be small.
    pub async fn read_all(mut self, digest: Sha256Digest) -> Result<Vec<u8>, CacheError> {
        let mut bytes = Vec::new();
        self.reader
            .read_to_end(&mut bytes)
            .await
            .map_err(|error| CacheError::from_io("read", digest, error))?;
        Ok(bytes)
    }
}

/// Where the bytes of a blob to be kept come from. It can be opened again, so a
/// decorator can try again.
#[derive(Debug, Clone)]
pub enum BlobSource {
    /// In memory.
    Bytes(Bytes),
    /// A file, which must not change meanwhile.
    File(PathBuf),
}

impl BlobSource {
    /// Its size in bytes, if it can be told.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::File(path) => fs::size(path).ok(),
        }
    }

    /// The bytes, from the beginning, for blocking code.
    pub fn open(&self) -> Result<Box<dyn Read + Send>, CacheError> {
        Ok(match self {
            Self::Bytes(bytes) => Box::new(io::Cursor::new(bytes.clone())),
            Self::File(path) => Box::new(fs::open(path)?),
        })
    }
}

/// A reader that gives [`CacheError::Corrupt`] instead of the end of file if the bytes
/// it passed on do not have the expected digest.
pub struct VerifyingReader<R> {
    inner: R,
    expected: Sha256Digest,
    hasher: sha2::Sha256,
    on_corrupt: Option<Box<dyn FnOnce() + Send>>,
    verified: bool,
}

impl<R> std::fmt::Debug for VerifyingReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyingReader")
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

impl<R> VerifyingReader<R> {
    /// Verifies what is read from `inner`.
    pub fn new(inner: R, expected: Sha256Digest) -> Self {
        Self {
            inner,
            expected,
            hasher: sha2::Sha256::new(),
            on_corrupt: None,
            verified: false,
        }
    }

    /// Calls `act` when the bytes turn out wrong. It should not block for long.
    #[must_use]
    pub fn on_corrupt(mut self, act: impl FnOnce() + Send + 'static) -> Self {
        self.on_corrupt = Some(Box::new(act));
        self
    }

    /// The inner reader, at the place it was read to.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// What to answer when the inner reader has come to its end.
    fn at_end(&mut self) -> io::Result<()> {
        if self.verified {
            return Ok(());
        }
        let found = Sha256Digest::from_bytes(self.hasher.clone().finalize().into());
        if found == self.expected {
            self.verified = true;
            return Ok(());
        }
        if let Some(act) = self.on_corrupt.take() {
            act();
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            CacheError::Corrupt {
                subject: self.expected.into(),
                what: format!("its bytes have digest `{found}`"),
            },
        ))
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        if n == 0 && !buf.is_empty() {
            self.at_end()?;
        }
        self.hasher.update(&buf[..n]);
        Ok(n)
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for VerifyingReader<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let had_room = buf.remaining() > 0;
        std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        if read.is_empty() && had_room {
            return Poll::Ready(self.at_end());
        }
        self.hasher.update(read);
        Poll::Ready(Ok(()))
    }
}
