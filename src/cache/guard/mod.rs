//! What stands between a build and a tier: deadlines, retries, a circuit breaker, figures.
//!
//! [`guard`] wraps both halves of a [`Tier`]. What the wrapper promises:
//!
//! - **No operation waits long.** Each has a deadline. As long as a tier has answered nothing,
//!   there is one for all of them, counted from the first request
//!   ([`GuardLimits::first_answer`]): a host that drops packets costs a build
//!   so much and no more. A body that trickles below [`GuardLimits::slowest`] ends as a failure.
//! - **What may pass is tried again**, with growing pauses and jitter, or after the pause that
//!   the tier asked for ([`Later`]), as long as the deadline allows.
//! - **Trouble ends.** After [`GuardLimits::failures`] failed operations in a row, a refusal, or
//!   one question without an answer in time, the tier is *off*: until the end of the build every look-up is a miss at
//!   once, and nothing is written. That is said once, by a [`TierNotice`]. A tier that refuses
//!   writes alone stays readable.
//! - **A miss is a miss and corrupt is corrupt**: neither counts as trouble, and neither is
//!   tried again.
//!
//! As long as the tier is on, errors of single operations come through; callers treat them as
//! misses.

mod body;
mod breaker;

#[cfg(test)]
mod tests;

pub(super) use breaker::chain;
pub use breaker::{TierMeter, TierNotice, TierTrouble};

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    ActionCache, ActionResult, Blob, BlobSource, BlobStore, BoxFuture, CacheError, Later, Scope,
    Tier,
};
use crate::{digest::Sha256Digest, key::CacheKey, registry::backoff};
use body::GuardedBody;
use breaker::{Breaker, Verdict};

/// How much longer a flush may take than writing a small blob.
const FLUSH_FACTOR: u32 = 4;

/// Times and counts of a [`guard`].
#[derive(Debug, Clone)]
pub struct GuardLimits {
    /// From the first request until something has been answered.
    pub first_answer: Duration,
    /// For a look-up or a question which blobs are there, retries included.
    pub lookup: Duration,
    /// As much more for each key or blob that is asked for.
    pub each: Duration,
    /// Until the first byte of a blob.
    pub open: Duration,
    /// For writing an entry.
    pub put_entry: Duration,
    /// For writing a blob, besides the time that its size takes at `slowest`.
    pub put_blob: Duration,
    /// Bytes a second below which a transfer counts as failed, looked at over `window`.
    pub slowest: u64,
    /// How long a transfer may be slower.
    pub window: Duration,
    /// Attempts at one operation.
    pub attempts: u32,
    /// Pause before the second attempt, on average; it doubles with each further one.
    pub backoff: Duration,
    /// Longest pause that a tier may ask for; beyond that the operation has failed.
    pub longest_pause: Duration,
    /// Operations that fail in a row until the tier is off.
    pub failures: u32,
}

impl Default for GuardLimits {
    fn default() -> Self {
        Self {
            first_answer: Duration::from_secs(4),
            lookup: Duration::from_secs(4),
            each: Duration::from_millis(10),
            open: Duration::from_secs(5),
            put_entry: Duration::from_secs(10),
            put_blob: Duration::from_secs(15),
            slowest: 32 << 10,
            window: Duration::from_secs(5),
            attempts: 3,
            backoff: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            failures: 4,
        }
    }
}

/// Is told what a tier is in trouble with, at most a few times in a build.
pub type Notice = Arc<dyn Fn(TierNotice) + Send + Sync>;

/// The tier behind a guard, and the guard's figures.
pub fn guard(tier: Tier, limits: GuardLimits, notice: Notice) -> (Tier, Arc<TierMeter>) {
    let meter = Arc::new(TierMeter::default());
    let breaker = Breaker::new(tier.name.clone(), &limits, notice, Arc::clone(&meter));
    let shared = Arc::new(Guarded {
        actions: tier.actions,
        blobs: tier.blobs,
        limits,
        breaker: Arc::new(breaker),
    });
    let guarded = Tier {
        name: tier.name,
        actions: Arc::clone(&shared) as Arc<dyn ActionCache>,
        blobs: shared,
        access: tier.access,
    };
    (guarded, meter)
}

