//! A directory to build in: a context, a cache, a registry with tiny base images.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use memobuild_ci::oci::Platform;
use serde_json::Value;

use crate::registry_server::{Access, Family, Image, RegistryServer};

const BUSYBOX: &str = "/bin/busybox";

/// Programs of busybox that the images have links for.
const APPLETS: &[&str] = &[
    "sh", "cat", "cp", "date", "echo", "ls", "mkdir", "mv", "od", "env", "rm", "sleep", "sort",
    "stat", "test", "touch", "true", "false", "id", "ln", "chmod", "chown", "head", "dd",
];

/// Whether RUN can be tested here; says why not.
pub(crate) fn can_run() -> bool {
    let missing = match (
        rustix::process::geteuid().is_root(),
        Path::new(BUSYBOX).exists(),
    ) {
        (true, true) => return true,
        (false, _) => "RUN in these tests needs root",
        (true, false) => "no /bin/busybox (package busybox-static)",
    };
    assert!(
        std::env::var_os("CI").is_none() || !rustix::process::geteuid().is_root(),
        "{missing}, and this is CI"
    );
    eprintln!("skipped: {missing}");
    false
}

/// A directory with a context in `ctx`, a cache in `cache`, and the registry.
pub(crate) struct Project {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) registry: RegistryServer,
    // Dropped last: the registry's task lives in it.
    _runtime: tokio::runtime::Runtime,
}

impl Project {
    /// A project whose registry has `base`, an image with a few files.
    pub(crate) fn new() -> Self {
        Self::with(Access::Open)
    }

    pub(crate) fn with(access: Access) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let registry = runtime.block_on(RegistryServer::start(access));
        let project = Self {
            dir: tempfile::tempdir().unwrap(),
            registry,
            _runtime: runtime,
        };
        fs::create_dir(project.path("ctx")).unwrap();
        for platform in [Platform::host().to_string(), "linux/arm64".to_owned()] {
            let tag = platform.replace('/', "-");
            project.registry.push("base", &tag, &base_image(&platform));
        }
        let images = ["linux/amd64", "linux/arm64"].map(base_image);
        project.registry.push_index("base", "latest", &images);
        project
    }

    /// A project whose registry has `busybox` too; none if RUN can't be tested.
    pub(crate) fn runnable() -> Option<Self> {
        if !can_run() {
            return None;
        }
        let project = Self::new();
        let image = busybox_image();
        project.registry.push("busybox", "latest", &image);
        Some(project)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, with its directories. `@` in a Dockerfile's text is the registry.
    pub(crate) fn write(&self, name: &str, text: &str) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = text.replace("@/", &format!("{}/", self.registry.host()));
        fs::write(path, text).unwrap();
        self
    }

    /// Writes the Dockerfile of the context.
    pub(crate) fn dockerfile(&self, text: &str) -> &Self {
        self.write("ctx/Dockerfile", text)
    }

    /// The program, ready to `build`, with nothing of the tester's environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.program();
        command.args(["build", "--progress=json"]).args(args);
        command
    }

    /// The program, with nothing of the tester's environment.
    pub(crate) fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memobuild-ci"));
        command
            .env_clear()
            .env("HOME", self.path("home"))
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("MEMOBUILD_CACHE_DIR", self.path("cache"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Builds the context to `out`, with further arguments; it must succeed.
    #[track_caller]
    pub(crate) fn build(&self, args: &[&str]) -> Built {
        let ended = self.try_build(args);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended.built(&self.path("out"))
    }

    /// Builds the context to `out`, with further arguments.
    pub(crate) fn try_build(&self, args: &[&str]) -> Ended {
        let mut all = vec!["ctx", "-o", "type=oci,dest=out,tar=false"];
        all.extend(args);
        Ended::of(self.command(&all).output().unwrap())
    }

    /// Starts a build of the context to `out` and goes on.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        let mut all = vec!["ctx", "-o", "type=oci,dest=out,tar=false"];
        all.extend(args);
        self.command(&all)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// The files of all blobs of the cache, by digest in hexadecimal.
    pub(crate) fn cached_blobs(&self) -> BTreeMap<String, PathBuf> {
        let mut blobs = BTreeMap::new();
        for dir in fs::read_dir(self.path("cache/blobs/sha256")).unwrap() {
            for file in fs::read_dir(dir.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                blobs.insert(name, path);
            }
        }
        blobs
    }
}

/// Waits until `ready` gives something.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "no {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stderr: String,
    pub(crate) events: Vec<Value>,
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        let stderr = String::from_utf8(output.stderr).unwrap();
        let events = stderr
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        Self {
            code: output.status.code().unwrap_or(-1),
            stderr,
            events,
        }
    }

    /// The last outcome of the step whose name ends so.
    #[track_caller]
    pub(crate) fn outcome(&self, step: &str) -> String {
        let finished = self.events.iter().rfind(|e| {
            e["event"] == "step-finished" && e["name"].as_str().unwrap().ends_with(step)
        });
        let Some(finished) = finished else {
            return "none".to_owned();
        };
        finished["outcome"].as_str().unwrap().to_owned()
    }

    pub(crate) fn totals(&self) -> &Value {
        let finished = |e: &&Value| e["event"] == "finished";
        &self.events.iter().rfind(finished).unwrap()["totals"]
    }

    /// How many steps were executed.
    pub(crate) fn ran(&self) -> u64 {
        self.totals()["ran"].as_u64().unwrap()
    }

    pub(crate) fn warnings(&self) -> Vec<&str> {
        let warnings = self.events.iter().filter(|e| e["event"] == "warning");
        warnings.map(|e| e["message"].as_str().unwrap()).collect()
    }

    #[track_caller]
    pub(crate) fn built(self, layout: &Path) -> Built {
        Built {
            image: OciImage::read(layout),
            ended: self,
        }
    }
}

