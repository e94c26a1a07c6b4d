//! Blobs: streamed, verified on the way, continued where they broke.

use std::io::Write;

use reqwest::{
    Response, StatusCode,
    header::{CONTENT_RANGE, RANGE},
};
use sha2::Digest as _;

use super::{
    client::{Operation, text},
    error::{IntegrityError, RegistryError},
};
use crate::digest::Sha256Digest;

/// The part of a blob that is there.
struct Partial<'a> {
    out: &'a mut (dyn Write + Send),
    progress: &'a (dyn Fn(u64) + Sync),
    sha256: sha2::Sha256,
    done: u64,
    size: u64,
}

/// Writes a blob to `out`; see [`Registry::fetch_blob`](super::Registry::fetch_blob).
pub(super) async fn fetch(
    operation: &mut Operation,
    digest: &Sha256Digest,
    size: u64,
    out: &mut (dyn Write + Send),
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), RegistryError> {
    let path = format!("blobs/{digest}");
    let mut partial = Partial {
        out,
        progress,
        sha256: sha2::Sha256::new(),
        done: 0,
        size,
    };
    loop {
        let before = partial.done;
        let result = {
            let attempt = partial.fetch_rest(operation, &path);
            operation.attempt(attempt).await
        };
        match result {
            Ok(()) => break,
            // The connection broke after the last byte.
            Err(error) if error.may_pass() && partial.done == size && size > 0 => {
                tracing::debug!(%error, "the blob is complete");
                break;
            }
            Err(error) => {
                if partial.done > before {
                    operation.progressed();
                }
                operation.pause(error).await?;
            }
        }
    }
    let actual = Sha256Digest::from_bytes(partial.sha256.finalize().into());
    match actual == *digest {
        true => Ok(()),
        false => Err(operation.corrupt(IntegrityError::Digest {
            expected: *digest,
            actual,
        })),
    }
}

impl Partial<'_> {
    /// One request for all that is missing.
    async fn fetch_rest(&mut self, operation: &Operation, path: &str) -> Result<(), RegistryError> {
        let from = self.done;
        let mut response = operation
            .get(&operation.url(path)?, |request| match from {
                0 => request,
                from => request.header(RANGE, format!("bytes={from}-")),
            })
            .await?;
        // A server without ranges starts again; what we have is skipped.
        let start = self.start(operation, &response)?;
        let mut skip = from - start;
        if let Some(length) = response.content_length()
            && start + length != self.size
        {
            return Err(self.wrong_size(operation, start + length));
        }
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| operation.network(error))?
        {
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            let new = chunk.slice(usize::try_from(skipped).unwrap_or(chunk.len())..);
            if !new.is_empty() {
                self.take(operation, &new)?;
            }
        }
        match self.done == self.size {
            true => Ok(()),
            // The end was clean: it is the registry that has fewer bytes.
            false => Err(self.wrong_size(operation, self.done)),
        }
    }

    /// The position of the answer's first byte in the blob.
    fn start(&self, operation: &Operation, response: &Response) -> Result<u64, RegistryError> {
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Ok(0);
        }
        let header = text(response.headers(), CONTENT_RANGE.as_str()).unwrap_or_default();
        let start = header
            .strip_prefix("bytes ")
            .and_then(|range| range.split_once('-'))
            .and_then(|(start, _)| start.parse::<u64>().ok());
        match start {
            Some(start) if start == self.done => Ok(start),
            _ => Err(operation.corrupt(IntegrityError::Range {
                expected: self.done,
                actual: header.to_owned(),
            })),
        }
    }

    /// Writes and hashes `bytes`.
    fn take(&mut self, operation: &Operation, bytes: &[u8]) -> Result<(), RegistryError> {
        let done = self.done + bytes.len() as u64;
        if done > self.size {
            return Err(self.wrong_size(operation, done));
        }
        self.out
            .write_all(bytes)
            .map_err(|source| RegistryError::Write {
                subject: operation.subject().clone(),
                source,
            })?;
        self.sha256.update(bytes);
        self.done = done;
        (self.progress)(done);
        Ok(())
    }

    fn wrong_size(&self, operation: &Operation, actual: u64) -> RegistryError {
        operation.corrupt(IntegrityError::Size {
            expected: self.size,
            actual,
        })
    }
}
