//! Requests to the cache service of Actions: [`Client`].
//!
//! An object has a key, never changes, and is found by its key or by what its key begins with, the newest
//! first. Both versions of the protocol say this differently ([`super::v1`], [`super::v2`]); what
//! they have in common is here: one HTTP client, and what an answer means.
//!
//! Too many requests end the use of the service for this build: its limits hold for the whole
//! repository, and asking on would cost others theirs.

use std::{
    io::Read as _,
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use tokio::task::spawn_blocking;

use crate::{
    cache::{BlobSource, CacheError, Subject},
    digest::Sha256Digest,
    redact::SecretBytes,
    registry::{Authorities, install_provider},
};

/// How long to wait for a connection, and for the next bytes of an answer.
const CONNECT: Duration = Duration::from_secs(10);
const STALL: Duration = Duration::from_secs(30);
/// Size in bytes of what is sent with one request.
pub(super) const PART: usize = 32 << 20;
/// Longest message of the service that is passed on, in characters.
const LONGEST: usize = 300;

/// Which protocol the service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// `_apis/artifactcache`.
    V1,
    /// Twirp.
    V2,
}

/// An object of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its key.
    pub(super) key: String,
    /// Where it can be read for some minutes; holds a signature.
    pub(super) url: String,
}

/// Why the service didn't do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServiceError {
    /// It said no.
    #[error("the cache service answers {status}: `{message}`")]
    Answer {
        /// The HTTP status.
        status: u16,
        /// What it said, on one line.
        message: String,
    },
    /// It said no, by a rule of the repository or the job.
    #[error("the cache service answers `{message}`")]
    Policy {
        /// What it said, on one line.
        message: String,
    },
    /// It said that there are too many requests.
    #[error("the cache service got too many requests; it gets no more in this build")]
    TooMany,
    /// It answered something that can't be understood.
    #[error("the cache service's answer is not the expected one: {what}")]
    Unexpected {
        /// In what way.
        what: String,
    },
}

/// What the service says with a refusal, in either version.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    msg: String,
    message: String,
}

/// A client of the service.
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    token: SecretBytes,
    protocol: Protocol,
    stopped: AtomicBool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(
        base: Url,
        token: SecretBytes,
        protocol: Protocol,
        authorities: &Authorities,
    ) -> Result<Self, CacheError> {
        install_provider();
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("memobuild-ci/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(STALL)
            // Whoever holds the tier decides.
            .retry(reqwest::retry::never());
        if is_loopback(&base) {
            http = http.no_proxy();
        }
        let http = authorities
            .trusted_by(http)
            .build()
            .map_err(|source| CacheError::Broken {
                act: "set up the client for",
                subject: subject(),
                source: Box::new(source),
            })?;
        Ok(Self {
            http,
            base,
            token,
            protocol,
            stopped: AtomicBool::new(false),
        })
    }

    /// The object under exactly this key.
    pub(super) async fn find(&self, key: &str) -> Result<Option<Found>, CacheError> {
        let found = self.newest(key).await?;
        Ok(found.filter(|found| found.key == key))
    }

    /// The newest object whose key begins with `prefix`.
    pub(super) async fn newest(&self, prefix: &str) -> Result<Option<Found>, CacheError> {
        let found = match self.protocol {
            Protocol::V1 => super::v1::newest(self, prefix).await?,
            Protocol::V2 => super::v2::newest(self, prefix).await?,
        };
        Ok(found.filter(|found| found.key.starts_with(prefix)))
    }

    /// Makes an object; false if the key is taken.
    pub(super) async fn save(
        &self,
        key: &str,
        source: BlobSource,
        size: u64,
    ) -> Result<bool, CacheError> {
        match self.protocol {
            Protocol::V1 => super::v1::save(self, key, source, size).await,
            Protocol::V2 => super::v2::save(self, key, source, size).await,
        }
    }

    /// Reads from where an object was found: all of it, or a range. None if it isn't there any more or the
    /// address is too old. The answer may hold more than the range: see its status.
    pub(super) async fn read(
        &self,
        url: &str,
        range: Option<Range<u64>>,
    ) -> Result<Option<Response>, CacheError> {
        let url = Url::parse(url).map_err(|_| unexpected("read from", "an address is none"))?;
        let mut request = self.http.get(url);
        if let Some(range) = range {
            request = request.header("range", format!("bytes={}-{}", range.start, range.end - 1));
        }
        let response = self.send("read from", request).await?;
        match response.status() {
            status if status.is_success() => Ok(Some(response)),
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            _ => Err(self.refused("read from", response).await),
        }
    }

    /// An address below the service's.
    pub(super) fn url(&self, path: &str) -> Result<Url, CacheError> {
        self.base
            .join(path)
            .map_err(|_| unexpected("open", "its address has no paths"))
    }

    /// A request to the service itself, with the token.
    pub(super) fn request(&self, method: reqwest::Method, url: Url) -> reqwest::RequestBuilder {
        let token = String::from_utf8_lossy(self.token.expose()).into_owned();
        self.http.request(method, url).bearer_auth(token)
    }

    /// A request to where the service keeps bytes: its address is all the permission.
    pub(super) fn upload(&self, url: Url) -> reqwest::RequestBuilder {
        self.http.put(url)
    }

    /// Sends a request; an answer is an answer, whatever it says.
    pub(super) async fn send(
        &self,
        act: &'static str,
        request: reqwest::RequestBuilder,
    ) -> Result<Response, CacheError> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(denied(act, ServiceError::TooMany));
        }
        let response = request.send().await.map_err(|e| unreachable(act, e))?;
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            self.stopped.store(true, Ordering::Relaxed);
            return Err(denied(act, ServiceError::TooMany));
        }
        Ok(response)
    }

    /// What a refusal means.
    pub(super) async fn refused(&self, act: &'static str, response: Response) -> CacheError {
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        let said: Refusal = serde_json::from_str(&text).unwrap_or_default();
        let message = match [said.msg, said.message].into_iter().find(|m| !m.is_empty()) {
            Some(message) => message,
            None => text,
        };
        let message = one_line(&message);
        if is_policy(&message) {
            return denied(act, ServiceError::Policy { message });
        }
        let error = ServiceError::Answer {
            status: status.as_u16(),
            message,
        };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => denied(act, error),
            StatusCode::REQUEST_TIMEOUT => transient(act, error),
            status if status.is_server_error() => transient(act, error),
            _ => broken(act, error),
        }
    }

    /// The JSON of an answer.
    pub(super) async fn json<T: for<'a> Deserialize<'a>>(
        &self,
        act: &'static str,
        response: Response,
    ) -> Result<T, CacheError> {
        if !response.status().is_success() {
            return Err(self.refused(act, response).await);
        }
        let bytes = response.bytes().await.map_err(|e| unreachable(act, e))?;
        serde_json::from_slice(&bytes).map_err(|error| unexpected(act, error))
    }
}

