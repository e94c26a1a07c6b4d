//! Real steps in the sandbox: what the store makes of them is the same for root and for
//! an unprivileged user, who reaches the files through helpers in a user namespace.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use memobuild_ci::{
    graph::NetworkMode,
    oci::layer::{
        Compression, DiffId, Entry, EntryKind, LayerBuilder, LayerIndex, LayerOptions, LayerPath,
        Tree,
    },
    sandbox::{Exit, ProcessExtras, ProcessSpec, RootFs, Sandbox, probe},
    snapshot::{Access, DiffOptions, Snapshots},
    userns::Program,
};

const BUSYBOX: &str = "/bin/busybox";
const MTIME: i64 = 1_700_000_000;

/// What the step of these tests does: everything that differs between the two ways of
/// keeping layers, and between ids in and outside of a namespace.
const SCRIPT: &str = "set -e
    echo new > new; chown 5:7 new; chmod 4750 new
    chown 65000:65000 data/kept
    rm data/gone
    rm -r replaced; mkdir replaced; echo x > replaced/x
    mv moved data/moved
    ln data/same linked
    touch -c data/same
    : >> untouched
    mkfifo pipe; ln -s new symlink
    mkdir -p secret/deep; chmod 000 secret/deep; chown -R 1000:1000 secret
    chmod 1777 data
    mkdir /var; mkdir -p /var/log/apt; date > /var/log/apt/history.log";

struct Layer {
    diff_id: DiffId,
    tar: Vec<u8>,
    index: Arc<LayerIndex>,
}

impl Layer {
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

    /// Busybox, and something for the step to change.
    fn base() -> Self {
        let busybox = fs::read(BUSYBOX).unwrap();
        let mut entries = BTreeMap::new();
        let mut add = |path: &str, kind, mode, content: &[u8]| {
            let entry = Entry {
                path: LayerPath::new(path).unwrap(),
                kind,
                mode,
                uid: 0,
                gid: 0,
                mtime: MTIME - 10,
                xattrs: BTreeMap::new(),
            };
            entries.insert(entry.path.clone(), (entry, content.to_vec()));
        };
        for path in [
            "bin",
            "data",
            "replaced",
            "replaced/old",
            "proc",
            "sys",
            "dev",
            "etc",
        ] {
            add(path, EntryKind::Directory, 0o755, b"");
        }
        for applet in [
            "sh", "chown", "chmod", "rm", "mkdir", "mv", "ln", "touch", "mkfifo", "date", "find",
            "stat", "sort", "cat",
        ] {
            let target = PathBuf::from("busybox");
            add(
                &format!("bin/{applet}"),
                EntryKind::Symlink { target },
                0o777,
                b"",
            );
        }
        let size = busybox.len() as u64;
        add("bin/busybox", EntryKind::Regular { size }, 0o755, &busybox);
        for path in ["data/kept", "data/gone", "data/same", "moved", "untouched"] {
            let size = path.len() as u64;
            add(path, EntryKind::Regular { size }, 0o644, path.as_bytes());
        }
        Self::build(|builder| {
            for (entry, content) in entries.values() {
                builder
                    .append(entry, Some(&mut content.as_slice()))
                    .unwrap();
            }
        })
    }

    fn unpack(&self, store: &Snapshots) {
        store
            .unpack(&self.diff_id, &mut self.tar.as_slice(), &mut |_| {})
            .unwrap();
    }

    fn tree(layers: &[&Self]) -> Tree {
        Tree::new(layers.iter().map(|layer| layer.index.clone()).collect())
    }
}

/// The sandbox of this host; none, with a message, if it allows none.
fn sandbox() -> Option<Sandbox> {
    let missing = |what: &str| {
        assert!(std::env::var_os("CI").is_none(), "{what}, and this is CI");
        println!("skipped: {what}");
        None
    };
    if !Path::new(BUSYBOX).exists() {
        return missing("no /bin/busybox (package busybox-static)");
    }
    let program = Program::copy_of(env!("CARGO_BIN_EXE_memobuild-ci")).unwrap();
    match probe(&program).tier {
        Some(tier) => Some(Sandbox::new(tier, program).unwrap()),
        None => missing("this host allows no sandbox"),
    }
}

fn access(sandbox: &Sandbox) -> Access {
    match sandbox.userns() {
        Some(userns) => Access::UserNamespace(Arc::new(userns.clone())),
        None => Access::Root,
    }
}

/// Runs `script` on the layers; gives what it printed and the layer it made.
fn step(sandbox: &Sandbox, store: &Snapshots, chain: &[&Layer], script: &str) -> (String, Layer) {
    let lower = Layer::tree(chain);
    let ids: Vec<_> = chain.iter().map(|layer| layer.diff_id).collect();
    let work = store.work_dir(&lower).unwrap();
    let spec = ProcessSpec {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("PATH".to_owned(), "/bin".to_owned())],
        cwd: "/".to_owned(),
        uid: 0,
        gid: 0,
        groups: vec![],
        hostname: "step".to_owned(),
        network: NetworkMode::None,
        rootfs: RootFs {
            lowers: store.lower_dirs(&ids).unwrap(),
            upper: work.upper.clone(),
            work: work.work.clone(),
        },
        mounts: vec![],
        hosts: vec![],
        extras: ProcessExtras::default(),
    };
    let mut output = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let finished = runtime
        .block_on(sandbox.run(
            &spec,
            &mut |_, bytes| output.extend_from_slice(bytes),
            std::future::pending(),
            None,
        ))
        .unwrap();
    let output = String::from_utf8(output).unwrap();
    assert_eq!(finished.exit, Exit::Code(0), "{output}");
    let options = DiffOptions {
        mtime: MTIME,
        normalise: true,
        stubs: finished.stubs,
    };
    let layer = Layer::build(|builder| {
        store
            .diff(&work, &lower, &options, &mut |entry, content| {
                builder.append(entry, content)
            })
            .unwrap();
    });
    store.commit(work, &layer.diff_id).unwrap();
    (output, layer)
}

