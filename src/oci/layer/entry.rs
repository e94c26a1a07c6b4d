//! One change of a layer.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    ffi::OsStr,
    fmt,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// A path inside a root file system: relative to its root, of normal components
/// only, as bytes. The root itself is the empty path.
///
/// The order is the canonical order of layers: component by component, bytewise,
/// so that a directory stands before what is in it and the contents of a directory
/// stand together.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct LayerPath(Vec<u8>);

/// A path that cannot stand in a layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a path inside the root file system", path.display())]
pub struct LayerPathError {
    path: PathBuf,
}

impl LayerPath {
    /// The root directory.
    pub const ROOT: Self = Self(Vec::new());

    /// Normalises `path`: leading and trailing slashes, empty and `.` components are
    /// dropped. A `..` component or a NUL byte is an error.
    pub fn new(path: impl AsRef<OsStr>) -> Result<Self, LayerPathError> {
        let bytes = path.as_ref().as_bytes();
        let error = || LayerPathError {
            path: PathBuf::from(path.as_ref()),
        };
        if bytes.contains(&0) {
            return Err(error());
        }
        let mut out = Vec::with_capacity(bytes.len());
        for component in bytes.split(|b| *b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(error()),
                _ => {
                    if !out.is_empty() {
                        out.push(b'/');
                    }
                    out.extend_from_slice(component);
                }
            }
        }
        Ok(Self(out))
    }

    /// Whether this is the root directory.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path, relative.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The components, from the root on.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &OsStr> {
        self.0
            .split(|b| *b == b'/')
            .filter(|c| !c.is_empty())
            .map(OsStr::from_bytes)
    }

    /// The last component; none for the root.
    pub fn file_name(&self) -> Option<&OsStr> {
        self.components().next_back()
    }

    /// The directory this path lies in; none for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(Self(self.0[..end].to_vec()))
    }

    /// This path with one more component. `name` must be a single normal component.
    #[must_use]
    pub fn join(&self, name: &OsStr) -> Self {
        debug_assert!(!name.as_bytes().contains(&b'/') && !name.is_empty());
        let mut out = self.0.clone();
        if !out.is_empty() {
            out.push(b'/');
        }
        out.extend_from_slice(name.as_bytes());
        Self(out)
    }

    /// Whether `self` is `ancestor` or lies below it.
    pub fn starts_with(&self, ancestor: &Self) -> bool {
        ancestor.is_root()
            || self.0 == ancestor.0
            || (self.0.starts_with(&ancestor.0) && self.0.get(ancestor.0.len()) == Some(&b'/'))
    }
}

impl Ord for LayerPath {
    fn cmp(&self, other: &Self) -> Ordering {
        // `/` sorts below every other byte: the order of component lists.
        let rank = |b: u8| if b == b'/' { 0 } else { u16::from(b) + 1 };
        match self.0.iter().zip(&other.0).find(|(a, b)| a != b) {
            Some((a, b)) => rank(*a).cmp(&rank(*b)),
            None => self.0.len().cmp(&other.0.len()),
        }
    }
}

impl PartialOrd for LayerPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.as_path().display())
    }
}

impl fmt::Debug for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory: made, or its attributes changed.
    Directory,
    /// A regular file of `size` bytes; its content travels beside the entry.
    Regular {
        /// Length in bytes.
        size: u64,
    },
    /// A symbolic link with this target, which may be any bytes but NUL.
    Symlink {
        /// The link's text.
        target: PathBuf,
    },
    /// Another name of a regular file of the same layer, whose path sorts before.
    Hardlink {
        /// The first name, relative to the root.
        target: LayerPath,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// The path, which a lower layer has, is gone (tar: `.wh.<name>`).
    Whiteout,
    /// All that lower layers have in this directory is gone (tar: `.wh..wh..opq` in
    /// it). Comes right after the directory's own entry, in addition to it.
    Opaque,
}

/// One change of a layer, without the content of a regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where. For [`EntryKind::Whiteout`] the path that is gone, for
    /// [`EntryKind::Opaque`] the directory.
    pub path: LayerPath,
    /// What.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky (`0o7777`). Zero for
    /// whiteouts, opaque marks; `0o777` for symlinks; as its target's for hard links.
    pub mode: u32,
    /// Owner inside the image.
    pub uid: u32,
    /// Group inside the image.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Extended attributes by name (`user.*`, `security.capability`, POSIX ACLs),
    /// never `trusted.overlay.*` or `user.overlay.*`.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normal_and_ordered_by_component() {
        let path = |text: &str| LayerPath::new(text).unwrap();
        assert_eq!(path("/a//b/./c/"), path("a/b/c"));
        assert!(LayerPath::new("a/../b").is_err());
        assert!(LayerPath::ROOT < path("a"));
        assert!(path("a") < path("a/b"));
        assert!(path("a/b") < path("a-b"), "`-` is below `/` as a byte");
        assert_eq!(path("a/b").parent(), Some(path("a")));
        assert_eq!(path("a").parent(), Some(LayerPath::ROOT));
        assert_eq!(LayerPath::ROOT.parent(), None);
        assert!(path("a/b").starts_with(&path("a")));
        assert!(!path("ab").starts_with(&path("a")));
        assert_eq!(path("a/b").to_string(), "/a/b");
    }
}
