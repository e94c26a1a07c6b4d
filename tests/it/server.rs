//! The cache server and its client, in one process, over loopback.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use memobuild_ci::{
    cache::{
        ActionCache as _, ActionResult, BlobSource, BlobStore as _, CacheError, Scope,
        conformance::{self, sample_action},
        http::{
            HttpCache, HttpOptions,
            wire::{self, VERSION_HEADER},
        },
        trust::Signer,
    },
    digest::{Blake3Digest, Sha256Digest},
    server::{self, Server, ServerOptions, store::Quotas},
};
use proptest::prelude::*;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// A running server; it ends when dropped.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) dir: Arc<tempfile::TempDir>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Served {
    pub(crate) async fn start(change: impl FnOnce(&mut ServerOptions)) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), change).await
    }

    async fn start_in(
        dir: Arc<tempfile::TempDir>,
        change: impl FnOnce(&mut ServerOptions),
    ) -> Self {
        let loopback = "127.0.0.1:0".parse().unwrap();
        let mut options = ServerOptions::new(loopback, dir.path().join("data"));
        change(&mut options);
        let server = Server::bind(options).await.unwrap();
        let address = server.address();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(server.run(stop.clone().cancelled_owned()));
        Self {
            address,
            dir,
            stop,
            tasks,
        }
    }

    /// Stops it as SIGTERM does, and gives its directory.
    pub(crate) async fn end(mut self) -> Arc<tempfile::TempDir> {
        self.stop.cancel();
        while let Some(result) = self.tasks.join_next().await {
            result.unwrap();
        }
        self.dir.clone()
    }

    pub(crate) fn client(&self, token: Option<&str>) -> HttpCache {
        client(&format!("http://{}", self.address), token)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: impl Into<reqwest::Body>,
    ) -> (StatusCode, Value) {
        let mut request = plain().request(method, self.url(path)).body(body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        assert_eq!(response.headers()[VERSION_HEADER], "1", "{path}");
        let bytes = response.bytes().await.unwrap();
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }

    /// What was refused.
    pub(crate) fn audit_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("audit.log")).unwrap()
    }

    /// All files that hold frames.
    pub(crate) fn frames(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut dirs = vec![self.dir.path().join("data/frames")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => dirs.push(path),
                    false => files.push(path),
                }
            }
        }
        files
    }
}

/// A client that does what it is told.
pub(crate) fn plain() -> reqwest::Client {
    // Makes the TLS provider, which is one for the process.
    client("http://127.0.0.1:1", None);
    reqwest::Client::builder().no_proxy().build().unwrap()
}

pub(crate) fn client(address: &str, token: Option<&str>) -> HttpCache {
    let options = HttpOptions {
        token: token.map(|token| token.as_bytes().to_vec().into()),
        ..HttpOptions::default()
    };
    HttpCache::open(&address.parse().unwrap(), &options).unwrap()
}

fn source(bytes: &[u8]) -> BlobSource {
    BlobSource::Bytes(Bytes::copy_from_slice(bytes))
}

/// Bytes that don't repeat.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    let mut reader = blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof();
    reader.fill(&mut out);
    out
}

/// An entry in `scope` whose layer is `bytes`.
fn entry(number: u64, scope: &Scope, bytes: &[u8]) -> ActionResult {
    let mut entry = sample_action(number, &[Sha256Digest::of(bytes)]);
    entry.scope = scope.clone();
    entry.layer.as_mut().unwrap().size = bytes.len() as u64;
    entry
}

async fn save(cache: &HttpCache, entry: &ActionResult, bytes: &[u8]) -> Result<(), CacheError> {
    BlobStorePut::put_blob(cache, bytes).await?;
    memobuild_ci::cache::ActionCache::put(cache, entry).await
}

/// `put` without its twin of the other trait.
trait BlobStorePut {
    async fn put_blob(&self, bytes: &[u8]) -> Result<(), CacheError>;
}

impl BlobStorePut for HttpCache {
    async fn put_blob(&self, bytes: &[u8]) -> Result<(), CacheError> {
        memobuild_ci::cache::BlobStore::put(self, Sha256Digest::of(bytes), source(bytes)).await
    }
}

async fn read(cache: &HttpCache, bytes: &[u8]) -> Option<Vec<u8>> {
    let digest = Sha256Digest::of(bytes);
    let blob = cache.get(digest).await.unwrap()?;
    Some(blob.read_all(digest).await.unwrap())
}

#[tokio::test]
async fn conforms() {
    let server = Served::start(|_| {}).await;
    let cache = Arc::new(client(&format!("http://{}/team", server.address), None));
    conformance::blob_store(cache.clone()).await;
    // The server takes entries whose blobs it has.
    cache.put_blob(b"layer").await.unwrap();
    conformance::action_cache(cache.clone()).await;
    let other = server.client(None);
    assert_eq!(
        other.contains(&[Sha256Digest::of(b"layer")]).await.unwrap(),
        [false],
        "namespaces share nothing"
    );
    server.end().await;
}

