//! Bytes of layers that are not in the local store: from the tiers, from registries, or from a
//! step that is executed again.
//!
//! A layer is read while it comes: [`LayerBytes::read`] hands the network's stream to its reader
//! and to the local store at the same time, so an unpacked layer is on disk once compressed and once
//! unpacked, never as a tar. What the reader made counts only if the whole stream was right.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    sync::Arc,
};

use bytes::Buf as _;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{BuildError, LayerBytes, ResultLayer, session::blocking};
use crate::{
    cache::{BlobFile, CacheError, Piece},
    digest::Sha256Digest,
    fs,
    graph::Op,
    oci::layer::{LayerContent, LayerIndex, LayerPath, stretches},
};

/// Layers that are fetched at the same time.
const AT_ONCE: usize = 4;

/// Pieces between the network and the reader.
const IN_FLIGHT: usize = 16;

/// Parts of a layer are fetched if they are less than the whole divided by this.
const WHOLE_FROM: u64 = 4;

/// What a layer's reader was given.
enum Streamed<T> {
    /// The bytes of a tier, right to the end.
    Done(T),
    /// Nothing: the blob has come into the local store meanwhile.
    Local,
    /// Nothing: no tier has it.
    Missing,
}

impl LayerBytes {
    /// The layer's blob in the local store, fetched if it is not there.
    pub async fn ensure(&self, layer: &ResultLayer) -> Result<BlobFile, BuildError> {
        let digest = layer.blob.digest;
        let lock = self.lock(digest);
        let _held = lock.lock().await;
        if let Some(file) = self.local(layer).await? {
            return Ok(file);
        }
        let Op::Image(image) = &self.graph.vertex(layer.from).op else {
            let fetched = tokio::select! {
                fetched = self.tiers.fetch(digest, Some(layer.blob.size)) => fetched?,
                () = self.stop.cancelled() => return Err(BuildError::Interrupted),
            };
            let file = fetched.ok_or_else(|| self.lost(layer))?;
            self.arrived(layer).await;
            return Ok(file);
        };
        self.fetch(image, &layer.blob).await?;
        self.note_verified(digest);
        self.local(layer)
            .await?
            .ok_or_else(|| BuildError::Internal {
                what: format!("blob `{digest}` vanished right after it was fetched"),
            })
    }

