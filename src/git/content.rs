//! What files hold after a checkout: from the memo, or read from blobs on all processors.

use std::{fs::File, io::Read as _, path::Path};

use rayon::prelude::*;

use super::{
    GitError, ObjectId, Repository, UnknownReason,
    conversion::{self, Conversion},
    fetch,
    memo::{ByName, Content, Memo},
};
use crate::{
    digest::{Blake3Digest, HashingReader},
    fs::{self, IoContext as _},
};

/// Blobs that one task reads.
const CHUNK: usize = 64;

/// Bytes of an LFS object that are hashed at a time.
const PART: usize = 1 << 20;

/// A blob whose converted content is asked for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) repository: Repository,
    pub(super) id: ObjectId,
    pub(super) conversion: Conversion,
}

/// Contents by blob and conversion.
#[derive(Debug)]
pub(super) struct Contents {
    known: Read,
    /// How many blobs were read, and the bytes that came of them.
    pub(super) read: usize,
    pub(super) read_bytes: u64,
}

impl Contents {
    /// Size and digest of what is `wanted`, or why they can't be told.
    pub(super) fn get(&self, wanted: &Wanted) -> Result<Content, UnknownReason> {
        let found = self.known.get(&(wanted.id, wanted.conversion));
        // All that is asked for was looked up.
        found.cloned().unwrap_or(Err(UnknownReason::Submodule))
    }
}

/// Looks up all that is `wanted`. `memo_dir` is where digests are remembered.
pub(super) fn of<'w>(
    wanted: impl Iterator<Item = &'w Wanted>,
    memo_dir: Option<&Path>,
) -> Result<Contents, GitError> {
    let memo = Memo::load(memo_dir);
    let mut known = Read::default();
    let mut unread: ByName<&Wanted> = ByName::default();
    for wanted in wanted {
        let name = (wanted.id, wanted.conversion);
        if known.contains_key(&name) || unread.contains_key(&name) {
            continue;
        }
        match memo.get(wanted.id, wanted.conversion) {
            Some(content) => {
                known.insert(name, Ok(content));
            }
            None => {
                unread.insert(name, wanted);
            }
        }
    }
    let unread: Vec<&Wanted> = unread.into_values().collect();
    let mut read = read_all(&unread)?;
    let missing = absent(&unread, &read);
    if !missing.is_empty() {
        fetch::objects(missing.iter().map(|wanted| (&wanted.repository, wanted.id)))?;
        read.extend(read_all(&missing)?);
        // What is still not there was not to be had.
        if let Some(wanted) = absent(&missing, &read).first() {
            wanted.repository.blob(wanted.id)?;
        }
    }
    let learnt: Vec<_> = read
        .iter()
        .filter_map(|((id, conversion), content)| Some((*id, *conversion, content.clone().ok()?)))
        .collect();
    // A memo only saves time.
    let _ = memo.append(&learnt);
    let (count, bytes) = (
        read.len(),
        learnt.iter().map(|(_, _, (size, _))| size).sum(),
    );
    known.extend(read);
    Ok(Contents {
        known,
        read: count,
        read_bytes: bytes,
    })
}

type Read = ByName<Result<Content, UnknownReason>>;

/// Those of `wanted` that `read` lacks.
fn absent<'w>(wanted: &[&'w Wanted], read: &Read) -> Vec<&'w Wanted> {
    let is_absent = |w: &&Wanted| !read.contains_key(&(w.id, w.conversion));
    wanted.iter().copied().filter(is_absent).collect()
}

/// Reads blobs; what isn't at hand is left out.
fn read_all(wanted: &[&Wanted]) -> Result<Read, GitError> {
    let parts: Vec<Vec<_>> = wanted
        .par_chunks(CHUNK)
        .map(|part| {
            let mut read = Vec::with_capacity(part.len());
            for wanted in part {
                let blob = match wanted.repository.blob(wanted.id) {
                    Ok(blob) => blob,
                    Err(GitError::Missing { .. }) => continue,
                    Err(error) => return Err(error),
                };
                let content = content(wanted, blob)?;
                read.push(((wanted.id, wanted.conversion), content));
            }
            Ok(read)
        })
        .collect::<Result<_, GitError>>()?;
    Ok(parts.into_iter().flatten().collect())
}

fn content(wanted: &Wanted, blob: Vec<u8>) -> Result<Result<Content, UnknownReason>, GitError> {
    if wanted.conversion.is_lfs()
        && let Some((name, size)) = conversion::lfs_pointer(&blob)
    {
        return lfs_content(&wanted.repository, &name, size);
    }
    let content = wanted.conversion.apply(wanted.id, blob);
    Ok(content
        .map(|bytes| (bytes.len() as u64, Blake3Digest::of(&bytes)))
        .ok_or_else(|| UnknownReason::Encoding(wanted.conversion.encoding_name().to_owned())))
}

/// The bytes that a checkout writes for a blob.
pub(super) fn converted(
    repository: &Repository,
    id: ObjectId,
    conversion: Conversion,
    blob: Vec<u8>,
) -> Result<Result<Vec<u8>, UnknownReason>, GitError> {
    if conversion.is_lfs()
        && let Some((name, size)) = conversion::lfs_pointer(&blob)
    {
        let Some(mut file) = lfs_object(repository, &name)? else {
            return Ok(Err(UnknownReason::LfsObject(name)));
        };
        let mut bytes = Vec::new();
        let mut reader = HashingReader::new(&mut file);
        let read = reader.read_to_end(&mut bytes);
        read.at("read", lfs_path(repository, &name))?;
        let hashes = reader.hashes();
        return Ok(match hashes.sha256.hex() == name && hashes.size == size {
            true => Ok(bytes),
            false => Err(UnknownReason::LfsObject(name)),
        });
    }
    let content = conversion.apply(id, blob);
    Ok(content.ok_or_else(|| UnknownReason::Encoding(conversion.encoding_name().to_owned())))
}

/// Size and digest of the object that a pointer names, if its bytes are right.
fn lfs_content(
    repository: &Repository,
    name: &str,
    size: u64,
) -> Result<Result<Content, UnknownReason>, GitError> {
    let absent = || UnknownReason::LfsObject(name.to_owned());
    let Some(file) = lfs_object(repository, name)? else {
        return Ok(Err(absent()));
    };
    let mut reader = HashingReader::new(file);
    let mut hasher = blake3::Hasher::new();
    let mut part = vec![0; PART];
    loop {
        let read = reader.read(&mut part);
        match read.at("read", lfs_path(repository, name))? {
            0 => break,
            n => hasher.update(&part[..n]),
        };
    }
    let hashes = reader.hashes();
    let digest = Blake3Digest::from_bytes(*hasher.finalize().as_bytes());
    Ok(match hashes.sha256.hex() == name && hashes.size == size {
        true => Ok((size, digest)),
        false => Err(absent()),
    })
}

/// Where Git LFS keeps an object, unless it is told otherwise.
fn lfs_path(repository: &Repository, name: &str) -> std::path::PathBuf {
    let objects = repository.common_dir().join("lfs/objects");
    objects.join(&name[..2]).join(&name[2..4]).join(name)
}

fn lfs_object(repository: &Repository, name: &str) -> Result<Option<File>, GitError> {
    match fs::open(lfs_path(repository, name)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}
