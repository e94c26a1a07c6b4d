//! The local store with tiers behind it: [`TieredStore`].
//!
//! Look-ups go to the local store first and then to the tiers in order, one batch each for the
//! keys that are left. What a tier has is an *offer*: metadata, whose bytes stay where they are
//! until somebody wants them ([`TieredStore::fetch`], [`TieredStore::open`],
//! [`TieredStore::parts`]). When a layer arrives in the local store, its entries are filed there
//! too, and go back to those earlier tiers that may be written, if they are of the scope that this
//! build writes under: it vouches for no other.
//!
//! Invariants: a local entry counts before a tier's only if its layer is in the local store; an
//! entry of a tier is filed locally only once its layer is; nothing unverified gets into the
//! local store; every trouble with a tier is a miss and a warning.

mod fetch;
mod peek;
mod push;

pub use fetch::{Download, Piece};
pub use peek::{Peeked, RefusedEntry};
pub use push::Pushed;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    ActionResult, CacheError, DiskStore, MAX_ENTRY, SaveJob, Saver, Scope, SearchOrder, Tier,
    Vouching,
    disk::blocking,
    line::{Act, Line},
};
use crate::{digest::Sha256Digest, event::Events, key::CacheKey, oci::layer::LayerBlob};

/// The local store and the tiers of one build.
#[derive(Debug)]
pub struct TieredStore {
    local: Arc<DiskStore>,
    lines: Arc<[Line]>,
    scopes: SearchOrder,
    vouching: Vouching,
    events: Events,
    saver: Saver,
    /// Entries found in tiers whose layers are not in the local store, by their layers' blobs.
    offers: Mutex<HashMap<Sha256Digest, Vec<Offer>>>,
    /// Layers that tiers have entries for, but no bytes.
    gone: Mutex<HashSet<Sha256Digest>>,
    fetched: AtomicU64,
}

/// An entry that a tier has.
#[derive(Debug, Clone)]
struct Offer {
    tier: usize,
    result: ActionResult,
}

/// An entry, and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundAction {
    /// The entry.
    pub result: ActionResult,
    /// Number of the tier that has it; none for the local store.
    pub tier: Option<usize>,
}

impl TieredStore {
    /// The store of a build that reads and writes the scopes of `scopes`. Starts nothing.
    pub fn new(
        local: Arc<DiskStore>,
        tiers: Vec<Tier>,
        scopes: SearchOrder,
        vouching: Vouching,
        events: Events,
    ) -> Self {
        let lines: Arc<[Line]> = tiers
            .into_iter()
            .map(|tier| Line::new(tier, events.clone()))
            .collect();
        let saver = Saver::new(
            Arc::clone(&local),
            Arc::clone(&lines),
            scopes.own().clone(),
            vouching.clone(),
            events.clone(),
        );
        Self {
            local,
            lines,
            scopes,
            vouching,
            events,
            saver,
            offers: Mutex::default(),
            gone: Mutex::default(),
            fetched: AtomicU64::new(0),
        }
    }

    /// The local store.
    pub fn local(&self) -> &Arc<DiskStore> {
        &self.local
    }

    /// The trust scope that the build writes under.
    pub fn own_scope(&self) -> &Scope {
        self.scopes.own()
    }

    /// What saves.
    pub fn saver(&self) -> &Saver {
        &self.saver
    }

    /// The name of a tier by its number.
    pub fn tier_name(&self, number: usize) -> Option<&str> {
        self.lines.get(number).map(Line::name)
    }

    /// Whether any tier can be read.
    pub fn has_tiers(&self) -> bool {
        self.lines.iter().any(|line| line.tier.access.read)
    }

    /// Bytes of entries and blobs that came from tiers so far.
    pub fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Requests to tiers so far, for reading and for saving.
    pub fn requests(&self) -> u64 {
        self.lines.iter().map(Line::requests).sum()
    }

    /// The entries under `keys`, in their order. The local store's counts if its layer is there
    /// too, else the first tier's that has one, else the local store's after all: it still says
    /// what the step gave.
    pub async fn lookup(&self, keys: &[CacheKey]) -> Vec<Option<FoundAction>> {
        let (local, at_hand) = self.lookup_local(keys).await;
        let mut found: Vec<Option<FoundAction>> = local
            .into_iter()
            .map(|result| result.map(|result| FoundAction { result, tier: None }))
            .collect();
        let mut open: Vec<usize> = (0..keys.len()).filter(|n| !at_hand[*n]).collect();
        for (number, line) in self.lines.iter().enumerate() {
            if open.is_empty() {
                break;
            }
            if !line.tier.access.read {
                continue;
            }
            let asked: Vec<CacheKey> = open.iter().map(|n| keys[*n]).collect();
            let answers = self.lookup_in(line, self.scopes.scopes(), &asked).await;
            for (n, result) in std::mem::take(&mut open).into_iter().zip(answers) {
                match result {
                    Some(result) => {
                        self.note_offer(number, &result);
                        found[n] = Some(FoundAction {
                            result,
                            tier: Some(number),
                        });
                    }
                    None => open.push(n),
                }
            }
        }
        self.file_without_layers(&found).await;
        found
    }

