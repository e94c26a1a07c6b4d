//! Frames: files named by the BLAKE3 of their bytes, `frames/<namespace>/<2 digits>/<64 digits>`.
//!
//! A frame is written to a file in `tmp/` and renamed when its digest is known. It is not
//! synced to the disk: after a power cut its bytes may be wrong, which shows when it is
//! read next, and costs a cache entry.

use std::{
    collections::HashSet,
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    path::PathBuf,
};

use rusqlite::{OptionalExtension as _, Transaction};

use super::{
    Namespace, Store, StoreError, blobs::unpack, now_ms, rank, schema::Writer, space::ROW,
};
use crate::{
    cache::{Trust, http::wire::Frame},
    digest::Blake3Digest,
    fs::{self, IoContext as _},
};

/// A frame being written. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct FrameWriter {
    file: tempfile::NamedTempFile,
    hasher: blake3::Hasher,
    size: u64,
}

impl FrameWriter {
    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).at("write", self.file.path())?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// What became of a frame that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Published {
    /// It is there.
    Done(Frame),
    /// It has another digest than expected, and is gone.
    Mismatch(Blake3Digest),
}

impl Store {
    /// A new frame.
    pub(in crate::server) fn frame_writer(&self) -> Result<FrameWriter, StoreError> {
        Ok(FrameWriter {
            file: fs::named_temp_file_in(self.temp_dir())?,
            hasher: blake3::Hasher::new(),
            size: 0,
        })
    }

    /// Keeps a frame, if it has the expected digest, for data of `trust`.
    pub(in crate::server) fn publish(
        &self,
        namespace: &Namespace,
        writer: FrameWriter,
        expected: Option<Blake3Digest>,
        trust: Trust,
    ) -> Result<Published, StoreError> {
        let digest = Blake3Digest::from_bytes(*writer.hasher.finalize().as_bytes());
        if expected.is_some_and(|expected| expected != digest) {
            return Ok(Published::Mismatch(digest));
        }
        let size = writer.size;
        let frame = Frame { digest, size };
        if self.lacking(namespace, &[frame])?.is_empty() {
            return Ok(Published::Done(frame));
        }
        let room = self.reserve(trust, size + ROW)?;
        let path = self.frame_path(namespace, &digest);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut connection = self.database.writer();
        writer
            .file
            .persist(&path)
            .map_err(|error| error.error)
            .at("rename to", &path)?;
        let is_new = connection.transaction("write a frame to", |t| {
            let known = t.execute(
                "UPDATE frames SET touched = ?3 WHERE namespace = ?1 AND digest = ?2",
                (namespace.id, digest.as_bytes(), now_ms()),
            )?;
            if known == 0 {
                t.execute(
                    "INSERT INTO frames (namespace, digest, size, trust, touched)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                    (namespace.id, digest.as_bytes(), size, rank(trust), now_ms()),
                )?;
            }
            Ok(known == 0)
        })?;
        if is_new {
            room.used();
        }
        Ok(Published::Done(frame))
    }

    /// Which of `frames` are not there, each once; the others are kept for the time of an
    /// upload.
    pub(in crate::server) fn lacking(
        &self,
        namespace: &Namespace,
        frames: &[Frame],
    ) -> Result<Vec<Blake3Digest>, StoreError> {
        let mut seen = HashSet::new();
        let (mut present, mut missing) = (Vec::new(), Vec::new());
        self.database.read("look for frames in", |c| {
            let mut known =
                c.prepare_cached("SELECT size FROM frames WHERE namespace = ?1 AND digest = ?2")?;
            for frame in frames.iter().filter(|frame| seen.insert(frame.digest)) {
                let digest = frame.digest;
                let size = known
                    .query_row((namespace.id, digest.as_bytes()), |row| {
                        row.get::<_, u64>(0)
                    })
                    .optional()?;
                let path = self.frame_path(namespace, &digest);
                match size == Some(frame.size) && fs::size(path).is_ok_and(|s| s == frame.size) {
                    true => present.push(digest),
                    false => missing.push(digest),
                }
            }
            Ok(())
        })?;
        if !present.is_empty() {
            let now = now_ms();
            self.database.write("write", |t| {
                let mut touch = t.prepare_cached(
                    "UPDATE frames SET touched = ?3 WHERE namespace = ?1 AND digest = ?2",
                )?;
                for digest in present {
                    touch.execute((namespace.id, digest.as_bytes(), now))?;
                }
                Ok(())
            })?;
        }
        Ok(missing)
    }

