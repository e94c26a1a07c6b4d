//! A small registry in this process, which misbehaves on demand.
//!
//! [`RegistryServer`] listens on a loopback port of the system's choice and speaks pull
//! and push of the distribution specification 1.1, with Basic or token authentication.
//! [`RegistryServer::fault`] plans a [`Fault`] for the next matching requests; the log
//! of requests tells what a client did. Nothing is stored but in memory.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::Response,
};
use base64::Engine as _;
use futures_util::{StreamExt as _, stream};
use memobuild_ci::{
    digest::Sha256Digest,
    oci::{
        Descriptor, ImageConfig, ImageIndex, Manifest, Platform, descriptor::media, layer::DiffId,
    },
    registry::{Limits, Registry, RegistryOptions},
};

/// How one answer goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// This status instead of an answer, with this `Retry-After`.
    Status(u16, Option<&'static str>),
    /// The connection breaks after so many bytes of the body.
    Cut(usize),
    /// The body ends properly after so many bytes, without a `Content-Length`.
    Short(usize),
    /// The body has one more byte than it should, without a `Content-Length`.
    Long,
    /// This byte of the body is another.
    Corrupt(usize),
    /// Nothing comes after so many bytes of the body.
    Stall(usize),
    /// One byte in each interval.
    Trickle(Duration),
    /// The `Docker-Content-Digest` header is this.
    DigestHeader(String),
    /// A request for a range is answered with the whole.
    IgnoreRange,
    /// The answer to a request for a range starts so many bytes later.
    ShiftRange(usize),
    /// The client is sent elsewhere.
    Redirect(String),
    /// This document instead of the real one.
    Body(&'static str),
    /// No token is valid any longer, this request's neither.
    Expired,
    /// The `Location` header is this; none if empty.
    Location(String),
    /// So many bytes of the request's body arrive, and the answer has status 502.
    Partial(usize),
}

/// Who may read and write.
#[derive(Debug, Clone)]
pub(crate) enum Access {
    /// Everybody.
    Open,
    /// This user with this password, with each request.
    Basic(&'static str, &'static str),
    /// Holders of a token of `/token`, which everybody can have.
    AnonymousToken,
    /// Holders of a token of `/token`, for this user with this password.
    UserToken(&'static str, &'static str),
    /// Holders of a token of `/token`, for this refresh token.
    RefreshToken(&'static str),
    /// Holders of this token, which `/token` doesn't give.
    FixedToken(&'static str),
    /// Everybody may read; this user with this password may write.
    ReadOnly(&'static str, &'static str),
}

/// One request that was made.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// `GET /v2/…`, without the query.
    pub(crate) line: String,
    /// The query.
    pub(crate) query: String,
    /// The `Range` header.
    pub(crate) range: Option<String>,
    /// The `Content-Range` header.
    pub(crate) content_range: Option<String>,
    /// The `Authorization` header.
    pub(crate) authorization: Option<String>,
    /// Bytes of the request's body.
    pub(crate) received: usize,
    /// Bytes of the answer's body, before faults.
    pub(crate) bytes: usize,
}

#[derive(Debug, Default)]
struct Store {
    /// By repository and tag or digest: media type and bytes.
    manifests: HashMap<(String, String), (String, Bytes)>,
    blobs: HashMap<(String, String), Bytes>,
    uploads: HashMap<String, Vec<u8>>,
    tokens: HashSet<String>,
    issued: usize,
    /// Beginnings of request lines, with what happens to that many of them.
    faults: Vec<(String, Fault, usize)>,
    seen: Vec<Seen>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    access: Access,
    store: Mutex<Store>,
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }
}

/// The running registry; it ends when dropped.
#[derive(Debug)]
pub(crate) struct RegistryServer {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RegistryServer {
    /// Starts an empty registry.
    pub(crate) async fn start(access: Access) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shared = Arc::new(Shared {
            address: listener.local_addr().unwrap(),
            access,
            store: Mutex::default(),
        });
        let app = axum::Router::new()
            .fallback(handle)
            .with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { shared, task }
    }

    /// `127.0.0.1:<port>`.
    pub(crate) fn host(&self) -> String {
        self.shared.address.to_string()
    }

    /// The next `times` requests whose line (`GET /v2/…`) has this in it go wrong.
    /// Faults for the same requests happen in the order in which they were planned.
    pub(crate) fn fault(&self, line: &str, fault: Fault, times: usize) {
        let planned = (line.to_owned(), fault, times);
        self.shared.store().faults.push(planned);
    }

    /// All requests so far, in order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.store().seen.clone()
    }

    /// The requests so far whose line has this in it.
    pub(crate) fn count(&self, line: &str) -> usize {
        let seen = self.seen();
        seen.iter().filter(|s| s.line.contains(line)).count()
    }

    /// Forgets the requests so far.
    pub(crate) fn forget(&self) {
        self.shared.store().seen.clear();
    }

    /// Begins an upload; gives its address.
    pub(crate) fn begin_upload(&self, repository: &str) -> String {
        let mut store = self.shared.store();
        let id = format!("upload-x{}", store.uploads.len());
        store.uploads.insert(id.clone(), Vec::new());
        format!("http://{}/v2/{repository}/blobs/uploads/{id}", self.host())
    }

    /// Whether a repository has a blob.
    pub(crate) fn has_blob(&self, repository: &str, digest: &Sha256Digest) -> bool {
        let key = (repository.to_owned(), digest.to_string());
        self.shared.store().blobs.contains_key(&key)
    }

    /// Removes a blob from a repository.
    pub(crate) fn remove_blob(&self, repository: &str, digest: &Sha256Digest) {
        let key = (repository.to_owned(), digest.to_string());
        self.shared.store().blobs.remove(&key);
    }

    /// Puts other bytes under a blob's digest.
    pub(crate) fn spoil_blob(&self, repository: &str, digest: &Sha256Digest) {
        self.replace_blob(repository, digest, &b"not the blob's bytes"[..]);
    }

    /// Puts these bytes under a blob's digest.
    pub(crate) fn replace_blob(
        &self,
        repository: &str,
        digest: &Sha256Digest,
        bytes: impl Into<Bytes>,
    ) {
        let key = (repository.to_owned(), digest.to_string());
        self.shared.store().blobs.insert(key, bytes.into());
    }

    /// The tags of a repository with their manifests' media types and bytes.
    pub(crate) fn tags(&self, repository: &str) -> Vec<(String, String, Bytes)> {
        let store = self.shared.store();
        let tags = store
            .manifests
            .iter()
            .filter(|((held_by, name), _)| held_by == repository && !name.starts_with("sha256:"));
        tags.map(|((_, tag), (media_type, bytes))| (tag.clone(), media_type.clone(), bytes.clone()))
            .collect()
    }

    /// No token given out so far is valid any longer.
    pub(crate) fn expire_tokens(&self) {
        self.shared.store().tokens.clear();
    }

    /// Puts a blob into a repository.
    pub(crate) fn put_blob(&self, repository: &str, bytes: &[u8]) -> Sha256Digest {
        let digest = Sha256Digest::of(bytes);
        let key = (repository.to_owned(), digest.to_string());
        let bytes = Bytes::copy_from_slice(bytes);
        self.shared.store().blobs.insert(key, bytes);
        digest
    }

    /// Puts a document into a repository, under its digest and a tag.
    pub(crate) fn put_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Sha256Digest {
        let digest = Sha256Digest::of(bytes);
        let mut store = self.shared.store();
        for name in [tag.to_owned(), digest.to_string()] {
            let document = (media_type.to_owned(), Bytes::copy_from_slice(bytes));
            let key = (repository.to_owned(), name);
            store.manifests.insert(key, document);
        }
        digest
    }

    /// Puts a whole image into a repository, under its digest and a tag.
    pub(crate) fn push(&self, repository: &str, tag: &str, image: &Image) {
        self.put_blob(repository, &image.config);
        for layer in &image.layers {
            self.put_blob(repository, layer);
        }
        let media_type = image.media_type();
        self.put_manifest(repository, tag, media_type, &image.manifest);
    }

    /// Puts images and an index of them into a repository; gives the index's digest.
    pub(crate) fn push_index(&self, repository: &str, tag: &str, images: &[Image]) -> Sha256Digest {
        for image in images {
            self.push(repository, &image.digest().to_string(), image);
        }
        let entries = images.iter().map(Image::descriptor).collect();
        let mut index = ImageIndex::new(entries);
        let docker = images.iter().any(|image| image.family == Family::Docker);
        let media_type = match docker {
            true => media::DOCKER_INDEX,
            false => media::INDEX,
        };
        index.media_type = Some(media_type.to_owned());
        let bytes = serde_json::to_vec(&index).unwrap();
        self.put_manifest(repository, tag, media_type, &bytes)
    }
}

