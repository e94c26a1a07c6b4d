//! How much may be kept, and for whom.
//!
//! Each row and each frame counts for the class of scopes that it serves, the most trusted
//! one. A class has a quota, and all classes together have a limit. Room is reserved before
//! anything is written, so that uploads at the same time can't exceed the limits together.

use std::sync::Mutex;

use super::{Store, StoreError, rank, schema::lock};
use crate::cache::Trust;

/// What a row costs beside its bytes.
pub(super) const ROW: u64 = 512;

/// The names of the classes, by rank.
pub(in crate::server) const CLASSES: [&str; 4] = ["local", "pull", "branch", "protected"];

/// Limits in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// For everything.
    pub total: u64,
    /// For each class: local, pull, branch, protected.
    pub classes: [u64; 4],
}

impl Quotas {
    /// At most `total` bytes, of which those who are trusted least may use half.
    pub fn of(total: u64) -> Self {
        Self {
            total,
            classes: [total / 2, total / 2, total, total],
        }
    }

    /// No limits.
    pub const NONE: Self = Self {
        total: u64::MAX,
        classes: [u64::MAX; 4],
    };

    /// Sets the quota of the class `name`; false if there is no such class.
    #[must_use]
    pub fn set(&mut self, name: &str, bytes: u64) -> bool {
        let class = CLASSES.iter().position(|known| *known == name);
        let slot = class.and_then(|rank| self.classes.get_mut(rank));
        slot.map(|slot| *slot = bytes).is_some()
    }
}

/// What is used and what may be.
#[derive(Debug)]
pub(super) struct Space {
    quotas: Quotas,
    used: Mutex<[u64; 4]>,
}

/// How much has to go before something can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lack {
    /// From the class itself.
    pub(super) class: u64,
    /// From any class.
    pub(super) total: u64,
}

impl Space {
    pub(super) fn new(quotas: Quotas) -> Self {
        Self {
            quotas,
            used: Mutex::default(),
        }
    }

    pub(super) fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    pub(super) fn used(&self) -> [u64; 4] {
        *lock(&self.used)
    }

    pub(super) fn set(&self, used: [u64; 4]) {
        *lock(&self.used) = used;
    }

    /// What is lacking for `bytes` of `trust`; none if there is room.
    pub(super) fn lack(&self, trust: Trust, bytes: u64) -> Option<Lack> {
        self.lack_in(&lock(&self.used), rank(trust), bytes)
    }

    fn lack_in(&self, used: &[u64; 4], rank: usize, bytes: u64) -> Option<Lack> {
        let over = |used: u64, limit: u64| used.saturating_add(bytes).saturating_sub(limit);
        let lack = Lack {
            class: over(used[rank], self.quotas.classes[rank]),
            total: over(used.iter().sum(), self.quotas.total),
        };
        (lack.class > 0 || lack.total > 0).then_some(lack)
    }

    /// Reserves `bytes` for `trust`; false if there is no room.
    #[must_use]
    fn take(&self, trust: Trust, bytes: u64) -> bool {
        let mut used = lock(&self.used);
        let rank = rank(trust);
        if self.lack_in(&used, rank, bytes).is_some() {
            return false;
        }
        used[rank] += bytes;
        true
    }

    /// Gives back what was reserved or has been removed.
    pub(super) fn free(&self, rank: usize, bytes: u64) {
        let mut used = lock(&self.used);
        if let Some(slot) = used.get_mut(rank) {
            *slot = slot.saturating_sub(bytes);
        }
    }

    /// Lets `bytes` count for another class, whatever its quota.
    pub(super) fn raise(&self, from: usize, to: usize, bytes: u64) {
        let mut used = lock(&self.used);
        used[from] = used[from].saturating_sub(bytes);
        used[to] = used[to].saturating_add(bytes);
    }
}

/// Room that is given back unless it was used.
#[derive(Debug)]
pub(super) struct Room<'a> {
    space: &'a Space,
    rank: usize,
    bytes: u64,
}

impl Room<'_> {
    /// Keeps the room.
    pub(super) fn used(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.space.free(self.rank, self.bytes);
    }
}

impl Store {
    /// Reserves `bytes` for data of `trust`, collecting garbage if needed.
    pub(super) fn reserve(&self, trust: Trust, bytes: u64) -> Result<Room<'_>, StoreError> {
        if !self.space.take(trust, bytes) {
            self.make_room(trust, bytes)?;
            if !self.space.take(trust, bytes) {
                return Err(StoreError::Full {
                    class: CLASSES[rank(trust)],
                });
            }
        }
        Ok(Room {
            space: &self.space,
            rank: rank(trust),
            bytes,
        })
    }

    /// What the tables say is used.
    pub(super) fn used(&self) -> Result<[u64; 4], StoreError> {
        self.database.read("count", |c| {
            let mut used = [0_u64; 4];
            let tables = [
                "SELECT trust, coalesce(sum(size), 0), count(*) FROM frames GROUP BY trust",
                "SELECT trust, coalesce(sum(length(frames)), 0), count(*) FROM blobs GROUP BY trust",
                "SELECT trust, coalesce(sum(length(record)), 0), count(*) FROM entries GROUP BY trust",
            ];
            for sql in tables {
                let mut statement = c.prepare(sql)?;
                let mut rows = statement.query([])?;
                while let Some(row) = rows.next()? {
                    let (rank, bytes, count): (usize, u64, u64) =
                        (row.get(0)?, row.get(1)?, row.get(2)?);
                    if let Some(slot) = used.get_mut(rank) {
                        *slot += bytes + count * ROW;
                    }
                }
            }
            Ok(used)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_stay_within_both_limits() {
        let mut quotas = Quotas::of(100);
        assert!(quotas.set("pull", 30) && !quotas.set("tag", 1));
        let space = Space::new(quotas);
        let lack = |class, total| Some(Lack { class, total });
        assert!(space.take(Trust::Pull, 30));
        assert!(!space.take(Trust::Pull, 5));
        assert_eq!(space.lack(Trust::Pull, 5), lack(5, 0));
        assert!(space.take(Trust::Branch, 65));
        assert!(!space.take(Trust::Branch, 10));
        assert_eq!(space.lack(Trust::Branch, 10), lack(0, 5));
        space.free(1, 30);
        assert!(space.take(Trust::Branch, 10));
        space.raise(2, 3, 75);
        assert_eq!(space.used(), [0, 0, 0, 75]);
    }

    #[test]
    fn room_that_was_not_used_comes_back() {
        let space = Space::new(Quotas::of(100));
        assert!(space.take(Trust::Protected, 60));
        let room = Room {
            space: &space,
            rank: 3,
            bytes: 60,
        };
        drop(room);
        assert_eq!(space.used(), [0; 4]);
    }
}