#[tokio::test]
async fn damage_is_found_before_it_is_sent_and_mended_by_the_next_upload() {
    let server = Served::start(|_| {}).await;
    let cache = server.client(None);
    let bytes = noise(1, 5_000_000);
    let kept = entry(1, &Scope::local(), &bytes);
    save(&cache, &kept, &bytes).await.unwrap();
    let frames = server.frames();
    assert_eq!(frames.len(), 2, "frames of 4 MiB");
    // The second frame: the first one is already on its way when that shows.
    let smaller = frames.iter().min_by_key(|f| f.metadata().unwrap().len());
    let mut spoilt = std::fs::read(smaller.unwrap()).unwrap();
    spoilt[7] ^= 1;
    std::fs::write(smaller.unwrap(), &spoilt).unwrap();
    let digest = Sha256Digest::of(&bytes);
    let blob = cache.get(digest).await.unwrap().unwrap();
    let error = blob.read_all(digest).await.unwrap_err();
    assert!(error.is_transient(), "the connection broke: {error:?}");
    assert!(
        cache.get(digest).await.unwrap().is_none(),
        "then it is gone"
    );
    assert_eq!(
        cache.lookup(&[Scope::local()], &[kept.key]).await.unwrap(),
        [None],
        "with the entry that named it"
    );
    save(&cache, &kept, &bytes).await.unwrap();
    assert_eq!(read(&cache, &bytes).await, Some(bytes.clone()));
    // A frame that vanished, too, and in the first frame it is a plain miss.
    for file in server.frames() {
        std::fs::remove_file(file).unwrap();
    }
    assert!(cache.get(digest).await.unwrap().is_none());
    save(&cache, &kept, &bytes).await.unwrap();
    assert_eq!(read(&cache, &bytes).await, Some(bytes));
}

#[tokio::test]
async fn only_absent_frames_travel() {
    let server = Served::start(|_| {}).await;
    let (first, second) = (server.client(None), server.client(None));
    let mut bytes = noise(2, 4_000_000);
    let ends: Arc<[u64]> = (1..=40).map(|n| n * 100_000).collect();
    let before = Sha256Digest::of(&bytes);
    first
        .put_framed(before, source(&bytes), ends.clone())
        .await
        .unwrap();
    assert_eq!(server.frames().len(), 40);
    bytes[1_234_567] ^= 1;
    let after = Sha256Digest::of(&bytes);
    second
        .put_framed(after, source(&bytes), ends)
        .await
        .unwrap();
    assert_eq!(server.frames().len(), 41, "one frame is new");
    assert_eq!(read(&second, &bytes).await, Some(bytes.clone()));
    let range = second
        .read_range(after, 1_234_000..1_235_000)
        .await
        .unwrap();
    assert_eq!(range.as_deref(), Some(&bytes[1_234_000..1_235_000]));
    let wrong = second.read_range(after, 3_999_999..4_000_001).await;
    assert!(
        matches!(wrong, Err(CacheError::Corrupt { .. })),
        "{wrong:?}"
    );
}

#[tokio::test]
async fn frames_that_make_up_something_else_are_refused() {
    let server = Served::start(|_| {}).await;
    let cache = server.client(None);
    let bytes = noise(3, 600_000);
    let wrong = Sha256Digest::of(b"something else");
    let ends: Arc<[u64]> = [300_000, 600_000].into();
    let error = cache
        .put_framed(wrong, source(&bytes), ends)
        .await
        .unwrap_err();
    assert!(matches!(error, CacheError::Corrupt { .. }), "{error:?}");
    assert!(cache.get(wrong).await.unwrap().is_none());
    // A frame under the name of another one.
    let path = format!("/v1/default/frames/{}", Blake3Digest::of(b"other"));
    let (status, body) = server.call(Method::PUT, &path, None, "bytes").await;
    assert_eq!(status, 422);
    assert_eq!(body["error"]["code"], "digest-mismatch");
    // And a commit of frames that were never sent.
    let frame = json!({"digest": Blake3Digest::of(b"absent"), "size": 6});
    let path = format!("/v1/default/blobs/{}/commit", Sha256Digest::of(b"absent"));
    let body = json!({"frames": [frame]}).to_string();
    let (status, body) = server.call(Method::POST, &path, None, body).await;
    assert_eq!(status, 409);
    assert_eq!(
        body["error"]["missing"],
        json!([Blake3Digest::of(b"absent")])
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// However a blob is cut, it comes back, whole and in parts.
    #[test]
    fn frames_and_ranges(
        sizes in prop::collection::vec(0..200_000_u64, 1..12),
        repeat in any::<bool>(),
        (a, b) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let server = Served::start(|_| {}).await;
            let cache = server.client(None);
            let mut bytes = Vec::new();
            let mut ends = Vec::new();
            for (seed, size) in sizes.iter().enumerate() {
                let seed = if repeat { 0 } else { seed as u64 };
                bytes.extend(noise(seed, *size as usize));
                ends.push(bytes.len() as u64);
            }
            let digest = Sha256Digest::of(&bytes);
            cache.put_framed(digest, source(&bytes), ends.into()).await.unwrap();
            assert_eq!(read(&cache, &bytes).await.as_deref(), Some(&bytes[..]));
            let (a, b) = (a.index(bytes.len() + 1), b.index(bytes.len() + 1));
            let (from, to) = (a.min(b), a.max(b));
            let part = cache.read_range(digest, from as u64..to as u64).await.unwrap();
            assert_eq!(part.as_deref(), Some(&bytes[from..to]));
        });
    }
}

