//! What garbage collection removes: a pure decision over an inventory.
//!
//! [`plan`] picks, oldest use first, from three kinds of things: actions, blobs that
//! no remaining action names, and derived data (unpacked layers), which costs only
//! time to make again. What was used at or after the *horizon* is never picked; the
//! store sets the horizon before the recent past and before the start of every
//! running build, so nothing a build has looked at goes while it runs.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    time::Duration,
};

use super::{CacheError, EntryId, Scope};
use crate::digest::Sha256Digest;

/// Limits for what is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcPolicy {
    /// Bytes of blobs and derived data to keep at most; none for no limit.
    pub max_bytes: Option<u64>,
    /// What was not used for so long goes; none for no limit.
    pub max_age: Option<Duration>,
    /// What was used within this time stays, whatever the limits say: it may belong to
    /// an upload or a build that is under way.
    pub keep_recent: Duration,
    /// Only entries of these scopes go, with the blobs that no other entry names; everything
    /// if there are none.
    pub scopes: Vec<Scope>,
}

impl Default for GcPolicy {
    /// 30 days, 20 GiB, and nothing that was used within the hour.
    fn default() -> Self {
        Self {
            max_bytes: Some(20 << 30),
            max_age: Some(Duration::from_secs(30 * 24 * 3600)),
            keep_recent: Duration::from_secs(3600),
            scopes: Vec::new(),
        }
    }
}

/// Data in the store's directory that is made from blobs and can be made again, such
/// as unpacked layers. Its owner implements this for garbage collection.
pub trait DerivedData: Send + Sync {
    /// All of it, by ids of the owner's choice.
    fn list(&self) -> Result<Vec<DerivedUse>, CacheError>;

    /// Removes one item if it is not in use. Whether it is gone.
    fn remove(&self, id: &str) -> Result<bool, CacheError>;
}

/// No derived data.
impl DerivedData for () {
    fn list(&self) -> Result<Vec<DerivedUse>, CacheError> {
        Ok(Vec::new())
    }

    fn remove(&self, _: &str) -> Result<bool, CacheError> {
        Ok(false)
    }
}

/// An item of [`DerivedData`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DerivedUse {
    /// Its name.
    pub id: String,
    /// Its size on disk in bytes.
    pub bytes: u64,
    /// Last use, in milliseconds since 1970.
    pub used: i64,
}

/// An action as garbage collection sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionUse {
    /// Where it is kept.
    pub id: EntryId,
    /// Last use, in milliseconds since 1970.
    pub used: i64,
    /// The blobs it names.
    pub blobs: Vec<Sha256Digest>,
}

/// A blob as garbage collection sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobUse {
    /// Its digest.
    pub digest: Sha256Digest,
    /// Its size in bytes.
    pub bytes: u64,
    /// Last use, in milliseconds since 1970.
    pub used: i64,
}

/// All there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// All actions.
    pub actions: Vec<ActionUse>,
    /// All blobs.
    pub blobs: Vec<BlobUse>,
    /// All derived data.
    pub derived: Vec<DerivedUse>,
}

impl Inventory {
    /// Bytes of blobs and derived data together.
    pub fn bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.bytes).sum::<u64>()
            + self.derived.iter().map(|item| item.bytes).sum::<u64>()
    }

    /// Lets everything count as just used but these actions and the blobs that they name.
    pub(super) fn limit_to(&mut self, ids: &HashSet<EntryId>) {
        const NEVER: i64 = i64::MAX;
        let mut named = HashSet::new();
        for action in &mut self.actions {
            match ids.contains(&action.id) {
                true => named.extend(action.blobs.iter().copied()),
                false => action.used = NEVER,
            }
        }
        for blob in self.blobs.iter_mut().filter(|b| !named.contains(&b.digest)) {
            blob.used = NEVER;
        }
        for item in &mut self.derived {
            item.used = NEVER;
        }
    }
}

