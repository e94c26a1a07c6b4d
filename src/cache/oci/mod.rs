//! A repository of an OCI registry as a cache: [`RegistryCache`], `oci://registry/repository`.
//!
//! A blob is a blob of the repository, layers with their ordinary media types, so that an image
//! pushed to the same registry mounts them. An entry is an image manifest under a tag ([`entry`]), which
//! names the blobs: a registry's garbage collection removes them with the last manifest, and
//! blobs of no manifest at any time.
//!
//! A look-up is a request for each key and scope, many at once. Registries know no scopes:
//! who may push may replace every entry, whatever its scope. Where that is a danger, entries are signed
//! or pull requests get no right to push.
//!
//! A registry that lets us pull and not push is read-only: after the first refusal no
//! further push is tried.

pub(super) mod entry;

use std::{
    collections::{HashMap, HashSet},
    io,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::io::StreamReader;

pub use self::entry::EntryError;
use self::entry::Found;
use super::{
    ActionCache, ActionResult, Blob, BlobSource, BlobStore, BoxFuture, CacheError, Later,
    MAX_ENTRY, Scope, Subject, VerifyingReader,
};
use crate::{
    digest::Sha256Digest,
    key::CacheKey,
    oci::{Descriptor, Repository, descriptor::media, reference::ParseReferenceError},
    registry::{Limits, Registry, RegistryError, Trouble, UploadSource},
};

/// Requests at a time.
const PARALLEL: usize = 32;

/// A repository as a cache.
#[derive(Debug)]
pub struct RegistryCache {
    registry: Registry,
    repository: Repository,
    /// Sizes in bytes of blobs that are there.
    sizes: Mutex<HashMap<Sha256Digest, u64>>,
    /// Blobs that are there with wrong bytes: they count as missing, so that they are pushed again.
    spoilt: Arc<Mutex<HashSet<Sha256Digest>>>,
    /// Whether a push was refused.
    is_read_only: AtomicBool,
}

/// What is wrong with a blob that an entry is to name.
#[derive(Debug, thiserror::Error)]
#[error("the registry has no blob `{digest}`, which the entry names")]
struct MissingBlob {
    digest: Sha256Digest,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RegistryCache {
    /// The cache in the repository `place`, `registry.example/team/cache`.
    pub fn new(registry: &Registry, place: &str) -> Result<Self, ParseReferenceError> {
        // What is around a tier tries again too, and counts on errors that come soon.
        let limits = Limits {
            retries: 2,
            backoff: Duration::from_millis(100),
            longest_pause: Duration::from_secs(2),
            ..Limits::default()
        };
        Ok(Self {
            registry: registry.with_limits(limits),
            repository: place.parse()?,
            sizes: Mutex::default(),
            spoilt: Arc::default(),
            is_read_only: AtomicBool::new(false),
        })
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The size of a blob, as the registry has it.
    async fn size(&self, digest: Sha256Digest, for_push: bool) -> Result<Option<u64>, CacheError> {
        let size = self.registry.blob_size(&self.repository, &digest, for_push);
        let size = size
            .await
            .map_err(|error| sorted("look for", digest, error))?;
        if let Some(size) = size {
            lock(&self.sizes).insert(digest, size);
        }
        Ok(size)
    }

    /// The first entry under `key` in `scopes`.
    async fn find(
        &self,
        scopes: &[Scope],
        key: CacheKey,
    ) -> Result<Option<ActionResult>, CacheError> {
        for scope in scopes {
            let tag = entry::tag(scope, &key);
            let manifest = self.registry.manifest(&self.repository, &tag).await;
            let manifest = match manifest {
                Ok(Some(manifest)) => manifest,
                Ok(None) => continue,
                Err(error) => return Err(sorted("look up", key, error)),
            };
            let unreadable = |error: EntryError| {
                tracing::warn!(target: "audit", %tag, %error, "unreadable entry");
            };
            match entry::read(scope, key, &manifest.bytes) {
                Ok(Found::Entry(entry)) => return Ok(Some(entry)),
                Ok(Found::Blob(blob)) => match self.fetch_entry(scope, key, &blob).await? {
                    Some(Ok(entry)) => return Ok(Some(entry)),
                    Some(Err(error)) => unreadable(error),
                    None => {}
                },
                Err(error) => unreadable(error),
            }
        }
        Ok(None)
    }

    /// The entry in a blob of its own, if it is there.
    async fn fetch_entry(
        &self,
        scope: &Scope,
        key: CacheKey,
        blob: &Descriptor,
    ) -> Result<Option<Result<ActionResult, EntryError>>, CacheError> {
        if blob.size > MAX_ENTRY as u64 {
            return Ok(Some(Err(EntryError::Inline)));
        }
        let Some(found) = self.get(blob.digest).await? else {
            return Ok(None);
        };
        if found.size != blob.size {
            return Ok(Some(Err(EntryError::Inline)));
        }
        Ok(match found.read_all(blob.digest).await {
            Ok(json) => Some(entry::decode(scope, key, &json).map_err(EntryError::from)),
            Err(CacheError::Corrupt { .. }) => Some(Err(EntryError::Inline)),
            Err(error) => return Err(error),
        })
    }

    /// Runs a push, unless one was refused before.
    async fn push<T>(
        &self,
        subject: impl Into<Subject>,
        push: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, CacheError> {
        if self.is_read_only.load(Ordering::Relaxed) {
            return Err(CacheError::ReadOnly {
                subject: Subject::Url(format!("oci://{}", self.repository)),
            });
        }
        let pushed = push.await;
        if let Err(RegistryError::Denied { .. } | RegistryError::ReadOnly { .. }) = &pushed {
            self.is_read_only.store(true, Ordering::Relaxed);
        }
        pushed.map_err(|error| sorted("write", subject, error))
    }

    /// Pushes the entry's JSON and its manifest.
    async fn push_entry(&self, result: &ActionResult) -> Result<(), CacheError> {
        let index = result.layer.as_ref().and_then(|layer| layer.index);
        let index_size = match index {
            None => None,
            Some(index) => {
                let known = lock(&self.sizes).get(&index).copied();
                let size = match known {
                    Some(size) => Some(size),
                    None => self.size(index, true).await?,
                };
                Some(size.ok_or_else(|| CacheError::Broken {
                    act: "write",
                    subject: result.key.into(),
                    source: Box::new(MissingBlob { digest: index }),
                })?)
            }
        };
        let json = Bytes::from(result.encode());
        let digest = Sha256Digest::of(&json);
        let manifest = entry::manifest(result, &json, index_size);
        let source = UploadSource::Bytes(json);
        let tag = entry::tag(&result.scope, &result.key);
        self.push(result.key, async {
            let registry = &self.registry;
            registry
                .push_blob(&self.repository, &digest, &source)
                .await?;
            registry
                .push_manifest(&self.repository, &tag, media::MANIFEST, &manifest)
                .await
        })
        .await?;
        Ok(())
    }
}

impl ActionCache for RegistryCache {
    fn lookup<'a>(
        &'a self,
        scopes: &'a [Scope],
        keys: &'a [CacheKey],
    ) -> BoxFuture<'a, Result<Vec<Option<ActionResult>>, CacheError>> {
        Box::pin(async move {
            let found: Vec<_> = keys.iter().map(|key| self.find(scopes, *key)).collect();
            stream::iter(found).buffered(PARALLEL).try_collect().await
        })
    }

    fn put<'a>(&'a self, result: &'a ActionResult) -> BoxFuture<'a, Result<(), CacheError>> {
        Box::pin(self.push_entry(result))
    }
}

impl BlobStore for RegistryCache {
    fn contains<'a>(
        &'a self,
        digests: &'a [Sha256Digest],
    ) -> BoxFuture<'a, Result<Vec<bool>, CacheError>> {
        Box::pin(async move {
            let sizes: Vec<_> = digests
                .iter()
                .map(|digest| self.size(*digest, false))
                .collect();
            let sizes: Vec<Option<u64>> =
                stream::iter(sizes).buffered(PARALLEL).try_collect().await?;
            let spoilt = lock(&self.spoilt);
            let is_there = |(digest, size): (&Sha256Digest, &Option<u64>)| {
                size.is_some() && !spoilt.contains(digest)
            };
            Ok(digests.iter().zip(&sizes).map(is_there).collect())
        })
    }

    fn get(&self, digest: Sha256Digest) -> BoxFuture<'_, Result<Option<Blob>, CacheError>> {
        Box::pin(async move {
            let blob = self.registry.open_blob(&self.repository, &digest).await;
            let Some(blob) = blob.map_err(|error| sorted("read", digest, error))? else {
                return Ok(None);
            };
            let size = blob.size();
            let pieces = blob
                .into_stream()
                .map_err(move |error| io::Error::other(sorted("read", digest, error)));
            let spoilt = self.spoilt.clone();
            let reader = VerifyingReader::new(StreamReader::new(Box::pin(pieces)), digest);
            let reader = reader.on_corrupt(move || {
                lock(&spoilt).insert(digest);
            });
            Ok(Some(Blob {
                size,
                reader: Box::new(reader),
            }))
        })
    }

    fn put(
        &self,
        digest: Sha256Digest,
        source: BlobSource,
    ) -> BoxFuture<'_, Result<(), CacheError>> {
        Box::pin(async move {
            let source = match source {
                BlobSource::Bytes(bytes) => UploadSource::Bytes(bytes),
                BlobSource::File(path) => UploadSource::File(path),
            };
            let push = self.registry.push_blob(&self.repository, &digest, &source);
            self.push(digest, push).await?;
            lock(&self.spoilt).remove(&digest);
            Ok(())
        })
    }

    fn has_ranges(&self) -> bool {
        true
    }

    fn read_range(
        &self,
        digest: Sha256Digest,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Option<Bytes>, CacheError>> {
        Box::pin(async move {
            let wanted = range.end.saturating_sub(range.start);
            if wanted == 0 {
                let is_there = self.size(digest, false).await?.is_some();
                return Ok(is_there.then(Bytes::new));
            }
            let bytes = (self.registry)
                .read_range(&self.repository, &digest, range)
                .await
                .map_err(|error| sorted("read", digest, error))?;
            match bytes {
                Some(bytes) if bytes.len() as u64 != wanted => Err(CacheError::Corrupt {
                    subject: digest.into(),
                    what: format!("it has {} of {wanted} bytes", bytes.len()),
                }),
                bytes => Ok(bytes),
            }
        })
    }
}