#[tokio::test]
async fn entries_must_fit_to_their_place_and_their_blobs() {
    let server = Served::start(|_| {}).await;
    let cache = server.client(None);
    let good = entry(1, &Scope::branch("dev"), b"layer");
    let path =
        |key: &dyn std::fmt::Display, scope: &str| format!("/v1/default/actions/{key}/{scope}");
    let put = async |path: String, body: Vec<u8>| {
        let (status, body) = server.call(Method::PUT, &path, None, body).await;
        (status.as_u16(), body["error"]["code"].clone())
    };
    let own = path(&good.key, "branch/dev");
    let missing = server.call(Method::PUT, &own, None, good.encode()).await;
    assert_eq!(missing.0, 424);
    assert_eq!(
        missing.1["error"]["missing"],
        json!([Sha256Digest::of(b"layer")])
    );
    cache.put_blob(b"layer").await.unwrap();
    assert_eq!(put(own.clone(), good.encode()).await.0, 204);
    let mut lies = good.clone();
    lies.layer.as_mut().unwrap().size += 1;
    assert_eq!(
        put(own.clone(), lies.encode()).await,
        (409, json!("entry-mismatch"))
    );
    let elsewhere = path(&good.key, "branch/other");
    assert_eq!(put(elsewhere, good.encode()).await.0, 409);
    let other = path(&sample_action(2, &[]).key, "branch/dev");
    assert_eq!(put(other, good.encode()).await.0, 409);
    assert_eq!(put(own.clone(), b"{}".to_vec()).await.0, 400);
    assert_eq!(put(path(&good.key, "main"), good.encode()).await.0, 400);
    assert_eq!(put(path(&"x", "protected"), good.encode()).await.0, 400);
    let huge = vec![b' '; wire::MAX_ENTRY + 1];
    assert_eq!(put(own.clone(), huge).await, (413, json!("too-large")));
    let (status, back) = server.call(Method::GET, &own, None, "").await;
    assert_eq!(status, 200);
    assert_eq!(back["scope"], "branch/dev");
    // A scope with an escape of its own.
    let odd = Scope::branch("Fix #1");
    let odd_entry = entry(1, &odd, b"layer");
    save(&cache, &odd_entry, b"layer").await.unwrap();
    let found = cache.lookup(&[odd], &[odd_entry.key]).await.unwrap();
    assert_eq!(found, [Some(odd_entry)]);
}

/// A server with a token for protected branches, one for pull requests, one that reads and one
/// that administers; the audit log is in `audit.log`.
pub(crate) async fn guarded(change: impl FnOnce(&mut ServerOptions)) -> Served {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let sha = |token: &str| Sha256Digest::of(token.as_bytes()).hex();
    let text = format!(
        "tokens:\n\
         - {{name: main, sha256: {}, permissions: [read, write], namespaces: [default], write: [protected, branch/*]}}\n\
         - {{name: pull, sha256: {}, permissions: [read, write], namespaces: [default], read: [protected, pull/*], write: [pull/*]}}\n\
         - {{name: reader, sha256: {}, permissions: [read]}}\n\
         - {{name: pull-admin, sha256: {}, permissions: [admin], write: [pull/*]}}\n\
         - {{name: admin, sha256: {}, permissions: [read, write, admin], write: ['*']}}\n",
        sha("main-token"),
        sha("pull-token"),
        sha("reader-token"),
        sha("pull-admin-token"),
        sha("admin-token"),
    );
    let path = dir.path().join("tokens.yml");
    std::fs::write(&path, text).unwrap();
    let audit = dir.path().join("audit.log");
    Served::start_in(dir, |options| {
        options.tokens = Some(path);
        options.audit_log = Some(audit);
        change(options);
    })
    .await
}

