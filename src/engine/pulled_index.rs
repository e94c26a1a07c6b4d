//! Indexes of pulled layers: made once, kept locally and shared through the tiers.
//!
//! Locally an entry under the layer's digest names the layer with its index. Tiers don't have
//! the layers of base images, so what goes there is an entry, under another key, whose layer
//! *is* the index: its digest and size are those of the encoded index, its diff id that of the pulled
//! layer. So a COPY onto a base image is decided without pulling it.

use std::sync::Arc;

use super::{BuildError, LayerBytes, ResultLayer, bytes::store_bytes, session::blocking};
use crate::{
    cache::{ActionResult, RECORD_VERSION, SaveJob, Scope, StepInfo},
    digest::Sha256Digest,
    graph::Op,
    key::{CacheKey, KeyKind, KeyRecipe},
    oci::{
        Platform,
        layer::{ChainId, LayerBlob, LayerIndex},
    },
};

/// The media type of an encoded index in the entries that tiers have.
const INDEX_MEDIA_TYPE: &str = "application/vnd.memobuild.layer-index.v1";

impl LayerBytes {
    /// Fills in the indexes that earlier builds made of these pulled layers.
    pub(super) async fn with_indexes(
        &self,
        layers: &[LayerBlob],
    ) -> Result<Vec<LayerBlob>, BuildError> {
        let keys: Vec<CacheKey> = layers.iter().map(index_key).collect();
        let store = Arc::clone(&self.store);
        let found =
            blocking(move || Ok(store.lookup(&[Scope::local()], &keys).unwrap_or_default()))
                .await?;
        let mut found = found.into_iter();
        Ok(layers
            .iter()
            .map(|layer| {
                let known = found.next().flatten().and_then(|record| record.layer);
                LayerBlob {
                    index: known.and_then(|l| l.index).or(layer.index),
                    ..layer.clone()
                }
            })
            .collect())
    }

    /// Keeps the index of a pulled layer for this and later builds.
    pub(super) async fn keep_index(
        &self,
        blob: &LayerBlob,
        index: LayerIndex,
    ) -> Result<Arc<LayerIndex>, BuildError> {
        let index = self.remember(blob, index);
        let (store, events) = (Arc::clone(&self.store), self.events.clone());
        let (encoded, blob) = (index.encode()?, blob.clone());
        let size = encoded.len() as u64;
        let pulled = blob.clone();
        let kept = blocking(move || {
            let kept = store_bytes(&store, &encoded).and_then(|digest| {
                store.put_action(&index_record(&blob, digest))?;
                Ok(digest)
            });
            Ok(match kept {
                Ok(digest) => Some(digest),
                Err(error) => {
                    events.warn(format!("the index of a layer was not saved: {error}"), None);
                    None
                }
            })
        });
        if let Some(digest) = kept.await? {
            self.share_index(&pulled, digest, size).await;
        }
        Ok(index)
    }

    /// The index of a pulled layer as a tier has it, which from now on is local.
    pub(super) async fn shared_index(
        &self,
        layer: &ResultLayer,
    ) -> Result<Option<LayerIndex>, BuildError> {
        let pulled = matches!(self.graph.vertex(layer.from).op, Op::Image(_));
        if !pulled || !self.tiers.has_tiers() {
            return Ok(None);
        }
        let key = shared_recipe(&layer.blob).key();
        let found = self.tiers.lookup(&[key]).await.into_iter().flatten().next();
        let Some(shared) = found.and_then(|found| found.result.layer) else {
            return Ok(None);
        };
        let index = self.stored_index(shared.digest).await?;
        let Some(index) = index.filter(|index| index.diff_id == layer.blob.diff_id) else {
            return Ok(None);
        };
        self.tiers.arrived(shared.digest, Vec::new()).await;
        let (store, record) = (
            Arc::clone(&self.store),
            index_record(&layer.blob, shared.digest),
        );
        // Not remembering costs asking again.
        let _ = blocking(move || Ok(store.put_action(&record)?)).await;
        Ok(Some(index))
    }

    /// Saves the index of a pulled layer to the tiers.
    async fn share_index(&self, blob: &LayerBlob, index: Sha256Digest, size: u64) {
        if !self.tiers.saver().is_active() {
            return;
        }
        let recipe = shared_recipe(blob);
        let layer = LayerBlob {
            diff_id: blob.diff_id,
            digest: index,
            size,
            media_type: INDEX_MEDIA_TYPE.to_owned(),
            index: None,
        };
        let job = SaveJob {
            entries: vec![ActionResult {
                scope: self.tiers.own_scope().clone(),
                ..record(&recipe, layer)
            }],
            ends: Vec::new(),
            tiers: None,
            source: None,
        };
        self.tiers.saver().save_anyway(job).await;
    }
}

fn index_key(blob: &LayerBlob) -> CacheKey {
    index_recipe(blob).key()
}

fn index_recipe(blob: &LayerBlob) -> KeyRecipe {
    let mut recipe = KeyRecipe::new(KeyKind::LayerIndex);
    recipe
        .display("blob", blob.digest)
        .part("media-type", &blob.media_type);
    recipe
}

/// The recipe of the entry that tiers have.
fn shared_recipe(blob: &LayerBlob) -> KeyRecipe {
    let mut recipe = index_recipe(blob);
    recipe.part("form", "index alone");
    recipe
}

/// The entry under which the index of a pulled layer is found again.
fn index_record(blob: &LayerBlob, index: Sha256Digest) -> ActionResult {
    let layer = LayerBlob {
        index: Some(index),
        ..blob.clone()
    };
    record(&index_recipe(blob), layer)
}

/// An entry that is no step's.
fn record(recipe: &KeyRecipe, layer: LayerBlob) -> ActionResult {
    ActionResult {
        version: RECORD_VERSION,
        key: recipe.key(),
        kind: recipe.kind(),
        step: StepInfo {
            name: "index of a pulled layer".to_owned(),
            instruction: String::new(),
            target: String::new(),
            platform: Platform::host(),
        },
        parent: ChainId::empty(),
        inputs: Vec::new(),
        layer: Some(layer),
        recipe: recipe.stored(),
        duration_ms: 0,
        created: 0,
        producer: Default::default(),
        scope: Scope::local(),
        signature: None,
    }
}
