//! What requests are answered with when they fail, and JSON.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::store::StoreError;
use crate::cache::http::wire::{API_VERSION, ErrorBody, ErrorDetail, code};

/// Seconds after which a client should try again.
const RETRY_SOON: u64 = 1;
const RETRY_FULL: u64 = 60;

/// An answer that is no success.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    detail: Box<ErrorDetail>,
    retry_after: Option<u64>,
    /// Seen by the log alone.
    cause: Option<String>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            detail: Box::new(ErrorDetail {
                code: code.to_owned(),
                message: message.into(),
                ..ErrorDetail::default()
            }),
            retry_after: None,
            cause: None,
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code::INVALID, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code::NOT_FOUND, message)
    }

    pub(super) fn denied(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code::DENIED, message)
    }

    /// What it says if it is a refusal.
    pub(super) fn denial(&self) -> Option<&str> {
        (self.status == StatusCode::FORBIDDEN).then_some(&self.detail.message)
    }

    pub(super) fn too_large(what: &str, limit: u64) -> Self {
        let message = format!("{what} may have {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, code::TOO_LARGE, message)
    }

    pub(super) fn busy() -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self {
            retry_after: Some(RETRY_SOON),
            ..Self::new(status, code::BUSY, "too many requests at once")
        }
    }

    pub(super) fn version(asked: &str) -> Self {
        let message = format!(
            "API version `{asked}` is not supported; this server speaks version {API_VERSION}"
        );
        let mut failure = Self::new(StatusCode::BAD_REQUEST, code::VERSION, message);
        failure.detail.supported = vec![API_VERSION.to_string()];
        failure
    }

    /// Names what is missing.
    pub(super) fn missing(mut self, missing: impl IntoIterator<Item = String>) -> Self {
        self.detail.missing = missing.into_iter().collect();
        self
    }

    fn internal(cause: String) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let message = "the server has trouble of its own; its log tells more";
        Self {
            cause: Some(cause),
            ..Self::new(status, code::INTERNAL, message)
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        if error.is_full() {
            let message = match &error {
                StoreError::Full { .. } => error.to_string(),
                _ => "the disk is full".to_owned(),
            };
            let status = StatusCode::INSUFFICIENT_STORAGE;
            return Self {
                retry_after: Some(RETRY_FULL),
                cause: Some(chain(&error)),
                ..Self::new(status, code::FULL, message)
            };
        }
        if let StoreError::Namespaces { .. } = error {
            return Self::denied(error.to_string());
        }
        Self::internal(chain(&error))
    }
}

/// An error with its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if let Some(cause) = &self.cause {
            tracing::error!(cause, "a request failed");
        }
        let body = ErrorBody {
            error: *self.detail,
        };
        let mut response = json(&body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"memobuild\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// An answer of success.
pub(super) fn json(value: &impl Serialize) -> Response {
    // Serialising plain structs to memory has no way to fail.
    json_text(serde_json::to_vec(value).unwrap_or_default())
}

/// The same from its text.
pub(super) fn json_text(text: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Runs blocking work of the store.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Failure> {
    joined(tokio::task::spawn_blocking(work).await)
}

/// What blocking work of the store came to.
pub(super) fn joined<T>(
    result: Result<Result<T, StoreError>, tokio::task::JoinError>,
) -> Result<T, Failure> {
    match result {
        Ok(result) => Ok(result?),
        // A panic of ours, or the runtime is shutting down.
        Err(error) => Err(Failure::internal(error.to_string())),
    }
}
