//! Everything a build says, as one typed stream.
//!
//! The engine and the operations below it never print: they send [`BuildEvent`]s to
//! an [`EventSink`]. Progress bars, plain logs, `--progress json` and the final
//! summary are readers of the same stream. As NDJSON, each event is one object with
//! `v` (format version [`EVENT_VERSION`]), `ms` (milliseconds since the start of the
//! build) and the fields below; fields are only ever added.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use schemars::JsonSchema;
use serde::Serialize;

/// Version of the NDJSON form of [`BuildEvent`].
pub const EVENT_VERSION: u32 = 1;

/// Number of a vertex in one build; stable for its duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct StepId(pub usize);

/// Why a step needed no execution, or that it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Executed.
    Ran,
    /// Found in the cache by its definition key.
    Hit,
    /// Found in the cache by its content key: a parent was dirty, its content equal.
    ContentHit,
    /// A base image or a context: resolved, nothing to execute.
    Resolved,
}

/// Which output stream of a step a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Totals of a finished build.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Totals {
    /// Steps executed.
    pub ran: usize,
    /// Steps found in the cache, by either key.
    pub hits: usize,
    /// Milliseconds spent executing steps, added up.
    pub step_ms: u64,
    /// Milliseconds that the hits took when they were executed, added up.
    pub saved_ms: u64,
    /// Bytes fetched from registries and remote caches.
    pub bytes_fetched: u64,
    /// Bytes of new layer blobs written.
    pub bytes_written: u64,
    /// Requests made to remote caches, for reading and for saving.
    pub cache_requests: u64,
    /// Milliseconds from start to end.
    pub wall_ms: u64,
}

