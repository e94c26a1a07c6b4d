//! The form in which overlayfs keeps a layer on disk.
//!
//! | in a layer | on disk |
//! |---|---|
//! | whiteout | character device 0/0 |
//! | opaque directory | extended attribute `trusted.overlay.opaque` = `y`, or `user.overlay.opaque` in a user namespace (mount option `userxattr`) |
//! | extended attribute | the same, if [`is_kept`] |
//!
//! All other `overlay.*` attributes are overlayfs's own notes and never part of a
//! layer. Source: Linux, `Documentation/filesystems/overlayfs.rst`.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags},
    io::Errno,
};

/// Who made the directories, and so which attributes overlayfs reads in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    /// root of the host: `trusted.overlay.*`, real ids.
    Root,
    /// root of a user namespace: `user.overlay.*`, mapped ids, no device nodes.
    User,
}

impl Flavour {
    /// The attribute that makes a directory opaque.
    pub(super) fn opaque_attribute(self) -> &'static str {
        match self {
            Self::Root => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }
}

/// Whether an extended attribute is part of a layer. Others (`trusted.*`, labels of
/// security modules, integrity measurements) belong to the host.
pub(super) fn is_kept(name: &str) -> bool {
    name == "security.capability"
        || name == "system.posix_acl_access"
        || name == "system.posix_acl_default"
        || (name.starts_with("user.") && !name.starts_with("user.overlay."))
}

/// Whether the name is one of overlayfs's own, of either flavour.
fn is_overlay(name: &str) -> bool {
    name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.")
}

/// Whether `stat` describes a whiteout.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Makes a whiteout.
pub(super) fn make_whiteout(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)
}

/// The extended attributes of one file, sorted out.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    /// Those that are part of a layer.
    pub(super) kept: BTreeMap<String, Vec<u8>>,
    /// Whether the directory is opaque.
    pub(super) opaque: bool,
    /// The names of all of overlayfs's own.
    pub(super) overlay: Vec<String>,
}

impl Attributes {
    /// Reads those of `name` in `dir`; a symlink is not followed.
    pub(super) fn read(dir: BorrowedFd<'_>, name: &OsStr, flavour: Flavour) -> io::Result<Self> {
        let path = proc_path(dir, name);
        let mut out = Self::default();
        for attribute in list(&path)? {
            if is_overlay(&attribute) {
                out.opaque |=
                    attribute == flavour.opaque_attribute() && value(&path, &attribute)? == b"y";
                out.overlay.push(attribute);
            } else if is_kept(&attribute) {
                let mut bytes = value(&path, &attribute)?;
                if attribute == "security.capability" {
                    bytes = without_root_id(bytes);
                }
                out.kept.insert(attribute, bytes);
            }
        }
        Ok(out)
    }
}

/// A capability attribute of revision 3 (with the id of a namespace's root) rewritten
/// to revision 2, which is what stands in a layer. Source: `linux/capability.h`.
fn without_root_id(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() == 24 && bytes[3] == 3 {
        bytes.truncate(20);
        bytes[3] = 2;
    }
    bytes
}

/// Sets an extended attribute of `name` in `dir`; a symlink is not followed.
pub(super) fn set_attribute(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    attribute: &str,
    value: &[u8],
) -> rustix::io::Result<()> {
    rustix::fs::lsetxattr(proc_path(dir, name), attribute, value, XattrFlags::empty())
}

/// Removes an extended attribute; that it is not there is no error.
pub(super) fn remove_attribute(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    attribute: &str,
) -> rustix::io::Result<()> {
    match rustix::fs::lremovexattr(proc_path(dir, name), attribute) {
        Err(Errno::NODATA) => Ok(()),
        result => result,
    }
}

/// A path that names `name` in the open directory, for the system calls that have no
/// variant with a directory. `.` names the directory itself.
fn proc_path(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name)
}

/// The names of the attributes at `path`. Names that are not UTF-8 are nobody's.
fn list(path: &Path) -> io::Result<Vec<String>> {
    let names = match sized(|buffer| rustix::fs::llistxattr(path, buffer)) {
        Err(Errno::OPNOTSUPP) => Vec::new(),
        result => result?,
    };
    Ok(names
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| String::from_utf8(name.to_vec()).ok())
        .collect())
}

/// The value of an attribute.
fn value(path: &Path, attribute: &str) -> io::Result<Vec<u8>> {
    Ok(sized(|buffer| {
        rustix::fs::lgetxattr(path, attribute, buffer)
    })?)
}

/// Calls `read` with a buffer that is large enough: a small one at first, then one of
/// the kernel's limit (64 KiB).
fn sized(
    mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    let mut small = [0; 256];
    match read(&mut small) {
        Err(Errno::RANGE) => {}
        result => return Ok(small[..result?].to_vec()),
    }
    let mut large = vec![0; 65536];
    let length = read(&mut large)?;
    large.truncate(length);
    Ok(large)
}

/// The names in a directory, sorted bytewise: with directories before their contents,
/// this is the canonical order of layers.
pub(super) fn sorted_names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Opens the directory `name` in `dir`, never through a symlink.
pub(super) fn open_dir(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(
        dir,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// What stands at `name` in `dir`; a symlink is not followed.
pub(super) fn stat(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Stat> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Removes `name` in `dir` with all that is in it; that it is not there is no error.
pub(super) fn remove_tree(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let child = open_dir(dir, name)?;
    for name in sorted_names(child.as_fd())? {
        remove_tree(child.as_fd(), &name)?;
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// `seconds` with zero nanoseconds, for the last change and also the last access, so
/// that directories made twice are equal.
pub(super) fn times(seconds: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Sets the [`times`] of `name` in `dir`; a symlink is not followed.
pub(super) fn set_mtime(dir: BorrowedFd<'_>, name: &OsStr, seconds: i64) -> rustix::io::Result<()> {
    rustix::fs::utimensat(dir, name, &times(seconds), AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_revision_3_becomes_2() {
        let mut v3 = vec![1, 0, 0, 3];
        v3.extend([7; 16]);
        v3.extend([0xa0, 0x86, 1, 0]);
        let v2 = without_root_id(v3);
        assert_eq!(v2[..4], [1, 0, 0, 2]);
        assert_eq!(v2.len(), 20);
        assert_eq!(without_root_id(v2.clone()), v2);
    }

    #[test]
    fn only_portable_attributes_are_kept() {
        for name in ["user.a", "security.capability", "system.posix_acl_access"] {
            assert!(is_kept(name), "{name}");
        }
        for name in [
            "user.overlay.opaque",
            "trusted.overlay.redirect",
            "trusted.a",
            "security.selinux",
        ] {
            assert!(!is_kept(name), "{name}");
        }
    }
}