#[tokio::test]
async fn tokens_do_what_they_may_and_nothing_else() {
    let server = guarded(|_| {}).await;
    let of = |name: &str| server.client(Some(&format!("{name}-token")));
    let (main, pull, reader, admin) = (of("main"), of("pull"), of("reader"), of("admin"));
    let stranger = server.client(Some("stranger-token"));
    let anonymous = server.client(None);
    let bytes = noise(4, 1000);
    let protected = entry(1, &Scope::protected(), &bytes);
    let own = entry(1, &Scope::pull("7"), &bytes);
    save(&main, &protected, &bytes).await.unwrap();
    save(&pull, &own, &bytes).await.unwrap();
    save(&admin, &entry(9, &Scope::local(), &bytes), &bytes)
        .await
        .unwrap();

    let denied = |result: Result<(), CacheError>, what: &str| {
        let error = result.expect_err(what);
        assert!(
            matches!(error, CacheError::Denied { .. }),
            "{what}: {error:?}"
        );
    };
    let forged = entry(2, &Scope::protected(), &bytes);
    denied(
        save(&pull, &forged, &bytes).await,
        "a pull request writes protected",
    );
    let replaced = ActionResult {
        duration_ms: 1,
        ..protected.clone()
    };
    denied(
        save(&pull, &replaced, &bytes).await,
        "or replaces what is there",
    );
    denied(
        save(&main, &own, &bytes).await,
        "main has no business in pull/7",
    );
    denied(save(&reader, &own, &bytes).await, "a reader writes");
    for nobody in [&stranger, &anonymous] {
        denied(save(nobody, &own, &bytes).await, "a stranger writes");
        denied(
            nobody.contains(&[Sha256Digest::of(b"")]).await.map(|_| ()),
            "or reads",
        );
        denied(
            nobody.lookup(&[], &[own.key]).await.map(|_| ()),
            "or looks up",
        );
        denied(
            nobody.get(Sha256Digest::of(&bytes)).await.map(|_| ()),
            "or fetches",
        );
    }
    let elsewhere = client(
        &format!("http://{}/other", server.address),
        Some("main-token"),
    );
    denied(
        elsewhere
            .contains(&[Sha256Digest::of(b"")])
            .await
            .map(|_| ()),
        "another namespace",
    );

    let order = [Scope::protected(), Scope::branch("dev"), Scope::pull("7")];
    let found = pull.lookup(&order, &[own.key, forged.key]).await.unwrap();
    assert_eq!(
        found,
        [Some(protected), None],
        "what was denied left nothing"
    );
    let found = pull.lookup(&order[2..], &[own.key]).await.unwrap();
    assert_eq!(found, [Some(own.clone())]);
    let key = sample_action(9, &[]).key;
    let found = pull.lookup(&[Scope::local()], &[key]).await.unwrap();
    assert_eq!(found, [None], "it may not read there");
    assert!(read(&reader, &bytes).await.is_some());

    // Pins, collection and statistics need `admin`, and reach what the token may write.
    let pin = |scope: &str| json!({"entries": [{"scope": scope, "key": own.key}]}).to_string();
    for (token, method, path, body, expected) in [
        ("main-token", Method::PUT, "pins/x", pin("protected"), 403),
        (
            "pull-admin-token",
            Method::PUT,
            "pins/x",
            pin("protected"),
            403,
        ),
        (
            "pull-admin-token",
            Method::PUT,
            "pins/x",
            pin("pull/7"),
            204,
        ),
        ("admin-token", Method::PUT, "pins/y", pin("protected"), 204),
        (
            "pull-admin-token",
            Method::PUT,
            "pins/y",
            pin("pull/7"),
            403,
        ),
        (
            "pull-admin-token",
            Method::DELETE,
            "pins/y",
            String::new(),
            403,
        ),
        ("admin-token", Method::DELETE, "pins/y", String::new(), 204),
        ("admin-token", Method::DELETE, "pins/y", String::new(), 404),
        ("main-token", Method::GET, "stats", String::new(), 403),
        ("main-token", Method::POST, "gc", "{}".to_owned(), 403),
        ("admin-token", Method::GET, "stats", String::new(), 200),
    ] {
        let full = format!("/v1/default/{path}");
        let (status, answer) = server.call(method.clone(), &full, Some(token), body).await;
        assert_eq!(
            status.as_u16(),
            expected,
            "{token} {method} {path}: {answer}"
        );
    }

    let log = std::fs::read_to_string(server.dir.path().join("audit.log")).unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let forgery = lines.iter().find(|line| {
        line["token"] == "pull" && line["scope"] == "protected" && line["act"] == "write an entry"
    });
    let forgery = forgery.expect("the attempt is on record");
    assert_eq!(forgery["key"], json!(forged.key));
    assert!(lines.iter().any(|line| line["reason"] == "unknown token"));
    assert!(!log.contains("-token\""), "no token is written down: {log}");
}

