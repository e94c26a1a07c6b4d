//! Tar archives as build contexts.
//!
//! Members are written below one directory and nowhere else: names with `..` are refused
//! by the reader, and symlinks of the archive lead to places inside it only, as if the
//! directory were the root. What is kept is what a scan of a context sees: directories,
//! files with or without the executable bit, symlinks, hard links. Devices, pipes and owners
//! are left out.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::RemoteError;
use crate::{
    fs::{self, IoContext as _},
    oci::layer::{ArchiveFormat, EntryKind, LayerPath, TarEntries, TarEntry},
};

/// Unpacks `archive` below `dir`. `what` names it in messages.
pub(super) fn unpack(
    what: &str,
    format: ArchiveFormat,
    archive: &File,
    dir: &Path,
) -> Result<(), RemoteError> {
    let root = fs::open_dir(rustix::fs::CWD, dir).at("open", dir)?;
    let unpacking = Unpacking { what, dir, root };
    let broken = |source| RemoteError::Archive {
        what: what.to_owned(),
        source,
    };
    let mut entries = TarEntries::new(format.reader(archive));
    while let Some(mut entry) = entries.next_entry().map_err(broken)? {
        unpacking.member(&mut entry)?;
    }
    Ok(())
}

struct Unpacking<'a> {
    what: &'a str,
    dir: &'a Path,
    root: OwnedFd,
}

impl Unpacking<'_> {
    fn member<R: io::Read>(&self, member: &mut TarEntry<'_, R>) -> Result<(), RemoteError> {
        let path = member.entry.path.clone();
        let Some(name) = path.file_name() else {
            return Ok(());
        };
        if let EntryKind::Directory = member.entry.kind {
            return self.directory(&path).map(drop);
        }
        let kind = member.entry.kind.clone();
        if !matches!(
            kind,
            EntryKind::Regular { .. } | EntryKind::Symlink { .. } | EntryKind::Hardlink { .. }
        ) {
            return Ok(());
        }
        let parent = self.directory(&path.parent().unwrap_or_default())?;
        // What an archive has twice is there as the last one says.
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            result => self.at("replace", &path, result)?,
        }
        match kind {
            EntryKind::Symlink { target } => {
                let made = rustix::fs::symlinkat(&target, &parent, name);
                self.at("make symlink", &path, made)
            }
            EntryKind::Hardlink { target } => self.hard_link(&target, &parent, name, &path),
            _ => self.file(member, &parent, name, &path),
        }
    }

    fn file<R: io::Read>(
        &self,
        member: &mut TarEntry<'_, R>,
        parent: &OwnedFd,
        name: &OsStr,
        path: &LayerPath,
    ) -> Result<(), RemoteError> {
        let mode = match member.entry.mode & 0o100 {
            0 => Mode::from_raw_mode(0o644),
            _ => Mode::from_raw_mode(0o755),
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags | OFlags::NOFOLLOW, mode);
        let file = self.at("create", path, file)?;
        self.at("set the mode of", path, rustix::fs::fchmod(&file, mode))?;
        let mut out = Writing {
            file: File::from(file),
            failed: false,
        };
        match io::copy(member, &mut out) {
            Ok(_) => Ok(()),
            Err(error) if out.failed => Ok(Err(error).at("write", self.dir.join(path.as_path()))?),
            Err(error) => Err(RemoteError::Archive {
                what: self.what.to_owned(),
                source: crate::oci::layer::LayerError::Read(error),
            }),
        }
    }

    fn hard_link(
        &self,
        target: &LayerPath,
        parent: &OwnedFd,
        name: &OsStr,
        path: &LayerPath,
    ) -> Result<(), RemoteError> {
        let Some(target_name) = target.file_name() else {
            return Err(self.outside(path));
        };
        let from = self.directory(&target.parent().unwrap_or_default())?;
        let linked = rustix::fs::linkat(&from, target_name, parent, name, AtFlags::empty());
        self.at("link", path, linked)
    }

    /// Opens a directory of the tree, which is made with its parents if it is missing.
    fn directory(&self, path: &LayerPath) -> Result<OwnedFd, RemoteError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let again = self.root.as_fd().try_clone_to_owned();
        let mut dir = again.at("open", self.dir)?;
        let mut at = LayerPath::ROOT;
        for name in path.components() {
            at = at.join(name);
            let opened = match fs::open_dir(&dir, name) {
                Err(Errno::NOENT) => {
                    let mode = Mode::from_raw_mode(0o755);
                    self.at(
                        "create directory",
                        &at,
                        rustix::fs::mkdirat(&dir, name, mode),
                    )?;
                    fs::open_dir(&dir, name)
                }
                // A symlink is followed inside the tree.
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                    let whole = at.as_path();
                    rustix::fs::openat2(&self.root, whole, flags, Mode::empty(), resolve)
                }
                opened => opened,
            };
            dir = opened.map_err(|_| self.outside(path))?;
        }
        Ok(dir)
    }

    fn outside(&self, path: &LayerPath) -> RemoteError {
        RemoteError::Outside {
            what: self.what.to_owned(),
            member: path.to_string(),
        }
    }

    fn at<T>(
        &self,
        act: &'static str,
        path: &LayerPath,
        result: rustix::io::Result<T>,
    ) -> Result<T, RemoteError> {
        Ok(result.at(act, self.dir.join(path.as_path()))?)
    }
}

