//! What a word of ADD, or a build context, names: a local path, a URL, a Git repository.
//!
//! The rules are BuildKit's (`dfgitutil`, `gitutil`): an `http` or `https` URL whose path
//! ends with `.git` is a repository, others are files; `git://`, `ssh://` and
//! `user@host:path` always are repositories. What to take of a repository stands in the
//! fragment (`#ref:directory`) or in the query (`?ref=…&subdir=…`).

use std::path::{Component, Path};

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A path.
    Local,
    /// A file that `http` or `https` gives.
    Http,
    /// A Git repository.
    Git(GitAddress),
}

/// A Git repository, and what of it is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitAddress {
    /// What `git` is given: without query and fragment.
    pub remote: String,
    /// Branch, tag, `pull/1/head` or full commit; the default branch if empty.
    pub reference: String,
    /// The directory to take, without slashes at its ends; all if empty.
    pub subdir: String,
    /// The commit it must be, or the first digits of it.
    pub checksum: Option<String>,
    /// Whether `.git` is kept, if the address says so.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched, if the address says so.
    pub submodules: Option<bool>,
    /// Whether `checksum` is taken for the commit without a question to the server.
    pub fetch_by_commit: bool,
}

/// What is wrong with the address of a repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum AddressError {
    #[error("the query has no `{key}`")]
    Unknown { key: String },
    #[error("`{key}` stands twice in the query")]
    Twice { key: String },
    #[error("`{key}` in the query has no value")]
    NoValue { key: String },
    #[error("`{value}` is not a value of `{key}`")]
    Value { key: String, value: String },
    #[error("it names both `{first}` and `{second}`")]
    Conflict { first: String, second: String },
    #[error("`{reference}` is not a branch, tag or commit")]
    Reference { reference: String },
    #[error("`{host}` is not a host")]
    Host { host: String },
}

impl Address {
    /// What `text` names in an ADD.
    pub fn of(text: &str) -> Result<Self, AddressError> {
        let Some((scheme, rest)) = split_scheme(text) else {
            return Ok(match scp_parts(text) {
                Some((remote, query, fragment)) => {
                    Self::Git(GitAddress::new(remote, query, fragment)?)
                }
                None => Self::Local,
            });
        };
        let (before, fragment) = split(rest, '#');
        let (remote, query) = split(before, '?');
        let path = remote.find('/').map_or("", |at| &remote[at..]);
        let is_http = matches!(scheme.as_str(), "http" | "https");
        match scheme.as_str() {
            "http" | "https" if !decode(path, false).ends_with(".git") => return Ok(Self::Http),
            "http" | "https" | "git" | "ssh" => {}
            _ => return Ok(Self::Local),
        }
        let host = remote[..remote.len() - path.len()].rsplit('@').next();
        if !is_http && host.is_some_and(|host| host.starts_with('-')) {
            let host = host.unwrap_or_default().to_owned();
            return Err(AddressError::Host { host });
        }
        GitAddress::new(
            &text[..text.len() - rest.len() + remote.len()],
            query,
            fragment,
        )
        .map(Self::Git)
    }

    /// What `text` names as a build context: there `github.com/…` is a repository too.
    pub fn of_context(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix("github.com/") {
            None => Self::of(text),
            Some(_) => {
                let (before, fragment) = split(text, '#');
                let (remote, query) = split(before, '?');
                GitAddress::new(&format!("https://{remote}"), query, fragment).map(Self::Git)
            }
        }
    }
}

impl GitAddress {
    fn new(
        remote: &str,
        query: Option<&str>,
        fragment: Option<&str>,
    ) -> Result<Self, AddressError> {
        let fragment = decode(fragment.unwrap_or_default(), false);
        let (reference, subdir) = split(&fragment, ':');
        let mut address = Self {
            remote: remote.to_owned(),
            reference: reference.to_owned(),
            subdir: clean(subdir.unwrap_or_default()),
            ..Self::default()
        };
        address.take_query(query.unwrap_or_default())?;
        // What Git allows in no name (git-check-ref-format), or would take for an option.
        let odd = |c: char| c.is_control() || " :*?[~^\\".contains(c);
        let name = &address.reference;
        if name.starts_with(['-', '+', '/']) || name.contains(odd) || name.contains("..") {
            return Err(AddressError::Reference {
                reference: address.reference,
            });
        }
        Ok(address)
    }

