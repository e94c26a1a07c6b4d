//! The store against a service in this process, in both versions of the protocol.

mod service;

use self::service::{Shared, start as service};
use super::*;
use crate::{
    cache::conformance::{self, sample_action},
    redact::SecretBytes,
};

/// What a job of its own has.
fn store(service: &Shared, protocol: Protocol) -> Arc<ActionsStore> {
    let base = format!("http://127.0.0.1:{}/x/", lock(service).port);
    let token = SecretBytes::from(service::TOKEN.as_bytes().to_vec());
    let client = Client::new(base.parse().unwrap(), token, protocol, &Default::default()).unwrap();
    Arc::new(ActionsStore::with(client))
}

fn bytes(bytes: &[u8]) -> BlobSource {
    BlobSource::Bytes(Bytes::copy_from_slice(bytes))
}

/// A step's entry `number` and its blob, in `scope`.
async fn put(store: &ActionsStore, scope: &Scope, number: u64, blob: &[u8]) -> ActionResult {
    let digest = Sha256Digest::of(blob);
    BlobStore::put(store, digest, bytes(blob)).await.unwrap();
    let entry = ActionResult {
        scope: scope.clone(),
        ..sample_action(number, &[digest])
    };
    ActionCache::put(store, &entry).await.unwrap();
    entry
}

async fn look(store: &ActionsStore, entry: &ActionResult) -> Option<ActionResult> {
    let scopes = [entry.scope.clone()];
    let found = store.lookup(&scopes, &[entry.key]).await.unwrap();
    found.into_iter().next().unwrap()
}

async fn read(store: &ActionsStore, blob: &[u8]) -> Option<Vec<u8>> {
    let digest = Sha256Digest::of(blob);
    let blob = store.get(digest).await.unwrap()?;
    Some(blob.read_all(digest).await.unwrap())
}

#[tokio::test]
async fn conforms() {
    for protocol in [Protocol::V1, Protocol::V2] {
        let store = store(&service().await, protocol);
        conformance::blob_store(store.clone()).await;
        conformance::action_cache(store.clone()).await;
        store.flush().await.unwrap();
        conformance::blob_store(store).await;
    }
}

#[tokio::test]
async fn another_job_finds_what_one_has_saved() {
    let large: Vec<u8> = (0..=238_u8).cycle().take(PART_AND_MORE).collect();
    for protocol in [Protocol::V1, Protocol::V2] {
        for no_ranges in [false, true] {
            let service = service().await;
            lock(&service).no_ranges = no_ranges;
            let scope = Scope::branch("Fix #1");
            let first = store(&service, protocol);
            let one = put(&first, &scope, 1, b"one").await;
            let two = put(&first, &scope, 2, b"two").await;
            let three = put(&first, &scope, 3, &large).await;
            let nothing = put(&first, &scope, 4, b"").await;
            let early = store(&service, protocol);
            assert_eq!(look(&early, &one).await, None, "nothing is half there");
            first.flush().await.unwrap();

            let second = store(&service, protocol);
            for entry in [&one, &two, &three, &nothing] {
                assert_eq!(look(&second, entry).await.as_ref(), Some(entry));
            }
            for blob in [&b"one"[..], b"two", b"", &large] {
                assert_eq!(read(&second, blob).await.as_deref(), Some(blob));
            }
            let digest = Sha256Digest::of(&large);
            let part = second.read_range(digest, 33_000_000..33_000_009).await;
            assert_eq!(part.unwrap().unwrap(), large[33_000_000..33_000_009]);
            let beyond = second.read_range(digest, 0..PART_AND_MORE as u64 + 1).await;
            assert!(matches!(beyond, Err(CacheError::Corrupt { .. })));
            // A large blob, the small ones together, the index.
            assert_eq!(lock(&service).objects.len(), 3);
            second.flush().await.unwrap();
            assert_eq!(lock(&service).objects.len(), 3, "there was nothing to save");
        }
    }
}

/// More than is sent with one request.
const PART_AND_MORE: usize = client::PART + 1_000_000;

