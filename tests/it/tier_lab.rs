//! Builds in this process, with tiers in memory that count, fail and vanish.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use memobuild_ci::{
    cache::{
        Access, ActionCache, ActionResult, Blob, BlobSource, BlobStore, BoxFuture, CacheError,
        DiskStore, MemoryStore, Producer, Scope, SearchOrder, Subject, Tier, Vouching,
    },
    digest::Sha256Digest,
    dockerfile,
    engine::{
        BuildError, Engine, EngineOptions, Session,
        explain::{self, Forecast},
    },
    event::{BuildEvent, Events, Outcome, Recorder, Totals},
    graph::{BuildGraph, ImageTable, LocalContext, LowerInput, lower},
    key::CacheKey,
    oci::{
        Platform,
        layer::{LayerOptions, decompress},
    },
    redact::Redactor,
    registry::{Registry, RegistryOptions},
    ssh::Agents,
};
use tokio_util::sync::CancellationToken;

/// A tier in memory.
#[derive(Debug)]
pub(crate) struct LabTier {
    pub(crate) store: MemoryStore,
    name: String,
    /// Every act, in order: `lookup 3`, `put blob sha256:…`, `put action`, …
    acts: Mutex<Vec<String>>,
    /// Bytes of blobs read, also in ranges.
    pub(crate) read: AtomicU64,
    pub(crate) ranges: AtomicBool,
    pub(crate) fault: Mutex<Fault>,
    /// Entries put, for tests that look at them.
    entries: Mutex<Vec<ActionResult>>,
    /// Acts until [`Fault::After`] begins.
    left: AtomicUsize,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Everything fails.
    Down,
    /// Everything fails after so many acts.
    After,
    /// Writes are refused.
    Denied,
    /// What is put is not shown to others.
    Hidden,
    /// Saving blobs never ends.
    Stuck,
    /// Whatever is read has a wrong byte in it, without a word.
    WrongRanges,
    /// A blob ends after half of its bytes.
    Truncated,
}

impl LabTier {
    pub(crate) fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            store: MemoryStore::default(),
            name: name.to_owned(),
            acts: Mutex::default(),
            read: AtomicU64::new(0),
            ranges: AtomicBool::new(false),
            fault: Mutex::new(Fault::None),
            entries: Mutex::default(),
            left: AtomicUsize::new(0),
        })
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    /// Works for so many acts and is down then.
    pub(crate) fn vanish_after(&self, acts: usize) {
        self.left.store(acts, Ordering::SeqCst);
        self.set(Fault::After);
    }

    pub(crate) fn acts(&self) -> Vec<String> {
        self.acts.lock().unwrap().clone()
    }

    pub(crate) fn entries(&self) -> Vec<ActionResult> {
        self.entries.lock().unwrap().clone()
    }

    /// The layers of the entries that were put here, each once.
    pub(crate) fn layers(&self) -> Vec<Sha256Digest> {
        let entries = self.entries();
        let layers = entries.iter().filter_map(|e| e.layer.as_ref());
        let mut layers: Vec<_> = layers.map(|l| l.digest).collect();
        layers.sort();
        layers.dedup();
        layers
    }

    pub(crate) fn forget_acts(&self) {
        self.acts.lock().unwrap().clear();
        self.read.store(0, Ordering::SeqCst);
    }

    pub(crate) fn tier(self: &Arc<Self>, access: Access) -> Tier {
        Tier {
            name: self.name.clone(),
            actions: self.clone(),
            blobs: self.clone(),
            access,
        }
    }

    fn act(&self, act: String, writes: bool) -> Result<Fault, CacheError> {
        self.acts.lock().unwrap().push(act);
        let fault = *self.fault.lock().unwrap();
        let subject = || Subject::Url(self.name.clone());
        let cause = || "the test says so".into();
        let down = match fault {
            Fault::Down => true,
            Fault::After => {
                let left = self
                    .left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
                left.is_err()
            }
            _ => false,
        };
        if down {
            return Err(CacheError::Transient {
                act: "reach",
                subject: subject(),
                source: cause(),
            });
        }
        if fault == Fault::Denied && writes {
            return Err(CacheError::Denied {
                act: "write to",
                subject: subject(),
                source: cause(),
            });
        }
        Ok(fault)
    }
}

