//! A cache service of Actions in this process, in both versions of its protocol. The tests of attacks
//! have it too.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, Method, Response},
};
use reqwest::Url;
use serde_json::{Value, json};

/// The token of all jobs.
pub(crate) const TOKEN: &str = "hunter2";

/// An object of the service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Object {
    pub(crate) id: usize,
    pub(crate) key: String,
    pub(crate) version: String,
    pub(crate) done: bool,
}

/// The cache service as far as clients see it.
#[derive(Debug, Default)]
pub(crate) struct Service {
    pub(crate) objects: Vec<Object>,
    pub(crate) bytes: HashMap<String, Vec<u8>>,
    pub(crate) requests: Vec<String>,
    /// What to answer to requests that contain a text.
    pub(crate) refusals: Vec<(&'static str, u16, &'static str)>,
    /// Send whole objects whatever range is asked for.
    pub(crate) no_ranges: bool,
    pub(crate) port: u16,
}

pub(crate) type Shared = Arc<Mutex<Service>>;

impl Service {
    fn find(&self, key: &str, version: &str) -> Option<&Object> {
        let mut newest = self.objects.iter().rev().filter(|o| o.done);
        newest.find(|o| o.version == version && o.key.starts_with(key))
    }

    /// A new object's number, or none if the key is taken.
    pub(crate) fn reserve(&mut self, key: &str, version: &str) -> Option<usize> {
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
    assert_eq!(parts.headers["authorization"], format!("Bearer {TOKEN}"));
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

pub(crate) async fn start() -> Shared {
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

fn lock(service: &Shared) -> MutexGuard<'_, Service> {
    service.lock().unwrap_or_else(PoisonError::into_inner)
}
