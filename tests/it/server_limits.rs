//! What one client can take of a cache server.

use memobuild_ci::digest::Sha256Digest;
use reqwest::Method;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::server::{Served, guarded, noise, plain};

#[tokio::test]
async fn a_token_makes_so_many_namespaces_and_no_more() {
    let server = guarded(|options| options.namespaces = 2).await;
    let ask = async |token, namespace: &str| {
        let path = format!("/v1/{namespace}/blobs/missing");
        let body = r#"{"digests": []}"#;
        let answer = server.call(Method::POST, &path, Some(token), body).await;
        (answer.0.as_u16(), answer.1["error"]["message"].clone())
    };
    for namespace in ["one", "two", "one"] {
        assert_eq!(ask("admin-token", namespace).await.0, 200);
    }
    let (status, message) = ask("admin-token", "three").await;
    assert_eq!(status, 403);
    let reason = "token `admin` has made 2 namespaces, as many as it may";
    assert_eq!(message, reason);
    let log = server.audit_log();
    let line = log.lines().last().unwrap();
    assert!(
        line.contains(reason) && line.contains("\"three\""),
        "{line}"
    );
    // Those that are there can be used by everybody, and others make their own.
    assert_eq!(ask("reader-token", "two").await.0, 200);
    assert_eq!(ask("reader-token", "three").await.0, 200);
    assert_eq!(ask("admin-token", "three").await.0, 200);
}

#[tokio::test]
async fn a_download_counts_as_a_request_until_it_has_been_taken() {
    let server = Served::start(|options| options.requests = 1).await;
    // More than sockets hold.
    let bytes = noise(1, 24_000_000);
    let path = format!("/v1/default/blobs/{}", Sha256Digest::of(&bytes));
    let (status, _) = server.call(Method::PUT, &path, None, bytes).await;
    assert!(status.is_success(), "{status}");
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    slow.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 1_000];
    slow.read_exact(&mut head).await.unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200"));
    let status = async || {
        let answer = plain().get(server.url("/v1")).send().await.unwrap();
        answer.status().as_u16()
    };
    assert_eq!(status().await, 429);
    drop(slow);
    while status().await != 200 {
        tokio::task::yield_now().await;
    }
}