    /// The local entries, and for each key whether the entry and its layer are there. Trouble
    /// with the index is a miss, said once.
    async fn lookup_local(&self, keys: &[CacheKey]) -> (Vec<Option<ActionResult>>, Vec<bool>) {
        let (store, scopes, wanted) = (Arc::clone(&self.local), self.scopes.clone(), keys.to_vec());
        let has_tiers = self.has_tiers();
        let looked = blocking("look up keys in", self.local.dir(), move || {
            let found = store.lookup(scopes.scopes(), &wanted)?;
            let at_hand = found.iter().map(|result| match result {
                // Without tiers nobody asks yet.
                Some(result) if has_tiers => is_local(&store, result.layer.as_ref()),
                Some(_) => true,
                None => false,
            });
            let at_hand = at_hand.collect();
            Ok((found, at_hand))
        });
        looked.await.unwrap_or_else(|error| {
            self.events
                .warn(format!("the cache's index can't be read: {error}"), None);
            (vec![None; keys.len()], vec![false; keys.len()])
        })
    }

    /// What the tiers have under the keys of cache mounts, in their order, each from the first
    /// tier that has it. The build's own scope goes first: what it left there is as good as what others
    /// left and nearer to what it needs, and nobody builds on it but builds of this scope.
    pub async fn lookup_mounts(&self, keys: &[CacheKey]) -> Vec<Option<FoundAction>> {
        let own = self.scopes.own();
        let others = self.scopes.scopes().iter().filter(|scope| *scope != own);
        let scopes: Vec<Scope> = std::iter::once(own).chain(others).cloned().collect();
        let mut found: Vec<Option<FoundAction>> = vec![None; keys.len()];
        for (number, line) in self.lines.iter().enumerate() {
            let open: Vec<usize> = (0..keys.len()).filter(|n| found[*n].is_none()).collect();
            if !line.tier.access.read || open.is_empty() {
                continue;
            }
            let asked: Vec<CacheKey> = open.iter().map(|n| keys[*n]).collect();
            let answers = self.lookup_in(line, &scopes, &asked).await;
            for (n, result) in open.into_iter().zip(answers) {
                found[n] = result.map(|result| FoundAction {
                    result,
                    tier: Some(number),
                });
            }
        }
        found
    }

    /// What a tier has, as far as it can be relied on.
    async fn lookup_in(
        &self,
        line: &Line,
        scopes: &[Scope],
        keys: &[CacheKey],
    ) -> Vec<Option<ActionResult>> {
        let found = match line.tier.actions.lookup(scopes, keys).await {
            Ok(found) if found.len() == keys.len() => found,
            Ok(found) => {
                line.trouble(
                    Act::Read,
                    &CacheError::Corrupt {
                        subject: super::Subject::Url(line.name().to_owned()),
                        what: format!("{} answers to {} keys", found.len(), keys.len()),
                    },
                );
                return vec![None; keys.len()];
            }
            Err(error) => {
                line.trouble(Act::Read, &error);
                return vec![None; keys.len()];
            }
        };
        let accepted = keys.iter().zip(found).map(|(key, result)| {
            let result = result?;
            let bytes = result.encode().len() as u64;
            self.fetched.fetch_add(bytes, Ordering::Relaxed);
            match self.check(*key, &result, bytes) {
                Ok(()) => (!self.is_gone(&result)).then_some(result),
                Err(why) => {
                    line.refused(*key, &result, &why);
                    None
                }
            }
        });
        accepted.collect()
    }

    /// Whether an entry that a tier gave for `key` may be relied on.
    fn check(&self, key: CacheKey, result: &ActionResult, bytes: u64) -> Result<(), String> {
        if bytes > MAX_ENTRY as u64 {
            return Err(format!(
                "it has {bytes} bytes, and none has more than {MAX_ENTRY}"
            ));
        }
        if result.key != key {
            return Err(format!("it says that its key is `{}`", result.key));
        }
        if !self.scopes.scopes().contains(&result.scope) {
            return Err(format!(
                "it is of scope `{}`, which this build does not read",
                result.scope
            ));
        }
        self.vouching.accept(result)
    }

