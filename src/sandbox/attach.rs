//! The mounts that a step asked for, and the files that the sandbox makes.

use std::{
    io::Write,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Gid, Mode, OFlags, Uid},
    io::Errno,
    mount::MountAttrFlags,
};

use super::{
    MountKind, Tier,
    mounts::{self, MountError, Overlay, Root, open_dir},
    place::{Missing, place},
    spec::{Mount, Scratch},
};
use crate::{
    graph::FileOwner,
    sys::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY},
};

/// Files that the sandbox makes for the step.
pub(super) struct Generated<'a> {
    /// Directory on a tmpfs.
    dir: OwnedFd,
    path: &'a Path,
    /// An empty directory in it.
    pub(super) empty: OwnedFd,
}

impl<'a> Generated<'a> {
    pub(super) fn new(path: &'a Path) -> mounts::Result<Self> {
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = mounts::tmpfs(0o755, None, flags)?;
        mounts::attach(mount, open_dir(path)?, path)?;
        let dir = open_dir(path)?;
        let empty = Self::make_dir(&dir, path, "empty")?;
        Ok(Self { dir, path, empty })
    }

    fn make_dir(dir: &OwnedFd, path: &Path, name: &str) -> mounts::Result<OwnedFd> {
        let path = path.join(name);
        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))
            .map_err(|e| MountError::new(&path, e))?;
        open_dir(path)
    }

    pub(super) fn open_empty(&self) -> mounts::Result<OwnedFd> {
        open_dir(self.path.join("empty"))
    }

    /// Makes a file and binds it read-only.
    pub(super) fn file(
        &self,
        root: &mut Root,
        name: &str,
        target: &str,
        text: &str,
    ) -> mounts::Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, name, flags, Mode::from_raw_mode(0o644))
            .map_err(|e| MountError::new(name, e))?;
        std::fs::File::from(file)
            .write_all(text.as_bytes())
            .map_err(|e| MountError::new(name, e))?;
        let mount = mounts::clone(&self.dir, name)?;
        mounts::restrict(&mount, MOUNT_ATTR_RDONLY, target)?;
        root.attach(mount, target)
    }
}

/// Makes and attaches the mounts of a step, one after the other.
pub(super) struct Attacher<'g> {
    generated: &'g Generated<'g>,
    tier: Tier,
    /// Overlays that keep their changes, by their upper directory.
    merged: Vec<(PathBuf, OwnedFd)>,
}

impl<'g> Attacher<'g> {
    pub(super) fn new(generated: &'g Generated<'g>, tier: Tier) -> Self {
        Self {
            generated,
            tier,
            merged: Vec::new(),
        }
    }

    /// Attaches `mount`, the `number`th.
    pub(super) fn attach(
        &mut self,
        root: &mut Root,
        number: usize,
        mount: &Mount,
    ) -> mounts::Result<()> {
        let target = &mount.target;
        let restricted = |made: OwnedFd, readonly: bool| {
            let read_only = if readonly { MOUNT_ATTR_RDONLY } else { 0 };
            mounts::restrict(&made, MOUNT_ATTR_NODEV | read_only, target)?;
            Ok(made)
        };
        let made = match &mount.kind {
            MountKind::Bind { source, readonly } => {
                restricted(mounts::clone(CWD, source)?, *readonly)?
            }
            MountKind::Inside {
                dir,
                path,
                readonly,
            } => restricted(inside(open_dir(dir)?, path)?, *readonly)?,
            MountKind::Tmpfs { size, readonly } => {
                let mut flags =
                    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
                if *readonly {
                    flags |= MountAttrFlags::MOUNT_ATTR_RDONLY;
                }
                mounts::tmpfs(hidden_mode(root, target)?, *size, flags)?
            }
            MountKind::Overlay {
                lowers,
                source,
                scratch,
            } => {
                let merged = self.overlay(number, lowers, scratch.as_ref())?;
                restricted(inside(merged, source)?, scratch.is_none())?
            }
            MountKind::Secret { content, owner } => {
                self.secret(number, content.expose(), *owner)?
            }
            MountKind::Socket { source, owner } => socket(source, *owner)?,
            MountKind::Device {
                source,
                mode,
                uid,
                gid,
            } => match self.tier {
                Tier::Root if mode.or(*uid).or(*gid).is_some() => {
                    self.device(number, source, *mode, *uid, *gid)?
                }
                _ => mounts::clone(CWD, source)?,
            },
        };
        root.attach(made, target)
    }

