//! The routes of the earlier MemoBuild's cache server, for its clients.
//!
//! Three kinds of things have names of 64 hexadecimal digits, BLAKE3: *artifacts*, named by
//! the key of what made them; *layers*, named by their bytes before compression; *nodes*, lists
//! of layers. Each is kept as an entry whose key is made of kind and name, so that scopes,
//! quotas and garbage collection hold for them, and whose record is an object of [`Named`];
//! the bytes, as they were sent, are a blob. No other client finds these entries: their keys
//! are of kinds of their own.
//!
//! These clients name neither namespace nor scope. The namespace is the default one; what they
//! send is kept in [`Grant::own_scope`](super::auth::Grant::own_scope), and what they ask for
//! is looked for in `protected` and then there.

use std::{
    io::{self, Write as _},
    sync::Arc,
};

use axum::{
    Extension,
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use flate2::write::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use super::{
    Shared, actions, admin,
    answer::{self, Failure, blocking},
    auth::Permission,
    blobs,
    gate::Caller,
    store::{NewEntry, Store, StoreError},
    upload::{Upload, read_json},
    whole::WholeBlob,
};
use crate::{
    cache::{
        Scope,
        http::wire::{GcRequest, MAX_ENTRY, code},
    },
    digest::{Blake3Digest, KeyEncoder, Sha256Digest},
    key::CacheKey,
};

/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;

/// Most bytes of a layer before compression.
const MAX_UNPACKED: u64 = 64 << 30;

/// What has a name.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Artifact,
    Layer,
    Node,
}

impl Kind {
    fn key(self, name: &Blake3Digest) -> CacheKey {
        let context = match self {
            Self::Artifact => "memobuild-ci 2026-11-21 earlier artifact v1",
            Self::Layer => "memobuild-ci 2026-11-21 earlier layer v1",
            Self::Node => "memobuild-ci 2026-11-21 earlier node v1",
        };
        CacheKey(
            KeyEncoder::new(context)
                .field("name", name.as_bytes())
                .finish(),
        )
    }
}

/// The record of an entry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Named {
    /// The bytes of an artifact or a layer.
    Blob(Sha256Digest),
    /// The names of a node's layers.
    Layers(Vec<String>),
}

fn name(text: &str) -> Result<Blake3Digest, Failure> {
    Blake3Digest::from_hex(text)
        .map_err(|_| Failure::invalid(format!("`{text}` is not 64 lower-case hexadecimal digits")))
}

/// The scopes that are looked in, in this order.
fn readable(caller: &Caller) -> Vec<Scope> {
    let mut scopes = vec![Scope::protected()];
    scopes.extend(caller.grant.own_scope());
    scopes.dedup();
    scopes.retain(|scope| caller.grant.reads(scope));
    scopes
}

/// The scope that is written.
fn writable(caller: &Caller, act: &str) -> Result<Scope, Failure> {
    caller.need(Permission::Write, act)?;
    caller.grant.own_scope().ok_or_else(|| {
        let reason = "it writes no scope that is named without a star";
        caller.refuse(act, None, None, reason)
    })
}

/// What the entries under `keys` say, in the keys' order.
fn find(
    store: &Store,
    caller: &Caller,
    keys: &[CacheKey],
) -> Result<Vec<Option<Named>>, StoreError> {
    let records = store.lookup(&caller.namespace, &readable(caller), keys)?;
    let read = |record: Option<Vec<u8>>| record.and_then(|r| serde_json::from_slice(&r).ok());
    Ok(records.into_iter().map(read).collect())
}

async fn find_one(
    server: &Arc<Shared>,
    caller: &Caller,
    kind: Kind,
    text: &str,
) -> Result<Named, Failure> {
    caller.need(Permission::Read, "read what is cached")?;
    let key = kind.key(&name(text)?);
    let (store, asker) = (server.store.clone(), caller.clone());
    let found = blocking(move || find(&store, &asker, &[key])).await?;
    let found = found.into_iter().flatten().next();
    found.ok_or_else(|| Failure::not_found(format!("there is nothing called `{text}`")))
}