impl BlobStore for LabTier {
    fn contains<'a>(
        &'a self,
        digests: &'a [Sha256Digest],
    ) -> BoxFuture<'a, Result<Vec<bool>, CacheError>> {
        Box::pin(async move {
            self.act(format!("contains {}", digests.len()), false)?;
            self.store.contains(digests).await
        })
    }

    fn get(&self, digest: Sha256Digest) -> BoxFuture<'_, Result<Option<Blob>, CacheError>> {
        Box::pin(async move {
            let fault = self.act(format!("get {digest}"), false)?;
            let Some(blob) = self.store.get(digest).await? else {
                return Ok(None);
            };
            self.read.fetch_add(blob.size, Ordering::SeqCst);
            if fault == Fault::Truncated {
                let half = blob.size / 2;
                let reader = tokio::io::AsyncReadExt::take(blob.reader, half);
                return Ok(Some(Blob {
                    size: blob.size,
                    reader: Box::new(reader),
                }));
            }
            Ok(Some(blob))
        })
    }

    fn put(
        &self,
        digest: Sha256Digest,
        source: BlobSource,
    ) -> BoxFuture<'_, Result<(), CacheError>> {
        Box::pin(async move {
            if self.act(format!("put blob {digest}"), true)? == Fault::Stuck {
                std::future::pending::<()>().await;
            }
            BlobStore::put(&self.store, digest, source).await
        })
    }

    fn put_framed(
        &self,
        digest: Sha256Digest,
        source: BlobSource,
        ends: Arc<[u64]>,
    ) -> BoxFuture<'_, Result<(), CacheError>> {
        Box::pin(async move {
            assert!(ends.is_sorted() && !ends.is_empty());
            if self.act(format!("put framed {digest}"), true)? == Fault::Stuck {
                std::future::pending::<()>().await;
            }
            BlobStore::put(&self.store, digest, source).await
        })
    }

    fn has_ranges(&self) -> bool {
        self.ranges.load(Ordering::SeqCst)
    }

    fn read_range(
        &self,
        digest: Sha256Digest,
        range: Range<u64>,
    ) -> BoxFuture<'_, Result<Option<Bytes>, CacheError>> {
        Box::pin(async move {
            let fault = self.act(format!("range {digest}"), false)?;
            self.read
                .fetch_add(range.end - range.start, Ordering::SeqCst);
            let bytes = self.store.read_range(digest, range).await?;
            Ok(bytes.map(|bytes| match fault {
                Fault::WrongRanges => {
                    let mut wrong = bytes.to_vec();
                    let middle = wrong.len() / 2;
                    wrong[middle] ^= 1;
                    wrong.into()
                }
                _ => bytes,
            }))
        })
    }
}

impl ActionCache for LabTier {
    fn lookup<'a>(
        &'a self,
        scopes: &'a [Scope],
        keys: &'a [CacheKey],
    ) -> BoxFuture<'a, Result<Vec<Option<ActionResult>>, CacheError>> {
        Box::pin(async move {
            self.act(format!("lookup {}", keys.len()), false)?;
            self.store.lookup(scopes, keys).await
        })
    }

    fn put<'a>(&'a self, result: &'a ActionResult) -> BoxFuture<'a, Result<(), CacheError>> {
        Box::pin(async move {
            self.act("put action".to_owned(), true)?;
            // What the server insists on, every tier may.
            let there = self.store.contains(&result.blobs()).await?;
            assert!(there.iter().all(|there| *there), "an entry without blobs");
            ActionCache::put(&self.store, result).await?;
            self.entries.lock().unwrap().push(result.clone());
            Ok(())
        })
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), CacheError>> {
        Box::pin(async move {
            match self.act("flush".to_owned(), true)? {
                Fault::Hidden => Err(CacheError::Broken {
                    act: "show",
                    subject: Subject::Url(self.name.clone()),
                    source: "the test says so".into(),
                }),
                _ => Ok(()),
            }
        })
    }
}

/// A context and the caches of a runner.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
    pub(crate) tiers: Vec<Tier>,
    pub(crate) scopes: SearchOrder,
    pub(crate) vouching: Vouching,
    /// How long a build waits for what it saves.
    pub(crate) save_timeout: Duration,
    /// Bytes up to which the trees of cache mounts are saved.
    pub(crate) mount_limit: Option<u64>,
    pub(crate) wants_bytes: bool,
    runtime: tokio::runtime::Runtime,
}

/// What a build gave.
pub(crate) struct Outcomes {
    pub(crate) result: Result<(), BuildError>,
    pub(crate) layers: Vec<Sha256Digest>,
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) events: Vec<BuildEvent>,
    pub(crate) totals: Totals,
}