    /// Fetches the layers that are not in the local store, several at a time. What can't be had
    /// shows when it is asked for again.
    pub async fn prefetch<'l>(&self, layers: impl IntoIterator<Item = &'l ResultLayer>) {
        let mut seen = BTreeSet::new();
        let layers = layers
            .into_iter()
            .filter(|layer| seen.insert(layer.blob.digest));
        // Collected, because a stream over a borrowing iterator can't be sent to other threads.
        let layers: Vec<&ResultLayer> = layers.collect();
        let fetches: Vec<_> = layers
            .into_iter()
            .map(|layer| async move { drop(self.ensure(layer).await) })
            .collect();
        stream::iter(fetches)
            .buffer_unordered(AT_ONCE)
            .collect::<()>()
            .await;
    }

    /// Reads the layer's blob with `read`, which may run several times: bytes that prove corrupt
    /// are fetched again, or their vertex is [`BuildError::Lost`]. `halt` ends it.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        layer: &ResultLayer,
        halt: &CancellationToken,
        read: impl Fn(&mut (dyn Read + Send)) -> Result<T, BuildError> + Clone + Send + 'static,
    ) -> Result<T, BuildError> {
        for _ in 0..2 {
            match self.stream(layer, halt, read.clone()).await? {
                Streamed::Done(value) => return Ok(value),
                Streamed::Missing => return Err(self.lost(layer)),
                Streamed::Local => {}
            }
            let (store, digest, read) = (Arc::clone(&self.store), layer.blob.digest, read.clone());
            let result = blocking(move || {
                let Some(mut blob) = store.open_blob_verified(&digest)? else {
                    return Ok(None);
                };
                let result = read(&mut blob);
                // A blob whose bytes are wrong explains whatever `read` made of them.
                match blob.finish() {
                    Ok(()) => result.map(Some),
                    Err(CacheError::Corrupt { .. }) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            })
            .await?;
            if let Some(value) = result {
                return Ok(value);
            }
            self.events.warn(
                format!("cached blob `{digest}` was corrupt or gone and has been dropped"),
                None,
            );
        }
        Err(self.lost(layer))
    }

    /// Reads a layer while it comes from a tier, and keeps it.
    async fn stream<T: Send + 'static>(
        &self,
        layer: &ResultLayer,
        halt: &CancellationToken,
        read: impl Fn(&mut (dyn Read + Send)) -> Result<T, BuildError> + Clone + Send + 'static,
    ) -> Result<Streamed<T>, BuildError> {
        if matches!(self.graph.vertex(layer.from).op, Op::Image(_)) {
            self.ensure(layer).await?;
            return Ok(Streamed::Local);
        }
        let digest = layer.blob.digest;
        let lock = self.lock(digest);
        let _held = lock.lock().await;
        if self.local(layer).await?.is_some() {
            return Ok(Streamed::Local);
        }
        let mut from = 0;
        loop {
            let download = tokio::select! {
                download = self.tiers.open(digest, Some(layer.blob.size), from) => download,
                () = halt.cancelled() => return Err(BuildError::Interrupted),
            };
            let Some(download) = download else {
                return Ok(Streamed::Missing);
            };
            from = download.tier + 1;
            let (sender, receiver) = mpsc::channel(IN_FLIGHT);
            let receiving = async {
                tokio::select! {
                    received = self.tiers.receive(download, Some(sender)) => received,
                    () = halt.cancelled() => Ok(false),
                }
            };
            let read = read.clone();
            let reading = blocking(move || {
                read(&mut Pieces {
                    receiver,
                    piece: bytes::Bytes::new(),
                    ended: false,
                })
            });
            // What was made of wrong bytes is nobody's fault but theirs.
            let (received, made) = tokio::join!(receiving, reading);
            if received? {
                self.arrived(layer).await;
                return Ok(Streamed::Done(made?));
            }
            if halt.is_cancelled() {
                return Err(BuildError::Interrupted);
            }
        }
    }

    /// The encoded index of a layer, in the local store or a tier; none if it is gone, corrupt or
    /// of another version.
    pub(super) async fn stored_index(
        &self,
        digest: Sha256Digest,
    ) -> Result<Option<LayerIndex>, BuildError> {
        for fetched in [false, true] {
            let store = Arc::clone(&self.store);
            let decoded = blocking(move || Ok(super::bytes::read_index(&store, digest))).await?;
            if decoded.is_some() || fetched {
                return Ok(decoded);
            }
            let lock = self.lock(digest);
            let _held = lock.lock().await;
            // An index that can't be kept is one that is made anew.
            if !matches!(self.tiers.fetch(digest, None).await, Ok(Some(_))) {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Random access to the contents of a layer's files. Where only a small part of a layer is
    /// `wanted` that a tier can give by itself, only that is fetched, to a temporary file: then
    /// the second value is true, what is read must be compared with the index, and what is
    /// wrong must be read again with `whole`.
    pub(super) async fn content(
        &self,
        layer: &ResultLayer,
        wanted: &[LayerPath],
        whole: bool,
    ) -> Result<(Arc<LayerContent>, bool), BuildError> {
        let index = self.index(layer).await?;
        let media_type = layer.blob.media_type.clone();
        if !whole && let Some(blob) = self.parts(layer, &index, wanted).await? {
            let content = LayerContent::open(blob, &media_type, index)?;
            return Ok((Arc::new(content), true));
        }
        let file = self.ensure(layer).await?;
        let content = blocking(move || {
            let blob = fs::open(&file.path)?;
            Ok(Arc::new(LayerContent::open(blob, &media_type, index)?))
        });
        Ok((content.await?, false))
    }

    /// A file with the parts of a layer's blob that the `wanted` files are read from, if it is
    /// worth it and a tier has them.
    async fn parts(
        &self,
        layer: &ResultLayer,
        index: &LayerIndex,
        wanted: &[LayerPath],
    ) -> Result<Option<std::fs::File>, BuildError> {
        if !self.tiers.has_ranges() || self.local(layer).await?.is_some() {
            return Ok(None);
        }
        let rows = wanted.iter().filter_map(|path| index.get(path));
        let Some(parts) = stretches(index, rows) else {
            return Ok(None);
        };
        let bytes: u64 = parts.iter().map(|part| part.end - part.start).sum();
        if bytes.saturating_mul(WHOLE_FROM) >= layer.blob.size {
            return Ok(None);
        }
        let file = Arc::new(fs::temp_file_in(self.store.temp_dir())?);
        let there = self.tiers.parts(layer.blob.digest, &parts, &file).await;
        Ok(there.then(|| Arc::into_inner(file)).flatten())
    }

    /// The layer's blob, if it is in the local store.
    async fn local(&self, layer: &ResultLayer) -> Result<Option<BlobFile>, BuildError> {
        let (store, digest) = (Arc::clone(&self.store), layer.blob.digest);
        let file = blocking(move || Ok(store.blob(&digest)?)).await?;
        Ok(file.filter(|file| file.size == layer.blob.size))
    }

    /// Files what is known of a layer that a tier has given.
    async fn arrived(&self, layer: &ResultLayer) {
        let digest = layer.blob.digest;
        self.note_verified(digest);
        let index = self.cached_index(&layer.blob);
        let ends = index.map_or_else(Vec::new, |index| index.frame_ends());
        self.tiers.arrived(digest, ends).await;
    }

    /// Nobody has the layer: its step is to be executed again.
    pub(super) fn lost(&self, layer: &ResultLayer) -> BuildError {
        self.tiers.note_gone(layer.blob.digest);
        BuildError::Lost(layer.from)
    }
}

/// The pieces of a download as a reader, which ends only after the last one was found right.
struct Pieces {
    receiver: mpsc::Receiver<Piece>,
    piece: bytes::Bytes,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Piece::Bytes(piece)) => self.piece = piece,
                Some(Piece::End) => self.ended = true,
                Some(Piece::Broken) | None => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the download of the layer broke off",
                    ));
                }
            }
        }
        let n = buf.len().min(self.piece.len());
        buf[..n].copy_from_slice(&self.piece[..n]);
        self.piece.advance(n);
        Ok(n)
    }
}
