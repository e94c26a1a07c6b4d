//! A cache in the cache service of GitHub Actions and Gitea Actions, `gha://`.
//!
//! The service keeps few large objects that never change; it limits requests, and forgets what was not
//! read for days. So [`ActionsStore`] gathers: blobs lie in *packs*, and one *index* (`index`) says for a
//! scope which entries there are and where their blobs lie. A build reads one index for each scope of its
//! search order, then ranges of packs; it writes a pack of its small blobs, a pack for each large one, and
//! an index, at its end ([`ActionCache::flush`]).
//!
//! - **Nothing is ever half there.** An index is made after the packs it names.
//! - **Builds that save at once lose nothing.** Indexes of a scope are numbered and take up what the one
//!   before has. Keys are given away once, so of two builds that make the next one at the same time, one
//!   finds its key taken, and begins again with what the other has made.
//! - **A pack that is gone is a miss** for what lay in it, and later indexes don't name it.
//! - **The service's scopes hold besides ours**: a job sees objects of its own ref, its base and the default
//!   branch.
//! - **A refusal is policy**: the token may only read, or only write. See `ACTIONS_CACHE_MODE`.
//!
//! Blobs are found only through an index, that is after a look-up. The format has version 1 and is
//! specified in `docs/internals/remote-cache.md`.

mod client;
mod index;
mod v1;
mod v2;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::Read as _,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::{Response, StatusCode, Url};
use sha2::Digest as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    task::spawn_blocking,
};
use tokio_util::io::StreamReader;

use self::{
    client::{Client, Found, Protocol, subject, unexpected, unreachable},
    index::{Index, Place, pack_key},
};
use super::{
    Access, ActionCache, ActionResult, Blob, BlobSource, BlobStore, BoxFuture, CacheError, Scope,
    TierAddress, VerifyingReader,
    open::{OpenError, TierOptions},
};
use crate::{digest::Sha256Digest, key::CacheKey};

/// Blobs from this size in bytes are packs of their own, sent as they come.
const LARGE: u64 = 8 << 20;
/// From this size in bytes on, gathered blobs are sent before the end of the build.
const FULL_PACK: usize = 32 << 20;
/// How long an address with a signature is used.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// How often an index is made anew because another build was faster.
const ROUNDS: usize = 16;
/// How often, and after which pause, to look whether the build that has a key has made its index. One that was
/// killed never does.
const LOOKS: usize = 8;
const PAUSE: Duration = Duration::from_millis(250);

/// Entries and blobs in the cache service.
#[derive(Debug)]
pub struct ActionsStore {
    client: Client,
    state: Mutex<State>,
    /// Held while something is sent that others would send too.
    saving: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// The newest index of each scope that was looked at, empty if there is none.
    known: HashMap<Scope, Arc<Index>>,
    /// What this build has put and no index has yet.
    fresh: BTreeMap<Scope, Index>,
    /// Small blobs that are in no pack yet, and their size together.
    gathered: BTreeMap<Sha256Digest, Bytes>,
    gathered_bytes: usize,
    /// Where this build's blobs lie.
    placed: HashMap<Sha256Digest, Place>,
    /// Packs that are not there any more, or hold wrong bytes.
    gone: HashSet<String>,
    /// Blobs whose bytes were not theirs.
    corrupt: Arc<Mutex<HashSet<Sha256Digest>>>,
    /// Where packs can be read, since when.
    urls: HashMap<String, (String, Instant)>,
}

impl State {
    fn gathered(&self, digest: &Sha256Digest) -> Option<Bytes> {
        self.gathered.get(digest).cloned()
    }

    /// Where a blob lies, as far as is known.
    fn place(&self, digest: &Sha256Digest) -> Option<Place> {
        if lock(&self.corrupt).contains(digest) {
            return None;
        }
        self.stated_place(digest)
    }

    /// Where a blob lies, whether its bytes are right or not.
    fn stated_place(&self, digest: &Sha256Digest) -> Option<Place> {
        let known = self.known.values().filter_map(|index| index.place(digest));
        let mut places = self.placed.get(digest).cloned().into_iter().chain(known);
        places.find(|place| !self.gone.contains(&place.pack))
    }

