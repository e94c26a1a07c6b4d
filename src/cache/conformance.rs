//! One suite for everything that is a cache.
//!
//! Each function panics where an implementation breaks the promises of
//! [`BlobStore`] and [`ActionCache`]. The store given to it may hold other things.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;

use super::{
    ActionCache, ActionResult, BlobSource, BlobStore, CacheError, Producer, RECORD_VERSION, Scope,
    StepInfo,
};
use crate::{
    digest::{Blake3Digest, Sha256Digest},
    key::{CacheKey, KeyKind, RecipePart, RecipeValue},
    oci::{
        Platform,
        layer::{ChainId, DiffId, LayerBlob},
    },
};

/// An action under a key made of `number`, that names the first of `blobs` as its layer
/// and the second as the layer's index.
pub fn sample_action(number: u64, blobs: &[Sha256Digest]) -> ActionResult {
    ActionResult {
        version: RECORD_VERSION,
        key: CacheKey(Blake3Digest::of(&number.to_le_bytes())),
        kind: KeyKind::Definition,
        step: StepInfo {
            name: format!("[app {number}/9] RUN true"),
            instruction: "RUN true".to_owned(),
            target: "app".to_owned(),
            platform: Platform::normal("linux", "amd64", None),
        },
        parent: ChainId::empty(),
        inputs: Vec::new(),
        layer: blobs.first().map(|digest| LayerBlob {
            diff_id: DiffId(Sha256Digest::of(b"tar")),
            digest: *digest,
            size: 5,
            media_type: "application/vnd.oci.image.layer.v1.tar+zstd".to_owned(),
            index: blobs.get(1).copied(),
        }),
        recipe: vec![RecipePart {
            name: "args".to_owned(),
            value: RecipeValue::Text("true".to_owned()),
        }],
        duration_ms: number,
        created: 1_700_000_000,
        producer: Producer {
            tool: "conformance".to_owned(),
            ..Producer::default()
        },
        scope: Scope::local(),
        signature: None,
    }
}

fn source(bytes: &[u8]) -> BlobSource {
    BlobSource::Bytes(Bytes::copy_from_slice(bytes))
}

async fn read(store: &dyn BlobStore, digest: Sha256Digest) -> Option<Vec<u8>> {
    let blob = store.get(digest).await.expect("get works")?;
    let size = blob.size;
    let bytes = blob.read_all(digest).await.expect("the bytes are right");
    assert_eq!(bytes.len() as u64, size, "the stated size is right");
    Some(bytes)
}

/// What a blob store promises.
pub async fn blob_store(store: Arc<dyn BlobStore>) {
    let (one, two, none) = (b"conformance one", b"conformance two", b"never put");
    let (d1, d2) = (Sha256Digest::of(one), Sha256Digest::of(two));
    let absent = Sha256Digest::of(none);

    assert!(read(&*store, absent).await.is_none(), "a miss is none");
    store.put(d1, source(one)).await.expect("put works");
    store.put(d2, source(two)).await.expect("put works");
    store
        .put(d2, source(two))
        .await
        .expect("putting again works");
    assert_eq!(read(&*store, d1).await.as_deref(), Some(&one[..]));
    assert_eq!(
        store
            .contains(&[d2, absent, d1, d2])
            .await
            .expect("contains works"),
        [true, false, true, true],
        "answers come in the order of the questions"
    );
    assert!(
        store
            .contains(&[])
            .await
            .expect("contains works")
            .is_empty()
    );

    let empty = Sha256Digest::of(b"");
    store
        .put(empty, source(b""))
        .await
        .expect("an empty blob can be put");
    assert_eq!(read(&*store, empty).await.as_deref(), Some(&b""[..]));

    let error = store.put(absent, source(one)).await;
    assert!(
        matches!(error, Err(CacheError::Corrupt { .. })),
        "bytes of another digest are refused: {error:?}"
    );
    assert!(read(&*store, absent).await.is_none(), "and not kept");

    large_blob(&*store).await;
    concurrent_puts(store).await;
}

/// A blob larger than any buffer, from a file, read in pieces.
async fn large_blob(store: &dyn BlobStore) {
    let bytes: Vec<u8> = (0..5_000_003_u32).map(|n| (n % 251) as u8).collect();
    let digest = Sha256Digest::of(&bytes);
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    crate::fs::write_atomic(file.path(), &bytes).expect("it can be written");
    store
        .put(digest, BlobSource::File(file.path().to_owned()))
        .await
        .expect("a large blob can be put from a file");
    let mut blob = store
        .get(digest)
        .await
        .expect("get works")
        .expect("it is there");
    let mut back = Vec::new();
    let mut piece = vec![0; 65_537];
    loop {
        let n = blob
            .reader
            .read(&mut piece)
            .await
            .expect("the bytes are right");
        if n == 0 {
            break;
        }
        back.extend_from_slice(&piece[..n]);
    }
    assert!(back == bytes, "the bytes come back");
}

