//! What the server says of itself.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use serde_json::json;

use super::{
    Shared,
    answer::{self, Failure, blocking},
};
use crate::cache::http::wire::{API_VERSION, MAX_ENTRY, MAX_FRAME, MAX_JSON, MAX_SCOPES, code};

/// `GET /v1`.
pub(super) async fn service(State(server): State<Arc<Shared>>) -> Response {
    answer::json(&json!({
        "name": "memobuild-ci",
        "version": env!("CARGO_PKG_VERSION"),
        "api_versions": [API_VERSION.to_string()],
        "capabilities": ["actions", "blobs", "ranges", "frames", "pins", "gc"],
        "authentication": match server.access {
            super::auth::Access::Open(_) => "none",
            super::auth::Access::Tokens(_) => "bearer",
        },
        "limits": {
            "frame_bytes": MAX_FRAME,
            "json_bytes": MAX_JSON,
            "entry_bytes": MAX_ENTRY,
            "scopes": MAX_SCOPES,
            "requests": server.requests,
        },
    }))
}

/// `GET /healthz`: the process answers.
pub(super) async fn health() -> Response {
    answer::json(&json!({"status": "ok"}))
}

/// `GET /readyz`: requests will be served.
pub(super) async fn readiness(State(server): State<Arc<Shared>>) -> Response {
    let stopping = StatusCode::SERVICE_UNAVAILABLE;
    if server.stopping.load(Ordering::Relaxed) {
        return Failure::new(stopping, code::STOPPING, "the server is stopping").into_response();
    }
    let store = server.store.clone();
    match blocking(move || store.check()).await {
        Ok(()) => answer::json(&json!({"status": "ok"})),
        Err(failure) => {
            let mut response = failure.into_response();
            *response.status_mut() = stopping;
            response
        }
    }
}

/// The document that describes the routes.
pub const OPENAPI: &str = include_str!("openapi.json");

/// `GET /openapi.json`.
pub(super) async fn openapi() -> Response {
    answer::json_text(OPENAPI.as_bytes().to_vec())
}

/// What no route handles.
pub(super) async fn nothing(uri: Uri) -> Failure {
    let mut segments = uri.path().split('/').skip(1);
    let version = segments.next().and_then(|first| first.strip_prefix('v'));
    match version {
        Some(version)
            if !version.is_empty()
                && version != API_VERSION.to_string()
                && version.bytes().all(|b| b.is_ascii_digit()) =>
        {
            Failure::version(version)
        }
        _ => Failure::not_found("there is no such path; `/openapi.json` lists them"),
    }
}

/// A path that has other methods.
pub(super) async fn no_method(method: Method) -> Failure {
    let message = format!("this path has no method {method}; `/openapi.json` lists them");
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, code::METHOD, message)
}
