//! A tiny image of busybox and ways to run something in it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use memobuild_ci::{
    event::Stream,
    graph::NetworkMode,
    sandbox::{
        Exit, Finished, ProcessExtras, ProcessSpec, RootFs, Sandbox, SandboxError, Tier, probe,
    },
    userns::Program,
};

const BUSYBOX: &str = "/bin/busybox";

pub(super) fn program() -> Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM
        .get_or_init(|| Program::copy_of(env!("CARGO_BIN_EXE_memobuild-ci")).unwrap())
        .clone()
}

/// The sandbox of this host; none, with a message, if it allows none.
pub(super) fn sandbox() -> Option<Sandbox> {
    static TIER: OnceLock<Option<Tier>> = OnceLock::new();
    let missing = |what: &str| {
        assert!(
            std::env::var_os("CI").is_none() || !rustix::process::geteuid().is_root(),
            "{what}, and this is CI"
        );
        eprintln!("skipped: {what}");
    };
    if !Path::new(BUSYBOX).exists() {
        missing("no /bin/busybox (package busybox-static)");
        return None;
    }
    let tier = *TIER.get_or_init(|| {
        let report = probe(&program());
        if report.tier.is_none() {
            eprintln!("{report:#?}");
        }
        report.tier
    });
    let Some(tier) = tier else {
        missing("this host allows no sandbox");
        return None;
    };
    Some(Sandbox::new(tier, program()).unwrap())
}

pub(super) struct Image {
    pub(super) dir: tempfile::TempDir,
}

impl Image {
    /// A root with busybox and no mount points.
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "lower/bin",
            "lower/etc",
            "lower/tmp",
            "lower/root",
            "upper",
            "work",
        ] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let image = Self { dir };
        fs::copy(BUSYBOX, image.lower().join("bin/busybox")).unwrap();
        for applet in [
            "sh", "cat", "ls", "id", "true", "env", "sleep", "mount", "mknod", "dd", "stat", "ps",
            "pwd", "unshare", "kill", "touch", "rm", "mkdir", "head", "hostname", "ip", "nc",
            "grep", "yes", "tty", "chown", "su", "wc", "chmod", "setsid", "readlink", "chroot",
            "mv", "df",
        ] {
            symlink("busybox", image.lower().join("bin").join(applet)).unwrap();
        }
        let mode = |path: &str, mode| {
            fs::set_permissions(image.lower().join(path), fs::Permissions::from_mode(mode))
                .unwrap();
        };
        mode("", 0o755);
        mode("tmp", 0o1777);
        mode("root", 0o700);
        fs::write(
            image.lower().join("etc/passwd"),
            "root::0:0::/root:/bin/sh\nu:x:1000:1000::/:/bin/sh\n",
        )
        .unwrap();
        fs::write(image.lower().join("etc/group"), "root:x:0:\nu:x:1000:\n").unwrap();
        image
    }

    pub(super) fn lower(&self) -> PathBuf {
        self.dir.path().join("lower")
    }

    pub(super) fn upper(&self) -> PathBuf {
        self.dir.path().join("upper")
    }

    pub(super) fn spec(&self, args: &[&str]) -> ProcessSpec {
        ProcessSpec {
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            cwd: "/".to_owned(),
            uid: 0,
            gid: 0,
            groups: vec![],
            hostname: "buildkitsandbox".to_owned(),
            network: NetworkMode::Host,
            rootfs: RootFs {
                lowers: vec![self.lower()],
                upper: self.upper(),
                work: self.dir.path().join("work"),
            },
            mounts: vec![],
            hosts: vec![],
            extras: ProcessExtras::default(),
        }
    }

    pub(super) fn shell(&self, script: &str) -> ProcessSpec {
        self.spec(&["/bin/sh", "-c", script])
    }
}

pub(super) struct Ran {
    pub(super) finished: Finished,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Ran {
    #[track_caller]
    pub(super) fn ok(self) -> String {
        assert_eq!(self.finished.exit, Exit::Code(0), "stderr: {}", self.stderr);
        self.stdout
    }
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// The engine runs it on several threads.
fn sendable<T: Send>(future: T) -> T {
    future
}

pub(super) fn try_run(sandbox: &Sandbox, spec: &ProcessSpec) -> Result<Ran, SandboxError> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let finished = block_on(sendable(sandbox.run(
        spec,
        &mut |stream, bytes| match stream {
            Stream::Stdout => stdout.extend_from_slice(bytes),
            Stream::Stderr => stderr.extend_from_slice(bytes),
        },
        std::future::pending(),
        Some(Duration::from_secs(60)),
    )))?;
    Ok(Ran {
        finished,
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    })
}

#[track_caller]
pub(super) fn run(sandbox: &Sandbox, spec: &ProcessSpec) -> Ran {
    try_run(sandbox, spec).unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e)))
}

/// Runs a shell script in a new image and gives its standard output; it must succeed.
#[track_caller]
pub(super) fn script(sandbox: &Sandbox, text: &str) -> String {
    let image = Image::new();
    run(sandbox, &image.shell(text)).ok()
}
