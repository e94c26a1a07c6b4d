//! Where frames end, and the threads that compress them.
//!
//! The cut rule is a pure function of the canonical tar (version 1):
//!
//! - At an entry boundary the frame ends if it holds 2 MiB, or if it holds 256 KiB
//!   and either the next path's BLAKE3 begins with four zero bits or the next file
//!   is large (2 MiB and more).
//! - Inside the content of a large file it ends where FastCDC v2020 cuts that content
//!   (minimum 1 MiB, average 2 MiB, maximum 8 MiB, normalization level 1), except
//!   at the end of the content.
//!
//! So a file that changes changes its own frames, and the cuts of all others stay.
//! Frames are compressed by up to four threads, a further one hashes the tar; at
//! most 16 MiB of frames are on their way. Bytes don't depend on the threads.
//! A layer of one frame starts no thread.

use std::{
    collections::VecDeque,
    io::Write,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender, SyncSender},
    },
    thread::{self, JoinHandle},
};

use sha2::Digest as _;

use super::{
    Frame, LayerError, LayerPath,
    compress::{LayerOptions, compress_frame},
};
use crate::digest::{HashingWriter, ReadHashes, Sha256Digest};

/// Files from this size on are divided by FastCDC.
pub(super) const LARGE_FILE: u64 = 2 << 20;

/// The longest piece of a large file, in bytes.
pub(super) const MAX_PIECE: usize = 8 << 20;

const MIN_PIECE: usize = 1 << 20;
const AVERAGE_PIECE: usize = 2 << 20;

/// A frame may end at an entry boundary from here on.
const SMALL_FRAME: usize = 256 << 10;

/// A frame ends at the next entry boundary from here on.
const FULL_FRAME: usize = 2 << 20;

/// Bytes of frames between the cut and the output.
const IN_FLIGHT: usize = 16 << 20;

/// Whether a frame of `held` bytes ends before the entry at `next` of `size` bytes.
pub(super) fn ends_before(held: usize, next: &LayerPath, size: u64) -> bool {
    let chosen = || blake3::hash(next.as_bytes()).as_bytes()[0] < 0x10;
    held >= FULL_FRAME || held >= SMALL_FRAME && (size >= LARGE_FILE || chosen())
}

/// Length of the first piece of `content`, which is the rest of a large file or at
/// least [`MAX_PIECE`] bytes of it.
pub(super) fn first_piece(content: &[u8]) -> usize {
    let cutter = fastcdc::v2020::FastCDC::new(content, MIN_PIECE, AVERAGE_PIECE, MAX_PIECE);
    cutter.cut(0, content.len()).1
}

/// Compresses frames and writes them, in order, to `W`.
pub(super) struct FrameWriter<W: Write> {
    out: HashingWriter<W>,
    options: LayerOptions,
    threads: usize,
    pool: Option<Pool>,
    pending: VecDeque<Pending>,
    in_flight: usize,
    frames: Vec<Frame>,
    tar_size: u64,
}

type Compressed = Result<Vec<u8>, LayerError>;

/// A frame on its way.
struct Pending {
    size: usize,
    result: Receiver<Compressed>,
}

struct Job {
    data: Arc<Vec<u8>>,
    reply: SyncSender<Compressed>,
}

struct Pool {
    jobs: Sender<Job>,
    workers: Vec<JoinHandle<()>>,
    hasher: TarHasher,
}

/// What remains of a finished [`FrameWriter`].
pub(super) struct Written<W> {
    pub(super) out: W,
    pub(super) blob: ReadHashes,
    pub(super) tar: ReadHashes,
    pub(super) frames: Vec<Frame>,
}

impl<W: Write> FrameWriter<W> {
    pub(super) fn new(out: W, options: LayerOptions, threads: usize) -> Self {
        Self {
            out: HashingWriter::new(out),
            options,
            threads: threads.max(1),
            pool: None,
            pending: VecDeque::new(),
            in_flight: 0,
            frames: Vec::new(),
            tar_size: 0,
        }
    }

