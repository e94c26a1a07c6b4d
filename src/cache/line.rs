//! A tier in use by a build: what was measured of it, and what was said about its troubles.

use std::{
    collections::HashSet,
    error::Error as _,
    mem::{Discriminant, discriminant},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{CacheError, Tier, rate::Rate};
use crate::event::Events;

/// A tier and the way to it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) tier: Tier,
    /// From us to the tier.
    pub(super) up: Rate,
    /// From the tier to us.
    pub(super) down: Rate,
    requests: AtomicU64,
    events: Events,
    told: Mutex<HashSet<(Act, Discriminant<CacheError>)>>,
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
        Self {
            tier,
            up: Rate::default(),
            down: Rate::default(),
            requests: AtomicU64::new(0),
            events,
            told: Mutex::default(),
        }
    }

    /// The tier's name.
    pub(super) fn name(&self) -> &str {
        &self.tier.name
    }

    /// Counts a request.
    pub(super) fn asked(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// The requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Says what is wrong with the tier: each kind of trouble once for reading and once for
    /// writing, so that a tier that is down is one warning, and every corrupt blob.
    pub(super) fn trouble(&self, act: Act, error: &CacheError) {
        let kind = (act, discriminant(error));
        let new = self
            .told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(kind);
        if !new && !matches!(error, CacheError::Corrupt { .. }) {
            return;
        }
        let name = self.name();
        let reason = reason(error);
        self.events.warn(
            match act {
                Act::Read => format!("trouble with the cache `{name}` counts as a miss: {reason}"),
                Act::Write => format!("a result was not saved to the cache `{name}`: {reason}"),
            },
            None,
        );
    }
}

/// An error with all its causes, on one line.
pub(super) fn reason(error: &CacheError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Some errors repeat their cause.
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
