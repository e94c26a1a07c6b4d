//! The environment variables that the program reads, declared once.
//!
//! [`Env`] is a snapshot of exactly the variables in [`VARIABLES`]; nothing else of the
//! environment is read, and nothing of it enters a cache key or an image, with two
//! exceptions: `SOURCE_DATE_EPOCH`, and what `--build-arg NAME` names (what `--secret`
//! names is read too, and enters neither). `docs/reference/environment.md` is generated from
//! the table.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

pub use super::{
    platforms::ELSEWHERE,
    variables::{VARIABLES, Variable},
};
use super::{platforms::PLATFORMS, variables::SERVICES};
use crate::redact::SecretBytes;

/// A variable with a value that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// Not a time.
    #[error(
        "environment variable `SOURCE_DATE_EPOCH` is `{value}`, not a number of seconds since 1970"
    )]
    SourceDateEpoch {
        /// As set.
        value: String,
    },
}

/// When to use colour, as `--color` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ColorChoice {
    /// On a terminal, unless the environment says otherwise.
    #[default]
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
}

/// The declared variables that are set and not empty.
#[derive(Clone, Default)]
pub struct Env(BTreeMap<&'static str, OsString>);

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values may be secret.
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Env {
    /// The environment of this process, now.
    pub fn of_process() -> Self {
        Self::from_lookup(|name| std::env::var_os(name))
    }

    /// An environment with these variables only; names that are not declared are
    /// ignored.
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Self {
        Self::from_lookup(|name| {
            let pair = pairs.iter().find(|(n, _)| *n == name);
            pair.map(|(_, value)| OsString::from(value))
        })
    }

    /// The environment of a job of a CI platform that sets `variables`: of this one what says nothing
    /// about a platform, and those. Names that are not declared are ignored.
    #[must_use]
    pub fn on_platform(&self, variables: &BTreeMap<&'static str, String>) -> Self {
        let own = |name: &str| {
            self.0
                .get(name)
                .filter(|_| name != "CI" && !PLATFORMS.iter().any(|v| v.name == name))
        };
        Self::from_lookup(|name| match variables.get(name) {
            Some(value) => Some(value.into()),
            None => own(name).cloned(),
        })
    }

    /// The same with the variable `name`, which is declared, set to `value`.
    #[must_use]
    pub fn with(&self, name: &'static str, value: impl Into<OsString>) -> Self {
        debug_assert!(VARIABLES.iter().any(|v| v.name == name), "{name}");
        let mut all = self.clone();
        all.0.insert(name, value.into());
        all
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let names = VARIABLES.iter().map(|v| v.name);
        let set = names.filter_map(|name| Some((name, lookup(name)?)));
        Self(set.filter(|(_, value)| !value.is_empty()).collect())
    }

    /// The value of a declared variable, if it is UTF-8.
    fn text(&self, name: &'static str) -> Option<&str> {
        debug_assert!(VARIABLES.iter().any(|v| v.name == name), "{name}");
        self.0.get(name)?.to_str()
    }

    fn path(&self, name: &'static str) -> Option<PathBuf> {
        debug_assert!(VARIABLES.iter().any(|v| v.name == name), "{name}");
        self.0.get(name).map(PathBuf::from)
    }

    /// `HOME`.
    pub fn home(&self) -> Option<PathBuf> {
        self.path("HOME")
    }

    /// The directory of the local cache; `configured` is `cache.dir` of the
    /// configuration.
    pub fn cache_dir(&self, configured: Option<PathBuf>) -> PathBuf {
        let xdg = || self.path("XDG_CACHE_HOME").filter(|dir| dir.is_absolute());
        let home = || self.home().map(|home| home.join(".cache"));
        // A container without HOME; there the program runs as root.
        let system = || PathBuf::from("/var/cache");
        self.path("MEMOBUILD_CACHE_DIR")
            .or(configured)
            .unwrap_or_else(|| {
                let base = xdg().or_else(home).unwrap_or_else(system);
                base.join("memobuild-ci")
            })
    }

    /// The directory for images built from a configuration.
    pub fn output_dir(&self) -> PathBuf {
        self.path("MEMOBUILD_OUTPUT")
            .unwrap_or_else(|| ".memobuild-output".into())
    }

    /// The filter of the program's own log.
    pub fn log_filter(&self) -> &str {
        self.text("MEMOBUILD_LOG").unwrap_or("warn")
    }

    /// Seconds since 1970.
    pub fn source_date_epoch(&self) -> Result<Option<u64>, EnvError> {
        let Some(value) = self.0.get("SOURCE_DATE_EPOCH") else {
            return Ok(None);
        };
        let number = value.to_str().and_then(|v| v.parse().ok());
        number.map(Some).ok_or_else(|| EnvError::SourceDateEpoch {
            value: value.to_string_lossy().into_owned(),
        })
    }

    /// The directory of Docker's `config.json`, whether or not it is there.
    pub fn docker_config(&self) -> Option<PathBuf> {
        let home = || self.home().map(|home| home.join(".docker"));
        self.path("DOCKER_CONFIG").or_else(home)
    }

    /// The directory for temporary files.
    pub fn temp_dir(&self) -> PathBuf {
        self.path("TMPDIR").unwrap_or_else(|| "/tmp".into())
    }

    /// Whether to colour what goes to stderr; `terminal` is whether it is one.
    pub fn color(&self, choice: ColorChoice, terminal: bool) -> bool {
        match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if self.0.contains_key("NO_COLOR") => false,
            ColorChoice::Auto => {
                let forced = self.text("CLICOLOR_FORCE").is_some_and(|v| v != "0");
                forced || (terminal && !self.dumb())
            }
        }
    }

    /// Whether progress bars make sense on stderr; `terminal` is whether it is one.
    pub fn bars(&self, terminal: bool) -> bool {
        terminal && !self.dumb() && !self.ci()
    }

    fn dumb(&self) -> bool {
        self.text("TERM") == Some("dumb")
    }

    /// Whether this is a CI job.
    pub fn ci(&self) -> bool {
        self.0.get("CI").is_some_and(|v| v != "false" && v != "0")
    }

    /// The proxy variables that are set, as name and value: Docker's predefined build
    /// arguments. The values may hold passwords.
    pub fn proxies(&self) -> Vec<(&'static str, String)> {
        let set = self.0.iter().filter(|(name, _)| is_proxy(name));
        set.map(|(name, value)| (*name, value.to_string_lossy().into_owned()))
            .collect()
    }

    /// The value of a variable by which a CI platform describes the build.
    pub fn platform(&self, name: &'static str) -> Option<&str> {
        self.text(name)
    }

    /// The addresses of remote caches; none if the variable is not set.
    pub fn remote_urls(&self) -> Option<Vec<String>> {
        let urls = self.text("MEMOBUILD_REMOTE_URL")?;
        Some(urls.split_whitespace().map(str::to_owned).collect())
    }

    /// The token for cache servers.
    pub fn token(&self) -> Option<SecretBytes> {
        self.secret("MEMOBUILD_TOKEN")
    }

    /// The trust scope to write under.
    pub fn cache_scope(&self) -> Option<&str> {
        self.text("MEMOBUILD_CACHE_SCOPE")
    }

    /// Whether remote caches keep the directories of cache mounts, as `--cache-mounts` says it.
    pub fn cache_mounts(&self) -> Option<&str> {
        self.text("MEMOBUILD_CACHE_MOUNTS")
    }

    /// The private key to sign with, or the path of its file.
    pub fn signing_key(&self) -> Option<SecretBytes> {
        self.secret("MEMOBUILD_SIGNING_KEY")
    }

    /// Public keys whose signatures count.
    pub fn trusted_keys(&self) -> Option<&str> {
        self.text("MEMOBUILD_TRUSTED_KEYS")
    }

    /// What remote caches are opened with, by the names of the variables.
    pub fn services(&self) -> BTreeMap<&'static str, SecretBytes> {
        let set = SERVICES.iter().copied();
        set.filter_map(|name| Some((name, self.secret(name)?)))
            .collect()
    }

    fn secret(&self, name: &'static str) -> Option<SecretBytes> {
        self.text(name).map(|text| text.as_bytes().to_vec().into())
    }

    /// Where devices are described.
    pub fn device_dirs(&self) -> Vec<PathBuf> {
        match self.0.get("MEMOBUILD_CDI_DIRS") {
            Some(list) => std::env::split_paths(list).collect(),
            None => crate::device::DIRECTORIES.map(PathBuf::from).into(),
        }
    }

    /// The socket of the user's SSH agent.
    pub fn ssh_auth_sock(&self) -> Option<PathBuf> {
        self.path("SSH_AUTH_SOCK")
    }

    /// Files of certificate authorities to trust besides the system's.
    pub fn ca_certificates(&self) -> Vec<PathBuf> {
        let list = self.0.get("MEMOBUILD_CA_CERTIFICATES");
        list.map_or_else(Vec::new, |list| std::env::split_paths(list).collect())
    }

    /// The PEM file that `SSL_CERT_FILE` names.
    pub fn ssl_cert_file(&self) -> Option<PathBuf> {
        self.path("SSL_CERT_FILE")
    }

    /// The directory that `SSL_CERT_DIR` names.
    pub fn ssl_cert_dir(&self) -> Option<PathBuf> {
        self.path("SSL_CERT_DIR")
    }

    /// The environment of the program `git`: what it needs to reach servers and to find
    /// credentials.
    pub fn for_git(&self) -> Vec<(OsString, OsString)> {
        const NAMES: [&str; 11] = [
            "HOME",
            "PATH",
            "TMPDIR",
            "XDG_CONFIG_HOME",
            "XDG_CACHE_HOME",
            "GIT_CONFIG_GLOBAL",
            "GIT_SSH_COMMAND",
            "GIT_ASKPASS",
            "SSH_AUTH_SOCK",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
        ];
        let wanted = |name: &str| NAMES.contains(&name) || is_proxy(name);
        let set = self.0.iter().filter(|(name, _)| wanted(name));
        let mut env: Vec<_> = set
            .map(|(name, value)| (OsString::from(name), value.clone()))
            .collect();
        // Git knows the file by a name of its own.
        if let Some(file) = self.ssl_cert_file() {
            env.push(("GIT_SSL_CAINFO".into(), file.into()));
        }
        env
    }

    /// The values that must not be shown, for redaction.
    pub fn secrets(&self) -> Vec<String> {
        let secret = VARIABLES.iter().filter(|v| v.secret);
        secret
            .filter_map(|v| Some((v.name, self.text(v.name)?)))
            // Of the proxies only the ones with a password.
            .filter(|(name, value)| !is_proxy(name) || value.contains('@'))
            .map(|(_, value)| value.to_owned())
            .collect()
    }
}

