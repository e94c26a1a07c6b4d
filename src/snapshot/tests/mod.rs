//! The snapshot store against the kernel's overlayfs. Most tests need root; each runs in
//! a mount namespace of its own, on a tmpfs.

mod hostile;
mod property;
mod store;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::Read,
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::{
    Access, DiffOptions, Snapshots, WorkDir,
    overlay::{Attributes, Flavour},
};
use crate::{
    digest::Blake3Digest,
    oci::layer::{
        Compression, DiffId, Entry, EntryKind, LayerBuilder, LayerIndex, LayerOptions, LayerPath,
        Tree,
    },
};

/// The time that all layers of the tests have.
const MTIME: i64 = 1_600_000_000;

/// How many tests have been skipped in this process.
static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Runs `test` as root on an empty tmpfs in a mount namespace of its own; without root
/// it is skipped, which is a failure in CI.
fn as_root(test: impl FnOnce(&Path) + Send) {
    if !rustix::process::geteuid().is_root() {
        let ci = std::env::var_os("CI").is_some();
        assert!(!ci, "this test needs root");
        let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
        println!("skipped: needs root ({count} so far)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // The thread alone gets the namespace; it goes when the thread ends.
            #[expect(deprecated, reason = "CLONE_NEWNS shares no file descriptors")]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            rustix::mount::mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), None).unwrap();
            test(dir.path());
            let detach = rustix::mount::UnmountFlags::DETACH;
            rustix::mount::unmount(dir.path(), detach).unwrap();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// An overlay mount; unmounted when dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::empty());
        assert!(unmounted.is_ok() || std::thread::panicking());
    }
}

/// Mounts `lowers` (lowest first) at `target`, writable if there is a work directory.
fn mount(target: &Path, lowers: &[PathBuf], work: Option<&WorkDir>) -> Mounted {
    std::fs::create_dir_all(target).unwrap();
    if work.is_none() && lowers.len() == 1 {
        rustix::mount::mount(&lowers[0], target, "", MountFlags::BIND, None).unwrap();
        return Mounted(target.to_owned());
    }
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for lower in lowers.iter().rev() {
        fsconfig_set_string(&fs, "lowerdir+", lower).unwrap();
    }
    if let Some(work) = work {
        fsconfig_set_string(&fs, "upperdir", &work.upper).unwrap();
        fsconfig_set_string(&fs, "workdir", &work.work).unwrap();
    }
    for option in ["index", "redirect_dir", "metacopy"] {
        fsconfig_set_string(&fs, option, "off").unwrap();
    }
    fsconfig_create(&fs).unwrap();
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let mount = fsmount(&fs, flags, MountAttrFlags::empty()).unwrap();
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&mount, "", rustix::fs::CWD, target, flags).unwrap();
    Mounted(target.to_owned())
}

/// A layer as it comes out of a diff.
struct Layer {
    diff_id: DiffId,
    tar: Vec<u8>,
    index: Arc<LayerIndex>,
}

impl Layer {
    /// The layer with these entries.
    fn build(fill: impl FnOnce(&mut LayerBuilder<Vec<u8>>)) -> Self {
        let options = LayerOptions {
            compression: Compression::None,
            level: None,
        };
        let mut builder = LayerBuilder::new(Vec::new(), options);
        fill(&mut builder);
        let (tar, built) = builder.finish().unwrap();
        Self {
            diff_id: built.diff_id,
            tar,
            index: Arc::new(built.index),
        }
    }

    /// What changed in `work` over `lower`.
    fn of_step(snapshots: &Snapshots, work: &WorkDir, lower: &Tree) -> Self {
        Self::build(|builder| {
            snapshots
                .diff(work, lower, &options(), &mut |entry, content| {
                    builder.append(entry, content)
                })
                .unwrap();
        })
    }

    fn unpack(&self, snapshots: &Snapshots) {
        snapshots
            .unpack(&self.diff_id, &mut self.tar.as_slice(), &mut |_| {})
            .unwrap();
    }

    /// Paths and kinds, in order.
    fn summary(&self) -> Vec<String> {
        self.index
            .entries
            .iter()
            .map(|row| format!("{} {:?}", row.entry.path, row.entry.kind))
            .collect()
    }
}

fn options() -> DiffOptions {
    DiffOptions {
        mtime: MTIME,
        normalise: true,
        stubs: Vec::new(),
    }
}