/// Many writers of the same blob at once.
async fn concurrent_puts(store: Arc<dyn BlobStore>) {
    let bytes = vec![7; 300_000];
    let digest = Sha256Digest::of(&bytes);
    let puts = (0..8).map(|_| store.put(digest, source(&bytes)));
    for result in futures_util::future::join_all(puts).await {
        result.expect("each of them works");
    }
    assert_eq!(read(&*store, digest).await, Some(bytes));
}

/// A blob whose bytes have gone bad, as `spoil` makes them.
pub async fn corruption(store: Arc<dyn BlobStore>, spoil: impl Fn(&Sha256Digest)) {
    let bytes = b"will be spoilt";
    let digest = Sha256Digest::of(bytes);
    store.put(digest, source(bytes)).await.expect("put works");
    spoil(&digest);
    let blob = store
        .get(digest)
        .await
        .expect("get works")
        .expect("it is there");
    let error = blob.read_all(digest).await;
    assert!(
        matches!(error, Err(CacheError::Corrupt { .. })),
        "wrong bytes are an error of their own kind: {error:?}"
    );
    store.put(digest, source(bytes)).await.expect("put works");
    assert_eq!(
        read(&*store, digest).await.as_deref(),
        Some(&bytes[..]),
        "putting the blob again mends it"
    );
}

/// What an action cache promises.
pub async fn action_cache(cache: Arc<dyn ActionCache>) {
    let blob = Sha256Digest::of(b"layer");
    let (first, second) = (sample_action(1, &[blob]), sample_action(2, &[]));
    let absent = sample_action(3, &[]).key;

    let local = [Scope::local()];
    let nothing = cache
        .lookup(&local, &[absent])
        .await
        .expect("look-up works");
    assert_eq!(nothing, [None], "a miss is none");
    cache.put(&first).await.expect("put works");
    cache.put(&second).await.expect("put works");
    let found = cache
        .lookup(&local, &[second.key, absent, first.key, second.key])
        .await
        .expect("look-up works");
    assert_eq!(
        found,
        [
            Some(second.clone()),
            None,
            Some(first.clone()),
            Some(second)
        ],
        "answers come in the order of the questions"
    );
    assert!(
        cache
            .lookup(&local, &[])
            .await
            .expect("look-up works")
            .is_empty()
    );

    let mut newer = sample_action(1, &[]);
    newer.duration_ms = 99;
    cache.put(&newer).await.expect("put works");
    let found = cache
        .lookup(&local, &[newer.key])
        .await
        .expect("look-up works");
    assert_eq!(found, [Some(newer)], "the last put counts");

    let many: Vec<CacheKey> = (0..5_000)
        .map(|n| sample_action(1_000_000 + n, &[]).key)
        .collect();
    let found = cache
        .lookup(&local, &many)
        .await
        .expect("large batches work");
    assert!(found.len() == many.len() && found.iter().all(Option::is_none));

    scopes(&*cache).await;
}

/// Entries under one key in several scopes.
async fn scopes(cache: &dyn ActionCache) {
    let (main, dev) = (Scope::protected(), Scope::branch("conformance/dev"));
    let pull = Scope::pull("7");
    let of = |scope: &Scope, ms| ActionResult {
        scope: scope.clone(),
        duration_ms: ms,
        ..sample_action(4, &[])
    };
    let key = of(&main, 0).key;
    let find = async |scopes: &[&Scope]| {
        let scopes: Vec<Scope> = scopes.iter().map(|s| (*s).clone()).collect();
        let found = cache.lookup(&scopes, &[key]).await.expect("look-up works");
        found.into_iter().next().flatten()
    };
    let (by_pull, by_dev) = (of(&pull, 1), of(&dev, 2));
    cache.put(&by_pull).await.expect("put works");
    cache.put(&by_dev).await.expect("put works");
    assert_eq!(find(&[&main]).await, None, "no scope shows in another one");
    assert_eq!(find(&[]).await, None);
    assert_eq!(find(&[&main, &pull]).await, Some(by_pull.clone()));
    assert_eq!(
        find(&[&main, &dev, &pull]).await,
        Some(by_dev.clone()),
        "the first scope that has an entry counts, not the first that was written"
    );
    let by_main = of(&main, 3);
    cache.put(&by_main).await.expect("put works");
    cache.put(&by_pull).await.expect("put works");
    assert_eq!(find(&[&main, &dev, &pull]).await, Some(by_main));
    assert_eq!(find(&[&pull]).await, Some(by_pull), "none was replaced");
    assert_eq!(find(&[&dev]).await, Some(by_dev));
}