    /// Takes a frame that is not the last.
    pub(super) fn push(&mut self, data: Vec<u8>) -> Result<(), LayerError> {
        while self.in_flight + data.len() > IN_FLIGHT && self.write_first()? {}
        if self.pool.is_none() {
            self.pool = Some(Pool::start(self.options, self.threads)?);
        }
        let Some(pool) = &self.pool else {
            return Err(LayerError::ThreadEnded);
        };
        let (reply, result) = mpsc::sync_channel(1);
        let size = data.len();
        let data = Arc::new(data);
        pool.hasher.update(Arc::clone(&data))?;
        pool.jobs
            .send(Job { data, reply })
            .map_err(|_| LayerError::ThreadEnded)?;
        self.in_flight += size;
        self.pending.push_back(Pending { size, result });
        Ok(())
    }

    /// Takes the last frame and waits until all are written.
    pub(super) fn finish(mut self, data: Vec<u8>) -> Result<Written<W>, LayerError> {
        let sha256 = if self.pool.is_none() {
            let frame = compress_frame(&data, self.options)?;
            self.write(&frame, data.len())?;
            Sha256Digest::of(&data)
        } else {
            self.push(data)?;
            while self.write_first()? {}
            let pool = self.pool.take().ok_or(LayerError::ThreadEnded)?;
            pool.finish()?
        };
        self.out.flush().map_err(LayerError::Write)?;
        let (out, blob) = self.out.finish();
        Ok(Written {
            out,
            blob,
            tar: ReadHashes {
                sha256,
                size: self.tar_size,
            },
            frames: self.frames,
        })
    }

    /// Waits for the first frame on its way and writes it; false if there is none.
    fn write_first(&mut self) -> Result<bool, LayerError> {
        let Some(first) = self.pending.pop_front() else {
            return Ok(false);
        };
        let frame = first.result.recv().map_err(|_| LayerError::ThreadEnded)??;
        self.in_flight -= first.size;
        self.write(&frame, first.size)?;
        Ok(true)
    }

    fn write(&mut self, frame: &[u8], tar_size: usize) -> Result<(), LayerError> {
        self.frames.push(Frame {
            tar_offset: self.tar_size,
            tar_size: tar_size as u64,
            blob_offset: self.out.size(),
            blob_size: frame.len() as u64,
        });
        self.tar_size += tar_size as u64;
        self.out.write_all(frame).map_err(LayerError::Write)
    }
}

impl Pool {
    fn start(options: LayerOptions, threads: usize) -> Result<Self, LayerError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let mut workers = Vec::with_capacity(threads);
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            let work = move || {
                while let Some(job) = next_job(&queue) {
                    // Nobody listens any more if the writer has failed.
                    let _ = job.reply.send(compress_frame(&job.data, options));
                }
            };
            workers.push(spawn("compress", work)?);
        }
        Ok(Self {
            jobs,
            workers,
            hasher: TarHasher::start()?,
        })
    }

    fn finish(self) -> Result<Sha256Digest, LayerError> {
        drop(self.jobs);
        for worker in self.workers {
            worker.join().map_err(|_| LayerError::ThreadEnded)?;
        }
        self.hasher.finish()
    }
}

fn next_job(queue: &Mutex<Receiver<Job>>) -> Option<Job> {
    queue
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .recv()
        .ok()
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, LayerError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(LayerError::StartThread)
}

/// SHA-256 of a tar on a thread of its own.
pub(super) struct TarHasher {
    parts: SyncSender<Arc<Vec<u8>>>,
    thread: JoinHandle<Sha256Digest>,
}

impl TarHasher {
    pub(super) fn start() -> Result<Self, LayerError> {
        let (parts, queue) = mpsc::sync_channel::<Arc<Vec<u8>>>(2);
        let work = move || {
            let mut hasher = sha2::Sha256::new();
            for part in queue {
                hasher.update(part.as_slice());
            }
            Sha256Digest::from_bytes(hasher.finalize().into())
        };
        Ok(Self {
            parts,
            thread: spawn("hash", work)?,
        })
    }

    /// Hashes the next part of the tar.
    pub(super) fn update(&self, part: Arc<Vec<u8>>) -> Result<(), LayerError> {
        self.parts.send(part).map_err(|_| LayerError::ThreadEnded)
    }

    /// The digest of all parts.
    pub(super) fn finish(self) -> Result<Sha256Digest, LayerError> {
        drop(self.parts);
        self.thread.join().map_err(|_| LayerError::ThreadEnded)
    }
}