    /// The frame's file at its beginning, if its bytes are those of its name. A frame that
    /// is damaged is dropped with all that is made of it.
    pub(in crate::server) fn open_frame(
        &self,
        namespace: &Namespace,
        frame: &Frame,
    ) -> Result<Option<File>, StoreError> {
        let path = self.frame_path(namespace, &frame.digest);
        match read_verified(&path, frame) {
            Ok(Some(file)) => Ok(Some(file)),
            Ok(None) => {
                self.drop_damaged(namespace, frame)?;
                Ok(None)
            }
            Err(StoreError::Fs(error)) if error.is_not_found() => {
                self.drop_damaged(namespace, frame)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes a frame, the blobs that it is part of and the entries that name them.
    fn drop_damaged(&self, namespace: &Namespace, frame: &Frame) -> Result<(), StoreError> {
        let path = self.frame_path(namespace, &frame.digest);
        let mut writer = self.database.writer();
        // Somebody may have sent it anew meanwhile.
        if matches!(read_verified(&path, frame), Ok(Some(_))) {
            return Ok(());
        }
        let (blobs, entries) = self.forget_frame(&mut writer, namespace, frame)?;
        fs::remove_file(&path)?;
        drop(writer);
        tracing::error!(
            namespace = namespace.name,
            frame = %frame.digest,
            blobs,
            entries,
            "a frame is gone or damaged; it was dropped with what is made of it"
        );
        Ok(())
    }

    /// Removes the rows of a frame, of its blobs and of their entries, and counts the latter two.
    fn forget_frame(
        &self,
        writer: &mut Writer<'_>,
        namespace: &Namespace,
        frame: &Frame,
    ) -> Result<(u64, u64), StoreError> {
        let mut freed = Vec::new();
        let counts = writer.transaction("drop a frame from", |t| {
            let row = t
                .query_row(
                    "DELETE FROM frames WHERE namespace = ?1 AND digest = ?2 RETURNING trust, size",
                    (namespace.id, frame.digest.as_bytes()),
                    |row| Ok((row.get(0)?, row.get::<_, u64>(1)?)),
                )
                .optional()?;
            freed.extend(row.map(|(rank, size)| (rank, size + ROW)));
            let mut all = t.prepare("SELECT id, frames, trust FROM blobs WHERE namespace = ?1")?;
            let mut rows = all.query([namespace.id])?;
            let mut made_of_it = Vec::new();
            while let Some(row) = rows.next()? {
                let packed: Vec<u8> = row.get(1)?;
                if unpack(&packed).iter().any(|f| f.digest == frame.digest) {
                    freed.push((row.get(2)?, packed.len() as u64 + ROW));
                    made_of_it.push(row.get::<_, i64>(0)?);
                }
            }
            let mut entries = 0;
            for blob in &made_of_it {
                entries += drop_entries_of(t, *blob, &mut freed)?;
                t.execute("DELETE FROM blobs WHERE id = ?1", [blob])?;
            }
            Ok((made_of_it.len() as u64, entries))
        })?;
        for (rank, bytes) in freed {
            self.space.free(rank, bytes);
        }
        Ok(counts)
    }

    /// Where a frame lies.
    pub(super) fn frame_path(&self, namespace: &Namespace, digest: &Blake3Digest) -> PathBuf {
        let hex = digest.hex();
        let dir = self.dir.join("frames").join(&namespace.name);
        dir.join(&hex[..2]).join(hex)
    }
}

/// Removes the entries that name a blob, counts them and adds the room they took to `freed`.
fn drop_entries_of(
    t: &Transaction<'_>,
    blob: i64,
    freed: &mut Vec<(usize, u64)>,
) -> rusqlite::Result<u64> {
    let mut statement = t.prepare_cached("SELECT entry FROM entry_blobs WHERE blob = ?1")?;
    let ids: Vec<i64> = statement
        .query_map([blob], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for id in &ids {
        let (rank, length): (usize, u64) = t.query_row(
            "DELETE FROM entries WHERE id = ?1 RETURNING trust, length(record)",
            [id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        freed.push((rank, length + ROW));
        t.execute("DELETE FROM entry_blobs WHERE entry = ?1", [id])?;
    }
    Ok(ids.len() as u64)
}

/// The file at its beginning, if it holds the frame.
fn read_verified(path: &PathBuf, frame: &Frame) -> Result<Option<File>, StoreError> {
    let mut file = fs::open(path)?;
    let mut hasher = blake3::Hasher::new();
    hasher
        .update_reader((&mut file).take(frame.size + 1))
        .at("read", path)?;
    let found = Blake3Digest::from_bytes(*hasher.finalize().as_bytes());
    if found != frame.digest {
        return Ok(None);
    }
    file.rewind().at("read", path)?;
    Ok(Some(file))
}
