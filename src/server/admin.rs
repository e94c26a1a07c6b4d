//! Pins, garbage collection and statistics over HTTP.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde_json::json;

use super::{
    Shared,
    answer::{self, Failure, blocking},
    auth::Permission,
    gate::Caller,
    store::{CLASSES, GcDemand},
    upload::read_json,
};
use crate::cache::http::wire::{GcRequest, PinRequest};

/// Longest name of a pin, in bytes.
const LONGEST_PIN: usize = 200;

/// `PUT pins/{id}`: keeps entries from being collected.
pub(super) async fn pin(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path((_, id)): Path<(String, String)>,
    body: Body,
) -> Result<Response, Failure> {
    caller.need(Permission::Admin, "pin entries")?;
    let PinRequest { entries } = read_json(body, server.pace).await?;
    if id.len() > LONGEST_PIN {
        let message = format!("the name of a pin may have {LONGEST_PIN} bytes");
        return Err(Failure::invalid(message));
    }
    for place in &entries {
        caller.need_scope("pin an entry", &place.scope, Some(&place.key))?;
    }
    may_replace(&server, &caller, &id).await?;
    blocking(move || server.store.pin(&caller.namespace, &id, &entries)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `DELETE pins/{id}`.
pub(super) async fn unpin(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, Failure> {
    caller.need(Permission::Admin, "unpin entries")?;
    may_replace(&server, &caller, &id).await?;
    match blocking(move || server.store.unpin(&caller.namespace, &id)).await? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(Failure::not_found("there is no such pin")),
    }
}

/// Fails if the pin called `id` keeps entries that the caller may not write.
async fn may_replace(server: &Arc<Shared>, caller: &Caller, id: &str) -> Result<(), Failure> {
    let (shared, asker, id) = (server.clone(), caller.clone(), id.to_owned());
    let scopes = blocking(move || shared.store.pinned_scopes(&asker.namespace, &id)).await?;
    for scope in scopes.iter().filter_map(|scope| scope.parse().ok()) {
        caller.need_scope("unpin an entry", &scope, None)?;
    }
    Ok(())
}

/// `POST gc`: drops what exceeds the given limits.
pub(super) async fn collect(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Response, Failure> {
    caller.need(Permission::Admin, "collect garbage")?;
    let request: GcRequest = read_json(body, server.pace).await?;
    collect_with(server, caller, request).await
}

/// Drops what exceeds the limits in `request`, as far as the caller may.
pub(super) async fn collect_with(
    server: Arc<Shared>,
    caller: Caller,
    request: GcRequest,
) -> Result<Response, Failure> {
    caller.need(Permission::Admin, "collect garbage")?;
    let done = blocking(move || {
        let done = server.store.collect(&GcDemand {
            namespace: Some(&caller.namespace),
            max_age: request.max_age_seconds.map(Duration::from_secs),
            max_bytes: request.max_bytes,
            most: caller.grant.trust(),
            scopes: &|scope| caller.grant.writes(scope),
        })?;
        server.store.sweep()?;
        Ok(done)
    })
    .await?;
    Ok(answer::json(&done))
}

/// `GET stats`: what the namespace holds.
pub(super) async fn stats(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Failure> {
    caller.need(Permission::Admin, "see statistics")?;
    let (stats, quotas) = blocking(move || {
        let stats = server.store.stats(&caller.namespace)?;
        Ok((stats, *server.store.quotas()))
    })
    .await?;
    let by_class = |values: [u64; 4]| {
        let pairs = CLASSES.iter().zip(values);
        pairs
            .map(|(class, value)| ((*class).to_owned(), json!(value)))
            .collect::<serde_json::Map<_, _>>()
    };
    Ok(answer::json(&json!({
        "entries": by_class(stats.entries),
        "blobs": stats.blobs,
        "blob_bytes": stats.blob_bytes,
        "frames": stats.frames,
        "frame_bytes": stats.frame_bytes,
        "pins": stats.pins,
        "server": {
            "used_bytes": by_class(stats.used_bytes),
            "quota_bytes": by_class(quotas.classes),
            "max_bytes": quotas.total,
        },
    })))
}