    /// The root directory of merged layers. Two file systems on one upper directory would
    /// disturb each other, so there is one.
    fn overlay(
        &mut self,
        number: usize,
        lowers: &[PathBuf],
        scratch: Option<&Scratch>,
    ) -> mounts::Result<OwnedFd> {
        let upper = scratch.map(|s| s.upper.as_path());
        let known = self.merged.iter().find(|(path, _)| Some(&**path) == upper);
        if let Some((path, known)) = known {
            return rustix::io::dup(known).map_err(|e| MountError::new(path, e));
        }
        let upper = scratch.map(|s| (s.upper.as_path(), s.work.as_path()));
        let empty = self.generated.open_empty()?;
        let mut overlay = Overlay::open(lowers, upper, self.tier != Tier::Root, empty)?;
        overlay.kept = scratch.is_some_and(|s| s.kept);
        let (_, path) = self.directory(&format!("overlay-{number}"))?;
        let merged = overlay.mount(&path)?;
        if let Some(scratch) = scratch.filter(|s| s.kept) {
            let copy = rustix::io::dup(&merged).map_err(|e| MountError::new(&path, e))?;
            self.merged.push((scratch.upper.clone(), copy));
        }
        Ok(merged)
    }

    fn directory(&self, name: &str) -> mounts::Result<(OwnedFd, PathBuf)> {
        let dir = Generated::make_dir(&self.generated.dir, self.generated.path, name)?;
        Ok((dir, self.generated.path.join(name)))
    }

    /// A file on a file system of its own, which is memory.
    fn secret(&self, number: usize, content: &[u8], owner: FileOwner) -> mounts::Result<OwnedFd> {
        let error = |e: std::io::Error| MountError::new("secret", e);
        let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let mut restrictions = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID;
        if owner.mode & 0o111 == 0 {
            flags |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
            restrictions |= MOUNT_ATTR_NOEXEC;
        }
        let (dir, path) = self.directory(&format!("secret-{number}"))?;
        mounts::attach(mounts::memory(0o711, flags)?, dir, &path)?;
        let dir = open_dir(&path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, "secret", flags, Mode::from_raw_mode(0o600))
            .map_err(|e| error(e.into()))?;
        let mut file = std::fs::File::from(file);
        file.write_all(content).map_err(error)?;
        give(&file, owner).map_err(|e| error(e.into()))?;
        drop(file);
        let made = mounts::clone(&dir, "secret")?;
        mounts::restrict(&made, restrictions, "secret")?;
        Ok(made)
    }

    /// A node like that at `source`, with another mode or owner.
    fn device(
        &self,
        number: usize,
        source: &Path,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> mounts::Result<OwnedFd> {
        let error = |e: Errno| MountError::new(source, e);
        let like = rustix::fs::stat(source).map_err(error)?;
        let (dir, path) = self.directory(&format!("device-{number}"))?;
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        mounts::attach(mounts::tmpfs(0o711, None, flags)?, dir, &path)?;
        let dir = open_dir(&path)?;
        let owner = FileOwner {
            mode: mode.unwrap_or(like.st_mode & 0o7777),
            uid: uid.unwrap_or(like.st_uid),
            gid: gid.unwrap_or(like.st_gid),
        };
        let kind = FileType::from_raw_mode(like.st_mode);
        let private = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(&dir, "node", kind, private, like.st_rdev).map_err(error)?;
        give_path(&path.join("node"), owner).map_err(error)?;
        mounts::clone(&dir, "node")
    }
}

/// The mode of the directory that a mount at `target` hides.
fn hidden_mode(root: &Root, target: &str) -> mounts::Result<u32> {
    match root.existing(target)? {
        Some(fd) => {
            let stat = rustix::fs::fstat(&fd).map_err(|e| MountError::new(target, e))?;
            Ok(stat.st_mode & 0o7777)
        }
        None => Ok(0o1777),
    }
}

/// A socket whose mode and owner become these, also on the host.
fn socket(source: &Path, owner: FileOwner) -> mounts::Result<OwnedFd> {
    give_path(source, owner).map_err(|e| MountError::new(source, e))?;
    let made = mounts::clone(CWD, source)?;
    let restrictions = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
    mounts::restrict(&made, restrictions, source)?;
    Ok(made)
}

/// What stands at `path` in `dir`, with symlinks resolved there.
fn inside(dir: OwnedFd, path: &str) -> mounts::Result<OwnedFd> {
    let found = place(dir, path.as_ref(), Missing::Refuse).map_err(|e| MountError::new(path, e))?;
    mounts::clone(found.fd, "")
}

fn give(file: impl AsFd, owner: FileOwner) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::fs::fchown(&file, Some(uid), Some(gid))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(owner.mode & 0o777))
}

fn give_path(path: &Path, owner: FileOwner) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::fs::chown(path, Some(uid), Some(gid))?;
    rustix::fs::chmod(path, Mode::from_raw_mode(owner.mode & 0o777))
}
