//! Hashing of bytes on their way through.

use std::io::{self, Read, Write};

use sha2::Digest as _;

use super::{Blake3Digest, Sha256Digest};

/// What a [`HashingReader`] or [`HashingWriter`] has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadHashes {
    /// SHA-256 of the bytes.
    pub sha256: Sha256Digest,
    /// Number of bytes.
    pub size: u64,
}

/// A reader that hashes what is read through it.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    sha256: sha2::Sha256,
    size: u64,
}

impl<R: Read> HashingReader<R> {
    /// Hashes what is read from `inner`.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            sha256: sha2::Sha256::new(),
            size: 0,
        }
    }

    /// The hashes of all bytes read so far.
    pub fn hashes(&self) -> ReadHashes {
        ReadHashes {
            sha256: Sha256Digest::from_bytes(self.sha256.clone().finalize().into()),
            size: self.size,
        }
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.sha256.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }
}

/// A writer that hashes what is written through it.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    sha256: sha2::Sha256,
    size: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Hashes what `inner` accepts.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            sha256: sha2::Sha256::new(),
            size: 0,
        }
    }

    /// The inner writer and the hashes of all bytes it accepted.
    pub fn finish(self) -> (W, ReadHashes) {
        let hashes = ReadHashes {
            sha256: Sha256Digest::from_bytes(self.sha256.finalize().into()),
            size: self.size,
        };
        (self.inner, hashes)
    }

    /// Number of bytes accepted so far.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.sha256.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Blake3Digest {
    /// Hashes all that is left in `reader`; gives the digest and the number of bytes.
    pub fn of_reader(mut reader: impl Read) -> io::Result<(Self, u64)> {
        let mut hasher = blake3::Hasher::new();
        let size = io::copy(&mut reader, &mut hasher)?;
        Ok((Self::from_bytes(*hasher.finalize().as_bytes()), size))
    }
}
