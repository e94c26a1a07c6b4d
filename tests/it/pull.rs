//! Pulling from a registry that misbehaves: every fault is survived or has the class
//! that the user can act on, and wrong bytes are never accepted.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use memobuild_ci::{
    digest::Sha256Digest,
    oci::{Platform, Reference, ResolvedManifest},
    registry::{IntegrityError, Registry, RegistryError, RegistryOptions, Trouble},
};

use crate::registry_server::{
    Access, Family, Fault, Image, RegistryServer, basic, client, options,
};

const REPOSITORY: &str = "acme/app";

/// A client that waits half a second for the next byte.
fn impatient() -> Registry {
    let mut options = options();
    options.limits.stall = Duration::from_millis(500);
    Registry::new(options).unwrap()
}

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn reference(server: &RegistryServer, rest: &str) -> Reference {
    format!("{}/{REPOSITORY}{rest}", server.host())
        .parse()
        .unwrap()
}

fn image() -> Image {
    Image::new(Family::Oci, "linux/amd64", &[b"one", b"two"])
}

/// A registry with [`image`] under the tag `v1`.
async fn stocked(access: Access) -> RegistryServer {
    let server = RegistryServer::start(access).await;
    server.push(REPOSITORY, "v1", &image());
    server
}

async fn resolve(
    server: &RegistryServer,
    client: &Registry,
) -> Result<ResolvedManifest, RegistryError> {
    client.resolve(&reference(server, ":v1"), &amd64()).await
}

