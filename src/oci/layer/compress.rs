//! Compressing frames and reading compressed layers.
//!
//! A blob is a sequence of *frames*: zstd frames (RFC 8878) or gzip members
//! (RFC 1952), each compressed by itself. zstd frames carry their content size and a
//! checksum, so that a frame read alone is checked. gzip members have time zero and
//! no name. [`FrameReader`] reads such a blob, or any other tool's, and notes where
//! its frames lie.

use std::io::{self, BufRead, BufReader, Read, Write};

use zstd::zstd_safe::CParameter;

use super::{Compression, Frame, LayerError};

/// How [`LayerBuilder`](super::LayerBuilder) compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LayerOptions {
    /// The format.
    pub compression: Compression,
    /// The format's level; by default 3 for zstd and 6 for gzip.
    pub level: Option<i32>,
}

impl Compression {
    /// The OCI media type of a layer compressed like this.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    /// The compression that the media type of a layer names: OCI's, also the
    /// non-distributable ones, and Docker's.
    pub fn of_media_type(media_type: &str) -> Result<Self, LayerError> {
        let unknown = || LayerError::MediaType(media_type.to_owned());
        let known = [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.nondistributable.v1.tar",
            "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.docker.image.rootfs.foreign.diff.tar",
        ];
        let suffix = known
            .iter()
            .filter_map(|prefix| media_type.strip_prefix(prefix))
            .next()
            .ok_or_else(unknown)?;
        match suffix {
            "" => Ok(Self::None),
            "+gzip" | ".gzip" => Ok(Self::Gzip),
            "+zstd" | ".zstd" => Ok(Self::Zstd),
            _ => Err(unknown()),
        }
    }
}

/// The frame that holds `data`.
pub(super) fn compress_frame(data: &[u8], options: LayerOptions) -> Result<Vec<u8>, LayerError> {
    let frame = match options.compression {
        Compression::None => Ok(data.to_vec()),
        Compression::Gzip => gzip_member(data, options.level.unwrap_or(6)),
        Compression::Zstd => zstd_frame(data, options.level.unwrap_or(3)),
    };
    frame.map_err(LayerError::Compress)
}

fn gzip_member(data: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let level = flate2::Compression::new(level.clamp(0, 9).unsigned_abs());
    let mut member = flate2::GzBuilder::new().mtime(0).write(Vec::new(), level);
    member.write_all(data)?;
    member.finish()
}

fn zstd_frame(data: &[u8], level: i32) -> io::Result<Vec<u8>> {
    // A new context each time: from level 5 on a context's hash tables are salted by
    // what it did before, and bytes must not depend on which thread did what.
    let mut encoder = zstd::bulk::Compressor::new(level)?;
    encoder.set_parameter(CParameter::ContentSizeFlag(true))?;
    encoder.set_parameter(CParameter::ChecksumFlag(true))?;
    encoder.compress(data)
}

/// The content of the frame `bytes`, which must have `size` bytes.
pub(super) fn decompress_frame(
    bytes: &[u8],
    compression: Compression,
    size: usize,
) -> Result<Vec<u8>, LayerError> {
    let mut out = Vec::with_capacity(size);
    FrameReader::new(bytes, compression)
        .take(size as u64 + 1)
        .read_to_end(&mut out)
        .map_err(LayerError::Read)?;
    if out.len() == size {
        Ok(out)
    } else {
        Err(LayerError::Read(io::Error::new(
            io::ErrorKind::InvalidData,
            "a frame has another size than the index says",
        )))
    }
}

/// The uncompressed tar of a layer of this media type.
pub fn decompress<'a>(
    blob: impl Read + Send + 'a,
    media_type: &str,
) -> Result<Box<dyn Read + Send + 'a>, LayerError> {
    let compression = Compression::of_media_type(media_type)?;
    let blob = BufReader::with_capacity(READ_BUFFER, blob);
    Ok(Box::new(FrameReader::new(blob, compression)))
}

