//! Every kind of store that attacker and victim may share, for [`crate::cache_attacks`].

use std::{
    any::Any,
    path::PathBuf,
    sync::{Arc, LazyLock},
};
#[cfg(feature = "object-storage")]
use std::{collections::BTreeMap, path::Path, sync::Mutex};

use memobuild_ci::{
    cache::{
        Access, ActionCache, BlobStore, MemoryStore, RegistryCache, Tier,
        open::{TierOptions, open},
    },
    digest::Sha256Digest,
    redact::SecretBytes,
    registry::{Registry, RegistryOptions},
    server::store::Quotas,
};

use crate::{
    actions_service,
    registry_server::{self, RegistryServer},
    server::{Served, guarded},
};

/// What the servers of these tests run on.
static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().build().unwrap()
});

/// Bytes that the server of this program keeps.
pub(crate) const ROOM: u64 = 6 << 20;

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}

/// Whose credentials are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// Of who may write everything, such as the job of a protected branch.
    Owner,
    /// Of a pull request, where a store knows the difference.
    PullRequest,
}

/// A store that attacker and victim share.
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    /// A client as each job has one of its own.
    open: Box<dyn Fn(Who) -> Tier>,
    /// Puts other bytes under the name of a blob, past everything that checks.
    swap: Box<dyn Fn(Sha256Digest, Vec<u8>)>,
    /// What is said of swapped bytes.
    pub(crate) swapped: &'static str,
    /// The store itself, and what it has refused.
    pub(crate) audit: Option<Box<dyn Fn() -> String>>,
    /// The service of Actions, where it is one.
    pub(crate) service: Option<actions_service::Shared>,
    _parts: Vec<Box<dyn Any>>,
}

impl Backend {
    fn new(
        name: &'static str,
        open: impl Fn(Who) -> Tier + 'static,
        swap: impl Fn(Sha256Digest, Vec<u8>) + 'static,
    ) -> Self {
        Self {
            name,
            open: Box::new(open),
            swap: Box::new(swap),
            swapped: "shared://cache",
            audit: None,
            service: None,
            _parts: Vec::new(),
        }
    }

    pub(crate) fn open(&self, who: Who) -> Tier {
        (self.open)(who)
    }

    pub(crate) fn swap(&self, digest: Sha256Digest, bytes: Vec<u8>) {
        (self.swap)(digest, bytes);
    }
}

/// Every kind of store that can be had here.
pub(crate) fn backends() -> Vec<Backend> {
    let base = [
        memory(),
        server(),
        registry(),
        actions(1, "gha, version 1"),
        actions(2, "gha, version 2"),
    ];
    #[cfg(feature = "object-storage")]
    let more = [directory(), bucket()];
    #[cfg(not(feature = "object-storage"))]
    let more = [];
    base.into_iter().chain(more).collect()
}

pub(crate) fn tier(actions: Arc<dyn ActionCache>, blobs: Arc<dyn BlobStore>) -> Tier {
    Tier {
        name: "shared://cache".to_owned(),
        actions,
        blobs,
        access: Access::FULL,
    }
}

