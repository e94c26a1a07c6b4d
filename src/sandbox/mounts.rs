//! Mounts of the root file system, with descriptors instead of paths: what is mounted
//! is made detached (`fsopen`, `open_tree`) and then attached to an open place
//! (`move_mount`), so no path of the image is resolved on the way. Needs Linux 5.12.

use std::{
    ffi::OsStr,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags},
};

use super::place::{Missing, is_directory, place};
use crate::sys;

/// A failed act on a mount and what it was about, with the kernel's own words if it had any.
#[derive(Debug)]
pub(super) struct MountError {
    pub(super) what: String,
    pub(super) errno: Errno,
}

impl MountError {
    pub(super) fn new(what: impl AsRef<OsStr>, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        Self {
            what: what.as_ref().to_string_lossy().into_owned(),
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        }
    }
}

pub(super) type Result<T> = std::result::Result<T, MountError>;

/// A file system about to be made.
pub(super) struct FileSystem {
    name: &'static str,
    context: OwnedFd,
}

impl FileSystem {
    pub(super) fn new(name: &'static str) -> Result<Self> {
        let context = rustix::mount::fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(|e| MountError::new(name, e))?;
        let fs = Self { name, context };
        // What `mount` and `df` show in their first column.
        fs.set("source", name)?;
        Ok(fs)
    }

    pub(super) fn set(&self, key: &str, value: &str) -> Result<()> {
        rustix::mount::fsconfig_set_string(&self.context, key, value)
            .map_err(|e| self.explain(&format!("{key}={value}"), e))
    }

    pub(super) fn set_flag(&self, key: &str) -> Result<()> {
        rustix::mount::fsconfig_set_flag(&self.context, key).map_err(|e| self.explain(key, e))
    }

    /// Makes it, as a detached mount.
    pub(super) fn mount(self, attributes: MountAttrFlags) -> Result<OwnedFd> {
        rustix::mount::fsconfig_create(&self.context).map_err(|e| self.explain("", e))?;
        rustix::mount::fsmount(&self.context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|e| self.explain("", e))
    }

    /// Adds what the kernel logged to this context.
    fn explain(&self, option: &str, errno: Errno) -> MountError {
        let mut what = self.name.to_owned();
        if !option.is_empty() {
            what = format!("{what} {option}");
        }
        let mut buffer = [0; 512];
        while let Ok(size) = rustix::io::read(&self.context, &mut buffer) {
            let line = String::from_utf8_lossy(&buffer[..size]);
            what = format!("{what}: {}", line.trim_end().trim_start_matches("e "));
        }
        MountError { what, errno }
    }
}

/// Attaches a detached mount over `target`.
pub(super) fn attach(mount: impl AsFd, target: impl AsFd, what: impl AsRef<OsStr>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags).map_err(|e| MountError::new(what, e))
}

/// A detached copy of the mount at `path` below `dir`, with all mounts below it.
pub(super) fn clone(dir: impl AsFd, path: impl AsRef<Path>) -> Result<OwnedFd> {
    let path = path.as_ref();
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    rustix::mount::open_tree(dir, path, flags).map_err(|e| MountError::new(path, e))
}

/// Adds attributes to a mount and all below it.
pub(super) fn restrict(mount: impl AsFd, attributes: u64, what: impl AsRef<OsStr>) -> Result<()> {
    sys::add_mount_attributes(mount, attributes, true).map_err(|e| MountError::new(what, e))
}

/// A tmpfs as a detached mount.
pub(super) fn tmpfs(mode: u32, size: Option<u64>, attributes: MountAttrFlags) -> Result<OwnedFd> {
    let fs = FileSystem::new("tmpfs")?;
    fs.set("mode", &format!("{mode:o}"))?;
    if let Some(size) = size {
        fs.set("size", &size.to_string())?;
    }
    fs.mount(attributes)
}

/// A tmpfs that is not swapped out, where the kernel (6.4) and the namespace let it.
pub(super) fn memory(mode: u32, attributes: MountAttrFlags) -> Result<OwnedFd> {
    let fs = FileSystem::new("tmpfs")?;
    fs.set("mode", &format!("{mode:o}"))?;
    if fs.set_flag("noswap").is_ok()
        && let Ok(mount) = fs.mount(attributes)
    {
        return Ok(mount);
    }
    tmpfs(mode, None, attributes)
}

/// Layers to be merged, as opened directories.
pub(super) struct Overlay {
    /// Lowest first.
    pub(super) lowers: Vec<OwnedFd>,
    /// Takes changes, with the work directory.
    pub(super) upper: Option<(OwnedFd, OwnedFd)>,
    /// Whether this is in a user namespace.
    pub(super) userxattr: bool,
    /// An empty directory: overlayfs wants one layer at least, two without `upper`.
    pub(super) empty: OwnedFd,
    /// Whether the changes must outlast a crash.
    pub(super) kept: bool,
    /// Whether device nodes on it work.
    pub(super) devices: bool,
}

