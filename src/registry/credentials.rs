//! Credentials as Docker keeps them: `config.json` and credential helpers.
//!
//! For a host the first of these decides: `credHelpers[host]`, `credsStore`,
//! `auths[host]`; without any of them we are anonymous. A helper is the program
//! `docker-credential-<name>`; `get` reads the server's name on stdin and answers
//! `{"Username", "Secret"}` (docker-credential-helpers protocol). The user name
//! `<token>` marks an identity token. Nothing here is ever printed: the `Debug` form of
//! [`Credentials`] hides the secrets.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt, io,
    path::{Path, PathBuf},
    process::Stdio,
};

use base64::Engine as _;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;

use crate::fs::{self, FsError};

/// How we identify ourselves to a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Not at all.
    Anonymous,
    /// User name and password.
    Basic {
        /// The user.
        username: String,
        /// The password or access token.
        password: String,
    },
    /// An OAuth 2 refresh token, which the token server exchanges.
    IdentityToken(String),
    /// A bearer token for the registry itself.
    RegistryToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(***)",
            Self::IdentityToken(_) => "IdentityToken(***)",
            Self::RegistryToken(_) => "RegistryToken(***)",
        })
    }
}

/// Why credentials can't be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file exists and can't be read.
    #[error("can't read Docker's configuration")]
    Read(#[source] FsError),
    /// The file is not what Docker writes.
    #[error("`{}` is not valid", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why; it never quotes values.
        #[source]
        source: serde_json::Error,
    },
    /// The `auth` member is not base64 of `user:password`.
    #[error("the `auth` of `{host}` in `{}` is not `user:password` in base64", path.display())]
    Auth {
        /// The file.
        path: PathBuf,
        /// The entry.
        host: String,
    },
    /// The helper's program can't be run.
    #[error("can't run the credential helper `{program}`")]
    Run {
        /// Name of the program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The helper failed.
    #[error("the credential helper `{program}` failed: {message}")]
    Helper {
        /// Name of the program.
        program: String,
        /// The first line it said, or its exit status.
        message: String,
    },
    /// The helper's answer is not its protocol's.
    #[error("the credential helper `{program}` gave an answer that is not valid")]
    Answer {
        /// Name of the program.
        program: String,
    },
}

/// Where credentials come from.
#[derive(Debug, Clone)]
pub(super) struct Keychain {
    /// Docker's configuration directory.
    pub(super) docker_config: Option<PathBuf>,
    /// Directories to look for helpers in, in the form of `PATH`; none: the process's own.
    pub(super) helper_path: Option<OsString>,
}

/// The members of `config.json` that concern us.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: BTreeMap<String, AuthEntry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthEntry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

impl Keychain {
    /// The credentials for `host`, a host as in references.
    pub(super) async fn look_up(&self, host: &str) -> Result<Credentials, CredentialsError> {
        let Some(dir) = &self.docker_config else {
            return Ok(Credentials::Anonymous);
        };
        let path = dir.join("config.json");
        let config = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<DockerConfig>(&bytes).map_err(|source| {
                CredentialsError::Parse {
                    path: path.clone(),
                    source,
                }
            })?,
            Err(error) if error.is_not_found() => return Ok(Credentials::Anonymous),
            Err(error) => return Err(CredentialsError::Read(error)),
        };
        let helper = find(&config.cred_helpers, host)
            .map(|(_, name)| name.as_str())
            .unwrap_or(&config.creds_store);
        if !helper.is_empty()
            && let Some(found) = self.ask(helper, host).await?
        {
            return Ok(found);
        }
        match find(&config.auths, host) {
            Some((key, entry)) => from_entry(entry).ok_or_else(|| CredentialsError::Auth {
                path,
                host: key.to_owned(),
            }),
            None => Ok(Credentials::Anonymous),
        }
    }

    /// Runs a helper; none if it knows nothing about the host.
    async fn ask(&self, name: &str, host: &str) -> Result<Option<Credentials>, CredentialsError> {
        let program = format!("docker-credential-{name}");
        let run = |source| CredentialsError::Run {
            program: program.clone(),
            source,
        };
        let mut child = tokio::process::Command::new(self.locate(&program).map_err(run)?)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(run)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that doesn't read its input still has an answer.
            let _ = stdin.write_all(server_name(host).as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(run)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout);
            let line = said.lines().next().unwrap_or_default().trim();
            if line.contains("credentials not found") {
                return Ok(None);
            }
            let message = match line {
                "" => output.status.to_string(),
                line => line.to_owned(),
            };
            return Err(CredentialsError::Helper { program, message });
        }
        // The parser's message is dropped: it could quote the answer.
        let answer: HelperAnswer = serde_json::from_slice(&output.stdout)
            .map_err(|_| CredentialsError::Answer { program })?;
        Ok(Some(match answer.username.as_str() {
            "<token>" => Credentials::IdentityToken(answer.secret),
            "" if answer.secret.is_empty() => return Ok(None),
            _ => Credentials::Basic {
                username: answer.username,
                password: answer.secret,
            },
        }))
    }

    /// The program's path, or its name where the process's own `PATH` shall decide.
    fn locate(&self, program: &str) -> io::Result<PathBuf> {
        if program.contains('/') {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        match &self.helper_path {
            None => Ok(PathBuf::from(program)),
            Some(path) => split_path(path)
                .map(|dir| dir.join(program))
                .find(|candidate| fs::exists(candidate))
                .ok_or_else(|| io::ErrorKind::NotFound.into()),
        }
    }
}

fn split_path(path: &OsStr) -> impl Iterator<Item = PathBuf> {
    std::env::split_paths(path).filter(|dir| dir != Path::new(""))
}

