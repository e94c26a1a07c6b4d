//! Where what lies in a bucket or a shared directory, version 1.
//!
//! | path | content |
//! |---|---|
//! | `v1/actions/<scope>/~/<first 2 digits>/<64 hex digits>.json` | an entry, by its key |
//! | `v1/blobs/sha256/<first 2 digits>/<64 hex digits>` | a blob |
//! | `v1/tmp/` | in directories only: what is being written |
//!
//! The scope stands as it is written, so that a policy can name a prefix. A scope's text may begin
//! with that of another (`branch/a`, `branch/a/b`) and never has a `~`: so whatever branches are called,
//! no scope's entry lies at, above or below a path of another scope's entry.
//! `docs/internals/remote-cache.md` specifies it.

use crate::{cache::Scope, digest::Sha256Digest, key::CacheKey};

/// Directory for what is being written, below the root.
pub(super) const TEMPORARY: &str = "v1/tmp";

/// The path of the entry under `key` in `scope`.
pub(super) fn action(scope: &Scope, key: &CacheKey) -> String {
    let hex = key.0.hex();
    format!("v1/actions/{scope}/~/{}/{hex}.json", &hex[..2])
}

/// The path of a blob.
pub(super) fn blob(digest: &Sha256Digest) -> String {
    let hex = digest.hex();
    format!("v1/blobs/sha256/{}/{hex}", &hex[..2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Blake3Digest;

    #[test]
    fn paths_are_those_of_the_specification() {
        let key = CacheKey(Blake3Digest::of(b"key"));
        let hex = key.0.hex();
        assert_eq!(
            action(&Scope::pull("7"), &key),
            format!("v1/actions/pull/7/~/{}/{hex}.json", &hex[..2])
        );
        assert_eq!(
            blob(&Sha256Digest::of(b"")),
            "v1/blobs/sha256/e3/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn no_scope_lies_on_the_way_of_another_one() {
        // A name as near to a path of the outer scope as one can be.
        let key = CacheKey(Blake3Digest::of(b"key"));
        let (outer, hex) = (Scope::branch("a"), key.0.hex());
        let inner = Scope::branch(&format!("a/~/{}/{hex}.json", &hex[..2]));
        assert!(inner.as_str().starts_with("branch/a/"));
        let (outer, inner) = (action(&outer, &key), action(&inner, &key));
        assert!(!inner.starts_with(&outer), "{inner}");
        assert!(!outer.starts_with(&inner), "{outer}");
    }
}
