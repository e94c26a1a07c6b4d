//! A guard before tiers that misbehave on demand.

use std::{
    io,
    pin::Pin,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::*;
use crate::cache::{
    Access, MemoryStore, Subject,
    conformance::{self, sample_action},
};

/// What the next operations of a [`Moody`] tier do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Works,
    Hangs,
    Fails,
    Denies,
    DeniesWrites,
    AsksToWait(u64),
    Trickles,
    Breaks,
}

/// A memory store with moods; counts operations.
struct Moody {
    inner: MemoryStore,
    mood: Mutex<Mood>,
    /// Works again after so many bad operations.
    bad: AtomicU32,
    operations: AtomicU32,
}

impl Moody {
    fn new(mood: Mood, bad: u32) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::default(),
            mood: Mutex::new(mood),
            bad: AtomicU32::new(bad),
            operations: AtomicU32::new(0),
        })
    }

    fn set(&self, mood: Mood, bad: u32) {
        *self.mood.lock().unwrap() = mood;
        self.bad.store(bad, Ordering::SeqCst);
    }

    /// The mood for this operation.
    async fn mood(&self, writes: bool) -> Result<Mood, CacheError> {
        self.operations.fetch_add(1, Ordering::SeqCst);
        let left = self.bad.load(Ordering::SeqCst);
        let mood = *self.mood.lock().unwrap();
        if left == 0 || (mood == Mood::DeniesWrites && !writes) {
            return Ok(Mood::Works);
        }
        self.bad.store(left - 1, Ordering::SeqCst);
        let subject = Subject::Url("memory://".to_owned());
        let transient = |source| CacheError::Transient {
            act: "ask",
            subject: Subject::Url("memory://".to_owned()),
            source,
        };
        match mood {
            Mood::Works | Mood::Trickles | Mood::Breaks => Ok(mood),
            Mood::Hangs => std::future::pending().await,
            Mood::Fails => Err(transient("connection refused".into())),
            Mood::AsksToWait(ms) => Err(transient(Box::new(Later {
                after: Duration::from_millis(ms),
                source: None,
            }))),
            Mood::Denies | Mood::DeniesWrites => Err(CacheError::Denied {
                act: "ask",
                subject,
                source: "401".into(),
            }),
        }
    }

    fn count(&self) -> u32 {
        self.operations.load(Ordering::SeqCst)
    }
}

/// Gives some bytes, then none, or an error.
struct Bad {
    given: bool,
    breaks: bool,
}

impl AsyncRead for Bad {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.given {
            self.given = true;
            buf.put_slice(b"some");
            return Poll::Ready(Ok(()));
        }
        match self.breaks {
            true => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            false => Poll::Pending,
        }
    }
}

impl BlobStore for Moody {
    fn contains<'a>(
        &'a self,
        digests: &'a [Sha256Digest],
    ) -> BoxFuture<'a, Result<Vec<bool>, CacheError>> {
        Box::pin(async move {
            self.mood(false).await?;
            self.inner.contains(digests).await
        })
    }

    fn get(&self, digest: Sha256Digest) -> BoxFuture<'_, Result<Option<Blob>, CacheError>> {
        Box::pin(async move {
            match self.mood(false).await? {
                mood @ (Mood::Trickles | Mood::Breaks) => Ok(Some(Blob {
                    size: 1000,
                    reader: Box::new(Bad {
                        given: false,
                        breaks: mood == Mood::Breaks,
                    }),
                })),
                _ => self.inner.get(digest).await,
            }
        })
    }

    fn put(
        &self,
        digest: Sha256Digest,
        source: BlobSource,
    ) -> BoxFuture<'_, Result<(), CacheError>> {
        Box::pin(async move {
            self.mood(true).await?;
            BlobStore::put(&self.inner, digest, source).await
        })
    }
}

impl ActionCache for Moody {
    fn lookup<'a>(
        &'a self,
        scopes: &'a [Scope],
        keys: &'a [CacheKey],
    ) -> BoxFuture<'a, Result<Vec<Option<ActionResult>>, CacheError>> {
        Box::pin(async move {
            self.mood(false).await?;
            self.inner.lookup(scopes, keys).await
        })
    }

    fn put<'a>(&'a self, result: &'a ActionResult) -> BoxFuture<'a, Result<(), CacheError>> {
        Box::pin(async move {
            self.mood(true).await?;
            ActionCache::put(&self.inner, result).await
        })
    }
}

