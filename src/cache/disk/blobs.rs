//! Blob files: written whole, read with verification.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rusqlite::{Transaction, params};

use super::{DiskStore, owned::OwnedFile};
use crate::{
    cache::{CacheError, VerifyingReader},
    digest::{HashingWriter, Sha256Digest},
    fs::{self, IoContext},
};

/// A blob that is there. The file is read-only and must not be changed; it may be
/// hard-linked, and goes at any time unless a [`super::BuildLease`] is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobFile {
    /// Where.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
}

/// A blob being read; its bytes are verified by the end.
#[derive(Debug)]
pub struct VerifiedBlob {
    reader: VerifyingReader<File>,
    digest: Sha256Digest,
    size: u64,
    inode: u64,
}

impl VerifiedBlob {
    /// The file, unverified, and its inode number.
    pub(super) fn into_file(self) -> (File, u64) {
        (self.reader.into_inner(), self.inode)
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads what is left and says whether the whole was right. A reader that stops
    /// before the end of file must call this before it trusts what it read.
    pub fn finish(mut self) -> Result<(), CacheError> {
        io::copy(&mut self.reader, &mut io::sink())
            .map(|_| ())
            .map_err(|error| CacheError::from_io("read", self.digest, error))
    }
}

impl Read for VerifiedBlob {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buf)
    }
}

/// A blob being written. Its digest is known at the end; dropped without
/// [`commit`](Self::commit), it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    store: DiskStore,
    out: Out,
}

/// How a writer knows what the bytes are.
#[derive(Debug)]
enum Out {
    /// It hashes them.
    Hashed(HashingWriter<OwnedFile>),
    /// Who writes them has done so.
    Vouched {
        file: OwnedFile,
        digest: Sha256Digest,
        size: u64,
    },
}

impl BlobWriter {
    fn new(store: DiskStore, vouched: Option<Sha256Digest>) -> Result<Self, CacheError> {
        let file = OwnedFile::create(&store.temp_dir(), "blob-")?;
        let out = match vouched {
            None => Out::Hashed(HashingWriter::new(file)),
            Some(digest) => Out::Vouched {
                file,
                digest,
                size: 0,
            },
        };
        Ok(Self { store, out })
    }

    /// Number of bytes written so far.
    pub fn size(&self) -> u64 {
        match &self.out {
            Out::Hashed(out) => out.size(),
            Out::Vouched { size, .. } => *size,
        }
    }

    /// Gives the blob its name and returns it. If `expected` is given and the bytes
    /// have another digest, nothing is kept and the error is [`CacheError::Corrupt`].
    ///
    /// The data are not synced: a blob is verified when it is read, so a power cut
    /// costs the blob and not the truth.
    pub fn commit(self, expected: Option<Sha256Digest>) -> Result<Sha256Digest, CacheError> {
        let Self { store, out } = self;
        let (file, digest, size) = match out {
            Out::Hashed(out) => {
                let (file, hashes) = out.finish();
                (file, hashes.sha256, hashes.size)
            }
            Out::Vouched { file, digest, size } => (file, digest, size),
        };
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(CacheError::Corrupt {
                subject: expected.into(),
                what: format!("the bytes given for it have digest `{digest}`"),
            });
        }
        file.set_mode(0o444)?;
        store.adopt(file, digest, size)?;
        Ok(digest)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.out {
            Out::Hashed(out) => out.write(buf),
            Out::Vouched { file, size, .. } => {
                let n = file.write(buf)?;
                *size += n as u64;
                Ok(n)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.out {
            Out::Hashed(out) => out.flush(),
            Out::Vouched { file, .. } => file.flush(),
        }
    }
}

impl DiskStore {
    /// Where the blob's file is or would be.
    pub(super) fn blob_path(&self, digest: &Sha256Digest) -> PathBuf {
        let hex = digest.hex();
        self.blobs_dir().join(&hex[..2]).join(hex)
    }

    /// The blob's file, if it is there. Its bytes have not been looked at.
    ///
    /// Under a lease, this counts as a use.
    pub fn blob(&self, digest: &Sha256Digest) -> Result<Option<BlobFile>, CacheError> {
        let path = self.blob_path(digest);
        if self.must_mark(digest.as_bytes()) {
            let (now, row) = (self.now(), *digest.as_bytes());
            // Within the transaction garbage collection is locked out: the file is
            // either marked or gone, never about to go.
            let marked = self.shared.index.write("mark as used", |transaction| {
                if let Ok(Some(size)) = file_size(&path) {
                    enter(transaction, &row, size, now)?;
                }
                Ok(())
            });
            self.note_mark(digest.as_bytes(), &marked);
        }
        Ok(file_size(&path)?.map(|size| BlobFile { path, size }))
    }