impl Overlay {
    /// Opens the directories.
    pub(super) fn open(
        lowers: &[PathBuf],
        upper: Option<(&Path, &Path)>,
        userxattr: bool,
        empty: OwnedFd,
    ) -> Result<Self> {
        Ok(Self {
            lowers: lowers.iter().map(open_dir).collect::<Result<_>>()?,
            upper: match upper {
                Some((upper, work)) => Some((open_dir(upper)?, open_dir(work)?)),
                None => None,
            },
            userxattr,
            empty,
            kept: false,
            devices: false,
        })
    }

    /// Mounts it over the directory `over`, which nobody else needs any more, and gives
    /// its root directory.
    ///
    /// Directories are named by descriptors, `/proc/self/fd/N`: that is short (an
    /// option has 256 bytes, a legacy option string a page, for layers with long names),
    /// needs no quoting, and shows no path of the host in `/proc/self/mountinfo`.
    pub(super) fn mount(&self, over: &Path) -> Result<OwnedFd> {
        let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        let mut lowers: Vec<String> = self.lowers.iter().rev().map(name).collect();
        let wanted = if self.upper.is_some() { 1 } else { 2 };
        while lowers.len() < wanted {
            lowers.push(name(&self.empty));
        }
        let upper = self
            .upper
            .as_ref()
            .map(|(upper, work)| (name(upper), name(work)));
        let target = open_dir(over)?;
        match self.detached(&lowers, upper.as_ref()) {
            Ok(mount) => attach(mount, &target, over)?,
            // Linux before 6.7 has no `lowerdir+`.
            Err(error) if error.errno == Errno::INVAL => {
                self.legacy(&lowers, upper.as_ref(), target.as_fd())
                    .map_err(|_| error)?;
            }
            Err(error) => return Err(error),
        }
        // The descriptor from before refers to the directory below the mount.
        open_dir(over)
    }

    fn options(&self) -> Vec<(&'static str, Option<&'static str>)> {
        let mut options = vec![("index", Some("off"))];
        if self.userxattr {
            // Implies `metacopy=off` and `redirect_dir=nofollow`, and conflicts with `off`.
            options.push(("userxattr", None));
        } else {
            options.extend([("redirect_dir", Some("off")), ("metacopy", Some("off"))]);
        }
        if self.upper.is_some() && !self.kept {
            // A step's upper directory is thrown away after a crash anyway.
            options.push(("volatile", None));
        }
        options
    }

    fn detached(&self, lowers: &[String], upper: Option<&(String, String)>) -> Result<OwnedFd> {
        let fs = FileSystem::new("overlay")?;
        for lower in lowers {
            fs.set("lowerdir+", lower)?;
        }
        if let Some((upper, work)) = upper {
            fs.set("upperdir", upper)?;
            fs.set("workdir", work)?;
        }
        for (key, value) in self.options() {
            match value {
                Some(value) => fs.set(key, value)?,
                None => fs.set_flag(key)?,
            }
        }
        fs.mount(match self.devices {
            true => MountAttrFlags::empty(),
            false => MountAttrFlags::MOUNT_ATTR_NODEV,
        })
    }

    fn legacy(
        &self,
        lowers: &[String],
        upper: Option<&(String, String)>,
        target: BorrowedFd<'_>,
    ) -> Result<()> {
        let mut options = format!("lowerdir={}", lowers.join(":"));
        if let Some((upper, work)) = upper {
            options.push_str(&format!(",upperdir={upper},workdir={work}"));
        }
        for (key, value) in self.options() {
            options.push(',');
            options.push_str(key);
            if let Some(value) = value {
                options.push_str(&format!("={value}"));
            }
        }
        let options = std::ffi::CString::new(options).unwrap_or_default();
        let target = format!("/proc/self/fd/{}", target.as_raw_fd());
        let flags = match self.devices {
            true => MountFlags::empty(),
            false => MountFlags::NODEV,
        };
        rustix::mount::mount("overlay", target, "overlay", flags, &*options)
            .map_err(|e| MountError::new("overlay", e))
    }
}

/// Opens a directory of the host.
pub(super) fn open_dir(path: impl AsRef<Path>) -> Result<OwnedFd> {
    let path = path.as_ref();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|e| MountError::new(path, e))
}

/// The new root while it is being furnished.
pub(super) struct Root {
    pub(super) fd: OwnedFd,
    /// What was made for mount points.
    pub(super) stubs: Vec<Vec<u8>>,
}

impl Root {
    /// Attaches `mount` at `target`, which is made if it is missing: as a directory or
    /// a file, whichever `mount` is.
    pub(super) fn attach(&mut self, mount: impl AsFd, target: &str) -> Result<()> {
        let error = |e: io::Error| MountError::new(target, e);
        let missing = if is_directory(&mount).map_err(error)? {
            Missing::Directory
        } else {
            Missing::File
        };
        let place = place(&self.fd, OsStr::new(target), missing).map_err(|e| error(e.into()))?;
        self.stubs.extend(place.made);
        attach(mount, place.fd, target)
    }

    /// A place that exists, if it does.
    pub(super) fn existing(&self, path: &str) -> Result<Option<OwnedFd>> {
        match place(&self.fd, OsStr::new(path), Missing::Refuse) {
            Ok(place) => Ok(Some(place.fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(MountError::new(path, errno)),
        }
    }
}