/// Short times for what hangs for ever; nothing that works comes near them.
fn limits() -> GuardLimits {
    GuardLimits {
        first_answer: Duration::from_millis(200),
        lookup: Duration::from_secs(20),
        open: Duration::from_millis(300),
        window: Duration::from_millis(200),
        backoff: Duration::from_millis(1),
        longest_pause: Duration::from_millis(100),
        ..GuardLimits::default()
    }
}

struct Fixture {
    tier: Tier,
    moody: Arc<Moody>,
    meter: Arc<TierMeter>,
    notices: Arc<Mutex<Vec<TierNotice>>>,
}

fn fixture(mood: Mood, bad: u32) -> Fixture {
    let moody = Moody::new(mood, bad);
    let notices = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&notices);
    let tier = Tier {
        name: "memory://".to_owned(),
        actions: Arc::clone(&moody) as Arc<dyn ActionCache>,
        blobs: Arc::clone(&moody) as Arc<dyn BlobStore>,
        access: Access::FULL,
    };
    let notice: Notice = Arc::new(move |notice| heard.lock().unwrap().push(notice));
    let (tier, meter) = guard(tier, limits(), notice);
    Fixture {
        tier,
        moody,
        meter,
        notices,
    }
}

impl Fixture {
    async fn lookup(&self) -> Result<Option<ActionResult>, CacheError> {
        let key = sample_action(1, &[]).key;
        let found = self.tier.actions.lookup(&[Scope::local()], &[key]).await?;
        Ok(found.into_iter().next().flatten())
    }

    fn said(&self) -> Vec<String> {
        let notices = self.notices.lock().unwrap();
        notices.iter().map(ToString::to_string).collect()
    }
}

const MANY: u32 = u32::MAX;

