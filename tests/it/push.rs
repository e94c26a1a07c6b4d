//! Pushing to a registry that misbehaves: what broke is continued or sent again, each refusal has
//! its class, and only the registry itself sees credentials.

use std::time::Duration;

use bytes::Bytes;
use memobuild_ci::{
    digest::Sha256Digest,
    oci::{Descriptor, Manifest, Repository, descriptor::media},
    registry::{Registry, RegistryError, RegistryOptions, Trouble, UploadSource},
};

use crate::registry_server::{Access, Fault, RegistryServer, basic, client, options};

const REPOSITORY: &str = "acme/app";

/// A client that knows `ci` with the password `word` at this registry.
fn known(server: &RegistryServer, dir: &tempfile::TempDir) -> Registry {
    let auth = basic("ci", "word");
    let auth = auth.strip_prefix("Basic ").unwrap();
    let config = serde_json::json!({"auths": {server.host(): {"auth": auth}}});
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    Registry::new(RegistryOptions {
        docker_config: Some(dir.path().to_owned()),
        ..options()
    })
    .unwrap()
}

fn repository(server: &RegistryServer) -> Repository {
    format!("{}/{REPOSITORY}", server.host()).parse().unwrap()
}

/// Some bytes that are not the same everywhere, more than fit into one request.
fn large() -> Vec<u8> {
    (0..1_200_000_u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

/// Pushes `bytes` from memory and checks that they have arrived.
async fn push(
    server: &RegistryServer,
    client: &Registry,
    bytes: &[u8],
) -> Result<(), RegistryError> {
    let digest = Sha256Digest::of(bytes);
    let source = UploadSource::Bytes(Bytes::copy_from_slice(bytes));
    client
        .push_blob(&repository(server), &digest, &source)
        .await?;
    assert_eq!(stored(server, client, &digest).await, bytes);
    Ok(())
}

/// The blob as the registry has it.
async fn stored(server: &RegistryServer, client: &Registry, digest: &Sha256Digest) -> Vec<u8> {
    let size = client.blob_size(&repository(server), digest, false).await;
    let size = size.unwrap().expect("it is there");
    let mut out = Vec::new();
    let name = repository(server).to_string();
    client
        .fetch_blob(&name, digest, size, &mut out, &|_| {})
        .await
        .unwrap();
    out
}

fn lines(server: &RegistryServer) -> Vec<String> {
    let seen = server.seen().into_iter();
    seen.map(|s| s.line.split("/upload-").next().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn blobs_arrive_by_no_request_more_than_needed() {
    let server = RegistryServer::start(Access::Open).await;
    let client = client();
    let uploads = format!("/v2/{REPOSITORY}/blobs/uploads");
    for (bytes, methods) in [
        (Vec::new(), &["POST", "PUT"][..]),
        (b"small".to_vec(), &["POST", "PUT"]),
        (large(), &["POST", "PATCH", "PUT"]),
    ] {
        let digest = Sha256Digest::of(&bytes);
        for source in [
            UploadSource::Bytes(bytes.clone().into()),
            UploadSource::File({
                let file = tempfile::NamedTempFile::new().unwrap();
                std::fs::write(file.path(), &bytes).unwrap();
                file.into_temp_path().keep().unwrap()
            }),
        ] {
            server.remove_blob(REPOSITORY, &digest);
            server.forget();
            client
                .push_blob(&repository(&server), &digest, &source)
                .await
                .unwrap();
            let expected: Vec<String> = methods
                .iter()
                .map(|method| match *method {
                    "POST" => format!("POST {uploads}/"),
                    method => format!("{method} {uploads}"),
                })
                .collect();
            assert_eq!(lines(&server), expected, "{source:?}");
            assert_eq!(stored(&server, &client, &digest).await, bytes);
            if let UploadSource::File(path) = source {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn passing_failures_are_survived() {
    for (line, fault, requests) in [
        ("POST", Fault::Status(503, None), 3),
        ("PUT", Fault::Partial(2), 6),
        ("PUT", Fault::Status(429, Some("0")), 4),
        ("POST", Fault::Cut(0), 3),
    ] {
        let server = RegistryServer::start(Access::Open).await;
        server.fault(line, fault.clone(), 1);
        let client = client();
        let digest = Sha256Digest::of(b"small");
        let source = UploadSource::Bytes(Bytes::from_static(b"small"));
        client
            .push_blob(&repository(&server), &digest, &source)
            .await
            .unwrap();
        assert!(server.has_blob(REPOSITORY, &digest));
        let seen = lines(&server);
        assert!(seen.len() <= requests, "{line} {fault:?}: {seen:?}");
    }
}

#[tokio::test]
async fn a_broken_upload_continues_where_it_broke() {
    let server = RegistryServer::start(Access::Open).await;
    let bytes = large();
    server.fault("PATCH", Fault::Partial(1_000_000), 1);
    server.fault("PATCH", Fault::Partial(500_000), 1);
    push(&server, &client(), &bytes).await.unwrap();
    let patches: Vec<_> = server
        .seen()
        .into_iter()
        .filter(|s| s.line.starts_with("PATCH"))
        .collect();
    let last = bytes.len() - 1;
    let ranges: Vec<_> = patches.iter().map(|s| s.content_range.as_deref()).collect();
    assert_eq!(
        ranges,
        [
            None,
            Some(format!("1000000-{last}")).as_deref(),
            Some(format!("1500000-{last}")).as_deref()
        ]
    );
    assert_eq!(patches[2].received, bytes.len() - 1_500_000);
    assert_eq!(server.count("POST"), 1);
}

#[tokio::test]
async fn an_answer_that_got_lost_costs_no_second_transfer() {
    let server = RegistryServer::start(Access::Open).await;
    let bytes = large();
    // The registry has everything, and the client can't know.
    server.fault("PATCH", Fault::Status(500, None), 1);
    server.fault("PUT", Fault::Status(500, None), 1);
    push(&server, &client(), &bytes).await.unwrap();
    let received: usize = server.seen().iter().map(|s| s.received).sum();
    assert_eq!(received, bytes.len());
}

#[tokio::test]
async fn a_forgotten_upload_is_begun_again() {
    let bytes = large();
    for fault in [Fault::Status(404, None), Fault::Status(416, None)] {
        let server = RegistryServer::start(Access::Open).await;
        server.fault("PATCH", Fault::Partial(10), 1);
        server.fault("PATCH", fault, 1);
        push(&server, &client(), &bytes).await.unwrap();
        assert_eq!(server.count("POST"), 2);
    }
    // The state can't be had.
    let server = RegistryServer::start(Access::Open).await;
    server.fault("PATCH", Fault::Partial(10), 1);
    server.fault("GET", Fault::Status(404, None), 1);
    push(&server, &client(), &bytes).await.unwrap();
    assert_eq!(server.count("POST"), 2);
}

#[tokio::test]
async fn lasting_failures_have_their_class() {
    for (fault, trouble, message) in [
        (
            Fault::Status(500, None),
            Trouble::Transient,
            "failed with status 500",
        ),
        (
            Fault::Status(429, None),
            Trouble::Transient,
            "limits the rate of requests",
        ),
        (
            Fault::Status(403, None),
            Trouble::Denied,
            "access denied by",
        ),
        (
            Fault::Status(507, None),
            Trouble::Denied,
            "no space left in",
        ),
        (
            Fault::Status(413, None),
            Trouble::Denied,
            "no space left in",
        ),
        (Fault::Status(405, None), Trouble::Denied, "is read-only"),
        (Fault::Status(400, None), Trouble::Unsupported, "refused by"),
    ] {
        for line in ["POST", "PUT"] {
            // The blob has arrived all the same, and the client looks.
            if line == "PUT" && trouble == Trouble::Transient {
                continue;
            }
            let server = RegistryServer::start(Access::Open).await;
            server.fault(line, fault.clone(), usize::MAX);
            let error = push(&server, &client(), b"small").await.unwrap_err();
            assert_eq!(error.trouble(), trouble, "{line} {fault:?}: {error}");
            let said = error.to_string();
            assert!(said.starts_with("can't push `127.0.0.1:"), "{said}");
            assert!(said.contains(message), "{said}");
        }
    }
}

#[tokio::test]
async fn a_registry_that_falls_silent_is_given_up() {
    let mut options = options();
    options.limits.stall = Duration::from_millis(200);
    options.limits.retries = 0;
    let client = Registry::new(options).unwrap();
    // A listener that takes requests and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let repository = format!("{}/a", silent.local_addr().unwrap());
    let repository: Repository = repository.parse().unwrap();
    let source = UploadSource::Bytes(Bytes::from_static(b"small"));
    let error = client
        .push_blob(&repository, &Sha256Digest::of(b"small"), &source)
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Stalled { .. }), "{error}");
    assert_eq!(error.trouble(), Trouble::Transient);
}

#[tokio::test]
async fn bytes_of_another_digest_are_refused() {
    let server = RegistryServer::start(Access::Open).await;
    let digest = Sha256Digest::of(b"other");
    for bytes in [Bytes::from_static(b"bytes"), large().into()] {
        let source = UploadSource::Bytes(bytes);
        let error = client()
            .push_blob(&repository(&server), &digest, &source)
            .await
            .unwrap_err();
        assert!(matches!(error, RegistryError::Refused { .. }), "{error}");
        assert!(!server.has_blob(REPOSITORY, &digest));
    }
}

#[tokio::test]
async fn a_push_asks_for_the_right_to_push() {
    let dir = tempfile::tempdir().unwrap();
    let server = RegistryServer::start(Access::UserToken("ci", "word")).await;
    let client = known(&server, &dir);
    let repository = repository(&server);
    // The right to read comes first and is not enough.
    let digest = Sha256Digest::of(b"small");
    let size = client.blob_size(&repository, &digest, false).await.unwrap();
    assert_eq!(size, None);
    push(&server, &client, b"small").await.unwrap();
    let tokens: Vec<_> = server
        .seen()
        .into_iter()
        .filter(|s| s.line == "GET /token")
        .collect();
    let scopes: Vec<_> = tokens.iter().map(|s| s.query.as_str()).collect();
    assert_eq!(
        scopes,
        [
            "scope=repository%3Aacme%2Fapp%3Apull&service=test",
            "scope=repository%3Aacme%2Fapp%3Apull%2Cpush&service=test"
        ]
    );
}

#[tokio::test]
async fn requests_side_by_side_share_a_token_and_renew_it_once() {
    let server = RegistryServer::start(Access::AnonymousToken).await;
    let client = client();
    let blobs: Vec<Vec<u8>> = (0..16_u8).map(|n| vec![n; 10]).collect();
    for round in 1..=2 {
        let pushes = blobs.iter().map(|bytes| push(&server, &client, bytes));
        for result in futures_util::future::join_all(pushes).await {
            result.unwrap();
        }
        // One to push, one to read back.
        assert_eq!(server.count("GET /token"), 2 * round);
        server.expire_tokens();
    }
}

#[tokio::test]
async fn a_token_that_expires_between_requests_is_renewed() {
    let server = RegistryServer::start(Access::AnonymousToken).await;
    let client = client();
    server.fault("PATCH", Fault::Expired, 1);
    push(&server, &client, &large()).await.unwrap();
    // The first one of each without a token.
    assert_eq!((server.count("POST"), server.count("PATCH")), (2, 2));
}

#[tokio::test]
async fn only_the_registry_sees_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let server = RegistryServer::start(Access::Basic("ci", "word")).await;
    let storage = RegistryServer::start(Access::Open).await;
    let client = known(&server, &dir);
    // The upload goes to a storage elsewhere, which needs none.
    let begun = storage.begin_upload(REPOSITORY);
    server.fault("POST", Fault::Location(begun), 2);
    let source = UploadSource::Bytes(Bytes::from_static(b"small"));
    let digest = Sha256Digest::of(b"small");
    client
        .push_blob(&repository(&server), &digest, &source)
        .await
        .unwrap();
    assert!(storage.has_blob(REPOSITORY, &digest));
    assert!(storage.seen().iter().all(|s| s.authorization.is_none()));
}

#[tokio::test]
async fn relative_addresses_of_uploads_are_followed() {
    let server = RegistryServer::start(Access::Open).await;
    let id = server.begin_upload(REPOSITORY);
    let id = id.rsplit('/').next().unwrap();
    server.fault("POST", Fault::Location(format!("{id}?state=a%2Fb")), 1);
    push(&server, &client(), b"small").await.unwrap();
    let put = server
        .seen()
        .into_iter()
        .find(|s| s.line.starts_with("PUT"));
    let query = put.unwrap().query;
    assert!(query.starts_with("state=a%2Fb&digest=sha256%3A"), "{query}");
}

#[tokio::test]
async fn uploads_lead_nobody_to_strange_places() {
    for location in ["http://registry.example/x", "file:///etc/passwd", ""] {
        let server = RegistryServer::start(Access::Open).await;
        server.fault("POST", Fault::Location(location.to_owned()), usize::MAX);
        let error = push(&server, &client(), b"small").await.unwrap_err();
        assert_eq!(error.trouble(), Trouble::Unsupported, "{location}: {error}");
    }
}

#[tokio::test]
async fn blobs_are_mounted_where_the_registry_has_them() {
    let server = RegistryServer::start(Access::AnonymousToken).await;
    let client = client();
    let digest = server.put_blob("acme/cache", b"layer");
    let cache: Repository = format!("{}/acme/cache", server.host()).parse().unwrap();
    let repository = repository(&server);
    let mounted = client.mount_blob(&repository, &digest, &cache).await;
    assert!(mounted.unwrap());
    assert!(server.has_blob(REPOSITORY, &digest));
    let token = server.seen().into_iter().find(|s| s.line == "GET /token");
    let query = token.unwrap().query;
    assert!(
        query.contains("scope=repository%3Aacme%2Fapp%3Apull%2Cpush"),
        "{query}"
    );
    assert!(
        query.contains("scope=repository%3Aacme%2Fcache%3Apull"),
        "{query}"
    );

    let absent = Sha256Digest::of(b"absent");
    let mounted = client.mount_blob(&repository, &absent, &cache).await;
    assert!(!mounted.unwrap());
    assert_eq!(
        server.count("DELETE"),
        1,
        "the upload begun instead is ended"
    );
    let elsewhere: Repository = "registry.example/acme/cache".parse().unwrap();
    let mounted = client.mount_blob(&repository, &digest, &elsewhere).await;
    assert!(!mounted.unwrap());
}

#[tokio::test]
async fn manifests_are_pushed_by_tag_and_read_back() {
    let server = RegistryServer::start(Access::Open).await;
    let client = client();
    let repository = repository(&server);
    let config = Descriptor::of("application/x-test", b"{}");
    let manifest = Manifest::new(config, Vec::new());
    let bytes = Bytes::from(serde_json::to_vec(&manifest).unwrap());
    let put = async |tag: &str| {
        client
            .push_manifest(&repository, tag, media::MANIFEST, &bytes)
            .await
    };
    let error = put("v1").await.unwrap_err();
    assert!(matches!(error, RegistryError::Refused { .. }), "{error}");
    push(&server, &client, b"{}").await.unwrap();
    server.fault("PUT", Fault::Status(500, None), 2);
    let digest = put("v1").await.unwrap();
    for selector in ["v1".to_owned(), digest.to_string()] {
        let found = client.manifest(&repository, &selector).await.unwrap();
        let found = found.unwrap();
        assert_eq!((found.digest, &found.bytes), (digest, &bytes));
        assert_eq!(found.media_type, media::MANIFEST);
    }
    assert_eq!(client.manifest(&repository, "none").await.unwrap(), None);
    server.fault("manifests/sha256", Fault::Corrupt(3), usize::MAX);
    let error = client.manifest(&repository, &digest.to_string()).await;
    assert_eq!(error.unwrap_err().trouble(), Trouble::Integrity);
}

#[tokio::test]
async fn ranges_are_read_even_where_the_registry_knows_none() {
    let server = RegistryServer::start(Access::Open).await;
    let bytes = large();
    let digest = server.put_blob(REPOSITORY, &bytes);
    let (client, repository) = (client(), repository(&server));
    let size = bytes.len() as u64;
    for fault in [None, Some(Fault::IgnoreRange), Some(Fault::Cut(1000))] {
        for range in [0..10, 70_000..200_000, size - 1..size, size - 1..size + 5] {
            if let Some(fault) = &fault {
                server.fault("GET", fault.clone(), 1);
            }
            let read = client.read_range(&repository, &digest, range.clone()).await;
            let read = read.unwrap().unwrap();
            let end = usize::try_from(range.end.min(size)).unwrap();
            let expected = &bytes[usize::try_from(range.start).unwrap()..end];
            assert!(read == expected, "{fault:?} {range:?}");
        }
    }
    let absent = Sha256Digest::of(b"absent");
    let read = client.read_range(&repository, &absent, 0..1).await;
    assert_eq!(read.unwrap(), None);
}
