//! Image references as people write them, `debian`, `ghcr.io/acme/app:1.2` or
//! `host:5000/app@sha256:…`.
//!
//! The grammar and the defaults are those of the `distribution/reference` package
//! that Docker uses: a first component with a `.`, a `:`, an upper-case letter or the
//! name `localhost` is a host; without one the image is on Docker Hub
//! (`docker.io`), and there a lone name lies under `library/`. Without tag and digest
//! the tag is `latest`. With both, the digest decides what is fetched and the tag
//! is only carried along.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;

/// The host that names Docker Hub in references.
const HUB: &str = "docker.io";
/// The host that serves Docker Hub's registry.
const HUB_API: &str = "registry-1.docker.io";
/// Longest `host/path` in bytes.
const NAME_LIMIT: usize = 255;
/// Longest tag in bytes.
const TAG_LIMIT: usize = 128;

/// A repository: where an image's manifests and blobs lie.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    /// Host and port as in references: `docker.io`, `localhost:5000`.
    pub host: String,
    /// The path on the host: `library/debian`.
    pub path: String,
}

/// A normalised image reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    /// Where the image lies.
    pub repository: Repository,
    /// The tag; `latest` where neither tag nor digest was given.
    pub tag: Option<String>,
    /// The digest of the manifest or the index.
    pub digest: Option<Sha256Digest>,
}

/// A text that is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseReferenceError {
    /// Nothing before the tag or digest.
    #[error("`{0}` names no image")]
    Empty(String),
    /// An upper-case letter in the path.
    #[error("`{0}` is not an image reference: repository names are lower case")]
    UpperCase(String),
    /// A character or a separator that the grammar doesn't allow in the name.
    #[error("`{0}` is not an image reference: `{1}` is not a repository name")]
    Name(String, String),
    /// A host that is none.
    #[error("`{0}` is not an image reference: `{1}` is not a host name")]
    Host(String, String),
    /// A tag outside `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
    #[error("`{0}` is not an image reference: `{1}` is not a tag")]
    Tag(String, String),
    /// A digest that is not SHA-256.
    #[error("`{0}` is not an image reference: `{1}` is not a digest `sha256:<64 hex digits>`")]
    Digest(String, String),
    /// Host and path together are too long.
    #[error("`{0}` is not an image reference: the name is longer than {NAME_LIMIT} bytes")]
    TooLong(String),
    /// 64 hex digits, which Docker takes for an image id.
    #[error("`{0}` is an image id, not an image reference")]
    ImageId(String),
}

impl Repository {
    /// The host that answers the registry protocol for this repository.
    pub fn api_host(&self) -> &str {
        match self.host.as_str() {
            HUB => HUB_API,
            host => host,
        }
    }

    /// Whether the host is the machine itself: `localhost`, `127.…` or `[::1]`.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// The repository as Docker shows it: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        if self.host != HUB {
            return self.to_string();
        }
        match self.path.strip_prefix("library/") {
            Some(name) if !name.contains('/') => name.to_owned(),
            _ => self.path.clone(),
        }
    }
}

/// Whether `host`, with or without a port, is the machine itself.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    name.trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<std::net::IpAddr>()
        .is_ok_and(|ip| ip.is_loopback())
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

impl FromStr for Repository {
    type Err = ParseReferenceError;

    /// Reads `host/path`; Docker's defaults apply as in references.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_repository(text, text)
    }
}

impl Reference {
    /// The short form that Docker shows, `debian:trixie`, without the default tag.
    pub fn familiar(&self) -> String {
        let mut text = self.repository.familiar();
        self.push_suffix(&mut text, true);
        text
    }

    /// What to ask the registry for: the digest if there is one, else the tag.
    pub fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The same image pinned to `digest`.
    #[must_use]
    pub fn with_digest(&self, digest: Sha256Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }

    fn push_suffix(&self, text: &mut String, familiar: bool) {
        if let Some(tag) = &self.tag
            && !(familiar && tag == "latest" && self.digest.is_none())
        {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
    }
}

/// The full form, `docker.io/library/debian:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.repository.to_string();
        self.push_suffix(&mut text, false);
        f.write_str(&text)
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => match digest.parse() {
                Ok(parsed) => (rest, Some(parsed)),
                Err(_) => {
                    return Err(ParseReferenceError::Digest(
                        text.to_owned(),
                        digest.to_owned(),
                    ));
                }
            },
        };
        // A colon before the last slash belongs to the host.
        let tail = rest.rfind('/').map_or(0, |i| i + 1);
        let (name, tag) = match rest[tail..].find(':') {
            None => (rest, None),
            Some(i) => (&rest[..tail + i], Some(&rest[tail + i + 1..])),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(ParseReferenceError::Tag(text.to_owned(), tag.to_owned()));
        }
        let repository = parse_repository(text, name)?;
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self {
            repository,
            tag,
            digest,
        })
    }
}

