//! What every request passes: version, crowd, token, access log.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use axum::{
    body::{Body, HttpBody as _},
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::StreamExt as _;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Shared,
    answer::{Failure, blocking},
    audit::{Audit, Refusal},
    auth::{Grant, Permission},
    store::Namespace,
    upload::Upload,
};
use crate::{
    cache::{
        Scope,
        http::wire::{API_VERSION, DEFAULT_NAMESPACE, VERSION_HEADER, code, is_namespace},
    },
    key::CacheKey,
};

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Who sent a request, and which namespace it is about.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) grant: Arc<Grant>,
    pub(super) namespace: Namespace,
    pub(super) name: String,
    peer: SocketAddr,
    audit: Arc<Audit>,
}

impl Caller {
    /// Fails unless the token has `permission` here.
    pub(super) fn need(&self, permission: Permission, act: &str) -> Result<(), Failure> {
        if self.grant.allows(permission, &self.name) {
            return Ok(());
        }
        let word = permission.word();
        let reason = format!("it has no `{word}` permission in namespace `{}`", self.name);
        Err(self.refuse(act, None, None, &reason))
    }

    /// Fails unless the token may write `scope`.
    pub(super) fn need_scope(
        &self,
        act: &str,
        scope: &Scope,
        key: Option<&CacheKey>,
    ) -> Result<(), Failure> {
        if self.grant.writes(scope.as_str()) {
            return Ok(());
        }
        let reason = format!("it may not write scope `{scope}`");
        Err(self.refuse(act, Some(scope), key, &reason))
    }

    /// Writes a refusal down and answers with it.
    pub(super) fn refuse(
        &self,
        act: &str,
        scope: Option<&Scope>,
        key: Option<&CacheKey>,
        reason: &str,
    ) -> Failure {
        self.note(act, scope, key, reason);
        let token = self.grant.name();
        Failure::denied(format!("token `{token}` can't {act}: {reason}"))
    }

    /// Writes a refusal down.
    pub(super) fn note(
        &self,
        act: &str,
        scope: Option<&Scope>,
        key: Option<&CacheKey>,
        reason: &str,
    ) {
        self.audit.denied(&Refusal {
            token: Some(self.grant.name()),
            peer: self.peer.to_string(),
            namespace: &self.name,
            act,
            scope: scope.map(Scope::as_str),
            key: key.map(CacheKey::to_string),
            reason,
        });
    }
}

/// The outermost layer: an access log, the version, and how many requests run at once.
pub(super) async fn enter(
    State(server): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let peer = peer(&request);
    let mut response = admit(&server, request, next).await;
    response
        .headers_mut()
        .insert(VERSION_HEADER, HeaderValue::from(API_VERSION));
    let status = response.status().as_u16();
    let ms = started.elapsed().as_millis();
    tracing::info!(target: "access", %peer, %method, path, status, ms);
    response
}

async fn admit(server: &Shared, request: Request, next: Next) -> Response {
    if let Some(asked) = request.headers().get(VERSION_HEADER) {
        let asked = String::from_utf8_lossy(asked.as_bytes()).into_owned();
        // The part after a point says what was added, which is no obstacle.
        let major = asked.split('.').next().unwrap_or_default().trim();
        if major != API_VERSION.to_string() {
            return refuse_early(server, request, Failure::version(&asked)).await;
        }
    }
    // Whoever watches a server wants an answer when it is busy most of all.
    if matches!(request.uri().path(), "/healthz" | "/readyz") {
        return next.run(request).await;
    }
    let Ok(turn) = server.turns.clone().try_acquire_owned() else {
        return refuse_early(server, request, Failure::busy()).await;
    };
    next.run(request).await.map(|body| held(body, turn))
}

/// A body that keeps its request's turn until it has been sent, or given up. One that is in memory as a whole
/// has nothing left to do.
fn held(body: Body, turn: OwnedSemaphorePermit) -> Body {
    if body.size_hint().exact().is_some() {
        return body;
    }
    let pieces = body.into_data_stream();
    Body::from_stream(pieces.inspect(move |_| {
        let _turn = &turn;
    }))
}

/// Finds out who asks; for what lies in a namespace.
pub(super) async fn authorize(
    State(server): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let segment = request.uri().path().split('/').nth(2);
    let name = segment.unwrap_or_default().to_owned();
    authorize_in(&server, name, bearer, request, next).await
}