#[test]
fn a_step_gives_the_same_layer_to_root_and_user() {
    let Some(sandbox) = sandbox() else { return };
    let dir = tempfile::tempdir().unwrap();
    let store = Snapshots::open(&dir.path().join("store"), access(&sandbox)).unwrap();
    let base = Layer::base();
    base.unpack(&store);
    let (_, layer) = step(&sandbox, &store, &[&base], SCRIPT);
    let text: Vec<String> = layer
        .index
        .entries
        .iter()
        .map(|row| {
            let entry = &row.entry;
            assert_eq!(entry.mtime, MTIME, "{}", entry.path);
            format!(
                "{} {:o} {}:{} {:?}",
                entry.path, entry.mode, entry.uid, entry.gid, entry.kind
            )
        })
        .collect();
    assert_eq!(
        text,
        [
            "/data 1777 0:0 Directory",
            "/data/gone 0 0:0 Whiteout",
            "/data/kept 644 65000:65000 Regular { size: 9 }",
            "/data/moved 644 0:0 Regular { size: 5 }",
            "/data/same 644 0:0 Regular { size: 9 }",
            "/linked 644 0:0 Hardlink { target: \"/data/same\" }",
            "/moved 0 0:0 Whiteout",
            "/new 4750 5:7 Regular { size: 4 }",
            "/pipe 644 0:0 Fifo",
            "/replaced 755 0:0 Directory",
            "/replaced 0 0:0 Opaque",
            "/replaced/x 644 0:0 Regular { size: 2 }",
            "/secret 755 1000:1000 Directory",
            "/secret/deep 0 1000:1000 Directory",
            "/symlink 777 0:0 Symlink { target: \"new\" }",
            "/var 755 0:0 Directory",
            "/var/log 755 0:0 Directory",
            "/var/log/apt 755 0:0 Directory",
        ]
    );

    // Both forms of the layer look the same from inside, and nothing changes by looking.
    let look = "find / -xdev -path /bin -prune -o -print | sort |
        while read -r path; do stat -c '%n %F %a %u:%g %s %Y' \"$path\"; done; cat replaced/*";
    let (committed, empty) = step(&sandbox, &store, &[&base, &layer], look);
    assert!(empty.index.entries.is_empty(), "{:?}", empty.index.entries);
    let fresh = Snapshots::open(&dir.path().join("fresh"), access(&sandbox)).unwrap();
    base.unpack(&fresh);
    layer.unpack(&fresh);
    let (unpacked, _) = step(&sandbox, &fresh, &[&base, &layer], look);
    let stable = |text: &str| -> Vec<String> {
        // The sandbox makes mounts of its own there, and mount points in `/etc`.
        let own = ["/ ", "/dev", "/etc", "/proc", "/sys"];
        text.lines()
            .filter(|line| !own.iter().any(|path| line.starts_with(path)))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(stable(&committed), stable(&unpacked));
    assert!(
        committed.contains("/data/kept regular file 644 65000:65000 9"),
        "{committed}"
    );

    for snapshot in store.list().unwrap() {
        store.remove(&snapshot.id).unwrap();
    }
    assert!(store.list().unwrap().is_empty());
    fresh
        .list()
        .unwrap()
        .iter()
        .for_each(|s| fresh.remove(&s.id).unwrap());
    for store in ["store", "fresh"] {
        for flavour in fs::read_dir(dir.path().join(store)).unwrap() {
            let work = flavour.unwrap().path().join("work");
            assert_eq!(fs::read_dir(work).unwrap().count(), 0, "left-overs");
        }
    }
}

#[test]
fn errors_of_a_helper_come_out() {
    let Some(sandbox) = sandbox() else { return };
    let dir = tempfile::tempdir().unwrap();
    let store = Snapshots::open(dir.path(), access(&sandbox)).unwrap();
    let mut tar = Layer::base().tar;
    tar.truncate(100_000);
    let error = store
        .unpack(&Layer::base().diff_id, &mut tar.as_slice(), &mut |_| {})
        .unwrap_err();
    let text = format!("{error} {:?}", std::error::Error::source(&error));
    assert!(text.contains("tar") || text.contains("write"), "{text}");
    assert!(store.list().unwrap().is_empty());
}

/// Runs the tests above again as an unprivileged user, with id ranges that only their mount
/// namespace shows.
#[test]
fn all_of_it_works_for_an_unprivileged_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let have = |path: &str| Path::new(path).exists();
    if !have("/usr/bin/newuidmap") || !have("/usr/bin/setpriv") {
        println!("skipped: no newuidmap or setpriv");
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let ranges = dir.path().join("ranges");
    fs::write(&ranges, "65534:3000000000:65536\n").unwrap();
    let script = "mount --bind \"$1\" /etc/subuid; mount --bind \"$1\" /etc/subgid; shift
        exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all \"$@\"";
    let output = Command::new("/usr/bin/unshare")
        .args([
            "--mount",
            "--propagation=private",
            "/bin/sh",
            "-ec",
            script,
            "sh",
        ])
        .arg(&ranges)
        .arg(std::env::current_exe().unwrap())
        .args(["snapshot::", "--nocapture", "--test-threads=2"])
        .env("TMPDIR", dir.path())
        .current_dir("/")
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
}
