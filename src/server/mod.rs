//! The cache server: entries and blobs over HTTP, for runners that start empty.
//!
//! [`Server`] listens, `router` lists what it answers, [`store`] keeps things, [`auth`]
//! decides who may do what. The protocol stands in [`crate::cache::http::wire`] and is specified in
//! `docs/internals/remote-cache.md`. Invariants:
//!
//! - Memory does not depend on the size of blobs: bodies are streams in both directions.
//! - What is written is verified before it is visible, and what is read before it is sent.
//! - No request waits for ever, and no client can make one wait for ever.
//! - A token that may not write a scope can't replace, pin or evict what stands in it.

mod about;
mod actions;
mod admin;
mod answer;
mod audit;
pub mod auth;
mod blobs;
mod earlier;
mod gate;
mod listen;
mod range;
mod router;
pub mod store;
mod upload;
mod whole;

pub use about::OPENAPI;
pub use router::routes;
pub use upload::Pace;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::{net::TcpListener, sync::Semaphore};

use audit::Audit;
use auth::{Access, TokensError};
use store::{Quotas, Store, StoreError};

use crate::{
    cache::trust::{KeyError, Keyring, ScopePattern, public_keys},
    fs::{self, FsError},
};

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where to listen; port 0 is one of the system's choice.
    pub listen: SocketAddr,
    /// The directory that everything is kept in.
    pub data: PathBuf,
    /// The token file; none lets everybody in.
    pub tokens: Option<PathBuf>,
    /// Whether everybody may be let in from other machines too.
    pub open_to_all: bool,
    /// Files with public keys whose signatures are accepted.
    pub trusted_keys: Vec<PathBuf>,
    /// The scopes whose entries must be signed by one of them.
    pub require_signature: Vec<ScopePattern>,
    /// Where refusals are written to.
    pub audit_log: Option<PathBuf>,
    /// How much may be kept.
    pub quotas: Quotas,
    /// What was not used for so long is dropped.
    pub max_age: Option<Duration>,
    /// What was written less than this ago is not collected.
    pub grace: Duration,
    /// Namespaces that one token may make.
    pub namespaces: usize,
    /// Requests at once; others are answered 429.
    pub requests: usize,
    /// Connections at once; others wait.
    pub connections: usize,
    /// How slow clients may be.
    pub pace: Pace,
    /// How long running requests may take to end when the server is stopped.
    pub stop_limit: Duration,
}

impl ServerOptions {
    /// The defaults, for a server at `listen` that keeps everything in `data`.
    pub fn new(listen: SocketAddr, data: PathBuf) -> Self {
        Self {
            listen,
            data,
            tokens: None,
            open_to_all: false,
            trusted_keys: Vec::new(),
            require_signature: Vec::new(),
            audit_log: None,
            quotas: Quotas::NONE,
            max_age: None,
            grace: Duration::from_secs(3600),
            namespaces: 100,
            requests: 512,
            connections: 1024,
            pace: Pace::default(),
            stop_limit: Duration::from_secs(30),
        }
    }
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Others could write to it.
    #[error("without tokens a server listens only on this machine, not on `{address}`")]
    Unprotected {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// The tokens can't be used.
    #[error("the token file `{}` can't be used", path.display())]
    Tokens {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TokensError,
    },
    /// A file of public keys can't be read.
    #[error("the trusted keys can't be used")]
    KeyFile(#[source] FsError),
    /// A file holds no public keys.
    #[error("`{}` holds no public key", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// Nobody could sign.
    #[error("signatures are required, but no key is trusted")]
    NoKeys,
    /// The data can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The audit log can't be written.
    #[error("the audit log can't be used")]
    Audit(#[source] FsError),
    /// The address can't be had.
    #[error("can't listen on `{address}`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ServerError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unprotected { .. } => Some(
                "name a token file with `--tokens`, or let everybody write with `--insecure-no-auth`",
            ),
            Self::NoKeys => Some("name the file of a public key with `--trusted-key`"),
            Self::Key { source, .. } => Some(source.hint()),
            Self::Store(StoreError::Version { .. }) => {
                Some("use another directory with `--data`, or remove this one")
            }
            _ => None,
        }
    }
}

/// The keys that are trusted, and where they are needed.
fn keyring(options: &ServerOptions) -> Result<Keyring, ServerError> {
    let mut keys = Vec::new();
    for path in &options.trusted_keys {
        let text = fs::read_to_string(path).map_err(ServerError::KeyFile)?;
        keys.extend(public_keys(&text).map_err(|source| ServerError::Key {
            path: path.clone(),
            source,
        })?);
    }
    if keys.is_empty() && !options.require_signature.is_empty() {
        return Err(ServerError::NoKeys);
    }
    Ok(Keyring::new(
        keys,
        options.require_signature.iter().cloned(),
    ))
}

/// What all requests share.
#[derive(Debug)]
struct Shared {
    store: Arc<Store>,
    access: Access,
    keyring: Keyring,
    audit: Arc<Audit>,
    pace: Pace,
    requests: usize,
    turns: Arc<Semaphore>,
    lookups: Semaphore,
    stopping: AtomicBool,
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    options: ServerOptions,
}

impl Server {
    /// Opens the store and listens. Requests are answered by [`run`](Self::run).
    pub async fn bind(options: ServerOptions) -> Result<Self, ServerError> {
        let access = match &options.tokens {
            Some(path) => Access::from_file(path).map_err(|source| ServerError::Tokens {
                path: path.clone(),
                source,
            })?,
            None if options.listen.ip().is_loopback() || options.open_to_all => Access::open(),
            None => {
                let address = options.listen;
                return Err(ServerError::Unprotected { address });
            }
        };
        let keyring = keyring(&options)?;
        let audit = Audit::open(options.audit_log.as_deref()).map_err(ServerError::Audit)?;
        let store = Store::open(&options.data, options.quotas, options.grace)?;
        let store = store.with_namespaces(options.namespaces);
        let failed = |source| ServerError::Listen {
            address: options.listen,
            source,
        };
        let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        // More look-ups at once than processors only make each other wait.
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Self {
            listener,
            address,
            shared: Arc::new(Shared {
                store: Arc::new(store),
                access,
                keyring,
                audit: Arc::new(audit),
                pace: options.pace,
                requests: options.requests,
                turns: Arc::new(Semaphore::new(options.requests)),
                lookups: Semaphore::new(processors),
                stopping: AtomicBool::new(false),
            }),
            options,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until `stop` is ready and running requests have ended.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        listen::run(self, stop).await;
    }
}