#[tokio::test]
async fn another_version_is_named_with_what_is_supported() {
    let server = Served::start(|_| {}).await;
    let ask = async |path: &str, version: &str| {
        let request = plain()
            .get(server.url(path))
            .header(VERSION_HEADER, version);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.unwrap())
    };
    for version in ["2", "0", "1x", ""] {
        let (status, body) = ask("/v1", version).await;
        assert_eq!(status, 400, "{version}");
        assert_eq!(body["error"]["code"], "unsupported-version");
        assert_eq!(body["error"]["supported"], json!(["1"]));
    }
    assert_eq!(ask("/v1", "1").await.0, 200);
    assert_eq!(ask("/v1", "1.0").await.0, 200);
    let (status, body) = ask("/v2/default/stats", "1").await;
    assert_eq!(status, 400);
    assert_eq!(body["error"]["supported"], json!(["1"]));
    assert_eq!(ask("/v", "1").await.0, 404);
}

/// Answers every connection with `answer`.
async fn answering(answer: &'static str) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, tasks)
}

#[tokio::test]
async fn other_servers_are_told_from_ours() {
    let page = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let (address, _tasks) = answering(page).await;
    let error = client(&format!("http://{address}"), None)
        .contains(&[Sha256Digest::of(b"")])
        .await
        .unwrap_err();
    let told = format!("{:?}", error);
    assert!(matches!(error, CacheError::Broken { .. }), "{told}");
    assert!(told.contains(VERSION_HEADER), "{told}");
    let newer = "HTTP/1.1 400 Bad Request\r\nX-MemoBuild-API-Version: 2\r\nContent-Length: 82\r\n\r\n{\"error\":{\"code\":\"unsupported-version\",\"message\":\"no\",\"supported\":[\"2\",\"3\"]}}    ";
    let (address, _tasks) = answering(newer).await;
    let error = client(&format!("http://{address}"), None)
        .contains(&[Sha256Digest::of(b"")])
        .await
        .unwrap_err();
    let CacheError::Broken { source, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(
        source.to_string(),
        "the server speaks version 2, 3 of the cache protocol, this program version 1"
    );
}

#[tokio::test]
async fn unsigned_and_forged_entries_are_refused_where_signatures_are_needed() {
    let (signer, _) = Signer::generate().unwrap();
    let (stranger, _) = Signer::generate().unwrap();
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let key = dir.path().join("key.pem");
    std::fs::write(&key, signer.public().pem()).unwrap();
    let server = Served::start_in(dir, |options| {
        options.trusted_keys = vec![key];
        options.require_signature = vec!["protected".parse().unwrap()];
    })
    .await;
    let cache = server.client(None);
    let good = entry(1, &Scope::protected(), b"layer");
    let mut forged = signer.sign(good.clone());
    forged.duration_ms += 1;
    for wrong in [good.clone(), stranger.sign(good.clone()), forged] {
        let error = save(&cache, &wrong, b"layer").await.unwrap_err();
        assert!(matches!(error, CacheError::Denied { .. }), "{error:?}");
    }
    save(&cache, &signer.sign(good), b"layer").await.unwrap();
    let free = entry(1, &Scope::pull("7"), b"layer");
    save(&cache, &free, b"layer").await.unwrap();
}

#[tokio::test]
async fn http_2_and_head_are_served() {
    let server = Served::start(|_| {}).await;
    let bytes = noise(1, 3_000_000);
    server.client(None).put_blob(&bytes).await.unwrap();
    let url = server.url(&format!("/v1/default/blobs/{}", Sha256Digest::of(&bytes)));
    let builder = reqwest::Client::builder().no_proxy();
    let client = builder.http2_prior_knowledge().build().unwrap();
    let answer = client.get(&url).send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    assert_eq!(answer.bytes().await.unwrap(), bytes);
    let answer = client
        .get(&url)
        .header("Range", "bytes=-10")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 206);
    assert_eq!(
        answer.headers()["content-range"],
        "bytes 2999990-2999999/3000000"
    );
    let answer = plain().head(&url).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-length"], "3000000");
    let answer = plain()
        .get(&url)
        .header("Range", "bytes=3000000-")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 416);
    assert_eq!(answer.headers()["content-range"], "bytes */3000000");
}

