//! A server of this program as a cache: `http(s)://host[:port][/namespace]`.
//!
//! [`HttpCache`] maps the acts of a cache to requests of the protocol ([`wire`], specified in
//! `docs/internals/remote-cache.md`) and sorts the answers. Invariants:
//!
//! - Plain http goes to this machine only, unless the address asks for more.
//! - The token goes to the server of the address alone, and into no log.
//! - Blobs are verified while they are read. A download that breaks is continued where it broke;
//!   nothing else is tried again here.

mod client;
mod download;
mod upload;
pub mod wire;

pub use client::{HttpFailure, HttpOpenError, HttpOptions};

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use reqwest::Method;
use tokio_util::io::StreamReader;

use self::{
    client::Client,
    wire::{LookupAnswer, LookupRequest, MissingAnswer, MissingRequest, path_part},
};
use super::{
    ActionCache, ActionResult, Blob, BlobSource, BlobStore, BoxFuture, CacheError, Scope, Subject,
    TierAddress, VerifyingReader,
};
use crate::{digest::Sha256Digest, key::CacheKey};

/// Keys in one look-up, digests in one question: entries can be large.
const BATCH: usize = 2_000;

/// A namespace of a cache server.
#[derive(Debug, Clone)]
pub struct HttpCache {
    client: Arc<Client>,
}

impl HttpCache {
    /// The server at `address`. Nothing is contacted.
    pub fn open(address: &TierAddress, options: &HttpOptions) -> Result<Self, HttpOpenError> {
        Ok(Self {
            client: Arc::new(Client::new(address, options)?),
        })
    }

    async fn lookup_batch(
        &self,
        scopes: &[Scope],
        keys: &[CacheKey],
    ) -> Result<Vec<Option<ActionResult>>, CacheError> {
        const ACT: &str = "look up keys in";
        let request = LookupRequest {
            scopes: scopes.to_vec(),
            keys: keys.to_vec(),
        };
        let subject = self.client.subject();
        let text = self
            .client
            .post(ACT, &subject, "actions/lookup", &request)
            .await?;
        let invalid = |what: String| self.client.protocol(ACT, what);
        let answer: LookupAnswer<'_> = serde_json::from_slice(&text)
            .map_err(|error| invalid(format!("its answer is no list of entries: {error}")))?;
        if answer.entries.len() != keys.len() {
            let (given, asked) = (answer.entries.len(), keys.len());
            return Err(invalid(format!("it gave {given} entries for {asked} keys")));
        }
        if !answer.denied.is_empty() {
            tracing::warn!(
                server = %subject,
                scopes = ?answer.denied,
                "the token may not read these scopes"
            );
        }
        let entries = keys.iter().zip(answer.entries);
        Ok(entries
            .map(|(key, text)| {
                let text = text?.get();
                match ActionResult::decode_in(scopes, *key, text.as_bytes()) {
                    Ok(entry) => Some(entry),
                    Err(error) => {
                        tracing::warn!(target: "audit", %key, %error, "an unreadable entry is a miss");
                        None
                    }
                }
            })
            .collect())
    }
}

impl BlobStore for HttpCache {
    fn contains<'a>(
        &'a self,
        digests: &'a [Sha256Digest],
    ) -> BoxFuture<'a, Result<Vec<bool>, CacheError>> {
        Box::pin(async move {
            const ACT: &str = "look for blobs in";
            let mut present = Vec::with_capacity(digests.len());
            for batch in digests.chunks(BATCH) {
                let request = MissingRequest {
                    digests: batch.to_vec(),
                };
                let subject = self.client.subject();
                let text = self
                    .client
                    .post(ACT, &subject, "blobs/missing", &request)
                    .await?;
                let answer: MissingAnswer = serde_json::from_slice(&text).map_err(|error| {
                    let what = format!("its answer is no list of digests: {error}");
                    self.client.protocol(ACT, what)
                })?;
                let missing: std::collections::HashSet<_> = answer.missing.into_iter().collect();
                present.extend(batch.iter().map(|digest| !missing.contains(digest)));
            }
            Ok(present)
        })
    }

    fn get(&self, digest: Sha256Digest) -> BoxFuture<'_, Result<Option<Blob>, CacheError>> {
        Box::pin(async move {
            let Some((size, bytes)) = download::start(self.client.clone(), digest).await? else {
                return Ok(None);
            };
            let reader = StreamReader::new(Box::pin(bytes));
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
        Box::pin(upload::whole(&self.client, digest, source))
    }

    fn put_framed(
        &self,
        digest: Sha256Digest,
        source: BlobSource,
        ends: Arc<[u64]>,
    ) -> BoxFuture<'_, Result<(), CacheError>> {
        Box::pin(async move { upload::framed(&self.client, digest, source, &ends).await })
    }

    fn has_ranges(&self) -> bool {
        true
    }

    fn read_range(
        &self,
        digest: Sha256Digest,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Option<Bytes>, CacheError>> {
        Box::pin(download::read_range(&self.client, digest, range))
    }
}

impl ActionCache for HttpCache {
    fn lookup<'a>(
        &'a self,
        scopes: &'a [Scope],
        keys: &'a [CacheKey],
    ) -> BoxFuture<'a, Result<Vec<Option<ActionResult>>, CacheError>> {
        Box::pin(async move {
            let mut entries = Vec::with_capacity(keys.len());
            for batch in keys.chunks(BATCH) {
                entries.extend(self.lookup_batch(scopes, batch).await?);
            }
            Ok(entries)
        })
    }

    fn put<'a>(&'a self, result: &'a ActionResult) -> BoxFuture<'a, Result<(), CacheError>> {
        Box::pin(async move {
            let scope = path_part(result.scope.as_str(), true);
            let path = format!("actions/{}/{scope}", result.key);
            let request = self
                .client
                .request(Method::PUT, &path)
                .body(result.encode());
            let subject = Subject::Action(result.key);
            self.client
                .send("write", &subject, request)
                .await
                .map(|_| ())
        })
    }
}
