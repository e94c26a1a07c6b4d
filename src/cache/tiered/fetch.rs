//! Bytes from tiers: whole blobs into the local store, or the parts of one that are wanted.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::mpsc,
};

use super::TieredStore;
use crate::{
    cache::{
        Blob, BlobFile, CacheError,
        disk::blocking,
        line::{Act, Line},
    },
    digest::Sha256Digest,
    event::BuildEvent,
};

/// Bytes read at once.
const PIECE: usize = 256 << 10;

/// Pieces between the network and those who take them.
const IN_FLIGHT: usize = 16;

/// Time between two progress events.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Blobs below this size are not worth a progress event.
const WORTH_TELLING: u64 = 1 << 20;

/// Most bytes of a blob whose size nobody has said: an index.
const UNSIZED_LIMIT: u64 = 256 << 20;

/// Parts of one blob that are fetched at the same time.
const PARTS_AT_ONCE: usize = 8;

/// A piece of a blob on its way to a second taker.
#[derive(Debug)]
pub enum Piece {
    /// The next bytes.
    Bytes(Bytes),
    /// There are no more, and all were right.
    End,
    /// The blob can't be had, or was not right.
    Broken,
}

/// A blob that a tier has begun to send.
#[derive(Debug)]
pub struct Download {
    /// Number of the tier.
    pub tier: usize,
    digest: Sha256Digest,
    blob: Blob,
}

impl TieredStore {
    /// The blob in the local store, fetched from the first tier that has it and whose bytes are
    /// right; none if there is no such tier. `size` is what it must have; without it, a blob is
    /// taken for an index, which is never very large.
    /// Fails only if the local store can't be written.
    pub async fn fetch(
        &self,
        digest: Sha256Digest,
        size: Option<u64>,
    ) -> Result<Option<BlobFile>, CacheError> {
        let mut from = 0;
        while let Some(download) = self.open(digest, size, from).await {
            from = download.tier + 1;
            if self.receive(download, None).await? {
                let store = Arc::clone(&self.local);
                return blocking("look for", digest, move || store.blob(&digest)).await;
            }
        }
        Ok(None)
    }

    /// The blob from the first tier at or after number `from` that has it.
    pub async fn open(
        &self,
        digest: Sha256Digest,
        size: Option<u64>,
        from: usize,
    ) -> Option<Download> {
        for (tier, line) in self.lines.iter().enumerate().skip(from) {
            if !line.tier.access.read {
                continue;
            }
            let blob = match line.tier.blobs.get(digest).await {
                Ok(Some(blob)) => blob,
                Ok(None) => continue,
                Err(error) => {
                    line.trouble(Act::Read, &error);
                    continue;
                }
            };
            if size.map_or(blob.size > UNSIZED_LIMIT, |size| size != blob.size) {
                let error = CacheError::Corrupt {
                    subject: digest.into(),
                    what: format!("it has {} bytes", blob.size),
                };
                line.wrong_blob(digest, &error);
                continue;
            }
            return Some(Download { tier, digest, blob });
        }
        None
    }

    /// Reads a download to its end into the local store, verified; `copy` gets the same bytes
    /// while they come, and [`Piece::End`] only after the blob was found right and has its name.
    /// False if the tier failed or its bytes were wrong: then nothing is kept, and `copy` got
    /// [`Piece::Broken`]. Fails only if the local store can't be written.
    pub async fn receive(
        &self,
        download: Download,
        copy: Option<mpsc::Sender<Piece>>,
    ) -> Result<bool, CacheError> {
        let line = &self.lines[download.tier];
        let received = self.pump(line, download, copy.as_ref()).await;
        let last = match &received {
            Ok(true) => Piece::End,
            _ => Piece::Broken,
        };
        if let Some(copy) = copy {
            // A taker that is no longer interested is none to be told.
            let _ = copy.send(last).await;
        }
        received
    }

