//! Blobs: lists of frames under the SHA-256 of all their bytes.
//!
//! In the tables a list is 36 bytes for each frame: its digest, and its size as a
//! big-endian number of 32 bits.

use std::{collections::HashSet, io::Read as _};

use rusqlite::{OptionalExtension as _, Transaction};
use sha2::Digest as _;

use super::{Namespace, Store, StoreError, now_ms, rank, schema::lock, space::ROW};
use crate::{
    cache::{Trust, http::wire::Frame},
    digest::{Blake3Digest, Sha256Digest},
    fs::IoContext as _,
};

/// Bytes of a frame in a packed list.
const PACKED: usize = 36;

/// Pieces in which frames are read.
const BUFFER: usize = 256 << 10;

/// What a blob is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct BlobParts {
    /// Its size in bytes.
    pub(in crate::server) size: u64,
    /// Its frames, in order.
    pub(in crate::server) frames: Vec<Frame>,
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) enum Committed {
    /// The blob is there.
    Done,
    /// These frames are not.
    Missing(Vec<Blake3Digest>),
    /// The frames make up another blob.
    Mismatch(Sha256Digest),
}

/// The packed form of a list of frames.
pub(super) fn pack(frames: &[Frame]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(frames.len() * PACKED);
    for frame in frames {
        packed.extend_from_slice(frame.digest.as_bytes());
        // A frame's size has been checked against a limit far below.
        let size = u32::try_from(frame.size).unwrap_or(u32::MAX);
        packed.extend_from_slice(&size.to_be_bytes());
    }
    packed
}

/// The frames of a packed list.
pub(super) fn unpack(packed: &[u8]) -> Vec<Frame> {
    let frames = packed.chunks_exact(PACKED).filter_map(|part| {
        let (digest, size) = part.split_first_chunk::<32>()?;
        Some(Frame {
            digest: Blake3Digest::from_bytes(*digest),
            size: u32::from_be_bytes(size.try_into().ok()?).into(),
        })
    });
    frames.collect()
}

impl Store {
    /// Which of `digests` are there, in their order.
    pub(in crate::server) fn present(
        &self,
        namespace: &Namespace,
        digests: &[Sha256Digest],
    ) -> Result<Vec<bool>, StoreError> {
        let mut used: Vec<i64> = Vec::new();
        let present = self.database.read("look for blobs in", |c| {
            let mut find =
                c.prepare_cached("SELECT id FROM blobs WHERE namespace = ?1 AND digest = ?2")?;
            let mut present = Vec::with_capacity(digests.len());
            for digest in digests {
                let id = find
                    .query_row((namespace.id, digest.as_bytes()), |row| {
                        row.get::<_, i64>(0)
                    })
                    .optional()?;
                present.push(id.is_some());
                used.extend(id);
            }
            Ok(present)
        })?;
        let now = now_ms();
        let used = used.into_iter().map(|id| (id, now));
        lock(&self.touched).blobs.extend(used);
        Ok(present)
    }

    /// What the blob is made of, if it is there.
    pub(in crate::server) fn blob(
        &self,
        namespace: &Namespace,
        digest: &Sha256Digest,
    ) -> Result<Option<BlobParts>, StoreError> {
        let row = self.database.read("look for a blob in", |c| {
            c.prepare_cached(
                "SELECT id, size, frames FROM blobs WHERE namespace = ?1 AND digest = ?2",
            )?
            .query_row((namespace.id, digest.as_bytes()), |row| {
                let packed: Vec<u8> = row.get(2)?;
                Ok((row.get(0)?, row.get(1)?, unpack(&packed)))
            })
            .optional()
        })?;
        Ok(row.map(|(id, size, frames)| {
            lock(&self.touched).blobs.insert(id, now_ms());
            BlobParts { size, frames }
        }))
    }

