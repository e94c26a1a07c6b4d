//! A cache in a bucket or a shared directory: S3, Google Cloud Storage, Azure Blob Storage, a file
//! system, all through OpenDAL.
//!
//! [`ObjectStore`] maps the acts of a cache to objects (`layout`) and sorts what services answer
//! (`failure`). Invariants:
//!
//! - An object appears whole or not at all: uploads in parts are completed after the digest of
//!   everything was seen, files are renamed into place.
//! - Objects are written without conditions: two writers of a blob write the same bytes, and of two
//!   writers of an entry the last one counts.
//! - Blobs are verified when read. One that proves wrong is given out as absent by
//!   [`contains`](BlobStore::contains) from then on, until it has been put again, which overwrites it.
//!
//! The format has version 1 and is specified in `docs/internals/remote-cache.md`.

mod address;
mod credentials;
mod failure;
mod layout;

use std::{
    collections::HashSet,
    fmt,
    io::Read,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use opendal::{ErrorKind, Operator, Writer, options::WriteOptions, services};
use sha2::Digest as _;
use tokio::task::spawn_blocking;
use tokio_util::io::StreamReader;

pub use self::credentials::Services;
use self::{
    address::Place,
    failure::{is_absent, sorted},
};
use super::{
    ActionCache, ActionResult, Blob, BlobSource, BlobStore, BoxFuture, CacheError, MAX_ENTRY,
    Scope, Subject, TierAddress, VerifyingReader, open::OpenError,
};
use crate::{digest::Sha256Digest, fs, key::CacheKey, registry::Authorities};

/// Requests in flight for one call.
const PARALLEL: usize = 32;
/// Size of a part of an upload in bytes. Services allow 10,000 parts.
const PART: usize = 8 << 20;
/// Parts of an upload in flight.
const PARTS_IN_FLIGHT: usize = 4;
/// Age from which a file in the temporary directory belongs to a writer that was killed.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// Entries and blobs in a bucket or a directory.
pub struct ObjectStore {
    /// The address, for messages.
    name: String,
    place: Place,
    /// Operators for a directory, made when they are used first: a directory may be there on one
    /// machine and not on another, which is trouble with a cache and not with the settings.
    reads: OnceLock<Operator>,
    writes: OnceLock<Operator>,
    corrupt: Arc<Mutex<HashSet<Sha256Digest>>>,
}

impl fmt::Debug for ObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStore")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl ObjectStore {
    /// The store at `address`, with the credentials that `services` lead to. Nothing is contacted.
    pub fn open(address: &TierAddress, services: &Services) -> Result<Self, OpenError> {
        Self::open_trusting(address, services, &Authorities::default())
    }

    /// The same, with certificate authorities to trust besides the system's.
    pub fn open_trusting(
        address: &TierAddress,
        services: &Services,
        authorities: &Authorities,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            name: address.to_string(),
            place: address::place(address, services, authorities)?,
            reads: OnceLock::new(),
            writes: OnceLock::new(),
            corrupt: Arc::default(),
        })
    }

    /// What reads.
    fn reads(&self) -> Result<&Operator, CacheError> {
        match &self.place {
            Place::Bucket(operator) => Ok(operator),
            Place::Directory(root) => self.directory(&self.reads, root, false),
        }
    }

    /// What writes.
    fn writes(&self) -> Result<&Operator, CacheError> {
        match &self.place {
            Place::Bucket(operator) => Ok(operator),
            Place::Directory(root) => self.directory(&self.writes, root, true),
        }
    }

    /// Writes something of this media type, which buckets keep and show.
    fn typed(&self, media_type: &str) -> WriteOptions {
        WriteOptions {
            content_type: match self.place {
                Place::Bucket(_) => Some(media_type.to_owned()),
                Place::Directory(_) => None,
            },
            ..WriteOptions::default()
        }
    }

    fn directory<'a>(
        &'a self,
        cell: &'a OnceLock<Operator>,
        root: &Path,
        writes: bool,
    ) -> Result<&'a Operator, CacheError> {
        if let Some(operator) = cell.get() {
            return Ok(operator);
        }
        let mut builder = services::Fs::default().root(&root.to_string_lossy());
        if writes {
            let temporary = root.join(layout::TEMPORARY);
            fs::create_dir_all(&temporary)?;
            remove_abandoned(&temporary);
            builder = builder.atomic_write_dir(&temporary.to_string_lossy());
        }
        let operator = Operator::new(builder);
        let operator = operator.map_err(|e| sorted("open", root.to_owned(), e))?;
        Ok(cell.get_or_init(|| operator))
    }

    fn corrupt(&self) -> MutexGuard<'_, HashSet<Sha256Digest>> {
        lock(&self.corrupt)
    }

    /// The entry under `key` in the first of `scopes` that has one.
    async fn find(
        &self,
        operator: &Operator,
        scopes: &[Scope],
        key: CacheKey,
    ) -> Result<Found, CacheError> {
        let (mut refused, mut allowed) = (None, false);
        for scope in scopes {
            let read = read_entry(operator, &layout::action(scope, &key)).await;
            let bytes = match read {
                Ok(Some(bytes)) => bytes,
                Ok(None) => {
                    allowed = true;
                    continue;
                }
                Err(error) => match sorted("read", key, error) {
                    error @ CacheError::Denied { .. } => {
                        refused.get_or_insert(error);
                        continue;
                    }
                    error => return Err(error),
                },
            };
            allowed = true;
            match ActionResult::decode_in(std::slice::from_ref(scope), key, &bytes) {
                Ok(result) => return Ok(Found::Entry(Box::new(result))),
                // As good as absent, in this scope.
                Err(error) => {
                    tracing::warn!(target: "audit", cache = %self.name, %key, %scope, %error, "unreadable entry");
                }
            }
        }
        Ok(match refused {
            Some(error) if !allowed => Found::Refused(error),
            _ => Found::Nothing,
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what killed writers left. What can't be removed stays.
fn remove_abandoned(temporary: &Path) {
    let now = SystemTime::now();
    let old = |path: &Path| {
        let age = fs::modified(path).ok().map(|time| now.duration_since(time));
        age.is_some_and(|age| age.is_ok_and(|age| age > ABANDONED))
    };
    for path in fs::list_dir(temporary).unwrap_or_default() {
        if old(&path) {
            let removed = fs::remove_file(&path);
            tracing::debug!(path = %path.display(), ?removed, "an abandoned upload");
        }
    }
}

/// What a look-up of one key gave.
enum Found {
    Entry(Box<ActionResult>),
    Nothing,
    /// No scope may be read.
    Refused(CacheError),
}

/// The bytes of an entry; none if there is no object, or one that no entry can be.
async fn read_entry(operator: &Operator, path: &str) -> opendal::Result<Option<Vec<u8>>> {
    let read = async {
        let mut stream = operator.reader(path).await?.into_stream(..).await?;
        let mut bytes = Vec::new();
        while let Some(part) = stream.try_next().await? {
            for chunk in part {
                bytes.extend_from_slice(&chunk);
            }
            if bytes.len() > MAX_ENTRY {
                tracing::warn!(target: "audit", path, "an entry is larger than any can be");
                return Ok(None);
            }
        }
        Ok(Some(bytes))
    };
    match read.await {
        Err(error) if is_absent(&error) => Ok(None),
        result => result,
    }
}

/// Writes what `source` gives; closes the object if the digest is right.
async fn upload(
    writer: &mut Writer,
    digest: Sha256Digest,
    source: BlobSource,
) -> Result<(), CacheError> {
    let mut reader = spawn_blocking(move || source.open())
        .await
        .map_err(|error| CacheError::from_io("read", digest, error.into()))??;
    let mut hasher = sha2::Sha256::new();
    loop {
        let read = spawn_blocking(move || {
            let mut part = Vec::with_capacity(PART);
            let result = reader.by_ref().take(PART as u64).read_to_end(&mut part);
            hasher.update(&part);
            result.map(|_| (reader, hasher, part))
        });
        let part;
        (reader, hasher, part) = read
            .await
            .map_err(std::io::Error::from)
            .flatten()
            .map_err(|error| CacheError::from_io("read", digest, error))?;
        if part.is_empty() {
            break;
        }
        let written = writer.write(part).await;
        written.map_err(|error| sorted("write", digest, error))?;
    }
    let found = Sha256Digest::from_bytes(hasher.finalize().into());
    if found != digest {
        return Err(CacheError::Corrupt {
            subject: digest.into(),
            what: format!("the bytes given for it have digest `{found}`"),
        });
    }
    let closed = writer.close().await;
    closed.map_err(|error| sorted("write", digest, error))?;
    Ok(())
}

impl BlobStore for ObjectStore {
    fn contains<'a>(
        &'a self,
        digests: &'a [Sha256Digest],
    ) -> BoxFuture<'a, Result<Vec<bool>, CacheError>> {
        Box::pin(async move {
            let operator = self.reads()?;
            let stats = digests.iter().copied().map(|digest| async move {
                match operator.stat(&layout::blob(&digest)).await {
                    Ok(_) => Ok(!self.corrupt().contains(&digest)),
                    Err(error) if is_absent(&error) => Ok(false),
                    Err(error) => Err(sorted("look for", digest, error)),
                }
            });
            futures_util::stream::iter(stats)
                .buffered(PARALLEL)
                .try_collect()
                .await
        })
    }

    fn get(&self, digest: Sha256Digest) -> BoxFuture<'_, Result<Option<Blob>, CacheError>> {
        Box::pin(async move {
            let operator = self.reads()?;
            let path = layout::blob(&digest);
            let open = async {
                let reader = operator.reader(&path).await?;
                let mut stream = reader.into_bytes_stream(..).await?;
                // Services state the size in the answer that brings the bytes.
                let size = match stream.metadata().await {
                    Err(error) if error.kind() == ErrorKind::Unsupported => {
                        operator.stat(&path).await?
                    }
                    metadata => metadata?,
                };
                Ok((size.content_length(), stream))
            };
            let (size, stream) = match open.await {
                Ok(opened) => opened,
                Err(error) if is_absent(&error) => return Ok(None),
                Err(error) => return Err(sorted("read", digest, error)),
            };
            let stream = stream.map_err(move |error| match error.downcast::<opendal::Error>() {
                Ok(error) => std::io::Error::other(sorted("read", digest, error)),
                Err(error) => error,
            });
            let corrupt = self.corrupt.clone();
            let reader = VerifyingReader::new(StreamReader::new(stream), digest);
            let reader = reader.on_corrupt(move || {
                lock(&corrupt).insert(digest);
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
            let options = WriteOptions {
                chunk: Some(PART),
                concurrent: PARTS_IN_FLIGHT,
                ..self.typed("application/octet-stream")
            };
            let writer = self.writes()?;
            let writer = writer.writer_options(&layout::blob(&digest), options).await;
            let mut writer = writer.map_err(|error| sorted("write", digest, error))?;
            let result = upload(&mut writer, digest, source).await;
            match &result {
                Ok(()) => {
                    self.corrupt().remove(&digest);
                }
                // The first failure is the one to tell; parts that stay are never an object.
                Err(_) => {
                    let aborted = writer.abort().await;
                    tracing::debug!(cache = %self.name, %digest, ?aborted, "an upload is given up");
                }
            }
            result
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
            let short = |found: u64| CacheError::Corrupt {
                subject: digest.into(),
                what: format!(
                    "{wanted} bytes at {} are wanted, and it has {found}",
                    range.start
                ),
            };
            let path = layout::blob(&digest);
            let operator = self.reads()?;
            let bytes = match operator.read_with(&path).range(range.clone()).await {
                Ok(buffer) => buffer.to_bytes(),
                Err(error) if is_absent(&error) => return Ok(None),
                Err(error) => {
                    // Services differ in what they answer beyond the end.
                    let size = operator.stat(&path).await.map(|m| m.content_length());
                    return Err(match size {
                        Ok(size) if size < range.end => short(size),
                        _ => sorted("read", digest, error),
                    });
                }
            };
            match bytes.len() as u64 == wanted {
                true => Ok(Some(bytes)),
                false => Err(short(range.start + bytes.len() as u64)),
            }
        })
    }
}

impl ActionCache for ObjectStore {
    /// A failure that may pass fails the whole call, so that no look-up is half a look-up. An
    /// entry that can't be read counts as absent. A scope that may not be read counts as empty if
    /// anything else could be read: services refuse what is not there to whoever may not list.
    fn lookup<'a>(
        &'a self,
        scopes: &'a [Scope],
        keys: &'a [CacheKey],
    ) -> BoxFuture<'a, Result<Vec<Option<ActionResult>>, CacheError>> {
        Box::pin(async move {
            let operator = self.reads()?;
            let keys = keys.iter().copied();
            let finds = keys.map(|key| self.find(operator, scopes, key));
            let found: Vec<Found> = futures_util::stream::iter(finds)
                .buffered(PARALLEL)
                .try_collect()
                .await?;
            let mut refused = None;
            let mut allowed = found.is_empty();
            let mut results = Vec::with_capacity(found.len());
            for found in found {
                results.push(match found {
                    Found::Entry(entry) => {
                        allowed = true;
                        Some(*entry)
                    }
                    Found::Nothing => {
                        allowed = true;
                        None
                    }
                    Found::Refused(error) => {
                        refused.get_or_insert(error);
                        None
                    }
                });
            }
            match refused {
                Some(error) if !allowed => Err(error),
                _ => Ok(results),
            }
        })
    }

    fn put<'a>(&'a self, result: &'a ActionResult) -> BoxFuture<'a, Result<(), CacheError>> {
        Box::pin(async move {
            let path = layout::action(&result.scope, &result.key);
            let options = self.typed("application/json");
            let operator = self.writes()?;
            let written = operator.write_options(&path, result.encode(), options);
            written
                .await
                .map_err(|error| sorted("write", Subject::Action(result.key), error))?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