impl TryFrom<String> for Reference {
    type Error = ParseReferenceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

/// Splits `name`, a part of the reference `text`, into host and path.
fn parse_repository(text: &str, name: &str) -> Result<Repository, ParseReferenceError> {
    if name.is_empty() {
        return Err(ParseReferenceError::Empty(text.to_owned()));
    }
    if name.len() == 64 && Sha256Digest::from_hex(name).is_ok() {
        return Err(ParseReferenceError::ImageId(text.to_owned()));
    }
    let (host, path) = match name.split_once('/') {
        Some((first, rest)) if looks_like_host(first) => (first, rest),
        _ => (HUB, name),
    };
    let host = match host {
        "index.docker.io" | HUB_API => HUB,
        host => host,
    };
    if !is_host(host) {
        return Err(ParseReferenceError::Host(text.to_owned(), host.to_owned()));
    }
    let path = match host {
        HUB if !path.contains('/') => format!("library/{path}"),
        _ => path.to_owned(),
    };
    if !path.split('/').all(is_component) {
        let shown = name.to_owned();
        return Err(match path.bytes().any(|b| b.is_ascii_uppercase()) {
            true => ParseReferenceError::UpperCase(text.to_owned()),
            false => ParseReferenceError::Name(text.to_owned(), shown),
        });
    }
    if host.len() + 1 + path.len() > NAME_LIMIT {
        return Err(ParseReferenceError::TooLong(text.to_owned()));
    }
    Ok(Repository {
        host: host.to_owned(),
        path,
    })
}

fn looks_like_host(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':', '['])
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

/// `name[:port]`, an IPv4 address, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.rfind(']') {
        Some(end) => host.split_at(end + 1),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port_is_fine = match port.strip_prefix(':') {
        Some(digits) => digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    let name_is_fine = match name.strip_prefix('[') {
        Some(inner) => inner
            .strip_suffix(']')
            .is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()),
        None => name.split('.').all(is_host_label),
    };
    port_is_fine && name_is_fine
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Lower-case letters and digits, joined by `.`, `_`, `__` or dashes.
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let edges = [bytes.first(), bytes.last()];
    if !edges.iter().all(|b| b.is_some_and(|b| alphanumeric(*b))) {
        return false;
    }
    component
        .split(|c: char| c.is_ascii() && alphanumeric(c as u8))
        .all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

/// Whether `tag` may be a tag.
pub fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= TAG_LIMIT
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn defaults_are_dockers() {
        for (text, expected) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:trixie", "docker.io/library/debian:trixie"),
            ("acme/app", "docker.io/acme/app:latest"),
            ("docker.io/debian", "docker.io/library/debian:latest"),
            ("index.docker.io/acme/app", "docker.io/acme/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("[::1]:5000/app:v1", "[::1]:5000/app:v1"),
            ("Acme/app", "Acme/app:latest"),
            ("ghcr.io/a/b/c:1.2", "ghcr.io/a/b/c:1.2"),
            ("a__b/c--d.e_f", "docker.io/a__b/c--d.e_f:latest"),
        ] {
            assert_eq!(full(text), expected);
        }
        assert_eq!(
            full(&format!("debian@{DIGEST}")),
            format!("docker.io/library/debian@{DIGEST}")
        );
        let both: Reference = format!("debian:13@{DIGEST}").parse().unwrap();
        assert_eq!(both.selector(), DIGEST);
        assert_eq!(both.familiar(), format!("debian:13@{DIGEST}"));
    }

    #[test]
    fn familiar_forms_are_short() {
        for (text, expected) in [
            ("debian", "debian"),
            ("docker.io/library/debian:13", "debian:13"),
            ("docker.io/acme/app:latest", "acme/app"),
            ("ghcr.io/acme/app", "ghcr.io/acme/app"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().familiar(), expected);
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        use ParseReferenceError as E;
        for (text, expected) in [
            ("", E::Empty(String::new())),
            (":tag", E::Empty(":tag".into())),
            ("Debian", E::UpperCase("Debian".into())),
            ("a//b", E::Name("a//b".into(), "a//b".into())),
            ("a___b", E::Name("a___b".into(), "a___b".into())),
            ("-a", E::Name("-a".into(), "-a".into())),
            ("a:", E::Tag("a:".into(), String::new())),
            ("a:.x", E::Tag("a:.x".into(), ".x".into())),
            (
                "a@sha256:12",
                E::Digest("a@sha256:12".into(), "sha256:12".into()),
            ),
            ("h.:1/a", E::Host("h.:1/a".into(), "h.:1".into())),
            (&DIGEST[7..], E::ImageId(DIGEST[7..].into())),
        ] {
            assert_eq!(text.parse::<Reference>(), Err(expected), "{text}");
        }
        let long = format!("h.io/{}", "a".repeat(251));
        assert_eq!(long.parse::<Reference>(), Err(E::TooLong(long.clone())));
    }

    #[test]
    fn only_the_machine_itself_is_loopback() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.example.com",
            "127.0.0.1.nip.io",
            "10.0.0.1:5000",
            "docker.io",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    proptest! {
        #[test]
        fn a_reference_survives_both_of_its_forms(text in "([a-z]{1,4}(\\.[a-z]{2})?(:[1-9][0-9]{0,3})?/)?[a-z0-9]{1,4}([._-][a-z0-9]{1,3}){0,2}(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,5})?") {
            let reference: Reference = text.parse().unwrap();
            prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
            prop_assert_eq!(&reference.familiar().parse::<Reference>().unwrap(), &reference);
        }

        #[test]
        fn any_text_is_parsed_or_refused_without_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<Reference>();
        }
    }
}