#[tokio::test]
async fn every_route_is_in_the_document_and_the_other_way_round() {
    let server = Served::start(|_| {}).await;
    let (status, document) = server.call(Method::GET, "/openapi.json", None, "").await;
    assert_eq!(status, 200);
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "put", "post", "delete", "head", "patch"] {
            if item.get(method).is_some() {
                described.insert((path.clone(), method.to_uppercase()));
            }
        }
    }
    let mut routed = BTreeSet::new();
    for (path, methods) in server::routes() {
        for method in methods {
            // OpenAPI has no notation for the rest of a path.
            routed.insert((path.replace("{*scope}", "{scope}"), (*method).to_owned()));
        }
    }
    assert_eq!(described, routed);
    // And the router does have exactly these.
    for (path, methods) in server::routes() {
        let key = Blake3Digest::of(b"").to_string();
        let digest = match path.contains("frames/") {
            true => key.clone(),
            false => Sha256Digest::of(b"x").to_string(),
        };
        let path = path
            .replace("{namespace}", "default")
            .replace("{key}", &key)
            .replace("{hash}", &Blake3Digest::of(b"").hex())
            .replace("{digest}", &digest)
            .replace("{*scope}", "branch/a/b")
            .replace("{id}", "pin");
        for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE] {
            let (status, body) = server.call(method.clone(), &path, None, "").await;
            let is_routed = methods.contains(&method.as_str());
            assert_eq!(status != 405, is_routed, "{method} {path}: {status} {body}");
            let lost = body["error"]["message"].as_str().unwrap_or_default();
            assert!(!lost.contains("no such path"), "{method} {path}");
        }
    }
    // Every schema that is referred to is there.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

#[tokio::test]
async fn quotas_hold_and_the_less_trusted_goes_first() {
    let server = guarded(|options| {
        options.quotas = Quotas::of(1_000_000);
        // A sixtieth of it is over before the next upload.
        options.grace = Duration::from_millis(300);
    })
    .await;
    let of = |name: &str| server.client(Some(&format!("{name}-token")));
    let (main, pull) = (of("main"), of("pull"));
    let (protected, request) = (Scope::protected(), Scope::pull("7"));
    for n in 0..4 {
        let bytes = noise(n, 100_000);
        save(&main, &entry(n, &protected, &bytes), &bytes)
            .await
            .unwrap();
    }
    // A flood: it takes its half and then replaces its own.
    for n in 100..130 {
        tokio::time::sleep(Duration::from_millis(6)).await;
        let bytes = noise(n, 100_000);
        save(&pull, &entry(n, &request, &bytes), &bytes)
            .await
            .unwrap();
    }
    let keys: Vec<_> = (0..4).map(|n| sample_action(n, &[]).key).collect();
    let found = main
        .lookup(std::slice::from_ref(&protected), &keys)
        .await
        .unwrap();
    assert!(found.iter().all(Option::is_some), "nothing protected went");
    let stats = async || {
        let token = Some("admin-token");
        let answer = server.call(Method::GET, "/v1/default/stats", token, "");
        answer.await.1
    };
    let used = stats().await["server"]["used_bytes"].clone();
    assert!(used["pull"].as_u64().unwrap() <= 500_000, "{used}");
    // What is trusted more takes the room of what is trusted less.
    for n in 4..9 {
        let bytes = noise(n, 100_000);
        save(&main, &entry(n, &protected, &bytes), &bytes)
            .await
            .unwrap();
    }
    let keys: Vec<_> = (0..9).map(|n| sample_action(n, &[]).key).collect();
    let found = main
        .lookup(std::slice::from_ref(&protected), &keys)
        .await
        .unwrap();
    assert!(found.iter().all(Option::is_some));
    let used = stats().await["server"]["used_bytes"].clone();
    let total: u64 = used
        .as_object()
        .unwrap()
        .values()
        .map(|v| v.as_u64().unwrap())
        .sum();
    assert!(total <= 1_000_000, "{used}");
    // Now all room is taken by what a pull request can't make go.
    let bytes = noise(200, 200_000);
    let error = pull.put_blob(&bytes).await.unwrap_err();
    assert!(matches!(error, CacheError::Full { .. }), "{error:?}");
    // Orphans, too, are the sender's: they do not push out anything but each other.
    for n in 300..310 {
        let _ = pull.put_blob(&noise(n, 90_000)).await;
    }
    let found = main.lookup(&[protected], &keys).await.unwrap();
    assert!(found.iter().all(Option::is_some));
    for n in 0..9 {
        assert!(read(&main, &noise(n, 100_000)).await.is_some());
    }
}

