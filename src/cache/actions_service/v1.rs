//! Version 1 of the protocol: `_apis/artifactcache/` below `ACTIONS_CACHE_URL`.
//!
//! | request | answer |
//! |---|---|
//! | `GET cache?keys=KEY&version=V` | 200 `{archiveLocation, cacheKey}`, or 204 |
//! | `POST caches` `{key, version, cacheSize}` | 201 `{cacheId}`; 409, of some servers 400, if the key is taken |
//! | `PATCH caches/ID`, `Content-Range: bytes A-B/*` | 204 |
//! | `POST caches/ID` `{size}` | 204 |

use reqwest::{Method, StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use super::client::{Client, Found, Parts, version};
use crate::cache::{BlobSource, CacheError};

const BASE: &str = "_apis/artifactcache/";
const ACCEPT: &str = "application/json;api-version=6.0-preview.1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hit {
    archive_location: String,
    cache_key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reserved {
    cache_id: u64,
}

pub(super) async fn newest(client: &Client, prefix: &str) -> Result<Option<Found>, CacheError> {
    const ACT: &str = "look up keys in";
    let mut url = client.url(&format!("{BASE}cache"))?;
    url.query_pairs_mut()
        .append_pair("keys", prefix)
        .append_pair("version", &version());
    let request = client.request(Method::GET, url);
    let request = request.header(header::ACCEPT, ACCEPT);
    let response = client.send(ACT, request).await?;
    if matches!(
        response.status(),
        StatusCode::NO_CONTENT | StatusCode::NOT_FOUND
    ) {
        return Ok(None);
    }
    let hit: Hit = client.json(ACT, response).await?;
    Ok(Some(Found {
        key: hit.cache_key,
        url: hit.archive_location,
    }))
}

pub(super) async fn save(
    client: &Client,
    key: &str,
    source: BlobSource,
    size: u64,
) -> Result<bool, CacheError> {
    const ACT: &str = "write to";
    let body = json!({ "key": key, "version": version(), "cacheSize": size });
    let request = client.request(Method::POST, client.url(&format!("{BASE}caches"))?);
    let request = request.header(header::ACCEPT, ACCEPT).json(&body);
    let response = client.send(ACT, request).await?;
    if response.status() == StatusCode::CONFLICT {
        return Ok(false);
    }
    if response.status() == StatusCode::BAD_REQUEST {
        let refused = client.refused(ACT, response).await;
        // Some servers say it this way, and say the same of other things.
        return match client.find(key).await? {
            Some(_) => Ok(false),
            None => Err(refused),
        };
    }
    let Reserved { cache_id } = client.json(ACT, response).await?;
    let url = client.url(&format!("{BASE}caches/{cache_id}"))?;
    let mut parts = Parts::of(source).await?;
    let mut start = 0;
    loop {
        let part = parts.next().await?;
        if part.is_empty() {
            break;
        }
        let end = start + part.len() as u64;
        let request = client.request(Method::PATCH, url.clone());
        let request = request
            .header(header::ACCEPT, ACCEPT)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(
                header::CONTENT_RANGE,
                format!("bytes {start}-{}/*", end - 1),
            );
        let response = client.send(ACT, request.body(part)).await?;
        if !response.status().is_success() {
            return Err(client.refused(ACT, response).await);
        }
        start = end;
    }
    let request = client.request(Method::POST, url);
    let request = request.header(header::ACCEPT, ACCEPT);
    let response = client
        .send(ACT, request.json(&json!({ "size": start })))
        .await?;
    match response.status().is_success() {
        true => Ok(true),
        false => Err(client.refused(ACT, response).await),
    }
}