/// A file that remembers that writing failed, to tell it from reading.
struct Writing {
    file: File,
    failed: bool,
}

impl io::Write for Writing {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let result = self.file.write(buf);
        self.failed = result.is_err();
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Seek as _, Write as _},
        os::unix::fs::PermissionsExt as _,
    };

    use super::*;

    fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size as u64);
        header
    }

    fn unpacked(
        fill: impl FnOnce(&mut tar::Builder<Vec<u8>>),
    ) -> (tempfile::TempDir, Result<(), RemoteError>) {
        let mut tar = tar::Builder::new(Vec::new());
        fill(&mut tar);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&tar.into_inner().unwrap()).unwrap();
        file.rewind().unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        let result = unpack("x.tar", ArchiveFormat::Tar, &file, &dir.path().join("in"));
        (dir, result)
    }

    fn file(tar: &mut tar::Builder<Vec<u8>>, name: &str, mode: u32, text: &str) {
        let mut header = header(tar::EntryType::Regular, mode, text.len());
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }

    fn link(tar: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, name: &str, target: &str) {
        let mut header = header(kind, 0o777, 0);
        tar.append_link(&mut header, name, target).unwrap();
    }

    #[test]
    fn members_are_written_as_a_checkout_would_be() {
        let (dir, result) = unpacked(|tar| {
            file(tar, "a/b/f", 0o4640, "one");
            file(tar, "a/b/f", 0o640, "two");
            file(tar, "x", 0o711, "run");
            link(tar, tar::EntryType::Symlink, "l", "a/b");
            file(tar, "l/g", 0o600, "through");
            link(tar, tar::EntryType::Link, "h", "a/b/f");
            let mut pipe = header(tar::EntryType::Fifo, 0o644, 0);
            tar.append_data(&mut pipe, "pipe", &b""[..]).unwrap();
        });
        result.unwrap();
        let at = |name: &str| dir.path().join("in").join(name);
        assert_eq!(std::fs::read(at("h")).unwrap(), b"two");
        assert_eq!(std::fs::read(at("a/b/g")).unwrap(), b"through");
        assert!(!at("pipe").exists());
        for (name, mode) in [("h", 0o644), ("x", 0o755)] {
            let found = std::fs::metadata(at(name)).unwrap().permissions().mode();
            assert_eq!(found & 0o7777, mode);
        }
    }

    #[test]
    fn nothing_is_written_elsewhere() {
        for target in ["../out", "/../../out", "/tmp"] {
            let (dir, result) = unpacked(|tar| {
                link(tar, tar::EntryType::Symlink, "l", target);
                file(tar, "l/evil", 0o644, "x");
            });
            assert!(
                matches!(result, Err(RemoteError::Outside { .. })),
                "{target}: {result:?}"
            );
            assert!(!dir.path().join("out").exists());
            assert!(!Path::new("/tmp/evil").exists());
        }
        // A file that is itself a symlink is replaced, not written through.
        let (dir, result) = unpacked(|tar| {
            link(tar, tar::EntryType::Symlink, "l", "../../evil");
            file(tar, "l", 0o644, "x");
        });
        result.unwrap();
        assert!(!dir.path().join("evil").exists());
        assert_eq!(std::fs::read(dir.path().join("in/l")).unwrap(), b"x");
    }
}
