//! A tier in use by a build: guarded, with what was measured of it and said about its troubles.

use std::{
    collections::HashSet,
    mem::{Discriminant, discriminant},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    ActionResult, CacheError, Tier,
    guard::{GuardLimits, TierMeter, TierTrouble, chain, guard},
    rate::Rate,
};
use crate::{digest::Sha256Digest, event::Events, key::CacheKey};

/// Characters of a step that are shown.
const SHOWN: usize = 200;

/// A tier and the way to it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) tier: Tier,
    /// From us to the tier.
    pub(super) up: Rate,
    /// From the tier to us.
    pub(super) down: Rate,
    meter: Arc<TierMeter>,
    state: Arc<State>,
    events: Events,
    told: Mutex<HashSet<(Act, Discriminant<CacheError>)>>,
    /// Blobs that the tier has with a size or bytes that aren't theirs.
    wrong: Mutex<HashSet<Sha256Digest>>,
}

/// What the guard has said.
#[derive(Debug, Default)]
struct State {
    off: AtomicBool,
    no_writes: AtomicBool,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Act {
    /// Looking up, fetching.
    Read,
    /// Saving.
    Write,
}

impl Line {
    pub(super) fn new(tier: Tier, events: Events) -> Self {
        let state = Arc::<State>::default();
        let notice = {
            let (state, events) = (Arc::clone(&state), events.clone());
            Arc::new(move |notice: super::guard::TierNotice| {
                match notice.trouble {
                    TierTrouble::Off => state.off.store(true, Ordering::SeqCst),
                    TierTrouble::NoWrites => state.no_writes.store(true, Ordering::SeqCst),
                }
                events.warn(notice.to_string(), None);
            })
        };
        let (tier, meter) = guard(tier, GuardLimits::default(), notice);
        Self {
            tier,
            up: Rate::default(),
            down: Rate::default(),
            meter,
            state,
            events,
            told: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    /// The tier's name.
    pub(super) fn name(&self) -> &str {
        &self.tier.name
    }

    /// The requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.meter.requests()
    }

    /// Whether the tier refuses writes, or has no room for them.
    pub(super) fn refuses_writes(&self) -> bool {
        self.state.no_writes.load(Ordering::SeqCst)
    }

    /// Says that an entry that the tier gave for `key` is not relied on; what it states of its producer is for the
    /// audit log alone, as anybody could have written it.
    pub(super) fn refused(&self, key: CacheKey, entry: &ActionResult, why: &str) {
        let producer = &entry.producer;
        tracing::info!(
            target: "audit",
            tier = self.name(),
            %key,
            scope = %entry.scope,
            step = shown(&entry.step.instruction),
            repository = producer.repository.as_deref(),
            run = producer.run.as_deref(),
            reason = why,
            "refused an entry"
        );
        let (name, step) = (self.name(), shown(&entry.step.instruction));
        let text = format!("an entry of the cache `{name}` for `{step}` counts as a miss: {why}");
        self.events.warn(text, None);
    }

    /// Says that what the tier has for a blob is wrong: who saves it doesn't ask then whether it is there.
    pub(super) fn wrong_blob(&self, digest: Sha256Digest, error: &CacheError) {
        lock(&self.wrong).insert(digest);
        let (tier, reason) = (self.name(), chain(error));
        tracing::info!(target: "audit", tier, %digest, reason, "refused a blob");
        self.trouble(Act::Read, error);
    }

    /// Whether what the tier has for a blob was found to be wrong.
    pub(super) fn has_wrong(&self, digest: &Sha256Digest) -> bool {
        lock(&self.wrong).contains(digest)
    }

    /// Says what is wrong: each kind of trouble once for reading and once for writing; nothing
    /// where the guard has said it already. Whoever wants all that is corrupt asks `cache verify`.
    pub(super) fn trouble(&self, act: Act, error: &CacheError) {
        let kind = (act, discriminant(error));
        let new = lock(&self.told).insert(kind);
        let known =
            self.state.off.load(Ordering::SeqCst) || act == Act::Write && self.refuses_writes();
        if !new || known {
            tracing::debug!(
                tier = self.name(),
                ?act,
                error = chain(error),
                "more trouble"
            );
            return;
        }
        let (name, reason) = (self.name(), chain(error));
        self.events.warn(
            match act {
                Act::Read => format!("trouble with the cache `{name}` counts as a miss: {reason}"),
                Act::Write => format!("a result was not saved to the cache `{name}`: {reason}"),
            },
            None,
        );
    }
}

/// The beginning of a text that is shown to people.
fn shown(text: &str) -> &str {
    let end = text.char_indices().nth(SHOWN);
    &text[..end.map_or(text.len(), |(at, _)| at)]
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
