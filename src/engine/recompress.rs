//! Layers in the compression that an export asks for.
//!
//! Keys don't know about compression: a hit may be a zstd layer where gzip is wanted. The
//! canonical tar of a step's layer is then compressed anew, which gives the same bytes as
//! compressing it right after the step; a base image's layer keeps its tar byte for byte. The
//! result is remembered.

use std::{io::Read, sync::Arc};

use super::{
    BuildError, ResultLayer, Session,
    bytes::{finish_layer, layer_error},
    session::blocking,
};
use crate::{
    cache::{ActionResult, DiskStore, RECORD_VERSION, Scope, StepInfo},
    graph::Op,
    key::{KeyKind, KeyRecipe},
    oci::{
        Platform,
        layer::{self, ChainId, Compression, LayerBlob, LayerBuilder, LayerOptions},
    },
};

/// How layers are to be compressed for an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExportCompression {
    /// Format and level.
    pub options: LayerOptions,
    /// Whether layers of the right format are compressed anew for the level.
    pub level_matters: bool,
    /// Which layers of base images are compressed anew.
    pub base: BaseLayers,
}

/// Which layers of base images an export compresses anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BaseLayers {
    /// None: they stay as they were pulled.
    Keep,
    /// Those that Docker's formats don't know: zstd.
    OldFormats,
    /// All that are in another format.
    All,
}

impl Session {
    /// The layer as it is to be exported: base image layers as they are, layers of steps
    /// in the compression asked for.
    pub async fn exported(
        &self,
        layer: &ResultLayer,
        wanted: ExportCompression,
    ) -> Result<ResultLayer, BuildError> {
        let options = wanted.options;
        let found = Compression::of_media_type(&layer.blob.media_type)?;
        let pulled = matches!(self.graph.vertex(layer.from).op, Op::Image(_));
        let stays = match (pulled, wanted.base) {
            (true, BaseLayers::Keep) => true,
            (true, BaseLayers::OldFormats) => found != Compression::Zstd,
            (true, BaseLayers::All) => found == options.compression,
            (false, _) => found == options.compression && !wanted.level_matters,
        };
        if stays {
            return Ok(layer.clone());
        }
        let mut recipe = KeyRecipe::new(KeyKind::Recompression);
        recipe
            .display("diff-id", layer.blob.diff_id)
            .part("options", format!("{options:?}"));
        if pulled {
            recipe.part("form", "as pulled");
        }
        let blob = match self.known_recompressed(&recipe, layer).await? {
            Some(blob) => blob,
            None => self.recompress(&recipe, layer, options, pulled).await?,
        };
        Ok(ResultLayer {
            blob,
            from: layer.from,
        })
    }

    /// The layer in this compression, if an earlier export has made it.
    async fn known_recompressed(
        &self,
        recipe: &KeyRecipe,
        layer: &ResultLayer,
    ) -> Result<Option<LayerBlob>, BuildError> {
        let (store, key) = (Arc::clone(&self.engine.store), recipe.key());
        let known =
            blocking(move || Ok(store.lookup(&[Scope::local()], &[key]).unwrap_or_default()))
                .await?;
        let known = known.into_iter().flatten().find_map(|record| record.layer);
        Ok(known
            .filter(|blob| blob.diff_id == layer.blob.diff_id && self.bytes.at_hand(Some(blob))))
    }

    async fn recompress(
        &self,
        recipe: &KeyRecipe,
        layer: &ResultLayer,
        options: LayerOptions,
        pulled: bool,
    ) -> Result<LayerBlob, BuildError> {
        let store = Arc::clone(&self.engine.store);
        let media_type = layer.blob.media_type.clone();
        let blob = self
            .bytes
            .read(layer, &self.engine.stop, move |reader| {
                let tar = layer::decompress(reader, &media_type)?;
                match pulled {
                    true => as_it_is(&store, tar, options),
                    false => canonical(&store, tar, options),
                }
            })
            .await?;
        if blob.diff_id != layer.blob.diff_id {
            return Err(BuildError::Internal {
                what: format!(
                    "layer `{}` is not what its diff id says: compressed anew it unpacks to `{}`",
                    layer.blob.diff_id, blob.diff_id
                ),
            });
        }
        self.remember_recompressed(recipe, &blob).await;
        Ok(blob)
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
            scope: Scope::local(),
            signature: None,
        };
        let store = Arc::clone(&self.engine.store);
        // Not remembering costs compressing it again.
        let _ = blocking(move || Ok(store.put_action(&record)?)).await;
    }
}

fn canonical(
    store: &DiskStore,
    tar: impl Read,
    options: LayerOptions,
) -> Result<LayerBlob, BuildError> {
    let mut builder = LayerBuilder::new(store.writer()?, options);
    builder
        .append_tar(tar)
        .map_err(|error| layer_error(store, error))?;
    Ok(finish_layer(store, builder)?.0)
}

fn as_it_is(
    store: &DiskStore,
    tar: impl Read,
    options: LayerOptions,
) -> Result<LayerBlob, BuildError> {
    let (out, blob) = layer::compress_tar(tar, store.writer()?, options)
        .map_err(|error| layer_error(store, error))?;
    out.commit(Some(blob.digest))?;
    Ok(blob)
}