/// Whose media types an image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Those of the OCI.
    Oci,
    /// Docker's schema 2.
    Docker,
}

/// An image made of bytes.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Whose media types it has.
    pub(crate) family: Family,
    /// What it is for.
    pub(crate) platform: Platform,
    /// The layers' blobs, not compressed.
    pub(crate) layers: Vec<Vec<u8>>,
    /// The configuration's bytes.
    pub(crate) config: Vec<u8>,
    /// The manifest's bytes.
    pub(crate) manifest: Vec<u8>,
}

impl Image {
    /// An image for a platform with these layers.
    pub(crate) fn new(family: Family, platform: &str, layers: &[&[u8]]) -> Self {
        let platform: Platform = platform.parse().unwrap();
        let (config_type, layer_type, manifest_type) = match family {
            Family::Oci => (media::CONFIG, media::LAYER, media::MANIFEST),
            Family::Docker => (
                media::DOCKER_CONFIG,
                media::DOCKER_LAYER,
                media::DOCKER_MANIFEST,
            ),
        };
        let mut config = ImageConfig::empty(&platform);
        let digests = layers.iter().map(|layer| Sha256Digest::of(layer));
        config.rootfs.diff_ids = digests.map(DiffId).collect();
        let config = serde_json::to_vec(&config).unwrap();
        let blobs = layers.iter().map(|layer| Descriptor::of(layer_type, layer));
        let mut manifest = Manifest::new(Descriptor::of(config_type, &config), blobs.collect());
        manifest.media_type = Some(manifest_type.to_owned());
        Self {
            family,
            platform,
            layers: layers.iter().map(|layer| layer.to_vec()).collect(),
            config,
            manifest: serde_json::to_vec(&manifest).unwrap(),
        }
    }

