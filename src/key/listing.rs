//! What a selection key was made of: the files that a COPY takes from a context.
//!
//! A [`FileListing`] is kept beside a step's entry in the local store, so that a later build
//! can name the files that differ. Its stored form, version 1: the line
//! `memobuild-ci file listing v1`, and one zstd frame with a row for each path, numbers
//! little-endian: length of the path (u32), the path, its mode (u32), what it is (one byte:
//! `d`, `w`, `f`, `l` or `o`), then for `f` the size (u64), a byte that says whether a digest
//! follows, and the BLAKE3 digest of the content (32 bytes), for `l` and `o` the length (u32) and the bytes of
//! link target or description.

use std::{collections::BTreeMap, io::Read};

use crate::digest::Blake3Digest;

/// What the stored form starts with.
const MAGIC: &[u8] = b"memobuild-ci file listing v1\n";

/// Rows are mostly digests, which nothing compresses; paths do at any level.
const LEVEL: i32 = 1;

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// A directory. `on_the_way`: taken only because of what is in it.
    Directory {
        /// See there.
        on_the_way: bool,
    },
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
        /// Of its content; empty files have none.
        digest: Option<Blake3Digest>,
    },
    /// A symbolic link, with its target.
    Symlink(Vec<u8>),
    /// Anything else, as text.
    Other(Vec<u8>),
}

/// A path of a listing: as a COPY names it, relative to the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPath {
    /// Slashes between its parts, none at the start; empty for the context itself.
    pub path: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub what: Listed,
}

/// The files of a selection, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileListing {
    /// Each path once for each name that leads to it.
    pub paths: Vec<ListedPath>,
}

/// How a path differs between two listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileChange {
    /// Other content.
    Content,
    /// Other permission bits.
    Mode,
    /// A symlink with another target.
    Target,
    /// A file where a directory was, for instance.
    Kind,
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
}

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedFile {
    /// The path.
    pub path: String,
    /// In what way.
    pub change: FileChange,
    /// What was there: a digest, a mode in octal, a link's target, a word.
    pub old: Option<String>,
    /// What is there.
    pub new: Option<String>,
}

impl FileListing {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut rows = Vec::with_capacity(self.paths.len() * 80);
        for listed in &self.paths {
            bytes(&mut rows, &listed.path);
            rows.extend(listed.mode.to_le_bytes());
            match &listed.what {
                Listed::Directory { on_the_way: false } => rows.push(b'd'),
                Listed::Directory { on_the_way: true } => rows.push(b'w'),
                Listed::File { size, digest } => {
                    rows.push(b'f');
                    rows.extend(size.to_le_bytes());
                    rows.push(u8::from(digest.is_some()));
                    rows.extend(digest.iter().flat_map(|digest| digest.as_bytes()));
                }
                Listed::Symlink(target) => {
                    rows.push(b'l');
                    bytes(&mut rows, target);
                }
                Listed::Other(text) => {
                    rows.push(b'o');
                    bytes(&mut rows, text);
                }
            }
        }
        let mut out = MAGIC.to_vec();
        // Compressing to memory has no way to fail.
        out.extend(zstd::encode_all(&rows[..], LEVEL).unwrap_or_default());
        out
    }

    /// Reads the stored form; none if it is something else.
    pub fn decode(stored: &[u8]) -> Option<Self> {
        let rows = zstd::decode_all(stored.strip_prefix(MAGIC)?).ok()?;
        let mut rows = &rows[..];
        let mut paths = Vec::new();
        while !rows.is_empty() {
            let path = take_bytes(&mut rows)?;
            let mode = u32::from_le_bytes(take(&mut rows)?);
            let what = match take::<1>(&mut rows)? {
                [b'd'] => Listed::Directory { on_the_way: false },
                [b'w'] => Listed::Directory { on_the_way: true },
                [b'f'] => Listed::File {
                    size: u64::from_le_bytes(take(&mut rows)?),
                    digest: match take(&mut rows)? {
                        [0] => None,
                        [_] => Some(Blake3Digest::from_bytes(take(&mut rows)?)),
                    },
                },
                [b'l'] => Listed::Symlink(take_bytes(&mut rows)?),
                [b'o'] => Listed::Other(take_bytes(&mut rows)?),
                _ => return None,
            };
            paths.push(ListedPath { path, mode, what });
        }
        Some(Self { paths })
    }

    /// The paths in which `new` differs from this, by path.
    pub fn changes(&self, new: &Self) -> Vec<ChangedFile> {
        let (old, new) = (self.by_path(), new.by_path());
        let mut changed = Vec::new();
        for path in old
            .keys()
            .chain(new.keys().filter(|p| !old.contains_key(*p)))
        {
            let pair = (old.get(path).copied(), new.get(path).copied());
            if let Some((change, old, new)) = change(pair.0, pair.1) {
                let path = match String::from_utf8_lossy(path) {
                    path if path.is_empty() => ".".to_owned(),
                    path => path.into_owned(),
                };
                changed.push(ChangedFile {
                    path,
                    change,
                    old,
                    new,
                });
            }
        }
        changed.sort_by(|a, b| a.path.cmp(&b.path));
        changed
    }

    fn by_path(&self) -> BTreeMap<&[u8], &ListedPath> {
        let paths = self.paths.iter();
        paths.map(|listed| (&listed.path[..], listed)).collect()
    }
}