/// The name under which Docker files a host.
fn server_name(host: &str) -> &str {
    match host {
        "docker.io" => "https://index.docker.io/v1/",
        host => host,
    }
}

/// The entry for `host`: under its exact name, else under any address on that host.
fn find<'a, T>(entries: &'a BTreeMap<String, T>, host: &str) -> Option<(&'a str, &'a T)> {
    let exact = entries.get_key_value(server_name(host));
    let same_host = || entries.iter().find(|(key, _)| host_of(key) == host);
    exact.or_else(same_host).map(|(k, v)| (k.as_str(), v))
}

/// The host of an address as it may stand in `config.json`.
fn host_of(address: &str) -> &str {
    let address = address
        .strip_prefix("https://")
        .or_else(|| address.strip_prefix("http://"))
        .unwrap_or(address);
    match address.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// The credentials of an entry; none if its `auth` can't be decoded.
fn from_entry(entry: &AuthEntry) -> Option<Credentials> {
    if !entry.identitytoken.is_empty() {
        return Some(Credentials::IdentityToken(entry.identitytoken.clone()));
    }
    if !entry.registrytoken.is_empty() {
        return Some(Credentials::RegistryToken(entry.registrytoken.clone()));
    }
    if !entry.auth.is_empty() {
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(entry.auth.trim())
            .ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (username, password) = text.split_once(':')?;
        return Some(Credentials::Basic {
            username: username.to_owned(),
            password: password.trim_matches('\0').to_owned(),
        });
    }
    // Docker leaves an empty entry behind when a store holds the credentials.
    Some(match entry.username.as_str() {
        "" => Credentials::Anonymous,
        username => Credentials::Basic {
            username: username.to_owned(),
            password: entry.password.clone(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> Credentials {
        Credentials::Basic {
            username: username.to_owned(),
            password: password.to_owned(),
        }
    }

    fn keychain(dir: &Path, config: &str) -> Keychain {
        fs::write_atomic(dir.join("config.json"), config.as_bytes()).unwrap();
        Keychain {
            docker_config: Some(dir.to_owned()),
            helper_path: Some(dir.as_os_str().to_owned()),
        }
    }

    fn helper(dir: &Path, name: &str, script: &str) {
        // A child writes the program: were it open for writing here, a process started
        // by another test could keep it so, and it could not be run.
        let path = dir.join(format!("docker-credential-{name}"));
        let status = std::process::Command::new("sh")
            .args([
                "-c",
                r#"printf '#!/bin/sh\n%s\n' "$1" >"$0" && chmod 755 "$0""#,
            ])
            .arg(path)
            .arg(script)
            .status();
        assert!(status.unwrap().success());
    }

    #[tokio::test]
    async fn entries_are_found_under_all_names_of_a_host() {
        let dir = tempfile::tempdir().unwrap();
        let keychain = keychain(
            dir.path(),
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "dTpwOnE="},
                "https://ghcr.io": {"username": "a", "password": "b"},
                "reg.example:5000/v2/": {"auth": "dTpw", "identitytoken": "refresh"},
                "bearer.example": {"registrytoken": "direct"},
                "store.example": {},
                "broken.example": {"auth": "!"}
            }}"#,
        );
        for (host, expected) in [
            ("docker.io", basic("u", "p:q")),
            ("ghcr.io", basic("a", "b")),
            (
                "reg.example:5000",
                Credentials::IdentityToken("refresh".into()),
            ),
            (
                "bearer.example",
                Credentials::RegistryToken("direct".into()),
            ),
            ("store.example", Credentials::Anonymous),
            ("reg.example", Credentials::Anonymous),
        ] {
            assert_eq!(keychain.look_up(host).await.unwrap(), expected, "{host}");
        }
        assert!(matches!(
            keychain.look_up("broken.example").await,
            Err(CredentialsError::Auth { .. })
        ));
    }

    #[tokio::test]
    async fn helpers_are_asked_by_host() {
        let dir = tempfile::tempdir().unwrap();
        let keychain = keychain(
            dir.path(),
            r#"{"credsStore": "all", "credHelpers": {"t.example": "token", "gone.example": "gone", "bad.example": "bad"},
                "auths": {"file.example": {"auth": "dTpw"}}}"#,
        );
        helper(
            dir.path(),
            "all",
            r#"read host; case $host in *file*|*none*) echo "credentials not found in native keychain"; exit 1;; esac
               echo "{\"ServerURL\":\"$host\",\"Username\":\"$1\",\"Secret\":\"$host\"}""#,
        );
        helper(
            dir.path(),
            "token",
            r#"echo '{"ServerURL":"","Username":"<token>","Secret":"refresh"}'"#,
        );
        helper(dir.path(), "bad", "echo 'locked'; exit 2");
        for (host, expected) in [
            ("docker.io", basic("get", "https://index.docker.io/v1/")),
            ("h.example:5000", basic("get", "h.example:5000")),
            ("t.example", Credentials::IdentityToken("refresh".into())),
            ("file.example", basic("u", "p")),
            ("none.example", Credentials::Anonymous),
        ] {
            assert_eq!(keychain.look_up(host).await.unwrap(), expected, "{host}");
        }
        assert!(matches!(
            keychain.look_up("gone.example").await,
            Err(CredentialsError::Run { .. })
        ));
        let error = keychain.look_up("bad.example").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the credential helper `docker-credential-bad` failed: locked"
        );
    }

    #[test]
    fn debug_hides_secrets() {
        assert_eq!(format!("{:?}", basic("u", "hunter2")), "Basic(***)");
    }
}
