//! Unpacking what steps stand on, and doing it before they have leave to run.
//!
//! As soon as it is known that a RUN must be executed, the layers of its inputs are fetched and
//! unpacked, while others hold the permits. Below a COPY that must be executed, with a RUN above
//! that will have to be, the stack is unpacked in the background while the COPY is made.

use std::{
    collections::HashMap,
    io::{self, Read},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, mpsc},
};

use tokio::sync::Semaphore;

use super::{
    BuildError, ResultLayer, VertexResult, attempt::Attempt, exec::Runtime, session::blocking,
};
use crate::{
    event::{BuildEvent, StepId},
    graph::{Op, VertexId},
    oci::layer::{self, DiffId, LayerBlob, LayerError},
    snapshot::{SnapshotError, Snapshots},
};

/// Bytes of tar between two progress events.
const PROGRESS_EVERY: u64 = 8 << 20;

/// How often a stack is unpacked that somebody keeps removing.
const UNPACK_ATTEMPTS: usize = 3;

/// What is being unpacked.
#[derive(Debug)]
pub(super) struct Unpacking {
    /// One lock for each layer.
    locks: Mutex<HashMap<DiffId, Arc<tokio::sync::Mutex<()>>>>,
    /// Layers that are unpacked at the same time.
    permits: Semaphore,
}

impl Default for Unpacking {
    fn default() -> Self {
        let width = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            locks: Mutex::default(),
            permits: Semaphore::new(width.max(2)),
        }
    }
}

impl Unpacking {
    fn lock(&self, diff_id: DiffId) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(diff_id).or_default())
    }
}

impl Attempt {
    /// Starts to find out how RUN steps are run here, for one that will hardly be a hit, while its
    /// inputs are solved. A failure is left to the step that needs to know.
    pub(super) fn ready_runtime(self: &Arc<Self>) {
        let this = Arc::clone(self);
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .spawn(async move { drop(this.runtime().await) });
    }

    /// Unpacks what a RUN will be started on: its root, and what it mounts of other stages.
    pub(super) async fn unpack_inputs(
        self: &Arc<Self>,
        id: VertexId,
        inputs: &[(VertexId, Arc<VertexResult>)],
    ) -> Result<(), BuildError> {
        let layers: Vec<Arc<ResultLayer>> = inputs
            .iter()
            .flat_map(|(_, result)| result.layers.iter().cloned())
            .collect();
        let runtime = self.runtime().await?;
        self.unpack(id, &runtime, &layers).await
    }

    /// Starts to unpack the root of a COPY in the background if a RUN will be executed on what
    /// it makes. Failures are left to the RUN.
    pub(super) fn unpack_below(self: &Arc<Self>, id: VertexId, root: &Arc<VertexResult>) {
        if root.layers.is_empty() || !self.carries_run(id) {
            return;
        }
        let (this, root) = (Arc::clone(self), Arc::clone(root));
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .spawn(async move {
                if let Ok(runtime) = this.runtime().await {
                    let _ = this.unpack(id, &runtime, &root.layers).await;
                }
            });
    }

    /// Whether somebody waits for a RUN on top of `id` that has no definition hit.
    fn carries_run(&self, id: VertexId) -> bool {
        let session = &self.session;
        let vertices = session.graph.vertices.iter().enumerate();
        // Edges lead to smaller numbers.
        let above = vertices
            .skip(id.0 + 1)
            .map(|(n, vertex)| (VertexId(n), vertex));
        let mut misses = above.filter(|(above, vertex)| {
            vertex.op.root() == Some(id)
                && self.is_asked(*above)
                && session.definition_hit(*above).is_none()
        });
        misses.any(|(above, vertex)| match vertex.op {
            Op::Exec(_) => true,
            _ => self.carries_run(above),
        })
    }

