//! The registry client: resolves references and fetches blobs.
//!
//! [`Registry`] speaks the pull half of the OCI distribution specification 1.1. What it
//! promises:
//!
//! - Bytes are never accepted unverified: manifests and configurations against their
//!   digest and size, blobs while they stream.
//! - 429, 408, 5xx and network failures are tried again with jitter; `Retry-After` is
//!   honoured; one deadline bounds the whole operation.
//! - A broken download continues where it broke (`Range`).
//! - Plain http is spoken with this machine only (`localhost`, `127.…`, `[::1]`), and no
//!   redirect leads from https to http.
//! - Credentials come from Docker's configuration and appear in no message or log.
//!
//! Requests are made with reqwest rather than through `oci-client`: that crate hides
//! response headers (`Retry-After`), can't tell a cut download from a whole one, knows
//! no identity tokens and asks `/v2/` first.

mod auth;
mod blob;
mod client;
mod credentials;
mod error;
mod retry;

pub(crate) use client::install_provider;
pub use credentials::{Credentials, CredentialsError};
pub(crate) use error::is_tls;
pub use error::{IntegrityError, RegistryError, Subject, Trouble};
pub use retry::Limits;
pub(crate) use retry::{backoff, pause_after, retry_after};

use std::{ffi::OsString, io::Write, path::PathBuf};

use crate::{
    digest::Sha256Digest,
    oci::{
        Descriptor, Document, ImageIndex, Manifest, Platform, Reference, Repository,
        ResolvedManifest,
    },
};
use client::{Client, Operation};

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
    /// PEM files of certificate authorities to trust besides the system's.
    pub authorities: Vec<PathBuf>,
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
            authorities: Vec::new(),
            user_agent: concat!("memobuild-ci/", env!("CARGO_PKG_VERSION")).to_owned(),
            limits: Limits::default(),
        }
    }
}

/// A client for all registries.
#[derive(Debug)]
pub struct Registry {
    client: Client,
}

impl Registry {
    /// A client. It needs a rustls provider: the process's default one, or ring, which
    /// it installs where there is none.
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        Ok(Self {
            client: Client::new(options)?,
        })
    }

    /// Finds the image of `reference` for `platform`: its manifest and configuration,
    /// verified. No layer is fetched.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedManifest, RegistryError> {
        let mut operation = self.client.operation(
            &reference.repository,
            reference.familiar(),
            self.client.limits().resolve,
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
        let mut operation = self.client.operation(
            &repository,
            format!("{}@{digest}", repository.familiar()),
            self.client.limits().blob,
        );
        blob::fetch(&mut operation, digest, size, out, progress).await
    }
}

/// The manifest for `platform` out of an index and those nested in it.
async fn choose(
    operation: &mut Operation<'_>,
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