    async fn pump(
        &self,
        line: &Line,
        download: Download,
        copy: Option<&mpsc::Sender<Piece>>,
    ) -> Result<bool, CacheError> {
        let Download { digest, blob, .. } = download;
        let Blob { size, mut reader } = blob;
        let (pieces, writing) = self.writing(digest);
        let transfer = line.down.begin();
        let mut progress = Progress::new(self, line, digest, size);
        let mut received = 0;
        let failure = loop {
            let piece = match next_piece(&mut reader).await {
                Ok(piece) => piece,
                Err(error) => break Some(CacheError::from_io("read", digest, error)),
            };
            if piece.is_empty() {
                // A reader says itself that bytes are wrong; that some are missing is seen here too.
                break (received < size).then(|| CacheError::Corrupt {
                    subject: digest.into(),
                    what: format!("of {size} bytes it has {received}"),
                });
            }
            let n = piece.len() as u64;
            received += n;
            transfer.add(n);
            self.fetched.fetch_add(n, Ordering::Relaxed);
            if received > size {
                break Some(CacheError::Corrupt {
                    subject: digest.into(),
                    what: format!("it has more than {size} bytes"),
                });
            }
            if let Some(copy) = copy {
                let _ = copy.send(Piece::Bytes(piece.clone())).await;
            }
            progress.tell(received);
            if pieces.send(piece).await.is_err() {
                // The writer has failed and says why.
                break None;
            }
        };
        drop(transfer);
        if let Some(error) = failure {
            match error {
                CacheError::Corrupt { .. } => line.wrong_blob(digest, &error),
                _ => line.trouble(Act::Read, &error),
            }
            // Without its end the writer keeps nothing.
            writing.abandon(pieces).await;
            return Ok(false);
        }
        match writing.finish(pieces).await {
            Ok(()) => Ok(true),
            Err(error @ CacheError::Corrupt { .. }) => {
                line.wrong_blob(digest, &error);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Starts a thread that writes pieces into the local store.
    fn writing(&self, digest: Sha256Digest) -> (mpsc::Sender<Bytes>, Writing) {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(IN_FLIGHT);
        let (whole, is_whole) = tokio::sync::oneshot::channel::<()>();
        let store = Arc::clone(&self.local);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn_blocking(move || {
            // A tier's reader verifies what it gives, and ends only if all was right.
            let mut out = store.vouched_writer(digest)?;
            while let Some(piece) = receiver.blocking_recv() {
                io::Write::write_all(&mut out, &piece)
                    .map_err(|error| CacheError::from_io("write", digest, error))?;
            }
            // A channel also ends when its other end is given up.
            if is_whole.blocking_recv().is_ok() {
                out.commit(Some(digest))?;
            }
            Ok(())
        });
        let writing = Writing {
            tasks,
            whole,
            digest,
        };
        (sender, writing)
    }

    /// Writes the bytes `parts` of a blob to their places in `file`, from the first tier that
    /// reads ranges and has them; **unverified**. False if there is none.
    pub async fn parts(
        &self,
        digest: Sha256Digest,
        parts: &[Range<u64>],
        file: &Arc<File>,
    ) -> bool {
        for line in self.lines.iter() {
            if !line.tier.access.read || !line.tier.blobs.has_ranges() {
                continue;
            }
            let fetch = |part: Range<u64>| self.part(line, digest, part, Arc::clone(file));
            let fetched: Result<Vec<bool>, CacheError> = stream::iter(parts.iter().cloned())
                .map(fetch)
                .buffer_unordered(PARTS_AT_ONCE)
                .try_collect()
                .await;
            match fetched {
                Ok(there) if there.iter().all(|there| *there) => return true,
                Ok(_) => {}
                Err(error) => line.trouble(Act::Read, &error),
            }
        }
        false
    }

    /// Whether some tier reads ranges.
    pub fn has_ranges(&self) -> bool {
        let ranged = |line: &Line| line.tier.access.read && line.tier.blobs.has_ranges();
        self.lines.iter().any(ranged)
    }

    async fn part(
        &self,
        line: &Line,
        digest: Sha256Digest,
        part: Range<u64>,
        file: Arc<File>,
    ) -> Result<bool, CacheError> {
        let transfer = line.down.begin();
        let Some(bytes) = line.tier.blobs.read_range(digest, part.clone()).await? else {
            return Ok(false);
        };
        transfer.add(bytes.len() as u64);
        self.fetched
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if bytes.len() as u64 != part.end - part.start {
            return Err(CacheError::Corrupt {
                subject: digest.into(),
                what: format!("it gave {} bytes for {part:?}", bytes.len()),
            });
        }
        blocking("write", digest, move || {
            file.write_all_at(&bytes, part.start)
                .map_err(|error| CacheError::from_io("write", digest, error))
        })
        .await?;
        Ok(true)
    }
}

/// The next bytes of a download, put together from what the network gives; empty at its end.
async fn next_piece(reader: &mut (dyn AsyncRead + Send + Unpin)) -> io::Result<Bytes> {
    let mut piece = BytesMut::with_capacity(PIECE);
    while piece.len() < PIECE && reader.read_buf(&mut piece).await? > 0 {}
    Ok(piece.freeze())
}

/// A blob being written by a thread of its own. Given up, it leaves nothing.
#[derive(Debug)]
struct Writing {
    tasks: tokio::task::JoinSet<Result<(), CacheError>>,
    whole: tokio::sync::oneshot::Sender<()>,
    digest: Sha256Digest,
}

impl Writing {
    /// All pieces were sent: verifies and names the blob.
    async fn finish(mut self, pieces: mpsc::Sender<Bytes>) -> Result<(), CacheError> {
        let _ = self.whole.send(());
        drop(pieces);
        Self::joined(&mut self.tasks, self.digest).await
    }

    /// Waits until nothing is left of it.
    async fn abandon(mut self, pieces: mpsc::Sender<Bytes>) {
        drop((pieces, self.whole));
        let _ = Self::joined(&mut self.tasks, self.digest).await;
    }

    async fn joined(
        tasks: &mut tokio::task::JoinSet<Result<(), CacheError>>,
        digest: Sha256Digest,
    ) -> Result<(), CacheError> {
        match tasks.join_next().await {
            Some(Ok(written)) => written,
            Some(Err(error)) => Err(CacheError::Broken {
                act: "write",
                subject: digest.into(),
                source: Box::new(error),
            }),
            None => Ok(()),
        }
    }
}

/// Tells how far a download is.
struct Progress<'s> {
    store: &'s TieredStore,
    what: String,
    size: u64,
    told: Option<Instant>,
}

impl<'s> Progress<'s> {
    fn new(store: &'s TieredStore, line: &Line, digest: Sha256Digest, size: u64) -> Self {
        Self {
            store,
            what: format!("{} {}", line.name(), digest.short()),
            size,
            told: None,
        }
    }

    fn tell(&mut self, current: u64) {
        let due = self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY);
        if self.size >= WORTH_TELLING && (due || current == self.size) {
            self.told = Some(Instant::now());
            self.store.events.send(BuildEvent::Transfer {
                what: self.what.clone(),
                current,
                total: Some(self.size),
            });
        }
    }
}
