//! A registry as a cache: the conformance suite over the registry of these tests and over Debian's, and
//! what happens in trouble.

use std::{
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use memobuild_ci::{
    cache::{
        Access as TierAccess, ActionCache, ActionResult, BlobSource, BlobStore, CacheError, Later,
        RegistryCache, Scope, TierAddress, conformance,
        conformance::sample_action,
        open::{OpenError, TierOptions, open},
    },
    digest::Sha256Digest,
    oci::descriptor::media,
    registry::{Registry, RegistryOptions},
};

use crate::registry_server::{Access, Fault, RegistryServer, basic};

const REPOSITORY: &str = "acme/cache";

fn cache_at(host: &str) -> Arc<RegistryCache> {
    let registry = Registry::new(RegistryOptions::default()).unwrap();
    Arc::new(RegistryCache::new(&registry, &format!("{host}/{REPOSITORY}")).unwrap())
}

async fn started(access: Access) -> (RegistryServer, Arc<RegistryCache>) {
    let server = RegistryServer::start(access).await;
    let cache = cache_at(&server.host());
    (server, cache)
}

/// Puts a blob.
async fn keep(cache: &RegistryCache, bytes: &'static [u8]) -> Result<(), CacheError> {
    let source = BlobSource::Bytes(Bytes::from_static(bytes));
    BlobStore::put(cache, Sha256Digest::of(bytes), source).await
}

/// Puts the blobs of an entry and the entry; gives the entry.
async fn stocked(cache: &RegistryCache) -> ActionResult {
    let blobs = [Sha256Digest::of(b"layer"), Sha256Digest::of(b"index")];
    keep(cache, b"layer").await.unwrap();
    keep(cache, b"index").await.unwrap();
    let action = sample_action(1, &blobs);
    put(cache, &action).await.unwrap();
    action
}

async fn put(cache: &RegistryCache, action: &ActionResult) -> Result<(), CacheError> {
    ActionCache::put(cache, action).await
}

async fn find(
    cache: &RegistryCache,
    action: &ActionResult,
) -> Result<Option<ActionResult>, CacheError> {
    let scopes = [action.scope.clone()];
    let mut found = cache.lookup(&scopes, &[action.key]).await?;
    Ok(found.remove(0))
}

/// The whole suite; the registry refuses entries whose blobs it lacks.
async fn conforms(cache: Arc<RegistryCache>) {
    conformance::blob_store(cache.clone()).await;
    keep(&cache, b"layer").await.unwrap();
    conformance::action_cache(cache).await;
}

#[tokio::test]
async fn conforms_over_the_registry_of_these_tests() {
    let (server, cache) = started(Access::Open).await;
    conforms(cache.clone()).await;
    conformance::corruption(cache, |digest| server.spoil_blob(REPOSITORY, digest)).await;
}

/// Debian's `docker-registry` on a loopback port, ended when dropped.
struct Debians {
    process: Child,
    host: String,
    _dir: tempfile::TempDir,
}

impl Drop for Debians {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Debians {
    /// None if it is not installed; says so.
    fn start() -> Option<Self> {
        if !Path::new("/usr/bin/docker-registry").exists() {
            let missing = "no docker-registry (package docker-registry)";
            assert!(
                std::env::var_os("CI").is_none(),
                "{missing}, and this is CI"
            );
            eprintln!("skipped: {missing}");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = port.local_addr().unwrap().to_string();
        drop(port);
        let config = serde_json::json!({
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": dir.path().join("data")}},
            "http": {"addr": host},
        });
        let path = dir.path().join("config.json");
        std::fs::write(&path, config.to_string()).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Self {
            process,
            host,
            _dir: dir,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&started.host).is_err() {
            assert!(Instant::now() < deadline, "docker-registry doesn't start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(started)
    }
}

#[tokio::test]
async fn conforms_over_debians_registry() {
    let Some(server) = Debians::start() else {
        return;
    };
    let cache = cache_at(&server.host);
    conforms(cache.clone()).await;
    let action = stocked(&cache).await;
    assert_eq!(find(&cache, &action).await.unwrap(), Some(action));
}

#[tokio::test]
async fn a_look_up_is_one_request_for_each_key_and_scope() {
    let (server, cache) = started(Access::Open).await;
    let action = stocked(&cache).await;
    server.forget();
    assert_eq!(find(&cache, &action).await.unwrap().as_ref(), Some(&action));
    assert_eq!(server.seen().len(), 1);
    server.forget();
    let scopes = [Scope::protected(), Scope::pull("7"), action.scope.clone()];
    let absent = sample_action(9, &[]).key;
    let found = cache.lookup(&scopes, &[action.key, absent]).await.unwrap();
    assert_eq!(found, [Some(action), None]);
    assert_eq!(server.count("GET"), 6);
}

#[tokio::test]
async fn an_entry_is_a_manifest_that_names_its_blobs() {
    let (server, cache) = started(Access::Open).await;
    let action = stocked(&cache).await;
    let tags = server.tags(REPOSITORY);
    let [(tag, media_type, bytes)] = &tags[..] else {
        panic!("one tag: {tags:?}");
    };
    assert!(tag.starts_with("e1-local-") && tag.ends_with(&action.key.0.hex()));
    assert_eq!(media_type, media::MANIFEST);
    let manifest: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    assert_eq!(manifest["artifactType"], manifest["config"]["mediaType"]);
    let layers = manifest["layers"].as_array().unwrap();
    let sizes: Vec<_> = layers.iter().map(|layer| &layer["size"]).collect();
    assert_eq!(sizes, [5, 5]);
    assert_eq!(
        manifest["annotations"]["io.github.memobuild.scope"],
        "local"
    );
}

#[tokio::test]
async fn an_entry_needs_its_blobs() {
    let (server, cache) = started(Access::Open).await;
    let blobs = [Sha256Digest::of(b"layer"), Sha256Digest::of(b"index")];
    let action = sample_action(1, &blobs);
    let error = put(&cache, &action).await.unwrap_err();
    assert!(matches!(error, CacheError::Broken { .. }), "{error:?}");
    server.put_blob(REPOSITORY, b"index");
    let error = put(&cache, &action).await.unwrap_err();
    assert!(matches!(error, CacheError::Broken { .. }), "{error:?}");
    assert_eq!(find(&cache, &action).await.unwrap(), None);
}

#[tokio::test]
async fn a_manifest_whose_blobs_are_gone_is_a_hit_without_bytes() {
    let (server, cache) = started(Access::Open).await;
    let action = stocked(&cache).await;
    let layer = action.blobs()[0];
    server.remove_blob(REPOSITORY, &layer);
    assert_eq!(find(&cache, &action).await.unwrap().as_ref(), Some(&action));
    assert!(cache.get(layer).await.unwrap().is_none());
    assert_eq!(
        cache.contains(&action.blobs()).await.unwrap(),
        [false, true]
    );
}

#[tokio::test]
async fn what_is_no_entry_counts_as_a_miss() {
    let (server, cache) = started(Access::Open).await;
    let action = stocked(&cache).await;
    let (tag, _, bytes) = server.tags(REPOSITORY).remove(0);
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    for wrong in [
        text.replace("application/vnd.memobuild.action", "application/x"),
        text.replace("\"data\":\"e", "\"data\":\"f"),
        "{\"schemaVersion\":2,\"manifests\":[]}".to_owned(),
        "<html>".to_owned(),
    ] {
        server.put_manifest(REPOSITORY, &tag, media::MANIFEST, wrong.as_bytes());
        assert_eq!(find(&cache, &action).await.unwrap(), None, "{wrong}");
    }
    // An entry of another scope under this one's tag.
    let other = ActionResult {
        scope: Scope::protected(),
        ..action.clone()
    };
    put(&cache, &other).await.unwrap();
    let tags = server.tags(REPOSITORY);
    let (_, _, planted) = tags.iter().find(|(name, ..)| *name != tag).unwrap();
    server.put_manifest(REPOSITORY, &tag, media::MANIFEST, planted);
    assert_eq!(find(&cache, &action).await.unwrap(), None);
    put(&cache, &action).await.unwrap();
    assert_eq!(find(&cache, &action).await.unwrap(), Some(action));
}

#[tokio::test]
async fn trouble_is_sorted() {
    for (fault, sort) in [
        (Fault::Status(503, None), "transient"),
        (Fault::Status(429, Some("40")), "later"),
        (Fault::Status(403, None), "denied"),
        (Fault::Status(418, None), "broken"),
    ] {
        let (server, cache) = started(Access::Open).await;
        let action = stocked(&cache).await;
        server.fault("GET", fault.clone(), usize::MAX);
        server.fault("HEAD", fault.clone(), usize::MAX);
        let layer = action.blobs()[0];
        let errors = [
            find(&cache, &action).await.unwrap_err(),
            cache.get(layer).await.unwrap_err(),
            cache.contains(&[layer]).await.unwrap_err(),
            cache.read_range(layer, 1..2).await.unwrap_err(),
        ];
        for error in errors {
            let found = match &error {
                error if Later::asked_by(error) == Some(Duration::from_secs(40)) => "later",
                CacheError::Transient { .. } => "transient",
                CacheError::Denied { .. } => "denied",
                CacheError::Broken { .. } => "broken",
                error => panic!("{fault:?}: {error:?}"),
            };
            assert_eq!(found, sort, "{fault:?}: {error:?}");
        }
    }
    let (server, cache) = started(Access::Open).await;
    server.fault("PUT", Fault::Status(507, None), usize::MAX);
    let error = keep(&cache, b"layer").await.unwrap_err();
    assert!(matches!(error, CacheError::Full { .. }), "{error:?}");
}

#[tokio::test]
async fn without_the_right_to_push_the_cache_is_read_only() {
    let dir = tempfile::tempdir().unwrap();
    let server = RegistryServer::start(Access::ReadOnly("ci", "word")).await;
    let auth = basic("ci", "word");
    let auth = auth.strip_prefix("Basic ").unwrap();
    let config = serde_json::json!({"auths": {server.host(): {"auth": auth}}});
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let writer = Registry::new(RegistryOptions {
        docker_config: Some(dir.path().to_owned()),
        ..RegistryOptions::default()
    });
    let place = format!("{}/{REPOSITORY}", server.host());
    let writer = RegistryCache::new(&writer.unwrap(), &place).unwrap();
    let action = stocked(&writer).await;

    let reader = cache_at(&server.host());
    let error = keep(&reader, b"new").await.unwrap_err();
    assert!(matches!(error, CacheError::Denied { .. }), "{error:?}");
    server.forget();
    let error = keep(&reader, b"new").await.unwrap_err();
    assert!(matches!(error, CacheError::ReadOnly { .. }), "{error:?}");
    let error = put(&reader, &sample_action(2, &[])).await.unwrap_err();
    assert!(matches!(error, CacheError::ReadOnly { .. }), "{error:?}");
    assert_eq!(server.seen().len(), 0, "no further push is tried");
    assert_eq!(
        find(&reader, &action).await.unwrap().as_ref(),
        Some(&action)
    );
    let blob = reader.get(action.blobs()[0]).await.unwrap().unwrap();
    assert_eq!(blob.read_all(action.blobs()[0]).await.unwrap(), b"layer");
}

#[tokio::test]
async fn a_broken_download_continues_and_a_short_one_is_no_blob() {
    let (server, cache) = started(Access::Open).await;
    let bytes: Vec<u8> = (0..800_000_u32).map(|n| (n % 251) as u8).collect();
    let digest = server.put_blob(REPOSITORY, &bytes);
    server.fault("GET", Fault::Cut(300_000), 1);
    server.fault("GET", Fault::Status(500, None), 1);
    server.fault("GET", Fault::Cut(200_000), 1);
    let blob = cache.get(digest).await.unwrap().unwrap();
    assert_eq!(blob.size, 800_000);
    assert!(blob.read_all(digest).await.unwrap() == bytes);
    let ranges: Vec<_> = server.seen().into_iter().filter_map(|s| s.range).collect();
    assert_eq!(ranges.len(), 3);

    // A registry without ranges starts again.
    server.fault("GET", Fault::Cut(300_000), 1);
    server.fault("GET", Fault::IgnoreRange, 1);
    let blob = cache.get(digest).await.unwrap().unwrap();
    assert!(blob.read_all(digest).await.unwrap() == bytes);

    server.fault("GET", Fault::Corrupt(700_000), 1);
    let blob = cache.get(digest).await.unwrap().unwrap();
    let error = blob.read_all(digest).await.unwrap_err();
    assert!(matches!(error, CacheError::Corrupt { .. }), "{error:?}");
    assert_eq!(
        cache.contains(&[digest]).await.unwrap(),
        [false],
        "so that it is put again"
    );
}

#[tokio::test]
async fn ranges_shorter_than_asked_for_are_corrupt() {
    let (server, cache) = started(Access::Open).await;
    let digest = server.put_blob(REPOSITORY, b"0123456789");
    let read = async |range| cache.read_range(digest, range).await;
    assert_eq!(read(2..5).await.unwrap().as_deref(), Some(&b"234"[..]));
    assert_eq!(read(2..2).await.unwrap().as_deref(), Some(&b""[..]));
    assert!(matches!(read(8..12).await, Err(CacheError::Corrupt { .. })));
    assert!(matches!(
        read(20..22).await,
        Err(CacheError::Corrupt { .. })
    ));
    let absent = cache.read_range(Sha256Digest::of(b"x"), 0..1).await;
    assert_eq!(absent.unwrap(), None);
    assert!(cache.has_ranges());
}

#[test]
fn a_tier_is_opened_by_its_address() {
    let options = TierOptions {
        authorities: Default::default(),
        access: TierAccess::READ,
        token: None,
        registry: Arc::new(Registry::new(RegistryOptions::default()).unwrap()),
        services: std::collections::BTreeMap::new(),
        temp_dir: std::env::temp_dir(),
    };
    let open = |text: &str| open(&text.parse::<TierAddress>().unwrap(), &options);
    let tier = open("oci://registry.example/acme/cache").unwrap();
    assert_eq!(tier.name, "oci://registry.example/acme/cache");
    assert_eq!(tier.access, TierAccess::READ);
    assert!(matches!(
        open("oci://registry.example/ACME"),
        Err(OpenError::Repository { .. })
    ));
    assert!(matches!(
        open("oci://registry.example/acme/cache?x=1"),
        Err(OpenError::Setting { .. })
    ));
}
