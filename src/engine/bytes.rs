//! The bytes behind results: blobs, indexes, trees and contents, fetched on demand.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::{BuildError, Engine, ResultLayer, session::blocking};
use crate::{
    cache::{BlobWriter, CacheError, DiskStore, TieredStore},
    digest::Sha256Digest,
    event::{BuildEvent, Events},
    fs,
    graph::{BuildGraph, ImageOp, ImageOrigin},
    oci::layer::{self, LayerBlob, LayerBuilder, LayerError, LayerIndex, Tree},
    registry::Registry,
};

/// Bytes that are copied at a time.
const COPIED: usize = 256 << 10;

/// Indexes of one stack that are fetched or made at the same time.
const INDEXES_AT_ONCE: usize = 4;

/// Gives the bytes of layers, and what can be made of them.
#[derive(Debug)]
pub struct LayerBytes {
    pub(super) store: Arc<DiskStore>,
    pub(super) tiers: Arc<TieredStore>,
    registry: Arc<Registry>,
    pub(super) events: Events,
    pub(super) stop: CancellationToken,
    pub(super) graph: Arc<BuildGraph>,
    /// One lock for each blob being fetched or read, so that nobody does it twice.
    locks: Mutex<HashMap<Sha256Digest, Arc<tokio::sync::Mutex<()>>>>,
    /// Indexes by the digest of their layer's blob.
    indexes: Mutex<HashMap<Sha256Digest, Arc<LayerIndex>>>,
    /// Blobs whose bytes this build has verified on their way into the local store.
    verified: Mutex<HashSet<Sha256Digest>>,
    fetched: AtomicU64,
}

impl LayerBytes {
    pub(super) fn new(engine: &Engine, tiers: Arc<TieredStore>, graph: Arc<BuildGraph>) -> Self {
        Self {
            store: Arc::clone(&engine.store),
            tiers,
            stop: engine.stop.clone(),
            registry: Arc::clone(&engine.registry),
            events: engine.events.clone(),
            graph,
            locks: Mutex::default(),
            indexes: Mutex::default(),
            verified: Mutex::default(),
            fetched: AtomicU64::new(0),
        }
    }

