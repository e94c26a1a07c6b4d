//! Pushes: blobs in one request or streamed and continued, mounts, manifests (distribution
//! specification 1.1, "Pushing Blobs" and "Pushing Manifests").
//!
//! A small blob is a POST and a PUT with all bytes. A large one is a POST, a PATCH with all bytes as
//! a stream, and an empty PUT; when the PATCH breaks, the registry is asked how far it got
//! and the next PATCH brings the rest, or all is sent again where it doesn't say. That is
//! what Docker does, so registries are used to it.
//!
//! Registries refuse bytes of another digest, and manifests whose blobs they don't have.

use std::{io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{
    Body, Method, RequestBuilder, StatusCode, Url,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE},
};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::{
    client::{Operation, text},
    error::RegistryError,
    transport::Pulse,
};
use crate::{
    digest::Sha256Digest,
    fs::{self, FsError},
};

/// Largest blob in bytes that is pushed by one request.
const WHOLE_LIMIT: u64 = 4 << 20;
/// Bytes read from a file at a time.
const PIECE: usize = 256 << 10;

/// Where the bytes of a blob to be pushed come from.
#[derive(Debug, Clone)]
pub enum UploadSource {
    /// In memory.
    Bytes(Bytes),
    /// A file, which must not change meanwhile.
    File(PathBuf),
}

/// Is told how many bytes of a blob have been handed to the network: fewer than before where a
/// registry has to be sent some again.
pub type Sent = Arc<dyn Fn(u64) + Send + Sync>;

impl UploadSource {
    /// Size in bytes.
    fn size(&self) -> Result<u64, FsError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::File(path) => fs::size(path),
        }
    }

    /// The bytes from `from` to the end at `size` as a request's body.
    fn body(&self, from: u64, size: u64, pulse: &Pulse, sent: &Sent) -> Body {
        let (pulse, sent) = (pulse.clone(), Arc::clone(sent));
        let mut done = from;
        let mut beat = move |piece: &Bytes| {
            pulse.beat();
            done += piece.len() as u64;
            sent(done);
        };
        match self {
            Self::Bytes(bytes) => {
                let at = usize::try_from(from).unwrap_or(usize::MAX);
                let rest = bytes.slice(at.min(bytes.len())..);
                let pieces = stream::unfold(rest, |mut rest| async {
                    let piece = rest.split_to(PIECE.min(rest.len()));
                    (!piece.is_empty()).then_some((piece, rest))
                });
                Body::wrap_stream(pieces.map(move |piece| {
                    beat(&piece);
                    Ok::<_, io::Error>(piece)
                }))
            }
            Self::File(path) => {
                let path = path.clone();
                let opened = async move {
                    let file = fs::open(path).map_err(io::Error::other)?;
                    let mut file = tokio::fs::File::from_std(file);
                    file.seek(io::SeekFrom::Start(from)).await?;
                    let rest = file.take(size.saturating_sub(from));
                    Ok::<_, io::Error>(ReaderStream::with_capacity(rest, PIECE))
                };
                let pieces = stream::once(opened).try_flatten();
                Body::wrap_stream(pieces.inspect_ok(beat))
            }
        }
    }
}

/// An upload that was begun.
struct Session {
    /// Where the next request goes.
    url: Url,
    /// Bytes that the registry has.
    done: u64,
    /// Whether the registry may have got the last request already.
    is_closing: bool,
}