impl Lab {
    pub(crate) fn new(tiers: Vec<Tier>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let lab = Self {
            dir: tempfile::tempdir().unwrap(),
            tiers,
            scopes: SearchOrder::local(),
            vouching: Vouching::default(),
            save_timeout: Duration::from_secs(60),
            mount_limit: None,
            wants_bytes: true,
            runtime,
        };
        fs::create_dir(lab.path("ctx")).unwrap();
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path("ctx").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// The runner is thrown away.
    pub(crate) fn wipe(&self) {
        fs::remove_dir_all(self.path("cache")).unwrap();
    }

    pub(crate) fn store(&self) -> DiskStore {
        DiskStore::open(self.path("cache")).unwrap()
    }

    /// Runs what builds run beside, such as a server.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Puts all entries and blobs of the runner into a tier, worth it or not.
    pub(crate) fn push(&self, tier: &Tier) {
        let store = self.store();
        self.runtime.block_on(async {
            for action in store.actions().unwrap() {
                for digest in action.result.blobs() {
                    if let Some(file) = store.blob(&digest).unwrap() {
                        let source = BlobSource::File(file.path);
                        tier.blobs.put(digest, source).await.unwrap();
                    }
                }
                tier.actions.put(&action.result).await.unwrap();
            }
        });
    }

    fn graph(&self, text: &str) -> BuildGraph {
        let parsed = dockerfile::parse("Dockerfile", text).unwrap();
        let mut graph = BuildGraph {
            contexts: vec![LocalContext {
                name: "context".to_owned(),
                dir: self.path("ctx"),
                ignore: String::new(),
            }],
            ..BuildGraph::default()
        };
        let input = LowerInput::of(&parsed, Platform::host());
        lower(&mut graph, &input, &ImageTable::new()).unwrap();
        graph
    }

    fn engine(&self, events: Events, stop: CancellationToken) -> Engine {
        Engine {
            store: Arc::new(self.store()),
            tiers: self.tiers.clone(),
            vouching: self.vouching.clone(),
            registry: Arc::new(Registry::new(RegistryOptions::default()).unwrap()),
            events,
            redactor: Arc::new(Redactor::default()),
            stop,
            options: EngineOptions {
                explain: true,
                jobs: 2,
                normalise: true,
                layer: LayerOptions::default(),
                step_timeout: None,
                ca_certificates: None,
                proxies: Vec::new(),
                secrets: BTreeMap::new(),
                agents: Agents::default(),
                program: env!("CARGO_BIN_EXE_memobuild-ci").into(),
                temp_dir: std::env::temp_dir(),
                producer: Producer::default(),
                scopes: self.scopes.clone(),
                mount_limit: self.mount_limit,
            },
        }
    }

    /// Builds; it must succeed.
    #[track_caller]
    pub(crate) fn build(&self, text: &str) -> Outcomes {
        let outcomes = self.try_build(text);
        if let Err(error) = &outcomes.result {
            panic!("{error}: {:?}\n{:?}", error, outcomes.events);
        }
        outcomes
    }

    /// What a build would do, and the warnings that it would give.
    pub(crate) fn forecast(&self, text: &str) -> (Forecast, Vec<String>) {
        let recorder = Arc::new(Recorder::default());
        let engine = self.engine(Events::new(recorder.clone()), CancellationToken::new());
        let graph = self.graph(text);
        let forecast = explain::forecast(engine, graph, None);
        let forecast = self.runtime.block_on(forecast).unwrap();
        let warnings = recorder
            .events()
            .into_iter()
            .filter_map(|event| match event {
                BuildEvent::Warning { message, .. } => Some(message),
                _ => None,
            });
        (forecast, warnings.collect())
    }

    pub(crate) fn try_build(&self, text: &str) -> Outcomes {
        self.build_until(text, CancellationToken::new())
    }

    pub(crate) fn build_until(&self, text: &str, stop: CancellationToken) -> Outcomes {
        let recorder = Arc::new(Recorder::default());
        let engine = self.engine(Events::new(recorder.clone()), stop);
        let graph = self.graph(text);
        self.runtime.block_on(async {
            let lease = engine.store.lease().unwrap();
            let session = Session::new(engine, graph).await.unwrap();
            let result = session
                .build(async |session, built| {
                    let layers = built.targets[0].layers.clone();
                    let mut files = BTreeMap::new();
                    if self.wants_bytes {
                        let all = layers.iter().map(AsRef::as_ref);
                        session.bytes().prefetch(all).await;
                        for layer in &layers {
                            let file = session.bytes().ensure(layer).await?;
                            read_tar(&file.path, &layer.blob.media_type, &mut files);
                        }
                    }
                    Ok((layers.iter().map(|l| l.blob.digest).collect(), files))
                })
                .await;
            session.finish_saving(self.save_timeout).await;
            let totals = session.totals();
            drop(lease);
            let (result, (layers, files)) = match result {
                Ok(made) => (Ok(()), made),
                Err(error) => (Err(error), (Vec::new(), BTreeMap::new())),
            };
            Outcomes {
                result,
                layers,
                files,
                events: recorder.events(),
                totals,
            }
        })
    }
}

impl Outcomes {
    /// How the steps of these instructions ended, in order.
    pub(crate) fn outcome(&self, instruction: &str) -> Outcome {
        let found = self.events.iter().rev().find_map(|event| match event {
            BuildEvent::StepFinished { name, outcome, .. } if name.contains(instruction) => {
                Some(*outcome)
            }
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no `{instruction}` in {:?}", self.events))
    }

    pub(crate) fn warnings(&self) -> Vec<&str> {
        let warnings = self.events.iter().filter_map(|event| match event {
            BuildEvent::Warning { message, .. } => Some(message.as_str()),
            _ => None,
        });
        warnings.collect()
    }

    /// Results saved, and left to the next build.
    pub(crate) fn saved(&self) -> Option<(usize, usize)> {
        self.events.iter().find_map(|event| match event {
            BuildEvent::Saved { results, left, .. } => Some((*results, *left)),
            _ => None,
        })
    }
}

fn read_tar(path: &Path, media_type: &str, files: &mut BTreeMap<String, String>) {
    use std::io::Read as _;
    let blob = fs::File::open(path).unwrap();
    let tar = decompress(blob, media_type).unwrap();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        files.insert(name, String::from_utf8_lossy(&content).into_owned());
    }
}

/// Bytes that don't compress, always the same for a seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}
