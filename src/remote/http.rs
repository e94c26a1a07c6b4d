//! Files from web servers.
//!
//! As BuildKit and Go's client do it: redirects are followed, credentials in the URL are
//! sent as basic authentication, proxies come from the environment but never stand
//! between us and this machine, a content that is gzip by its `Content-Encoding` is decoded.
//! Failures that may pass are tried again as often as the registry's are.

use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    path::Path,
};

use reqwest::{
    Response, StatusCode, Url,
    header::{
        CONTENT_ENCODING, ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
        RETRY_AFTER,
    },
    redirect,
};
use time::OffsetDateTime;

use super::{RemoteError, store::UrlRecord};
use crate::{
    digest::{HashingWriter, Sha256Digest},
    event::{BuildEvent, Events},
    fs::{self, IoContext as _},
    oci::reference::is_loopback,
    redact,
    registry::{Authorities, Limits, install_provider, is_tls, pause_after, retry_after},
};

/// Redirects followed for one request, as Go's client does.
const REDIRECT_LIMIT: usize = 10;

/// A client for all servers.
#[derive(Debug)]
pub(super) struct HttpClient {
    remote: reqwest::Client,
    /// For servers on this machine: no proxy.
    local: reqwest::Client,
    limits: Limits,
    events: Events,
}

/// What a server gave.
#[derive(Debug)]
pub(super) enum Answer {
    /// The content is the one that is known already.
    Unchanged,
    /// The content was written; this is what to remember.
    New(UrlRecord),
}

impl HttpClient {
    pub(super) fn new(
        limits: Limits,
        authorities: &Authorities,
        events: Events,
    ) -> Result<Self, RemoteError> {
        install_provider();
        let builder = || {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("memobuild-ci/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(limits.connect)
                .read_timeout(limits.stall)
                .redirect(redirect::Policy::limited(REDIRECT_LIMIT))
                // Our own policy decides.
                .retry(reqwest::retry::never());
            authorities.trusted_by(builder)
        };
        Ok(Self {
            remote: builder().build().map_err(RemoteError::Client)?,
            local: builder().no_proxy().build().map_err(RemoteError::Client)?,
            limits,
            events,
        })
    }

    /// Writes what `url` gives to the file at `dest`, unless it is what `known` describes.
    pub(super) async fn get(
        &self,
        url: &str,
        known: Option<&UrlRecord>,
        dest: &Path,
    ) -> Result<Answer, RemoteError> {
        let what = redact::url_credentials(url).into_owned();
        let limit = self.limits.blob;
        match tokio::time::timeout(limit, self.try_get(&what, url, known, dest)).await {
            Ok(result) => result,
            Err(_) => Err(RemoteError::Deadline { what, limit }),
        }
    }

    async fn try_get(
        &self,
        what: &str,
        url: &str,
        known: Option<&UrlRecord>,
        dest: &Path,
    ) -> Result<Answer, RemoteError> {
        let invalid = || RemoteError::Url {
            what: what.to_owned(),
        };
        let url = Url::parse(url).map_err(|_| invalid())?;
        let host = url.host_str().ok_or_else(invalid)?;
        let client = match is_loopback(host) {
            true => &self.local,
            false => &self.remote,
        };
        let mut failures = 0;
        loop {
            let error = match attempt(client, &self.events, what, &url, known, dest).await {
                Err(error) if error.trouble() == crate::registry::Trouble::Transient => error,
                result => return result,
            };
            failures += 1;
            let Some(pause) = pause_after(&self.limits, failures, error.retry_after()) else {
                return Err(error);
            };
            tracing::debug!(failures, ?pause, %error, "trying again");
            tokio::time::sleep(pause).await;
        }
    }
}

/// One request.
async fn attempt(
    client: &reqwest::Client,
    events: &Events,
    what: &str,
    url: &Url,
    known: Option<&UrlRecord>,
    dest: &Path,
) -> Result<Answer, RemoteError> {
    let mut request = client.get(url.clone());
    // A tag is exact, a time only to the second.
    match known {
        Some(UrlRecord {
            etag: Some(etag), ..
        }) => request = request.header(IF_NONE_MATCH, etag),
        Some(UrlRecord {
            last_modified: Some(time),
            ..
        }) => request = request.header(IF_MODIFIED_SINCE, time),
        _ => {}
    }
    let network = |error| network(what, error);
    let mut response = request.send().await.map_err(network)?;
    if response.status() == StatusCode::NOT_MODIFIED && known.is_some() {
        return Ok(Answer::Unchanged);
    }
    if !response.status().is_success() {
        return Err(status(what, &response));
    }
    let mut file = fs::create(dest)?;
    let mut out = HashingWriter::new(&mut file);
    let total = response.content_length();
    while let Some(chunk) = response.chunk().await.map_err(network)? {
        out.write_all(&chunk).at("write", dest)?;
        events.send(BuildEvent::Transfer {
            what: what.to_owned(),
            current: out.size(),
            total,
        });
    }
    let mut sha256 = out.finish().1.sha256;
    let headers = response.headers();
    if header(headers, CONTENT_ENCODING.as_str()).is_some_and(|e| e.eq_ignore_ascii_case("gzip")) {
        sha256 = decode(what, &mut file, dest)?;
    }
    let etag = header(headers, ETAG.as_str());
    let last_modified = header(headers, LAST_MODIFIED.as_str());
    Ok(Answer::New(UrlRecord::new(sha256, etag, last_modified)))
}

/// Replaces the gzip in `file` by what it holds.
fn decode(what: &str, file: &mut File, dest: &Path) -> Result<Sha256Digest, RemoteError> {
    file.rewind().at("read", dest)?;
    let mut encoded = fs::temp_file().at("make a temporary file for", dest)?;
    std::io::copy(file, &mut encoded).at("copy", dest)?;
    encoded.rewind().at("read", dest)?;
    file.rewind().at("write", dest)?;
    file.set_len(0).at("write", dest)?;
    let mut out = HashingWriter::new(file);
    let mut decoder = flate2::read::MultiGzDecoder::new(encoded);
    let mut part = vec![0; 64 << 10];
    loop {
        match decoder.read(&mut part) {
            Ok(0) => return Ok(out.finish().1.sha256),
            Ok(n) => out.write_all(&part[..n]).at("write", dest)?,
            Err(source) => {
                return Err(RemoteError::Encoding {
                    what: what.to_owned(),
                    source,
                });
            }
        }
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn status(what: &str, response: &Response) -> RemoteError {
    let asked = header(response.headers(), RETRY_AFTER.as_str());
    RemoteError::Status {
        what: what.to_owned(),
        status: response.status().as_u16(),
        retry_after: asked.and_then(|text| retry_after(&text, OffsetDateTime::now_utc())),
    }
}

/// A failure below HTTP. The address is left out: it may hold credentials.
fn network(what: &str, error: reqwest::Error) -> RemoteError {
    let source = error.without_url();
    let what = what.to_owned();
    if is_tls(&source) {
        return RemoteError::Tls { what, source };
    }
    if source.is_redirect() {
        return RemoteError::Redirect { what, source };
    }
    if source.is_builder() {
        return RemoteError::Url { what };
    }
    RemoteError::Unreachable { what, source }
}