/// Pushes the blob `digest`.
pub(super) async fn blob(
    operation: &mut Operation,
    digest: &Sha256Digest,
    source: &UploadSource,
    sent: &Sent,
) -> Result<(), RegistryError> {
    let size = source.size().map_err(|source| RegistryError::Read {
        subject: operation.subject().clone(),
        source,
    })?;
    let mut session = None;
    let mut furthest = 0;
    loop {
        let was_continued = session.is_some();
        let result = {
            let attempt = advance(operation, &mut session, digest, (source, size), sent);
            operation.attempt(attempt).await
        };
        let error = match result {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // The registry has forgotten the upload or sees its end elsewhere.
        if was_continued && is_lost(&error) {
            session = None;
            continue;
        }
        operation.pause(error).await?;
        if let Some(broken) = session.take() {
            if broken.is_closing && is_there(operation, digest).await? {
                return Ok(());
            }
            session = where_it_broke(operation, &broken, size).await;
        }
        if let Some(session) = &session
            && session.done > furthest
        {
            furthest = session.done;
            operation.progressed();
        }
    }
}

/// Whether `error` says that an upload can't be continued.
fn is_lost(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::NotFound { .. }
            | RegistryError::Refused { .. }
            | RegistryError::Range { .. }
    )
}

/// One attempt to push all that is missing; `session` is how far it got.
async fn advance(
    operation: &Operation,
    session: &mut Option<Session>,
    digest: &Sha256Digest,
    (source, size): (&UploadSource, u64),
    sent: &Sent,
) -> Result<(), RegistryError> {
    let session = match session {
        Some(session) => session,
        None => session.insert(Session {
            url: begin(operation).await?,
            done: 0,
            is_closing: false,
        }),
    };
    let pulse = Pulse::new();
    let with_rest = |request: RequestBuilder, from: u64| {
        request
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, size - from)
            .body(source.body(from, size, &pulse, sent))
    };
    if size > WHOLE_LIMIT && session.done < size {
        let from = session.done;
        let prepare = |request: RequestBuilder| match from {
            0 => with_rest(request, from),
            from => with_rest(request, from)
                .header(CONTENT_RANGE, format!("{from}-{}", size.saturating_sub(1))),
        };
        let answer = operation
            .send(Method::PATCH, &session.url, &pulse, prepare)
            .await?;
        session.url = operation.location(&session.url, answer.headers())?;
        session.done = size;
    }
    let mut url = session.url.clone();
    url.query_pairs_mut()
        .append_pair("digest", &digest.to_string());
    session.is_closing = true;
    let from = session.done;
    operation
        .send(Method::PUT, &url, &pulse, |request| {
            with_rest(request, from)
        })
        .await?;
    Ok(())
}

/// Begins an upload; gives its address.
async fn begin(operation: &Operation) -> Result<Url, RegistryError> {
    let url = operation.url("blobs/uploads/")?;
    let answer = operation.ask(Method::POST, &url, empty).await?;
    operation.location(&url, answer.headers())
}

/// A request without a body.
fn empty(request: RequestBuilder) -> RequestBuilder {
    request.header(CONTENT_LENGTH, 0)
}

/// The upload as the registry has it; none if it can't be continued, for whatever reason: then
/// all is sent again.
async fn where_it_broke(operation: &Operation, broken: &Session, size: u64) -> Option<Session> {
    if size <= WHOLE_LIMIT {
        return None;
    }
    let request = operation.get(&broken.url, |request| request);
    let answer = operation.attempt(request).await.ok()?;
    let done = received(answer.headers())?;
    (done <= size).then_some(Session {
        // A registry without a new address for each request may leave it out.
        url: operation
            .location(&broken.url, answer.headers())
            .unwrap_or_else(|_| broken.url.clone()),
        done,
        is_closing: false,
    })
}

/// The number of bytes that an upload has, by its `Range` header: `0-<last byte>`. Nothing is
/// `0-0`.
fn received(headers: &HeaderMap) -> Option<u64> {
    let range = text(headers, RANGE.as_str())?;
    let last = range
        .strip_prefix("bytes=")
        .unwrap_or(range)
        .strip_prefix("0-")?;
    match last.parse().ok()? {
        0 => Some(0),
        last => u64::checked_add(last, 1),
    }
}

/// Whether the repository has the blob `digest`.
async fn is_there(operation: &mut Operation, digest: &Sha256Digest) -> Result<bool, RegistryError> {
    Ok(size(operation, digest).await?.is_some())
}

