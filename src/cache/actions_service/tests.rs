//! The store against a service in this process, in both versions of the protocol.

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, Method, Response},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    cache::conformance::{self, sample_action},
    redact::SecretBytes,
};

/// An object of the service.
#[derive(Debug, Clone, Default)]
struct Object {
    id: usize,
    key: String,
    version: String,
    done: bool,
}

/// The cache service as far as clients see it.
#[derive(Debug, Default)]
struct Service {
    objects: Vec<Object>,
    bytes: HashMap<String, Vec<u8>>,
    requests: Vec<String>,
    /// What to answer to requests that contain a text.
    refusals: Vec<(&'static str, u16, &'static str)>,
    /// Send whole objects whatever range is asked for.
    no_ranges: bool,
    port: u16,
}

type Shared = Arc<Mutex<Service>>;

impl Service {
    fn find(&self, key: &str, version: &str) -> Option<&Object> {
        let mut newest = self.objects.iter().rev().filter(|o| o.done);
        newest.find(|o| o.version == version && o.key.starts_with(key))
    }

    /// A new object's number, or none if the key is taken.
    fn reserve(&mut self, key: &str, version: &str) -> Option<usize> {
        let taken = |o: &Object| o.key == key && o.version == version;
        if self.objects.iter().any(taken) {
            return None;
        }
        let id = self.objects.len() + 1;
        self.objects.push(Object {
            id,
            key: key.to_owned(),
            version: version.to_owned(),
            done: false,
        });
        Some(id)
    }

    fn url(&self, id: usize) -> String {
        format!("http://127.0.0.1:{}/blob/{id}?sv=1&sig=a%2Bb", self.port)
    }

    fn twirp(&mut self, method: &str, body: &Value) -> (u16, Value) {
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let (key, version) = (text("key"), text("version"));
        match method {
            "CreateCacheEntry" => match self.reserve(&key, &version) {
                Some(id) => (
                    200,
                    json!({ "ok": true, "signed_upload_url": self.url(id) }),
                ),
                None => (409, json!({ "code": "already_exists", "msg": "it exists" })),
            },
            "FinalizeCacheEntryUpload" => {
                let object = self.objects.iter_mut().find(|o| o.key == key).unwrap();
                let size = self.bytes[&object.id.to_string()].len().to_string();
                assert_eq!(text("size_bytes"), size);
                object.done = true;
                (200, json!({ "ok": true, "entry_id": "1" }))
            }
            _ => {
                assert_eq!(body["restore_keys"], json!([key]));
                match self.find(&key, &version) {
                    Some(object) => {
                        let url = self.url(object.id);
                        let key = &object.key;
                        // The other spelling of the names is a valid one too.
                        (
                            200,
                            json!({ "ok": true, "signedDownloadUrl": url, "matchedKey": key }),
                        )
                    }
                    None => (200, json!({ "ok": false })),
                }
            }
        }
    }