/// Both halves of a tier behind one breaker.
struct Guarded {
    actions: Arc<dyn ActionCache>,
    blobs: Arc<dyn BlobStore>,
    limits: GuardLimits,
    breaker: Arc<Breaker>,
}

/// Which switch of the breaker an operation obeys and moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

impl Guarded {
    /// Runs an operation within `deadline`, again where that may help. None: the tier is
    /// off, for reading or for writing.
    async fn run<'a, T>(
        &'a self,
        direction: Direction,
        act: &'static str,
        deadline: Duration,
        mut operation: impl FnMut() -> BoxFuture<'a, Result<T, CacheError>> + Send,
    ) -> Option<Result<T, CacheError>>
    where
        T: Send + 'a,
    {
        if !self.breaker.is_on(direction) {
            return None;
        }
        let end = Instant::now() + deadline;
        let mut attempt = 1;
        let error = loop {
            self.breaker.meter().request();
            // What is sent takes its time before there can be an answer.
            let first = match direction {
                Direction::Read => self.breaker.first_answer_by(),
                Direction::Write => None,
            };
            let until = first.map_or(end, |first| first.min(end));
            match tokio::time::timeout_at(until, operation()).await {
                Ok(Ok(value)) => {
                    self.breaker.succeeded();
                    return Some(Ok(value));
                }
                Ok(Err(error)) => {
                    let Some(pause) = self.pause(&error, attempt) else {
                        break error;
                    };
                    if Instant::now() + pause >= until {
                        break error;
                    }
                    tokio::time::sleep(pause).await;
                    attempt += 1;
                }
                Err(_) => break self.too_slow(act, first.is_some_and(|first| first <= end)),
            }
            // Another operation's failure may have ended the tier meanwhile.
            if !self.breaker.is_on(direction) {
                return None;
            }
        };
        match self.breaker.failed(direction, &error) {
            Verdict::Continue => Some(Err(error)),
            Verdict::Off => None,
        }
    }

    /// The pause before the next attempt, if there is to be one.
    fn pause(&self, error: &CacheError, attempt: u32) -> Option<Duration> {
        if !error.is_transient() || attempt >= self.limits.attempts {
            return None;
        }
        match Later::asked_by(error) {
            Some(asked) => (asked <= self.limits.longest_pause).then_some(asked),
            None => Some(backoff(
                self.limits.backoff,
                attempt,
                self.limits.longest_pause,
            )),
        }
    }

    fn too_slow(&self, act: &'static str, silent: bool) -> CacheError {
        CacheError::Transient {
            act,
            subject: self.breaker.subject(),
            source: Box::new(match silent {
                true => Slow::Silent,
                false => Slow::Deadline,
            }),
        }
    }

    /// The deadline for writing so many bytes.
    fn put_deadline(&self, source: &BlobSource) -> Duration {
        let size = source.size().unwrap_or(0);
        self.limits.put_blob + Duration::from_secs(size / self.limits.slowest.max(1))
    }

    /// The deadline for asking for so many things at once.
    fn lookup_deadline(&self, count: usize) -> Duration {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.limits.lookup + self.limits.each.saturating_mul(count)
    }

    /// An error for a write to a tier that is off, so that the writer keeps its work.
    fn off<T>(&self, act: &'static str) -> Result<T, CacheError> {
        Err(CacheError::Transient {
            act,
            subject: self.breaker.subject(),
            source: Box::new(Slow::Off),
        })
    }
}

/// Why a guard ended an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Slow {
    /// The tier has never answered.
    #[error("no answer in time")]
    Silent,
    /// This operation took too long.
    #[error("it took too long")]
    Deadline,
    /// A body came too slowly.
    #[error("the transfer is too slow")]
    Trickle,
    /// The tier was given up before.
    #[error("the cache was given up for this build")]
    Off,
}

