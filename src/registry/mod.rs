//! The registry client: resolves references, fetches and pushes blobs and manifests.
//!
//! [`Registry`] speaks the OCI distribution specification 1.1. What it promises:
//!
//! - Bytes are never accepted unverified: manifests and configurations against their
//!   digest and size, blobs while they stream. Ranges of blobs are for the caller to verify.
//! - 429, 408, 5xx and network failures are tried again with jitter; `Retry-After` is
//!   honoured; one deadline bounds the whole operation.
//! - A broken download continues where it broke (`Range`), and so does a broken upload of a large
//!   blob where the registry allows it.
//! - Plain http is spoken with this machine only (`localhost`, `127.…`, `[::1]`), and no
//!   redirect leads from https to http.
//! - Credentials come from Docker's configuration and appear in no message or log.
//!
//! Requests are made with reqwest rather than through `oci-client`: that crate hides
//! response headers (`Retry-After`), can't tell a cut download from a whole one, knows
//! no identity tokens and asks `/v2/` first.

mod auth;
mod authorities;
mod blob;
mod client;
mod credentials;
mod error;
mod push;
mod retry;
mod stream;
mod transport;

pub use authorities::{Authorities, AuthoritiesError};
pub use credentials::{Credentials, CredentialsError};
pub(crate) use error::is_tls;
pub use error::{Act, IntegrityError, RegistryError, Subject, Trouble};
pub use push::{Sent, UploadSource};
pub use retry::Limits;
pub(crate) use retry::{backoff, pause_after, retry_after};
pub use stream::BlobStream;
pub(crate) use transport::install_provider;

use std::{ffi::OsString, io::Write, ops::Range, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;

use crate::{
    digest::Sha256Digest,
    oci::{
        Descriptor, Document, ImageIndex, Manifest, Platform, Reference, Repository,
        ResolvedManifest,
    },
};
use auth::Access;
use client::{Client, Operation, text};
use retry::Retry;

/// Largest manifest or index in bytes; registries accept 4 MiB.
const MANIFEST_LIMIT: u64 = 8 << 20;
/// Largest image configuration in bytes.
const CONFIG_LIMIT: u64 = 16 << 20;
/// Manifests looked at in nested indexes before we give up.
const NESTING_LIMIT: usize = 16;

/// How to talk to registries.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// The directory of Docker's `config.json`; none: no credentials.
    pub docker_config: Option<PathBuf>,
    /// Where credential helpers are looked for, in the form of `PATH`; none: the
    /// `PATH` of the process.
    pub helper_path: Option<OsString>,
    /// Certificate authorities to trust besides the system's.
    pub authorities: Authorities,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// Times and counts.
    pub limits: Limits,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            docker_config: None,
            helper_path: None,
            authorities: Authorities::default(),
            user_agent: concat!("memobuild-ci/", env!("CARGO_PKG_VERSION")).to_owned(),
            limits: Limits::default(),
        }
    }
}

/// A client for all registries.
#[derive(Debug)]
pub struct Registry {
    client: Arc<Client>,
    limits: Limits,
}