    fn take_query(&mut self, query: &str) -> Result<(), AddressError> {
        let mut seen: Vec<String> = Vec::new();
        let (mut tag, mut branch) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = split(pair, '=');
            let (key, value) = (decode(key, true), decode(value.unwrap_or_default(), true));
            if seen.contains(&key) {
                return Err(AddressError::Twice { key });
            }
            seen.push(key.clone());
            let switch = || match value.as_str() {
                "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
                _ => Err(AddressError::Value {
                    key: key.clone(),
                    value: value.clone(),
                }),
            };
            match key.as_str() {
                "submodules" => self.submodules = Some(switch()?),
                "keep-git-dir" => self.keep_git_dir = Some(switch()?),
                "fetch-by-commit" => self.fetch_by_commit = switch()?,
                _ if value.is_empty() => return Err(AddressError::NoValue { key }),
                "ref" => agree(&mut self.reference, value)?,
                "tag" => tag = Some(value),
                "branch" => branch = Some(value),
                "subdir" => agree(&mut self.subdir, clean(&value))?,
                "checksum" | "commit" => self.checksum = Some(value),
                // All paths of a layer get one time anyway.
                "mtime" if value == "checkout" || value == "commit" => {}
                "mtime" => return Err(AddressError::Value { key, value }),
                _ => return Err(AddressError::Unknown { key }),
            }
        }
        if let (Some(tag), Some(branch)) = (&tag, &branch) {
            return Err(AddressError::Conflict {
                first: tag.clone(),
                second: branch.clone(),
            });
        }
        for (name, prefix) in [(tag, "refs/tags/"), (branch, "refs/heads/")] {
            let Some(name) = name else { continue };
            let full = match name.starts_with(prefix) {
                true => name,
                false => format!("{prefix}{name}"),
            };
            agree(&mut self.reference, full)?;
        }
        Ok(())
    }
}

/// Sets `known` to `value`, unless it is something else already.
fn agree(known: &mut String, value: String) -> Result<(), AddressError> {
    if !known.is_empty() && *known != value {
        return Err(AddressError::Conflict {
            first: known.clone(),
            second: value,
        });
    }
    *known = value;
    Ok(())
}

/// Whether `text` is a whole commit id: 40 hexadecimal digits, or 64.
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The name of the file that a URL gives, as BuildKit takes it: the last part of its path.
pub fn file_name(url: &str) -> String {
    let Some((_, rest)) = split_scheme(url) else {
        return UNNAMED.to_owned();
    };
    let rest = split(split(rest, '#').0, '?').0;
    let path = rest.find('/').map_or("", |at| &rest[at..]);
    if !is_well_encoded(path) {
        return UNNAMED.to_owned();
    }
    let path = decode(path, false);
    let name = path.trim_end_matches('/').rsplit('/').next();
    match name.unwrap_or_default() {
        "" | "." => UNNAMED.to_owned(),
        ".." => "download".to_owned(),
        name if name.chars().any(char::is_control) => "download".to_owned(),
        name => name.to_owned(),
    }
}

/// Name of a file whose URL has none.
const UNNAMED: &str = "__unnamed__";

/// The scheme in lower case, and what follows `://`.
fn split_scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let valid = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
    valid.then(|| (scheme.to_ascii_lowercase(), rest))
}

/// The remote, the query and the fragment of `user@host:path?query#fragment`.
fn scp_parts(text: &str) -> Option<(&str, Option<&str>, Option<&str>)> {
    let (user, rest) = text.split_once('@')?;
    let (host, _) = rest.split_once(':')?;
    let word = |text: &str, more: &str| {
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || more.contains(c);
        !text.is_empty() && text.chars().all(valid)
    };
    // A dash in front would be an option of `ssh`.
    if !word(user, "_") || !word(host, ".") || text.starts_with('-') || host.starts_with('-') {
        return None;
    }
    let (before, fragment) = split(text, '#');
    let (remote, query) = split(before, '?');
    Some((remote, query, fragment))
}