    /// The directories of a stack of layers, unpacked where they are not yet. Another
    /// process may remove an unpacked layer as long as nobody uses it: then it is unpacked
    /// again.
    pub(super) async fn lower_dirs(
        self: &Arc<Self>,
        id: VertexId,
        runtime: &Arc<Runtime>,
        layers: &[Arc<ResultLayer>],
    ) -> Result<Vec<PathBuf>, BuildError> {
        let mut left = UNPACK_ATTEMPTS;
        loop {
            self.unpack(id, runtime, layers).await?;
            let chain: Vec<DiffId> = layers.iter().map(|l| l.blob.diff_id).collect();
            let runtime = Arc::clone(runtime);
            left -= 1;
            match blocking(move || Ok(runtime.snapshots.lower_dirs(&chain))).await? {
                Err(SnapshotError::Missing { .. }) if left > 0 => {}
                result => return Ok(result?),
            }
        }
    }

    /// Unpacks the layers that are not unpacked yet, several at a time.
    async fn unpack(
        self: &Arc<Self>,
        id: VertexId,
        runtime: &Arc<Runtime>,
        layers: &[Arc<ResultLayer>],
    ) -> Result<(), BuildError> {
        let mut tasks = tokio::task::JoinSet::new();
        let mut result = Ok(());
        for layer in layers {
            if runtime.snapshots.contains(&layer.blob.diff_id) {
                continue;
            }
            let (this, runtime, layer) = (Arc::clone(self), Arc::clone(runtime), Arc::clone(layer));
            tasks.spawn(async move { this.unpack_one(id, &runtime, &layer).await });
        }
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.unwrap_or_else(|error| {
                Err(BuildError::Internal {
                    what: error.to_string(),
                })
            });
            result = result.and(ended);
        }
        result
    }

    /// Unpacks a layer in one pass over its blob; for a pulled layer that nobody has read
    /// yet the same pass makes the index.
    async fn unpack_one(
        &self,
        id: VertexId,
        runtime: &Arc<Runtime>,
        layer: &ResultLayer,
    ) -> Result<(), BuildError> {
        let lock = runtime.unpacking.lock(layer.blob.diff_id);
        let _held = lock.lock().await;
        let permit = runtime.unpacking.permits.acquire().await;
        let _permit = permit.map_err(|_| BuildError::Interrupted)?;
        if runtime.snapshots.contains(&layer.blob.diff_id) {
            return Ok(());
        }
        if self.halt.is_cancelled() {
            return Err(BuildError::Interrupted);
        }
        let bytes = &self.session.bytes;
        let blob = layer.blob.clone();
        let index = match (bytes.cached_index(&blob), blob.index) {
            (Some(index), _) => Some(index),
            (None, Some(digest)) => bytes.stored_index(digest).await?.map(Arc::new),
            (None, None) => None,
        };
        let indexed = blob.index.is_some() || index.is_some();
        // A layer is unpacked while it comes, before its digest is known to be right.
        let most = index.map_or(u64::MAX, |index| index.tar_size);
        let (events, halt) = (self.session.engine.events.clone(), self.halt.clone());
        let runtime = Arc::clone(runtime);
        let scanned = bytes
            .read(layer, &self.halt, move |reader| {
                let mut told = 0;
                let what = format!("unpacking {}", blob.diff_id.0.short());
                let mut progress = |done: u64| {
                    if done >= told + PROGRESS_EVERY {
                        told = done;
                        events.send(BuildEvent::StepProgress {
                            step: StepId(id.0),
                            what: what.clone(),
                            current: done,
                            total: None,
                        });
                    }
                };
                let mut tar = Stoppable {
                    inner: layer::decompress(reader, &blob.media_type)?,
                    halt: &halt,
                    left: most,
                };
                if indexed {
                    runtime
                        .snapshots
                        .unpack(&blob.diff_id, &mut tar, &mut progress)?;
                    return Ok(None);
                }
                unpack_and_scan(&runtime.snapshots, &blob, &mut tar, &mut progress).map(Some)
            })
            .await;
        match scanned {
            Ok(Some(index)) => bytes.keep_index(&layer.blob, index).await.map(drop),
            Ok(None) => Ok(()),
            Err(_) if self.halt.is_cancelled() => Err(BuildError::Interrupted),
            // The bytes are the ones that an entry of a cache names, and no layer of its: whoever
            // wrote it, the step can be executed.
            Err(BuildError::Snapshot(SnapshotError::DiffId { .. } | SnapshotError::Layer(_)))
                if !matches!(self.session.graph.vertex(layer.from).op, Op::Image(_)) =>
            {
                Err(self.session.bytes.lost(layer))
            }
            Err(error) => Err(error),
        }
    }
}

