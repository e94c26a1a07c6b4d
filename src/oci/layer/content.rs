//! Reading single files out of a layer's blob.
//!
//! [`LayerContent`] decompresses only the frames that a file lies in and keeps the
//! last one, so that reading files in the order of the layer decompresses every
//! frame once. A blob without usable frames (another tool's, one long stream) is
//! decompressed once, at the first read, into a temporary file that has no name.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufReader, Read},
    ops::Range,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Compression, EntryKind, Frame, IndexEntry, LayerError, LayerIndex,
    compress::{FrameReader, READ_BUFFER, decompress_frame},
};

/// Frames above this size, in the tar or the blob, are not read one by one.
const MAX_FRAME: u64 = 32 << 20;

/// Random access to the files of one layer. Cheap to clone; reads may run in parallel.
#[derive(Clone)]
pub struct LayerContent(Arc<Inner>);

impl std::fmt::Debug for LayerContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerContent").finish_non_exhaustive()
    }
}

struct Inner {
    blob: File,
    compression: Compression,
    index: Arc<LayerIndex>,
    spool_dir: Option<PathBuf>,
    framed: bool,
    last: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
    spooled: Mutex<Option<Arc<File>>>,
}

impl LayerContent {
    /// The files of the layer in `blob`, which `index` belongs to.
    pub fn open(blob: File, media_type: &str, index: Arc<LayerIndex>) -> Result<Self, LayerError> {
        Self::open_spooling(blob, media_type, index, None)
    }

    /// As [`open`](Self::open), with the directory for the temporary file instead of
    /// the system's.
    pub fn open_in(
        blob: File,
        media_type: &str,
        index: Arc<LayerIndex>,
        spool_dir: impl Into<PathBuf>,
    ) -> Result<Self, LayerError> {
        Self::open_spooling(blob, media_type, index, Some(spool_dir.into()))
    }

    fn open_spooling(
        blob: File,
        media_type: &str,
        index: Arc<LayerIndex>,
        spool_dir: Option<PathBuf>,
    ) -> Result<Self, LayerError> {
        let compression = Compression::of_media_type(media_type)?;
        Ok(Self(Arc::new(Inner {
            blob,
            compression,
            framed: is_framed(&index),
            index,
            spool_dir,
            last: Mutex::new(None),
            spooled: Mutex::new(None),
        })))
    }

    /// Whether files are read frame by frame; else the first read decompresses the whole layer,
    /// which is kept in a temporary file.
    pub fn is_framed(&self) -> bool {
        self.0.framed || self.0.compression == Compression::None
    }

    /// The content of `row`, a regular file of this layer.
    pub fn read(&self, row: &IndexEntry) -> Result<Box<dyn Read + Send>, LayerError> {
        let EntryKind::Regular { size } = row.entry.kind else {
            return Err(LayerError::NotRegular {
                path: row.entry.path.clone(),
            });
        };
        if let Some(bytes) = &row.inline {
            return Ok(Box::new(io::Cursor::new(bytes.clone())));
        }
        if size == 0 {
            return Ok(Box::new(io::empty()));
        }
        if self.0.compression == Compression::None {
            let file = self.0.blob.try_clone().map_err(LayerError::Read)?;
            return Ok(Box::new(FilePart::new(Arc::new(file), row.offset, size)));
        }
        if self.0.framed {
            return Ok(Box::new(FramedPart {
                inner: Arc::clone(&self.0),
                offset: row.offset,
                left: size,
            }));
        }
        Ok(Box::new(FilePart::new(self.0.spool()?, row.offset, size)))
    }
}

/// Whether the frames cover the tar and are small enough to be read one by one.
fn is_framed(index: &LayerIndex) -> bool {
    let mut end = 0;
    index.frames.iter().all(|frame| {
        let joins = frame.tar_offset == end;
        end = frame.tar_offset.saturating_add(frame.tar_size);
        joins && frame.tar_size <= MAX_FRAME && frame.blob_size <= MAX_FRAME
    }) && end == index.tar_size
}

/// Longest stretch that [`stretches`] joins.
const MAX_STRETCH: u64 = 8 << 20;

