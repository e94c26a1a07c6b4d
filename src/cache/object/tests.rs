//! The store over a directory, and over a service that fails as told.

use std::{collections::HashMap, os::unix::fs::PermissionsExt as _, path::PathBuf};

use axum::{
    Router,
    body::Body,
    http::{Method, Request, Response, StatusCode},
};

use super::*;
use crate::cache::conformance::{self, sample_action};

fn directory(root: &Path) -> Arc<ObjectStore> {
    let address = format!("file://{}", root.display()).parse().unwrap();
    Arc::new(ObjectStore::open(&address, &Services::new()).unwrap())
}

fn source(bytes: &[u8]) -> BlobSource {
    BlobSource::Bytes(Bytes::copy_from_slice(bytes))
}

/// All files below `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::list_dir(dir).unwrap_or_default() {
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

#[tokio::test]
async fn a_directory_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let store = directory(&dir.path().join("not/made yet"));
    conformance::blob_store(store.clone()).await;
    conformance::action_cache(store.clone()).await;
    let root = dir.path().join("not/made yet");
    conformance::corruption(store, |digest| {
        fs::write_atomic(root.join(layout::blob(digest)), b"not the blob's bytes").unwrap();
    })
    .await;
    assert_eq!(
        files(&root.join(layout::TEMPORARY)),
        Vec::<PathBuf>::new(),
        "no writer left anything"
    );
}

#[tokio::test]
async fn a_blob_found_corrupt_is_wanted_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = directory(dir.path());
    let digest = Sha256Digest::of(b"bytes");
    let has = async || store.contains(&[digest]).await.unwrap() == [true];
    BlobStore::put(&*store, digest, source(b"bytes"))
        .await
        .unwrap();
    assert!(has().await);
    fs::write_atomic(dir.path().join(layout::blob(&digest)), b"other").unwrap();
    let blob = store.get(digest).await.unwrap().unwrap();
    assert!(blob.read_all(digest).await.is_err());
    assert!(!has().await, "a saver that asks first mends it");
    BlobStore::put(&*store, digest, source(b"bytes"))
        .await
        .unwrap();
    assert!(has().await);
}

#[tokio::test]
async fn ranges_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = directory(dir.path());
    let digest = Sha256Digest::of(b"0123456789");
    assert_eq!(store.read_range(digest, 0..1).await.unwrap(), None);
    BlobStore::put(&*store, digest, source(b"0123456789"))
        .await
        .unwrap();
    let read = async |range| store.read_range(digest, range).await;
    assert_eq!(read(2..5).await.unwrap().unwrap(), "234");
    assert_eq!(read(0..10).await.unwrap().unwrap(), "0123456789");
    for range in [5..11, 10..12, 20..21] {
        let error = read(range.clone()).await;
        assert!(
            matches!(error, Err(CacheError::Corrupt { .. })),
            "{range:?} {error:?}"
        );
    }
}

#[tokio::test]
async fn an_unreadable_entry_is_a_miss_of_its_scope() {
    let dir = tempfile::tempdir().unwrap();
    let store = directory(dir.path());
    let (protected, own) = (Scope::protected(), Scope::branch("Fix #1"));
    let entry = |scope: &Scope, number| ActionResult {
        scope: scope.clone(),
        ..sample_action(number, &[])
    };
    let (first, second) = (entry(&own, 1), entry(&own, 2));
    for entry in [&entry(&protected, 1), &first, &second] {
        ActionCache::put(&*store, entry).await.unwrap();
    }
    let path = dir.path().join(layout::action(&protected, &first.key));
    let other = entry(&protected, 3).encode();
    let large = vec![b' '; MAX_ENTRY + 1];
    for spoilt in [&b"{\"version\":1"[..], b"", &other, &first.encode(), &large] {
        fs::write_atomic(&path, spoilt).unwrap();
        let keys = [first.key, second.key];
        let found = store
            .lookup(&[protected.clone(), own.clone()], &keys)
            .await
            .unwrap();
        assert_eq!(found, [Some(first.clone()), Some(second.clone())]);
    }
}

