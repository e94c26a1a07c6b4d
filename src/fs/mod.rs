//! Files on the host: the only module that opens, writes, locks and walks them.
//!
//! - [`write_atomic`] and [`AtomicFile`]: a file appears whole or not at all, also
//!   after `kill -9`.
//! - [`FileLock`]: shared and exclusive locks between processes, freed by the kernel
//!   when the holder dies.
//! - [`read_to_string`], [`read`], …: thin wrappers whose errors name the path.
//! - [`Files`]: what is read by path whether it lies on the disk or in a commit.

mod files;

pub use files::{Disk, FileKind, Files};

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// An I/O failure with the act and the path it happened to.
#[derive(Debug, thiserror::Error)]
#[error("can't {act} `{}`", path.display())]
pub struct FsError {
    /// The failing act, as a verb: `read`, `create`, `rename`.
    pub act: &'static str,
    /// The path.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl FsError {
    /// Whether the path does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether the disk or a quota is full.
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

/// Adds act and path to an [`io::Result`].
pub trait IoContext<T> {
    /// Names the failing act and the path.
    fn at(self, act: &'static str, path: impl AsRef<Path>) -> Result<T, FsError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, act: &'static str, path: impl AsRef<Path>) -> Result<T, FsError> {
        self.map_err(|source| FsError {
            act,
            path: path.as_ref().to_owned(),
            source,
        })
    }
}

impl<T> IoContext<T> for rustix::io::Result<T> {
    fn at(self, act: &'static str, path: impl AsRef<Path>) -> Result<T, FsError> {
        self.map_err(io::Error::from).at(act, path)
    }
}

/// The bytes of the file at `path`.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<u8>, FsError> {
    std::fs::read(&path).at("read", path)
}

/// The bytes of the file at `path` below `root`, with symlinks that lead to places below
/// `root` only, as if it were the root directory.
pub fn read_in_root(root: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<Vec<u8>, FsError> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
    let (root, path) = (root.as_ref(), path.as_ref());
    let whole = root.join(path);
    let dir = open_dir(CWD, root).at("open", root)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve).at("open", &whole)?;
    let mut bytes = Vec::new();
    File::from(file).read_to_end(&mut bytes).at("read", whole)?;
    Ok(bytes)
}

/// The text of the file at `path`, which must be UTF-8.
pub fn read_to_string(path: impl AsRef<Path>) -> Result<String, FsError> {
    std::fs::read_to_string(&path).at("read", path)
}

/// Opens the file at `path` for reading.
pub fn open(path: impl AsRef<Path>) -> Result<File, FsError> {
    File::open(&path).at("open", path)
}

/// Makes the file at `path`, or empties it, to be written and read.
pub fn create(path: impl AsRef<Path>) -> Result<File, FsError> {
    let options = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path);
    options.at("create", path)
}

/// Opens the file at `path` for writing at its end, making it, for the owner and the group to
/// read, if it is not there.
pub fn append(path: impl AsRef<Path>) -> Result<File, FsError> {
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(0o640).open(&path);
    file.at("open", path)
}

/// Makes the directory at `path` and its parents.
pub fn create_dir_all(path: impl AsRef<Path>) -> Result<(), FsError> {
    std::fs::create_dir_all(&path).at("create directory", path)
}

/// Makes the directory at `path`, where nothing may be.
pub fn create_dir(path: impl AsRef<Path>) -> Result<(), FsError> {
    std::fs::create_dir(&path).at("create directory", path)
}