    /// The manifest's media type.
    pub(crate) fn media_type(&self) -> &'static str {
        match self.family {
            Family::Oci => media::MANIFEST,
            Family::Docker => media::DOCKER_MANIFEST,
        }
    }

    /// The manifest's digest.
    pub(crate) fn digest(&self) -> Sha256Digest {
        Sha256Digest::of(&self.manifest)
    }

    /// The manifest's entry in an index.
    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor::of(self.media_type(), &self.manifest).with_platform(&self.platform)
    }
}

/// An answer before faults.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// An error document.
    fn error(status: StatusCode, code: &str) -> Self {
        let document =
            serde_json::json!({"errors": [{"code": code, "message": code.to_lowercase()}]});
        Self::new(status)
            .with("content-type", "application/json")
            .body(Bytes::from(document.to_string()))
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    fn body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(mut body) = to_bytes(body, usize::MAX).await else {
        return Response::new(Body::empty());
    };
    let received = body.len();
    let line = format!("{} {}", parts.method, parts.uri.path());
    let fault = next_fault(&mut shared.store(), &line);
    match fault {
        Some(Fault::Partial(n)) => body.truncate(n),
        Some(Fault::Expired) => shared.store().tokens.clear(),
        _ => {}
    }
    let mut headers = parts.headers.clone();
    if let Some(Fault::IgnoreRange) = fault {
        headers.remove(header::RANGE);
    }
    let answer = match parts.uri.path() {
        "/token" => give_token(&shared, &headers, &parts.uri, &body),
        _ if !is_allowed(&shared, &parts.method, &headers) => challenge(&shared, parts.uri.path()),
        "/v2/" => Answer::new(StatusCode::OK),
        _ => serve(&shared, &parts.method, &parts.uri, &headers, body),
    };
    let text = |name| Some(parts.headers.get(name)?.to_str().unwrap().to_owned());
    shared.store().seen.push(Seen {
        line,
        query: parts.uri.query().unwrap_or_default().to_owned(),
        range: text(header::RANGE),
        content_range: text(header::CONTENT_RANGE),
        received,
        authorization: text(header::AUTHORIZATION),
        bytes: answer.body.len(),
    });
    spoil(answer, fault)
}

fn next_fault(store: &mut Store, line: &str) -> Option<Fault> {
    let (_, fault, times) = store
        .faults
        .iter_mut()
        .find(|(part, _, times)| *times > 0 && line.contains(part.as_str()))?;
    *times -= 1;
    Some(fault.clone())
}