impl ActionCache for Guarded {
    fn lookup<'a>(
        &'a self,
        scopes: &'a [Scope],
        keys: &'a [CacheKey],
    ) -> BoxFuture<'a, Result<Vec<Option<ActionResult>>, CacheError>> {
        Box::pin(async move {
            let found = self
                .run(
                    Direction::Read,
                    "look up keys in",
                    self.lookup_deadline(scopes.len().saturating_mul(keys.len())),
                    || self.actions.lookup(scopes, keys),
                )
                .await;
            found.unwrap_or_else(|| Ok(vec![None; keys.len()]))
        })
    }

    fn put<'a>(&'a self, result: &'a ActionResult) -> BoxFuture<'a, Result<(), CacheError>> {
        Box::pin(async move {
            let put = self
                .run(Direction::Write, "write to", self.limits.put_entry, || {
                    self.actions.put(result)
                })
                .await;
            put.unwrap_or_else(|| self.off("write to"))
        })
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), CacheError>> {
        Box::pin(async move {
            // It sends what was gathered, as much as a blob of some size.
            let flushed = self
                .run(
                    Direction::Write,
                    "write to",
                    FLUSH_FACTOR * self.limits.put_blob,
                    || self.actions.flush(),
                )
                .await;
            flushed.unwrap_or_else(|| self.off("write to"))
        })
    }
}

impl BlobStore for Guarded {
    fn contains<'a>(
        &'a self,
        digests: &'a [Sha256Digest],
    ) -> BoxFuture<'a, Result<Vec<bool>, CacheError>> {
        Box::pin(async move {
            let found = self
                .run(
                    Direction::Read,
                    "look for blobs in",
                    self.lookup_deadline(digests.len()),
                    || self.blobs.contains(digests),
                )
                .await;
            found.unwrap_or_else(|| Ok(vec![false; digests.len()]))
        })
    }

    fn get(&self, digest: Sha256Digest) -> BoxFuture<'_, Result<Option<Blob>, CacheError>> {
        Box::pin(async move {
            let blob = self
                .run(Direction::Read, "read from", self.limits.open, || {
                    self.blobs.get(digest)
                })
                .await;
            let Some(blob) = blob.transpose()?.flatten() else {
                return Ok(None);
            };
            Ok(Some(Blob {
                size: blob.size,
                reader: Box::new(GuardedBody::new(
                    blob.reader,
                    Arc::clone(&self.breaker),
                    &self.limits,
                )),
            }))
        })
    }

    fn put(
        &self,
        digest: Sha256Digest,
        source: BlobSource,
    ) -> BoxFuture<'_, Result<(), CacheError>> {
        Box::pin(async move {
            let size = source.size().unwrap_or(0);
            let put = self
                .run(
                    Direction::Write,
                    "write to",
                    self.put_deadline(&source),
                    || self.blobs.put(digest, source.clone()),
                )
                .await;
            self.count_written(&put, size);
            put.unwrap_or_else(|| self.off("write to"))
        })
    }

    fn put_framed(
        &self,
        digest: Sha256Digest,
        source: BlobSource,
        ends: Arc<[u64]>,
    ) -> BoxFuture<'_, Result<(), CacheError>> {
        Box::pin(async move {
            let size = source.size().unwrap_or(0);
            let put = self
                .run(
                    Direction::Write,
                    "write to",
                    self.put_deadline(&source),
                    || {
                        self.blobs
                            .put_framed(digest, source.clone(), Arc::clone(&ends))
                    },
                )
                .await;
            self.count_written(&put, size);
            put.unwrap_or_else(|| self.off("write to"))
        })
    }

    fn has_ranges(&self) -> bool {
        self.blobs.has_ranges()
    }

    fn read_range(
        &self,
        digest: Sha256Digest,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Option<Bytes>, CacheError>> {
        Box::pin(async move {
            let bytes = self
                .run(Direction::Read, "read from", self.limits.open, || {
                    self.blobs.read_range(digest, range.clone())
                })
                .await;
            let bytes = bytes.transpose()?.flatten();
            if let Some(bytes) = &bytes {
                self.breaker.meter().read(bytes.len() as u64);
            }
            Ok(bytes)
        })
    }
}

impl Guarded {
    fn count_written(&self, put: &Option<Result<(), CacheError>>, size: u64) {
        if matches!(put, Some(Ok(()))) {
            self.breaker.meter().wrote(size);
        }
    }
}
