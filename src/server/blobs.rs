//! Blobs and frames over HTTP.

use std::{collections::VecDeque, fs::File, io, io::Read as _, sync::Arc};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use tokio::task::JoinHandle;

use super::{
    Shared,
    answer::{self, Failure, blocking, joined},
    auth::Permission,
    gate::Caller,
    range::{Ranged, ranged},
    store::{BlobParts, Committed, Namespace, Published, Store, StoreError},
    upload::{Upload, read_json},
    whole::WholeBlob,
};
use crate::{
    cache::http::wire::{
        Frame, FramesAnswer, FramesRequest, MAX_FRAME, MissingAnswer, MissingRequest, code,
    },
    digest::{Blake3Digest, Sha256Digest},
};

/// Pieces that are read and written at a time.
pub(super) const PIECE: usize = 256 << 10;

fn digest(text: &str) -> Result<Sha256Digest, Failure> {
    text.parse().map_err(|e| Failure::invalid(format!("{e}")))
}

/// `POST blobs/missing`: which of many blobs are not here.
pub(super) async fn missing(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Response, Failure> {
    caller.need(Permission::Read, "look for blobs")?;
    let MissingRequest { digests } = read_json(body, server.pace).await?;
    let missing = blocking(move || {
        let present = server.store.present(&caller.namespace, &digests)?;
        let pairs = digests.into_iter().zip(present);
        Ok(pairs.filter(|(_, there)| !there).map(|(d, _)| d).collect())
    })
    .await?;
    Ok(answer::json(&MissingAnswer { missing }))
}

/// `GET` and `HEAD blobs/{digest}`, whole or a range.
pub(super) async fn fetch(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path((_, name)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    caller.need(Permission::Read, "read a blob")?;
    send(&server, caller.namespace, digest(&name)?, &method, &headers).await
}

/// The answer to `GET` and `HEAD` of a blob.
pub(super) async fn send(
    server: &Shared,
    namespace: Namespace,
    digest: Sha256Digest,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let absent = || Failure::not_found(format!("there is no blob `{digest}`"));
    let (store, place) = (server.store.clone(), namespace.clone());
    let blob = blocking(move || store.blob(&place, &digest)).await?;
    let blob = blob.ok_or_else(absent)?;
    let size = blob.size;
    let (status, span) = match ranged(headers.get(header::RANGE), size) {
        Ranged::Whole => (StatusCode::OK, 0..size),
        Ranged::Part(span) => (StatusCode::PARTIAL_CONTENT, span),
        Ranged::Outside => return Ok(outside(size)),
    };
    let mut body = Body::empty();
    if *method != Method::HEAD {
        let mut download = Download::new(server.store.clone(), namespace, &blob, &span);
        // Damage that shows in the first frame can still be answered properly.
        let first = download.next().await;
        let first = first.map_err(|failure| failure.unwrap_or_else(absent))?;
        let rest = stream::try_unfold(download, async |mut download| {
            let next = download.next().await.map_err(|failure| match failure {
                None => io::Error::new(io::ErrorKind::InvalidData, "a frame is damaged"),
                Some(_) => io::Error::other("the store has trouble"),
            })?;
            Ok(next.map(|bytes| (bytes, download)))
        });
        let first = stream::iter(first.map(Ok::<_, io::Error>));
        body = Body::from_stream(futures_util::StreamExt::chain(first, rest));
    }
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, (span.end - span.start).into());
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{digest}\"")) {
        headers.insert(header::ETAG, tag);
    }
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) =
            HeaderValue::from_str(&format!("bytes {}-{}/{size}", span.start, span.end - 1))
    {
        headers.insert(header::CONTENT_RANGE, value);
    }
    Ok(response)
}

/// A range that lies outside of the blob.
fn outside(size: u64) -> Response {
    let status = StatusCode::RANGE_NOT_SATISFIABLE;
    let message = format!("the blob has {size} bytes");
    let mut response = Failure::new(status, code::RANGE, message).into_response();
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response
}