/// Makes the symlink `path`, where nothing may be, to `target`.
pub fn symlink(target: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<(), FsError> {
    std::os::unix::fs::symlink(target, &path).at("create symlink", path)
}

/// Writes a file with this mode, less the umask, where nothing may be.
pub fn write_new(path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<(), FsError> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(&path);
    let mut file = file.at("create", &path)?;
    file.write_all(bytes).at("write", path)
}

/// Makes the directory at `path`, if it is missing, with this mode whatever the umask.
/// The owner is set where the process may do that.
pub fn create_dir_owned(
    path: impl AsRef<Path>,
    mode: u32,
    uid: u32,
    gid: u32,
) -> Result<(), FsError> {
    create_dir_all(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
        .at("set the mode of", &path)?;
    match std::os::unix::fs::chown(&path, Some(uid), Some(gid)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result.at("set the owner of", &path),
    }
}

/// A new file without a name, in the system's temporary directory.
pub fn temp_file() -> io::Result<File> {
    tempfile::tempfile()
}

/// A new file without a name, in `dir`.
pub fn temp_file_in(dir: impl AsRef<Path>) -> Result<File, FsError> {
    tempfile::tempfile_in(&dir).at("create a file in", dir)
}

/// A new file in `dir`, for the owner alone, that is removed when dropped.
pub fn named_temp_file_in(dir: impl AsRef<Path>) -> Result<tempfile::NamedTempFile, FsError> {
    tempfile::NamedTempFile::new_in(&dir).at("create a file in", dir)
}

/// A new directory in `dir` that is removed when dropped.
pub fn temp_dir_in(dir: impl AsRef<Path>) -> Result<tempfile::TempDir, FsError> {
    tempfile::tempdir_in(&dir).at("create a directory in", dir)
}

/// What is in a directory, by name.
pub fn list_dir(path: impl AsRef<Path>) -> Result<Vec<PathBuf>, FsError> {
    let entries = std::fs::read_dir(&path).at("read", &path)?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.at("read", &path)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Whether something stands at `path` (a symlink counts, wherever it points).
pub fn exists(path: impl AsRef<Path>) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// Opens a directory by its name in `dir`; a symlink is refused.
pub fn open_dir(
    dir: impl std::os::fd::AsFd,
    name: impl rustix::path::Arg,
) -> rustix::io::Result<std::os::fd::OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// The absolute path of what `path` names, symlinks followed.
pub fn canonicalize(path: impl AsRef<Path>) -> Result<PathBuf, FsError> {
    std::fs::canonicalize(&path).at("find", path)
}

/// `path` from the root, which need not exist.
pub fn absolute(path: impl AsRef<Path>) -> Result<PathBuf, FsError> {
    std::path::absolute(&path).at("find", path)
}

/// Size in bytes of the file at `path`.
pub fn size(path: impl AsRef<Path>) -> Result<u64, FsError> {
    Ok(std::fs::metadata(&path).at("look at", path)?.len())
}

/// Whether both paths name one file of one file system.
pub fn same_file(a: impl AsRef<Path>, b: impl AsRef<Path>) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// Opens what stands at `path` for writing if it is neither a regular file nor a directory: a
/// pipe, a device, `/dev/stdout`. Such things are written to, never replaced. Symlinks are followed.
pub fn open_special(path: impl AsRef<Path>) -> Result<Option<File>, FsError> {
    match std::fs::metadata(&path) {
        Ok(meta) if meta.is_file() || meta.is_dir() => Ok(None),
        Ok(_) => OpenOptions::new()
            .write(true)
            .open(&path)
            .at("open", path)
            .map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("look at", path),
    }
}

/// As [`write_atomic`] for files; what is none, as `/dev/stdout`, is written to. A symlink to a
/// file stays, the file is replaced.
pub fn write_to(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), FsError> {
    match open_special(&path)? {
        Some(mut file) => file.write_all(bytes).at("write", path),
        None => write_atomic(behind_link(&path)?, bytes),
    }
}

/// The file that a symlink at `path` names, if one stands there; else `path`.
pub fn behind_link(path: impl AsRef<Path>) -> Result<PathBuf, FsError> {
    match is_symlink(&path) && path.as_ref().exists() {
        true => canonicalize(path),
        false => Ok(path.as_ref().to_owned()),
    }
}

/// Whether a symlink stands at `path`.
pub fn is_symlink(path: impl AsRef<Path>) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink())
}

/// Whether a socket is at `path`, symlinks followed.
pub fn is_socket(path: impl AsRef<Path>) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    std::fs::metadata(path).is_ok_and(|data| data.file_type().is_socket())
}