/// A successful build and the image it wrote.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) ended: Ended,
    pub(crate) image: OciImage,
}

impl Built {
    #[track_caller]
    pub(crate) fn outcome(&self, step: &str) -> String {
        self.ended.outcome(step)
    }

    pub(crate) fn ran(&self) -> u64 {
        self.ended.ran()
    }
}

/// An image in an OCI layout.
#[derive(Debug)]
pub(crate) struct OciImage {
    pub(crate) dir: PathBuf,
    /// The descriptor in `index.json`.
    pub(crate) top: Value,
}

impl OciImage {
    #[track_caller]
    pub(crate) fn read(dir: &Path) -> Self {
        let index = json(&dir.join("index.json"));
        Self {
            dir: dir.to_owned(),
            top: index["manifests"][0].clone(),
        }
    }

    pub(crate) fn digest(&self) -> &str {
        self.top["digest"].as_str().unwrap()
    }

    pub(crate) fn blob(&self, digest: &Value) -> PathBuf {
        let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
        self.dir.join("blobs/sha256").join(hex)
    }

    pub(crate) fn manifest(&self) -> Value {
        json(&self.blob(&self.top["digest"]))
    }

    pub(crate) fn config(&self) -> Value {
        json(&self.blob(&self.manifest()["config"]["digest"]))
    }

    /// Digests of the layers in hexadecimal, lowest first.
    pub(crate) fn layers(&self) -> Vec<String> {
        let manifest = self.manifest();
        let layers = manifest["layers"].as_array().unwrap();
        layers
            .iter()
            .map(|l| l["digest"].as_str().unwrap()["sha256:".len()..].to_owned())
            .collect()
    }

    /// The regular files and directories (with a slash at the end) of all layers on top
    /// of each other; whiteouts are listed by their names.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        files_of(&self.dir, &self.manifest())
    }

    /// The content of a file.
    #[track_caller]
    pub(crate) fn file(&self, path: &str) -> String {
        let files = self.files();
        match files.get(path) {
            Some(content) => content.clone(),
            None => panic!("no {path} in {:?}", files.keys()),
        }
    }
}

/// The files of the image with this manifest.
pub(crate) fn files_of(layout: &Path, manifest: &Value) -> BTreeMap<String, String> {
    use std::io::Read as _;
    let mut files = BTreeMap::new();
    for layer in manifest["layers"].as_array().unwrap() {
        let hex = &layer["digest"].as_str().unwrap()["sha256:".len()..];
        let blob = fs::File::open(layout.join("blobs/sha256").join(hex)).unwrap();
        let media_type = layer["mediaType"].as_str().unwrap();
        let tar = memobuild_ci::oci::layer::decompress(blob, media_type).unwrap();
        for entry in tar::Archive::new(tar).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(path, String::from_utf8_lossy(&content).into_owned());
        }
    }
    files
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn base_image(platform: &str) -> Image {
    let mut tar = Tar::new();
    tar.dir("etc/");
    tar.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0::/root:/bin/sh\napp:x:10:20::/app:/bin/sh\n",
    );
    tar.file("etc/group", 0o644, b"root:x:0:\nweb:x:30:\n");
    tar.file("etc/platform", 0o644, platform.as_bytes());
    Image::new(Family::Oci, platform, &[&tar.finish()])
}

pub(crate) fn busybox_image() -> Image {
    let mut tar = Tar::new();
    tar.dir("bin/");
    tar.file("bin/busybox", 0o755, &fs::read(BUSYBOX).unwrap());
    for applet in APPLETS {
        tar.symlink(&format!("bin/{applet}"), "busybox");
    }
    tar.dir("etc/");
    tar.file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\n");
    tar.dir("tmp/");
    let platform = Platform::host().to_string();
    Image::new(Family::Oci, &platform, &[&tar.finish()])
}

/// A tar made in memory.
pub(crate) struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size as u64);
        header.set_mtime(1_600_000_000);
        header
    }

    pub(crate) fn dir(&mut self, path: &str) {
        let mut header = Self::header(tar::EntryType::Directory, 0o755, 0);
        self.0.append_data(&mut header, path, &[][..]).unwrap();
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        let mut header = Self::header(tar::EntryType::Regular, mode, content.len());
        self.0.append_data(&mut header, path, content).unwrap();
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) {
        let mut header = Self::header(tar::EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, target).unwrap();
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}