async fn send(
    server: &Arc<Shared>,
    caller: Caller,
    kind: Kind,
    text: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    match find_one(server, &caller, kind, text).await? {
        Named::Blob(digest) => blobs::send(server, caller.namespace, digest, method, headers).await,
        Named::Layers(_) => Err(Failure::not_found(format!("`{text}` has no bytes"))),
    }
}

/// `GET` and `HEAD /cache/{hash}`.
pub(super) async fn artifact(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    send(&server, caller, Kind::Artifact, &text, &method, &headers).await
}

/// `GET` and `HEAD /cache/layer/{hash}`.
pub(super) async fn layer(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    send(&server, caller, Kind::Layer, &text, &method, &headers).await
}

/// `PUT /cache/{hash}`.
pub(super) async fn store_artifact(
    server: State<Arc<Shared>>,
    caller: Extension<Caller>,
    text: Path<String>,
    body: Body,
) -> Result<Response, Failure> {
    receive(server, caller, Kind::Artifact, text, body).await
}

/// `PUT /cache/layer/{hash}`.
pub(super) async fn store_layer(
    server: State<Arc<Shared>>,
    caller: Extension<Caller>,
    text: Path<String>,
    body: Body,
) -> Result<Response, Failure> {
    receive(server, caller, Kind::Layer, text, body).await
}

async fn receive(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    kind: Kind,
    Path(text): Path<String>,
    body: Body,
) -> Result<Response, Failure> {
    let mut upload = Upload::new(body, server.pace, "an upload", u64::MAX);
    let result = keep(&server, &caller, kind, &text, &mut upload).await;
    if result.is_err() {
        upload.drain().await;
    }
    result
}

async fn keep(
    server: &Arc<Shared>,
    caller: &Caller,
    kind: Kind,
    text: &str,
    upload: &mut Upload,
) -> Result<Response, Failure> {
    let scope = writable(caller, "write to the cache")?;
    let name = name(text)?;
    let sums = match kind {
        Kind::Layer => Some(Sums::default()),
        // The name is a key's, of which the bytes tell nothing.
        Kind::Artifact | Kind::Node => None,
    };
    let see = |sums: Option<Sums>, bytes: &[u8]| sums.map(|sums| sums.add(bytes));
    let (whole, sums) = WholeBlob::receive_with(server, caller, upload, sums, see).await?;
    if let Some(sums) = sums
        && !sums.finish().contains(&name)
    {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let message = format!("the bytes sent for layer `{text}` have another BLAKE3");
        return Err(Failure::new(status, code::DIGEST, message));
    }
    let (digest, done) = blocking(move || whole.keep()).await?;
    blobs::committed(digest, done)?;
    put(
        server,
        caller,
        scope,
        kind.key(&name),
        vec![digest],
        &Named::Blob(digest),
    )
    .await?;
    Ok(StatusCode::CREATED.into_response())
}

async fn put(
    server: &Arc<Shared>,
    caller: &Caller,
    scope: Scope,
    key: CacheKey,
    blobs: Vec<Sha256Digest>,
    named: &Named,
) -> Result<(), Failure> {
    // Serialising plain structs to memory has no way to fail.
    let record = serde_json::to_vec(named).unwrap_or_default();
    if record.len() > MAX_ENTRY {
        return Err(Failure::too_large("a list of layers", MAX_ENTRY as u64));
    }
    let entry = NewEntry {
        key,
        scope,
        blobs,
        sized: None,
        record,
    };
    let (store, namespace) = (server.store.clone(), caller.namespace.clone());
    let done = blocking(move || store.put_entry(&namespace, &entry)).await?;
    actions::kept(done).map(|_| ())
}

