//! The routes that clients of the earlier MemoBuild ask for.

use std::io::Write as _;

use memobuild_ci::digest::Blake3Digest;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::server::{Served, guarded, noise, plain};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn hash(bytes: &[u8]) -> String {
    Blake3Digest::of(bytes).hex()
}

/// What a client of that time sends, with its token where it can have one: in the address.
async fn ask(
    server: &Served,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: impl Into<reqwest::Body>,
) -> (StatusCode, Vec<u8>) {
    let mut url: reqwest::Url = server.url(path).parse().unwrap();
    if let Some(token) = token {
        url.set_username("memobuild").unwrap();
        url.set_password(Some(token)).unwrap();
    }
    let request = plain().request(method, url).body(body);
    let request = request.header("X-MemoBuild-API-Version", "1.0");
    let response = request.send().await.unwrap();
    let status = response.status();
    (status, response.bytes().await.unwrap().to_vec())
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[tokio::test]
async fn artifacts_layers_and_nodes_come_back() {
    let server = Served::start(|_| {}).await;
    let artifact = format!("/cache/{}", hash(b"a key"));
    assert_eq!(ask(&server, Method::HEAD, &artifact, None, "").await.0, 404);
    let bytes = gzip(&noise(1, 5_000_000));
    let put = ask(&server, Method::PUT, &artifact, None, bytes.clone()).await;
    assert_eq!(put.0, 201);
    assert_eq!(ask(&server, Method::HEAD, &artifact, None, "").await.0, 200);
    let got = ask(&server, Method::GET, &artifact, None, "").await;
    assert_eq!(got, (StatusCode::OK, bytes));
    // A layer is called by its bytes, before compression or after.
    let content = noise(2, 300_000);
    let packed = gzip(&content);
    let mut layers = Vec::new();
    for name in [hash(&content), hash(&packed)] {
        let path = format!("/cache/layer/{name}");
        let put = ask(&server, Method::PUT, &path, None, packed.clone()).await;
        assert_eq!(put.0, 201);
        let got = ask(&server, Method::GET, &path, None, "").await;
        assert_eq!(got, (StatusCode::OK, packed.clone()));
        // The same name of another kind is another thing.
        let other = format!("/cache/{name}");
        assert_eq!(ask(&server, Method::GET, &other, None, "").await.0, 404);
        layers.push(name);
    }
    let node = format!("/cache/node/{}/layers", hash(b"a node"));
    assert_eq!(ask(&server, Method::GET, &node, None, "").await.0, 404);
    let body = json!({"layers": layers, "total_size": 1}).to_string();
    let put = ask(&server, Method::POST, &node, None, body).await;
    assert_eq!(put.0, 200);
    let got = ask(&server, Method::GET, &node, None, "").await;
    assert_eq!(json_of(&got.1), json!(layers));
    // All of it is garbage some day.
    let collected = ask(&server, Method::POST, "/gc?days=0", None, "").await;
    assert_eq!(collected.0, 200);
    assert!(json_of(&collected.1)["entries"].is_u64(), "{collected:?}");
    server.end().await;
}

#[tokio::test]
async fn what_can_be_checked_is_checked() {
    let server = Served::start(|_| {}).await;
    let status = async |method, path: &str, body: Vec<u8>| {
        let (status, body) = ask(&server, method, path, None, body).await;
        (status.as_u16(), json_of(&body)["error"]["code"].clone())
    };
    let layer = format!("/cache/layer/{}", hash(b"content"));
    let wrong = status(Method::PUT, &layer, gzip(b"other content")).await;
    assert_eq!(wrong, (422, json!("digest-mismatch")));
    // Half of a stream of gzip has no content.
    let half = gzip(&noise(3, 1000))[..500].to_vec();
    let cut = format!("/cache/layer/{}", hash(&noise(3, 1000)));
    assert_eq!(status(Method::PUT, &cut, half).await.0, 422);
    assert_eq!(ask(&server, Method::GET, &layer, None, "").await.0, 404);
    let node = format!("/cache/node/{}/layers", hash(b"a node"));
    let names = json!({"layers": [hash(b"content")], "total_size": 7}).to_string();
    let (code, body) = ask(&server, Method::POST, &node, None, names).await;
    assert_eq!(code, 424);
    assert_eq!(
        json_of(&body)["error"]["missing"],
        json!([hash(b"content")])
    );
    for path in [
        "/cache/short",
        "/cache/layer/../../etc",
        "/cache/node/x/layers",
    ] {
        let (status, _) = ask(&server, Method::GET, path, None, "").await;
        assert!(matches!(status.as_u16(), 400 | 404), "{path}: {status}");
    }
    let upper = format!("/cache/{}", hash(b"a").to_uppercase());
    assert_eq!(status(Method::GET, &upper, Vec::new()).await.0, 400);
    for query in ["/gc", "/gc?days=x", "/gc?days=-1"] {
        assert_eq!(status(Method::POST, query, Vec::new()).await.0, 400);
    }
}

#[tokio::test]
async fn tokens_keep_scopes_apart() {
    let server = guarded(|_| {}).await;
    let path = format!("/cache/{}", hash(b"a key"));
    let (main, pull) = (Some("main-token"), Some("pull-token"));
    let put = async |token, body: &'static str| {
        ask(&server, Method::PUT, &path, token, body)
            .await
            .0
            .as_u16()
    };
    let get = async |token| ask(&server, Method::GET, &path, token, "").await;
    assert_eq!(put(None, "nobody's").await, 401);
    assert_eq!(put(Some("stranger-token"), "a stranger's").await, 401);
    assert_eq!(put(Some("reader-token"), "a reader's").await, 403);
    // It writes `pull/*`, and these clients can't say which.
    assert_eq!(put(pull, "a pull request's").await, 403);
    assert_eq!(get(main).await.0, 404);
    assert_eq!(put(main, "main's").await, 201);
    assert_eq!(get(pull).await, (StatusCode::OK, b"main's".to_vec()));
    assert_eq!(get(Some("reader-token")).await.0, 200);
    let gc = ask(&server, Method::POST, "/gc?days=0", main, "").await;
    assert_eq!(gc.0, 403, "it is no admin");
    let audit = std::fs::read_to_string(server.dir.path().join("audit.log")).unwrap();
    for reason in [
        "no token",
        "unknown token",
        "it has no `write` permission",
        "it writes no scope that is named without a star",
        "it has no `admin` permission",
    ] {
        assert!(audit.contains(reason), "{reason}: {audit}");
    }
}