    /// Bytes fetched from registries and tiers so far.
    pub(super) fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed) + self.tiers.fetched()
    }

    /// Whether this build has verified the blob on its way into the local store.
    pub fn is_verified(&self, digest: &Sha256Digest) -> bool {
        let verified = self.verified.lock();
        let verified = verified.unwrap_or_else(PoisonError::into_inner);
        verified.contains(digest)
    }

    pub(super) fn note_verified(&self, digest: Sha256Digest) {
        let verified = self.verified.lock();
        let mut verified = verified.unwrap_or_else(PoisonError::into_inner);
        verified.insert(digest);
    }

    /// Whether a step's layer is in the local store, or a tier says that it has it. A look at
    /// a name and a size; that the bytes are right shows when they are read. The index
    /// is only noted as used: it can be made again from the layer.
    pub(super) fn at_hand(&self, layer: Option<&LayerBlob>) -> bool {
        let blob = |digest| self.store.blob(&digest).ok().flatten();
        layer.is_none_or(|layer| {
            layer.index.and_then(blob);
            blob(layer.digest).is_some_and(|file| file.size == layer.size)
                || self.tiers.offers(layer)
        })
    }

    /// The layer's index, made from its bytes if nobody has made it yet.
    pub async fn index(&self, layer: &ResultLayer) -> Result<Arc<LayerIndex>, BuildError> {
        if let Some(index) = self.cached_index(&layer.blob) {
            return Ok(index);
        }
        if let Some(digest) = layer.blob.index {
            let decoded = self.stored_index(digest).await?;
            if let Some(index) = decoded.filter(|index| index.diff_id == layer.blob.diff_id) {
                return Ok(self.remember(&layer.blob, index));
            }
        }
        if let Some(index) = self.shared_index(layer).await? {
            return Ok(self.remember(&layer.blob, index));
        }
        let media_type = layer.blob.media_type.clone();
        let scanned = self
            .read(layer, &self.stop, move |blob| {
                Ok(layer::scan(blob, &media_type)?)
            })
            .await?;
        if scanned.diff_id != layer.blob.diff_id {
            return Err(BuildError::Internal {
                what: format!(
                    "layer `{}` unpacks to `{}`, its image says `{}`",
                    layer.blob.digest, scanned.diff_id, layer.blob.diff_id
                ),
            });
        }
        self.keep_index(&layer.blob, scanned.index).await
    }

    /// The merged tree of a stack of layers.
    pub async fn tree(&self, layers: &[Arc<ResultLayer>]) -> Result<Arc<Tree>, BuildError> {
        let indexes: Vec<_> = layers.iter().map(|layer| self.index(layer)).collect();
        let indexes = stream::iter(indexes).buffered(INDEXES_AT_ONCE);
        Ok(Arc::new(Tree::new(indexes.try_collect().await?)))
    }

    /// An index that this build has read already.
    pub(super) fn cached_index(&self, blob: &LayerBlob) -> Option<Arc<LayerIndex>> {
        let indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        indexes.get(&blob.digest).cloned()
    }

    /// Keeps an index in memory for this build.
    pub(super) fn remember(&self, blob: &LayerBlob, index: LayerIndex) -> Arc<LayerIndex> {
        let index = Arc::new(index);
        self.indexes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(blob.digest, Arc::clone(&index));
        index
    }

    /// The lock of a blob, for whoever fetches or reads it.
    pub(super) fn lock(&self, digest: Sha256Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(digest).or_default())
    }

    /// Brings a base image's layer into the store.
    pub(super) async fn fetch(&self, image: &ImageOp, blob: &LayerBlob) -> Result<(), BuildError> {
        match &image.origin {
            ImageOrigin::Layout { dir } => {
                let path = dir.join("blobs/sha256").join(blob.digest.hex());
                let (store, digest) = (Arc::clone(&self.store), blob.digest);
                let reference = image.reference.clone();
                blocking(move || {
                    let mut source = fs::open(&path)?;
                    let mut out = store.writer()?;
                    copy(&mut source, &mut out, digest)?;
                    match out.commit(Some(digest)) {
                        Err(source @ CacheError::Corrupt { .. }) => {
                            Err(BuildError::BaseLayer { reference, source })
                        }
                        committed => Ok(committed.map(drop)?),
                    }
                })
                .await
            }
            ImageOrigin::Registry { repository } => {
                let what = format!("{} {}", image.reference, blob.digest.short());
                let mut out = self.store.writer()?;
                let progress = |current| {
                    self.events.send(BuildEvent::Transfer {
                        what: what.clone(),
                        current,
                        total: Some(blob.size),
                    });
                };
                self.registry
                    .fetch_blob(repository, &blob.digest, blob.size, &mut out, &progress)
                    .await
                    .map_err(|source| BuildError::BaseImage {
                        reference: image.reference.clone(),
                        source: Box::new(source),
                    })?;
                self.fetched.fetch_add(blob.size, Ordering::Relaxed);
                let digest = blob.digest;
                blocking(move || {
                    out.commit(Some(digest))?;
                    Ok(())
                })
                .await
            }
        }
    }
}

/// Copies into the store; a failure of the store stays one.
fn copy(source: &mut File, out: &mut BlobWriter, digest: Sha256Digest) -> Result<(), CacheError> {
    let mut source = io::BufReader::with_capacity(COPIED, source);
    io::copy(&mut source, out)
        .map(|_| ())
        .map_err(|error| CacheError::from_io("write", digest, error))
}

/// Completes a layer in the store: its blob and its index.
pub(super) fn finish_layer(
    store: &DiskStore,
    builder: LayerBuilder<BlobWriter>,
) -> Result<(LayerBlob, LayerIndex), BuildError> {
    let (out, layer) = builder
        .finish()
        .map_err(|error| layer_error(store, error))?;
    out.commit(Some(layer.digest))?;
    let index = store_bytes(store, &layer.index.encode()?)?;
    Ok((layer.blob(Some(index)), layer.index))
}

/// A failure of writing a layer is one of the store.
pub(super) fn layer_error(store: &DiskStore, error: LayerError) -> BuildError {
    match error {
        LayerError::Write(source) => CacheError::from_io("write", store.dir(), source).into(),
        error => error.into(),
    }
}

/// Writes a small blob.
pub(super) fn store_bytes(store: &DiskStore, bytes: &[u8]) -> Result<Sha256Digest, CacheError> {
    let digest = Sha256Digest::of(bytes);
    let mut out = store.writer()?;
    io::Write::write_all(&mut out, bytes)
        .map_err(|error| CacheError::from_io("write", digest, error))?;
    out.commit(Some(digest))
}

/// Reads an index; none if it is gone, corrupt or of another version.
pub(super) fn read_index(store: &DiskStore, digest: Sha256Digest) -> Option<LayerIndex> {
    let mut bytes = Vec::new();
    let mut blob = store.open_blob_verified(&digest).ok()??;
    blob.read_to_end(&mut bytes).ok()?;
    blob.finish().ok()?;
    LayerIndex::decode(&bytes).ok()
}
