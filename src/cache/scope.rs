//! Trust scopes: under which name an entry is kept, and who may rely on it.
//!
//! An entry says what a step gave; whoever can write it decides what others get. So each
//! entry is kept under the [`Scope`] of the build that made it, and no two scopes share a
//! place: an entry of one can't replace, shadow or evict that of another. A build looks
//! keys up along a [`SearchOrder`], the most trusted scope first.
//!
//! | scope | written by | read by |
//! |---|---|---|
//! | `protected` | builds of protected branches and tags | everybody |
//! | `branch/<name>` | builds of another branch | that branch, and pull requests into it |
//! | `pull/<number>` | builds of a pull or merge request | that request |
//! | `local` | builds outside of CI | builds outside of CI |
//!
//! The text form is what entries, addresses and tokens hold. It consists of `a-z`, `0-9`, `.`,
//! `_`, `-` and `/`; other bytes of a branch's name are written `%xx`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    digest::{Blake3Digest, KeyEncoder},
    key::CacheKey,
};

/// Longest text of a scope in bytes: a part of file names and of registry tags.
const LONGEST: usize = 200;

/// How much is trusted what a scope holds, ascending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trust {
    /// A developer's machine.
    Local,
    /// A proposal that nobody may have looked at.
    Pull,
    /// A branch that anybody with access to the repository can push to.
    Branch,
    /// What only passes by review.
    Protected,
}

/// A trust scope.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope(String);

/// A text that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no scope: it is `protected`, `local`, `branch/<name>` or `pull/<number>`, in \
     small letters, digits, `.`, `_`, `-`, `/` and `%xx`, and not longer than {LONGEST} bytes"
)]
pub struct ScopeError {
    text: String,
}

impl Scope {
    /// The scope of protected branches and tags.
    pub fn protected() -> Self {
        Self("protected".to_owned())
    }

    /// The scope of builds outside of CI.
    pub fn local() -> Self {
        Self("local".to_owned())
    }

    /// The scope of a branch, by its name without `refs/heads/`. A name that gives a text too
    /// long is replaced by its digest.
    pub fn branch(name: &str) -> Self {
        Self::named("branch", name)
    }

    /// The scope of a pull or merge request, by its number.
    pub fn pull(number: &str) -> Self {
        Self::named("pull", number)
    }

    fn named(kind: &str, name: &str) -> Self {
        use fmt::Write as _;
        let mut text = format!("{kind}/");
        for byte in name.bytes() {
            let plain =
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
            // A slash only between two parts that are not `.` or `..`: texts become paths.
            match plain {
                true => text.push(char::from(byte)),
                // Writing to a string has no way to fail.
                false if byte == b'/' => text.push('/'),
                false => {
                    let _ = write!(text, "%{byte:02x}");
                }
            }
        }
        match text.parse() {
            Ok(scope) => scope,
            Err(ScopeError { .. }) => Self(format!(
                "{kind}/%{}",
                Blake3Digest::of(name.as_bytes()).hex()
            )),
        }
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How much it is trusted.
    pub fn trust(&self) -> Trust {
        match self.0.split('/').next() {
            Some("protected") => Trust::Protected,
            Some("branch") => Trust::Branch,
            Some("pull") => Trust::Pull,
            _ => Trust::Local,
        }
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/%".contains(&byte)
        };
        let well_formed = text.len() <= LONGEST
            && text.bytes().all(allowed)
            && text.split('/').all(|part| !matches!(part, "" | "." | ".."));
        let known = match text.split_once('/') {
            None => matches!(text, "protected" | "local"),
            Some((kind, _)) => matches!(kind, "branch" | "pull"),
        };
        match well_formed && known {
            true => Ok(Self(text.to_owned())),
            false => Err(ScopeError {
                text: text.to_owned(),
            }),
        }
    }
}

impl TryFrom<String> for Scope {
    type Error = ScopeError;

