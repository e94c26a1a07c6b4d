//! Who may do what: tokens, their permissions, namespaces and scopes.
//!
//! The token file is YAML:
//!
//! ```yaml
//! tokens:
//!   - name: main
//!     sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//!     permissions: [read, write]
//!     namespaces: [default]
//!     write: [protected, branch/*]
//!   - name: pull-requests
//!     token-file: pull-requests.token
//!     permissions: [read, write]
//!     write: [pull/*]
//! ```
//!
//! A pattern is a scope, or the beginning of one and `*`. A token is known by its SHA-256;
//! tokens are compared in constant time, all of them each time. What the file allows is
//! enforced here alone: nothing depends on what clients say of themselves.

use std::{path::Path, sync::Arc};

use serde::Deserialize;
use serde_saphyr::{MessageFormatter as _, UserMessageFormatter};

use crate::{
    cache::{Scope, Trust, http::wire::is_namespace},
    digest::Sha256Digest,
    fs::{self, FsError},
};

/// Fewest bytes of a token: shorter ones can be guessed.
const SHORTEST: usize = 16;

/// Why a token file is refused.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It, or the file of a token, can't be read.
    #[error(transparent)]
    Read(#[from] FsError),
    /// It is no YAML of the expected shape.
    #[error("the token file is not valid: {message}{}", at(*line))]
    Shape {
        /// What is wrong.
        message: String,
        /// Where; 0 if unknown.
        line: u64,
    },
    /// It has no token.
    #[error("the token file has no token")]
    Empty,
    /// Two tokens have one name.
    #[error("two tokens have the name `{name}`")]
    Twice {
        /// The name.
        name: String,
    },
    /// Neither or both ways to tell the token are used.
    #[error("token `{name}` needs either `sha256` or `token-file`")]
    Value {
        /// Its name.
        name: String,
    },
    /// The digest is none.
    #[error("`sha256` of token `{name}` is not 64 lower-case hexadecimal digits")]
    Digest {
        /// Its name.
        name: String,
    },
    /// Too easily guessed.
    #[error("token `{name}` has fewer than {SHORTEST} bytes")]
    Short {
        /// Its name.
        name: String,
    },
    /// No such namespace can be.
    #[error("`{text}` of token `{name}` is no namespace")]
    Namespace {
        /// Its name.
        name: String,
        /// As written.
        text: String,
    },
    /// No scope has this form.
    #[error(
        "`{text}` of token `{name}` matches no scope: write `protected`, `branch/NAME`, `branch/*`, `pull/*`, `local` or `*`"
    )]
    Pattern {
        /// Its name.
        name: String,
        /// As written.
        text: String,
    },
    /// It may write, but nothing.
    #[error("token `{name}` has the permission `write` and no scopes under `write`")]
    NoScopes {
        /// Its name.
        name: String,
    },
}

