//! Whether a tier is still talked to, and the figures of what was.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{Direction, GuardLimits, Notice, Slow};
use crate::cache::{CacheError, Subject};

/// What a guard says about its tier, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierNotice {
    /// The tier, by its address.
    pub tier: String,
    /// What follows from it.
    pub trouble: TierTrouble,
    /// The error that led to it, with its causes.
    pub reason: String,
}

/// What a tier is not used for any more in this build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TierTrouble {
    /// For anything.
    Off,
    /// For saving.
    NoWrites,
}

impl std::fmt::Display for TierNotice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tier, reason, .. } = self;
        match self.trouble {
            TierTrouble::Off => write!(f, "the cache `{tier}` is not used any more: {reason}"),
            TierTrouble::NoWrites => {
                write!(f, "nothing more is saved to the cache `{tier}`: {reason}")
            }
        }
    }
}

/// What went over a guard.
#[derive(Debug, Default)]
pub struct TierMeter {
    requests: AtomicU64,
    read: AtomicU64,
    written: AtomicU64,
    failures: AtomicU64,
}

impl TierMeter {
    /// Operations, repeated ones included.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Bytes of blobs read.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes of blobs written; a tier that keeps frames may have been sent fewer.
    pub fn bytes_written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Operations that failed in the end.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The tier is on; the error is the operation's alone.
    Continue,
    /// The tier is off.
    Off,
}

/// How far a tier is trusted to work.
#[derive(Debug)]
enum Health {
    /// Nothing was answered yet; when the first request was made.
    Unknown { since: Option<Instant> },
    /// It answers; failures since the last success.
    On { failures: u32 },
    /// Given up.
    Off,
}

/// The switch of one tier.
pub(super) struct Breaker {
    name: String,
    first_answer: Duration,
    failures: u32,
    notice: Notice,
    meter: Arc<TierMeter>,
    state: Mutex<State>,
}

struct State {
    health: Health,
    writes: bool,
    /// Bodies that broke or trickled since the last that came whole. An answer that only
    /// promises bytes doesn't make up for them.
    broken_bodies: u32,
}

impl Breaker {
    pub(super) fn new(
        name: String,
        limits: &GuardLimits,
        notice: Notice,
        meter: Arc<TierMeter>,
    ) -> Self {
        Self {
            name,
            first_answer: limits.first_answer,
            failures: limits.failures.max(1),
            notice,
            meter,
            state: Mutex::new(State {
                health: Health::Unknown { since: None },
                writes: true,
                broken_bodies: 0,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subject(&self) -> Subject {
        Subject::Url(self.name.clone())
    }

    pub(super) fn meter(&self) -> &TierMeter {
        &self.meter
    }

    /// Whether operations of this direction make sense.
    pub(super) fn is_on(&self, direction: Direction) -> bool {
        let state = self.state();
        !matches!(state.health, Health::Off) && (direction == Direction::Read || state.writes)
    }

    /// When the tier must have answered something; none once it has.
    pub(super) fn first_answer_by(&self) -> Option<Instant> {
        match &mut self.state().health {
            Health::Unknown { since } => {
                Some(*since.get_or_insert_with(Instant::now) + self.first_answer)
            }
            Health::On { .. } | Health::Off => None,
        }
    }

    pub(super) fn succeeded(&self) {
        let health = &mut self.state().health;
        if !matches!(health, Health::Off) {
            *health = Health::On { failures: 0 };
        }
    }

    /// Notes that an operation has failed for good.
    pub(super) fn failed(&self, direction: Direction, error: &CacheError) -> Verdict {
        self.meter.failures.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        if matches!(state.health, Health::Off) {
            return Verdict::Off;
        }
        let trouble = match error {
            // It answered, if wrongly.
            CacheError::Corrupt { .. } => {
                state.health = Health::On { failures: 0 };
                return Verdict::Continue;
            }
            CacheError::Full { .. } | CacheError::ReadOnly { .. } => TierTrouble::NoWrites,
            CacheError::Denied { .. } if direction == Direction::Write => TierTrouble::NoWrites,
            CacheError::Denied { .. } | CacheError::Version { .. } => TierTrouble::Off,
            CacheError::Transient { .. } | CacheError::Broken { .. } => {
                let failures = match &state.health {
                    // One that has never answered has had its retries.
                    Health::Unknown { .. } => self.failures,
                    // Nor is there reason to wait as long again for one that fell silent.
                    Health::On { .. } if direction == Direction::Read && is_silence(error) => {
                        self.failures
                    }
                    Health::On { failures } => failures + 1,
                    Health::Off => return Verdict::Off,
                };
                if failures < self.failures {
                    state.health = Health::On { failures };
                    return Verdict::Continue;
                }
                TierTrouble::Off
            }
        };
        let is_news = match trouble {
            TierTrouble::Off => {
                state.health = Health::Off;
                true
            }
            TierTrouble::NoWrites => std::mem::replace(&mut state.writes, false),
        };
        drop(state);
        if is_news {
            (self.notice)(TierNotice {
                tier: self.name.clone(),
                trouble,
                reason: chain(error),
            });
        }
        match (trouble, direction) {
            (TierTrouble::NoWrites, Direction::Read) => Verdict::Continue,
            _ => Verdict::Off,
        }
    }

    /// Notes that a body ended with an error; wrong bytes are no trouble of this kind.
    pub(super) fn body_broke(&self, error: &io::Error) {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        if matches!(inner, Some(CacheError::Corrupt { .. })) {
            return;
        }
        let error = CacheError::Transient {
            act: "read from",
            subject: self.subject(),
            source: chain(error).into(),
        };
        self.count_body(&error);
    }

    /// Notes that a body came whole.
    pub(super) fn body_ended(&self) {
        self.state().broken_bodies = 0;
    }

    fn count_body(&self, error: &CacheError) {
        let failures = {
            let mut state = self.state();
            state.broken_bodies += 1;
            let failures = state.broken_bodies.saturating_sub(1);
            if let Health::On { failures: counted } = &mut state.health {
                *counted = failures.max(*counted);
            }
            failures
        };
        tracing::debug!(failures, "a body of `{}` broke", self.name);
        self.failed(Direction::Read, error);
    }

    /// Notes that a body trickled.
    pub(super) fn body_failed(&self, error: Slow) -> CacheError {
        let error = CacheError::Transient {
            act: "read from",
            subject: self.subject(),
            source: Box::new(error),
        };
        self.count_body(&error);
        error
    }
}

/// Whether the operation ended for want of an answer.
fn is_silence(error: &CacheError) -> bool {
    let CacheError::Transient { source, .. } = error else {
        return false;
    };
    let slow = source.downcast_ref::<Slow>();
    matches!(slow, Some(Slow::Silent | Slow::Deadline))
}

/// An error with its causes on one line.
pub(in crate::cache) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some errors repeat what they were caused by.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