/// What is before the first `at`, and what is after it.
fn split(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// A directory without `.`, `..` and superfluous slashes; `..` stops at the root.
fn clean(dir: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in Path::new(dir).components() {
        match part {
            Component::Normal(name) => parts.extend(name.to_str()),
            Component::ParentDir => {
                parts.pop();
            }
            _ => {}
        }
    }
    parts.join("/")
}

/// Whether every `%` in `text` begins an escape.
fn is_well_encoded(text: &str) -> bool {
    text.split('%').skip(1).all(|part| {
        let digits = part.as_bytes().get(..2);
        digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit))
    })
}

/// `text` with `%41` as `A`, and in a query `+` as a space.
fn decode(text: &str, in_query: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (escaped, bytes[at]) {
            (Some(byte), _) => {
                out.push(byte);
                at += 3;
                continue;
            }
            (None, b'+') if in_query => out.push(b' '),
            (None, byte) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(text: &str) -> GitAddress {
        match Address::of_context(text) {
            Ok(Address::Git(git)) => git,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn paths_files_and_repositories_are_told_apart() {
        for text in [
            "a",
            "./a.git",
            "../x@y:z/../a",
            "github.com/a/b",
            "a@b",
            "ftp://h/x.git",
            "-a@b:c",
            "",
        ] {
            assert_eq!(Address::of(text), Ok(Address::Local), "{text}");
        }
        for text in [
            "https://h/a.tar.gz",
            "http://h/a?x=1.git",
            "https://h/x.gitx",
            "https://h",
        ] {
            assert_eq!(Address::of(text), Ok(Address::Http), "{text}");
        }
        for (text, remote, reference, subdir) in [
            ("https://h/a.git", "https://h/a.git", "", ""),
            ("https://u:p@h/a.git#v1", "https://u:p@h/a.git", "v1", ""),
            ("git://h/a#main:b/c/", "git://h/a", "main", "b/c"),
            ("ssh://git@h:22/a#:../d", "ssh://git@h:22/a", "", "d"),
            (
                "git@h:a/b.git#pull/1/head",
                "git@h:a/b.git",
                "pull/1/head",
                "",
            ),
            ("git@h:a?ref=x%2Fy&subdir=d", "git@h:a", "x/y", "d"),
            (
                "http://h/a.git?tag=v1",
                "http://h/a.git",
                "refs/tags/v1",
                "",
            ),
            (
                "http://h/a.git?branch=b",
                "http://h/a.git",
                "refs/heads/b",
                "",
            ),
            ("github.com/a/b#r", "https://github.com/a/b", "r", ""),
        ] {
            let found = git(text);
            assert_eq!(found.remote, remote, "{text}");
            assert_eq!(found.reference, reference, "{text}");
            assert_eq!(found.subdir, subdir, "{text}");
        }
    }

    #[test]
    fn the_query_says_more() {
        let all = git(
            "https://h/a.git?checksum=abc&keep-git-dir=1&submodules=false&mtime=commit&fetch-by-commit",
        );
        assert_eq!(all.checksum.as_deref(), Some("abc"));
        assert_eq!(all.keep_git_dir, Some(true));
        assert_eq!(all.submodules, Some(false));
        assert!(all.fetch_by_commit);
        for (query, message) in [
            ("x=1", "the query has no `x`"),
            ("ref=a&ref=b", "`ref` stands twice in the query"),
            ("ref=", "`ref` in the query has no value"),
            ("submodules=maybe", "`maybe` is not a value of `submodules`"),
            ("mtime=now", "`now` is not a value of `mtime`"),
            ("tag=a&branch=b", "it names both `a` and `b`"),
            ("ref=-x", "`-x` is not a branch, tag or commit"),
            ("ref=a:b", "`a:b` is not a branch, tag or commit"),
        ] {
            let error = Address::of(&format!("https://h/a.git?{query}")).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        let error = Address::of("https://h/a.git?ref=b#a").unwrap_err();
        assert_eq!(error.to_string(), "it names both `a` and `b`");
        assert!(Address::of("ssh://-oProxyCommand=x/a").is_err());
    }

    #[test]
    fn a_file_is_named_by_the_last_part_of_its_path() {
        for (url, name) in [
            ("https://h/a/b.txt?x=/c", "b.txt"),
            ("https://h/a/b/#c", "b"),
            ("https://h/a%20b", "a b"),
            ("https://h/a%2Fb", "b"),
            ("https://h", "__unnamed__"),
            ("https://h/", "__unnamed__"),
            ("https://h/%zz", "__unnamed__"),
            ("https://h/a/..", "download"),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
    }
}
