//! `--secret` and `--ssh`: what steps may see that nobody else should.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    cli::{CliError, Context},
    config::env,
    dockerfile::{csv_fields, nearest},
    fs,
    redact::SecretBytes,
    ssh::Agents,
};

/// Longest secret in bytes, as in BuildKit.
const LONGEST_SECRET: usize = 500 << 10;

/// Where a secret's value comes from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Variable(String),
}

/// The values of `--secret`, by id; of two with one id the later counts.
pub(in crate::cli) fn secrets(
    options: &[String],
) -> Result<BTreeMap<String, SecretBytes>, CliError> {
    let mut out = BTreeMap::new();
    for text in options {
        let (id, source) = parse(text, |name| env::secret(name).is_some())?;
        let value = match source {
            // One that is not set is empty, as for `docker buildx build`.
            Source::Variable(name) => env::secret(&name).unwrap_or_default(),
            Source::File(path) => fs::read(path)?,
        };
        if value.len() > LONGEST_SECRET {
            let kib = LONGEST_SECRET >> 10;
            return Err(CliError::usage(format!(
                "secret `{id}` is longer than {kib} KiB"
            )));
        }
        out.insert(id, value.into());
    }
    Ok(out)
}

/// `id=NAME[,src=FILE|,env=VARIABLE][,type=file|env]`. A name alone is that of a variable,
/// if there is one, else of a file.
fn parse(text: &str, is_set: impl Fn(&str) -> bool) -> Result<(String, Source), CliError> {
    let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
    for field in csv_fields(text) {
        let Some((key, value)) = field.split_once('=') else {
            return Err(CliError::usage_hint(
                format!("`{field}` in `--secret {text}` is not `KEY=VALUE`"),
                format!("write `--secret id={field}`"),
            ));
        };
        let value = Some(value.to_owned()).filter(|v| !v.is_empty());
        match key.to_ascii_lowercase().as_str() {
            "id" => id = value,
            "src" | "source" => file = value,
            "env" => variable = value,
            "type" => kind = value,
            key => {
                let known = ["id", "src", "source", "env", "type"];
                let near = nearest(key, known);
                let hint = near.map_or("it has `id`, `src`, `env` and `type`".to_owned(), |k| {
                    format!("did you mean `{k}`?")
                });
                let message = format!("`{key}` is not a key of `--secret`");
                return Err(CliError::usage_hint(message, hint));
            }
        }
    }
    match kind.as_deref() {
        None | Some("file") => {}
        // `src` is the variable then.
        Some("env") => variable = variable.or(file.take()),
        Some(kind) => {
            return Err(CliError::usage_hint(
                format!("`{kind}` is not a type of `--secret`"),
                "it is `file` or `env`",
            ));
        }
    }
    let Some(id) = id else {
        return Err(CliError::usage_hint(
            format!("`--secret {text}` has no id"),
            "start it with `id=NAME,`, where NAME is what `RUN --mount=type=secret,id=NAME` says",
        ));
    };
    let source = match (variable, file) {
        (Some(variable), _) => Source::Variable(variable),
        (None, Some(file)) => Source::File(file.into()),
        (None, None) if is_set(&id) => Source::Variable(id.clone()),
        (None, None) => Source::File(id.clone().into()),
    };
    Ok((id, source))
}

/// The agents of `--ssh`: `ID`, `ID=SOCKET` or `ID=KEY[,KEY]`.
pub(super) fn agents(context: &Context, options: &[String]) -> Result<Agents, CliError> {
    let mut agents = Agents::default();
    for text in options {
        let (id, paths) = text.split_once('=').unwrap_or((text, ""));
        let id = if id.is_empty() { "default" } else { id };
        if agents.contains(id) {
            return Err(CliError::usage(format!("`--ssh {id}` is given twice")));
        }
        let paths: Vec<PathBuf> = paths
            .split(',')
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
            .collect();
        match paths.as_slice() {
            [] => match context.env.ssh_auth_sock() {
                Some(socket) => agents.add_socket(id, &socket)?,
                None => {
                    return Err(CliError::usage_hint(
                        format!(
                            "`--ssh {text}` asks for an SSH agent, and `SSH_AUTH_SOCK` names none"
                        ),
                        format!(
                            "start one with `eval $(ssh-agent)` and `ssh-add`, or name a key file: `--ssh {id}=KEY`"
                        ),
                    ));
                }
            },
            [socket] if fs::is_socket(socket) => agents.add_socket(id, socket)?,
            keys => {
                if let Some(socket) = keys.iter().find(|path| fs::is_socket(path)) {
                    return Err(CliError::usage(format!(
                        "`--ssh {text}`: `{}` is a socket, which can't stand beside other files",
                        socket.display()
                    )));
                }
                agents.add_keys(id, keys, &temp_dir(context)?)?;
            }
        }
    }
    Ok(agents)
}

/// The directory for sockets: absolute.
pub(super) fn temp_dir(context: &Context) -> Result<PathBuf, CliError> {
    Ok(fs::absolute(Path::new(&context.env.temp_dir()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_a_secret() {
        let read = |text: &str| parse(text, |name| name == "SET").unwrap();
        let file = |path: &str| Source::File(path.into());
        let variable = |name: &str| Source::Variable(name.to_owned());
        assert_eq!(read("id=a,src=f"), ("a".to_owned(), file("f")));
        assert_eq!(read("source=f,id=a"), ("a".to_owned(), file("f")));
        assert_eq!(read("id=a,env=V"), ("a".to_owned(), variable("V")));
        assert_eq!(read("type=env,id=a,src=V"), ("a".to_owned(), variable("V")));
        assert_eq!(read("type=file,id=a,src=f"), ("a".to_owned(), file("f")));
        assert_eq!(read("id=SET"), ("SET".to_owned(), variable("SET")));
        assert_eq!(read("id=a"), ("a".to_owned(), file("a")));
        assert_eq!(read("ID=a,\"src=a,b\""), ("a".to_owned(), file("a,b")));
    }

    #[test]
    fn what_is_no_secret() {
        for (text, says) in [
            ("name", "`name` in `--secret name` is not `KEY=VALUE`"),
            ("src=f", "`--secret src=f` has no id"),
            ("id=a,type=vault", "`vault` is not a type of `--secret`"),
            ("id=a,sorce=f", "`sorce` is not a key of `--secret`"),
        ] {
            let error = parse(text, |_| false).unwrap_err();
            assert_eq!(error.to_string(), says);
        }
    }
}
