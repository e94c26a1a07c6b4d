//! The program `git`, started so that a repository can't make it do anything else.
//!
//! - Its environment is ours: the variables that `Env::for_git` names, and no other.
//! - Of the user's configuration it sees what is about access: credentials, addresses,
//!   proxies, certificates ([`ACCESS_KEYS`]). Filters (LFS among them), aliases, hooks,
//!   templates and programs of other kinds are left out, so that a tree is what the
//!   repository says and no more.
//! - It asks nobody: no terminal, no standard input.
//! - Submodules come by the same protocols as the repository; never from a directory of
//!   this machine, never by a helper that an address names (`ext::`).
//! - Addresses stand after `--`.

use std::{
    ffi::{OsStr, OsString},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use tokio::process::Command;

use super::{RemoteError, git::without_credentials};
use crate::{
    fs::{self, FsError, IoContext as _},
    redact,
};

/// Longest message of `git` that is passed on, in bytes.
const MESSAGE: usize = 600;

/// Beginnings of the names of settings that are taken from the user's configuration.
const ACCESS_KEYS: [&str; 7] = [
    "credential.",
    "http.",
    "url.",
    "ssh.",
    "core.askpass",
    "core.sshcommand",
    "core.gitproxy",
];

/// Settings for every call.
const SETTINGS: [&str; 19] = [
    "protocol.allow=never",
    "protocol.http.allow=always",
    "protocol.https.allow=always",
    "protocol.git.allow=always",
    "protocol.ssh.allow=always",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.symlinks=true",
    "core.fileMode=true",
    "core.autocrlf=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "advice.detachedHead=false",
    "gc.auto=0",
    "fetch.recurseSubmodules=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
];

/// How `git` calls `ssh` unless the user says otherwise: nobody is asked, and neither a server that
/// says nothing at first nor one that falls silent is waited for.
const SSH: &str = "ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15 \
    -o ServerAliveCountMax=4";

/// A way to call `git` for one repository.
#[derive(Debug)]
pub(super) struct GitProgram {
    /// The address for messages.
    what: String,
    env: Vec<(OsString, OsString)>,
    /// The configuration that it reads.
    config: tempfile::NamedTempFile,
}

impl GitProgram {
    /// Prepares calls; `env` is the environment, `auth` further lines of configuration,
    /// `temp` a directory for temporary files.
    pub(super) async fn new(
        what: &str,
        env: Vec<(OsString, OsString)>,
        auth: &str,
        temp: &Path,
    ) -> Result<Self, RemoteError> {
        let config = fs::named_temp_file_in(temp)?;
        let mut program = Self {
            what: what.to_owned(),
            env,
            config,
        };
        let settings = program.access_settings().await? + auth;
        let written = program.config.write_all(settings.as_bytes());
        written.at("write", program.config.path())?;
        Ok(program)
    }

    /// The user's settings that are about access, as the text of a configuration file.
    async fn access_settings(&self) -> Result<String, RemoteError> {
        let mut command = Command::new("git");
        command
            .args(["config", "--null", "--includes", "--list"])
            .env_clear()
            .envs(self.env.iter().map(|(n, v)| (n, v)))
            .current_dir("/")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = command
            .output()
            .await
            .map_err(|source| self.missing(source))?;
        // A configuration that Git can't read has nothing to say.
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.split('\0').filter_map(setting).collect())
    }

    fn missing(&self, source: std::io::Error) -> RemoteError {
        RemoteError::GitProgram {
            what: self.what.clone(),
            source,
        }
    }

    /// Runs `git` with `args` in `dir`; gives what it writes.
    pub(super) async fn run<S: AsRef<OsStr>>(
        &self,
        dir: &Path,
        args: &[S],
    ) -> Result<String, RemoteError> {
        let output = self.output(dir, args).await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let name = args.first().map(|a| a.as_ref().to_string_lossy());
        Err(RemoteError::Git {
            what: self.what.clone(),
            command: name.unwrap_or_default().into_owned(),
            said: message(&String::from_utf8_lossy(&output.stderr)),
        })
    }

    async fn output<S: AsRef<OsStr>>(&self, dir: &Path, args: &[S]) -> Result<Output, RemoteError> {
        let mut command = Command::new("git");
        command.env_clear();
        command.envs(self.env.iter().map(|(n, v)| (n, v)));
        for (name, value) in [
            ("LC_ALL", "C"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_LFS_SKIP_SMUDGE", "1"),
            ("GIT_CEILING_DIRECTORIES", "/"),
        ] {
            command.env(name, value);
        }
        command.env("GIT_CONFIG_GLOBAL", self.config.path());
        if !self.env.iter().any(|(name, _)| name == "GIT_SSH_COMMAND") {
            command.env("GIT_SSH_COMMAND", SSH);
        }
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
            .output()
            .await
            .map_err(|source| self.missing(source))
    }
}

/// A line of a configuration file for an item `name\nvalue` of `git config --null --list`;
/// none if it is not about access.
fn setting(item: &str) -> Option<String> {
    let (name, value) = item.split_once('\n').unwrap_or((item, "true"));
    if !ACCESS_KEYS.iter().any(|key| name.starts_with(key)) {
        return None;
    }
    let (section, rest) = name.split_once('.')?;
    let (subsection, key) = match rest.rsplit_once('.') {
        Some((subsection, key)) => (format!(" \"{}\"", escaped(subsection)), key),
        None => (String::new(), rest),
    };
    Some(format!(
        "[{section}{subsection}]\n\t{key} = \"{}\"\n",
        escaped(value)
    ))
}

/// `text` for between the quotes of a configuration file.
pub(super) fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
        .replace('\t', "\\t")
}