    fn first_version(
        &mut self,
        method: &Method,
        path: &str,
        query: &HashMap<String, String>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> (u16, Value) {
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |name: &str| json[name].as_str().unwrap_or_default();
        match (method.as_str(), path) {
            ("GET", "cache") => match self.find(&query["keys"], &query["version"]) {
                Some(o) => (
                    200,
                    json!({ "archiveLocation": self.url(o.id), "cacheKey": o.key }),
                ),
                None => (204, Value::Null),
            },
            ("POST", "caches") => match self.reserve(text("key"), text("version")) {
                Some(id) => (201, json!({ "cacheId": id })),
                None => (400, json!({ "error": "already exists" })),
            },
            (method, path) => {
                let id = path.strip_prefix("caches/").unwrap();
                if method == "PATCH" {
                    let range = headers["content-range"].to_str().unwrap();
                    let bytes = self.bytes.entry(id.to_owned()).or_default();
                    assert!(
                        range.starts_with(&format!("bytes {}-", bytes.len())),
                        "{range}"
                    );
                    bytes.extend_from_slice(body);
                } else {
                    assert_eq!(json["size"], json!(self.bytes[id].len()));
                    let mut objects = self.objects.iter_mut();
                    objects.find(|o| o.id.to_string() == id).unwrap().done = true;
                }
                (204, Value::Null)
            }
        }
    }

    fn blob(
        &mut self,
        method: &Method,
        id: &str,
        query: &HashMap<String, String>,
        headers: &HeaderMap,
        body: Vec<u8>,
    ) -> (u16, Vec<u8>) {
        assert_eq!(query["sig"], "a+b", "the signature is as it was given");
        assert!(headers.get("authorization").is_none(), "no token is sent");
        if *method == Method::PUT {
            match query.get("comp").map(String::as_str) {
                Some("block") => {
                    self.bytes
                        .insert(format!("{id}/{}", query["blockid"]), body);
                }
                Some(_) => {
                    let list = String::from_utf8(body).unwrap();
                    let ids = list.split("<Latest>").skip(1);
                    let ids = ids.map(|rest| rest.split('<').next().unwrap());
                    let blocks = ids.flat_map(|block| self.bytes[&format!("{id}/{block}")].clone());
                    let whole = blocks.collect();
                    self.bytes.insert(id.to_owned(), whole);
                }
                None => {
                    assert_eq!(headers["x-ms-blob-type"], "BlockBlob");
                    self.bytes.insert(id.to_owned(), body);
                }
            }
            return (201, Vec::new());
        }
        let Some(bytes) = self.bytes.get(id) else {
            return (404, Vec::new());
        };
        let range = headers.get("range").map(|range| range.to_str().unwrap());
        match range.filter(|_| !self.no_ranges) {
            None => (200, bytes.clone()),
            Some(range) => {
                let (start, end) = range
                    .strip_prefix("bytes=")
                    .unwrap()
                    .split_once('-')
                    .unwrap();
                let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
                (206, bytes[start..=end.min(bytes.len() - 1)].to_vec())
            }
        }
    }
}

async fn answer(service: &Shared, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let url = Url::parse(&format!("http://x{}", parts.uri)).unwrap();
    let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
    let path = parts.uri.path();
    let mut service = lock(service);
    service.requests.push(format!("{} {path}", parts.method));
    let respond = |status: u16, body: Vec<u8>| {
        let response = Response::builder().status(status);
        response.body(Body::from(body)).unwrap()
    };
    let told = service
        .refusals
        .iter()
        .find(|(part, _, _)| path.contains(part));
    if let Some((_, status, message)) = told {
        let body = json!({ "code": "told", "msg": message, "ok": false, "message": message });
        return respond(*status, body.to_string().into_bytes());
    }
    if let Some(id) = path.strip_prefix("/blob/") {
        let (status, bytes) = service.blob(&parts.method, id, &query, &parts.headers, body.into());
        return respond(status, bytes);
    }
    assert_eq!(parts.headers["authorization"], "Bearer hunter2");
    let (status, json) = match path.rsplit_once("CacheService/") {
        Some((_, method)) => service.twirp(method, &serde_json::from_slice(&body).unwrap()),
        None => {
            let path = path.strip_prefix("/x/_apis/artifactcache/").unwrap();
            service.first_version(&parts.method, path, &query, &parts.headers, &body)
        }
    };
    match json {
        Value::Null => respond(status, Vec::new()),
        json => respond(status, json.to_string().into_bytes()),
    }
}

async fn service() -> Shared {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = Shared::default();
    lock(&service).port = listener.local_addr().unwrap().port();
    let answering = service.clone();
    let router = Router::new().fallback(move |request: Request| {
        let service = answering.clone();
        async move { answer(&service, request).await }
    });
    tokio::task::spawn(async move { axum::serve(listener, router).await });
    service
}

/// What a job of its own has.
fn store(service: &Shared, protocol: Protocol) -> Arc<ActionsStore> {
    let base = format!("http://127.0.0.1:{}/x/", lock(service).port);
    let token = SecretBytes::from(b"hunter2".to_vec());
    let client = Client::new(base.parse().unwrap(), token, protocol, &Default::default()).unwrap();
    Arc::new(ActionsStore::with(client))
}

fn bytes(bytes: &[u8]) -> BlobSource {
    BlobSource::Bytes(Bytes::copy_from_slice(bytes))
}

/// A step's entry `number` and its blob, in `scope`.
async fn put(store: &ActionsStore, scope: &Scope, number: u64, blob: &[u8]) -> ActionResult {
    let digest = Sha256Digest::of(blob);
    BlobStore::put(store, digest, bytes(blob)).await.unwrap();
    let entry = ActionResult {
        scope: scope.clone(),
        ..sample_action(number, &[digest])
    };
    ActionCache::put(store, &entry).await.unwrap();
    entry
}

async fn look(store: &ActionsStore, entry: &ActionResult) -> Option<ActionResult> {
    let scopes = [entry.scope.clone()];
    let found = store.lookup(&scopes, &[entry.key]).await.unwrap();
    found.into_iter().next().unwrap()
}

async fn read(store: &ActionsStore, blob: &[u8]) -> Option<Vec<u8>> {
    let digest = Sha256Digest::of(blob);
    let blob = store.get(digest).await.unwrap()?;
    Some(blob.read_all(digest).await.unwrap())
}

#[tokio::test]
async fn conforms() {
    for protocol in [Protocol::V1, Protocol::V2] {
        let store = store(&service().await, protocol);
        conformance::blob_store(store.clone()).await;
        conformance::action_cache(store.clone()).await;
        store.flush().await.unwrap();
        conformance::blob_store(store).await;
    }
}

#[tokio::test]
async fn another_job_finds_what_one_has_saved() {
    let large: Vec<u8> = (0..=238_u8).cycle().take(PART_AND_MORE).collect();
    for protocol in [Protocol::V1, Protocol::V2] {
        for no_ranges in [false, true] {
            let service = service().await;
            lock(&service).no_ranges = no_ranges;
            let scope = Scope::branch("Fix #1");
            let first = store(&service, protocol);
            let one = put(&first, &scope, 1, b"one").await;
            let two = put(&first, &scope, 2, b"two").await;
            let three = put(&first, &scope, 3, &large).await;
            let nothing = put(&first, &scope, 4, b"").await;
            let early = store(&service, protocol);
            assert_eq!(look(&early, &one).await, None, "nothing is half there");
            first.flush().await.unwrap();

            let second = store(&service, protocol);
            for entry in [&one, &two, &three, &nothing] {
                assert_eq!(look(&second, entry).await.as_ref(), Some(entry));
            }
            for blob in [&b"one"[..], b"two", b"", &large] {
                assert_eq!(read(&second, blob).await.as_deref(), Some(blob));
            }
            let digest = Sha256Digest::of(&large);
            let part = second.read_range(digest, 33_000_000..33_000_009).await;
            assert_eq!(part.unwrap().unwrap(), large[33_000_000..33_000_009]);
            let beyond = second.read_range(digest, 0..PART_AND_MORE as u64 + 1).await;
            assert!(matches!(beyond, Err(CacheError::Corrupt { .. })));
            // A large blob, the small ones together, the index.
            assert_eq!(lock(&service).objects.len(), 3);
            second.flush().await.unwrap();
            assert_eq!(lock(&service).objects.len(), 3, "there was nothing to save");
        }
    }
}

/// More than is sent with one request.
const PART_AND_MORE: usize = client::PART + 1_000_000;

#[tokio::test]
async fn a_job_looks_each_scope_up_once() {
    let service = service().await;
    let (main, pull) = (Scope::protected(), Scope::pull("7"));
    let seeding = store(&service, Protocol::V2);
    let entry = put(&seeding, &main, 1, b"one").await;
    seeding.flush().await.unwrap();
    lock(&service).requests.clear();
    let job = store(&service, Protocol::V2);
    for _ in 0..3 {
        let found = job
            .lookup(&[main.clone(), pull.clone()], &[entry.key])
            .await;
        assert_eq!(found.unwrap(), [Some(entry.clone())]);
    }
    let asked = lock(&service).requests.clone();
    let asked = asked.iter().filter(|r| r.contains("GetCacheEntry")).count();
    assert_eq!(asked, 2);

    // What it finds in a scope that others wrote, it doesn't save again, but its index says where it is.
    let own = put(&job, &pull, 2, b"one").await;
    job.flush().await.unwrap();
    assert_eq!(lock(&service).objects.len(), 3, "a pack and two indexes");
    let next = store(&service, Protocol::V2);
    assert_eq!(look(&next, &own).await, Some(own));
    assert_eq!(read(&next, b"one").await.as_deref(), Some(&b"one"[..]));
}

#[tokio::test]
async fn jobs_that_save_at_once_lose_nothing() {
    let service = service().await;
    let scope = Scope::protected();
    let jobs: Vec<_> = (0..6).map(|_| store(&service, Protocol::V2)).collect();
    let mut entries = Vec::new();
    for (number, job) in jobs.iter().enumerate() {
        // Each has seen the empty cache first.
        let entry = sample_action(number as u64, &[]);
        assert_eq!(look(job, &entry).await, None);
        let blob = format!("blob {number}");
        entries.push(put(job, &scope, number as u64, blob.as_bytes()).await);
    }
    let flushes = jobs.iter().map(|job| job.flush());
    let flushed = futures_util::future::join_all(flushes).await;
    assert!(flushed.iter().all(Result::is_ok), "{flushed:?}");
    let after = store(&service, Protocol::V2);
    for (number, entry) in entries.iter().enumerate() {
        assert_eq!(look(&after, entry).await.as_ref(), Some(entry));
        let blob = format!("blob {number}");
        assert_eq!(read(&after, blob.as_bytes()).await, Some(blob.into_bytes()));
    }
}

#[tokio::test]
async fn what_lay_in_an_evicted_pack_is_a_miss_and_saved_again() {
    let service = service().await;
    let scope = Scope::protected();
    let first = store(&service, Protocol::V2);
    let entry = put(&first, &scope, 1, b"one").await;
    first.flush().await.unwrap();
    lock(&service).objects.retain(|o| o.key.contains("index"));

    let second = store(&service, Protocol::V2);
    let digest = Sha256Digest::of(b"one");
    assert_eq!(look(&second, &entry).await, Some(entry.clone()));
    assert_eq!(second.contains(&[digest]).await.unwrap(), [true]);
    assert!(second.get(digest).await.unwrap().is_none());
    assert_eq!(second.contains(&[digest]).await.unwrap(), [false]);
    let again = put(&second, &scope, 1, b"one").await;
    second.flush().await.unwrap();
    let third = store(&service, Protocol::V2);
    assert_eq!(look(&third, &again).await, Some(again));
    assert_eq!(read(&third, b"one").await.as_deref(), Some(&b"one"[..]));
}

#[tokio::test]
async fn a_key_that_a_killed_writer_holds_is_passed_by() {
    for protocol in [Protocol::V1, Protocol::V2] {
        let service = service().await;
        let name = pack_key(&Sha256Digest::of(b"one").hex());
        lock(&service).reserve(&name, &client::version());
        let scope = Scope::protected();
        let first = store(&service, protocol);
        BlobStore::put(&*first, Sha256Digest::of(b"one"), bytes(b"one"))
            .await
            .unwrap();
        if protocol == Protocol::V1 {
            // This server says 400 to that, which could mean anything.
            assert!(first.flush().await.is_err());
            continue;
        }
        let entry = put(&first, &scope, 1, b"one").await;
        first.flush().await.unwrap();
        let second = store(&service, protocol);
        assert_eq!(look(&second, &entry).await, Some(entry));
        assert_eq!(read(&second, b"one").await.as_deref(), Some(&b"one"[..]));
    }
}

#[tokio::test]
async fn an_index_that_a_killed_writer_never_made_is_passed_by() {
    let service = service().await;
    let scope = Scope::protected();
    let key = index::key(&scope, 1);
    lock(&service).reserve(&key, &client::version());
    let first = store(&service, Protocol::V2);
    let entry = put(&first, &scope, 1, b"one").await;
    first.flush().await.unwrap();
    let second = store(&service, Protocol::V2);
    assert_eq!(look(&second, &entry).await, Some(entry));
}

#[tokio::test]
async fn wrong_bytes_and_unreadable_indexes_do_no_harm() {
    let service = service().await;
    let scope = Scope::protected();
    let first = store(&service, Protocol::V2);
    let entry = put(&first, &scope, 1, b"one").await;
    first.flush().await.unwrap();
    let spoil = |part: &str, bytes: &[u8]| {
        let mut service = lock(&service);
        let object = service.objects.iter().find(|o| o.key.contains(part));
        let id = object.unwrap().id.to_string();
        service.bytes.insert(id, bytes.to_vec());
    };
    spoil("pack", b"two");
    let second = store(&service, Protocol::V2);
    look(&second, &entry).await;
    let digest = Sha256Digest::of(b"one");
    let blob = second.get(digest).await.unwrap().unwrap();
    let error = blob.read_all(digest).await;
    assert!(
        matches!(error, Err(CacheError::Corrupt { .. })),
        "{error:?}"
    );
    assert_eq!(second.contains(&[digest]).await.unwrap(), [false]);
    spoil("index", b"no index");
    assert_eq!(look(&store(&service, Protocol::V2), &entry).await, None);
}

#[tokio::test]
async fn answers_are_sorted() {
    for protocol in [Protocol::V1, Protocol::V2] {
        let service = service().await;
        let entry = sample_action(1, &[]);
        let look = async |status, message| {
            lock(&service).refusals = vec![("ache", status, message)];
            let store = store(&service, protocol);
            let scopes = [Scope::local()];
            store.lookup(&scopes, &[entry.key]).await.unwrap_err()
        };
        assert!(look(500, "oops").await.is_transient());
        assert!(look(503, "").await.is_transient());
        for (status, message) in [
            (401, "who are you"),
            (403, "no"),
            (400, "cache read denied: by the job's mode"),
        ] {
            let error = look(status, message).await;
            assert!(matches!(error, CacheError::Denied { .. }), "{error:?}");
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains(message), "{cause}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
        let error = look(400, "nonsense").await;
        assert!(matches!(error, CacheError::Broken { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_denied_write_leaves_the_cache_readable() {
    let service = service().await;
    let scope = Scope::protected();
    let first = store(&service, Protocol::V2);
    let entry = put(&first, &scope, 1, b"one").await;
    first.flush().await.unwrap();
    lock(&service).refusals = vec![("CreateCacheEntry", 200, "cache write denied: fork")];
    let second = store(&service, Protocol::V2);
    put(&second, &scope, 2, b"two").await;
    let error = second.flush().await;
    assert!(matches!(error, Err(CacheError::Denied { .. })), "{error:?}");
    assert_eq!(look(&second, &entry).await, Some(entry));
}

#[tokio::test]
async fn too_many_requests_are_the_last_ones() {
    let service = service().await;
    lock(&service).refusals = vec![("GetCacheEntry", 429, "slow down")];
    let store = store(&service, Protocol::V2);
    let key = sample_action(1, &[]).key;
    for _ in 0..3 {
        let error = store.lookup(&[Scope::local()], &[key]).await;
        assert!(matches!(error, Err(CacheError::Denied { .. })), "{error:?}");
    }
    assert_eq!(lock(&service).requests.len(), 1);
}

#[test]
fn the_mode_of_the_job_limits_the_access() {
    let access = |read, write| Access { read, write };
    for (mode, full) in [
        (None, access(true, true)),
        (Some("write"), access(true, true)),
        (Some("read"), access(true, false)),
        (Some("write-only"), access(false, true)),
        (Some("none"), access(false, false)),
    ] {
        assert_eq!(allowed(mode, Access::FULL), full, "{mode:?}");
    }
    assert_eq!(allowed(Some("write"), Access::READ), Access::READ);
}