/// The answer with the fault in it.
fn spoil(mut answer: Answer, fault: Option<Fault>) -> Response {
    let whole = answer.body.clone();
    let before = |n: usize| stream::iter([Ok::<_, io::Error>(whole.slice(..n.min(whole.len())))]);
    let mut length = Some(whole.len());
    let body = match fault {
        None | Some(Fault::IgnoreRange | Fault::Expired) => Body::from(whole.clone()),
        Some(Fault::Location(location)) => {
            answer.headers.remove(header::LOCATION);
            if !location.is_empty() {
                answer = answer.with("location", &location);
            }
            Body::from(whole.clone())
        }
        Some(Fault::Partial(_)) => {
            answer = Answer::error(StatusCode::BAD_GATEWAY, "FAULT");
            length = Some(answer.body.len());
            Body::from(answer.body.clone())
        }
        Some(Fault::Status(status, retry_after)) => {
            answer = Answer::error(StatusCode::from_u16(status).unwrap(), "FAULT");
            if let Some(value) = retry_after {
                answer = answer.with("retry-after", value);
            }
            length = Some(answer.body.len());
            Body::from(answer.body.clone())
        }
        Some(Fault::Redirect(location)) => {
            answer = Answer::new(StatusCode::TEMPORARY_REDIRECT).with("location", &location);
            length = Some(0);
            Body::empty()
        }
        Some(Fault::Body(text)) => {
            answer.headers.remove("docker-content-digest");
            length = Some(text.len());
            Body::from(text)
        }
        Some(Fault::Cut(n)) => {
            let broken = io::Error::other("the connection breaks here");
            // The pause lets what came before leave the server.
            let end = stream::once(async {
                tokio::task::yield_now().await;
                Err(broken)
            });
            Body::from_stream(before(n).chain(end))
        }
        Some(Fault::Short(n)) => {
            length = None;
            Body::from_stream(before(n))
        }
        Some(Fault::Long) => {
            length = None;
            let more = stream::iter([Ok(Bytes::from_static(b"!"))]);
            Body::from_stream(before(whole.len()).chain(more))
        }
        Some(Fault::Corrupt(n)) => {
            let mut bytes = whole.to_vec();
            bytes[n] ^= 1;
            Body::from(bytes)
        }
        Some(Fault::Stall(n)) => Body::from_stream(before(n).chain(stream::pending())),
        Some(Fault::Trickle(interval)) => {
            let clock = tokio::time::interval(interval);
            Body::from_stream(stream::unfold(
                (whole.clone(), clock),
                async |(mut rest, mut clock)| {
                    clock.tick().await;
                    match rest.is_empty() {
                        true => None,
                        false => Some((Ok::<_, io::Error>(rest.split_to(1)), (rest, clock))),
                    }
                },
            ))
        }
        Some(Fault::DigestHeader(digest)) => {
            answer = answer.with("docker-content-digest", &digest);
            Body::from(whole.clone())
        }
        Some(Fault::ShiftRange(n)) => {
            let range = answer.headers["content-range"].to_str().unwrap();
            let (start, rest) = range["bytes ".len()..].split_once('-').unwrap();
            let start = start.parse::<usize>().unwrap() + n;
            let shifted = format!("bytes {start}-{rest}");
            answer = answer.with("content-range", &shifted);
            length = Some(whole.len() - n);
            Body::from(whole.slice(n..))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    if let Some(length) = length {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    response
}

/// Whether the request may be served.
fn is_allowed(shared: &Shared, method: &Method, headers: &HeaderMap) -> bool {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let given = headers
        .get(header::AUTHORIZATION)
        .map_or("", |value| value.to_str().unwrap());
    match &shared.access {
        Access::Open => true,
        Access::Basic(user, password) => given == basic(user, password),
        Access::FixedToken(token) => given == format!("Bearer {token}"),
        Access::ReadOnly(user, password) => is_read || given == basic(user, password),
        _ => {
            let token = given.strip_prefix("Bearer ").unwrap_or_default();
            shared.store().tokens.contains(token) && (is_read || token.ends_with("-push"))
        }
    }
}

/// The `Authorization` header of a user.
pub(crate) fn basic(user: &str, password: &str) -> String {
    let text = format!("{user}:{password}");
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    format!("Basic {encoded}")
}

fn challenge(shared: &Shared, path: &str) -> Answer {
    let answer = Answer::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
    if let Access::Basic(..) | Access::ReadOnly(..) = shared.access {
        return answer.with("www-authenticate", "Basic realm=\"test\"");
    }
    let repository = split(path).map_or("", |(repository, _)| repository);
    let challenge = format!(
        r#"Bearer realm="http://{}/token",service="test",scope="repository:{repository}:pull""#,
        shared.address
    );
    answer.with("www-authenticate", &challenge)
}

fn give_token(shared: &Shared, headers: &HeaderMap, uri: &Uri, body: &[u8]) -> Answer {
    let given = headers.get(header::AUTHORIZATION);
    let form = parse_query(std::str::from_utf8(body).unwrap());
    let query = parse_query(uri.query().unwrap_or_default());
    let granted = match &shared.access {
        Access::AnonymousToken => given.is_none() && query["service"] == "test",
        Access::UserToken(user, password) => {
            given.is_some_and(|value| value.to_str().unwrap() == basic(user, password))
        }
        Access::RefreshToken(token) => {
            form.get("refresh_token").is_some_and(|t| t == token)
                && form["grant_type"] == "refresh_token"
                && form["service"] == "test"
        }
        Access::Open | Access::Basic(..) | Access::FixedToken(_) | Access::ReadOnly(..) => false,
    };
    if !granted {
        return Answer::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
    }
    let mut store = shared.store();
    store.issued += 1;
    let texts = [uri.query(), std::str::from_utf8(body).ok()];
    let may_push = texts
        .into_iter()
        .flatten()
        .any(|text| text.contains("%3Apull%2Cpush"));
    let rights = if may_push { "push" } else { "pull" };
    let token = format!("token-{}-{rights}", store.issued);
    store.tokens.insert(token.clone());
    // Token servers have both names for it.
    let name = match form.is_empty() {
        true => "token",
        false => "access_token",
    };
    let document = serde_json::json!({name: token, "expires_in": 300});
    Answer::new(StatusCode::OK).body(Bytes::from(document.to_string()))
}

/// Names and values of a query or form; only `%3A` and `%2F` occur escaped.
fn parse_query(text: &str) -> HashMap<String, String> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| {
            let value = value
                .replace("%3A", ":")
                .replace("%2F", "/")
                .replace("%2C", ",");
            (name.to_owned(), value)
        })
        .collect()
}

/// The repository of `/v2/<repository>/<kind>/…`, and what follows it.
fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix("/v2/")?;
    let end = ["/manifests/", "/blobs/"]
        .iter()
        .find_map(|kind| path.rfind(kind))?;
    Some((&path[..end], &path[end + 1..]))
}

