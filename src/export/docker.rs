//! Docker: its `manifest.json` (image specification 1.2) and its program.
//!
//! An archive for Docker is an OCI layout with a `manifest.json`, as BuildKit and current Docker
//! write it: Docker 1.10 and later and skopeo's `docker-archive:` read that one file, containerd
//! reads the layout. Nothing of Docker's API is spoken here: `docker load` does that.

use std::{
    io::{self, BufWriter, Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::{Value, json};

use super::{
    DockerFailure, ExportError,
    image::{Name, Part},
};
use crate::oci::{Descriptor, layout::Archive};

/// The program.
const DOCKER: &str = "docker";

/// The one image of an archive.
pub(super) fn manifest(part: &Part, names: &[Name]) -> Value {
    let path = |digest: &crate::digest::Sha256Digest| format!("blobs/sha256/{}", digest.hex());
    let names: Vec<String> = names.iter().map(Name::familiar).collect();
    json!([{
        "Config": path(&part.config),
        "RepoTags": match names.is_empty() {
            true => Value::Null,
            false => json!(names),
        },
        "Layers": part.layers.iter().map(path).collect::<Vec<_>>(),
    }])
}

/// Fails if there is no program `docker`, or it finds no daemon: better before a build than
/// after it.
pub(super) fn check(context: Option<&str>) -> Result<(), ExportError> {
    let words = words(context, &["version", "--format", "{{.Server.Version}}"]);
    let no_docker = |source| ExportError::NoDocker { source };
    let output = Command::new(DOCKER)
        .args(&words)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| no_docker(start_failure(&words, source)))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(no_docker(DockerFailure::Failed {
            command: shown(&words),
            said: said(&output.stderr, &output.status.to_string()),
        })),
    }
}

/// Pipes the archive into `docker load`.
pub(super) fn load(
    archive: &Archive,
    entries: Vec<Descriptor>,
    context: Option<&str>,
) -> Result<(), ExportError> {
    let words = words(context, &["load"]);
    let failed = |source| ExportError::Load { source };
    let mut child = Command::new(DOCKER)
        .args(&words)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| failed(start_failure(&words, source)))?;
    let stderr = collect_stderr(&mut child);
    let written = match child.stdin.take() {
        Some(stdin) => {
            let out = BufWriter::with_capacity(1 << 20, stdin);
            let name = Path::new("docker load");
            let written = archive.write(entries, out, name);
            written.and_then(|mut out| {
                let flushed = out.flush();
                Ok(crate::fs::IoContext::at(flushed, "write to", name)?)
            })
        }
        None => Ok(()),
    };
    let status = child
        .wait()
        .map_err(|source| failed(start_failure(&words, source)))?;
    let told = stderr.map(thread::JoinHandle::join);
    let told = told.and_then(Result::ok).unwrap_or_default();
    // What Docker says explains why it stopped reading.
    if !status.success() {
        return Err(failed(DockerFailure::Failed {
            command: shown(&words),
            said: said(&told, &status.to_string()),
        }));
    }
    Ok(written?)
}

/// Reads stderr while stdin is written, so that neither side waits for the other.
fn collect_stderr(child: &mut Child) -> Option<thread::JoinHandle<Vec<u8>>> {
    let mut stderr = child.stderr.take()?;
    Some(thread::spawn(move || {
        let mut told = Vec::new();
        // What can't be read is not shown.
        let _ = stderr.read_to_end(&mut told);
        told
    }))
}

fn words<'w>(context: Option<&'w str>, command: &[&'w str]) -> Vec<&'w str> {
    let mut words = Vec::new();
    if let Some(context) = context {
        words.extend(["--context", context]);
    }
    words.extend(command);
    words
}

fn shown(words: &[&str]) -> String {
    format!("{DOCKER} {}", words.join(" "))
}

fn start_failure(words: &[&str], source: io::Error) -> DockerFailure {
    DockerFailure::Start {
        command: shown(words),
        source,
    }
}

/// The last line of stderr, or how the program ended.
fn said(stderr: &[u8], end: &str) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.map_or_else(|| end.to_owned(), |line| line.trim().to_owned())
}