fn snapshots(dir: &Path) -> Snapshots {
    Snapshots::open(dir, Access::Root).unwrap()
}

/// One step on `chain`: runs `act` on the mounted root file system, takes the
/// difference, and makes the upper directory the unpacked form.
fn step(snapshots: &Snapshots, dir: &Path, chain: &[&Layer], act: impl FnOnce(&Path)) -> Layer {
    let ids: Vec<_> = chain.iter().map(|layer| layer.diff_id).collect();
    let lower = Tree::new(chain.iter().map(|layer| layer.index.clone()).collect());
    let work = snapshots.work_dir(&lower).unwrap();
    let lowers = snapshots.lower_dirs(&ids).unwrap();
    let mounted = mount(&dir.join("mnt"), &lowers, Some(&work));
    act(&mounted.0);
    drop(mounted);
    let layer = Layer::of_step(snapshots, &work, &lower);
    snapshots.commit(work, &layer.diff_id).unwrap();
    layer
}

/// Everything about one file that a layer keeps, as text.
type Listing = BTreeMap<LayerPath, String>;

/// Lists a directory. `exact` adds times, hard links and the opaque marks: what two
/// overlay forms must agree on besides.
fn list(root: &Path, exact: bool) -> Listing {
    let mut out = Listing::new();
    let mut links = BTreeMap::new();
    list_into(root, &LayerPath::ROOT, exact, &mut links, &mut out);
    out
}

fn list_into(
    root: &Path,
    path: &LayerPath,
    exact: bool,
    links: &mut BTreeMap<u64, LayerPath>,
    out: &mut Listing,
) {
    let host = root.join(path.as_path());
    let metadata = std::fs::symlink_metadata(&host).unwrap();
    let kind = metadata.file_type();
    if kind.is_socket() {
        return;
    }
    let whiteout = kind.is_char_device() && metadata.rdev() == 0;
    let mut text = format!(
        "{:o} {}:{} rdev {}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.rdev()
    );
    if kind.is_file() {
        let (digest, size) = Blake3Digest::of_reader(File::open(&host).unwrap()).unwrap();
        text += &format!(" {size} {}", digest.short());
    } else if kind.is_symlink() {
        text += &format!(" -> {}", std::fs::read_link(&host).unwrap().display());
    }
    let parent = File::open(if path.is_root() {
        &host
    } else {
        host.parent().unwrap()
    })
    .unwrap();
    let name = path.file_name().unwrap_or(OsStr::new("."));
    let attributes = Attributes::read(parent.as_fd(), name, Flavour::Root).unwrap();
    text += &format!(" {:?}", attributes.kept);
    if exact && !whiteout {
        text += &format!(" {}.{}", metadata.mtime(), metadata.mtime_nsec());
        text += &format!(" {:?}", attributes.overlay);
        if kind.is_file() && metadata.nlink() > 1 {
            let first = links.entry(metadata.ino()).or_insert_with(|| path.clone());
            text += &format!(" = {first}");
        }
    }
    out.insert(path.clone(), text);
    if kind.is_dir() {
        let names = std::fs::read_dir(&host).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            let path = path.join(&name);
            list_into(root, &path, exact, links, out);
        }
    }
}

/// Fails with the lines that differ.
#[track_caller]
fn assert_same(what: &str, left: &Listing, right: &Listing) {
    let lines = |a: &Listing, b: &Listing| {
        a.iter()
            .filter(|(path, text)| b.get(path) != Some(text))
            .map(|(path, text)| format!("{path} {text}\n"))
            .collect::<String>()
    };
    assert!(
        left == right,
        "{what}:\n--- only left\n{}--- only right\n{}",
        lines(left, right),
        lines(right, left)
    );
}

/// An entry with usual attributes.
fn entry(path: &str, kind: EntryKind) -> Entry {
    let directory = kind == EntryKind::Directory;
    Entry {
        path: LayerPath::new(path).unwrap(),
        kind,
        mode: if directory { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime: MTIME,
        xattrs: BTreeMap::new(),
    }
}

/// Appends a regular file.
fn file(builder: &mut LayerBuilder<Vec<u8>>, path: &str, content: &str) {
    let size = content.len() as u64;
    let mut content: &[u8] = content.as_bytes();
    let content: &mut dyn Read = &mut content;
    builder
        .append(&entry(path, EntryKind::Regular { size }), Some(content))
        .unwrap();
}