/// Removes the file at `path`; that it is not there is no error.
pub fn remove_file(path: impl AsRef<Path>) -> Result<(), FsError> {
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", path),
        _ => Ok(()),
    }
}

/// Removes the directory tree at `path`, also where directories in it deny writing;
/// that it is not there is no error.
pub fn remove_dir_all(path: impl AsRef<Path>) -> Result<(), FsError> {
    let path = path.as_ref();
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(path);
            std::fs::remove_dir_all(path).at("remove directory", path)
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).at("remove directory", path)
        }
        _ => Ok(()),
    }
}

/// Gives the owner all rights on every directory below `path`, as far as it can.
fn make_writable(path: &Path) {
    // Failures show in the removal that follows.
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700));
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

/// The names in the directory at `path`, in no order; none if it is not there.
pub fn names(path: impl AsRef<Path>) -> Result<Vec<std::ffi::OsString>, FsError> {
    let entries = match std::fs::read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at("list", &path)?,
    };
    entries
        .map(|entry| Ok(entry.at("list", &path)?.file_name()))
        .collect()
}

/// When the file at `path` was changed last.
pub fn modified(path: impl AsRef<Path>) -> Result<std::time::SystemTime, FsError> {
    let time = std::fs::metadata(&path).and_then(|meta| meta.modified());
    time.at("look at", path)
}

/// Sets the time of the last change of the file at `path` to now.
pub fn touch(path: impl AsRef<Path>) -> Result<(), FsError> {
    let now = std::time::SystemTime::now();
    let touched = File::options().append(true).open(&path);
    touched
        .and_then(|file| file.set_modified(now))
        .at("touch", path)
}

/// Bytes of all files below the directory at `path`; symlinks are not followed.
pub fn tree_size(path: impl AsRef<Path>) -> Result<u64, FsError> {
    let mut bytes = 0;
    let mut open = vec![path.as_ref().to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).at("list", &dir)? {
            let entry = entry.at("list", &dir)?;
            let meta = entry.metadata().at("look at", entry.path())?;
            match meta.is_dir() {
                true => open.push(entry.path()),
                false => bytes += meta.len(),
            }
        }
    }
    Ok(bytes)
}

/// Moves `from` over `to` within one file system.
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), FsError> {
    std::fs::rename(from, &to).at("rename to", to)
}

/// Hard-links `from` to `to`, or copies it where they lie on different file systems
/// or the file system refuses links. `to` must not exist.
pub fn link_or_copy(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), FsError> {
    if std::fs::hard_link(&from, &to).is_ok() {
        return Ok(());
    }
    let mut source = open(&from)?;
    let mut target = AtomicFile::create(&to)?;
    io::copy(&mut source, &mut target).at("copy to", &to)?;
    target.commit()
}

/// Writes `bytes` to `path` so that readers see the old file or the new one, whole.
/// The parent directory must exist.
pub fn write_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), FsError> {
    let mut file = AtomicFile::create(&path)?;
    file.write_all(bytes).at("write", &path)?;
    file.commit()
}

/// Writes `bytes` to a new file that only its owner may read. A file that is there is an error.
pub fn write_new_private(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), FsError> {
    let mut options = std::fs::OpenOptions::new();
    let options = options.write(true).create_new(true);
    let options = std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    let mut file = options.open(&path).at("create", &path)?;
    file.write_all(bytes).at("write", &path)
}

/// A file under construction beside its destination; dropped without
/// [`commit`](Self::commit), it is removed.
#[derive(Debug)]
pub struct AtomicFile {
    temp: tempfile::NamedTempFile,
    dest: PathBuf,
}

impl AtomicFile {
    /// Starts a file that will stand at `dest`, mode 0644 less the umask.
    pub fn create(dest: impl AsRef<Path>) -> Result<Self, FsError> {
        let dest = dest.as_ref().to_owned();
        let dir = match dest.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let temp = tempfile::Builder::new()
            .prefix(".tmp-")
            .permissions(std::fs::Permissions::from_mode(0o644))
            .tempfile_in(dir)
            .at("create a file in", dir)?;
        Ok(Self { temp, dest })
    }

