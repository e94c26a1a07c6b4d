//! Blobs on their way in: streamed, and continued where the connection broke.

use std::{io, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use reqwest::{Method, Response, StatusCode, header};

use super::client::{Answer, Client, network};
use crate::{
    cache::{CacheError, Subject},
    digest::Sha256Digest,
};

/// Times in a row that a download is continued without a byte in between.
const CONTINUATIONS: u32 = 3;

/// Pause before a download is continued; the second time twice as long, and so on.
const PAUSE: Duration = Duration::from_millis(200);

const ACT: &str = "read";

/// A blob being downloaded.
struct Download {
    client: Arc<Client>,
    digest: Sha256Digest,
    size: u64,
    at: u64,
    response: Option<Response>,
    failures: u32,
}

/// Asks for the blob; none if it is not there. Gives its size and its bytes, not verified.
pub(super) async fn start(
    client: Arc<Client>,
    digest: Sha256Digest,
) -> Result<Option<(u64, impl Stream<Item = io::Result<Bytes>> + Send)>, CacheError> {
    let subject = Subject::Blob(digest);
    let request = client.request(Method::GET, &format!("blobs/{digest}"));
    let response = match client.send_any(ACT, &subject, request).await? {
        Answer::Success(response) => response,
        Answer::Absent(_) => return Ok(None),
        Answer::Refused { status, .. } => {
            return Err(client.protocol(ACT, format!("it answered {status} to a download")));
        }
    };
    let Some(size) = response.content_length() else {
        return Err(client.protocol(ACT, "it doesn't say how large a blob is"));
    };
    let download = Download {
        client,
        digest,
        size,
        at: 0,
        response: Some(response),
        failures: 0,
    };
    let bytes = stream::try_unfold(download, async |mut download| {
        let next = download.next().await.map_err(io::Error::other)?;
        Ok(next.map(|bytes| (bytes, download)))
    });
    Ok(Some((size, bytes)))
}

impl Download {
    /// The next bytes; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, CacheError> {
        loop {
            if self.at == self.size {
                return Ok(None);
            }
            let error = match self.attempt().await {
                Ok(bytes) => {
                    self.at += bytes.len() as u64;
                    self.failures = 0;
                    return Ok(Some(bytes));
                }
                Err(error) => error,
            };
            self.response = None;
            if !error.is_transient() || self.failures == CONTINUATIONS {
                return Err(error);
            }
            tracing::debug!(%error, at = self.at, "continuing a download");
            self.failures += 1;
            tokio::time::sleep(PAUSE * self.failures).await;
        }
    }

    /// Bytes of the running answer, or of a new one for the rest.
    async fn attempt(&mut self) -> Result<Bytes, CacheError> {
        let mut response = match self.response.take() {
            Some(response) => response,
            None => part(&self.client, self.digest, self.at..self.size)
                .await?
                .ok_or_else(|| self.transient("it is gone"))?,
        };
        let subject = Subject::Blob(self.digest);
        let chunk = response.chunk().await;
        match chunk.map_err(|error| network(ACT, &subject, error))? {
            Some(bytes) if bytes.len() as u64 > self.size - self.at => {
                Err(self.client.protocol(ACT, "it sends more than it said"))
            }
            Some(bytes) => {
                self.response = Some(response);
                Ok(bytes)
            }
            None => Err(self.transient("the answer ended early")),
        }
    }

    fn transient(&self, why: &'static str) -> CacheError {
        CacheError::Transient {
            act: ACT,
            subject: Subject::Blob(self.digest),
            source: why.into(),
        }
    }
}

/// Asks for a part of a blob; none if the blob is not there.
async fn part(
    client: &Client,
    digest: Sha256Digest,
    range: Range<u64>,
) -> Result<Option<Response>, CacheError> {
    let subject = Subject::Blob(digest);
    let Range { start, end } = range;
    let request = client
        .request(Method::GET, &format!("blobs/{digest}"))
        .header(header::RANGE, format!("bytes={start}-{}", end - 1));
    let response = match client.send_any(ACT, &subject, request).await? {
        Answer::Success(response) => response,
        Answer::Absent(_) => return Ok(None),
        Answer::Refused { status, .. } => {
            let what = format!("it answered {status} to bytes {start} to {end}");
            return Err(CacheError::Corrupt { subject, what });
        }
    };
    let given = response.headers().get(header::CONTENT_RANGE);
    let given = given.and_then(|value| value.to_str().ok());
    let asked = format!("bytes {start}-{}/", end - 1);
    match response.status() {
        StatusCode::PARTIAL_CONTENT if given.is_some_and(|g| g.starts_with(&asked)) => {
            Ok(Some(response))
        }
        StatusCode::PARTIAL_CONTENT => {
            let what = format!("it has other bytes than {start} to {end}");
            Err(CacheError::Corrupt { subject, what })
        }
        _ => Err(client.protocol(ACT, "it doesn't serve parts of blobs")),
    }
}

/// The bytes `range` of a blob, not verified; none if the blob is not there.
pub(super) async fn read_range(
    client: &Client,
    digest: Sha256Digest,
    range: Range<u64>,
) -> Result<Option<Bytes>, CacheError> {
    let length = range.end.saturating_sub(range.start);
    let subject = Subject::Blob(digest);
    if length == 0 {
        return Ok(Some(Bytes::new()));
    }
    let Some(response) = part(client, digest, range).await? else {
        return Ok(None);
    };
    let bytes = response.bytes().await;
    let bytes = bytes.map_err(|error| network(ACT, &subject, error))?;
    match bytes.len() as u64 == length {
        true => Ok(Some(bytes)),
        false => Err(CacheError::Corrupt {
            subject,
            what: format!("it gave {} of {length} bytes", bytes.len()),
        }),
    }
}
