//! What client and server of the cache protocol say to each other, version [`API_VERSION`].
//!
//! The protocol is specified in `docs/internals/remote-cache.md`. Objects only grow: a reader
//! ignores fields that it does not know, and takes a default for those that are absent.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    cache::Scope,
    digest::{Blake3Digest, Sha256Digest},
    key::CacheKey,
};

/// The version of the protocol.
pub const API_VERSION: u32 = 1;

/// The header that states the version, in requests and in answers.
pub const VERSION_HEADER: &str = "x-memobuild-api-version";

/// The namespace of addresses that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Most bytes of a frame.
pub const MAX_FRAME: u64 = 16 << 20;

/// Most bytes of the JSON body of a request.
pub const MAX_JSON: usize = 8 << 20;

/// Most bytes of an entry.
pub const MAX_ENTRY: usize = crate::cache::MAX_ENTRY;

/// Most scopes in one look-up.
pub const MAX_SCOPES: usize = 32;

/// A batch of keys to look up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LookupRequest {
    /// The scopes, the one that goes first in front.
    pub scopes: Vec<Scope>,
    /// The keys.
    pub keys: Vec<CacheKey>,
}

/// The entries under the keys of a [`LookupRequest`].
#[derive(Debug, Deserialize)]
pub struct LookupAnswer<'a> {
    /// One for each key, in their order.
    #[serde(borrow)]
    pub entries: Vec<Option<&'a RawValue>>,
    /// Scopes that the token may not read, and that were not looked in.
    #[serde(default)]
    pub denied: Vec<Scope>,
}

/// Digests of blobs that the sender has, or has heard of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MissingRequest {
    /// The digests.
    pub digests: Vec<Sha256Digest>,
}

/// Which of them the server lacks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MissingAnswer {
    /// Those, in the order of the request.
    pub missing: Vec<Sha256Digest>,
}

/// A piece of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The BLAKE3 of its bytes.
    pub digest: Blake3Digest,
    /// Its bytes, from 1 to [`MAX_FRAME`].
    pub size: u64,
}

/// The frames that a blob is made of, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FramesRequest {
    /// All of them; a frame may occur more than once.
    pub frames: Vec<Frame>,
}

/// What has to be sent before the blob can be committed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct FramesAnswer {
    /// Whether the blob is there already.
    #[serde(default)]
    pub present: bool,
    /// The frames that the server lacks, each once.
    pub missing: Vec<Blake3Digest>,
}

/// An entry, by its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its scope.
    pub scope: Scope,
    /// Its key.
    pub key: CacheKey,
}

/// What a pin keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PinRequest {
    /// The entries, which need not be there yet.
    pub entries: Vec<Place>,
}

/// Limits for one garbage collection.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct GcRequest {
    /// Keep at most so many bytes in the namespace.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    /// Drop what was not used for so many seconds.
    #[serde(default)]
    pub max_age_seconds: Option<u64>,
}

/// What a garbage collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcAnswer {
    /// Entries removed.
    pub entries: u64,
    /// Blobs removed.
    pub blobs: u64,
    /// Frames removed.
    pub frames: u64,
    /// Bytes freed.
    pub freed_bytes: u64,
    /// Bytes that are left, in all namespaces.
    pub kept_bytes: u64,
}

/// The body of every answer that is no success.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// A word for programs; see [`code`].
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// The versions of the protocol that the server speaks, with [`code::VERSION`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supported: Vec<String>,
    /// What is missing: digests of blobs with [`code::MISSING_BLOBS`], of frames with
    /// [`code::MISSING_FRAMES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// The words of [`ErrorDetail::code`].
pub mod code {
    /// The request asks for a version that the server does not speak.
    pub const VERSION: &str = "unsupported-version";
    /// No token, or none that the server knows.
    pub const UNAUTHORIZED: &str = "unauthorized";
    /// The token does not allow it.
    pub const DENIED: &str = "denied";
    /// There is nothing under this name.
    pub const NOT_FOUND: &str = "not-found";
    /// The path has no such method.
    pub const METHOD: &str = "method-not-allowed";
    /// The request makes no sense.
    pub const INVALID: &str = "invalid-request";
    /// The bytes are not what their name says.
    pub const DIGEST: &str = "digest-mismatch";
    /// The entry contradicts its place.
    pub const ENTRY: &str = "entry-mismatch";
    /// The entry names blobs that are not there.
    pub const MISSING_BLOBS: &str = "missing-blobs";
    /// The blob is made of frames that are not there.
    pub const MISSING_FRAMES: &str = "missing-frames";
    /// A part of the request is larger than it may be.
    pub const TOO_LARGE: &str = "too-large";
    /// The range lies outside of the blob.
    pub const RANGE: &str = "range-not-satisfiable";
    /// The sender was too slow.
    pub const TOO_SLOW: &str = "too-slow";
    /// Too many requests at once.
    pub const BUSY: &str = "busy";
    /// A quota or the disk is full.
    pub const FULL: &str = "no-space";
    /// The server is broken.
    pub const INTERNAL: &str = "internal";
    /// The server is about to stop.
    pub const STOPPING: &str = "stopping";
}

/// Whether `text` can be a namespace: 1 to 64 of `a-z`, `0-9`, `.`, `_`, `-`, the first one a
/// letter or a digit.
pub fn is_namespace(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 64
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b"._-".contains(&b))
}

/// `text` as a part of a URL's path: everything but letters, digits, `.`, `_`, `-`, `~` and, if
/// asked, `/` percent-encoded.
pub fn path_part(text: &str, slashes: bool) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'~' => {
                out.push(char::from(byte));
            }
            b'/' if slashes => out.push('/'),
            byte => {
                // Writing to a string has no way to fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_one_safe_path_segment() {
        for good in ["default", "a", "team-1.x_y", "0"] {
            assert!(is_namespace(good), "{good}");
        }
        for bad in ["", ".", "..", "-a", "A", "a/b", "a%2f", &"x".repeat(65)] {
            assert!(!is_namespace(bad), "{bad}");
        }
    }

    #[test]
    fn path_parts_keep_nothing_that_means_something() {
        assert_eq!(path_part("branch/%46ix", true), "branch/%2546ix");
        assert_eq!(path_part("a/b?c#d e", false), "a%2Fb%3Fc%23d%20e");
    }
}
