//! Mount points: finding a path inside the new root as the step would, and making what
//! is missing.
//!
//! Nothing of the image runs yet, so nothing can change between two looks. Still no
//! path is ever resolved by the kernel through the image's symlinks: the walk looks at
//! each component itself and opens the result with `RESOLVE_BENEATH` and
//! `RESOLVE_NO_SYMLINKS`.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::PathBuf,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, ResolveFlags},
    io::Errno,
};

/// Symlinks followed before a path counts as a loop, as the kernel counts.
const LINKS: usize = 40;

/// What to make where nothing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Directory,
    File,
    /// Nothing: the path must exist.
    Refuse,
}

/// A path found or made.
#[derive(Debug)]
pub(super) struct Place {
    /// `O_PATH` descriptor of it.
    pub(super) fd: OwnedFd,
    /// What was made on the root's own file system, relative to the root, parents first.
    pub(super) made: Vec<Vec<u8>>,
}

/// Finds `path` in the root directory `root`, with symlinks resolved inside it. Parents
/// that are missing are made as directories (0755).
pub(super) fn place(root: impl AsFd, path: &OsStr, missing: Missing) -> rustix::io::Result<Place> {
    let root = root.as_fd();
    let device = rustix::fs::fstat(root)?.st_dev;
    let mut todo: VecDeque<OsString> = components(path.as_bytes()).collect();
    let mut real = PathBuf::new();
    let mut made = Vec::new();
    let mut links = 0;
    while let Some(component) = todo.pop_front() {
        if component == ".." {
            real.pop();
            continue;
        }
        let here = real.join(&component);
        match rustix::fs::readlinkat(root, &here, Vec::new()) {
            Ok(target) => {
                links += 1;
                if links > LINKS {
                    return Err(Errno::LOOP);
                }
                if target.to_bytes().starts_with(b"/") {
                    real.clear();
                }
                for component in components(target.to_bytes()).rev() {
                    todo.push_front(component);
                }
                continue;
            }
            // Not a symlink.
            Err(Errno::INVAL) => {}
            Err(Errno::NOENT) if missing != Missing::Refuse => {
                if missing == Missing::File && todo.is_empty() {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                    rustix::fs::openat(root, &here, flags, Mode::from_raw_mode(0o755))?;
                } else {
                    rustix::fs::mkdirat(root, &here, Mode::from_raw_mode(0o755))?;
                }
                let parent = if real.as_os_str().is_empty() {
                    OsStr::new(".")
                } else {
                    real.as_os_str()
                };
                let parent = rustix::fs::statat(root, parent, AtFlags::SYMLINK_NOFOLLOW)?;
                if parent.st_dev == device {
                    made.push(here.as_os_str().as_bytes().to_owned());
                }
            }
            Err(error) => return Err(error),
        }
        real = here;
    }
    if real.as_os_str().is_empty() {
        real.push(".");
    }
    let fd = rustix::fs::openat2(
        root,
        &real,
        OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?;
    Ok(Place { fd, made })
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = OsString> {
    path.split(|b| *b == b'/')
        .filter(|c| !matches!(*c, b"" | b"."))
        .map(|c| OsString::from_vec(c.to_owned()))
}

/// Whether what `fd` refers to is a directory.
pub(super) fn is_directory(fd: impl AsFd) -> io::Result<bool> {
    let mode = rustix::fs::fstat(fd)?.st_mode;
    Ok(rustix::fs::FileType::from_raw_mode(mode).is_dir())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(dir.path(), OFlags::PATH, Mode::empty()).unwrap();
        (dir, fd)
    }

    fn made(place: &Place) -> Vec<&str> {
        place
            .made
            .iter()
            .map(|p| str::from_utf8(p).unwrap())
            .collect()
    }

    #[test]
    fn symlinks_stay_inside() {
        let (dir, fd) = root();
        symlink("/etc", dir.path().join("abs")).unwrap();
        symlink("../../../../etc", dir.path().join("up")).unwrap();
        let place = place(&fd, OsStr::new("/abs/x/f"), Missing::File).unwrap();
        assert_eq!(made(&place), ["etc", "etc/x", "etc/x/f"]);
        assert!(dir.path().join("etc/x/f").is_file());
        let again = super::place(&fd, OsStr::new("/up/x/f"), Missing::File).unwrap();
        assert!(again.made.is_empty());
        assert!(!is_directory(&again.fd).unwrap());
    }

    #[test]
    fn a_dangling_symlink_gets_its_target() {
        let (dir, fd) = root();
        fs::create_dir(dir.path().join("etc")).unwrap();
        symlink("../run/resolv.conf", dir.path().join("etc/resolv.conf")).unwrap();
        let place = place(&fd, OsStr::new("/etc/resolv.conf"), Missing::File).unwrap();
        assert_eq!(made(&place), ["run", "run/resolv.conf"]);
    }

    #[test]
    fn loops_files_in_between_and_missing_paths_are_errors() {
        let (dir, fd) = root();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        fs::write(dir.path().join("f"), "").unwrap();
        let place = |path: &str, missing| super::place(&fd, OsStr::new(path), missing).unwrap_err();
        assert_eq!(place("/a/x", Missing::Directory), Errno::LOOP);
        assert_eq!(place("/f/x", Missing::Directory), Errno::NOTDIR);
        assert_eq!(place("/none", Missing::Refuse), Errno::NOENT);
    }

    #[test]
    fn the_root_is_a_place() {
        let (_dir, fd) = root();
        assert!(is_directory(&place(&fd, OsStr::new("/.."), Missing::Refuse).unwrap().fd).unwrap());
    }
}