/// What is to be removed, in this order of kinds: no action may name a blob that is
/// gone already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcPlan {
    /// Actions, oldest first.
    pub actions: Vec<EntryId>,
    /// Blobs, oldest first within each limit.
    pub blobs: Vec<Sha256Digest>,
    /// Ids of derived data, likewise.
    pub derived: Vec<String>,
}

/// What a garbage collection did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Another process was collecting, so nothing was done.
    pub skipped: bool,
    /// Actions removed.
    pub actions: usize,
    /// Blobs removed.
    pub blobs: usize,
    /// Items of derived data removed.
    pub derived: usize,
    /// Bytes freed.
    pub freed_bytes: u64,
    /// Bytes of blobs and derived data that remain.
    pub kept_bytes: u64,
    /// Abandoned temporary files removed.
    pub temporary: usize,
}

/// Candidates for removal, by index into the inventory. The order is the one in which
/// equally old ones go: what costs least to lose first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Candidate {
    Derived(usize),
    Blob(usize),
    Action(usize),
}

/// Decides what goes.
///
/// `now` and `horizon` are in milliseconds since 1970. The least
/// recently used goes first, as long as it is older than `max_age` or there is more than
/// `max_bytes`. A blob is a
/// candidate as soon as no remaining action names it.
pub fn plan(inventory: &Inventory, policy: &GcPolicy, now: i64, horizon: i64) -> GcPlan {
    let mut state = Sweep::new(inventory, horizon);
    let limit = policy.max_age.map(|age| now.saturating_sub(millis(age)));
    // One sweep for both limits: what goes for its size may leave blobs behind that are too old.
    state.remove_while(|used, kept| {
        limit.is_some_and(|limit| used < limit) || policy.max_bytes.is_some_and(|max| kept > max)
    });
    state.plan
}

/// Milliseconds of `duration`, at most [`i64::MAX`].
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The state of [`plan`].
struct Sweep<'a> {
    inventory: &'a Inventory,
    horizon: i64,
    /// Position of each blob in the inventory.
    position: HashMap<Sha256Digest, usize>,
    /// How many remaining actions name each blob.
    users: Vec<usize>,
    /// Removable things, the oldest on top.
    heap: BinaryHeap<Reverse<(i64, Candidate)>>,
    /// Bytes of what remains.
    kept: u64,
    plan: GcPlan,
}

impl<'a> Sweep<'a> {
    fn new(inventory: &'a Inventory, horizon: i64) -> Self {
        let position: HashMap<_, _> = inventory
            .blobs
            .iter()
            .enumerate()
            .map(|(at, blob)| (blob.digest, at))
            .collect();
        let mut users = vec![0; inventory.blobs.len()];
        for digest in inventory.actions.iter().flat_map(|action| &action.blobs) {
            if let Some(at) = position.get(digest) {
                users[*at] += 1;
            }
        }
        let mut sweep = Self {
            inventory,
            horizon,
            position,
            users,
            heap: BinaryHeap::new(),
            kept: inventory.bytes(),
            plan: GcPlan::default(),
        };
        for at in 0..inventory.actions.len() {
            sweep.offer(inventory.actions[at].used, Candidate::Action(at));
        }
        for at in 0..inventory.derived.len() {
            sweep.offer(inventory.derived[at].used, Candidate::Derived(at));
        }
        for at in 0..inventory.blobs.len() {
            if sweep.users[at] == 0 {
                sweep.offer(inventory.blobs[at].used, Candidate::Blob(at));
            }
        }
        sweep
    }

    /// Adds a candidate unless it is too recent.
    fn offer(&mut self, used: i64, candidate: Candidate) {
        if used < self.horizon {
            self.heap.push(Reverse((used, candidate)));
        }
    }

    /// Removes the oldest candidate as long as `wanted` says so of its last use and of
    /// the bytes that are kept.
    fn remove_while(&mut self, wanted: impl Fn(i64, u64) -> bool) {
        while let Some(Reverse((used, candidate))) = self.heap.peek().copied() {
            if !wanted(used, self.kept) {
                return;
            }
            self.heap.pop();
            self.remove(candidate);
        }
    }