/// The size in bytes of the blob `digest`; none if it is not there.
pub(super) async fn size(
    operation: &mut Operation,
    digest: &Sha256Digest,
) -> Result<Option<u64>, RegistryError> {
    let url = operation.url(&format!("blobs/{digest}"))?;
    loop {
        let request = operation.ask(Method::HEAD, &url, |request| request);
        match operation.attempt(request).await {
            Ok(answer) => {
                // The length of the body that a GET would have: this answer has none.
                let length = text(answer.headers(), CONTENT_LENGTH.as_str());
                return match length.and_then(|length| length.parse().ok()) {
                    Some(length) => Ok(Some(length)),
                    None => Err(operation.protocol("doesn't tell the size of a blob".to_owned())),
                };
            }
            Err(RegistryError::NotFound { .. }) => return Ok(None),
            Err(error) => operation.pause(error).await?,
        }
    }
}

/// Has the registry take the blob `digest` over from the repository `from`, a path on the same
/// host; false if it would rather have the bytes.
pub(super) async fn mount(
    operation: &mut Operation,
    digest: &Sha256Digest,
    from: &str,
) -> Result<bool, RegistryError> {
    let mut url = operation.url("blobs/uploads/")?;
    url.query_pairs_mut()
        .append_pair("mount", &digest.to_string())
        .append_pair("from", from);
    loop {
        let request = operation.ask(Method::POST, &url, empty);
        match operation.attempt(request).await {
            Ok(answer) if answer.status() == StatusCode::CREATED => return Ok(true),
            Ok(answer) => {
                // An upload was begun instead; that it can't be ended only costs the registry.
                if let Ok(begun) = operation.location(&url, answer.headers()) {
                    let request = operation.ask(Method::DELETE, &begun, empty);
                    let _ = operation.attempt(request).await;
                }
                return Ok(false);
            }
            Err(error) => operation.pause(error).await?,
        }
    }
}

/// Pushes a manifest under `selector`, a tag or its digest.
pub(super) async fn manifest(
    operation: &mut Operation,
    selector: &str,
    media_type: &str,
    bytes: &Bytes,
) -> Result<Sha256Digest, RegistryError> {
    let url = operation.url(&format!("manifests/{selector}"))?;
    loop {
        let request = operation.ask(Method::PUT, &url, |request| {
            request.header(CONTENT_TYPE, media_type).body(bytes.clone())
        });
        match operation.attempt(request).await {
            Ok(_) => return Ok(Sha256Digest::of(bytes)),
            Err(error) => operation.pause(error).await?,
        }
    }
}

/// The digest of the manifest under `selector`, as the registry tells it without sending it; none if
/// it is not there, or the registry doesn't tell.
pub(super) async fn manifest_digest(
    operation: &mut Operation,
    selector: &str,
    media_type: &str,
) -> Result<Option<Sha256Digest>, RegistryError> {
    let url = operation.url(&format!("manifests/{selector}"))?;
    loop {
        let request = operation.ask(Method::HEAD, &url, |request| {
            request.header(ACCEPT, media_type)
        });
        match operation.attempt(request).await {
            Ok(answer) => {
                let digest = text(answer.headers(), "docker-content-digest");
                return Ok(digest.and_then(|digest| digest.parse().ok()));
            }
            Err(RegistryError::NotFound { .. }) => return Ok(None),
            Err(error) => operation.pause(error).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_an_upload_tells_what_is_there() {
        let received = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            super::received(&headers)
        };
        assert_eq!(received("0-0"), Some(0));
        assert_eq!(received("0-99"), Some(100));
        assert_eq!(received("bytes=0-99"), Some(100));
        assert_eq!(received("5-99"), None);
        assert_eq!(received("0-18446744073709551615"), None);
        assert_eq!(received("0-x"), None);
        assert_eq!(super::received(&HeaderMap::new()), None);
    }
}