/// A reader that fails once the build is to stop, so that long unpacking ends soon, and where more
/// comes than the layer's index says: a small blob may unpack to more than any disk holds.
struct Stoppable<'h, R> {
    inner: R,
    halt: &'h tokio_util::sync::CancellationToken,
    /// Bytes that may still come.
    left: u64,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.halt.is_cancelled() {
            return Err(io::Error::other("interrupted"));
        }
        let read = self.inner.read(buf)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => {
                self.left = left;
                Ok(read)
            }
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the layer is larger than its index says",
            )),
        }
    }
}

/// Unpacks `tar` and makes its index at the same time, on a second thread.
fn unpack_and_scan(
    snapshots: &Snapshots,
    blob: &LayerBlob,
    tar: &mut (dyn Read + Send),
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<layer::LayerIndex, BuildError> {
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(16);
        let scanner = scope.spawn(move || {
            layer::scan(
                Chunks {
                    receiver,
                    chunk: io::Cursor::default(),
                },
                "application/vnd.oci.image.layer.v1.tar",
            )
        });
        let mut tee = Tee {
            inner: tar,
            sender: Some(sender),
        };
        let unpacked = snapshots.unpack(&blob.diff_id, &mut tee, progress);
        // Another process may have unpacked the layer meanwhile: read on for the index.
        let drained = io::copy(&mut tee, &mut io::sink());
        drop(tee);
        let scanned = scanner.join().map_err(|_| BuildError::Internal {
            what: "the thread that indexes a layer panicked".to_owned(),
        })?;
        unpacked?;
        drained.map_err(LayerError::Read)?;
        let mut index = scanned?.index;
        // What was scanned is the tar: it says nothing about the frames of the blob.
        index.frames.clear();
        Ok(index)
    })
}

/// Sends a copy of all that is read through it.
struct Tee<'r> {
    inner: &'r mut (dyn Read + Send),
    sender: Option<mpsc::SyncSender<Vec<u8>>>,
}

impl Read for Tee<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        // A scanner that has failed says so itself.
        if let Some(sender) = &self.sender
            && n > 0
            && sender.send(buf[..n].to_vec()).is_err()
        {
            self.sender = None;
        }
        Ok(n)
    }
}

/// The other end of a [`Tee`].
struct Chunks {
    receiver: mpsc::Receiver<Vec<u8>>,
    chunk: io::Cursor<Vec<u8>>,
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.chunk.read(buf)? {
                0 => match self.receiver.recv() {
                    Ok(chunk) => self.chunk = io::Cursor::new(chunk),
                    Err(mpsc::RecvError) => return Ok(0),
                },
                n => return Ok(n),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_larger_than_its_index_says_is_read_no_further() {
        let halt = tokio_util::sync::CancellationToken::new();
        let read = |left: u64| {
            let mut all = Vec::new();
            let mut reader = Stoppable {
                inner: io::repeat(0).take(1 << 20),
                halt: &halt,
                left,
            };
            (
                reader.read_to_end(&mut all).map_err(|e| e.kind()),
                all.len(),
            )
        };
        assert_eq!(read(1 << 20), (Ok(1 << 20), 1 << 20));
        let (error, bytes) = read(1000);
        assert_eq!(error, Err(io::ErrorKind::InvalidData));
        assert!(bytes < 64 << 10, "{bytes}");
    }
}