/// One thing that happened in a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BuildEvent {
    /// The graph is known: so many steps for these targets.
    Planned {
        /// Steps that can run or hit, over all targets.
        steps: usize,
        /// Names of the targets, for instance `ml (cpu, linux/amd64)`.
        targets: Vec<String>,
    },
    /// Which remote caches the build uses, and how. Not sent where it uses none.
    RemoteCaches {
        /// Their addresses, the first asked first.
        caches: Vec<String>,
        /// The CI platform that the build was found to run on.
        platform: String,
        /// The trust scopes that entries are looked for in, in this order.
        reads: Vec<String>,
        /// The trust scope that results are saved under; none if nothing is saved.
        #[serde(skip_serializing_if = "Option::is_none")]
        saves: Option<String>,
        /// Id of the key that signs what is saved.
        #[serde(skip_serializing_if = "Option::is_none")]
        signed_by: Option<String>,
    },
    /// A step is being looked up or executed.
    StepStarted {
        /// The step.
        step: StepId,
        /// Display name, for instance `[ml 2/5] RUN pip install numpy`.
        name: String,
        /// The target it belongs to, by its first user.
        target: String,
        /// Why it is executed: with `-v` and `--progress=json`, for steps that are.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// A line of a step's output, without its line end, secrets redacted.
    StepLog {
        /// The step.
        step: StepId,
        /// Where it came from.
        stream: Stream,
        /// The line; invalid UTF-8 replaced.
        line: String,
    },
    /// Progress within a step: bytes or files done.
    StepProgress {
        /// The step.
        step: StepId,
        /// What is going on, for instance `unpacking sha256:0123456789ab`.
        what: String,
        /// Done so far.
        current: u64,
        /// All there is to do, if known.
        total: Option<u64>,
    },
    /// A step is over and its result known.
    StepFinished {
        /// The step.
        step: StepId,
        /// Display name, as in `StepStarted`.
        name: String,
        /// How.
        outcome: Outcome,
        /// Milliseconds it took now.
        #[serde(rename = "took_ms")]
        ms: u64,
        /// Milliseconds it took when it was executed, for hits that know.
        #[serde(skip_serializing_if = "Option::is_none")]
        recorded_ms: Option<u64>,
        /// The remote cache that had the result, for hits that are not local.
        #[serde(skip_serializing_if = "Option::is_none")]
        tier: Option<String>,
        /// Size of its layer's blob in bytes; none if the step changed nothing.
        #[serde(skip_serializing_if = "Option::is_none")]
        layer_bytes: Option<u64>,
    },
    /// A step failed; the error itself is reported once, at the end of the build.
    StepFailed {
        /// The step.
        step: StepId,
        /// Display name.
        name: String,
        /// One line saying why.
        reason: String,
        /// Milliseconds until it failed.
        #[serde(rename = "took_ms")]
        ms: u64,
    },
    /// A step was stopped because another one failed or the build was interrupted.
    StepCancelled {
        /// The step.
        step: StepId,
        /// Display name.
        name: String,
    },
    /// Bytes are being fetched, written or sent outside of a step (pull, export, push).
    Transfer {
        /// Identity of the transfer: same text, same bar.
        what: String,
        /// Bytes done.
        current: u64,
        /// All bytes, if known.
        total: Option<u64>,
    },
    /// Something is off and the build goes on.
    Warning {
        /// What, and what was done instead.
        message: String,
        /// What to do about it.
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
    /// A result was written.
    Exported {
        /// The target's name.
        target: String,
        /// Where to: a directory or file, `-` for standard output, `docker`.
        dest: String,
        /// Digest of the manifest or index, `sha256:…`; of a tar or directory of files that of the
        /// image's configuration, empty if there are several.
        digest: String,
        /// Number of layers.
        layers: usize,
        /// Sum of the layers' blob sizes in bytes.
        bytes: u64,
    },
    /// A result is not saved to a remote cache: executing the step again takes less time than
    /// bringing its layer there and back.
    NotWorthSaving {
        /// The step's display name.
        name: String,
        /// The cache.
        tier: String,
        /// Size of the layer's blob in bytes.
        bytes: u64,
        /// Milliseconds that the execution took.
        step_ms: u64,
        /// Milliseconds that the transfers would take, by what was measured so far.
        transfer_ms: u64,
    },
    /// The tree of a cache mount came from a remote cache.
    MountRestored {
        /// The mount's id.
        id: String,
        /// The cache.
        tier: String,
        /// The trust scope that it was saved under.
        scope: String,
        /// Size of the packed tree in bytes.
        bytes: u64,
        /// Milliseconds it took.
        #[serde(rename = "took_ms")]
        ms: u64,
    },
    /// The tree of a cache mount is not saved: it is larger than the configured limit.
    MountTooLarge {
        /// The mount's id.
        id: String,
        /// Size of its files in bytes, or of all of it as a tar if only that is too large.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Trees of cache mounts were saved to remote caches. Not sent where there were none.
    MountsSaved {
        /// How many.
        mounts: usize,
        /// Sum of the sizes of the packed trees in bytes.
        bytes: u64,
        /// Bytes of them that the caches did not have yet; trees are counted whole.
        new_bytes: u64,
    },
    /// What this build had to save to remote caches is saved, or its time is up.
    Saved {
        /// Results of steps that were saved.
        results: usize,
        /// Sum of the sizes of their layers' blobs in bytes.
        bytes: u64,
        /// Bytes of blobs that the caches did not have yet.
        new_bytes: u64,
        /// Results that were not saved; the next build with this local cache takes them up.
        left: usize,
        /// Milliseconds in which something was on its way.
        #[serde(rename = "took_ms")]
        ms: u64,
        /// Milliseconds that the build waited for it at its end.
        waited_ms: u64,
    },
    /// The build is over.
    Finished {
        /// Whether everything asked for was built.
        ok: bool,
        /// The figures.
        totals: Totals,
    },
}

/// A reader of the stream. Called from many threads; must not block for long.
pub trait EventSink: Send + Sync {
    /// Takes one event; `ms` is the time since the build's start.
    fn event(&self, ms: u64, event: &BuildEvent);
}

/// The writing end: cheap to clone, given to everything that has something to say.
#[derive(Clone)]
pub struct Events {
    start: Instant,
    sink: Arc<dyn EventSink>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Starts the clock and sends to `sink`.
    pub fn new(sink: Arc<dyn EventSink>) -> Self {
        Self {
            start: Instant::now(),
            sink,
        }
    }

    /// A stream that nobody reads.
    pub fn silent() -> Self {
        struct Silent;
        impl EventSink for Silent {
            fn event(&self, _: u64, _: &BuildEvent) {}
        }
        Self::new(Arc::new(Silent))
    }

    /// Sends one event.
    pub fn send(&self, event: BuildEvent) {
        self.sink.event(self.elapsed_ms(), &event);
    }

    /// Sends a [`BuildEvent::Warning`].
    pub fn warn(&self, message: impl Into<String>, hint: Option<String>) {
        self.send(BuildEvent::Warning {
            message: message.into(),
            hint,
        });
    }

    /// Milliseconds since the start.
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Keeps every event, for tests and for reports written at the end.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Vec<BuildEvent>>);

impl Recorder {
    /// A copy of all events so far, in order of arrival.
    pub fn events(&self) -> Vec<BuildEvent> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl EventSink for Recorder {
    fn event(&self, _: u64, event: &BuildEvent) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(event.clone());
    }
}
