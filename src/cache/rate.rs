//! How fast bytes travel, measured on the way.
//!
//! Several transfers run at the same time and share a line. [`Rate`] counts the time in which at
//! least one was under way, so that its figure is that of the line.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Bytes a second that are assumed until something was measured.
const ASSUMED: u64 = 50 << 20;

/// Fewer bytes than these say nothing.
const ENOUGH: u64 = 4 << 20;

/// The rate of one direction of a line.
#[derive(Debug, Default)]
pub(super) struct Rate(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    active: usize,
    since: Option<Instant>,
    busy: Duration,
    bytes: u64,
}

impl State {
    fn busy(&self) -> Duration {
        self.busy + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// A transfer under way.
#[derive(Debug)]
pub(super) struct Transfer<'r>(&'r Rate);

impl Rate {
    /// Notes that a transfer begins; it ends when the value is dropped.
    pub(super) fn begin(&self) -> Transfer<'_> {
        let mut state = self.lock();
        state.active += 1;
        state.since.get_or_insert_with(Instant::now);
        Transfer(self)
    }

    /// How long at least one transfer was under way.
    pub(super) fn busy(&self) -> Duration {
        self.lock().busy()
    }

    /// How long `bytes` take, by what was measured so far or else by what is assumed.
    pub(super) fn time_for(&self, bytes: u64) -> Duration {
        let state = self.lock();
        let (known, busy) = match state.bytes >= ENOUGH {
            true => (state.bytes, state.busy()),
            false => (ASSUMED, Duration::from_secs(1)),
        };
        let nanos = u128::from(bytes) * busy.as_nanos() / u128::from(known);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transfer<'_> {
    /// Notes bytes that went over the line.
    pub(super) fn add(&self, bytes: u64) {
        self.0.lock().bytes += bytes;
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.active -= 1;
        if state.active == 0
            && let Some(since) = state.since.take()
        {
            state.busy += since.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_at_the_same_time_share_it() {
        let rate = Rate::default();
        assert_eq!(rate.time_for(ASSUMED * 2), Duration::from_secs(2));
        let (one, two) = (rate.begin(), rate.begin());
        one.add(ENOUGH);
        two.add(ENOUGH);
        drop(one);
        drop(two);
        let busy = rate.busy();
        assert_eq!(rate.time_for(2 * ENOUGH), busy);
        assert_eq!(rate.busy(), busy, "the clock stands still");
    }

    #[test]
    fn few_bytes_say_nothing() {
        let rate = Rate::default();
        let transfer = rate.begin();
        transfer.add(10);
        drop(transfer);
        assert_eq!(rate.time_for(ASSUMED), Duration::from_secs(1));
    }
}