/// Bytes read from a blob at once.
pub(super) const READ_BUFFER: usize = 128 << 10;

/// Most frames that are remembered; a blob of more is read as one of unknown frames.
const MAX_FRAMES: usize = 1 << 20;

/// Decompresses all frames of a blob and notes where they are.
pub(super) struct FrameReader<R: BufRead> {
    state: State<Counted<R>>,
    compression: Compression,
    current: Frame,
    frames: Vec<Frame>,
    more_frames: bool,
}

enum State<R: BufRead> {
    Between(R),
    Plain(R),
    Gzip(Box<flate2::bufread::GzDecoder<R>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
    Failed,
}

/// A reader that counts.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.count += n as u64;
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.count += amount as u64;
        self.inner.consume(amount);
    }
}

impl<R: BufRead> FrameReader<R> {
    pub(super) fn new(blob: R, compression: Compression) -> Self {
        Self {
            state: State::Between(Counted {
                inner: blob,
                count: 0,
            }),
            compression,
            current: Frame {
                tar_offset: 0,
                tar_size: 0,
                blob_offset: 0,
                blob_size: 0,
            },
            frames: Vec::new(),
            more_frames: false,
        }
    }

    /// The frames, once all is read; empty if there are too many to keep.
    pub(super) fn into_frames(self) -> Vec<Frame> {
        if self.more_frames {
            Vec::new()
        } else {
            self.frames
        }
    }

    /// Starts the next frame; false at the end of the blob.
    fn open_frame(&mut self) -> io::Result<bool> {
        let State::Between(mut blob) = std::mem::replace(&mut self.state, State::Failed) else {
            return Err(io::Error::other("the layer could not be read before"));
        };
        if uninterrupted(|| blob.fill_buf().map(<[u8]>::is_empty))? {
            self.state = State::Between(blob);
            return Ok(false);
        }
        self.current = Frame {
            tar_offset: self.current.tar_offset + self.current.tar_size,
            tar_size: 0,
            blob_offset: blob.count,
            blob_size: 0,
        };
        self.state = match self.compression {
            Compression::None => State::Plain(blob),
            Compression::Gzip => State::Gzip(Box::new(flate2::bufread::GzDecoder::new(blob))),
            Compression::Zstd => State::Zstd(Box::new(
                zstd::stream::read::Decoder::with_buffer(blob)?.single_frame(),
            )),
        };
        Ok(true)
    }

    fn close_frame(&mut self) -> io::Result<()> {
        let blob = match std::mem::replace(&mut self.state, State::Failed) {
            State::Between(blob) | State::Plain(blob) => blob,
            State::Gzip(decoder) => decoder.into_inner(),
            State::Zstd(mut decoder) => {
                uninterrupted(|| decoder.finish_frame())?;
                decoder.into_inner()
            }
            State::Failed => return Err(io::Error::other("the layer could not be read before")),
        };
        self.current.blob_size = blob.count - self.current.blob_offset;
        // Skippable zstd frames and empty gzip members hold nothing.
        if self.current.tar_size > 0 && self.frames.len() < MAX_FRAMES {
            self.frames.push(self.current);
        } else if self.current.tar_size > 0 {
            self.more_frames = true;
        }
        self.state = State::Between(blob);
        Ok(())
    }
}

/// Repeats `read` as long as a signal interrupts it.
fn uninterrupted<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl<R: BufRead> Read for FrameReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            let n = match &mut self.state {
                State::Between(_) | State::Failed => {
                    if !self.open_frame()? {
                        return Ok(0);
                    }
                    continue;
                }
                State::Plain(blob) => blob.read(buf)?,
                State::Gzip(decoder) => decoder.read(buf)?,
                State::Zstd(decoder) => decoder.read(buf)?,
            };
            if n > 0 {
                self.current.tar_size += n as u64;
                return Ok(n);
            }
            self.close_frame()?;
        }
    }
}
