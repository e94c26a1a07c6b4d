//! The encoding of a [`LayerIndex`].
//!
//! Version 1: the 7 bytes `mb-idx\0`, the version as one byte, then one zstd frame
//! (level 3, content size, checksum) of the body. In the body *number* is an unsigned
//! LEB128 of up to 64 bits, *signed* a zigzag number, *bytes* a number and as many
//! bytes:
//!
//! ```text
//! body    diff id (32 bytes), tar size (number),
//!         count (number), that many rows, count (number), that many frames
//! row     path (bytes), kind (1 byte), fields of the kind, mode, uid, gid (numbers),
//!         mtime (signed), count (number) and that many xattrs (name, value: bytes),
//!         flags (1 byte: 1 content, 2 inline), if content: BLAKE3 (32 bytes) and
//!         offset (number), if inline: bytes
//! kind    0 directory, 1 regular (size: number), 2 symlink (target: bytes), 3 hard
//!         link (target: bytes), 4 character device, 5 block device (major, minor:
//!         numbers), 6 pipe, 7 whiteout, 8 opaque
//! frame   tar size, blob offset less the end of the frame before, blob size (numbers)
//! ```
//!
//! Frames join in the tar. Rows must stand in canonical order and nothing may follow
//! the body, so an index has one encoding, but for the compressor's version.