/// Gives the parts of a source one after the other.
pub(super) struct Parts {
    reader: Option<Box<dyn std::io::Read + Send>>,
}

impl Parts {
    pub(super) async fn of(source: BlobSource) -> Result<Self, CacheError> {
        let opened = spawn_blocking(move || source.open()).await;
        let reader = opened.map_err(|e| CacheError::from_io("read", subject(), e.into()))??;
        Ok(Self {
            reader: Some(reader),
        })
    }

    /// The next part; empty at the end.
    pub(super) async fn next(&mut self) -> Result<Bytes, CacheError> {
        let Some(mut reader) = self.reader.take() else {
            return Ok(Bytes::new());
        };
        let read = spawn_blocking(move || {
            let mut part = Vec::new();
            let result = reader.by_ref().take(PART as u64).read_to_end(&mut part);
            result.map(|_| (reader, part))
        });
        let read = read.await.map_err(std::io::Error::from).flatten();
        let (reader, part) = read.map_err(|e| CacheError::from_io("read", subject(), e))?;
        self.reader = Some(reader);
        Ok(part.into())
    }
}

/// What all objects have in the place where other clients put a digest of paths and compression: no
/// client finds another one's objects.
pub(super) fn version() -> String {
    Sha256Digest::of(b"memobuild-ci cache 1").hex()
}

/// Whether the service refuses by a rule and not for this request.
pub(super) fn is_policy(message: &str) -> bool {
    message.starts_with("cache write denied:") || message.starts_with("cache read denied:")
}

pub(super) fn subject() -> Subject {
    Subject::Url("gha://".to_owned())
}

pub(super) fn denied(act: &'static str, source: ServiceError) -> CacheError {
    CacheError::Denied {
        act,
        subject: subject(),
        source: Box::new(source),
    }
}

fn transient(act: &'static str, source: ServiceError) -> CacheError {
    CacheError::Transient {
        act,
        subject: subject(),
        source: Box::new(source),
    }
}

pub(super) fn broken(act: &'static str, source: ServiceError) -> CacheError {
    CacheError::Broken {
        act,
        subject: subject(),
        source: Box::new(source),
    }
}

pub(super) fn unexpected(act: &'static str, what: impl ToString) -> CacheError {
    let what = what.to_string();
    broken(act, ServiceError::Unexpected { what })
}

/// Nobody answered, or not to the end. Addresses hold signatures, so they are left out.
pub(super) fn unreachable(act: &'static str, error: reqwest::Error) -> CacheError {
    let (is_ours, source) = (error.is_builder(), Box::new(error.without_url()));
    match is_ours {
        true => CacheError::Broken {
            act,
            subject: subject(),
            source,
        },
        false => CacheError::Transient {
            act,
            subject: subject(),
            source,
        },
    }
}

/// `text` on one line and not too long. Control characters are left out.
pub(super) fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(LONGEST).collect()
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let ip = bare.parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}
