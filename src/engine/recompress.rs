//! Layers in the compression that an export asks for.
//!
//! Keys don't know about compression: a hit may be a zstd layer where gzip is wanted. Its
//! canonical tar is then compressed anew, which gives the same bytes as compressing it
//! right after the step, and the result is remembered.

use std::sync::Arc;

use super::{
    BuildError, ResultLayer, Session,
    bytes::{finish_layer, layer_error},
    session::blocking,
};
use crate::{
    cache::{ActionResult, RECORD_VERSION, StepInfo},
    graph::Op,
    key::{KeyKind, KeyRecipe},
    oci::{
        Platform,
        layer::{self, ChainId, Compression, LayerBlob, LayerBuilder},
    },
};

impl Session {
    /// The layer as it is to be exported: base image layers as they are, layers of steps
    /// in the compression of the engine's options.
    pub async fn exported(&self, layer: &ResultLayer) -> Result<ResultLayer, BuildError> {
        let options = self.engine.options.layer;
        let pulled = matches!(self.graph.vertex(layer.from).op, Op::Image(_));
        if pulled || compression_of(&layer.blob.media_type) == Some(options.compression) {
            return Ok(layer.clone());
        }
        let mut recipe = KeyRecipe::new(KeyKind::Recompression);
        recipe
            .display("diff-id", layer.blob.diff_id)
            .part("options", format!("{options:?}"));
        let (store, key) = (Arc::clone(&self.engine.store), recipe.key());
        let known = blocking(move || Ok(store.lookup(&[key]).unwrap_or_default())).await?;
        let known = known.into_iter().flatten().find_map(|record| record.layer);
        if let Some(blob) = known
            && blob.diff_id == layer.blob.diff_id
            && self.bytes.at_hand(Some(&blob))
        {
            return Ok(ResultLayer {
                blob,
                from: layer.from,
            });
        }
        let (store, media_type) = (
            Arc::clone(&self.engine.store),
            layer.blob.media_type.clone(),
        );
        let blob = self
            .bytes
            .read(layer, move |reader| {
                let tar = layer::decompress(reader, &media_type)?;
                let mut builder = LayerBuilder::new(store.writer()?, options);
                builder
                    .append_tar(tar)
                    .map_err(|error| layer_error(&store, error))?;
                Ok(finish_layer(&store, builder)?.0)
            })
            .await?;
        if blob.diff_id != layer.blob.diff_id {
            return Err(BuildError::Internal {
                what: format!(
                    "layer `{}` is not canonical: compressed anew it unpacks to `{}`",
                    layer.blob.diff_id, blob.diff_id
                ),
            });
        }
        self.remember_recompressed(&recipe, &blob).await;
        Ok(ResultLayer {
            blob,
            from: layer.from,
        })
    }

    async fn remember_recompressed(&self, recipe: &KeyRecipe, blob: &LayerBlob) {
        let record = ActionResult {
            version: RECORD_VERSION,
            key: recipe.key(),
            kind: recipe.kind(),
            step: StepInfo {
                name: "layer in another compression".to_owned(),
                instruction: String::new(),
                target: String::new(),
                platform: Platform::host(),
            },
            parent: ChainId::empty(),
            inputs: Vec::new(),
            layer: Some(blob.clone()),
            recipe: recipe.stored(),
            duration_ms: 0,
            created: 0,
            producer: self.engine.options.producer.clone(),
            scope: self.engine.options.scope.clone(),
            signature: None,
        };
        let store = Arc::clone(&self.engine.store);
        // Not remembering costs compressing it again.
        let _ = blocking(move || Ok(store.put_action(&record)?)).await;
    }
}

fn compression_of(media_type: &str) -> Option<Compression> {
    match media_type {
        "application/vnd.oci.image.layer.v1.tar" => Some(Compression::None),
        "application/vnd.oci.image.layer.v1.tar+gzip" => Some(Compression::Gzip),
        "application/vnd.oci.image.layer.v1.tar+zstd" => Some(Compression::Zstd),
        _ => None,
    }
}