/// The value of any variable, for `--build-arg NAME` without a value: the user names it.
pub fn build_arg(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The value of any variable, for `--secret id=ID,env=NAME`: the user names it.
pub fn secret(name: &str) -> Option<Vec<u8>> {
    std::env::var_os(name).map(std::os::unix::ffi::OsStringExt::into_vec)
}

/// Whether `name` is one of the proxy variables, in either case of letters.
fn is_proxy(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with("_proxy")
}

/// Whether `name` is a build argument that every Dockerfile has without declaring it:
/// the proxy variables. They enter neither image nor key.
pub fn is_predefined_arg(name: &str) -> bool {
    is_proxy(name) && VARIABLES.iter().any(|v| v.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_directory() {
        for (pairs, configured, dir) in [
            (&[][..], None, "/var/cache/memobuild-ci"),
            (&[("HOME", "/h")], None, "/h/.cache/memobuild-ci"),
            (&[("HOME", "")], None, "/var/cache/memobuild-ci"),
            (
                &[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")],
                None,
                "/x/memobuild-ci",
            ),
            (
                &[("HOME", "/h"), ("XDG_CACHE_HOME", "x")],
                None,
                "/h/.cache/memobuild-ci",
            ),
            (&[("HOME", "/h")], Some("/c"), "/c"),
            (&[("MEMOBUILD_CACHE_DIR", "/e")], Some("/c"), "/e"),
        ] {
            let env = Env::from_pairs(pairs);
            assert_eq!(
                env.cache_dir(configured.map(PathBuf::from)),
                PathBuf::from(dir)
            );
        }
    }

    #[test]
    fn colour_follows_flag_then_environment_then_terminal() {
        use ColorChoice::{Always, Auto, Never};
        for (pairs, choice, terminal, expected) in [
            (&[][..], Auto, true, true),
            (&[], Auto, false, false),
            (&[("NO_COLOR", "1")], Auto, true, false),
            (&[("NO_COLOR", "")], Auto, true, true),
            (&[("NO_COLOR", "1")], Always, false, true),
            (&[("CLICOLOR_FORCE", "1")], Auto, false, true),
            (&[("CLICOLOR_FORCE", "0")], Auto, false, false),
            (&[("CLICOLOR_FORCE", "1")], Never, true, false),
            (&[("TERM", "dumb")], Auto, true, false),
        ] {
            let env = Env::from_pairs(pairs);
            assert_eq!(
                env.color(choice, terminal),
                expected,
                "{pairs:?} {choice:?} {terminal}"
            );
        }
    }

    #[test]
    fn source_date_epoch_is_a_number_or_an_error() {
        let epoch = |v| Env::from_pairs(&[("SOURCE_DATE_EPOCH", v)]).source_date_epoch();
        assert_eq!(epoch("1700000000"), Ok(Some(1_700_000_000)));
        assert_eq!(epoch(""), Ok(None));
        assert!(
            epoch("yesterday")
                .unwrap_err()
                .to_string()
                .contains("`yesterday`")
        );
    }

    #[test]
    fn values_are_neither_shown_nor_read_when_undeclared() {
        let env = Env::from_pairs(&[
            ("https_proxy", "http://u:hunter2@proxy:3128"),
            ("NO_PROXY", "localhost"),
            ("SECRET", "x"),
        ]);
        assert_eq!(format!("{env:?}"), r#"{"NO_PROXY", "https_proxy"}"#);
        assert_eq!(env.secrets(), ["http://u:hunter2@proxy:3128"]);
        assert_eq!(env.proxies().len(), 2);
        assert!(is_predefined_arg("no_proxy") && !is_predefined_arg("my_proxy"));
    }

    #[test]
    fn a_job_of_another_platform_keeps_what_is_ours() {
        let own = Env::from_pairs(&[
            ("HOME", "/h"),
            ("CI", "true"),
            ("GITHUB_REF", "refs/heads/x"),
        ]);
        let job = own.on_platform(&BTreeMap::from([("GITLAB_CI", "true".to_owned())]));
        assert_eq!(format!("{job:?}"), r#"{"GITLAB_CI", "HOME"}"#);
        assert_eq!(job.with("HOME", "/other").home(), Some("/other".into()));
    }

    #[test]
    fn no_variable_is_declared_twice() {
        for (i, variable) in VARIABLES.iter().enumerate() {
            assert!(VARIABLES[..i].iter().all(|v| v.name != variable.name));
        }
    }
}