fn at(line: u64) -> String {
    match line {
        0 => String::new(),
        line => format!(", line {line}"),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tokens: Vec<Token>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Token {
    name: String,
    sha256: Option<String>,
    token_file: Option<String>,
    permissions: Vec<Permission>,
    namespaces: Option<Vec<String>>,
    read: Option<Vec<String>>,
    write: Option<Vec<String>>,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Look entries up and fetch blobs.
    Read,
    /// Put entries and blobs.
    Write,
    /// Pin entries, collect garbage, see statistics.
    Admin,
}

impl Permission {
    /// As the token file writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// Texts, each with or without a `*` at its end.
#[derive(Debug, Clone)]
struct Patterns(Vec<String>);

impl Patterns {
    fn all() -> Self {
        Self(vec!["*".to_owned()])
    }

    fn matches(&self, text: &str) -> bool {
        self.0
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => text.starts_with(beginning),
                None => text == pattern,
            })
    }

    /// The most trusted class that a pattern reaches.
    fn most(&self) -> Option<Trust> {
        let classes = [Trust::Protected, Trust::Branch, Trust::Pull, Trust::Local];
        let names = ["protected", "branch/", "pull/", "local"];
        let reaches = |name: &str| {
            self.0
                .iter()
                .any(|pattern| match pattern.strip_suffix('*') {
                    Some(beginning) => name.starts_with(beginning) || beginning.starts_with(name),
                    None => pattern.starts_with(name),
                })
        };
        let found = classes.iter().zip(names).find(|(_, name)| reaches(name));
        found.map(|(class, _)| *class)
    }
}

/// What the holder of a token may do.
#[derive(Debug)]
pub struct Grant {
    name: String,
    sha256: Sha256Digest,
    permissions: Vec<Permission>,
    namespaces: Patterns,
    read: Patterns,
    write: Patterns,
}

impl Grant {
    /// What everybody may do on a server without tokens: everything.
    pub fn everything() -> Self {
        Self {
            name: "everybody".to_owned(),
            sha256: Sha256Digest::from_bytes([0; 32]),
            permissions: vec![Permission::Read, Permission::Write, Permission::Admin],
            namespaces: Patterns::all(),
            read: Patterns::all(),
            write: Patterns::all(),
        }
    }

    /// The token's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has a permission in a namespace.
    pub fn allows(&self, permission: Permission, namespace: &str) -> bool {
        self.permissions.contains(&permission) && self.namespaces.matches(namespace)
    }

    /// Whether entries of `scope` may be read.
    pub fn reads(&self, scope: &Scope) -> bool {
        self.read.matches(scope.as_str())
    }

    /// Whether entries of the scope with this text may be written, pinned and collected.
    pub fn writes(&self, scope: &str) -> bool {
        self.write.matches(scope)
    }

    /// The scope to write where a client can't say which: `protected` if that may be written,
    /// else the first one that is named without a star.
    pub fn own_scope(&self) -> Option<Scope> {
        let protected = Scope::protected();
        match self.writes(protected.as_str()) {
            true => Some(protected),
            false => self.write.0.iter().find_map(|text| text.parse().ok()),
        }
    }

    /// The class that blobs count for which no entry names yet.
    pub fn trust(&self) -> Trust {
        self.write.most().unwrap_or(Trust::Local)
    }
}

/// Who is let in.
#[derive(Debug)]
pub enum Access {
    /// Everybody, with this grant.
    Open(Arc<Grant>),
    /// Holders of these tokens.
    Tokens(Vec<Arc<Grant>>),
}

impl Access {
    /// Everybody.
    pub fn open() -> Self {
        Self::Open(Arc::new(Grant::everything()))
    }

    /// Those that the token file at `path` names.
    pub fn from_file(path: &Path) -> Result<Self, TokensError> {
        let text = fs::read_to_string(path)?;
        let file: File = serde_saphyr::from_str(&text).map_err(|error| {
            let error = error.without_snippet();
            TokensError::Shape {
                message: UserMessageFormatter.format_message(error).into_owned(),
                line: error.location().map_or(0, |place| place.line()),
            }
        })?;
        if file.tokens.is_empty() {
            return Err(TokensError::Empty);
        }
        let dir = path.parent().unwrap_or(Path::new(""));
        let mut grants: Vec<Arc<Grant>> = Vec::new();
        for token in file.tokens {
            if grants.iter().any(|known| known.name == token.name) {
                return Err(TokensError::Twice { name: token.name });
            }
            grants.push(Arc::new(grant(token, dir)?));
        }
        Ok(Self::Tokens(grants))
    }

    /// What who presents `token` may do; none if that is nothing.
    pub fn grant(&self, token: Option<&str>) -> Option<Arc<Grant>> {
        let grants = match self {
            Self::Open(grant) => return Some(grant.clone()),
            Self::Tokens(grants) => grants,
        };
        // BLAKE3's hashes compare in constant time. All tokens are compared, so that the time
        // doesn't tell which one it was either.
        let hash = |digest: &Sha256Digest| blake3::Hash::from_bytes(*digest.as_bytes());
        let presented = hash(&Sha256Digest::of(token?.as_bytes()));
        let mut found = None;
        for grant in grants {
            if hash(&grant.sha256) == presented {
                found = Some(grant);
            }
        }
        found.cloned()
    }
}

/// Checks one token of the file in `dir`.
fn grant(token: Token, dir: &Path) -> Result<Grant, TokensError> {
    let name = token.name;
    let sha256 = match (token.sha256, token.token_file) {
        (Some(hex), None) => {
            Sha256Digest::from_hex(&hex).map_err(|_| TokensError::Digest { name: name.clone() })?
        }
        (None, Some(file)) => {
            let text = fs::read_to_string(dir.join(file))?;
            let text = text.trim();
            if text.len() < SHORTEST {
                return Err(TokensError::Short { name });
            }
            Sha256Digest::of(text.as_bytes())
        }
        _ => return Err(TokensError::Value { name }),
    };
    let namespaces = token.namespaces.map_or_else(Patterns::all, Patterns);
    for text in &namespaces.0 {
        let beginning = text.strip_suffix('*').unwrap_or(text);
        if !(is_namespace(beginning) || (beginning.is_empty() && text == "*")) {
            let text = text.clone();
            return Err(TokensError::Namespace { name, text });
        }
    }
    let read = token.read.map_or_else(Patterns::all, Patterns);
    let write = Patterns(token.write.unwrap_or_default());
    for text in read.0.iter().chain(&write.0) {
        let is_scope = match text.strip_suffix('*') {
            Some("") => true,
            // Whatever the star stands for, a letter must do.
            Some(beginning) => format!("{beginning}x").parse::<Scope>().is_ok(),
            None => text.parse::<Scope>().is_ok(),
        };
        if !is_scope {
            let text = text.clone();
            return Err(TokensError::Pattern { name, text });
        }
    }
    if token.permissions.contains(&Permission::Write) && write.0.is_empty() {
        return Err(TokensError::NoScopes { name });
    }
    Ok(Grant {
        name,
        sha256,
        permissions: token.permissions,
        namespaces,
        read,
        write,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Access, TokensError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.yml");
        fs::write_atomic(&path, text.as_bytes()).unwrap();
        fs::write_atomic(dir.path().join("pull.token"), b"pull-requests-token\n").unwrap();
        fs::write_atomic(dir.path().join("short.token"), b"short\n").unwrap();
        Access::from_file(&path)
    }

    #[test]
    fn a_token_is_known_by_its_digest_or_from_its_file() {
        let sha256 = Sha256Digest::of(b"the token of main").hex();
        let access = read(&format!(
            "tokens:\n- {{name: main, sha256: {sha256}, permissions: [read, write], \
             namespaces: [team-*], write: [protected, branch/*]}}\n\
             - {{name: pull, token-file: pull.token, permissions: [read, write], read: [protected], write: [pull/*]}}\n"
        ))
        .unwrap();
        let main = access.grant(Some("the token of main")).unwrap();
        assert_eq!(main.name(), "main");
        assert!(main.allows(Permission::Write, "team-a"));
        assert!(!main.allows(Permission::Write, "other"));
        assert!(!main.allows(Permission::Admin, "team-a"));
        assert!(main.writes("protected") && main.writes("branch/a/b") && !main.writes("pull/1"));
        assert!(main.reads(&Scope::pull("1")));
        assert_eq!(main.trust(), Trust::Protected);
        let pull = access.grant(Some("pull-requests-token")).unwrap();
        assert!(pull.writes("pull/7") && !pull.writes("protected"));
        assert_eq!(main.own_scope(), Some(Scope::protected()));
        assert_eq!(pull.own_scope(), None, "`pull/*` is not one scope");
        assert!(pull.reads(&Scope::protected()) && !pull.reads(&Scope::pull("7")));
        assert_eq!(pull.trust(), Trust::Pull);
        for stranger in [None, Some(""), Some("the token of"), Some(sha256.as_str())] {
            assert!(access.grant(stranger).is_none(), "{stranger:?}");
        }
    }

    #[test]
    fn the_class_of_a_pattern_is_the_most_trusted_that_it_reaches() {
        let most = |pattern: &str| Patterns(vec![pattern.to_owned()]).most();
        assert_eq!(most("*"), Some(Trust::Protected));
        assert_eq!(most("p*"), Some(Trust::Protected));
        assert_eq!(most("pu*"), Some(Trust::Pull));
        assert_eq!(most("branch/release-*"), Some(Trust::Branch));
        assert_eq!(most("pull/7"), Some(Trust::Pull));
        assert_eq!(most("local"), Some(Trust::Local));
        assert_eq!(Patterns(Vec::new()).most(), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let sha256 = "0".repeat(64);
        let token = |rest: &str| read(&format!("tokens:\n- {{name: a, {rest}}}\n"));
        let with = |rest: &str| token(&format!("sha256: '{sha256}', {rest}")).unwrap_err();
        assert!(matches!(read("tokens: []\n"), Err(TokensError::Empty)));
        let error = read("tokens:\n- {name: a, permission: [read]}\n").unwrap_err();
        assert!(matches!(error, TokensError::Shape { .. }), "{error}");
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(matches!(
            token("permissions: [read]"),
            Err(TokensError::Value { .. })
        ));
        assert!(matches!(
            token("permissions: [read], sha256: AB"),
            Err(TokensError::Digest { .. })
        ));
        assert!(matches!(
            token("permissions: [read], token-file: short.token"),
            Err(TokensError::Short { .. })
        ));
        assert!(matches!(
            with("permissions: [write]"),
            TokensError::NoScopes { .. }
        ));
        for pattern in ["main", "pulls/*", "protected/*", "branch/a*b"] {
            let error = with(&format!("permissions: [write], write: ['{pattern}']"));
            assert!(matches!(error, TokensError::Pattern { .. }), "{pattern}");
        }
        assert!(matches!(
            with("permissions: [read], namespaces: [A]"),
            TokensError::Namespace { .. }
        ));
        let twice = format!(
            "tokens:\n- {{name: a, sha256: '{sha256}', permissions: [read]}}\n\
             - {{name: a, sha256: '{sha256}', permissions: [read]}}\n"
        );
        assert!(matches!(read(&twice), Err(TokensError::Twice { .. })));
    }
}