#[tokio::test]
async fn garbage_goes_by_age_and_pins_stay() {
    let server = Served::start(|options| options.grace = Duration::ZERO).await;
    let cache = server.client(None);
    let scope = Scope::branch("dev");
    for n in 0..6 {
        let bytes = noise(n, 10_000);
        save(&cache, &entry(n, &scope, &bytes), &bytes)
            .await
            .unwrap();
    }
    let pinned = json!({"entries": [{"scope": scope, "key": sample_action(0, &[]).key}]});
    let (status, _) = server
        .call(
            Method::PUT,
            "/v1/default/pins/release",
            None,
            pinned.to_string(),
        )
        .await;
    assert_eq!(status, 204);
    // The last use counts: 1 is looked up once more.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let keys: Vec<_> = (0..6).map(|n| sample_action(n, &[]).key).collect();
    cache
        .lookup(std::slice::from_ref(&scope), &keys[1..2])
        .await
        .unwrap();
    let gc = async |body: Value| {
        let (status, done) = server
            .call(Method::POST, "/v1/default/gc", None, body.to_string())
            .await;
        assert_eq!(status, 200, "{done}");
        done
    };
    let done = gc(json!({"max_bytes": 30_000})).await;
    assert_eq!(done["entries"], 4, "{done}");
    let found = cache
        .lookup(std::slice::from_ref(&scope), &keys)
        .await
        .unwrap();
    let left: Vec<bool> = found.iter().map(Option::is_some).collect();
    assert_eq!(left, [true, true, false, false, false, false]);
    assert_eq!(server.frames().len(), 2, "the files went too");
    assert_eq!(
        read(&cache, &noise(1, 10_000)).await,
        Some(noise(1, 10_000))
    );
    let (status, _) = server
        .call(Method::DELETE, "/v1/default/pins/release", None, "")
        .await;
    assert_eq!(status, 204);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let done = gc(json!({"max_age_seconds": 0})).await;
    assert_eq!(done["entries"], 2, "{done}");
    assert_eq!(done["kept_bytes"], 0, "{done}");
    assert!(server.frames().is_empty());
}

#[tokio::test]
async fn uploads_are_not_collected_under_their_sender() {
    let server = Served::start(|_| {}).await;
    let cache = server.client(None);
    let bytes = noise(1, 10_000);
    let frame = Blake3Digest::of(&bytes);
    let path = format!("/v1/default/frames/{frame}");
    server.call(Method::PUT, &path, None, bytes.clone()).await;
    cache.put_blob(&noise(2, 10_000)).await.unwrap();
    let all = json!({"max_bytes": 0, "max_age_seconds": 0}).to_string();
    let (_, done) = server.call(Method::POST, "/v1/default/gc", None, all).await;
    assert_eq!(done["frames"], 0, "{done}");
    assert_eq!(server.frames().len(), 2);
}

#[tokio::test]
async fn a_stopped_server_finishes_and_another_one_goes_on() {
    let server = Served::start(|_| {}).await;
    let cache = server.client(None);
    let bytes = noise(1, 3_000_000);
    let kept = entry(1, &Scope::local(), &bytes);
    save(&cache, &kept, &bytes).await.unwrap();
    let digest = Sha256Digest::of(&bytes);
    let mut running = cache.get(digest).await.unwrap().unwrap();
    let mut first = vec![0; 1000];
    running.reader.read_exact(&mut first).await.unwrap();
    let mut ending = JoinSet::new();
    ending.spawn(server.end());
    let mut rest = Vec::new();
    running.reader.read_to_end(&mut rest).await.unwrap();
    assert_eq!([first, rest].concat(), bytes, "a download is not cut off");
    let dir = ending.join_next().await.unwrap().unwrap();
    let server = Served::start_in(dir, |_| {}).await;
    let cache = server.client(None);
    assert_eq!(
        cache.lookup(&[Scope::local()], &[kept.key]).await.unwrap(),
        [Some(kept)]
    );
    assert_eq!(read(&cache, &bytes).await, Some(bytes));
}

#[tokio::test]
async fn one_store_has_one_server() {
    let server = Served::start(|_| {}).await;
    let again = ServerOptions::new(
        "127.0.0.1:0".parse().unwrap(),
        server.dir.path().join("data"),
    );
    let error = Server::bind(again).await.unwrap_err();
    assert!(
        error.to_string().contains("another process serves"),
        "{error}"
    );
    let dir = tempfile::tempdir().unwrap();
    let open = ServerOptions::new("0.0.0.0:0".parse().unwrap(), dir.path().to_owned());
    let error = Server::bind(open).await.unwrap_err();
    assert!(error.to_string().contains("without tokens"), "{error}");
    assert!(error.hint().unwrap().contains("--tokens"));
}

