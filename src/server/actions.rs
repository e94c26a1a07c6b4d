//! Entries over HTTP.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};

use super::{
    Shared,
    answer::{self, Failure, blocking},
    auth::Permission,
    gate::Caller,
    store::{NewEntry, PutEntry},
    upload::{Upload, read_json},
};
use crate::{
    cache::{
        ActionResult, RecordError, Scope,
        http::wire::{LookupRequest, MAX_ENTRY, MAX_SCOPES, code},
    },
    key::CacheKey,
};

/// `POST actions/lookup`: the entries under many keys.
pub(super) async fn lookup(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Response, Failure> {
    caller.need(Permission::Read, "look up entries")?;
    let LookupRequest { scopes, keys } = read_json(body, server.pace).await?;
    if scopes.len() > MAX_SCOPES {
        let message = format!("a look-up may have {MAX_SCOPES} scopes");
        return Err(Failure::invalid(message));
    }
    let (scopes, denied): (Vec<Scope>, Vec<Scope>) = scopes
        .into_iter()
        .partition(|scope| caller.grant.reads(scope));
    for scope in &denied {
        caller.note(
            "look up entries",
            Some(scope),
            None,
            "it may not read the scope",
        );
    }
    let Ok(_turn) = server.lookups.acquire().await else {
        return Err(Failure::busy());
    };
    let store = server.store.clone();
    let text = blocking(move || {
        let entries = store.lookup(&caller.namespace, &scopes, &keys)?;
        Ok(lookup_text(&entries, &denied))
    })
    .await?;
    Ok(answer::json_text(text))
}

/// The JSON of an answer, made of the entries' JSON as it is.
fn lookup_text(entries: &[Option<Vec<u8>>], denied: &[Scope]) -> Vec<u8> {
    let bytes: usize = entries.iter().flatten().map(Vec::len).sum();
    let mut text = Vec::with_capacity(bytes + entries.len() * 5 + 64);
    text.extend_from_slice(b"{\"entries\":[");
    for (at, entry) in entries.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        text.extend_from_slice(entry.as_deref().unwrap_or(b"null"));
    }
    text.extend_from_slice(b"],\"denied\":");
    // Serialising plain structs to memory has no way to fail.
    text.extend(serde_json::to_vec(denied).unwrap_or_default());
    text.push(b'}');
    text
}

/// The entry's place that a path names.
fn place(key: &str, scope: &str) -> Result<(CacheKey, Scope), Failure> {
    let key = key.parse().map_err(|e| Failure::invalid(format!("{e}")))?;
    let scope = scope
        .parse()
        .map_err(|e| Failure::invalid(format!("{e}")))?;
    Ok((key, scope))
}

/// `GET actions/{key}/{scope}`: one entry.
pub(super) async fn fetch(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path((_, key, scope)): Path<(String, String, String)>,
) -> Result<Response, Failure> {
    caller.need(Permission::Read, "read an entry")?;
    let (key, scope) = place(&key, &scope)?;
    if !caller.grant.reads(&scope) {
        let reason = "it may not read the scope";
        caller.note("read an entry", Some(&scope), Some(&key), reason);
        let token = caller.grant.name();
        let message = format!("token `{token}` may not read scope `{scope}`");
        return Err(Failure::denied(message));
    }
    let found = blocking(move || server.store.lookup(&caller.namespace, &[scope], &[key])).await?;
    match found.into_iter().flatten().next() {
        Some(entry) => Ok(answer::json_text(entry)),
        None => Err(Failure::not_found("there is no such entry")),
    }
}

/// `PUT actions/{key}/{scope}`: keeps an entry.
pub(super) async fn store(
    State(server): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path((_, key, scope)): Path<(String, String, String)>,
    body: Body,
) -> Result<Response, Failure> {
    let mut upload = Upload::new(body, server.pace, "an entry", MAX_ENTRY as u64);
    let place = place(&key, &scope).and_then(|(key, scope)| {
        caller.need(Permission::Write, "write an entry")?;
        caller.need_scope("write an entry", &scope, Some(&key))?;
        Ok((key, scope))
    });
    let (key, scope) = match place {
        Ok(place) => place,
        Err(failure) => {
            upload.drain().await;
            return Err(failure);
        }
    };
    let text = upload.all().await?;
    let entry = ActionResult::decode_in(std::slice::from_ref(&scope), key, &text);
    let entry = entry.map_err(|error| mismatch(&error))?;
    if let Err(untrusted) = server.keyring.accept(&entry) {
        let reason = untrusted.to_string();
        caller.note("write an entry", Some(&scope), Some(&key), &reason);
        return Err(Failure::denied(format!(
            "the entry is not trusted: {reason}"
        )));
    }
    // What is kept is what was understood, in one spelling.
    let entry = NewEntry::from(&entry);
    let done = blocking(move || server.store.put_entry(&caller.namespace, &entry)).await?;
    kept(done)
}

/// The answer to an entry that was to be written.
pub(super) fn kept(done: PutEntry) -> Result<Response, Failure> {
    match done {
        PutEntry::Done => Ok(StatusCode::NO_CONTENT.into_response()),
        PutEntry::Missing(digests) => {
            let status = StatusCode::FAILED_DEPENDENCY;
            let message = "the entry names blobs that are not here; put them first";
            let failure = Failure::new(status, code::MISSING_BLOBS, message);
            Err(failure.missing(digests.iter().map(ToString::to_string)))
        }
        PutEntry::Size(size) => {
            let message = format!("the entry's layer has {size} bytes, not as many as it says");
            Err(Failure::new(StatusCode::CONFLICT, code::ENTRY, message))
        }
    }
}

fn mismatch(error: &RecordError) -> Failure {
    match error {
        RecordError::Shape(_) | RecordError::Version { .. } => {
            Failure::invalid(format!("the entry can't be read: {}", answer::chain(error)))
        }
        RecordError::Scope { .. } | RecordError::Key { .. } => {
            let message = format!("the entry {error}, which is not where it is put");
            Failure::new(StatusCode::CONFLICT, code::ENTRY, message)
        }
    }
}