    /// Whether the blob's file is there. Under a lease, this counts as a use.
    pub fn contains(&self, digest: &Sha256Digest) -> Result<bool, CacheError> {
        Ok(self.blob(digest)?.is_some())
    }

    /// Opens the blob for reading from its beginning. Bytes that turn out wrong end in
    /// [`CacheError::Corrupt`], and the blob is removed.
    pub fn open_blob_verified(
        &self,
        digest: &Sha256Digest,
    ) -> Result<Option<VerifiedBlob>, CacheError> {
        let Some(BlobFile { path, .. }) = self.blob(digest)? else {
            return Ok(None);
        };
        let file = match fs::open(&path) {
            Err(error) if error.is_not_found() => return Ok(None),
            result => result?,
        };
        let metadata = file.metadata().at("read", &path)?;
        let (store, name, inode) = (self.clone(), *digest, metadata.ino());
        let reader = VerifyingReader::new(file, name).on_corrupt(move || {
            // The reader reports the corruption; a blob that can't be removed is found
            // corrupt again.
            let _ = store.remove_corrupt(&name, inode);
        });
        Ok(Some(VerifiedBlob {
            reader,
            digest: *digest,
            size: metadata.len(),
            inode,
        }))
    }

    /// Starts a new blob.
    pub fn writer(&self) -> Result<BlobWriter, CacheError> {
        self.check_writable()?;
        BlobWriter::new(self.clone(), None)
    }

    /// Starts the blob `digest`, whose bytes the caller verifies: it must commit only what was found
    /// right. They are not hashed a second time.
    pub(in crate::cache) fn vouched_writer(
        &self,
        digest: Sha256Digest,
    ) -> Result<BlobWriter, CacheError> {
        self.check_writable()?;
        BlobWriter::new(self.clone(), Some(digest))
    }

    /// Moves a finished temporary file to its name and enters it into the index.
    fn adopt(
        &self,
        mut file: OwnedFile,
        digest: Sha256Digest,
        size: u64,
    ) -> Result<(), CacheError> {
        let path = self.blob_path(&digest);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let (now, row) = (self.now(), *digest.as_bytes());
        let mut renamed = None;
        // Within the transaction garbage collection is locked out: it can't take the new
        // file for the old one. A blob that is there already is replaced: should its
        // bytes be bad, they now are good.
        let entered = self.shared.index.write("enter a blob into", |transaction| {
            if renamed.is_none() {
                renamed = Some(file.rename(&path));
            }
            match renamed {
                Some(Ok(())) => enter(transaction, &row, size, now),
                _ => Ok(()),
            }
        });
        // Without an index the file alone will do: the next garbage collection enters it.
        renamed.unwrap_or_else(|| file.rename(&path))?;
        self.note_mark(digest.as_bytes(), &entered);
        Ok(())
    }

    /// Removes a blob that is of no further use; that it is not there is no error.
    pub fn discard_blob(&self, digest: &Sha256Digest) -> Result<(), CacheError> {
        if !self.is_writable() {
            return Ok(());
        }
        let path = self.blob_path(digest);
        let row = *digest.as_bytes();
        self.shared
            .index
            .write("remove a blob from", |transaction| {
                let _ = fs::remove_file(&path);
                transaction.execute("DELETE FROM blobs WHERE digest = ?", [&row[..]])?;
                Ok(())
            })
    }

    /// Removes a blob whose file was found corrupt, unless another process has put a
    /// new file in its place.
    pub(super) fn remove_corrupt(
        &self,
        digest: &Sha256Digest,
        inode: u64,
    ) -> Result<(), CacheError> {
        if !self.is_writable() {
            return Ok(());
        }
        let path = self.blob_path(digest);
        let row = *digest.as_bytes();
        self.shared
            .index
            .write("remove a blob from", |transaction| {
                if std::fs::metadata(&path).is_ok_and(|found| found.ino() == inode) {
                    let _ = fs::remove_file(&path);
                    transaction.execute("DELETE FROM blobs WHERE digest = ?", [&row[..]])?;
                }
                Ok(())
            })
    }
}

/// The size of the regular file at `path`, if there is one.
pub(super) fn file_size(path: &Path) -> Result<Option<u64>, CacheError> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(CacheError::from_io("look for", path, error)),
    }
}

/// Enters a blob into the index as used `now`.
pub(super) fn enter(
    transaction: &Transaction<'_>,
    digest: &[u8; 32],
    size: u64,
    now: i64,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO blobs (digest, size, created, used) VALUES (?1, ?2, ?3, ?3)
             ON CONFLICT (digest) DO UPDATE SET size = ?2, used = max(used, ?3)",
        )?
        .execute(params![
            &digest[..],
            i64::try_from(size).unwrap_or(i64::MAX),
            now
        ])?;
    Ok(())
}