#[tokio::test]
async fn a_tier_that_works_conforms_behind_a_guard() {
    let f = fixture(Mood::Works, 0);
    conformance::blob_store(Arc::clone(&f.tier.blobs)).await;
    conformance::action_cache(Arc::clone(&f.tier.actions)).await;
    assert!(f.said().is_empty());
    assert!(f.meter.requests() > 20 && f.meter.bytes_read() > 5_000_000);
    assert!(f.meter.bytes_written() > 5_000_000);
    assert_eq!(f.meter.failures(), 1, "the blob of another digest");
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    let f = fixture(Mood::Fails, 2);
    assert_eq!(f.lookup().await.unwrap(), None);
    assert_eq!((f.moody.count(), f.said()), (3, vec![]));
    f.moody.set(Mood::AsksToWait(60), 1);
    let start = Instant::now();
    f.lookup().await.unwrap();
    assert!(
        start.elapsed() >= Duration::from_millis(60),
        "its wish is honoured"
    );
    f.moody.set(Mood::AsksToWait(10_000), 1);
    let start = Instant::now();
    assert!(f.lookup().await.is_err(), "but not any wish");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_tier_that_never_answers_is_given_up_once_for_all() {
    let f = fixture(Mood::Hangs, MANY);
    let start = Instant::now();
    let wait = futures_util::future::join_all((0..20).map(|_| f.lookup())).await;
    assert!(
        wait.into_iter().all(|found| found.unwrap().is_none()),
        "misses"
    );
    assert!(start.elapsed() < Duration::from_secs(5));
    let before = f.moody.count();
    assert_eq!(f.lookup().await.unwrap(), None);
    assert_eq!(
        f.tier
            .blobs
            .contains(&[Sha256Digest::of(b"")])
            .await
            .unwrap(),
        [false]
    );
    assert!(
        f.tier
            .blobs
            .get(Sha256Digest::of(b""))
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(f.moody.count(), before, "it is not asked again");
    let put = f.tier.actions.put(&sample_action(1, &[])).await;
    assert!(put.unwrap_err().is_transient(), "a writer keeps its work");
    assert_eq!(
        f.said(),
        [
            "the cache `memory://` is not used any more: can't look up keys in `memory://` at the moment: no answer in time"
        ]
    );
}

#[tokio::test]
async fn a_tier_that_refuses_connections_is_given_up_after_its_retries() {
    let f = fixture(Mood::Fails, MANY);
    assert_eq!(f.lookup().await.unwrap(), None);
    assert_eq!(f.moody.count(), 3);
    assert_eq!(f.said().len(), 1, "{:?}", f.said());
    assert!(
        f.said()[0].ends_with(": connection refused"),
        "{:?}",
        f.said()
    );
}

#[tokio::test]
async fn a_tier_that_worked_is_given_up_after_failures_in_a_row() {
    let f = fixture(Mood::Works, 0);
    f.lookup().await.unwrap();
    f.moody.set(Mood::Fails, MANY);
    for _ in 0..3 {
        assert!(f.lookup().await.is_err());
    }
    f.moody.set(Mood::Works, 0);
    f.lookup().await.unwrap();
    f.moody.set(Mood::Fails, MANY);
    for _ in 0..3 {
        assert!(f.lookup().await.is_err(), "a success forgives");
    }
    assert!(f.said().is_empty());
    assert_eq!(f.lookup().await.unwrap(), None);
    assert_eq!(f.said().len(), 1);
}

#[tokio::test]
async fn a_tier_that_falls_silent_is_waited_for_once() {
    let f = fixture(Mood::Works, 0);
    f.lookup().await.unwrap();
    f.moody.set(Mood::Hangs, MANY);
    let digest = Sha256Digest::of(b"");
    assert!(f.tier.blobs.get(digest).await.unwrap().is_none());
    assert_eq!(f.lookup().await.unwrap(), None);
    assert_eq!((f.moody.count(), f.said().len()), (2, 1));
    assert!(
        f.said()[0].ends_with(": it took too long"),
        "{:?}",
        f.said()
    );
}

#[tokio::test]
async fn a_refusal_is_not_asked_for_twice() {
    let f = fixture(Mood::Denies, MANY);
    assert_eq!(f.lookup().await.unwrap(), None);
    assert_eq!(f.lookup().await.unwrap(), None);
    assert_eq!((f.moody.count(), f.said().len()), (1, 1));
}

#[tokio::test]
async fn a_tier_that_refuses_writes_is_still_read() {
    let f = fixture(Mood::DeniesWrites, MANY);
    let action = sample_action(1, &[]);
    ActionCache::put(&f.moody.inner, &action).await.unwrap();
    assert!(f.tier.actions.put(&action).await.is_err());
    assert!(f.tier.actions.put(&action).await.is_err());
    assert_eq!(f.lookup().await.unwrap(), Some(action));
    assert_eq!(f.moody.count(), 2);
    assert_eq!(
        f.said(),
        ["nothing more is saved to the cache `memory://`: not allowed to ask `memory://`: 401"]
    );
}

#[tokio::test]
async fn bodies_that_trickle_or_break_are_errors() {
    let f = fixture(Mood::Trickles, 1);
    let mut blob = f
        .tier
        .blobs
        .get(Sha256Digest::of(b"x"))
        .await
        .unwrap()
        .unwrap();
    let mut bytes = Vec::new();
    let error = blob.reader.read_to_end(&mut bytes).await.unwrap_err();
    let error = CacheError::from_io("read", Sha256Digest::of(b"x"), error);
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(bytes, b"some");
    f.moody.set(Mood::Breaks, 3);
    for n in 0..3 {
        assert!(f.said().is_empty(), "{n}");
        let blob = f.tier.blobs.get(Sha256Digest::of(b"x")).await.unwrap();
        assert!(
            blob.unwrap()
                .read_all(Sha256Digest::of(b"x"))
                .await
                .is_err()
        );
    }
    // Each of them was answered at first, which doesn't count for much.
    assert_eq!(f.said().len(), 1, "{:?}", f.said());
    assert_eq!(f.meter.failures(), 4);
}

#[tokio::test]
async fn wrong_bytes_are_no_trouble_of_the_tier() {
    let f = fixture(Mood::Works, 0);
    let digest = Sha256Digest::of(b"right");
    f.tier
        .blobs
        .put(digest, BlobSource::Bytes(Bytes::from_static(b"right")))
        .await
        .unwrap();
    f.moody.inner.spoil(&digest);
    for _ in 0..10 {
        let blob = f.tier.blobs.get(digest).await.unwrap().unwrap();
        let error = blob.read_all(digest).await.unwrap_err();
        assert!(matches!(error, CacheError::Corrupt { .. }), "{error:?}");
    }
    assert!(f.said().is_empty());
    assert_eq!(f.meter.failures(), 0);
}