/// A part of a blob on its way out, frame by frame.
struct Download {
    store: Arc<Store>,
    namespace: Namespace,
    /// The frames to come, each with the part of it that is wanted.
    frames: VecDeque<(Frame, std::ops::Range<u64>)>,
    /// The frame that is being sent, and how much of it is left.
    open: Option<(File, u64)>,
    /// The frame after that, being verified meanwhile.
    ahead: Option<(Opening, u64)>,
}

/// A verified frame to come; none if it is damaged.
type Opening = JoinHandle<Result<Option<File>, StoreError>>;

impl Download {
    fn new(
        store: Arc<Store>,
        namespace: Namespace,
        blob: &BlobParts,
        span: &std::ops::Range<u64>,
    ) -> Self {
        let mut at = 0;
        let mut frames = VecDeque::new();
        for frame in &blob.frames {
            let (from, to) = (span.start.max(at), span.end.min(at + frame.size));
            if from < to {
                frames.push_back((*frame, from - at..to - at));
            }
            at += frame.size;
        }
        Self {
            store,
            namespace,
            frames,
            open: None,
            ahead: None,
        }
    }

    /// The next bytes; none at the end. Damage is a failure without an answer of its own.
    async fn next(&mut self) -> Result<Option<Bytes>, Option<Failure>> {
        let open = match self.open.take() {
            Some(open) => Some(open),
            None => self.start().await?,
        };
        let Some((file, left)) = open else {
            return Ok(None);
        };
        let read = tokio::task::spawn_blocking(move || {
            let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let mut piece = vec![0; length];
            let mut file = file;
            file.read_exact(&mut piece).map(|()| (piece, file))
        });
        let Ok(Ok((piece, file))) = read.await else {
            return Err(None);
        };
        let left = left - piece.len() as u64;
        self.open = (left > 0).then_some((file, left));
        Ok(Some(piece.into()))
    }

    /// The next frame where its wanted part begins, with that part's size; none at the end.
    async fn start(&mut self) -> Result<Option<(File, u64)>, Option<Failure>> {
        let opening = match self.ahead.take() {
            Some(ahead) => Some(ahead),
            None => self.look_ahead(),
        };
        let Some((opening, length)) = opening else {
            return Ok(None);
        };
        self.ahead = self.look_ahead();
        match joined(opening.await).map_err(Some)? {
            Some(file) => Ok(Some((file, length))),
            None => Err(None),
        }
    }

    /// Begins to verify the next frame.
    fn look_ahead(&mut self) -> Option<(Opening, u64)> {
        let (frame, part) = self.frames.pop_front()?;
        let (store, namespace) = (self.store.clone(), self.namespace.clone());
        let length = part.end - part.start;
        let opening = tokio::task::spawn_blocking(move || {
            let file = store.open_frame(&namespace, &frame)?;
            Ok(file.and_then(|mut file| {
                io::Seek::seek(&mut file, io::SeekFrom::Start(part.start)).ok()?;
                Some(file)
            }))
        });
        Some((opening, length))
    }
}

/// `PUT blobs/{digest}`: a whole blob.
pub(super) async fn store(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path((_, name)): Path<(String, String)>,
    body: Body,
) -> Result<Response, Failure> {
    let mut upload = Upload::new(body, server.pace, "a blob", u64::MAX);
    let result = store_whole(&server, &caller, &name, &mut upload).await;
    if result.is_err() {
        upload.drain().await;
    }
    result
}

async fn store_whole(
    server: &Arc<Shared>,
    caller: &Caller,
    name: &str,
    upload: &mut Upload,
) -> Result<Response, Failure> {
    caller.need(Permission::Write, "write a blob")?;
    let digest = digest(name)?;
    let whole = WholeBlob::receive(server, caller, upload).await?;
    let done = blocking(move || whole.keep_as(&digest)).await?;
    committed(digest, done)
}