#[tokio::test]
async fn what_killed_writers_left_is_removed_after_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let temporary = dir.path().join(layout::TEMPORARY);
    fs::create_dir_all(&temporary).unwrap();
    let (old, new) = (temporary.join("old.x"), temporary.join("new.x"));
    for path in [&old, &new] {
        fs::write_to(path, b"half").unwrap_or_else(|_| fs::write_atomic(path, b"half").unwrap());
    }
    let two_days = std::time::Duration::from_secs(2 * 24 * 60 * 60);
    let file = fs::open(&old).unwrap();
    file.set_modified(SystemTime::now() - two_days).unwrap();
    let digest = Sha256Digest::of(b"x");
    BlobStore::put(&*directory(dir.path()), digest, source(b"x"))
        .await
        .unwrap();
    assert_eq!(files(&temporary), [new]);
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_trouble_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write_atomic(&file, b"").unwrap();
    let store = directory(&file.join("below"));
    let digest = Sha256Digest::of(b"x");
    let error = store.contains(&[digest]).await.unwrap_err();
    assert!(matches!(error, CacheError::Broken { .. }), "{error:?}");
    let error = BlobStore::put(&*store, digest, source(b"x"))
        .await
        .unwrap_err();
    assert!(matches!(error, CacheError::Broken { .. }), "{error:?}");
}

#[tokio::test]
async fn a_directory_without_write_permission_can_be_read() {
    if rustix::process::geteuid().is_root() {
        println!("skipped: root may write everywhere");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let digest = Sha256Digest::of(b"x");
    BlobStore::put(&*directory(dir.path()), digest, source(b"x"))
        .await
        .unwrap();
    let blobs = dir.path().join(layout::blob(&digest));
    let blobs = blobs.parent().unwrap();
    let set = |mode| {
        let file = fs::open(blobs).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(mode))
            .unwrap();
    };
    set(0o555);
    let store = directory(dir.path());
    assert!(store.get(digest).await.unwrap().is_some());
    let error = BlobStore::put(&*store, digest, source(b"x")).await;
    set(0o755);
    assert!(matches!(error, Err(CacheError::Denied { .. })), "{error:?}");
}

