//! What is read from disk before anything is decided: Dockerfiles, ignore files, contexts.

use std::path::{Path, PathBuf};

use crate::{
    cli::CliError,
    dockerfile::{self, Dockerfile},
    fs::{Files, IoContext as _},
    graph::{BuildGraph, LocalContext},
};

pub(super) fn read_dockerfile(
    files: &dyn Files,
    graph: &mut BuildGraph,
    path: &Path,
) -> Result<Dockerfile, CliError> {
    // Bytes that aren't UTF-8 become replacement characters, as in BuildKit.
    let text = String::from_utf8_lossy(&files.read(path)?).into_owned();
    let name = path.display().to_string();
    let parsed = dockerfile::parse(&name, &text)?;
    graph.dockerfiles.insert(name, text);
    Ok(parsed)
}

/// The text of the ignore file: the Dockerfile's own, if that has a path, else the context's.
pub(super) fn ignore_file(
    files: &dyn Files,
    dockerfile: Option<&Path>,
    context: &Path,
) -> Result<String, CliError> {
    let own = dockerfile.map(|path| {
        let mut own = path.as_os_str().to_owned();
        own.push(".dockerignore");
        PathBuf::from(own)
    });
    for path in own.into_iter().chain([context.join(".dockerignore")]) {
        match files.read_to_string(&path) {
            Ok(text) => return Ok(text),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(String::new())
}

/// The position of a local context, which is entered once.
pub(super) fn add_context(
    files: &dyn Files,
    graph: &mut BuildGraph,
    name: &str,
    dir: &Path,
    ignore: Option<String>,
) -> Result<usize, CliError> {
    let dir = files.canonicalize(dir)?;
    if !files.is_dir(&dir) {
        let error: std::io::Result<usize> = Err(std::io::ErrorKind::NotADirectory.into());
        return Ok(error.at("use as build context", &dir)?);
    }
    let ignore = match ignore {
        Some(text) => text,
        None => ignore_file(files, Some(&dir.join("Dockerfile")), &dir)?,
    };
    let context = LocalContext {
        name: name.to_owned(),
        dir,
        ignore,
    };
    if let Some(number) = graph.contexts.iter().position(|known| *known == context) {
        return Ok(number);
    }
    graph.contexts.push(context);
    Ok(graph.contexts.len() - 1)
}
