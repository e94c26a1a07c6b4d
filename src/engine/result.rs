//! The result of a vertex: metadata, until somebody needs bytes.

use std::sync::Arc;

use crate::{
    graph::VertexId,
    oci::layer::{ChainId, LayerBlob},
};

/// A layer and who can give its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultLayer {
    /// What it is.
    pub blob: LayerBlob,
    /// The vertex that gave it: a base image, which can be fetched again, or a step,
    /// which can be executed again.
    pub from: VertexId,
}

/// A root file system as a stack of layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VertexResult {
    /// Lowest first.
    pub layers: Vec<Arc<ResultLayer>>,
    /// Identity of the stack: equal chains have equal content.
    pub chain: ChainId,
}

impl VertexResult {
    /// The root file system without anything in it.
    pub fn empty() -> Self {
        Self {
            layers: Vec::new(),
            chain: ChainId::empty(),
        }
    }

    /// This stack with one more layer on top, or as it is.
    #[must_use]
    pub fn with(&self, layer: Option<ResultLayer>) -> Self {
        let mut result = self.clone();
        if let Some(layer) = layer {
            result.chain = result.chain.with(layer.blob.diff_id);
            result.layers.push(Arc::new(layer));
        }
        result
    }
}