fn serve(shared: &Shared, method: &Method, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Answer {
    let Some((repository, rest)) = split(uri.path()) else {
        return Answer::error(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
    };
    let query = parse_query(uri.query().unwrap_or_default());
    if let Some(upload) = rest.strip_prefix("blobs/uploads/") {
        let from = headers.get(header::CONTENT_RANGE);
        let from = from.and_then(|range| range.to_str().unwrap().split_once('-')?.0.parse().ok());
        return upload_blob(shared, method, repository, upload, &query, (from, body));
    }
    let (kind, name) = rest.split_once('/').unwrap();
    let key = (repository.to_owned(), name.to_owned());
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    match kind {
        "manifests" if *method == Method::PUT => {
            let digest = Sha256Digest::of(&body).to_string();
            let media_type = headers["content-type"].to_str().unwrap().to_owned();
            let mut store = shared.store();
            let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let layers = document["layers"].as_array().into_iter().flatten();
            let named = layers.chain(document.get("config"));
            let is_whole = named
                .map(|named| named["digest"].as_str().unwrap())
                .all(|digest| {
                    let key = (repository.to_owned(), digest.to_owned());
                    store.blobs.contains_key(&key)
                });
            if !is_whole {
                return Answer::error(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN");
            }
            for name in [name.to_owned(), digest.clone()] {
                let document = (media_type.clone(), body.clone());
                store.manifests.insert((key.0.clone(), name), document);
            }
            Answer::new(StatusCode::CREATED)
                .with("location", uri.path())
                .with("docker-content-digest", &digest)
        }
        "manifests" if is_read => match shared.store().manifests.get(&key) {
            None => Answer::error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Some((media_type, bytes)) => Answer::new(StatusCode::OK)
                .with("content-type", media_type)
                .with(
                    "docker-content-digest",
                    &Sha256Digest::of(bytes).to_string(),
                )
                .body(bytes.clone()),
        },
        "blobs" if is_read => match shared.store().blobs.get(&key) {
            None => Answer::error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            Some(bytes) => ranged(bytes, headers),
        },
        _ => Answer::error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
    }
}

/// A blob, or the part of it that was asked for.
fn ranged(bytes: &Bytes, headers: &HeaderMap) -> Answer {
    let size = bytes.len();
    let range = headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().unwrap().strip_prefix("bytes="))
        .and_then(|range| range.split_once('-'));
    let Some((start, end)) = range else {
        return Answer::new(StatusCode::OK).body(bytes.clone());
    };
    let start: usize = start.parse().unwrap();
    let end = end.parse().map_or(size, |last: usize| size.min(last + 1));
    if start >= size {
        return Answer::new(StatusCode::RANGE_NOT_SATISFIABLE);
    }
    Answer::new(StatusCode::PARTIAL_CONTENT)
        .with(
            "content-range",
            &format!("bytes {start}-{}/{size}", end - 1),
        )
        .body(bytes.slice(start..end))
}

/// Uploads: in one, in pieces, or by a mount from another repository.
fn upload_blob(
    shared: &Shared,
    method: &Method,
    repository: &str,
    upload: &str,
    query: &HashMap<String, String>,
    (from, body): (Option<usize>, Bytes),
) -> Answer {
    let mut store = shared.store();
    let created = |digest: &str| {
        Answer::new(StatusCode::CREATED)
            .with("location", &format!("/v2/{repository}/blobs/{digest}"))
            .with("docker-content-digest", digest)
    };
    match *method {
        Method::POST => {
            if let (Some(digest), Some(from)) = (query.get("mount"), query.get("from"))
                && let Some(bytes) = store.blobs.get(&(from.clone(), digest.clone())).cloned()
            {
                let key = (repository.to_owned(), digest.clone());
                store.blobs.insert(key, bytes);
                return created(digest);
            }
            let id = format!("upload-{}", store.seen.len());
            store.uploads.insert(id.clone(), Vec::new());
            Answer::new(StatusCode::ACCEPTED)
                .with("location", &format!("/v2/{repository}/blobs/uploads/{id}"))
        }
        Method::DELETE => {
            store.uploads.remove(upload);
            Answer::new(StatusCode::NO_CONTENT)
        }
        Method::GET | Method::PATCH | Method::PUT => {
            let Some(bytes) = store.uploads.get_mut(upload) else {
                return Answer::error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
            };
            let range = |bytes: &[u8]| format!("0-{}", bytes.len().saturating_sub(1));
            if *method == Method::GET {
                return Answer::new(StatusCode::NO_CONTENT).with("range", &range(bytes));
            }
            if from.is_some_and(|from| from != bytes.len()) {
                return Answer::error(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID");
            }
            bytes.extend_from_slice(&body);
            if *method == Method::PATCH {
                let range = range(bytes);
                return Answer::new(StatusCode::ACCEPTED)
                    .with(
                        "location",
                        &format!("/v2/{repository}/blobs/uploads/{upload}"),
                    )
                    .with("range", &range);
            }
            let bytes = Bytes::from(store.uploads.remove(upload).unwrap());
            let digest = Sha256Digest::of(&bytes).to_string();
            if query.get("digest") != Some(&digest) {
                return Answer::error(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
            }
            let key = (repository.to_owned(), digest.clone());
            store.blobs.insert(key, bytes);
            created(&digest)
        }
        _ => Answer::error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
    }
}

/// Options of a client that tries again without a pause.
pub(crate) fn options() -> RegistryOptions {
    RegistryOptions {
        limits: Limits {
            stall: Duration::from_secs(10),
            resolve: Duration::from_secs(20),
            blob: Duration::from_secs(20),
            retries: 2,
            backoff: Duration::ZERO,
            ..Limits::default()
        },
        ..RegistryOptions::default()
    }
}

/// A client that tries again without a pause.
pub(crate) fn client() -> Registry {
    Registry::new(options()).unwrap()
}
