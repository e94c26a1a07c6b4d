//! Sending what the local store has to the tiers, outside of a build.

use std::{collections::BTreeMap, io::Read as _};

use super::TieredStore;
use crate::{
    cache::{ActionResult, CacheError, DiskStore, SaveJob, disk::blocking},
    key::KeyKind,
    oci::layer::{LayerBlob, LayerIndex},
};

/// What was given to the saver, and what was left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Results of steps that are on their way.
    pub results: usize,
    /// Entries of scopes that are not this one's to write.
    pub other_scopes: usize,
    /// Entries that nobody vouches for as it is needed.
    pub unsigned: usize,
    /// Entries whose blobs are not all in the local store.
    pub incomplete: usize,
}

impl TieredStore {
    /// Gives the saver those entries of the local store that `wanted` takes: only of the scope
    /// that is written, only with all their blobs, signed where there is a signer, and accepted
    /// as if a tier had offered them. [`Saver::finish`](crate::cache::Saver::finish) waits for them.
    pub async fn push(&self, wanted: impl Fn(&ActionResult) -> bool) -> Result<Pushed, CacheError> {
        let mut pushed = Pushed::default();
        let store = self.local.clone();
        let listed = blocking("list", self.local.dir(), move || store.actions()).await?;
        // Entries that name the same blobs are the keys of one step.
        let mut steps: BTreeMap<_, Vec<ActionResult>> = BTreeMap::new();
        for mut entry in listed.into_iter().map(|stored| stored.result) {
            // The tree of a cache mount is in the store only while a build packs it.
            if entry.kind == KeyKind::CacheMount || !wanted(&entry) {
                continue;
            }
            if entry.scope != *self.scopes.own() {
                pushed.other_scopes += 1;
                continue;
            }
            if entry.signature.is_none() {
                self.vouching.sign(&mut entry);
            }
            if self.vouching.accept(&entry).is_err() {
                pushed.unsigned += 1;
                continue;
            }
            let step = (entry.blobs(), entry.step.name.clone(), entry.created);
            steps.entry(step).or_default().push(entry);
        }
        for entries in steps.into_values() {
            let store = self.local.clone();
            let layer = entries.first().and_then(|entry| entry.layer.clone());
            let ends = blocking("read", self.local.dir(), move || match &layer {
                Some(layer) => ends_at_hand(&store, layer),
                None => Ok(Some(Vec::new())),
            });
            let Some(ends) = ends.await? else {
                pushed.incomplete += entries.len();
                continue;
            };
            let is_step = entries.iter().any(|e| e.kind != KeyKind::LayerIndex);
            pushed.results += usize::from(is_step);
            let job = SaveJob {
                entries,
                ends,
                tiers: None,
                source: None,
            };
            self.saver.save_anyway(job).await;
        }
        Ok(pushed)
    }
}

/// Where the frames of a layer end, as far as that is known; none if its blobs are not all there.
fn ends_at_hand(store: &DiskStore, layer: &LayerBlob) -> Result<Option<Vec<u64>>, CacheError> {
    if store.blob(&layer.digest)?.is_none() {
        return Ok(None);
    }
    let Some(digest) = layer.index else {
        return Ok(Some(Vec::new()));
    };
    let Some(mut blob) = store.open_blob_verified(&digest)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    if blob.read_to_end(&mut bytes).is_err() {
        return Ok(None);
    }
    let index = LayerIndex::decode(&bytes).ok();
    Ok(Some(
        index.map_or_else(Vec::new, |index| index.frame_ends()),
    ))
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, sync::Arc, time::Duration};

    use super::*;
    use crate::{
        cache::{
            Access, ActionCache as _, MemoryStore, Scope, SearchOrder, Signature, Tier, Vouching,
            conformance::sample_action,
        },
        digest::Sha256Digest,
        event::Events,
    };

    fn signature(key: &str) -> Signature {
        Signature {
            key_id: key.to_owned(),
            algorithm: "ed25519".to_owned(),
            value: "AA==".to_owned(),
        }
    }

    #[tokio::test]
    async fn only_what_a_build_would_save_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(DiskStore::open(dir.path()).unwrap());
        let tier = Arc::new(MemoryStore::default());
        let mut out = store.writer().unwrap();
        out.write_all(b"layer").unwrap();
        let layer = out.commit(None).unwrap();
        let own = Scope::branch("main");
        let entry = |number, digest, signed: Option<&str>| ActionResult {
            scope: own.clone(),
            signature: signed.map(signature),
            ..sample_action(number, &[digest])
        };
        let sent = [
            entry(1, layer, None),
            entry(2, layer, Some("builder")),
            ActionResult {
                layer: None,
                ..entry(3, layer, None)
            },
        ];
        let unwanted = entry(4, layer, None);
        let left_out = [
            ActionResult {
                scope: Scope::protected(),
                ..entry(5, layer, None)
            },
            entry(6, Sha256Digest::of(b"gone"), None),
            entry(7, layer, Some("stranger")),
        ];
        for entry in sent.iter().chain(&left_out).chain([&unwanted]) {
            store.put_action(entry).unwrap();
        }
        let known = |entry: &ActionResult| match &entry.signature {
            Some(signature) if signature.key_id == "stranger" => Err("a stranger".to_owned()),
            _ => Ok(()),
        };
        let tiered = TieredStore::new(
            store,
            vec![Tier {
                name: "memory://".to_owned(),
                actions: tier.clone(),
                blobs: tier.clone(),
                access: Access::FULL,
            }],
            SearchOrder::new(own.clone(), []),
            Vouching::default()
                .checking_with(known)
                .signing_with(|_| Some(signature("pusher"))),
            Events::silent(),
        );
        let unwanted_key = unwanted.key;
        let pushed = tiered
            .push(|entry| entry.key != unwanted_key)
            .await
            .unwrap();
        assert_eq!(
            (pushed.other_scopes, pushed.unsigned, pushed.incomplete),
            (1, 1, 1)
        );
        let report = tiered
            .saver()
            .finish(Duration::from_secs(60))
            .await
            .unwrap();
        assert_eq!((report.results, report.left), (pushed.results, 0));
        let keys: Vec<_> = (1..=7).map(|n| sample_action(n, &[]).key).collect();
        let scopes = [own, Scope::protected()];
        let found = tier.lookup(&scopes, &keys).await.unwrap();
        let signers = found
            .into_iter()
            .map(|entry| Some(entry?.signature?.key_id));
        let signers: Vec<_> = signers.collect();
        let texts: Vec<Option<&str>> = signers.iter().map(Option::as_deref).collect();
        assert_eq!(
            texts,
            [
                Some("pusher"),
                Some("builder"),
                Some("pusher"),
                None,
                None,
                None,
                None
            ]
        );
    }
}