type Change = (FileChange, Option<String>, Option<String>);

fn change(old: Option<&ListedPath>, new: Option<&ListedPath>) -> Option<Change> {
    let (Some(before), Some(after)) = (old, new) else {
        let change = match old {
            Some(_) => FileChange::Removed,
            None => FileChange::Added,
        };
        let state = |listed: Option<&ListedPath>| listed.map(|listed| listed.what.state());
        return (old.is_some() || new.is_some()).then(|| (change, state(old), state(new)));
    };
    let change = match (&before.what, &after.what) {
        (old, new) if old == new => {
            let mode = |listed: &ListedPath| Some(format!("{:04o}", listed.mode));
            let modes = (before.mode != after.mode).then(|| (mode(before), mode(after)));
            return modes.map(|(old, new)| (FileChange::Mode, old, new));
        }
        (Listed::File { .. }, Listed::File { .. }) => FileChange::Content,
        (Listed::Symlink(_), Listed::Symlink(_)) => FileChange::Target,
        _ => FileChange::Kind,
    };
    Some((change, Some(before.what.state()), Some(after.what.state())))
}

impl Listed {
    /// What tells two of them apart, in a few words.
    fn state(&self) -> String {
        match self {
            Self::Directory { on_the_way: false } => "directory".to_owned(),
            Self::Directory { on_the_way: true } => "directory for what is in it".to_owned(),
            Self::File {
                digest: Some(digest),
                ..
            } => digest.to_string(),
            Self::File { digest: None, .. } => "empty".to_owned(),
            Self::Symlink(target) | Self::Other(target) => {
                String::from_utf8_lossy(target).into_owned()
            }
        }
    }
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // Paths and link targets have 4 KiB at most.
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(bytes);
}

fn take<const N: usize>(rows: &mut &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    rows.read_exact(&mut out).ok()?;
    Some(out)
}

fn take_bytes(rows: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(u32::from_le_bytes(take(rows)?)).ok()?;
    let (bytes, rest) = rows.split_at_checked(length)?;
    *rows = rest;
    Some(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(path: &str, mode: u32, content: &str) -> ListedPath {
        ListedPath {
            path: path.into(),
            mode,
            what: Listed::File {
                size: content.len() as u64,
                digest: (!content.is_empty()).then(|| Blake3Digest::of(content.as_bytes())),
            },
        }
    }

    fn listed() -> impl Strategy<Value = ListedPath> {
        let what = prop_oneof![
            any::<bool>().prop_map(|on_the_way| Listed::Directory { on_the_way }),
            (any::<u64>(), prop::option::of(any::<[u8; 32]>())).prop_map(|(size, digest)| {
                Listed::File {
                    size,
                    digest: digest.map(Blake3Digest::from_bytes),
                }
            }),
            prop::collection::vec(any::<u8>(), 0..9).prop_map(Listed::Symlink),
            prop::collection::vec(any::<u8>(), 0..9).prop_map(Listed::Other),
        ];
        let path = prop::collection::vec(any::<u8>(), 0..9);
        (path, any::<u32>(), what).prop_map(|(path, mode, what)| ListedPath { path, mode, what })
    }

    proptest! {
        #[test]
        fn listings_survive_storage(paths in prop::collection::vec(listed(), 0..9)) {
            let listing = FileListing { paths };
            prop_assert_eq!(FileListing::decode(&listing.encode()), Some(listing));
        }

        #[test]
        fn foreign_bytes_are_refused_or_read(rows in prop::collection::vec(any::<u8>(), 0..60)) {
            let stored = [MAGIC, &zstd::encode_all(&rows[..], LEVEL).unwrap()].concat();
            if let Some(listing) = FileListing::decode(&stored) {
                prop_assert_eq!(FileListing::decode(&listing.encode()), Some(listing));
            }
        }
    }

    #[test]
    fn changes_say_what_kind_they_are() {
        let link = |target: &str| ListedPath {
            path: b"link".to_vec(),
            mode: 0o777,
            what: Listed::Symlink(target.into()),
        };
        let old = FileListing {
            paths: vec![
                file("a", 0o644, "1"),
                file("b", 0o644, ""),
                link("a"),
                file("gone", 0o644, ""),
            ],
        };
        let new = FileListing {
            paths: vec![
                file("a", 0o644, "2"),
                file("b", 0o755, ""),
                link("b"),
                file("new", 0o644, ""),
            ],
        };
        let changes = old.changes(&new);
        let told: Vec<_> = changes
            .iter()
            .map(|c| (c.path.as_str(), c.change))
            .collect();
        assert_eq!(
            told,
            [
                ("a", FileChange::Content),
                ("b", FileChange::Mode),
                ("gone", FileChange::Removed),
                ("link", FileChange::Target),
                ("new", FileChange::Added),
            ]
        );
        assert_eq!(changes[0].old, Some(Blake3Digest::of(b"1").to_string()));
        assert_eq!(changes[1].new.as_deref(), Some("0755"));
        assert_eq!(changes[3].new.as_deref(), Some("b"));
        assert!(old.changes(&old).is_empty());
    }
}