/// Some bytes that are not the same everywhere.
fn blob_bytes() -> Vec<u8> {
    (0..200_000_u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

async fn fetch(
    server: &RegistryServer,
    client: &Registry,
    digest: &Sha256Digest,
    size: usize,
) -> Result<Vec<u8>, RegistryError> {
    let repository = format!("{}/{REPOSITORY}", server.host());
    let mut out = Vec::new();
    let told = AtomicU64::new(0);
    let progress = |n| {
        let before = told.swap(n, Ordering::Relaxed);
        assert!(n > before, "progress only grows");
    };
    let fetched = client.fetch_blob(&repository, digest, size as u64, &mut out, &progress);
    let fetched = fetched.await;
    assert!(out.len() <= size, "no more is written than was asked for");
    fetched?;
    assert_eq!(told.into_inner(), size as u64);
    Ok(out)
}

#[tokio::test]
async fn both_families_of_media_types_resolve() {
    for family in [Family::Oci, Family::Docker] {
        let server = RegistryServer::start(Access::Open).await;
        let image = Image::new(family, "linux/amd64", &[b"one", b"two"]);
        server.push(REPOSITORY, "v1", &image);
        let resolved = resolve(&server, &client()).await.unwrap();
        assert_eq!(resolved.digest, image.digest());
        assert_eq!(resolved.config.platform(), amd64());
        let digests: Vec<_> = resolved.layers.iter().map(|l| l.digest).collect();
        let expected = [Sha256Digest::of(b"one"), Sha256Digest::of(b"two")];
        assert_eq!(digests, expected);
        assert_eq!(resolved.layers[1].diff_id.0, expected[1]);
    }
}

#[tokio::test]
async fn the_platform_is_chosen_from_an_index() {
    for family in [Family::Oci, Family::Docker] {
        let server = RegistryServer::start(Access::Open).await;
        let images = ["linux/amd64", "linux/arm/v6", "linux/arm64"]
            .map(|platform| Image::new(family, platform, &[platform.as_bytes()]));
        server.push_index(REPOSITORY, "v1", &images);
        let client = client();
        let reference = reference(&server, ":v1");
        for (wanted, expected) in [("linux/amd64", 0), ("linux/arm64", 2), ("linux/arm/v7", 1)] {
            let resolved = client.resolve(&reference, &wanted.parse().unwrap()).await;
            assert_eq!(resolved.unwrap().digest, images[expected].digest());
        }
        let error = client
            .resolve(&reference, &"linux/s390x".parse().unwrap())
            .await
            .unwrap_err();
        assert_eq!(error.trouble(), Trouble::NotFound);
        assert!(
            error
                .to_string()
                .ends_with("has no image for `linux/s390x`")
        );
        let hint = error.hint().unwrap();
        assert_eq!(hint, "it has `linux/amd64`, `linux/arm/v6`, `linux/arm64`");
    }
}

#[tokio::test]
async fn no_request_more_than_needed() {
    let server = stocked(Access::Open).await;
    let image = image();
    let pinned = reference(&server, &format!("@{}", image.digest()));
    client().resolve(&pinned, &amd64()).await.unwrap();
    let lines: Vec<String> = server.seen().into_iter().map(|s| s.line).collect();
    let config = Sha256Digest::of(&image.config);
    assert_eq!(
        lines,
        [
            format!("GET /v2/{REPOSITORY}/manifests/{}", image.digest()),
            format!("GET /v2/{REPOSITORY}/blobs/{config}"),
        ]
    );

    server.forget();
    server.push_index(REPOSITORY, "many", &[image]);
    let reference = reference(&server, ":many");
    client().resolve(&reference, &amd64()).await.unwrap();
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn passing_failures_are_survived() {
    for fault in [
        Fault::Status(500, None),
        Fault::Status(503, Some("0")),
        Fault::Status(429, None),
        Fault::Status(408, None),
        Fault::Cut(0),
        Fault::Cut(10),
    ] {
        let server = stocked(Access::Open).await;
        server.fault("/manifests/", fault.clone(), 2);
        server.fault("/blobs/", fault.clone(), 2);
        let resolved = resolve(&server, &client()).await;
        assert_eq!(resolved.unwrap().digest, image().digest(), "{fault:?}");
        assert_eq!(server.seen().len(), 6, "{fault:?}");
    }
}

#[tokio::test]
async fn a_registry_that_falls_silent_is_asked_again() {
    let server = stocked(Access::Open).await;
    let bytes = blob_bytes();
    let digest = server.put_blob(REPOSITORY, &bytes);
    server.fault("/manifests/", Fault::Stall(10), 1);
    server.fault(&format!("/blobs/{digest}"), Fault::Stall(300_000), 1);
    let client = impatient();
    resolve(&server, &client).await.unwrap();
    let got = fetch(&server, &client, &digest, bytes.len()).await.unwrap();
    assert!(got == bytes);
    server.fault("/manifests/", Fault::Stall(0), usize::MAX);
    let error = resolve(&server, &client).await.unwrap_err();
    assert_eq!(error.trouble(), Trouble::Transient, "{error}");
}

#[tokio::test]
async fn lasting_failures_have_their_class() {
    for (fault, trouble, requests, message) in [
        (
            Fault::Status(500, None),
            Trouble::Transient,
            3,
            "failed with status 500: fault",
        ),
        (
            Fault::Status(429, None),
            Trouble::Transient,
            3,
            "limits the rate of requests",
        ),
        (Fault::Cut(10), Trouble::Transient, 3, "the connection to"),
        (
            Fault::Status(429, Some("3600")),
            Trouble::Transient,
            1,
            "asks to wait 3600 s",
        ),
        (
            Fault::Status(403, None),
            Trouble::Denied,
            1,
            "access denied by",
        ),
        (
            Fault::Status(401, None),
            Trouble::Denied,
            1,
            "access denied by",
        ),
        (
            Fault::Status(404, None),
            Trouble::NotFound,
            1,
            "does not exist in",
        ),
        (
            Fault::Status(418, None),
            Trouble::Unsupported,
            1,
            "answers with status 418",
        ),
        (Fault::Corrupt(30), Trouble::Integrity, 1, "is corrupt"),
        (
            Fault::DigestHeader(Sha256Digest::of(b"").to_string()),
            Trouble::Integrity,
            1,
            "is corrupt",
        ),
        (
            Fault::Body("<html>log in</html>"),
            Trouble::Unsupported,
            1,
            "can't be used",
        ),
        (
            Fault::Body(r#"{"schemaVersion":1,"name":"old","fsLayers":[]}"#),
            Trouble::Unsupported,
            1,
            "can't be used",
        ),
        (
            Fault::Redirect("http://registry.example/".into()),
            Trouble::Unsupported,
            1,
            "redirects to where we don't follow",
        ),
    ] {
        let server = stocked(Access::Open).await;
        server.fault("/manifests/", fault.clone(), usize::MAX);
        let error = resolve(&server, &client()).await.unwrap_err();
        assert_eq!(error.trouble(), trouble, "{fault:?}: {error}");
        let text = error.to_string();
        assert!(text.contains(message), "{fault:?}: {text}");
        assert!(text.contains(&server.host()), "{fault:?}: {text}");
        assert_eq!(server.seen().len(), requests, "{fault:?}");
    }
}

#[tokio::test]
async fn nobody_listening_is_transient() {
    let server = RegistryServer::start(Access::Open).await;
    let reference = reference(&server, ":v1");
    drop(server);
    // The port is free only once the server's task is gone.
    tokio::task::yield_now().await;
    let error = client().resolve(&reference, &amd64()).await.unwrap_err();
    assert_eq!(error.trouble(), Trouble::Transient, "{error}");
}

#[tokio::test]
async fn the_registry_is_asked_again_when_it_says() {
    let server = stocked(Access::Open).await;
    server.fault("/manifests/", Fault::Status(429, Some("0")), 2);
    // With its own pauses the client would wait for an hour.
    let mut options = options();
    options.limits.backoff = Duration::from_secs(3600);
    options.limits.longest_pause = Duration::from_secs(3600);
    let client = Registry::new(options).unwrap();
    assert!(resolve(&server, &client).await.is_ok());
}

#[tokio::test]
async fn an_operation_ends_at_its_deadline() {
    let server = stocked(Access::Open).await;
    let interval = Duration::from_millis(20);
    server.fault("/v2/", Fault::Trickle(interval), usize::MAX);
    let mut options = options();
    options.limits.resolve = Duration::from_millis(150);
    options.limits.blob = Duration::from_millis(150);
    let client = Registry::new(options).unwrap();
    let error = resolve(&server, &client).await.unwrap_err();
    assert!(matches!(error, RegistryError::Deadline { .. }), "{error}");
    let digest = server.put_blob(REPOSITORY, &blob_bytes());
    let size = blob_bytes().len();
    let error = fetch(&server, &client, &digest, size).await.unwrap_err();
    assert!(matches!(error, RegistryError::Deadline { .. }), "{error}");
    assert_eq!(error.trouble(), Trouble::Transient);
}

#[tokio::test]
async fn a_download_cut_twice_continues_where_it_broke() {
    let server = stocked(Access::Open).await;
    let bytes = blob_bytes();
    let digest = server.put_blob(REPOSITORY, &bytes);
    server.fault("/blobs/", Fault::Cut(300_000), 1);
    server.fault("/blobs/", Fault::Cut(100_000), 1);
    let got = fetch(&server, &client(), &digest, bytes.len())
        .await
        .unwrap();
    assert!(got == bytes);
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[0].range, None);
    let starts: Vec<usize> = seen[1..]
        .iter()
        .map(|s| s.range.as_deref().unwrap()["bytes=".len()..].trim_end_matches('-'))
        .map(|start| start.parse().unwrap())
        .collect();
    assert!(0 < starts[0] && starts[0] < starts[1], "{starts:?}");
    assert_eq!(seen[2].bytes, bytes.len() - starts[1]);
}

#[tokio::test]
async fn progress_buys_new_retries() {
    let server = stocked(Access::Open).await;
    let bytes = blob_bytes();
    let digest = server.put_blob(REPOSITORY, &bytes);
    // More cuts than retries, each after some bytes.
    server.fault("/blobs/", Fault::Cut(100_000), 6);
    let got = fetch(&server, &client(), &digest, bytes.len())
        .await
        .unwrap();
    assert!(got == bytes);
    assert_eq!(server.seen().len(), 7);
}

#[tokio::test]
async fn faults_of_downloads_are_survived() {
    for (first, second) in [
        (Fault::Cut(300_000), Fault::IgnoreRange),
        (Fault::Status(429, Some("0")), Fault::Cut(0)),
    ] {
        let server = stocked(Access::Open).await;
        let bytes = blob_bytes();
        let digest = server.put_blob(REPOSITORY, &bytes);
        server.fault("/blobs/", first.clone(), 1);
        server.fault("/blobs/", second.clone(), 1);
        let got = fetch(&server, &client(), &digest, bytes.len())
            .await
            .unwrap();
        assert!(got == bytes, "{first:?}, {second:?}");
    }
}

#[tokio::test]
async fn wrong_bytes_are_never_accepted() {
    for faults in [
        vec![Fault::Corrupt(0)],
        vec![Fault::Corrupt(799_999)],
        vec![Fault::Short(300_000)],
        vec![Fault::Long],
        vec![Fault::Body("else")],
        vec![Fault::Cut(300_000), Fault::Corrupt(0)],
        vec![Fault::Cut(300_000), Fault::ShiftRange(1)],
        vec![Fault::Cut(300_000), Fault::Short(1000)],
    ] {
        let server = stocked(Access::Open).await;
        let bytes = blob_bytes();
        let digest = server.put_blob(REPOSITORY, &bytes);
        for fault in &faults {
            server.fault("/blobs/", fault.clone(), 1);
        }
        let error = fetch(&server, &client(), &digest, bytes.len()).await;
        let error = error.map(|_| ()).unwrap_err();
        assert_eq!(error.trouble(), Trouble::Integrity, "{faults:?}: {error}");
        let subject = format!("`{}/{REPOSITORY}@{digest}`", server.host());
        assert!(error.to_string().contains(&subject), "{error}");
    }
}

#[tokio::test]
async fn wrong_documents_are_never_accepted() {
    let image = image();
    for (line, fault) in [
        ("/manifests/", Fault::Corrupt(30)),
        ("/manifests/", Fault::Short(30)),
        ("/manifests/", Fault::Body("{}")),
        ("/blobs/", Fault::Corrupt(30)),
        ("/blobs/", Fault::Long),
        ("/blobs/", Fault::Body("{}")),
    ] {
        let server = stocked(Access::Open).await;
        server.fault(line, fault.clone(), 1);
        let pinned = reference(&server, &format!("@{}", image.digest()));
        let error = client().resolve(&pinned, &amd64()).await.unwrap_err();
        let RegistryError::Integrity { source, .. } = &error else {
            panic!("{line} {fault:?}: {error}");
        };
        // The digest that was asked for decides, not what the registry claims.
        assert!(!matches!(source, IntegrityError::Claim { .. }), "{source}");
    }
}

#[tokio::test]
async fn a_descriptor_with_the_wrong_size_is_noticed() {
    let server = stocked(Access::Open).await;
    let bytes = blob_bytes();
    let digest = server.put_blob(REPOSITORY, &bytes);
    for size in [bytes.len() - 1, bytes.len() + 1] {
        let error = fetch(&server, &client(), &digest, size).await.unwrap_err();
        assert_eq!(error.trouble(), Trouble::Integrity);
    }
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn the_empty_blob_can_be_had() {
    let server = stocked(Access::Open).await;
    let digest = server.put_blob(REPOSITORY, b"");
    let repository = format!("{}/{REPOSITORY}", server.host());
    let mut out = Vec::new();
    let client = client();
    let fetched = client.fetch_blob(&repository, &digest, 0, &mut out, &|_| ());
    fetched.await.unwrap();
    assert!(out.is_empty());
}

#[tokio::test]
async fn redirected_blobs_arrive_and_credentials_stay() {
    let storage = stocked(Access::Open).await;
    let server = stocked(Access::Basic("u", "p")).await;
    let bytes = blob_bytes();
    let digest = storage.put_blob(REPOSITORY, &bytes);
    server.put_blob(REPOSITORY, &bytes);
    // The first request is answered with a challenge, the second with a redirect.
    let address = format!("http://{}/v2/{REPOSITORY}/blobs/{digest}", storage.host());
    let line = format!("/blobs/{digest}");
    let client = with_config(&server, r#"{"username":"u","password":"p"}"#);
    resolve(&server, &client.0).await.unwrap();
    server.fault(&line, Fault::Redirect(address), 1);
    let got = fetch(&server, &client.0, &digest, bytes.len())
        .await
        .unwrap();
    assert!(got == bytes);
    assert_eq!(storage.seen().len(), 1);
    assert_eq!(storage.seen()[0].authorization, None);
}

/// A client with this entry for the server in its `config.json`.
fn with_config(server: &RegistryServer, entry: &str) -> (Registry, tempfile::TempDir) {
    let config = format!(r#"{{"auths":{{"{}":{entry}}}}}"#, server.host());
    with_config_file(&config)
}

fn with_config_file(config: &str) -> (Registry, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    let options = RegistryOptions {
        docker_config: Some(dir.path().to_owned()),
        helper_path: Some(dir.path().as_os_str().to_owned()),
        ..options()
    };
    (Registry::new(options).unwrap(), dir)
}

#[tokio::test]
async fn every_way_of_logging_in_works() {
    let user = r#"{"username":"u","password":"p"}"#;
    for (access, entry, requests) in [
        // Challenge, then manifest and configuration, plus one request for a token.
        (Access::Basic("u", "p"), user, 3),
        (Access::AnonymousToken, "{}", 4),
        (Access::UserToken("u", "p"), user, 4),
        (Access::UserToken("u", "p"), r#"{"auth":"dTpw"}"#, 4),
        (Access::RefreshToken("r"), r#"{"identitytoken":"r"}"#, 4),
        (Access::FixedToken("t"), r#"{"registrytoken":"t"}"#, 3),
    ] {
        let server = stocked(access.clone()).await;
        let (client, _dir) = with_config(&server, entry);
        let resolved = resolve(&server, &client).await;
        assert_eq!(resolved.unwrap().digest, image().digest(), "{access:?}");
        assert_eq!(server.seen().len(), requests, "{access:?}");
    }
}

#[tokio::test]
async fn credentials_are_shown_only_when_asked_for() {
    let server = stocked(Access::Open).await;
    let (client, _dir) = with_config(&server, r#"{"username":"u","password":"p"}"#);
    resolve(&server, &client).await.unwrap();
    assert!(server.seen().iter().all(|s| s.authorization.is_none()));
}

#[tokio::test]
async fn tokens_are_used_again_and_renewed_when_they_expire() {
    let server = stocked(Access::AnonymousToken).await;
    let client = client();
    resolve(&server, &client).await.unwrap();
    resolve(&server, &client).await.unwrap();
    assert_eq!(server.count("/token"), 1);
    let query = &server.seen()[1].query;
    assert_eq!(query, "scope=repository%3Aacme%2Fapp%3Apull&service=test");
    server.expire_tokens();
    resolve(&server, &client).await.unwrap();
    assert_eq!(server.count("/token"), 2);
}

#[tokio::test]
async fn a_failing_token_server_is_asked_again() {
    let server = stocked(Access::AnonymousToken).await;
    server.fault("/token", Fault::Status(503, None), 2);
    resolve(&server, &client()).await.unwrap();
}

#[tokio::test]
async fn wrong_credentials_are_denied_with_a_hint() {
    for (access, entry, hint) in [
        (Access::Basic("u", "p"), "{}", "log in with `docker login"),
        (
            Access::UserToken("u", "p"),
            "{}",
            "log in with `docker login",
        ),
        (
            Access::Basic("u", "p"),
            r#"{"username":"u","password":"hunter2"}"#,
            "the credentials for",
        ),
        (
            Access::UserToken("u", "p"),
            r#"{"username":"u","password":"hunter2"}"#,
            "the credentials for",
        ),
        (
            Access::RefreshToken("r"),
            r#"{"identitytoken":"hunter2"}"#,
            "the credentials for",
        ),
    ] {
        let server = stocked(access.clone()).await;
        let (client, _dir) = with_config(&server, entry);
        let error = resolve(&server, &client).await.unwrap_err();
        assert_eq!(error.trouble(), Trouble::Denied, "{access:?}: {error}");
        assert!(error.hint().unwrap().starts_with(hint), "{access:?}");
        assert!(!format!("{error:?} {error} {client:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn helpers_are_asked_for_credentials() {
    let server = stocked(Access::Basic("helper", "p")).await;
    let config = format!(r#"{{"credHelpers":{{"{}":"fake"}}}}"#, server.host());
    let (client, dir) = with_config_file(&config);
    let error = resolve(&server, &client).await.unwrap_err();
    assert_eq!(error.trouble(), Trouble::Denied, "no such program: {error}");

    install_helper(
        dir.path(),
        r#"read host; echo "$1 $host" > "${0%/*}/asked"
           echo "{\"ServerURL\":\"$host\",\"Username\":\"helper\",\"Secret\":\"p\"}""#,
    );
    resolve(&server, &client).await.unwrap();
    let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap();
    assert_eq!(asked, format!("get {}\n", server.host()));
    let shown = server.seen().last().unwrap().authorization.clone();
    assert_eq!(shown.unwrap(), basic("helper", "p"));
}

fn install_helper(dir: &Path, script: &str) {
    // A child writes the program: were it open for writing here, a process started by
    // another test could keep it so, and it could not be run.
    let status = std::process::Command::new("sh")
        .args([
            "-c",
            r#"printf '#!/bin/sh\n%s\n' "$1" >"$0" && chmod 755 "$0""#,
        ])
        .arg(dir.join("docker-credential-fake"))
        .arg(script)
        .status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn operations_can_run_on_other_threads() {
    let server = stocked(Access::Open).await;
    let reference = reference(&server, ":v1");
    let task = tokio::spawn(async move {
        let client = client();
        client.resolve(&reference, &amd64()).await.unwrap();
        let repository = reference.repository.to_string();
        let mut out = Vec::new();
        let digest = Sha256Digest::of(b"one");
        let fetched = client.fetch_blob(&repository, &digest, 3, &mut out, &|_| ());
        fetched.await.unwrap();
        out
    });
    assert_eq!(task.await.unwrap(), b"one");
}
