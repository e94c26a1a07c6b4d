//! Flags of `docker buildx build` that are not there yet: what to do instead.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::CliError;

/// The flags, each with what takes its place today; empty where nothing does.
const FLAGS: &[(&str, &str)] = &[
    ("--builder", "there is no daemon to choose; leave it out"),
    (
        "--cache-from",
        "the local cache is always used; keep the directory of `--cache-dir` between jobs",
    ),
    (
        "--cache-to",
        "the local cache is always written; keep the directory of `--cache-dir` between jobs",
    ),
    (
        "--load",
        "build with `--compression gzip`, then `skopeo copy oci:DIR docker-daemon:NAME:TAG`",
    ),
    ("--provenance", ""),
    (
        "--push",
        "push the layout with `skopeo copy oci:DIR docker://NAME:TAG`",
    ),
    ("--sbom", ""),
];

/// What to say about an argument that is unknown to us and known to `docker buildx build`.
pub(super) fn explain(error: &clap::Error) -> Option<CliError> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let (flag, instead) = FLAGS.iter().find(|(flag, _)| flag == given)?;
    let message = format!("`{flag}` is not supported yet");
    Some(match *instead {
        "" => CliError::usage(message),
        instead => CliError::usage_hint(message, instead),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::command, *};

    #[test]
    fn flags_are_missing_and_explained() {
        assert!(FLAGS.is_sorted());
        for (flag, _) in FLAGS {
            let args = ["memobuild-ci", "build", &format!("{flag}=x"), "."];
            let error = command().try_get_matches_from(args).unwrap_err();
            let told = explain(&error).unwrap().report(0, false);
            assert!(told.starts_with(&format!("error: `{flag}` is not supported yet\n")));
        }
        let error = command().try_get_matches_from(["memobuild-ci", "build", "--nosuch"]);
        assert!(explain(&error.unwrap_err()).is_none());
    }
}
