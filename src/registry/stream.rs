//! Blobs as streams, continued where they broke, and ranges of blobs.
//!
//! [`fetch`](super::blob) pushes bytes into a writer and knows the size before; here the reader
//! pulls, and the registry's first answer tells the size. Nothing is verified but the number of bytes.

use std::{fmt, ops::Range};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use reqwest::{
    Response, StatusCode,
    header::{CONTENT_RANGE, RANGE},
};

use super::{
    client::{Operation, text},
    error::{IntegrityError, RegistryError},
};
use crate::digest::Sha256Digest;

/// A blob on its way.
pub struct BlobStream {
    operation: Operation,
    path: String,
    /// The answer that is being read; none after it broke.
    response: Option<Response>,
    done: u64,
    /// Bytes of the answer to leave out: we have them.
    skip: u64,
    size: u64,
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobStream")
            .field("subject", self.operation.subject())
            .field("done", &self.done)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// Begins to read a blob.
pub(super) async fn open(
    mut operation: Operation,
    digest: &Sha256Digest,
) -> Result<BlobStream, RegistryError> {
    let path = format!("blobs/{digest}");
    let url = operation.url(&path)?;
    loop {
        let request = operation.get(&url, |request| request);
        match operation.attempt(request).await {
            Ok(response) => {
                let size = response.content_length().ok_or_else(|| {
                    operation.protocol("doesn't tell the size of a blob".to_owned())
                })?;
                return Ok(BlobStream {
                    operation,
                    path,
                    response: Some(response),
                    done: 0,
                    skip: 0,
                    size,
                });
            }
            Err(error) => operation.pause(error).await?,
        }
    }
}

impl BlobStream {
    /// Size of the blob in bytes as the registry states it.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, RegistryError>> + Send {
        stream::try_unfold(self, |mut blob| async move {
            let piece = blob.next().await?;
            Ok(piece.map(|piece| (piece, blob)))
        })
    }

    /// The next bytes; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        while self.done < self.size {
            let result = {
                let mut response = self.response.take();
                let attempt = self.piece(&mut response);
                let result = self.operation.attempt(attempt).await;
                if result.is_ok() {
                    self.response = response;
                }
                result
            };
            match result {
                Ok((skip, piece)) => {
                    self.skip = skip;
                    if piece.is_empty() {
                        continue;
                    }
                    self.operation.progressed();
                    self.done += piece.len() as u64;
                    if self.done > self.size {
                        return Err(self.wrong_size(self.done));
                    }
                    return Ok(Some(piece));
                }
                Err(error) => self.operation.pause(error).await?,
            }
        }
        Ok(None)
    }

    /// The next piece of `response`, which is asked for where it is none, and how much of what
    /// follows is to be left out.
    async fn piece(&self, response: &mut Option<Response>) -> Result<(u64, Bytes), RegistryError> {
        let mut skip = self.skip;
        let response = match response {
            Some(response) => response,
            None => {
                let (answer, start) = ask(&self.operation, &self.path, self.done, None).await?;
                skip = self.done - start;
                if let Some(length) = answer.content_length()
                    && start + length != self.size
                {
                    return Err(self.wrong_size(start + length));
                }
                response.insert(answer)
            }
        };
        let chunk = response.chunk().await;
        match chunk.map_err(|error| self.operation.network(error))? {
            // The end was clean: it is the registry that has fewer bytes.
            None => Err(self.wrong_size(self.done)),
            Some(chunk) => {
                let skipped = skip.min(chunk.len() as u64);
                let new = chunk.slice(usize::try_from(skipped).unwrap_or(chunk.len())..);
                Ok((skip - skipped, new))
            }
        }
    }

    fn wrong_size(&self, actual: u64) -> RegistryError {
        self.operation.corrupt(IntegrityError::Size {
            expected: self.size,
            actual,
        })
    }
}

/// Asks for a blob from the byte `from` on, up to before `to`; gives the answer and the position
/// in the blob at which it starts: 0 where the registry knows no ranges.
async fn ask(
    operation: &Operation,
    path: &str,
    from: u64,
    to: Option<u64>,
) -> Result<(Response, u64), RegistryError> {
    let range = match to {
        None if from == 0 => None,
        None => Some(format!("bytes={from}-")),
        Some(to) => Some(format!("bytes={from}-{}", to.saturating_sub(1))),
    };
    let url = operation.url(path)?;
    let response = operation
        .get(&url, |request| match &range {
            None => request,
            Some(range) => request.header(RANGE, range),
        })
        .await?;
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Ok((response, 0));
    }
    let header = text(response.headers(), CONTENT_RANGE.as_str()).unwrap_or_default();
    let start = header
        .strip_prefix("bytes ")
        .and_then(|range| range.split_once('-'))
        .and_then(|(start, _)| start.parse::<u64>().ok());
    match start {
        Some(start) if start == from => Ok((response, from)),
        _ => Err(operation.corrupt(IntegrityError::Range {
            expected: from,
            actual: header.to_owned(),
        })),
    }
}

/// The bytes `range` of a blob, fewer if it ends before.
pub(super) async fn range(
    operation: &mut Operation,
    digest: &Sha256Digest,
    range: Range<u64>,
) -> Result<Bytes, RegistryError> {
    let path = format!("blobs/{digest}");
    loop {
        let attempt = part(operation, &path, range.clone());
        match operation.attempt(attempt).await {
            Ok(bytes) => return Ok(bytes),
            Err(RegistryError::Range { .. }) => return Ok(Bytes::new()),
            Err(error) => operation.pause(error).await?,
        }
    }
}

/// One attempt to read a range.
async fn part(
    operation: &Operation,
    path: &str,
    range: Range<u64>,
) -> Result<Bytes, RegistryError> {
    let (mut response, start) = ask(operation, path, range.start, Some(range.end)).await?;
    let mut skip = range.start - start;
    let wanted = range.end.saturating_sub(range.start);
    let mut bytes = BytesMut::new();
    while (bytes.len() as u64) < wanted {
        let chunk = response.chunk().await;
        let Some(mut chunk) = chunk.map_err(|error| operation.network(error))? else {
            break;
        };
        let skipped = skip.min(chunk.len() as u64);
        skip -= skipped;
        let _ = chunk.split_to(usize::try_from(skipped).unwrap_or(chunk.len()));
        chunk.truncate(usize::try_from(wanted - bytes.len() as u64).unwrap_or(usize::MAX));
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}
