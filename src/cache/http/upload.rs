//! Blobs on their way out: whole, or those frames of them that the server lacks.

use std::{
    collections::HashSet,
    io::{self, Read as _, Seek as _, SeekFrom},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Body, Method, header::CONTENT_LENGTH};
use tokio_util::io::ReaderStream;

use super::{
    client::{Answer, Client, HttpFailure},
    wire::{Frame, FramesAnswer, FramesRequest, MAX_FRAME, code},
};
use crate::{
    cache::{BlobSource, CacheError, Subject},
    digest::Sha256Digest,
    fs,
};

/// Smaller blobs are sent whole: asking for frames is a round trip more.
const SMALL: u64 = 256 << 10;

/// Frames on their way at a time.
const IN_FLIGHT: usize = 4;

/// Times that a commit is tried: frames may be collected while others are sent.
const COMMITS: usize = 3;

/// Bytes read from a file at a time.
const PIECE: usize = 256 << 10;

const ACT: &str = "write";

/// Sends a blob whole.
pub(super) async fn whole(
    client: &Client,
    digest: Sha256Digest,
    source: BlobSource,
) -> Result<(), CacheError> {
    let subject = Subject::Blob(digest);
    let (size, body) = match source {
        BlobSource::Bytes(bytes) => (bytes.len() as u64, Body::from(bytes)),
        BlobSource::File(path) => {
            let file = blocking(digest, move || Ok(fs::open(&path)?)).await?;
            let length = file.metadata();
            let size = length
                .map_err(|error| CacheError::from_io(ACT, digest, error))?
                .len();
            let reader = ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE);
            (size, Body::wrap_stream(reader))
        }
    };
    let request = client
        .request(Method::PUT, &format!("blobs/{digest}"))
        .header(CONTENT_LENGTH, size)
        .body(body);
    client.send(ACT, &subject, request).await.map(|_| ())
}

/// Sends those frames of a blob that the server lacks; the frames end at `ends`.
pub(super) async fn framed(
    client: &Client,
    digest: Sha256Digest,
    source: BlobSource,
    ends: &[u64],
) -> Result<(), CacheError> {
    let pieces = pieces(ends);
    if ends.last().is_none_or(|size| *size < SMALL) || pieces.len() < 2 {
        return whole(client, digest, source).await;
    }
    let (frames, source) = hash(digest, source, pieces).await?;
    let request = FramesRequest { frames };
    let subject = Subject::Blob(digest);
    let path = format!("blobs/{digest}/frames");
    let answer = client.post(ACT, &subject, &path, &request).await?;
    let answer: FramesAnswer = serde_json::from_slice(&answer)
        .map_err(|error| client.protocol(ACT, format!("its answer is no list: {error}")))?;
    if answer.present {
        return Ok(());
    }
    let mut missing: HashSet<String> = answer.missing.iter().map(ToString::to_string).collect();
    for _ in 0..COMMITS {
        send_frames(client, digest, &source, &request.frames, missing).await?;
        match commit(client, digest, &request).await? {
            None => return Ok(()),
            Some(gone) => missing = gone,
        }
    }
    Err(CacheError::Transient {
        act: ACT,
        subject,
        source: "frames vanish from the server as fast as they are sent".into(),
    })
}

/// Where frames begin, and their sizes; none is larger than the server takes.
fn pieces(ends: &[u64]) -> Vec<(u64, u64)> {
    let mut pieces = Vec::with_capacity(ends.len());
    let mut at = 0;
    for end in ends {
        while at < *end {
            let size = (end - at).min(MAX_FRAME);
            pieces.push((at, size));
            at += size;
        }
    }
    pieces
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    digest: Sha256Digest,
    work: impl FnOnce() -> Result<T, CacheError> + Send + 'static,
) -> Result<T, CacheError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // A panic of ours, or the runtime is shutting down.
        Err(error) => Err(CacheError::Broken {
            act: ACT,
            subject: digest.into(),
            source: Box::new(error),
        }),
    }
}

