//! Version 2 of the protocol: Twirp with JSON below `ACTIONS_RESULTS_URL`, bytes in Azure's block blobs.
//!
//! Names of fields are sent in snake case and understood in both cases; numbers of 64 bits are texts.
//!
//! | request | answer |
//! |---|---|
//! | `CreateCacheEntry` `{key, version}` | `{ok, signed_upload_url}`; 409, or not `ok`, if the key is taken |
//! | `PUT` to that address, or of its blocks and then of their list | 201 |
//! | `FinalizeCacheEntryUpload` `{key, version, size_bytes}` | `{ok}` |
//! | `GetCacheEntryDownloadURL` `{key, restore_keys, version}` | `{ok, signed_download_url, matched_key}` |

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{
    Client, Found, PART, Parts, ServiceError, broken, denied, is_policy, one_line, unexpected,
    version,
};
use crate::cache::{BlobSource, CacheError};

const SERVICE: &str = "twirp/github.actions.results.api.v1.CacheService/";

/// What all methods answer, as far as it is used.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    ok: bool,
    message: String,
    #[serde(alias = "signedUploadUrl")]
    signed_upload_url: String,
    #[serde(alias = "signedDownloadUrl")]
    signed_download_url: String,
    #[serde(alias = "matchedKey")]
    matched_key: String,
}

async fn call(
    client: &Client,
    act: &'static str,
    method: &str,
    body: Value,
) -> Result<Response, CacheError> {
    let url = client.url(&format!("{SERVICE}{method}"))?;
    let request = client.request(Method::POST, url);
    client.send(act, request.json(&body)).await
}

pub(super) async fn newest(client: &Client, prefix: &str) -> Result<Option<Found>, CacheError> {
    const ACT: &str = "look up keys in";
    let body = json!({ "key": prefix, "restore_keys": [prefix], "version": version() });
    let response = call(client, ACT, "GetCacheEntryDownloadURL", body).await?;
    if response.status() == StatusCode::NOT_FOUND {
        let refused = client.refused(ACT, response).await;
        tracing::debug!(%refused, "nothing found");
        return Ok(None);
    }
    let answer: Answer = client.json(ACT, response).await?;
    if !answer.ok {
        return match is_policy(&answer.message) {
            true => Err(policy(ACT, &answer)),
            false => Ok(None),
        };
    }
    Ok(Some(Found {
        key: answer.matched_key,
        url: answer.signed_download_url,
    }))
}

pub(super) async fn save(
    client: &Client,
    key: &str,
    source: BlobSource,
    size: u64,
) -> Result<bool, CacheError> {
    const ACT: &str = "write to";
    let body = json!({ "key": key, "version": version() });
    let response = call(client, ACT, "CreateCacheEntry", body).await?;
    if response.status() == StatusCode::CONFLICT {
        return Ok(false);
    }
    let answer: Answer = client.json(ACT, response).await?;
    if !answer.ok {
        return match is_policy(&answer.message) {
            true => Err(policy(ACT, &answer)),
            false => Ok(false),
        };
    }
    let url = Url::parse(&answer.signed_upload_url);
    let url = url.map_err(|_| unexpected(ACT, "the address for the upload is none"))?;
    let sent = send(client, url, source, size).await?;
    // A number of 64 bits is a text in this JSON.
    let body = json!({ "key": key, "version": version(), "size_bytes": sent.to_string() });
    let response = call(client, ACT, "FinalizeCacheEntryUpload", body).await?;
    let answer: Answer = client.json(ACT, response).await?;
    match answer.ok {
        true => Ok(true),
        false if is_policy(&answer.message) => Err(policy(ACT, &answer)),
        false => Err(broken(
            ACT,
            ServiceError::Answer {
                status: 200,
                message: one_line(&answer.message),
            },
        )),
    }
}

/// Sends the bytes; gives how many they were.
async fn send(client: &Client, url: Url, source: BlobSource, size: u64) -> Result<u64, CacheError> {
    let mut parts = Parts::of(source).await?;
    if size <= PART as u64 {
        let part = parts.next().await?;
        let sent = part.len() as u64;
        put(client, url, part.into()).await?;
        return Ok(sent);
    }
    let (mut list, mut sent) = (String::new(), 0);
    loop {
        let part = parts.next().await?;
        if part.is_empty() {
            break;
        }
        // Some servers keep the blocks of a whole run together: ids that nobody else has.
        let random = ring::rand::generate::<[u8; 16]>(&ring::rand::SystemRandom::new());
        let random = random.map_err(|_| unexpected("write to", "there are no random numbers"))?;
        let id = BASE64_STANDARD.encode(hex::encode(random.expose()));
        sent += part.len() as u64;
        let url = with_query(&url, &format!("comp=block&blockid={}", escaped(&id)));
        put(client, url, part.into()).await?;
        list.push_str(&format!("<Latest>{id}</Latest>"));
    }
    let list = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{list}</BlockList>");
    put(client, with_query(&url, "comp=blocklist"), list.into()).await?;
    Ok(sent)
}

async fn put(client: &Client, url: Url, body: reqwest::Body) -> Result<(), CacheError> {
    const ACT: &str = "write to";
    let request = client.upload(url).header("x-ms-blob-type", "BlockBlob");
    let request = request.header("content-type", "application/octet-stream");
    let response = client.send(ACT, request.body(body)).await?;
    match response.status().is_success() {
        true => Ok(()),
        false => Err(client.refused(ACT, response).await),
    }
}

/// `url` with more in its query; what stands there already is signed and stays byte for byte.
fn with_query(url: &Url, more: &str) -> Url {
    let mut url = url.clone();
    let query = match url.query() {
        Some(query) => format!("{query}&{more}"),
        None => more.to_owned(),
    };
    url.set_query(Some(&query));
    url
}

/// Base64 in a query.
fn escaped(base64: &str) -> String {
    base64
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D")
}

fn policy(act: &'static str, answer: &Answer) -> CacheError {
    denied(
        act,
        ServiceError::Policy {
            message: one_line(&answer.message),
        },
    )
}