/// What the bytes of a layer may be called: their BLAKE3 as they come, and after decompression.
struct Sums {
    plain: blake3::Hasher,
    /// None once they prove not to be gzip, or too much of it.
    unpacked: Option<MultiGzDecoder<Bounded>>,
}

impl Default for Sums {
    fn default() -> Self {
        let bounded = Bounded {
            hasher: blake3::Hasher::new(),
            left: MAX_UNPACKED,
        };
        Self {
            plain: blake3::Hasher::new(),
            unpacked: Some(MultiGzDecoder::new(bounded)),
        }
    }
}

/// Hashes so many bytes and no more: a small upload must not keep the server busy for hours.
struct Bounded {
    hasher: blake3::Hasher,
    left: u64,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or(io::ErrorKind::FileTooLarge)?;
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sums {
    fn add(mut self, bytes: &[u8]) -> Self {
        self.plain.update(bytes);
        if let Some(decoder) = &mut self.unpacked
            && decoder.write_all(bytes).is_err()
        {
            self.unpacked = None;
        }
        self
    }

    fn finish(self) -> Vec<Blake3Digest> {
        let unpacked = self.unpacked.and_then(|decoder| decoder.finish().ok());
        let sums = std::iter::once(self.plain).chain(unpacked.map(|bounded| bounded.hasher));
        sums.map(|sum| Blake3Digest::from_bytes(*sum.finalize().as_bytes()))
            .collect()
    }
}

/// `GET /cache/node/{hash}/layers`: the names of a node's layers.
pub(super) async fn node(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
) -> Result<Response, Failure> {
    match find_one(&server, &caller, Kind::Node, &text).await? {
        Named::Layers(layers) => Ok(answer::json(&layers)),
        Named::Blob(_) => Err(Failure::not_found(format!("`{text}` has no layers"))),
    }
}

/// A node to keep. The size of its layers, which comes with it, is not needed.
#[derive(Debug, Deserialize)]
pub(super) struct NodeRequest {
    layers: Vec<String>,
}

/// `POST /cache/node/{hash}/layers`.
pub(super) async fn store_node(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
    body: Body,
) -> Result<Response, Failure> {
    let act = "write to the cache";
    let NodeRequest { layers } = read_json(body, server.pace).await?;
    let scope = writable(&caller, act)?;
    let key = Kind::Node.key(&name(&text)?);
    let names = layers.iter().map(|layer| name(layer));
    let keys = names.map(|name| Ok(Kind::Layer.key(&name?)));
    let keys = keys.collect::<Result<Vec<_>, Failure>>()?;
    let (store, asker) = (server.store.clone(), caller.clone());
    let found = blocking(move || find(&store, &asker, &keys)).await?;
    let mut blobs = Vec::new();
    let mut missing = Vec::new();
    for (layer, found) in layers.iter().zip(found) {
        match found {
            Some(Named::Blob(digest)) => blobs.push(digest),
            _ => missing.push(layer.clone()),
        }
    }
    if !missing.is_empty() {
        let message = "the node names layers that are not here; put them first";
        let failure = Failure::new(StatusCode::FAILED_DEPENDENCY, code::MISSING_BLOBS, message);
        return Err(failure.missing(missing));
    }
    blobs.sort();
    blobs.dedup();
    put(&server, &caller, scope, key, blobs, &Named::Layers(layers)).await?;
    Ok(StatusCode::OK.into_response())
}

/// What is too old.
#[derive(Debug, Deserialize)]
pub(super) struct Age {
    days: u64,
}

/// `POST /gc?days=N`: drops what was not used for so many days.
pub(super) async fn collect(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    age: Result<Query<Age>, QueryRejection>,
) -> Result<Response, Failure> {
    let Ok(Query(Age { days })) = age else {
        return Err(Failure::invalid("`days=N` is missing, or no number"));
    };
    let request = GcRequest {
        max_age_seconds: Some(days.saturating_mul(DAY)),
        max_bytes: None,
    };
    admin::collect_with(server, caller, request).await
}