    /// Moves the file to its destination, replacing what stands there.
    pub fn commit(self) -> Result<(), FsError> {
        // The data reach the disk before the name does: after a crash of the machine
        // no name stands for missing bytes.
        self.temp.as_file().sync_data().at("sync", &self.dest)?;
        self.commit_unsynced()
    }

    /// The same for a file whose readers check its bytes: after a crash of the machine they
    /// may be others.
    pub fn commit_unsynced(self) -> Result<(), FsError> {
        self.temp
            .persist(&self.dest)
            .map_err(|e| e.error)
            .at("rename to", &self.dest)?;
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.temp.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temp.flush()
    }
}

impl Read for AtomicFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.temp.read(buf)
    }
}

/// An advisory lock on a file (`flock`), held until dropped or the process dies.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Waits for a shared lock on `path`, which is created if needed.
    pub fn shared(path: impl AsRef<Path>) -> Result<Self, FsError> {
        Self::lock(path.as_ref(), rustix::fs::FlockOperation::LockShared)
    }

    /// Waits for the exclusive lock on `path`, which is created if needed.
    pub fn exclusive(path: impl AsRef<Path>) -> Result<Self, FsError> {
        Self::lock(path.as_ref(), rustix::fs::FlockOperation::LockExclusive)
    }

    /// A shared lock on `path` if nobody has the exclusive one now.
    pub fn try_shared(path: impl AsRef<Path>) -> Result<Option<Self>, FsError> {
        Self::try_lock(
            path.as_ref(),
            rustix::fs::FlockOperation::NonBlockingLockShared,
        )
    }

    /// The exclusive lock on `path` if it is free now.
    pub fn try_exclusive(path: impl AsRef<Path>) -> Result<Option<Self>, FsError> {
        Self::try_lock(
            path.as_ref(),
            rustix::fs::FlockOperation::NonBlockingLockExclusive,
        )
    }

    fn try_lock(
        path: &Path,
        operation: rustix::fs::FlockOperation,
    ) -> Result<Option<Self>, FsError> {
        match Self::lock(path, operation) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.source.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn lock(path: &Path, operation: rustix::fs::FlockOperation) -> Result<Self, FsError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)
            .at("open lock", path)?;
        loop {
            match rustix::fs::flock(&file, operation) {
                Err(rustix::io::Errno::INTR) => {}
                result => {
                    result.at("lock", path)?;
                    return Ok(Self { _file: file });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uncommitted_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        write_atomic(&path, b"whole").unwrap();
        assert_eq!(read(&path).unwrap(), b"whole");
    }

    #[test]
    fn what_is_no_file_is_written_to_and_stays() {
        use std::os::unix::fs::FileTypeExt as _;

        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        write_to(path("file"), b"old").unwrap();
        assert!(open_special(path("file")).unwrap().is_none());
        assert!(open_special(path("none")).unwrap().is_none());
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        write_to(path("link"), b"new").unwrap();
        assert!(is_symlink(path("link")));
        assert_eq!(read(path("file")).unwrap(), b"new");
        std::os::unix::fs::symlink("/dev/null", path("null")).unwrap();
        write_to(path("null"), b"gone").unwrap();
        assert!(is_symlink(path("null")));
        let null = std::fs::metadata("/dev/null").unwrap();
        assert!(null.file_type().is_char_device());
    }

    #[test]
    fn errors_name_the_act_and_the_path() {
        let error = read("/nonexistent/x").unwrap_err();
        assert_eq!(error.to_string(), "can't read `/nonexistent/x`");
        assert!(error.is_not_found());
    }

    #[test]
    fn the_exclusive_lock_is_exclusive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::shared(&path).unwrap();
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        drop(held);
        assert!(FileLock::try_exclusive(&path).unwrap().is_some());
    }
}