/// The error of a cache that an error of the registry means.
fn sorted(act: &'static str, subject: impl Into<Subject>, error: RegistryError) -> CacheError {
    let subject = subject.into();
    if let RegistryError::Integrity { source, .. } = &error {
        return CacheError::Corrupt {
            subject,
            what: source.to_string(),
        };
    }
    if let (RegistryError::Refused { message, .. }, Subject::Blob(_)) = (&error, &subject) {
        return CacheError::Corrupt {
            subject,
            what: format!("the registry refuses its bytes: {message}"),
        };
    }
    let (trouble, asked) = (error.trouble(), error.retry_after());
    match error {
        RegistryError::Quota { .. } => CacheError::Full {
            act,
            subject,
            source: Box::new(error),
        },
        RegistryError::ReadOnly { .. } => CacheError::ReadOnly {
            subject: Subject::Url(subject.to_string()),
        },
        error if trouble == Trouble::Transient => CacheError::Transient {
            act,
            subject,
            source: match asked {
                None => Box::new(error),
                Some(after) => Box::new(Later {
                    after,
                    source: Some(Box::new(error)),
                }),
            },
        },
        error if trouble == Trouble::Denied => CacheError::Denied {
            act,
            subject,
            source: Box::new(error),
        },
        error => CacheError::Broken {
            act,
            subject,
            source: Box::new(error),
        },
    }
}