/// A service with the S3 API's way to put, get and look for whole objects.
#[derive(Default)]
struct Service {
    objects: Mutex<HashMap<String, Bytes>>,
    /// What to answer to requests for paths that contain a text.
    failures: Mutex<Vec<(String, StatusCode, &'static str)>>,
    requests: Mutex<Vec<String>>,
}

impl Service {
    fn fail(&self, paths: &str, status: u16, code: &'static str) {
        let status = StatusCode::from_u16(status).unwrap();
        *lock(&self.failures) = vec![(paths.to_owned(), status, code)];
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        lock(&self.requests).push(format!("{} {path}", parts.method));
        let answer = |status: StatusCode, body: Bytes| {
            let answer = Response::builder().status(status);
            answer.body(Body::from(body)).unwrap()
        };
        let failure = lock(&self.failures)
            .iter()
            .find(|(part, _, _)| path.contains(part))
            .cloned();
        if let Some((_, status, code)) = failure {
            let text = format!("<Error><Code>{code}</Code><Message>as told</Message></Error>");
            return answer(status, text.into());
        }
        if parts.method == Method::PUT {
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            lock(&self.objects).insert(path, body);
            return answer(StatusCode::OK, Bytes::new());
        }
        match lock(&self.objects).get(&path) {
            None => answer(StatusCode::NOT_FOUND, Bytes::new()),
            Some(bytes) => answer(StatusCode::OK, bytes.clone()),
        }
    }
}

/// A service, and a store in it with credentials from variables.
async fn service() -> (Arc<Service>, Arc<ObjectStore>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = Arc::new(Service::default());
    let answering = service.clone();
    let router = Router::new().fallback(move |request| {
        let service = answering.clone();
        async move { service.answer(request).await }
    });
    tokio::task::spawn(async move { axum::serve(listener, router).await });
    let address = format!("s3://bucket/team/cache?endpoint=http://127.0.0.1:{port}");
    let variable = |value: &str| value.as_bytes().to_vec().into();
    let services = Services::from([
        ("AWS_ACCESS_KEY_ID", variable("AKIDEXAMPLE")),
        ("AWS_SECRET_ACCESS_KEY", variable("hunter2")),
    ]);
    let store = ObjectStore::open(&address.parse().unwrap(), &services).unwrap();
    (service, Arc::new(store))
}

#[tokio::test]
async fn objects_lie_where_the_specification_says() {
    let (service, store) = service().await;
    conformance::blob_store(store.clone()).await;
    let entry = sample_action(1, &[]);
    ActionCache::put(&*store, &entry).await.unwrap();
    let digest = Sha256Digest::of(b"conformance one");
    let objects = lock(&service.objects);
    for path in [
        layout::blob(&digest),
        layout::action(&entry.scope, &entry.key),
    ] {
        assert!(
            objects.contains_key(&format!("/bucket/team/cache/{path}")),
            "{path}: {:?}",
            objects.keys()
        );
    }
}

#[tokio::test]
async fn answers_of_a_service_are_sorted() {
    let (service, store) = service().await;
    let digest = Sha256Digest::of(b"x");
    let get = async || store.get(digest).await.unwrap_err();
    service.fail("blobs", 503, "SlowDown");
    assert!(get().await.is_transient());
    service.fail("blobs", 500, "InternalError");
    assert!(get().await.is_transient());
    service.fail("blobs", 429, "");
    assert!(get().await.is_transient());
    service.fail("blobs", 403, "AccessDenied");
    let error = get().await;
    assert!(matches!(error, CacheError::Denied { .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    service.fail("blobs", 404, "NoSuchBucket");
    let error = get().await;
    assert!(matches!(error, CacheError::Broken { .. }), "{error:?}");
    service.fail("blobs", 404, "NoSuchKey");
    assert!(store.get(digest).await.unwrap().is_none());

    service.fail("blobs", 403, "AccessDenied");
    let error = BlobStore::put(&*store, digest, source(b"x")).await;
    assert!(matches!(error, Err(CacheError::Denied { .. })), "{error:?}");
    let error = store.contains(&[digest]).await;
    assert!(matches!(error, Err(CacheError::Denied { .. })), "{error:?}");
}

#[tokio::test]
async fn a_look_up_is_whole_or_an_error() {
    let (service, store) = service().await;
    let (protected, own) = (Scope::protected(), Scope::pull("7"));
    let entries: Vec<ActionResult> = (0..3)
        .map(|number| ActionResult {
            scope: own.clone(),
            ..sample_action(number, &[])
        })
        .collect();
    for entry in &entries {
        ActionCache::put(&*store, entry).await.unwrap();
    }
    let keys: Vec<CacheKey> = entries.iter().map(|entry| entry.key).collect();
    let both = [protected, own];
    let found: Vec<_> = entries.iter().cloned().map(Some).collect();
    assert_eq!(store.lookup(&both, &keys).await.unwrap(), found);

    service.fail("actions/protected", 403, "AccessDenied");
    assert_eq!(
        store.lookup(&both, &keys).await.unwrap(),
        found,
        "a scope that may not be read is passed over"
    );
    let error = store.lookup(&both[..1], &keys).await;
    assert!(matches!(error, Err(CacheError::Denied { .. })), "{error:?}");

    service.fail(&keys[1].0.hex(), 503, "SlowDown");
    let error = store.lookup(&both, &keys).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn wrong_bytes_are_never_sent_as_an_object() {
    let (service, store) = service().await;
    let digest = Sha256Digest::of(b"expected");
    let error = BlobStore::put(&*store, digest, source(b"given")).await;
    assert!(
        matches!(error, Err(CacheError::Corrupt { .. })),
        "{error:?}"
    );
    assert_eq!(*lock(&service.requests), Vec::<String>::new());
}

#[tokio::test]
async fn a_service_that_nobody_runs_is_transient_trouble() {
    let address = "s3://bucket?endpoint=http://127.0.0.1:1&anonymous=true";
    let store = ObjectStore::open(&address.parse().unwrap(), &Services::new()).unwrap();
    let error = store.get(Sha256Digest::of(b"x")).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        cause.starts_with("the storage service can't be reached"),
        "{cause}"
    );
}
