//! From the address of a tier to the tier: [`open`].
//!
//! Opening makes a client and talks to nobody: a server that can't be reached shows at the first
//! look-up, as trouble with a cache, which costs hits and not the build. What fails here is wrong
//! in the address or in the settings, whichever machine the build runs on.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::{
    Access, CacheError, RegistryCache, Tier, TierAddress, TierKind,
    actions_service::ActionsStore,
    http::{HttpCache, HttpOpenError, HttpOptions},
};
use crate::{
    oci::reference::ParseReferenceError,
    redact::SecretBytes,
    registry::{Authorities, Registry},
};

/// What tiers are opened with, whichever kinds they are.
#[derive(Debug, Clone)]
pub struct TierOptions {
    /// What the build may do with the tier.
    pub access: Access,
    /// The token for a server of this program.
    pub token: Option<SecretBytes>,
    /// The client for registries, with the user's credentials.
    pub registry: Arc<Registry>,
    /// Certificate authorities to trust besides the system's.
    pub authorities: Authorities,
    /// The environment variables by which storage services and CI runners hand out addresses and
    /// credentials, by their names. No tier reads the environment itself.
    pub services: BTreeMap<&'static str, SecretBytes>,
    /// Directory for temporary files.
    pub temp_dir: PathBuf,
}

impl TierOptions {
    /// The value of one of [`services`](Self::services), if it is there and UTF-8.
    pub fn service(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.services.get(name)?.expose()).ok()
    }
}

/// A tier that can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// This build of the program lacks what the tier needs.
    #[error("this build of memobuild-ci has no support for caches at `{scheme}://`")]
    Unsupported {
        /// The scheme of the address.
        scheme: String,
    },
    /// The address has a setting that its kind of cache doesn't know, or a wrong value.
    #[error("setting `{name}` of cache `{address}` {problem}")]
    Setting {
        /// The address.
        address: String,
        /// The setting's name.
        name: String,
        /// What is wrong, to be read after the name: `is unknown`, `is not a number`.
        problem: String,
    },
    /// Something that the tier needs is not there: a variable, a token.
    #[error("cache `{address}` needs {what}")]
    Missing {
        /// The address.
        address: String,
        /// What is not there.
        what: String,
    },
    /// The address names no repository.
    #[error("cache `{address}` names no repository of a registry")]
    Repository {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: ParseReferenceError,
    },
    /// The address, the token or the certificates for a server make no sense.
    #[error("cache `{address}` can't be opened")]
    Server {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: HttpOpenError,
    },
    /// The client can't be made.
    #[error("cache `{address}` can't be opened")]
    Client {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: CacheError,
    },
}

impl OpenError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unsupported { .. } => Some(
                "name another cache, or leave this one out with `--no-remote-cache`".to_owned(),
            ),
            Self::Server { source, .. } => source.hint().map(str::to_owned),
            _ => None,
        }
    }
}

/// Opens the tier at `address`.
pub fn open(address: &TierAddress, options: &TierOptions) -> Result<Tier, OpenError> {
    match address.kind {
        TierKind::Server => server(address, options),
        TierKind::Registry => registry(address, options),
        TierKind::Actions => {
            let (store, access) = ActionsStore::open(address, options)?;
            let store = Arc::new(store);
            Ok(Tier {
                name: address.to_string(),
                actions: store.clone(),
                blobs: store,
                access,
            })
        }
        #[cfg(feature = "object-storage")]
        TierKind::S3 | TierKind::Gcs | TierKind::Azure | TierKind::Directory => {
            let store = super::object::ObjectStore::open_trusting(
                address,
                &options.services,
                &options.authorities,
            )?;
            Ok(tier(address, options, Arc::new(store)))
        }
        #[cfg(not(feature = "object-storage"))]
        TierKind::S3 | TierKind::Gcs | TierKind::Azure | TierKind::Directory => {
            Err(OpenError::Unsupported {
                scheme: address.scheme.clone(),
            })
        }
    }
}

/// The tier that `store` is.
fn tier<S>(address: &TierAddress, options: &TierOptions, store: Arc<S>) -> Tier
where
    S: super::ActionCache + super::BlobStore + 'static,
{
    Tier {
        name: address.to_string(),
        actions: store.clone(),
        blobs: store,
        access: options.access,
    }
}

/// A server of this program.
fn server(address: &TierAddress, options: &TierOptions) -> Result<Tier, OpenError> {
    let http = HttpOptions {
        token: options.token.clone(),
        authorities: options.authorities.clone(),
        ..HttpOptions::default()
    };
    let cache = HttpCache::open(address, &http).map_err(|source| OpenError::Server {
        address: address.to_string(),
        source,
    })?;
    Ok(tier(address, options, Arc::new(cache)))
}

/// A repository of a registry.
fn registry(address: &TierAddress, options: &TierOptions) -> Result<Tier, OpenError> {
    if let Some((name, _)) = address.settings.first() {
        return Err(OpenError::Setting {
            address: address.to_string(),
            name: name.clone(),
            problem: "is unknown".to_owned(),
        });
    }
    let cache = RegistryCache::new(&options.registry, &address.place).map_err(|source| {
        OpenError::Repository {
            address: address.to_string(),
            source,
        }
    })?;
    let cache = Arc::new(cache);
    Ok(Tier {
        name: address.to_string(),
        actions: cache.clone(),
        blobs: cache,
        access: options.access,
    })
}