/// The stretches of a layer's blob that the contents of `rows` are read from, ascending, neighbours
/// joined up to a few MiB; none if the blob can only be read as a whole. A file that has the right
/// bytes in these places is enough for a [`LayerContent`] of which only these rows are read.
pub fn stretches<'r>(
    index: &LayerIndex,
    rows: impl IntoIterator<Item = &'r IndexEntry>,
) -> Option<Vec<Range<u64>>> {
    if !is_framed(index) {
        return None;
    }
    let mut wanted = BTreeSet::new();
    for row in rows {
        let EntryKind::Regular { size } = row.entry.kind else {
            continue;
        };
        if size == 0 || row.inline.is_some() {
            continue;
        }
        let end = row.offset.checked_add(size)?;
        let frames = &index.frames;
        let first = frames.partition_point(|f| f.tar_offset + f.tar_size <= row.offset);
        let last = frames.partition_point(|f| f.tar_offset < end);
        if last <= first || end > index.tar_size {
            return None;
        }
        wanted.extend(first..last);
    }
    let mut out: Vec<Range<u64>> = Vec::new();
    for frame in wanted.into_iter().map(|n| index.frames[n]) {
        let end = frame.blob_offset.checked_add(frame.blob_size)?;
        match out.last_mut() {
            Some(last) if last.end == frame.blob_offset && end - last.start <= MAX_STRETCH => {
                last.end = end;
            }
            _ => out.push(frame.blob_offset..end),
        }
    }
    Some(out)
}

impl Inner {
    /// The frame that holds the byte at `offset` of the tar, and its content.
    fn frame(&self, offset: u64) -> Result<(Frame, Arc<Vec<u8>>), LayerError> {
        let frames = &self.index.frames;
        let next = frames.partition_point(|frame| frame.tar_offset <= offset);
        let frame = frames[..next]
            .last()
            .filter(|frame| offset - frame.tar_offset < frame.tar_size)
            .copied()
            .ok_or(LayerError::Truncated { offset })?;
        let lock = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, data)) = &*lock()
            && *at == frame.tar_offset
        {
            return Ok((frame, Arc::clone(data)));
        }
        let mut bytes = vec![0; size_in_memory(frame.blob_size)?];
        self.blob
            .read_exact_at(&mut bytes, frame.blob_offset)
            .map_err(LayerError::Read)?;
        let size = size_in_memory(frame.tar_size)?;
        let data = Arc::new(decompress_frame(&bytes, self.compression, size)?);
        *lock() = Some((frame.tar_offset, Arc::clone(&data)));
        Ok((frame, data))
    }

    /// The whole tar in a temporary file without a name, made at the first call.
    fn spool(&self) -> Result<Arc<File>, LayerError> {
        let mut spooled = self.spooled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*spooled {
            return Ok(Arc::clone(file));
        }
        let mut file = match &self.spool_dir {
            Some(dir) => tempfile::tempfile_in(dir),
            None => tempfile::tempfile(),
        }
        .map_err(LayerError::Spool)?;
        let whole = FilePart::new(
            Arc::new(self.blob.try_clone().map_err(LayerError::Read)?),
            0,
            u64::MAX,
        );
        let blob = BufReader::with_capacity(READ_BUFFER, whole);
        let mut tar = FrameReader::new(blob, self.compression);
        io::copy(&mut tar, &mut file).map_err(LayerError::Spool)?;
        let file = Arc::new(file);
        *spooled = Some(Arc::clone(&file));
        Ok(file)
    }
}

fn size_in_memory(size: u64) -> Result<usize, LayerError> {
    usize::try_from(size).map_err(|_| LayerError::IndexDamaged("a frame is too large"))
}

/// A stretch of a file, read without moving the file's position.
struct FilePart {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl FilePart {
    fn new(file: Arc<File>, offset: u64, left: u64) -> Self {
        Self { file, offset, left }
    }
}

impl Read for FilePart {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buf.len(), |n| n.min(buf.len()));
        let n = self.file.read_at(&mut buf[..most], self.offset)?;
        self.offset += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// A stretch of a framed tar.
struct FramedPart {
    inner: Arc<Inner>,
    offset: u64,
    left: u64,
}

impl Read for FramedPart {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buf.is_empty() {
            return Ok(0);
        }
        let (frame, data) = self.inner.frame(self.offset).map_err(io::Error::other)?;
        let start = usize::try_from(self.offset - frame.tar_offset).map_err(io::Error::other)?;
        let most = usize::try_from(self.left).map_or(buf.len(), |n| n.min(buf.len()));
        let n = most.min(data.len() - start);
        buf[..n].copy_from_slice(&data[start..start + n]);
        self.offset += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}