#[tokio::test]
async fn a_job_looks_each_scope_up_once() {
    let service = service().await;
    let (main, pull) = (Scope::protected(), Scope::pull("7"));
    let seeding = store(&service, Protocol::V2);
    let entry = put(&seeding, &main, 1, b"one").await;
    seeding.flush().await.unwrap();
    lock(&service).requests.clear();
    let job = store(&service, Protocol::V2);
    for _ in 0..3 {
        let found = job
            .lookup(&[main.clone(), pull.clone()], &[entry.key])
            .await;
        assert_eq!(found.unwrap(), [Some(entry.clone())]);
    }
    let asked = lock(&service).requests.clone();
    let asked = asked.iter().filter(|r| r.contains("GetCacheEntry")).count();
    assert_eq!(asked, 2);

    // What it finds in a scope that others wrote, it doesn't save again, but its index says where it is.
    let own = put(&job, &pull, 2, b"one").await;
    job.flush().await.unwrap();
    assert_eq!(lock(&service).objects.len(), 3, "a pack and two indexes");
    let next = store(&service, Protocol::V2);
    assert_eq!(look(&next, &own).await, Some(own));
    assert_eq!(read(&next, b"one").await.as_deref(), Some(&b"one"[..]));
}

#[tokio::test]
async fn jobs_that_save_at_once_lose_nothing() {
    let service = service().await;
    let scope = Scope::protected();
    let jobs: Vec<_> = (0..6).map(|_| store(&service, Protocol::V2)).collect();
    let mut entries = Vec::new();
    for (number, job) in jobs.iter().enumerate() {
        // Each has seen the empty cache first.
        let entry = sample_action(number as u64, &[]);
        assert_eq!(look(job, &entry).await, None);
        let blob = format!("blob {number}");
        entries.push(put(job, &scope, number as u64, blob.as_bytes()).await);
    }
    let flushes = jobs.iter().map(|job| job.flush());
    let flushed = futures_util::future::join_all(flushes).await;
    assert!(flushed.iter().all(Result::is_ok), "{flushed:?}");
    let after = store(&service, Protocol::V2);
    for (number, entry) in entries.iter().enumerate() {
        assert_eq!(look(&after, entry).await.as_ref(), Some(entry));
        let blob = format!("blob {number}");
        assert_eq!(read(&after, blob.as_bytes()).await, Some(blob.into_bytes()));
    }
}

#[tokio::test]
async fn what_lay_in_an_evicted_pack_is_a_miss_and_saved_again() {
    let service = service().await;
    let scope = Scope::protected();
    let first = store(&service, Protocol::V2);
    let entry = put(&first, &scope, 1, b"one").await;
    first.flush().await.unwrap();
    lock(&service).objects.retain(|o| o.key.contains("index"));

    let second = store(&service, Protocol::V2);
    let digest = Sha256Digest::of(b"one");
    assert_eq!(look(&second, &entry).await, Some(entry.clone()));
    assert_eq!(second.contains(&[digest]).await.unwrap(), [true]);
    assert!(second.get(digest).await.unwrap().is_none());
    assert_eq!(second.contains(&[digest]).await.unwrap(), [false]);
    let again = put(&second, &scope, 1, b"one").await;
    second.flush().await.unwrap();
    let third = store(&service, Protocol::V2);
    assert_eq!(look(&third, &again).await, Some(again));
    assert_eq!(read(&third, b"one").await.as_deref(), Some(&b"one"[..]));
}

#[tokio::test]
async fn a_key_that_a_killed_writer_holds_is_passed_by() {
    for protocol in [Protocol::V1, Protocol::V2] {
        let service = service().await;
        let name = pack_key(&Sha256Digest::of(b"one").hex());
        lock(&service).reserve(&name, &client::version());
        let scope = Scope::protected();
        let first = store(&service, protocol);
        BlobStore::put(&*first, Sha256Digest::of(b"one"), bytes(b"one"))
            .await
            .unwrap();
        if protocol == Protocol::V1 {
            // This server says 400 to that, which could mean anything.
            assert!(first.flush().await.is_err());
            continue;
        }
        let entry = put(&first, &scope, 1, b"one").await;
        first.flush().await.unwrap();
        let second = store(&service, protocol);
        assert_eq!(look(&second, &entry).await, Some(entry));
        assert_eq!(read(&second, b"one").await.as_deref(), Some(&b"one"[..]));
    }
}