    /// Remembers that a tier has the bytes of an entry's layer, or says so.
    fn note_offer(&self, tier: usize, result: &ActionResult) {
        if let Some(layer) = &result.layer {
            let offer = Offer {
                tier,
                result: result.clone(),
            };
            lock(&self.offers)
                .entry(layer.digest)
                .or_default()
                .push(offer);
        }
    }

    /// Remembers an entry that this build makes of one that a tier has: under another key, with
    /// the same layer. It is filed with the others when the layer arrives.
    pub fn offer_as(&self, tier: usize, result: &ActionResult) {
        self.note_offer(tier, result);
    }

    /// Entries of steps that changed nothing have no bytes to wait for.
    async fn file_without_layers(&self, found: &[Option<FoundAction>]) {
        for found in found.iter().flatten() {
            if let FoundAction {
                result,
                tier: Some(tier),
            } = found
                && result.layer.is_none()
            {
                let offer = Offer {
                    tier: *tier,
                    result: result.clone(),
                };
                self.file(vec![offer], Vec::new()).await;
            }
        }
    }

    /// Whether a tier has said that it has this layer, and nothing speaks against it.
    pub fn offers(&self, layer: &LayerBlob) -> bool {
        lock(&self.offers).contains_key(&layer.digest) && !lock(&self.gone).contains(&layer.digest)
    }

    /// Notes that no tier has the bytes of this layer, whatever entries say.
    pub fn note_gone(&self, digest: Sha256Digest) {
        lock(&self.offers).remove(&digest);
        lock(&self.gone).insert(digest);
    }

    fn is_gone(&self, result: &ActionResult) -> bool {
        let gone = |layer: &LayerBlob| lock(&self.gone).contains(&layer.digest);
        result.layer.as_ref().is_some_and(gone)
    }

    /// Asks the tiers for all layers that were offered and notes those that are gone, so that
    /// the loss of many costs a build one repetition and not one for each. A tier that doesn't
    /// answer has nothing.
    pub async fn recheck(&self) {
        let digests: Vec<Sha256Digest> = lock(&self.offers).keys().copied().collect();
        if digests.is_empty() {
            return;
        }
        let mut there = vec![false; digests.len()];
        for line in self.lines.iter().filter(|line| line.tier.access.read) {
            match line.tier.blobs.contains(&digests).await {
                Ok(found) => {
                    for (known, found) in there.iter_mut().zip(found) {
                        *known |= found;
                    }
                }
                Err(error) => line.trouble(Act::Read, &error),
            }
        }
        for (digest, _) in digests.iter().zip(there).filter(|(_, there)| !there) {
            self.note_gone(*digest);
        }
    }

    /// What is to be done once a layer is in the local store: `ends` are those of its frames.
    pub async fn arrived(&self, digest: Sha256Digest, ends: Vec<u64>) {
        let offers = lock(&self.offers).remove(&digest).unwrap_or_default();
        self.file(offers, ends).await;
    }

    /// Files entries of tiers locally and sends them to earlier tiers.
    async fn file(&self, offers: Vec<Offer>, ends: Vec<u64>) {
        if offers.is_empty() {
            return;
        }
        let entries: Vec<ActionResult> = offers.iter().map(|o| o.result.clone()).collect();
        let store = Arc::clone(&self.local);
        let filed = blocking("write", self.local.dir(), move || {
            entries.iter().try_for_each(|entry| store.put_action(entry))
        });
        if let Err(error) = filed.await {
            self.events.warn(
                format!("a result of a remote cache was not kept locally: {error}"),
                None,
            );
        }
        for offer in offers {
            let earlier = 0..offer.tier;
            if offer.result.scope == *self.scopes.own() && !earlier.is_empty() {
                let job = SaveJob {
                    entries: vec![offer.result],
                    ends: ends.clone(),
                    tiers: Some(earlier),
                    source: Some(offer.tier),
                };
                self.saver.save_anyway(job).await;
            }
        }
    }
}

/// Whether a layer is in the local store: a look at a name and a size. The index is only noted as
/// used, for it can be made again from the layer.
fn is_local(store: &DiskStore, layer: Option<&LayerBlob>) -> bool {
    let blob = |digest| store.blob(&digest).ok().flatten();
    layer.is_none_or(|layer| {
        layer.index.and_then(blob);
        blob(layer.digest).is_some_and(|file| file.size == layer.size)
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
