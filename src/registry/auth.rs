//! Authentication to registries: challenges, Basic, and bearer tokens (distribution
//! project, "Token Authentication"; OAuth 2 refresh for identity tokens).
//!
//! A request goes out with what worked last for its repository and [`Access`], or with nothing. A
//! 401 answer carries challenges; the best one we can meet is met once, by one of the requests
//! that run side by side, and a second 401 means denied. Credentials go only to the registry itself and to the token
//! server it names, over https or to this machine.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use reqwest::RequestBuilder;
use serde::Deserialize;

use super::error::Act;
use crate::oci::Repository;

/// What stands in the `Authorization` header.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Authorization {
    /// User name and password.
    Basic(String, String),
    /// A token.
    Bearer(String),
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic(..) => "Basic(***)",
            Self::Bearer(_) => "Bearer(***)",
        })
    }
}

impl Authorization {
    /// The request with the header.
    pub(super) fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Basic(username, password) => request.basic_auth(username, Some(password)),
            Self::Bearer(token) => request.bearer_auth(token),
        }
    }
}

/// What an operation does to its repository. A token is for one of these.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Access {
    /// Reads.
    Pull,
    /// Reads and writes.
    Push,
    /// Takes blobs over from the repository with this path on the same host.
    Mount(String),
}

impl Access {
    /// What messages call it.
    pub(super) fn act(&self) -> Act {
        match self {
            Self::Pull => Act::Get,
            Self::Push | Self::Mount(_) => Act::Push,
        }
    }

    /// The scopes of a token for it, where the registry asks for `asked`.
    pub(super) fn scopes(&self, repository: &Repository, asked: Option<&str>) -> Vec<String> {
        let own = |actions| format!("repository:{}:{actions}", repository.path);
        match self {
            Self::Pull => vec![asked.map_or_else(|| own("pull"), str::to_owned)],
            // The first request may only read, and the registry ask for no more than that.
            Self::Push => vec![own("pull,push")],
            Self::Mount(from) => vec![own("pull,push"), format!("repository:{from}:pull")],
        }
    }
}

/// How we authenticate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proof {
    /// The header.
    pub(super) authorization: Authorization,
    /// Whether the user's credentials are behind it.
    pub(super) with_credentials: bool,
}

/// What worked last for one repository and access.
#[derive(Debug, Default)]
pub(super) struct Session {
    last: Mutex<Option<Arc<Proof>>>,
    /// Held by who asks for a token.
    pub(super) renewal: tokio::sync::Mutex<()>,
}

impl Session {
    /// What worked last.
    pub(super) fn proof(&self) -> Option<Arc<Proof>> {
        self.lock().clone()
    }

    /// Remembers what should work.
    pub(super) fn set(&self, proof: Proof) -> Arc<Proof> {
        let proof = Arc::new(proof);
        *self.lock() = Some(proof.clone());
        proof
    }

    /// Forgets what no longer works.
    pub(super) fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Proof>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All sessions, by repository and access.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<(Repository, Access), Arc<Session>>>);

impl Sessions {
    /// That of `repository` and `access`.
    pub(super) fn of(&self, repository: &Repository, access: &Access) -> Arc<Session> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (repository.clone(), access.clone());
        sessions.entry(key).or_default().clone()
    }
}

/// One way of authenticating that a registry offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token from `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// The challenges of a `WWW-Authenticate` header (RFC 9110, section 11.6.1); those
    /// of other schemes are left out.
    pub(super) fn parse(header: &str) -> Vec<Self> {
        let mut found: Vec<(String, HashMap<String, String>)> = Vec::new();
        let mut rest = header;
        loop {
            rest = rest.trim_start_matches([' ', ',', '\t']);
            let end = rest.find([' ', ',', '=', '\t']).unwrap_or(rest.len());
            let (token, after) = rest.split_at(end);
            if token.is_empty() {
                break;
            }
            match after.strip_prefix('=') {
                Some(value) => {
                    let (value, after) = parse_value(value);
                    if let Some((_, parameters)) = found.last_mut() {
                        parameters.insert(token.to_ascii_lowercase(), value);
                    }
                    rest = after;
                }
                None => {
                    found.push((token.to_ascii_lowercase(), HashMap::new()));
                    rest = after;
                }
            }
        }
        let known =
            found
                .into_iter()
                .filter_map(|(scheme, mut parameters)| match scheme.as_str() {
                    "basic" => Some(Self::Basic),
                    "bearer" => Some(Self::Bearer {
                        realm: parameters.remove("realm")?,
                        service: parameters.remove("service"),
                        scope: parameters.remove("scope"),
                    }),
                    _ => None,
                });
        known.collect()
    }
}

/// A quoted string or a token, and what follows it.
fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', ',', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[i + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

/// A token server's answer.
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl TokenAnswer {
    /// The bearer token.
    pub(super) fn into_token(self) -> Option<String> {
        self.token
            .or(self.access_token)
            .filter(|token| !token.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn challenges_are_read() {
        for (header, expected) in [
            ("Basic", vec![Challenge::Basic]),
            ("Basic realm=\"a, b\"", vec![Challenge::Basic]),
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:a/b:pull,push"),
                )],
            ),
            (
                r#"Negotiate, Basic realm="x", bearer realm=https://t , service="q\"q""#,
                vec![Challenge::Basic, bearer("https://t", Some("q\"q"), None)],
            ),
            ("Bearer service=\"x\"", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(Challenge::parse(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_header_ends(header in "\\PC{0,60}") {
            Challenge::parse(&header);
        }

        #[test]
        fn headers_of_the_right_letters_end(header in "[Ba =,\"\\\\]{0,30}") {
            Challenge::parse(&header);
        }
    }
}