#[tokio::test]
async fn an_index_that_a_killed_writer_never_made_is_passed_by() {
    let service = service().await;
    let scope = Scope::protected();
    let key = index::key(&scope, 1);
    lock(&service).reserve(&key, &client::version());
    let first = store(&service, Protocol::V2);
    let entry = put(&first, &scope, 1, b"one").await;
    first.flush().await.unwrap();
    let second = store(&service, Protocol::V2);
    assert_eq!(look(&second, &entry).await, Some(entry));
}

#[tokio::test]
async fn wrong_bytes_and_unreadable_indexes_do_no_harm() {
    let service = service().await;
    let scope = Scope::protected();
    let first = store(&service, Protocol::V2);
    let entry = put(&first, &scope, 1, b"one").await;
    first.flush().await.unwrap();
    let spoil = |part: &str, bytes: &[u8]| {
        let mut service = lock(&service);
        let object = service.objects.iter().find(|o| o.key.contains(part));
        let id = object.unwrap().id.to_string();
        service.bytes.insert(id, bytes.to_vec());
    };
    spoil("pack", b"two");
    let second = store(&service, Protocol::V2);
    look(&second, &entry).await;
    let digest = Sha256Digest::of(b"one");
    let blob = second.get(digest).await.unwrap().unwrap();
    let error = blob.read_all(digest).await;
    assert!(
        matches!(error, Err(CacheError::Corrupt { .. })),
        "{error:?}"
    );
    assert_eq!(second.contains(&[digest]).await.unwrap(), [false]);
    spoil("index", b"no index");
    assert_eq!(look(&store(&service, Protocol::V2), &entry).await, None);
}

#[tokio::test]
async fn answers_are_sorted() {
    for protocol in [Protocol::V1, Protocol::V2] {
        let service = service().await;
        let entry = sample_action(1, &[]);
        let look = async |status, message| {
            lock(&service).refusals = vec![("ache", status, message)];
            let store = store(&service, protocol);
            let scopes = [Scope::local()];
            store.lookup(&scopes, &[entry.key]).await.unwrap_err()
        };
        assert!(look(500, "oops").await.is_transient());
        assert!(look(503, "").await.is_transient());
        for (status, message) in [
            (401, "who are you"),
            (403, "no"),
            (400, "cache read denied: by the job's mode"),
        ] {
            let error = look(status, message).await;
            assert!(matches!(error, CacheError::Denied { .. }), "{error:?}");
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains(message), "{cause}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
        let error = look(400, "nonsense").await;
        assert!(matches!(error, CacheError::Broken { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_denied_write_leaves_the_cache_readable() {
    let service = service().await;
    let scope = Scope::protected();
    let first = store(&service, Protocol::V2);
    let entry = put(&first, &scope, 1, b"one").await;
    first.flush().await.unwrap();
    lock(&service).refusals = vec![("CreateCacheEntry", 200, "cache write denied: fork")];
    let second = store(&service, Protocol::V2);
    put(&second, &scope, 2, b"two").await;
    let error = second.flush().await;
    assert!(matches!(error, Err(CacheError::Denied { .. })), "{error:?}");
    assert_eq!(look(&second, &entry).await, Some(entry));
}

#[tokio::test]
async fn too_many_requests_are_the_last_ones() {
    let service = service().await;
    lock(&service).refusals = vec![("GetCacheEntry", 429, "slow down")];
    let store = store(&service, Protocol::V2);
    let key = sample_action(1, &[]).key;
    for _ in 0..3 {
        let error = store.lookup(&[Scope::local()], &[key]).await;
        assert!(matches!(error, Err(CacheError::Denied { .. })), "{error:?}");
    }
    assert_eq!(lock(&service).requests.len(), 1);
}

#[test]
fn the_mode_of_the_job_limits_the_access() {
    let access = |read, write| Access { read, write };
    for (mode, full) in [
        (None, access(true, true)),
        (Some("write"), access(true, true)),
        (Some("read"), access(true, false)),
        (Some("write-only"), access(false, true)),
        (Some("none"), access(false, false)),
        (Some(" READ\n"), access(true, false)),
        (Some("another"), access(true, true)),
    ] {
        assert_eq!(allowed(mode, Access::FULL), full, "{mode:?}");
    }
    assert_eq!(allowed(Some("write"), Access::READ), Access::READ);
}
