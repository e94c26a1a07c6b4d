//! Caches in buckets, against servers that others have written: moto's for S3, the emulators for
//! Google Cloud Storage and Azure Blob Storage. `scripts/setup-test` installs them.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use memobuild_ci::{
    cache::{
        Access, ActionCache, ActionResult, BlobSource, BlobStore, CacheError, Scope, Tier,
        conformance,
        guard::{GuardLimits, guard},
        object::{ObjectStore, Services},
    },
    digest::Sha256Digest,
};

/// A server that ends with the test.
struct Server {
    process: Child,
    url: String,
    _data: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program at `path` in the cache of the tests. None if it isn't there, which is an error in CI.
fn program(path: &str) -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = var("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = var("XDG_CACHE_HOME").map(PathBuf::from).or(home)?;
    let program = cache.join("memobuild-test").join(path);
    if program.exists() {
        return Some(program);
    }
    assert!(
        var("CI").is_none(),
        "no `{}` (scripts/setup-test installs it), and this is CI",
        program.display()
    );
    eprintln!("skipped: no `{}`", program.display());
    None
}

impl Server {
    /// Starts a program whose arguments `words` makes of a port and a directory.
    async fn start(program: PathBuf, words: impl Fn(u16, &str) -> Vec<String>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let process = Command::new(&program)
            .args(words(port, data.path().to_str().unwrap()))
            .current_dir(data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self {
            process,
            url: format!("http://127.0.0.1:{port}"),
            _data: data,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
        {
            let ended = server.process.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "`{}` doesn't listen: {ended:?}",
                program.display()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server
    }
}

fn store(address: &str, variables: &[(&'static str, &str)]) -> Arc<ObjectStore> {
    let services: Services = variables
        .iter()
        .map(|(name, value)| (*name, value.as_bytes().to_vec().into()))
        .collect();
    Arc::new(ObjectStore::open(&address.parse().unwrap(), &services).unwrap())
}

/// What any of the services must do, beyond the contract of all caches.
async fn service(store: Arc<ObjectStore>) {
    let tier = guarded(&store);
    conformance::blob_store(tier.blobs).await;
    conformance::action_cache(tier.actions).await;
    uploads_in_parts(&store).await;
}

/// The store as builds use it: these servers now and then answer 500 to parallel requests.
fn guarded(store: &Arc<ObjectStore>) -> Tier {
    let tier = Tier {
        name: "a service".to_owned(),
        actions: store.clone(),
        blobs: store.clone(),
        access: Access::FULL,
    };
    let minute = Duration::from_secs(60);
    let limits = GuardLimits {
        first_answer: minute,
        lookup: 2 * minute,
        ..GuardLimits::default()
    };
    guard(tier, limits, Arc::new(|notice| panic!("{notice:?}"))).0
}

/// A blob of more than two parts.
async fn uploads_in_parts(store: &ObjectStore) {
    let bytes: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 241) as u8).collect();
    let digest = Sha256Digest::of(&bytes);
    let wrong = Sha256Digest::of(b"something else");
    let source = BlobSource::Bytes(bytes.clone().into());
    let error = BlobStore::put(store, wrong, source.clone()).await;
    assert!(
        matches!(error, Err(CacheError::Corrupt { .. })),
        "{error:?}"
    );
    BlobStore::put(store, digest, source).await.unwrap();
    assert_eq!(
        store.contains(&[digest, wrong]).await.unwrap(),
        [true, false]
    );
    let part = store.read_range(digest, 9_000_000..9_000_007).await;
    assert_eq!(part.unwrap().unwrap(), bytes[9_000_000..9_000_007]);
    let blob = store.get(digest).await.unwrap().unwrap();
    assert_eq!(blob.size, bytes.len() as u64);
    assert!(blob.read_all(digest).await.unwrap() == bytes);
    let error = store.read_range(digest, 19_999_999..20_000_001).await;
    assert!(
        matches!(error, Err(CacheError::Corrupt { .. })),
        "{error:?}"
    );
}

/// Entries in two scopes, and a few misses.
async fn entries(cache: &dyn ActionCache) {
    let order = [Scope::protected(), Scope::branch("Fix #1")];
    let entries = [0, 1, 2].map(|number| ActionResult {
        scope: order[1].clone(),
        ..conformance::sample_action(number, &[])
    });
    for entry in &entries[..2] {
        cache.put(entry).await.unwrap();
    }
    let reviewed = ActionResult {
        scope: Scope::protected(),
        ..entries[1].clone()
    };
    cache.put(&reviewed).await.unwrap();
    let keys = entries.each_ref().map(|entry| entry.key);
    let found = cache.lookup(&order, &keys).await.unwrap();
    assert_eq!(found, [Some(entries[0].clone()), Some(reviewed), None]);
}

const AWS: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
];

#[tokio::test]
async fn s3() {
    let Some(program) = program("python/bin/moto_server") else {
        return;
    };
    let server = Server::start(program, |port, _| {
        ["-H", "127.0.0.1", "-p", &port.to_string()]
            .map(str::to_owned)
            .into()
    })
    .await;
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    let client = client.build().unwrap();
    let made = client.put(format!("{}/cache", server.url)).send().await;
    assert!(made.unwrap().status().is_success());

    let address = |bucket| format!("s3://{bucket}/team/ci?endpoint={}", server.url);
    service(store(&address("cache"), &AWS)).await;

    let digest = Sha256Digest::of(b"x");
    let absent = store(&address("absent"), &AWS);
    let error = absent.get(digest).await.unwrap_err();
    assert!(matches!(error, CacheError::Broken { .. }), "{error:?}");
    let nobody = store(&address("cache"), &[("AWS_EC2_METADATA_DISABLED", "true")]);
    let error = nobody.get(digest).await.unwrap_err();
    assert!(matches!(error, CacheError::Denied { .. }), "{error:?}");
}

#[tokio::test]
async fn google_cloud_storage() {
    let Some(program) = program("python/bin/gcp-storage-emulator") else {
        return;
    };
    let server = Server::start(program, |port, _| {
        [
            "start",
            "--host=127.0.0.1",
            &format!("--port={port}"),
            "--in-memory",
            "--default-bucket=cache",
        ]
        .map(str::to_owned)
        .into()
    })
    .await;
    let address = format!("gs://cache/team/ci?endpoint={}&anonymous=true", server.url);
    // It doesn't know uploads in parts, and is too slow for large batches.
    let tier = guarded(&store(&address, &[]));
    conformance::blob_store(tier.blobs).await;
    entries(&*tier.actions).await;
}

#[tokio::test]
async fn azure_blob_storage() {
    // The account and the key that every copy of the emulator has.
    const ACCOUNT: &str = "devstoreaccount1";
    const KEY: &str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
    let Some(program) = program("node/node_modules/.bin/azurite-blob") else {
        return;
    };
    let server = Server::start(program, |port, data| {
        [
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            &port.to_string(),
            "--location",
            data,
            "--silent",
            "--skipApiVersionCheck",
        ]
        .map(str::to_owned)
        .into()
    })
    .await;
    let made = create_container(&server.url, ACCOUNT, KEY, "cache").await;
    assert!(made.status().is_success(), "{made:?}");
    let address = format!(
        "azblob://cache/team/ci?endpoint={}/{ACCOUNT}&account={ACCOUNT}",
        server.url
    );
    service(store(&address, &[("AZURE_STORAGE_KEY", KEY)])).await;
}

/// Makes a container, by a request with the signature that the service's documentation calls Shared Key.
async fn create_container(url: &str, account: &str, key: &str, name: &str) -> reqwest::Response {
    let now = time::OffsetDateTime::now_utc();
    let date = now.format(&time::format_description::well_known::Rfc2822);
    let date = date.unwrap().replace("+0000", "GMT");
    let signed = format!(
        "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:2021-08-06\n\
         /{account}/{account}/{name}\nrestype:container"
    );
    let key = ring::hmac::Key::new(
        ring::hmac::HMAC_SHA256,
        &BASE64_STANDARD.decode(key).unwrap(),
    );
    let signature = BASE64_STANDARD.encode(ring::hmac::sign(&key, signed.as_bytes()));
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    client
        .build()
        .unwrap()
        .put(format!("{url}/{account}/{name}?restype=container"))
        .header("x-ms-date", date)
        .header("x-ms-version", "2021-08-06")
        .header("authorization", format!("SharedKey {account}:{signature}"))
        .send()
        .await
        .unwrap()
}