impl Registry {
    /// A client. It needs a rustls provider: the process's default one, or ring, which
    /// it installs where there is none.
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        let limits = options.limits.clone();
        Ok(Self {
            client: Arc::new(Client::new(options)?),
            limits,
        })
    }

    /// The same client, with its connections and tokens, for operations with other limits.
    /// [`Limits::connect`] and [`Limits::stall`] stay.
    #[must_use]
    pub fn with_limits(&self, limits: Limits) -> Self {
        Self {
            client: self.client.clone(),
            limits,
        }
    }

    fn operation(
        &self,
        repository: &Repository,
        access: Access,
        what: String,
        limit: Duration,
    ) -> Operation {
        let retry = Retry::new(&self.limits, limit);
        self.client.operation(repository, access, what, retry)
    }

    /// Finds the image of `reference` for `platform`: its manifest and configuration,
    /// verified. No layer is fetched.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedManifest, RegistryError> {
        let mut operation = self.operation(
            &reference.repository,
            Access::Pull,
            reference.familiar(),
            self.limits.resolve,
        );
        let (digest, document) = operation
            .document(&reference.selector(), reference.digest, None)
            .await?;
        let (digest, manifest) = match document {
            Document::Manifest(manifest) => (digest, manifest),
            Document::Index(index) => choose(&mut operation, index, platform).await?,
        };
        let config = operation.small_blob(&manifest.config, CONFIG_LIMIT).await?;
        ResolvedManifest::new(digest, manifest, &config).map_err(|source| RegistryError::Manifest {
            subject: operation.subject().clone(),
            source,
        })
    }

    /// Writes the blob `digest` of `repository` (`host/path`) to `out` and verifies
    /// size and digest on the way. `progress` is told the number of bytes done so far.
    /// After an error `out` holds bytes that must be thrown away.
    pub async fn fetch_blob(
        &self,
        repository: &str,
        digest: &Sha256Digest,
        size: u64,
        out: &mut (dyn Write + Send),
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), RegistryError> {
        let repository: Repository = repository.parse()?;
        let mut operation = self.operation(
            &repository,
            Access::Pull,
            name_of(&repository, digest),
            self.limits.blob,
        );
        blob::fetch(&mut operation, digest, size, out, progress).await
    }

    /// The size of the blob `digest` and its bytes, **not verified**; none if it is not there.
    /// What breaks on the way is continued. The bytes end with an error where the registry has fewer
    /// than it said.
    pub async fn open_blob(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
    ) -> Result<Option<BlobStream>, RegistryError> {
        let operation = self.blob_operation(repository, Access::Pull, digest);
        found(stream::open(operation, digest).await)
    }

    /// The bytes `range` of the blob `digest`, **not verified**, fewer if it ends before; none
    /// if it is not there. A registry that gives no ranges is read from the beginning.
    pub async fn read_range(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, RegistryError> {
        let mut operation = self.blob_operation(repository, Access::Pull, digest);
        found(stream::range(&mut operation, digest, range).await)
    }

    /// The size in bytes of the blob `digest`; none if it is not there. `for_push`: asked with the
    /// rights that a push needs, as others may not be allowed to see what is about to be pushed.
    pub async fn blob_size(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        for_push: bool,
    ) -> Result<Option<u64>, RegistryError> {
        let access = match for_push {
            true => Access::Push,
            false => Access::Pull,
        };
        push::size(&mut self.blob_operation(repository, access, digest), digest).await
    }

    /// Pushes the blob `digest`, whether it is there or not. Bytes of another digest are
    /// [refused](RegistryError::Refused) by the registry.
    pub async fn push_blob(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        source: &UploadSource,
    ) -> Result<(), RegistryError> {
        let sent: Sent = Arc::new(|_| {});
        self.push_blob_telling(repository, digest, source, &sent)
            .await
    }

    /// The same; `sent` is told how far it is.
    pub async fn push_blob_telling(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        source: &UploadSource,
        sent: &Sent,
    ) -> Result<(), RegistryError> {
        let mut operation = self.blob_operation(repository, Access::Push, digest);
        push::blob(&mut operation, digest, source, sent).await
    }

    /// Has the registry take the blob `digest` over from the repository `from` of the same host.
    /// False if it would rather have the bytes, or if the hosts differ.
    pub async fn mount_blob(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        from: &Repository,
    ) -> Result<bool, RegistryError> {
        if repository.host != from.host {
            return Ok(false);
        }
        let access = Access::Mount(from.path.clone());
        let mut operation = self.blob_operation(repository, access, digest);
        push::mount(&mut operation, digest, &from.path).await
    }

    /// The manifest or index under `selector`, a tag or a digest, whatever it describes; none if it
    /// is not there. Its digest is verified where `selector` is one.
    pub async fn manifest(
        &self,
        repository: &Repository,
        selector: &str,
    ) -> Result<Option<StoredManifest>, RegistryError> {
        let mut operation = self.operation(
            repository,
            Access::Pull,
            selected(repository, selector),
            self.limits.resolve,
        );
        let digest = selector.parse().ok();
        let manifest = operation.manifest(selector, digest, None).await;
        let manifest = manifest.map(|(headers, digest, bytes)| StoredManifest {
            digest,
            media_type: text(&headers, CONTENT_TYPE.as_str())
                .unwrap_or_default()
                .to_owned(),
            bytes: bytes.into(),
        });
        found(manifest)
    }

    /// Pushes a manifest or an index under `selector`, a tag or its digest, in place of what a
    /// tag named before. What it refers to must be there.
    pub async fn push_manifest(
        &self,
        repository: &Repository,
        selector: &str,
        media_type: &str,
        bytes: &Bytes,
    ) -> Result<Sha256Digest, RegistryError> {
        let mut operation = self.operation(
            repository,
            Access::Push,
            selected(repository, selector),
            self.limits.resolve,
        );
        push::manifest(&mut operation, selector, media_type, bytes).await
    }

    /// The digest of the manifest of `media_type` under `selector`, asked for with the rights that a push needs
    /// and without its bytes; none if it is not there, or the registry doesn't tell.
    pub async fn manifest_digest(
        &self,
        repository: &Repository,
        selector: &str,
        media_type: &str,
    ) -> Result<Option<Sha256Digest>, RegistryError> {
        let mut operation = self.operation(
            repository,
            Access::Push,
            selected(repository, selector),
            self.limits.resolve,
        );
        push::manifest_digest(&mut operation, selector, media_type).await
    }

    fn blob_operation(
        &self,
        repository: &Repository,
        access: Access,
        digest: &Sha256Digest,
    ) -> Operation {
        let what = name_of(repository, digest);
        let limit = self.limits.blob;
        self.operation(repository, access, what, limit)
    }
}