#[tokio::test]
async fn slow_clients_are_dropped_and_crowds_are_asked_to_come_back() {
    let server = Served::start(|options| {
        options.pace.window = Duration::from_millis(300);
        options.requests = 1;
    })
    .await;
    // Says nothing at all.
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    // Sends a header a byte at a time, for ever.
    let mut trickle = TcpStream::connect(server.address).await.unwrap();
    trickle
        .write_all(b"GET /v1 HTTP/1.1\r\nHost: x\r\nX: ")
        .await
        .unwrap();
    // Announces a body and stalls.
    let mut stalled = TcpStream::connect(server.address).await.unwrap();
    let path = format!("/v1/default/blobs/{}", Sha256Digest::of(b"x"));
    let head = format!("PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc");
    stalled.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // While that one request runs there is no room for another.
    loop {
        let answer = plain().get(server.url("/v1")).send().await.unwrap();
        if answer.status() == 429 {
            assert_eq!(answer.headers()["retry-after"], "1");
            break;
        }
    }
    assert_eq!(server.call(Method::GET, "/healthz", None, "").await.0, 200);
    stalled.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let mut nothing = Vec::new();
    // Closed, one way or the other.
    let _ = silent.read_to_end(&mut nothing).await;
    let _ = trickle.read_to_end(&mut nothing).await;
    assert_eq!(server.call(Method::GET, "/v1", None, "").await.0, 200);
}

/// Passes bytes on to a server, and breaks connections as it is told.
struct Breaker {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Breaker {
    /// Breaks each connection after so many bytes of the server's.
    async fn start(to: SocketAddr, after: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut pipes = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                pipes.spawn(async move {
                    let mut server = TcpStream::connect(to).await.unwrap();
                    let (mut from, mut into) = server.split();
                    let (mut ask, mut answer) = client.split();
                    let mut limited = (&mut from).take(after as u64);
                    tokio::select! {
                        _ = tokio::io::copy(&mut limited, &mut answer) => {}
                        _ = tokio::io::copy(&mut ask, &mut into) => {}
                    }
                });
            }
        });
        Self {
            address,
            _tasks: tasks,
        }
    }
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke() {
    let server = Served::start(|_| {}).await;
    let bytes = noise(1, 1_500_000);
    server.client(None).put_blob(&bytes).await.unwrap();
    let breaker = Breaker::start(server.address, 400_000).await;
    let cache = client(&format!("http://{}", breaker.address), None);
    assert_eq!(read(&cache, &bytes).await, Some(bytes), "in five pieces");
    let breaker = Breaker::start(server.address, 0).await;
    let cache = client(&format!("http://{}", breaker.address), None);
    let error = cache.contains(&[]).await;
    assert!(error.is_ok(), "no question, no request");
    let error = cache.contains(&[Sha256Digest::of(b"")]).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}

/// The program itself, killed in the middle of uploads: what was acknowledged is there.
#[tokio::test]
async fn kill_9_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..4_u64 {
        let (mut process, address) = serve(dir.path());
        let cache = client(&address, None);
        for (n, bytes) in &acknowledged {
            let bytes: &Vec<u8> = bytes;
            assert_eq!(read(&cache, bytes).await.as_ref(), Some(bytes), "{n}");
        }
        let mut uploads = JoinSet::new();
        for n in 0..40 {
            let cache = cache.clone();
            uploads.spawn(async move {
                let number = round * 100 + n;
                let bytes = noise(number, 300_000 + usize::try_from(n).unwrap() * 10_000);
                let kept = entry(number, &Scope::local(), &bytes);
                let ends: Arc<[u64]> = [100_000, 250_000, bytes.len() as u64].into();
                cache
                    .put_framed(Sha256Digest::of(&bytes), source(&bytes), ends)
                    .await?;
                memobuild_ci::cache::ActionCache::put(&cache, &kept).await?;
                Ok::<_, CacheError>((number, bytes))
            });
        }
        let mut done = 0;
        while let Some(result) = uploads.join_next().await {
            if let Ok(kept) = result.unwrap() {
                acknowledged.push(kept);
                done += 1;
            }
            if done == 5 + round {
                process.kill().unwrap();
            }
        }
        process.wait().unwrap();
    }
    assert!(acknowledged.len() >= 20, "{}", acknowledged.len());
    let (mut process, address) = serve(dir.path());
    let cache = client(&address, None);
    for (number, bytes) in &acknowledged {
        let key = sample_action(*number, &[]).key;
        let found = cache.lookup(&[Scope::local()], &[key]).await.unwrap();
        assert!(found[0].is_some(), "{number}");
        assert_eq!(read(&cache, bytes).await.as_ref(), Some(bytes));
    }
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&process),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert!(process.wait().unwrap().success(), "SIGTERM is no failure");
}

/// Starts the program's server over `dir`; gives its address.
fn serve(dir: &Path) -> (std::process::Child, String) {
    use std::io::BufRead as _;
    let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_memobuild-ci"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(dir)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(process.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    (process, line.trim().to_owned())
}