use std::{collections::BTreeMap, ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

use super::{
    Compression, DiffId, Entry, EntryKind, Frame, IndexEntry, LayerError, LayerIndex, LayerPath,
    compress::{LayerOptions, compress_frame},
    index::canonical_order,
};
use crate::digest::{Blake3Digest, Sha256Digest};

const MAGIC: &[u8] = b"mb-idx\0";

/// Version of the encoding.
const VERSION: u8 = 1;

/// The largest body, in bytes.
const MAX_BODY: usize = 512 << 20;

const HAS_CONTENT: u8 = 1;
const HAS_INLINE: u8 = 2;

impl LayerIndex {
    /// The encoded index.
    pub fn encode(&self) -> Result<Vec<u8>, LayerError> {
        let mut body = Writer(Vec::with_capacity(64 + 64 * self.entries.len()));
        body.0.extend_from_slice(self.diff_id.0.as_bytes());
        body.number(self.tar_size);
        body.number(self.entries.len() as u64);
        for row in &self.entries {
            body.row(row);
        }
        body.number(self.frames.len() as u64);
        let mut end = 0;
        for frame in &self.frames {
            body.number(frame.tar_size);
            body.number(frame.blob_offset - end);
            body.number(frame.blob_size);
            end = frame.blob_offset + frame.blob_size;
        }
        let options = LayerOptions {
            compression: Compression::Zstd,
            level: Some(3),
        };
        let frame = compress_frame(&body.0, options)?;
        Ok([MAGIC, &[VERSION], &frame].concat())
    }

    /// The index that these bytes encode.
    pub fn decode(bytes: &[u8]) -> Result<Self, LayerError> {
        let (version, frame) = bytes
            .strip_prefix(MAGIC)
            .and_then(<[u8]>::split_first)
            .ok_or(LayerError::IndexDamaged("it does not begin as one"))?;
        if *version != VERSION {
            return Err(LayerError::IndexVersion {
                found: *version,
                expected: VERSION,
            });
        }
        let size = zstd::bulk::Decompressor::upper_bound(frame)
            .filter(|size| *size <= MAX_BODY)
            .ok_or(LayerError::IndexDamaged("its size is unknown or too large"))?;
        let body = zstd::bulk::decompress(frame, size).map_err(LayerError::Read)?;
        let mut body = Reader(&body);
        let diff_id = DiffId(Sha256Digest::from_bytes(body.array()?));
        let tar_size = body.number()?;
        let rows = body.list(Reader::row)?;
        let ordered = |pair: &[IndexEntry]| canonical_order(&pair[0].entry, &pair[1].entry).is_lt();
        if !rows.windows(2).all(ordered) {
            return Err(LayerError::IndexDamaged("its rows are out of order"));
        }
        let mut frames: Vec<Frame> = Vec::new();
        for (tar_size, gap, blob_size) in
            body.list(|body| Ok((body.number()?, body.number()?, body.number()?)))?
        {
            let damaged = || LayerError::IndexDamaged("its frames overflow");
            let (tar_offset, blob_end) = frames.last().map_or((0, 0), |last| {
                (
                    last.tar_offset + last.tar_size,
                    last.blob_offset + last.blob_size,
                )
            });
            let blob_offset = blob_end.checked_add(gap).ok_or_else(damaged)?;
            tar_offset.checked_add(tar_size).ok_or_else(damaged)?;
            blob_offset.checked_add(blob_size).ok_or_else(damaged)?;
            frames.push(Frame {
                tar_offset,
                tar_size,
                blob_offset,
                blob_size,
            });
        }
        if !body.0.is_empty() {
            return Err(LayerError::IndexDamaged("something follows its end"));
        }
        Ok(Self::new(diff_id, tar_size, rows, frames))
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn row(&mut self, row: &IndexEntry) {
        let entry = &row.entry;
        self.bytes(entry.path.as_bytes());
        self.kind(&entry.kind);
        for value in [entry.mode, entry.uid, entry.gid] {
            self.number(value.into());
        }
        self.number(((entry.mtime << 1) ^ (entry.mtime >> 63)).cast_unsigned());
        self.number(entry.xattrs.len() as u64);
        for (name, value) in &entry.xattrs {
            self.bytes(name.as_bytes());
            self.bytes(value);
        }
        let content = if row.content.is_some() {
            HAS_CONTENT
        } else {
            0
        };
        let inline = if row.inline.is_some() { HAS_INLINE } else { 0 };
        self.0.push(content | inline);
        if let Some(content) = &row.content {
            self.0.extend_from_slice(content.as_bytes());
            self.number(row.offset);
        }
        if let Some(inline) = &row.inline {
            self.bytes(inline);
        }
    }

    fn kind(&mut self, kind: &EntryKind) {
        match kind {
            EntryKind::Directory => self.0.push(0),
            EntryKind::Regular { size } => {
                self.0.push(1);
                self.number(*size);
            }
            EntryKind::Symlink { target } => {
                self.0.push(2);
                self.bytes(target.as_os_str().as_bytes());
            }
            EntryKind::Hardlink { target } => {
                self.0.push(3);
                self.bytes(target.as_bytes());
            }
            EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
                let block = matches!(kind, EntryKind::BlockDevice { .. });
                self.0.push(if block { 5 } else { 4 });
                self.number((*major).into());
                self.number((*minor).into());
            }
            EntryKind::Fifo => self.0.push(6),
            EntryKind::Whiteout => self.0.push(7),
            EntryKind::Opaque => self.0.push(8),
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, length: usize) -> Result<&[u8], LayerError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(LayerError::IndexDamaged("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, LayerError> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], LayerError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn number(&mut self) -> Result<u64, LayerError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            // One spelling a number: no bits beyond 64, no zeros at the end.
            if part << shift >> shift != part || byte == 0 && shift > 0 {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(LayerError::IndexDamaged("a number is malformed"))
    }

    fn small(&mut self) -> Result<u32, LayerError> {
        u32::try_from(self.number()?).map_err(|_| LayerError::IndexDamaged("a number is too large"))
    }

    fn bytes(&mut self) -> Result<&[u8], LayerError> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        self.take(length)
    }

    fn path(&mut self) -> Result<LayerPath, LayerError> {
        let bytes = self.bytes()?;
        LayerPath::new(OsStr::from_bytes(bytes))
            .ok()
            .filter(|path| path.as_bytes() == bytes)
            .ok_or(LayerError::IndexDamaged("a path is not normal"))
    }

    /// A count and that many items.
    fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, LayerError>,
    ) -> Result<Vec<T>, LayerError> {
        let count = self.number()?;
        // Room grows with what is there, not with what the count promises.
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(item(self)?);
        }
        Ok(list)
    }

    fn row(&mut self) -> Result<IndexEntry, LayerError> {
        let path = self.path()?;
        let kind = self.kind()?;
        let (mode, uid, gid) = (self.small()?, self.small()?, self.small()?);
        let mtime = self.number()?;
        let mtime = (mtime >> 1).cast_signed() ^ -(mtime & 1).cast_signed();
        let xattrs: BTreeMap<String, Vec<u8>> = self
            .list(|body| {
                let name = String::from_utf8(body.bytes()?.to_vec())
                    .map_err(|_| LayerError::IndexDamaged("an attribute's name is not text"))?;
                Ok((name, body.bytes()?.to_vec()))
            })?
            .into_iter()
            .collect();
        let flags = self.byte()?;
        if flags & !(HAS_CONTENT | HAS_INLINE) != 0 {
            return Err(LayerError::IndexDamaged("a row has unknown flags"));
        }
        let (mut content, mut offset, mut inline) = (None, 0, None);
        if flags & HAS_CONTENT != 0 {
            content = Some(Blake3Digest::from_bytes(self.array()?));
            offset = self.number()?;
        }
        if flags & HAS_INLINE != 0 {
            inline = Some(self.bytes()?.to_vec());
        }
        Ok(IndexEntry {
            entry: Entry {
                path,
                kind,
                mode,
                uid,
                gid,
                mtime,
                xattrs,
            },
            content,
            offset,
            inline,
        })
    }

    fn kind(&mut self) -> Result<EntryKind, LayerError> {
        Ok(match self.byte()? {
            0 => EntryKind::Directory,
            1 => EntryKind::Regular {
                size: self.number()?,
            },
            2 => EntryKind::Symlink {
                target: PathBuf::from(OsStr::from_bytes(self.bytes()?)),
            },
            3 => EntryKind::Hardlink {
                target: self.path()?,
            },
            kind @ (4 | 5) => {
                let (major, minor) = (self.small()?, self.small()?);
                match kind {
                    4 => EntryKind::CharDevice { major, minor },
                    _ => EntryKind::BlockDevice { major, minor },
                }
            }
            6 => EntryKind::Fifo,
            7 => EntryKind::Whiteout,
            8 => EntryKind::Opaque,
            _ => return Err(LayerError::IndexDamaged("a row has an unknown kind")),
        })
    }
}