/// What opening a tier takes, with these variables of the environment.
fn opened(address: &str, token: Option<&str>, variables: &[(&'static str, &str)]) -> Tier {
    let secret = |text: &str| SecretBytes::from(text.as_bytes().to_vec());
    let options = TierOptions {
        authorities: Default::default(),
        access: Access::FULL,
        token: token.map(secret),
        registry: Arc::new(Registry::new(RegistryOptions::default()).unwrap()),
        services: variables
            .iter()
            .map(|(name, value)| (*name, secret(value)))
            .collect(),
        temp_dir: std::env::temp_dir(),
    };
    let opened = open(&address.parse().unwrap(), &options).unwrap();
    tier(opened.actions, opened.blobs)
}

fn memory() -> Backend {
    let store = Arc::new(MemoryStore::default());
    let swapped = store.clone();
    Backend::new(
        "memory",
        move |_| tier(store.clone(), store.clone()),
        move |digest, bytes| swapped.replace(&digest, bytes),
    )
}

/// A server of this program, with tokens; the attacker of its bytes has its disk.
fn server() -> Backend {
    let served = wait(guarded(|options| options.quotas = Quotas::of(ROOM)));
    let served = Arc::new(served);
    let address = format!("http://{}", served.address);
    let (disk, log): (Arc<Served>, Arc<Served>) = (served.clone(), served.clone());
    let backend = Backend::new(
        "server",
        move |who| match who {
            Who::Owner => opened(&address, Some("admin-token"), &[]),
            Who::PullRequest => opened(&address, Some("pull-token"), &[]),
        },
        move |digest, mut bytes| {
            // These blobs have one frame each; nothing names it by the blob's digest.
            let whole = |path: &PathBuf| Sha256Digest::of(&std::fs::read(path).unwrap()) == digest;
            let files = disk.frames();
            for path in files.iter().filter(|path| whole(path)) {
                bytes.resize(path.metadata().unwrap().len() as usize, 0);
                std::fs::write(path, &bytes).unwrap();
            }
        },
    );
    Backend {
        // It compares before it sends.
        swapped: "is gone",
        audit: Some(Box::new(move || log.audit_log())),
        _parts: vec![Box::new(served)],
        ..backend
    }
}

fn registry() -> Backend {
    const REPOSITORY: &str = "team/cache";
    let server = Arc::new(wait(RegistryServer::start(registry_server::Access::Open)));
    let swapped = server.clone();
    Backend::new(
        "registry",
        move |_| {
            let registry = Registry::new(RegistryOptions::default()).unwrap();
            let place = format!("{}/{REPOSITORY}", server.host());
            let cache = Arc::new(RegistryCache::new(&registry, &place).unwrap());
            tier(cache.clone(), cache)
        },
        move |digest, bytes| swapped.replace_blob(REPOSITORY, &digest, bytes),
    )
}

/// The cache service of Actions. Keys are given away once; the attacker of its bytes is the service.
fn actions(version: u32, name: &'static str) -> Backend {
    let service = wait(actions_service::start());
    let url = format!("http://127.0.0.1:{}/x/", service.lock().unwrap().port);
    let swapped = service.clone();
    let backend = Backend::new(
        name,
        move |_| {
            let token = ("ACTIONS_RUNTIME_TOKEN", actions_service::TOKEN);
            match version {
                1 => opened("gha://", None, &[token, ("ACTIONS_CACHE_URL", &url)]),
                _ => {
                    let second = ("ACTIONS_CACHE_SERVICE_V2", "true");
                    opened(
                        "gha://",
                        None,
                        &[token, second, ("ACTIONS_RESULTS_URL", &url)],
                    )
                }
            }
        },
        move |digest, bytes| {
            let mut service = swapped.lock().unwrap();
            let (pack, place) = place_in_pack(&service, &digest);
            let pack = service.bytes.get_mut(&pack).unwrap();
            for (at, byte) in pack[place].iter_mut().enumerate() {
                *byte = bytes.get(at).copied().unwrap_or_default();
            }
        },
    );
    Backend {
        service: Some(service),
        ..backend
    }
}

/// In which pack a blob lies, and where, as some index says.
fn place_in_pack(
    service: &actions_service::Service,
    digest: &Sha256Digest,
) -> (String, std::ops::Range<usize>) {
    let bytes = |key: &str| {
        let object = service.objects.iter().find(|object| object.key == key);
        object.map(|object| object.id.to_string())
    };
    let indexes = service.objects.iter().filter(|o| o.key.contains("/index/"));
    for index in indexes.rev() {
        let text = zstd::decode_all(&service.bytes[&index.id.to_string()][..]).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&text).unwrap();
        for blob in index["blobs"].as_array().unwrap() {
            if blob[0] == digest.to_string() {
                let number = |name: &str| blob[1][name].as_u64().unwrap() as usize;
                let pack = blob[1]["pack"].as_str().unwrap();
                let id = bytes(&format!("memobuild-ci/pack/1/{pack}")).unwrap();
                return (id, number("offset")..number("offset") + number("size"));
            }
        }
    }
    panic!("no index names the blob");
}

/// A directory that everybody may write.
#[cfg(feature = "object-storage")]
fn directory() -> Backend {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("file://{}", dir.path().display());
    let root = dir.path().to_owned();
    let backend = Backend::new(
        "directory",
        move |_| opened(&address, None, &[]),
        move |digest, bytes| {
            let path = find(&root, &digest.hex()).expect("the blob has a file");
            std::fs::remove_file(&path).unwrap();
            std::fs::write(path, bytes).unwrap();
        },
    );
    Backend {
        _parts: vec![Box::new(dir)],
        ..backend
    }
}

/// The file whose name ends with `end` below `dir`.
#[cfg(feature = "object-storage")]
fn find(dir: &Path, end: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if let Some(found) = find(&path, end) {
                return Some(found);
            }
        } else if path.to_string_lossy().ends_with(end) {
            return Some(path);
        }
    }
    None
}

#[cfg(feature = "object-storage")]
type Objects = Arc<Mutex<BTreeMap<String, bytes::Bytes>>>;

/// A bucket that everybody may write, of a server that speaks as much of S3's protocol as it takes.
#[cfg(feature = "object-storage")]
fn bucket() -> Backend {
    let objects = Objects::default();
    let serving = objects.clone();
    let port = wait(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
            let objects = serving.clone();
            async move { object(&objects, request).await }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        port
    });
    let address = format!("s3://bucket/ci?anonymous=true&endpoint=http://127.0.0.1:{port}");
    Backend::new(
        "bucket",
        move |_| opened(&address, None, &[]),
        move |digest, bytes| {
            let mut objects = objects.lock().unwrap();
            let mut named = objects.iter_mut();
            let found = named.find(|(path, _)| path.ends_with(&digest.hex()));
            *found.expect("the blob has an object").1 = bytes.into();
        },
    )
}

#[cfg(feature = "object-storage")]
async fn object(
    objects: &Objects,
    request: axum::extract::Request,
) -> axum::http::Response<axum::body::Body> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let path = parts.uri.path().to_owned();
    let mut objects = objects.lock().unwrap();
    let answer = axum::http::Response::builder();
    if parts.method == "PUT" {
        objects.insert(path, body);
        return answer
            .header("etag", "\"1\"")
            .body(Default::default())
            .unwrap();
    }
    let Some(found) = objects.get(&path).cloned() else {
        return answer.status(404).body(Default::default()).unwrap();
    };
    let whole = found.len();
    let range = parts.headers.get("range").and_then(|r| r.to_str().ok());
    let range = range.and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
    let (status, part) = match range {
        Some((from, to)) => {
            let from: usize = from.parse().unwrap();
            let to = to.parse().map_or(whole, |to: usize| whole.min(to + 1));
            (206, found.slice(from..to))
        }
        None => (200, found),
    };
    let answer = answer.status(status).header("etag", "\"1\"");
    let answer = answer.header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT");
    let answer = answer.header("content-length", part.len());
    match parts.method == "HEAD" {
        true => answer.body(Default::default()).unwrap(),
        false => answer.body(part.into()).unwrap(),
    }
}