/// Finds out who asks, for what is in no namespace: then the default one is meant. The token
/// may be the password in the address that a client was given.
pub(super) async fn authorize_earlier(
    State(server): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let name = DEFAULT_NAMESPACE.to_owned();
    let token = |value: &str| bearer(value).or_else(|| password(value));
    authorize_in(&server, name, token, request, next).await
}

/// The token of an `Authorization: Bearer`.
fn bearer(value: &str) -> Option<String> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim().to_owned())
}

/// The password of an `Authorization: Basic`.
fn password(value: &str) -> Option<String> {
    let (scheme, pair) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = BASE64_STANDARD.decode(pair.trim()).ok()?;
    let pair = String::from_utf8(pair).ok()?;
    pair.split_once(':').map(|(_, token)| token.to_owned())
}

async fn authorize_in(
    server: &Arc<Shared>,
    name: String,
    token: impl Fn(&str) -> Option<String>,
    mut request: Request,
    next: Next,
) -> Response {
    let asker = match ask(server, &request, name, token) {
        Ok(asker) => asker,
        Err(failure) => return refuse_early(server, request, failure).await,
    };
    let (store, name) = (server.store.clone(), asker.1.clone());
    let namespace = match store.known_namespace(&name) {
        Some(known) => Ok(known),
        None => {
            let grant = asker.0.clone();
            blocking(move || store.namespace(&name, grant.name())).await
        }
    };
    match namespace {
        Ok(namespace) => {
            let (grant, name) = asker;
            let caller = Caller {
                grant,
                namespace,
                name,
                peer: peer(&request),
                audit: server.audit.clone(),
            };
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(failure) => {
            if let Some(reason) = failure.denial() {
                server.audit.denied(&Refusal {
                    token: Some(asker.0.name()),
                    peer: peer(&request).to_string(),
                    namespace: &asker.1,
                    act: "make a namespace",
                    reason,
                    ..Refusal::default()
                });
            }
            refuse_early(server, request, failure).await
        }
    }
}

/// Whose token a request about the namespace `name` has, which `token` finds in the header.
fn ask(
    server: &Shared,
    request: &Request,
    name: String,
    token: impl Fn(&str) -> Option<String>,
) -> Result<(Arc<Grant>, String), Failure> {
    let peer = peer(request);
    let refuse = |token, reason| {
        server.audit.denied(&Refusal {
            token,
            peer: peer.to_string(),
            namespace: &name.chars().take(64).collect::<String>(),
            act: request.method().as_str(),
            reason,
            ..Refusal::default()
        });
    };
    let presented = request.headers().get(header::AUTHORIZATION);
    let presented = presented.and_then(|value| value.to_str().ok());
    let token = presented.and_then(token);
    let Some(grant) = server.access.grant(token.as_deref()) else {
        let (reason, message) = match token {
            None => ("no token", "a token is needed: `Authorization: Bearer …`"),
            Some(_) => ("unknown token", "the token is not known here"),
        };
        refuse(None, reason);
        let status = StatusCode::UNAUTHORIZED;
        return Err(Failure::new(status, code::UNAUTHORIZED, message));
    };
    if !is_namespace(&name) {
        let message = "a namespace is 1 to 64 of `a-z`, `0-9`, `.`, `_`, `-` and starts with a letter or digit";
        return Err(Failure::invalid(message));
    }
    // Namespaces are made when they are used first: not by everybody.
    let any = [Permission::Read, Permission::Write, Permission::Admin];
    if !any.iter().any(|p| grant.allows(*p, &name)) {
        refuse(Some(grant.name()), "it has no access to the namespace");
        let token = grant.name();
        let message = format!("token `{token}` has no access to namespace `{name}`");
        return Err(Failure::denied(message));
    }
    Ok((grant, name))
}

/// Answers `failure` after reading some of the body.
async fn refuse_early(server: &Shared, request: Request, failure: Failure) -> Response {
    Upload::new(request.into_body(), server.pace, "a body", 0)
        .drain()
        .await;
    failure.into_response()
}

fn peer(request: &Request) -> SocketAddr {
    let peer = request.extensions().get::<Peer>();
    peer.map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |peer| peer.0)
}