/// The answer to a finished upload.
pub(super) fn committed(digest: Sha256Digest, done: Committed) -> Result<Response, Failure> {
    match done {
        Committed::Done => Ok(StatusCode::NO_CONTENT.into_response()),
        Committed::Mismatch(found) => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            let message = format!("the bytes sent for blob `{digest}` have digest `{found}`");
            Err(Failure::new(status, code::DIGEST, message))
        }
        Committed::Missing(frames) => {
            let message = "frames of the blob are not here";
            let failure = Failure::new(StatusCode::CONFLICT, code::MISSING_FRAMES, message);
            Err(failure.missing(frames.iter().map(ToString::to_string)))
        }
    }
}

/// The frames of a request, if each has a size that a frame can have.
fn checked(request: FramesRequest) -> Result<Vec<Frame>, Failure> {
    match request
        .frames
        .iter()
        .all(|f| (1..=MAX_FRAME).contains(&f.size))
    {
        true => Ok(request.frames),
        false => Err(Failure::invalid(format!(
            "a frame has 1 to {MAX_FRAME} bytes"
        ))),
    }
}

/// `POST blobs/{digest}/frames`: which frames of a blob have to be sent.
pub(super) async fn frames(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path((_, name)): Path<(String, String)>,
    body: Body,
) -> Result<Response, Failure> {
    caller.need(Permission::Write, "write a blob")?;
    let digest = digest(&name)?;
    let frames = checked(read_json(body, server.pace).await?)?;
    let answer = blocking(move || {
        let present = server.store.present(&caller.namespace, &[digest])?;
        if present == [true] {
            return Ok(FramesAnswer {
                present: true,
                missing: Vec::new(),
            });
        }
        Ok(FramesAnswer {
            present: false,
            missing: server.store.lacking(&caller.namespace, &frames)?,
        })
    })
    .await?;
    Ok(answer::json(&answer))
}

/// `POST blobs/{digest}/commit`: makes a blob of frames that are here.
pub(super) async fn commit(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path((_, name)): Path<(String, String)>,
    body: Body,
) -> Result<Response, Failure> {
    caller.need(Permission::Write, "write a blob")?;
    let digest = digest(&name)?;
    let frames = checked(read_json(body, server.pace).await?)?;
    let trust = caller.grant.trust();
    let done = blocking(move || {
        server
            .store
            .commit(&caller.namespace, &digest, &frames, trust)
    })
    .await?;
    committed(digest, done)
}

/// `PUT frames/{digest}`: one frame.
pub(super) async fn store_frame(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path((_, name)): Path<(String, String)>,
    body: Body,
) -> Result<Response, Failure> {
    let mut upload = Upload::new(body, server.pace, "a frame", MAX_FRAME);
    let result = store_one(&server, &caller, &name, &mut upload).await;
    if result.is_err() {
        upload.drain().await;
    }
    result
}

async fn store_one(
    server: &Arc<Shared>,
    caller: &Caller,
    name: &str,
    upload: &mut Upload,
) -> Result<Response, Failure> {
    caller.need(Permission::Write, "write a frame")?;
    let digest: Blake3Digest = name.parse().map_err(|e| Failure::invalid(format!("{e}")))?;
    let store = server.store.clone();
    let mut writer = blocking(move || store.frame_writer()).await?;
    while let Some(piece) = upload.piece(PIECE).await? {
        writer = blocking(move || writer.write(&piece).map(|()| writer)).await?;
    }
    if writer.size() == 0 {
        return Err(Failure::invalid("a frame can't be empty"));
    }
    let (store, namespace) = (server.store.clone(), caller.namespace.clone());
    let trust = caller.grant.trust();
    let published =
        blocking(move || store.publish(&namespace, writer, Some(digest), trust)).await?;
    match published {
        Published::Done(_) => Ok(StatusCode::NO_CONTENT.into_response()),
        Published::Mismatch(found) => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            let message = format!("the bytes sent for frame `{digest}` have digest `{found}`");
            Err(Failure::new(status, code::DIGEST, message))
        }
    }
}