#[tokio::test]
async fn a_pull_request_does_not_stand_before_a_branch() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens.yml");
    let sha = |token: &str| memobuild_ci::digest::Sha256Digest::of(token.as_bytes()).hex();
    let text = format!(
        "tokens:\n- {{name: main, sha256: {}, permissions: [read, write], write: [protected]}}\n\
         - {{name: seven, sha256: {}, permissions: [read, write], read: [protected, pull/7], write: [pull/7]}}\n",
        sha("main-token"),
        sha("seven-token")
    );
    std::fs::write(&tokens, text).unwrap();
    let server = Served::start(|options| options.tokens = Some(tokens)).await;
    let path = format!("/cache/{}", hash(b"a key"));
    let put = async |token, body: &'static str| {
        ask(&server, Method::PUT, &path, Some(token), body).await.0
    };
    let get = async |token| {
        let (_, bytes) = ask(&server, Method::GET, &path, Some(token), "").await;
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(put("seven-token", "seven").await, 201);
    assert_eq!(get("seven-token").await, "seven");
    assert!(!get("main-token").await.contains("seven"));
    assert_eq!(put("main-token", "main").await, 201);
    assert_eq!(put("seven-token", "seven again").await, 201);
    assert_eq!(get("seven-token").await, "main");
    assert_eq!(get("main-token").await, "main");
}
