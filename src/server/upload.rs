//! Bodies of requests, read with patience that has an end.
//!
//! Each [`Pace::window`] must bring [`Pace::least`] bytes or the end: a sender that stalls or
//! trickles is answered 408, and its connection is closed.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream, Bytes},
    http::StatusCode,
};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::answer::Failure;
use crate::cache::http::wire::{MAX_JSON, code};

/// Most bytes of a body that are read although the answer is known: a client that is still
/// sending would not see the answer.
const DRAIN: u64 = 4 << 20;

/// How slow a peer may be.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long a window is.
    pub window: Duration,
    /// Bytes that must come in each.
    pub least: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(30),
            least: 4 << 10,
        }
    }
}

/// A body being read.
pub(super) struct Upload {
    stream: BodyDataStream,
    pace: Pace,
    deadline: Instant,
    /// Bytes in this window.
    came: u64,
    /// Bytes that are still accepted.
    left: u64,
    what: &'static str,
    limit: u64,
}

impl Upload {
    /// Reads `body`, which may have `limit` bytes; `what` names it.
    pub(super) fn new(body: Body, pace: Pace, what: &'static str, limit: u64) -> Self {
        Self {
            stream: body.into_data_stream(),
            pace,
            deadline: Instant::now() + pace.window,
            came: 0,
            left: limit,
            what,
            limit,
        }
    }

    /// The next bytes; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let next = tokio::time::timeout_at(self.deadline, self.stream.next()).await;
        let Ok(next) = next else {
            let status = StatusCode::REQUEST_TIMEOUT;
            let message = "the body comes too slowly";
            return Err(Failure::new(status, code::TOO_SLOW, message));
        };
        let bytes = match next {
            None => return Ok(None),
            Some(Ok(bytes)) => bytes,
            Some(Err(_)) => return Err(Failure::invalid("the body ends early")),
        };
        let length = bytes.len() as u64;
        let Some(left) = self.left.checked_sub(length) else {
            return Err(Failure::too_large(self.what, self.limit));
        };
        self.left = left;
        self.came += length;
        if self.came >= self.pace.least {
            self.came = 0;
            self.deadline = Instant::now() + self.pace.window;
        }
        Ok(Some(bytes))
    }

    /// The next bytes, gathered until they are `least`; none at the end.
    pub(super) async fn piece(&mut self, least: usize) -> Result<Option<Vec<u8>>, Failure> {
        let mut piece = Vec::new();
        while let Some(bytes) = self.next().await? {
            piece.reserve(least);
            piece.extend_from_slice(&bytes);
            if piece.len() >= least {
                break;
            }
        }
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// All bytes.
    pub(super) async fn all(mut self) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    /// Reads on, for a while, and forgets what it reads.
    pub(super) async fn drain(&mut self) {
        self.left = DRAIN;
        self.deadline = Instant::now() + self.pace.window;
        while let Ok(Some(_)) = self.next().await {}
    }
}

/// The JSON that `body` holds.
pub(super) async fn read_json<T: DeserializeOwned>(body: Body, pace: Pace) -> Result<T, Failure> {
    let limit = MAX_JSON as u64;
    let text = Upload::new(body, pace, "the JSON of a request", limit)
        .all()
        .await?;
    serde_json::from_slice(&text)
        .map_err(|error| Failure::invalid(format!("the body is not what is expected: {error}")))
}