    /// Makes a blob of frames after comparing their bytes with its digest.
    pub(in crate::server) fn commit(
        &self,
        namespace: &Namespace,
        digest: &Sha256Digest,
        frames: &[Frame],
        trust: Trust,
    ) -> Result<Committed, StoreError> {
        let missing = self.lacking(namespace, frames)?;
        if !missing.is_empty() {
            return Ok(Committed::Missing(missing));
        }
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0; BUFFER];
        for frame in frames {
            let Some(mut file) = self.open_frame(namespace, frame)? else {
                return Ok(Committed::Missing(vec![frame.digest]));
            };
            loop {
                let path = || self.frame_path(namespace, &frame.digest);
                let n = file.read(&mut buffer).at("read", path())?;
                if n == 0 {
                    break;
                }
                hasher.update(&buffer[..n]);
            }
        }
        let found = Sha256Digest::from_bytes(hasher.finalize().into());
        if found != *digest {
            return Ok(Committed::Mismatch(found));
        }
        self.add_blob(namespace, digest, frames, trust)
    }

    /// Makes a blob of frames whose bytes have its digest.
    pub(in crate::server) fn add_blob(
        &self,
        namespace: &Namespace,
        digest: &Sha256Digest,
        frames: &[Frame],
        trust: Trust,
    ) -> Result<Committed, StoreError> {
        let packed = pack(frames);
        let size: u64 = frames.iter().map(|frame| frame.size).sum();
        let room = self.reserve(trust, packed.len() as u64 + ROW)?;
        let mut raised = Vec::new();
        let mut is_new = false;
        let outcome = self.database.write("write a blob to", |t| {
            let missing = absent(t, namespace, frames)?;
            if !missing.is_empty() {
                return Ok(Committed::Missing(missing));
            }
            raised = serve(t, namespace.id, frames, rank(trust))?;
            let now = now_ms();
            let known = t.execute(
                "UPDATE blobs SET written = ?3, used = ?3 WHERE namespace = ?1 AND digest = ?2",
                (namespace.id, digest.as_bytes(), now),
            )?;
            is_new = known == 0;
            if is_new {
                t.execute(
                    "INSERT INTO blobs (namespace, digest, size, frames, trust, written, used)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
                    (
                        namespace.id,
                        digest.as_bytes(),
                        size,
                        &packed,
                        rank(trust),
                        now,
                    ),
                )?;
            }
            Ok(Committed::Done)
        })?;
        for (from, to, bytes) in raised {
            self.space.raise(from, to, bytes);
        }
        if is_new {
            room.used();
        }
        Ok(outcome)
    }
}

/// Those of `frames` that have no row.
fn absent(
    t: &Transaction<'_>,
    namespace: &Namespace,
    frames: &[Frame],
) -> rusqlite::Result<Vec<Blake3Digest>> {
    let mut find = t.prepare_cached("SELECT 1 FROM frames WHERE namespace = ?1 AND digest = ?2")?;
    let mut missing = Vec::new();
    for frame in frames {
        if !find.exists((namespace.id, frame.digest.as_bytes()))? {
            missing.push(frame.digest);
        }
    }
    Ok(missing)
}

/// Lets `frames` count for a class of at least `rank` from now on; gives what moves from which
/// class to which.
pub(super) fn serve(
    t: &Transaction<'_>,
    namespace: i64,
    frames: &[Frame],
    rank: usize,
) -> rusqlite::Result<Vec<(usize, usize, u64)>> {
    let now = now_ms();
    let mut raised = Vec::new();
    let mut seen = HashSet::new();
    let mut find =
        t.prepare_cached("SELECT trust, size FROM frames WHERE namespace = ?1 AND digest = ?2")?;
    let mut update = t.prepare_cached(
        "UPDATE frames SET trust = ?3, touched = ?4 WHERE namespace = ?1 AND digest = ?2",
    )?;
    for frame in frames.iter().filter(|frame| seen.insert(frame.digest)) {
        let place = (namespace, frame.digest.as_bytes());
        let row = find
            .query_row(place, |row| Ok((row.get(0)?, row.get::<_, u64>(1)?)))
            .optional()?;
        let Some((old, size)) = row else { continue };
        let new = rank.max(old);
        if new > old {
            raised.push((old, new, size + ROW));
        }
        update.execute((namespace, frame.digest.as_bytes(), new, now))?;
    }
    Ok(raised)
}