    fn remove(&mut self, candidate: Candidate) {
        let inventory = self.inventory;
        match candidate {
            Candidate::Derived(at) => {
                let item = &inventory.derived[at];
                self.kept -= item.bytes;
                self.plan.derived.push(item.id.clone());
            }
            Candidate::Blob(at) => {
                let blob = &inventory.blobs[at];
                self.kept -= blob.bytes;
                self.plan.blobs.push(blob.digest);
            }
            Candidate::Action(at) => {
                let action = &inventory.actions[at];
                self.plan.actions.push(action.id);
                for digest in &action.blobs {
                    let Some(at) = self.position.get(digest).copied() else {
                        continue;
                    };
                    self.users[at] -= 1;
                    if self.users[at] == 0 {
                        self.offer(inventory.blobs[at].used, Candidate::Blob(at));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::digest::Blake3Digest;

    fn id(n: usize) -> EntryId {
        EntryId(Blake3Digest::of(&n.to_le_bytes()))
    }

    fn digest(n: usize) -> Sha256Digest {
        Sha256Digest::of(&n.to_le_bytes())
    }

    /// Up to 6 actions that name some of up to 6 blobs, and up to 4 derived items. The
    /// times run from 0 to 20 and differ by kind, so that there are no ties to break
    /// within a kind.
    fn inventories() -> impl Strategy<Value = Inventory> {
        let uses = |n| {
            Just((0..20_i64).collect::<Vec<_>>())
                .prop_shuffle()
                .prop_map(move |mut times| {
                    times.truncate(n);
                    times
                })
        };
        let links = prop::collection::vec(prop::collection::btree_set(0_usize..6, 0..3), 0..6);
        let sizes = prop::collection::vec(0_u64..100, 0..6);
        (
            links,
            uses(6),
            sizes,
            uses(6),
            prop::collection::vec(0_u64..100, 0..4),
            uses(4),
        )
            .prop_map(
                |(links, action_uses, sizes, blob_uses, derived, derived_uses)| Inventory {
                    actions: links
                        .into_iter()
                        .zip(action_uses)
                        .enumerate()
                        .map(|(n, (blobs, used))| ActionUse {
                            id: id(n),
                            used,
                            blobs: blobs.into_iter().map(digest).collect(),
                        })
                        .collect(),
                    blobs: sizes
                        .into_iter()
                        .zip(blob_uses)
                        .enumerate()
                        .map(|(n, (bytes, used))| BlobUse {
                            digest: digest(n),
                            bytes,
                            used,
                        })
                        .collect(),
                    derived: derived
                        .into_iter()
                        .zip(derived_uses)
                        .enumerate()
                        .map(|(n, (bytes, used))| DerivedUse {
                            id: n.to_string(),
                            bytes,
                            used,
                        })
                        .collect(),
                },
            )
    }

    /// The rule said plainly: again and again, the oldest thing that may go goes, as
    /// long as it is too old or there is too much.
    fn model(mut all: Inventory, policy: &GcPolicy, now: i64, horizon: i64) -> Inventory {
        let oldest_allowed = policy.max_age.map(|age| now - millis(age));
        loop {
            let named: BTreeSet<_> = all.actions.iter().flat_map(|a| a.blobs.clone()).collect();
            let derived = all.derived.iter().map(|d| (d.used, 0));
            let blobs = all
                .blobs
                .iter()
                .filter(|b| !named.contains(&b.digest))
                .map(|b| (b.used, 1));
            let actions = all.actions.iter().map(|a| (a.used, 2));
            let oldest = derived
                .chain(blobs)
                .chain(actions)
                .filter(|(used, _)| *used < horizon)
                .min();
            let Some((used, kind)) = oldest else { break };
            let too_old = oldest_allowed.is_some_and(|limit| used < limit);
            let too_much = policy.max_bytes.is_some_and(|max| all.bytes() > max);
            if !too_old && !too_much {
                break;
            }
            match kind {
                0 => all.derived.retain(|d| d.used != used),
                1 => all
                    .blobs
                    .retain(|b| b.used != used || named.contains(&b.digest)),
                _ => all.actions.retain(|a| a.used != used),
            }
        }
        all
    }

    fn apply(mut all: Inventory, plan: &GcPlan) -> Inventory {
        all.actions.retain(|a| !plan.actions.contains(&a.id));
        all.blobs.retain(|b| !plan.blobs.contains(&b.digest));
        all.derived.retain(|d| !plan.derived.contains(&d.id));
        all
    }

    proptest! {
        #[test]
        fn the_plan_is_the_models(
            inventory in inventories(),
            max_bytes in prop::option::of(0_u64..300),
            max_age in prop::option::of(0_u64..25),
            horizon in 0_i64..25,
        ) {
            let policy = GcPolicy {
                max_bytes,
                max_age: max_age.map(Duration::from_millis),
                keep_recent: Duration::ZERO,
                scopes: Vec::new(),
            };
            let kept = apply(inventory.clone(), &plan(&inventory, &policy, 20, horizon));
            prop_assert_eq!(&kept, &model(inventory.clone(), &policy, 20, horizon));

            // What holds whatever the order of removal.
            for action in &kept.actions {
                for blob in &action.blobs {
                    let there = |list: &Inventory| list.blobs.iter().any(|b| b.digest == *blob);
                    prop_assert_eq!(there(&kept), there(&inventory), "a kept action keeps its blobs");
                }
            }
            let recent = |list: &Inventory| (
                list.actions.iter().filter(|a| a.used >= horizon).count(),
                list.blobs.iter().filter(|b| b.used >= horizon).count(),
                list.derived.iter().filter(|d| d.used >= horizon).count(),
            );
            prop_assert_eq!(recent(&kept), recent(&inventory), "what is recent stays");
        }
    }

    #[test]
    fn limited_to_some_actions_nothing_else_goes() {
        let action = |n, blobs: &[usize]| ActionUse {
            id: id(n),
            used: 1,
            blobs: blobs.iter().copied().map(digest).collect(),
        };
        let blobs = (0..4).map(|n| BlobUse {
            digest: digest(n),
            bytes: 10,
            used: 1,
        });
        let mut inventory = Inventory {
            actions: vec![action(0, &[0, 1]), action(1, &[1, 2])],
            blobs: blobs.collect(),
            derived: vec![DerivedUse {
                id: "d".to_owned(),
                bytes: 10,
                used: 1,
            }],
        };
        inventory.limit_to(&HashSet::from([id(0)]));
        let policy = GcPolicy {
            max_bytes: Some(0),
            max_age: Some(Duration::ZERO),
            keep_recent: Duration::ZERO,
            scopes: Vec::new(),
        };
        let plan = plan(&inventory, &policy, 20, 20);
        assert_eq!((plan.actions, plan.blobs), (vec![id(0)], vec![digest(0)]));
        assert!(plan.derived.is_empty());
    }

    #[test]
    fn nothing_goes_within_the_limits() {
        let inventory = Inventory {
            blobs: vec![BlobUse {
                digest: digest(0),
                bytes: 10,
                used: 5,
            }],
            ..Inventory::default()
        };
        let policy = GcPolicy {
            max_bytes: Some(10),
            max_age: Some(Duration::from_millis(15)),
            keep_recent: Duration::ZERO,
            scopes: Vec::new(),
        };
        assert_eq!(plan(&inventory, &policy, 20, 20), GcPlan::default());
        let tighter = GcPolicy {
            max_bytes: Some(9),
            ..policy
        };
        assert_eq!(plan(&inventory, &tighter, 20, 20).blobs, [digest(0)]);
        assert_eq!(plan(&inventory, &tighter, 20, 5), GcPlan::default());
    }
}