/// The frames with their digests; gives the source back.
async fn hash(
    digest: Sha256Digest,
    source: BlobSource,
    pieces: Vec<(u64, u64)>,
) -> Result<(Vec<Frame>, BlobSource), CacheError> {
    blocking(digest, move || {
        let mut reader = source.open()?;
        let mut frames = Vec::with_capacity(pieces.len());
        for (_, size) in pieces {
            let mut hasher = blake3::Hasher::new();
            let part = (&mut reader).take(size);
            let read = hasher
                .update_reader(part)
                .map_err(|error| CacheError::from_io("read", digest, error))?
                .count();
            if read != size {
                return Err(CacheError::Corrupt {
                    subject: digest.into(),
                    what: "it is shorter than its frames".to_owned(),
                });
            }
            frames.push(Frame {
                digest: crate::digest::Blake3Digest::from_bytes(*hasher.finalize().as_bytes()),
                size,
            });
        }
        Ok((frames, source))
    })
    .await
}

/// Sends those of `frames` that are `missing`, each once.
async fn send_frames(
    client: &Client,
    digest: Sha256Digest,
    source: &BlobSource,
    frames: &[Frame],
    mut missing: HashSet<String>,
) -> Result<(), CacheError> {
    let mut at = 0;
    let mut wanted = Vec::new();
    for frame in frames {
        if missing.remove(&frame.digest.to_string()) {
            wanted.push((at, *frame));
        }
        at += frame.size;
    }
    let sends = wanted.into_iter().map(async |(at, frame)| {
        let bytes = frame_bytes(digest, source, at, frame.size).await?;
        let subject = Subject::Blob(digest);
        let request = client
            .request(Method::PUT, &format!("frames/{}", frame.digest))
            .body(bytes);
        client.send(ACT, &subject, request).await.map(|_| ())
    });
    stream::iter(sends)
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await
}

/// The bytes of one frame.
async fn frame_bytes(
    digest: Sha256Digest,
    source: &BlobSource,
    at: u64,
    size: u64,
) -> Result<Bytes, CacheError> {
    // No frame is larger than what fits into memory.
    let short = || CacheError::from_io("read", digest, io::ErrorKind::UnexpectedEof.into());
    let length = usize::try_from(size).map_err(|_| short())?;
    match source {
        BlobSource::Bytes(bytes) => {
            let start = usize::try_from(at).map_err(|_| short())?;
            match bytes.len().checked_sub(start) {
                Some(left) if left >= length => Ok(bytes.slice(start..start + length)),
                _ => Err(short()),
            }
        }
        BlobSource::File(path) => {
            let path = path.clone();
            blocking(digest, move || {
                let mut file = fs::open(&path)?;
                let mut bytes = vec![0; length];
                file.seek(SeekFrom::Start(at))
                    .and_then(|_| file.read_exact(&mut bytes))
                    .map_err(|error| CacheError::from_io("read", digest, error))?;
                Ok(bytes.into())
            })
            .await
        }
    }
}

/// Makes the blob visible; or gives the frames that the server lacks.
async fn commit(
    client: &Client,
    digest: Sha256Digest,
    frames: &FramesRequest,
) -> Result<Option<HashSet<String>>, CacheError> {
    let subject = Subject::Blob(digest);
    let request = client
        .request(Method::POST, &format!("blobs/{digest}/commit"))
        .json(frames);
    match client.send_any(ACT, &subject, request).await? {
        Answer::Success(_) => Ok(None),
        Answer::Refused { detail, .. } if detail.code == code::MISSING_FRAMES => {
            Ok(Some(detail.missing.into_iter().collect()))
        }
        Answer::Refused { detail, .. } if detail.code == code::DIGEST => Err(CacheError::Corrupt {
            subject,
            what: detail.message,
        }),
        Answer::Refused { detail, status } => Err(refused(subject, status, detail)),
        Answer::Absent(detail) => Err(refused(subject, 404, detail)),
    }
}

fn refused(subject: Subject, status: u16, detail: super::wire::ErrorDetail) -> CacheError {
    CacheError::Broken {
        act: ACT,
        subject,
        source: Box::new(HttpFailure::Status {
            status,
            code: detail.code,
            message: detail.message,
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_cover_the_blob(sizes in prop::collection::vec(0..3 * MAX_FRAME, 0..20)) {
            let mut end = 0;
            let ends: Vec<u64> = sizes.iter().map(|size| { end += size; end }).collect();
            let mut at = 0;
            for (start, size) in pieces(&ends) {
                prop_assert_eq!(start, at);
                prop_assert!((1..=MAX_FRAME).contains(&size));
                at += size;
            }
            prop_assert_eq!(at, end);
        }
    }
}