    fn try_from(text: String) -> Result<Self, ScopeError> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The scopes that a build reads, the most trusted first, and the one that it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchOrder {
    own: Scope,
    scopes: Vec<Scope>,
}

impl SearchOrder {
    /// What a build of `own` reads: `protected`, then those of `also` that are trusted more
    /// than `own`, then `own` itself.
    pub fn new(own: Scope, also: impl IntoIterator<Item = Scope>) -> Self {
        let mut scopes: Vec<Scope> = also
            .into_iter()
            .filter(|scope| scope.trust() > own.trust())
            .chain([Scope::protected(), own.clone()])
            .collect();
        scopes.sort_by(|a, b| b.trust().cmp(&a.trust()).then_with(|| a.cmp(b)));
        scopes.dedup();
        Self { own, scopes }
    }

    /// What only concerns this machine.
    pub fn local() -> Self {
        Self {
            own: Scope::local(),
            scopes: vec![Scope::local()],
        }
    }

    /// The scope that the build writes under.
    pub fn own(&self) -> &Scope {
        &self.own
    }

    /// The scopes that are read, in order.
    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }
}

/// Where an entry is kept: a key within a scope. Two scopes never share an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub Blake3Digest);

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl EntryId {
    /// The id of the entry under `key` in `scope`.
    pub fn of(scope: &Scope, key: &CacheKey) -> Self {
        let mut encoder = KeyEncoder::new("memobuild-ci 2026-11-21 entry id v1");
        encoder.field("scope", scope.as_str());
        encoder.field("key", key.0.as_bytes());
        Self(encoder.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_branches_become_texts_that_are_safe_in_paths() {
        let text = |name: &str| Scope::branch(name).to_string();
        assert_eq!(text("main"), "branch/main");
        assert_eq!(text("feature/a-b_c.d"), "branch/feature/a-b_c.d");
        assert_eq!(text("Fix #1"), "branch/%46ix%20%231");
        for name in ["../protected", "a//b", "", ".", &"x".repeat(500), "x/.."] {
            let scope = Scope::branch(name);
            assert!(scope.as_str().starts_with("branch/%"), "{scope}");
            assert_eq!(scope.as_str().parse(), Ok(scope.clone()));
        }
        assert_ne!(Scope::branch("a/../b"), Scope::branch("b"));
        assert_ne!(Scope::branch("A"), Scope::branch("a"));
        assert_ne!(Scope::branch("%41"), Scope::branch("A"));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "main",
            "branch",
            "branch/",
            "pull/../protected",
            "Protected",
            "local/x",
            "protected/x",
            "branch/a\nb",
            "/branch/a",
            "branch/a/",
        ] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_build_reads_its_own_scope_and_what_is_trusted_more() {
        let order = |own: Scope, also: &[Scope]| {
            let order = SearchOrder::new(own, also.iter().cloned());
            order
                .scopes()
                .iter()
                .map(Scope::to_string)
                .collect::<Vec<_>>()
        };
        let (main, dev, pull) = (Scope::protected(), Scope::branch("dev"), Scope::pull("7"));
        assert_eq!(
            order(main.clone(), &[dev.clone(), pull.clone()]),
            ["protected"]
        );
        assert_eq!(
            order(pull.clone(), std::slice::from_ref(&dev)),
            ["protected", "branch/dev", "pull/7"]
        );
        assert_eq!(
            order(dev, &[Scope::branch("other"), pull, Scope::local()]),
            ["protected", "branch/dev"],
            "equals don't trust each other"
        );
        assert_eq!(order(Scope::local(), &[]), ["protected", "local"]);
    }

    #[test]
    fn scopes_share_no_ids() {
        let key = CacheKey(Blake3Digest::of(b"key"));
        let (a, b) = (Scope::protected(), Scope::pull("1"));
        assert_ne!(EntryId::of(&a, &key), EntryId::of(&b, &key));
        assert_eq!(
            EntryId::of(&a, &key).0.hex(),
            "51b95df88559ed3f70ebcd641f74e58bc4b7d5d9bc3e6f3cfac73669ddd01e26",
            "the ids stand in stores: changing them loses entries"
        );
    }
}
