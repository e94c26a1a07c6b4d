//! The secrets `GIT_AUTH_TOKEN` and `GIT_AUTH_HEADER`, as BuildKit has them: what web servers
//! with Git repositories are shown. With `.HOST` behind its name a secret is for that host
//! only, and goes before one for all.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::git_program::escaped;

/// Values of `Authorization` headers.
#[derive(Clone, Default)]
pub struct GitAuth {
    /// By host; the empty one is for all.
    headers: BTreeMap<String, String>,
}

impl std::fmt::Debug for GitAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.headers.keys()).finish()
    }
}

impl GitAuth {
    /// The secrets among these, by their ids, that are for repositories.
    pub fn of<'s>(secrets: impl IntoIterator<Item = (&'s str, &'s [u8])>) -> Self {
        let mut headers = BTreeMap::new();
        let mut tokens = BTreeMap::new();
        for (id, value) in secrets {
            let host = |name: &str| match id.strip_prefix(name)? {
                "" => Some(String::new()),
                rest => rest.strip_prefix('.').map(str::to_owned),
            };
            let value = String::from_utf8_lossy(value);
            if let Some(host) = host("GIT_AUTH_HEADER") {
                headers.insert(host, value.trim().to_owned());
            } else if let Some(host) = host("GIT_AUTH_TOKEN") {
                let pair = format!("x-access-token:{}", value.trim());
                tokens.insert(host, format!("basic {}", BASE64_STANDARD.encode(pair)));
            }
        }
        for (host, token) in tokens {
            headers.entry(host).or_insert(token);
        }
        Self { headers }
    }

    /// The lines of Git's configuration for `remote`; none if it is shown nothing.
    pub(super) fn setting(&self, remote: &str) -> String {
        let Some((scheme, rest)) = remote.split_once("://") else {
            return String::new();
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let header = self.headers.get(host).or_else(|| self.headers.get(""));
        match header {
            Some(header) if matches!(scheme, "http" | "https") => format!(
                "[http \"{scheme}://{}/\"]\n\textraheader = \"Authorization: {}\"\n",
                escaped(host),
                escaped(header)
            ),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_own_header_before_that_of_all() {
        let auth = GitAuth::of([
            ("GIT_AUTH_TOKEN", &b"t\n"[..]),
            ("GIT_AUTH_HEADER.h:8080", b"bearer x"),
            ("GIT_AUTH_TOKENS", b"no"),
            ("other", b"no"),
        ]);
        let all = "Authorization: basic eC1hY2Nlc3MtdG9rZW46dA==";
        for (remote, header) in [
            (
                "https://a/x.git",
                format!("[http \"https://a/\"]\n\textraheader = \"{all}\"\n"),
            ),
            (
                "http://u@h:8080/x.git",
                "[http \"http://h:8080/\"]\n\textraheader = \"Authorization: bearer x\"\n"
                    .to_owned(),
            ),
            ("ssh://git@a/x", String::new()),
            ("git@a:x", String::new()),
        ] {
            assert_eq!(auth.setting(remote), header);
        }
        assert!(!format!("{auth:?}").contains("bearer"));
    }
}