/// What `git` said, in one line, credentials masked: its last words.
fn message(stderr: &str) -> String {
    let masked = redact::url_credentials(stderr);
    let lines = masked.lines().map(str::trim).filter(|line| {
        !line.is_empty() && !line.starts_with("hint:") && !line.starts_with("Cloning into")
    });
    let text = lines.collect::<Vec<_>>().join("; ");
    let from = text.len().saturating_sub(MESSAGE);
    let from = (from..text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    match text[from..].trim() {
        "" => "it said nothing".to_owned(),
        said => said.to_owned(),
    }
}

/// Removes what differs between two checkouts of one commit, and what nobody needs, from a
/// `.git` directory and those of its submodules: logs, what was fetched, the times of
/// files in the index. Packs are made anew, as their bytes are the server's choice.
pub(super) async fn normalise(git: &GitProgram, git_dir: &Path) -> Result<(), RemoteError> {
    for dir in git_dirs(git_dir)? {
        for name in [
            "FETCH_HEAD",
            "ORIG_HEAD",
            "gc.log",
            "packed-refs.lock",
            "shallow.lock",
        ] {
            fs::remove_file(dir.join(name))?;
        }
        for name in ["logs", "hooks", "branches"] {
            fs::remove_dir_all(dir.join(name))?;
        }
        let call = |args: &[&str]| {
            let mut all = vec![OsString::from("--git-dir"), dir.clone().into_os_string()];
            all.extend(args.iter().map(OsString::from));
            all
        };
        remove_credentials(git, &dir).await?;
        // An index without the times and numbers of files; `git status` fills them in.
        fs::remove_file(dir.join("index"))?;
        git.run(&dir, &call(&["read-tree", "HEAD"])).await?;
        if fs::names(dir.join("objects/pack"))?.is_empty() {
            continue;
        }
        let repack = [
            "-c",
            "pack.threads=1",
            "-c",
            "pack.writeBitmaps=false",
            "-c",
            "repack.writeBitmaps=false",
            "repack",
            "-a",
            "-d",
            "-F",
            "-q",
            "--window=0",
            "--depth=0",
        ];
        git.run(&dir, &call(&repack)).await?;
        // Which of them exist depends on the version.
        fs::remove_dir_all(dir.join("objects/info"))?;
        fs::create_dir_all(dir.join("objects/info"))?;
    }
    Ok(())
}

/// Takes user names and passwords out of the addresses in the configuration of `git_dir`.
async fn remove_credentials(git: &GitProgram, git_dir: &Path) -> Result<(), RemoteError> {
    let list = ["config", "--file", "config", "--null", "--list"];
    let text = git.run(git_dir, &list).await?;
    for item in text.split('\0') {
        let Some((name, value)) = item.split_once('\n') else {
            continue;
        };
        let clean = without_credentials(value);
        if name.ends_with(".url") && clean != value {
            let set = ["config", "--file", "config", "--replace-all", name, &*clean];
            git.run(git_dir, &set).await?;
        }
    }
    Ok(())
}

/// `git_dir` and those of its submodules, however deep.
fn git_dirs(git_dir: &Path) -> Result<Vec<PathBuf>, FsError> {
    let mut found = vec![git_dir.to_owned()];
    let mut open = vec![git_dir.join("modules")];
    while let Some(dir) = open.pop() {
        let mut names = fs::names(&dir)?;
        names.sort();
        for name in names {
            let path = dir.join(name);
            if fs::is_symlink(&path) || !path.is_dir() {
                continue;
            }
            // A module's name may have slashes.
            if fs::exists(path.join("HEAD")) && fs::exists(path.join("objects")) {
                open.push(path.join("modules"));
                found.push(path);
            } else {
                open.push(path);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_about_access_are_taken() {
        for (item, line) in [
            ("filter.lfs.smudge\ngit-lfs smudge -- %f", None),
            ("alias.fetch\n!evil", None),
            ("core.hookspath\n/tmp", None),
            (
                "credential.helper\n!f() { echo \"x\"; }; f",
                Some("[credential]\n\thelper = \"!f() { echo \\\"x\\\"; }; f\"\n"),
            ),
            (
                "url.https://a.b/.insteadof\ngit@a.b:",
                Some("[url \"https://a.b/\"]\n\tinsteadof = \"git@a.b:\"\n"),
            ),
            ("http.sslverify", Some("[http]\n\tsslverify = \"true\"\n")),
        ] {
            assert_eq!(setting(item).as_deref(), line);
        }
    }

    #[test]
    fn messages_are_one_line_without_credentials() {
        let said = "Cloning into 'x'...\nfatal: unable to access 'https://u:pw@h/': no\nhint: x\n";
        assert_eq!(
            message(said),
            "fatal: unable to access 'https://u:***@h/': no"
        );
        assert_eq!(message("\n"), "it said nothing");
        assert!(message(&"ä".repeat(5000)).len() <= MESSAGE);
    }
}