    /// Counts the pack as gone in which bytes of the blob were not its own: the blob comes anew.
    fn give_up_wrong(&mut self, digest: &Sha256Digest) {
        if lock(&self.corrupt).remove(digest)
            && let Some(place) = self.stated_place(digest)
        {
            self.gone.insert(place.pack);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `ACTIONS_CACHE_MODE` leaves of an access.
fn allowed(mode: Option<&str>, access: Access) -> Access {
    let mode = mode.map(|mode| mode.trim().to_ascii_lowercase());
    let (read, write) = match mode.as_deref() {
        Some("none") => (false, false),
        Some("read") => (true, false),
        Some("write-only") => (false, true),
        _ => (true, true),
    };
    Access {
        read: access.read && read,
        write: access.write && write,
    }
}

impl ActionsStore {
    /// The store of the job that this is, and what the job may do with it. Nothing is contacted.
    pub fn open(address: &TierAddress, options: &TierOptions) -> Result<(Self, Access), OpenError> {
        let named = address.settings.first().map(|(name, _)| name.as_str());
        if let Some(name) = named.or((!address.place.is_empty()).then_some(&address.place)) {
            return Err(OpenError::Setting {
                address: "gha://".to_owned(),
                name: name.to_owned(),
                problem: "is unknown".to_owned(),
            });
        }
        let missing = |what: &str| OpenError::Missing {
            address: address.to_string(),
            what: format!(
                "{what}, which runners give to actions and not to `run` steps: hand it on with an action"
            ),
        };
        let token = options.services.get("ACTIONS_RUNTIME_TOKEN");
        let token = token.ok_or_else(|| missing("`ACTIONS_RUNTIME_TOKEN`"))?;
        let is_v2 = options
            .service("ACTIONS_CACHE_SERVICE_V2")
            .is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"));
        let results = options.service("ACTIONS_RESULTS_URL").filter(|_| is_v2);
        let (base, protocol) = match (results, options.service("ACTIONS_CACHE_URL")) {
            (Some(url), _) => (url, Protocol::V2),
            (None, Some(url)) => (url, Protocol::V1),
            (None, None) => return Err(missing("`ACTIONS_RESULTS_URL` or `ACTIONS_CACHE_URL`")),
        };
        // Paths are joined to it.
        let base = format!("{}/", base.trim_end_matches('/'));
        let base = Url::parse(&base).map_err(|_| missing("a valid address of the service"))?;
        let client = Client::new(base, token.clone(), protocol, &options.authorities);
        let client = client.map_err(|source| OpenError::Client {
            address: address.to_string(),
            source,
        })?;
        let access = allowed(options.service("ACTIONS_CACHE_MODE"), options.access);
        Ok((Self::with(client), access))
    }

    fn with(client: Client) -> Self {
        Self {
            client,
            state: Mutex::default(),
            saving: tokio::sync::Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The newest index of `scope` and its number.
    async fn newest(&self, scope: &Scope) -> Result<(u64, Index), CacheError> {
        match self.client.newest(&index::prefix(scope)).await? {
            Some(found) => {
                let number = index::number(scope, &found.key).unwrap_or_default();
                Ok((number, self.read_index(scope, found).await?))
            }
            None => Ok((0, Index::default())),
        }
    }

    /// The index that was found; an empty one if it can't be read.
    async fn read_index(&self, scope: &Scope, found: Found) -> Result<Index, CacheError> {
        let Some(response) = self.client.read(&found.url, None).await? else {
            return Ok(Index::default());
        };
        let bytes = response.bytes().await;
        let bytes = bytes.map_err(|error| unreachable("read from", error))?;
        let decoding = scope.clone();
        let index = spawn_blocking(move || Index::decode(&decoding, &bytes)).await;
        let index = index.map_err(|error| unexpected("read from", error))?;
        Ok(index.unwrap_or_else(|error| {
            let key = found.key;
            tracing::warn!(target: "audit", %scope, key, %error, "unreadable index of the cache service");
            Index::default()
        }))
    }

    /// The index under a key that another build has; none if it doesn't make it.
    async fn taken(&self, scope: &Scope, key: &str) -> Result<Option<Index>, CacheError> {
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            if let Some(found) = self.client.find(key).await? {
                return self.read_index(scope, found).await.map(Some);
            }
        }
        Ok(None)
    }

    /// Reads the indexes of `scopes` that were not read yet.
    async fn load(&self, scopes: &[Scope]) -> Result<(), CacheError> {
        let unknown: Vec<Scope> = {
            let state = self.state();
            let unknown = scopes.iter().filter(|s| !state.known.contains_key(*s));
            unknown.cloned().collect()
        };
        let reads = unknown.into_iter().map(|scope| async move {
            let (_, index) = self.newest(&scope).await?;
            Ok::<_, CacheError>((scope, index))
        });
        for (scope, index) in futures_util::future::try_join_all(reads).await? {
            self.state().known.insert(scope, Arc::new(index));
        }
        Ok(())
    }

    /// Makes a pack of `source`; gives its name.
    async fn save_pack(
        &self,
        digest: &Sha256Digest,
        source: BlobSource,
        size: u64,
    ) -> Result<String, CacheError> {
        let mut name = digest.hex();
        if self
            .client
            .save(&pack_key(&name), source.clone(), size)
            .await?
        {
            return Ok(name);
        }
        // The name says what it holds. But a writer that was killed holds the name and nothing else, and one
        // that lied something else.
        let is_wrong = self.state().gone.contains(&name);
        if is_wrong || self.client.find(&pack_key(&name)).await?.is_none() {
            name = format!("{name}-{:08x}", random()?);
            self.client.save(&pack_key(&name), source, size).await?;
        }
        Ok(name)
    }

    /// Sends what was gathered.
    async fn save_gathered(&self) -> Result<(), CacheError> {
        let gathered = self.state().gathered.clone();
        if gathered.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let mut places = Vec::new();
        for (digest, blob) in &gathered {
            places.push((*digest, bytes.len() as u64, blob.len() as u64));
            bytes.extend_from_slice(blob);
        }
        let (digest, size) = (Sha256Digest::of(&bytes), bytes.len() as u64);
        // An object of no bytes is none for some servers.
        let pack = match size {
            0 => digest.hex(),
            _ => {
                self.save_pack(&digest, BlobSource::Bytes(bytes.into()), size)
                    .await?
            }
        };
        let mut state = self.state();
        state.gone.remove(&pack);
        for (digest, offset, size) in places {
            let pack = pack.clone();
            state.placed.insert(digest, Place { pack, offset, size });
            if let Some(blob) = state.gathered.remove(&digest) {
                state.gathered_bytes -= blob.len();
            }
        }
        Ok(())
    }

    /// Saves what `scope` has that is new.
    async fn save_index(&self, scope: &Scope) -> Result<(), CacheError> {
        let (mut number, mut newest) = self.newest(scope).await?;
        for _ in 0..ROUNDS {
            let Some((mine, joined)) = self.joined(scope, &newest) else {
                return Ok(());
            };
            if mine.is_within(&newest, &self.state().gone) {
                break;
            }
            let encoding = scope.clone();
            let bytes = spawn_blocking(move || joined.encode(&encoding)).await;
            let bytes = bytes.map_err(std::io::Error::from).flatten();
            let bytes = bytes.map_err(|e| CacheError::from_io("write", subject(), e))?;
            let size = bytes.len() as u64;
            number += 1;
            let key = index::key(scope, number);
            let source = BlobSource::Bytes(bytes.into());
            if self.client.save(&key, source, size).await? {
                // Whoever didn't wait for this one has made a newer one without it.
                (number, newest) = self.newest(scope).await?;
            } else if let Some(other) = self.taken(scope, &key).await? {
                newest = other.joined(&newest, &HashSet::new());
            }
        }
        // After many rounds others save all the time, and what is not there by now is a miss.
        let mut state = self.state();
        state.known.insert(scope.clone(), Arc::new(newest));
        state.fresh.remove(scope);
        Ok(())
    }

    /// What is new in `scope`, alone and with what the newest index has.
    fn joined(&self, scope: &Scope, newest: &Index) -> Option<(Index, Index)> {
        let state = self.state();
        let mut mine = state.fresh.get(scope)?.clone();
        // Also where blobs lie that were there already, in packs of other scopes.
        let named: HashSet<Sha256Digest> = mine.named_blobs().collect();
        for digest in named {
            if let Some(place) = state.place(&digest) {
                mine.add_place(digest, place);
            }
        }
        let joined = mine.joined(newest, &state.gone);
        Some((mine, joined))
    }

    /// Opens `range` of a pack; none if the pack is gone.
    async fn open_pack(
        &self,
        pack: &str,
        range: Range<u64>,
    ) -> Result<Option<Response>, CacheError> {
        let known = self.state().urls.get(pack).cloned();
        if let Some((url, since)) = known
            && since.elapsed() < FRESH
            && let Some(response) = self.client.read(&url, Some(range.clone())).await?
        {
            return Ok(Some(response));
        }
        let response = match self.client.find(&pack_key(pack)).await? {
            None => None,
            Some(found) => {
                let response = self.client.read(&found.url, Some(range)).await?;
                if response.is_some() {
                    let entry = (found.url, Instant::now());
                    self.state().urls.insert(pack.to_owned(), entry);
                }
                response
            }
        };
        if response.is_none() {
            tracing::debug!(pack, "a pack is gone");
            self.state().gone.insert(pack.to_owned());
        }
        Ok(response)
    }

    /// The bytes `range` of a blob, and the blob's size; none if it isn't there.
    async fn open_range(
        &self,
        digest: &Sha256Digest,
        range: Option<Range<u64>>,
    ) -> Result<Option<(u64, Box<dyn AsyncRead + Send + Unpin>)>, CacheError> {
        loop {
            let (gathered, place) = {
                let state = self.state();
                (state.gathered(digest), state.place(digest))
            };
            let size = match (&gathered, &place) {
                (Some(bytes), _) => bytes.len() as u64,
                (None, Some(place)) => place.size,
                (None, None) => return Ok(None),
            };
            let range = range.clone().unwrap_or(0..size);
            if range.end > size || range.start > range.end {
                return Err(CacheError::Corrupt {
                    subject: (*digest).into(),
                    what: format!("it has {size} bytes"),
                });
            }
            if let Some(bytes) = gathered {
                let at = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
                let bytes = bytes.slice(at(range.start)..at(range.end));
                return Ok(Some((size, Box::new(std::io::Cursor::new(bytes)))));
            }
            let Some(place) = place else {
                return Ok(None);
            };
            if range.is_empty() {
                return Ok(Some((size, Box::new(tokio::io::empty()))));
            }
            let within = place.offset + range.start..place.offset + range.end;
            let Some(response) = self.open_pack(&place.pack, within.clone()).await? else {
                continue;
            };
            // Without ranges a server sends all of it.
            let skip = match response.status() {
                StatusCode::PARTIAL_CONTENT => 0,
                _ => within.start,
            };
            let stream = response.bytes_stream();
            let stream = stream.map_err(|e| std::io::Error::other(unreachable("read from", e)));
            let mut reader = StreamReader::new(stream.boxed());
            let mut skipped = (&mut reader).take(skip);
            tokio::io::copy(&mut skipped, &mut tokio::io::sink())
                .await
                .map_err(|error| CacheError::from_io("read", *digest, error))?;
            return Ok(Some((
                size,
                Box::new(reader.take(within.end - within.start)),
            )));
        }
    }
}

fn random() -> Result<u32, CacheError> {
    let random = ring::rand::generate::<[u8; 4]>(&ring::rand::SystemRandom::new());
    let random = random.map_err(|_| unexpected("write to", "there are no random numbers"))?;
    Ok(u32::from_le_bytes(random.expose()))
}

/// Reads a source, all of it if it is small, and checks its digest; gives its size.
fn checked(digest: Sha256Digest, source: &BlobSource) -> Result<(u64, Option<Bytes>), CacheError> {
    let mut reader = source.open()?;
    let (mut hasher, mut size, mut small) = (sha2::Sha256::new(), 0, Vec::new());
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = reader
            .read(&mut buffer)
            .map_err(|error| CacheError::from_io("read", digest, error))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        size += n as u64;
        match size < LARGE {
            true => small.extend_from_slice(&buffer[..n]),
            false => small = Vec::new(),
        }
    }
    let found = Sha256Digest::from_bytes(hasher.finalize().into());
    if found != digest {
        return Err(CacheError::Corrupt {
            subject: digest.into(),
            what: format!("the bytes given for it have digest `{found}`"),
        });
    }
    Ok((size, (size < LARGE).then(|| small.into())))
}

impl BlobStore for ActionsStore {
    fn contains<'a>(
        &'a self,
        digests: &'a [Sha256Digest],
    ) -> BoxFuture<'a, Result<Vec<bool>, CacheError>> {
        Box::pin(async move {
            let state = self.state();
            let has = |digest| state.gathered.contains_key(digest) || state.place(digest).is_some();
            Ok(digests.iter().map(has).collect())
        })
    }

    fn get(&self, digest: Sha256Digest) -> BoxFuture<'_, Result<Option<Blob>, CacheError>> {
        Box::pin(async move {
            let Some((size, reader)) = self.open_range(&digest, None).await? else {
                return Ok(None);
            };
            let corrupt = self.state().corrupt.clone();
            let reader = VerifyingReader::new(reader, digest).on_corrupt(move || {
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
            let reading = source.clone();
            let read = spawn_blocking(move || checked(digest, &reading)).await;
            let (size, small) = read.map_err(|e| unexpected("write to", e))??;
            {
                let mut state = self.state();
                state.give_up_wrong(&digest);
                if state.gathered.contains_key(&digest) || state.place(&digest).is_some() {
                    return Ok(());
                }
            }
            let Some(bytes) = small else {
                let pack = self.save_pack(&digest, source, size).await?;
                let mut state = self.state();
                state.gone.remove(&pack);
                let offset = 0;
                state.placed.insert(digest, Place { pack, offset, size });
                return Ok(());
            };
            let is_full = {
                let mut state = self.state();
                state.placed.remove(&digest);
                state.gathered_bytes += bytes.len();
                if let Some(before) = state.gathered.insert(digest, bytes) {
                    state.gathered_bytes -= before.len();
                }
                state.gathered_bytes >= FULL_PACK
            };
            if is_full && let Ok(_saving) = self.saving.try_lock() {
                self.save_gathered().await?;
            }
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
            let Some((_, mut reader)) = self.open_range(&digest, Some(range)).await? else {
                return Ok(None);
            };
            let mut bytes = Vec::new();
            let read = reader.read_to_end(&mut bytes).await;
            read.map_err(|error| CacheError::from_io("read", digest, error))?;
            match bytes.len() as u64 == wanted {
                true => Ok(Some(bytes.into())),
                false => Err(CacheError::Corrupt {
                    subject: digest.into(),
                    what: format!("of {wanted} bytes it has {}", bytes.len()),
                }),
            }
        })
    }
}

impl ActionCache for ActionsStore {
    fn lookup<'a>(
        &'a self,
        scopes: &'a [Scope],
        keys: &'a [CacheKey],
    ) -> BoxFuture<'a, Result<Vec<Option<ActionResult>>, CacheError>> {
        Box::pin(async move {
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            self.load(scopes).await?;
            let state = self.state();
            let find = |key: &CacheKey| {
                scopes.iter().find_map(|scope| {
                    let fresh = state.fresh.get(scope).and_then(|index| index.entry(key));
                    let known = || state.known.get(scope).and_then(|index| index.entry(key));
                    fresh.or_else(known).cloned()
                })
            };
            Ok(keys.iter().map(find).collect())
        })
    }

    fn put<'a>(&'a self, result: &'a ActionResult) -> BoxFuture<'a, Result<(), CacheError>> {
        Box::pin(async move {
            let mut state = self.state();
            let fresh = state.fresh.entry(result.scope.clone()).or_default();
            fresh.add_entry(result.clone());
            Ok(())
        })
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), CacheError>> {
        Box::pin(async move {
            let _saving = self.saving.lock().await;
            self.save_gathered().await?;
            let scopes: Vec<Scope> = {
                let state = self.state();
                let with_entries = state.fresh.iter().filter(|(_, index)| !index.is_empty());
                with_entries.map(|(scope, _)| scope.clone()).collect()
            };
            futures_util::stream::iter(scopes)
                .map(Ok)
                .try_for_each(|scope| async move { self.save_index(&scope).await })
                .await
        })
    }
}

#[cfg(test)]
mod tests;