/// A manifest or an index as a registry keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    /// SHA-256 of the bytes.
    pub digest: Sha256Digest,
    /// The media type that the registry names.
    pub media_type: String,
    /// The document.
    pub bytes: Bytes,
}

/// How messages name a blob.
fn name_of(repository: &Repository, digest: &Sha256Digest) -> String {
    format!("{}@{digest}", repository.familiar())
}

/// How messages name a manifest.
fn selected(repository: &Repository, selector: &str) -> String {
    let separator = match selector.contains(':') {
        true => '@',
        false => ':',
    };
    format!("{}{separator}{selector}", repository.familiar())
}

/// None for what is not there.
fn found<T>(result: Result<T, RegistryError>) -> Result<Option<T>, RegistryError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(RegistryError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The manifest for `platform` out of an index and those nested in it.
async fn choose(
    operation: &mut Operation,
    index: ImageIndex,
    platform: &Platform,
) -> Result<(Sha256Digest, Manifest), RegistryError> {
    let mut available = index.platforms();
    let mut open: Vec<Descriptor> = best_last(&index, platform);
    for _ in 0..NESTING_LIMIT {
        let Some(next) = open.pop() else { break };
        let (digest, document) = operation
            .document(&next.digest.to_string(), Some(next.digest), Some(next.size))
            .await?;
        match document {
            Document::Manifest(manifest) => return Ok((digest, manifest)),
            Document::Index(nested) => {
                available.extend(nested.platforms());
                open.extend(best_last(&nested, platform));
            }
        }
    }
    Err(RegistryError::NoPlatform {
        subject: operation.subject().clone(),
        platform: Box::new(platform.clone()),
        available,
    })
}

fn best_last(index: &ImageIndex, platform: &Platform) -> Vec<Descriptor> {
    let candidates = index.candidates(platform).into_iter().rev();
    candidates.cloned().collect()
}
