//! The flags of `docker buildx build` and `docker build`, and what becomes of each here.
//!
//! [`FLAGS`] is the list; `docs/reference/buildx-flags.md` is made of it. A flag that we don't have
//! gets an error that says what to do instead.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::CliError;

/// What becomes of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It does what it does there, as far as the note doesn't say otherwise.
    Same,
    /// It is accepted and does nothing, which can't change the result.
    NoEffect,
    /// It is an error.
    Refused,
}

/// A flag of `docker buildx build` or `docker build`.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// With its dashes.
    pub name: &'static str,
    /// What becomes of it.
    pub state: State,
    /// What is different, why it does nothing, or what to use instead.
    pub note: &'static str,
}

const fn same(name: &'static str, note: &'static str) -> Flag {
    Flag {
        name,
        state: State::Same,
        note,
    }
}

const fn no_effect(name: &'static str, note: &'static str) -> Flag {
    Flag {
        name,
        state: State::NoEffect,
        note,
    }
}

const fn refused(name: &'static str, note: &'static str) -> Flag {
    Flag {
        name,
        state: State::Refused,
        note,
    }
}

const LIMITS: &str = "steps have the limits of the job; `docker buildx build` ignores it too";
const NO_SERVER: &str = "there is no server to start or to talk to; leave it out";

/// All flags, by name.
pub const FLAGS: &[Flag] = &[
    refused(
        "-D",
        "`-v` logs what the program does, `-vv` in every detail",
    ),
    same("--add-host", ""),
    same("--allow", ""),
    same("--annotation", ""),
    no_effect(
        "--attest",
        "`disabled=true` only: no attestations are made, any other value is refused",
    ),
    same("--build-arg", ""),
    same("--build-context", ""),
    no_effect("--builder", "there is no daemon to choose"),
    same(
        "--cache-from",
        "`registry`, `s3`, `azblob`, `gha`, `local` as names of places: the format is our own; `inline` is refused; the local cache is used in any case",
    ),
    same(
        "--cache-to",
        "as `--cache-from`; every result is saved, `mode` and what is about compression has no effect",
    ),
    same("--call", ""),
    refused(
        "--cgroup-parent",
        "steps run in the control group of the program: start that in the one you want, for instance with `systemd-run --scope --slice=NAME`",
    ),
    same("--check", ""),
    no_effect("--compress", "the context is read where it is, not sent"),
    no_effect("--cpu-period", LIMITS),
    no_effect("--cpu-quota", LIMITS),
    no_effect("--cpu-shares", LIMITS),
    no_effect("--cpuset-cpus", LIMITS),
    no_effect("--cpuset-mems", LIMITS),
    refused(
        "--debug",
        "`-v` logs what the program does, `-vv` in every detail",
    ),
    refused("--detach", NO_SERVER),
    no_effect(
        "--disable-content-trust",
        "images are known by digest; signatures are not looked at",
    ),
    same("--file", ""),
    no_effect("--force-rm", "steps leave no containers behind"),
    same("--iidfile", ""),
    no_effect(
        "--isolation",
        "`default` only: others are for Windows and refused",
    ),
    same("--label", ""),
    same(
        "--load",
        "pipes the image into `docker load`; one platform only",
    ),
    no_effect("--memory", LIMITS),
    no_effect("--memory-swap", LIMITS),
    same(
        "--metadata-file",
        "without `buildx.build.ref` and provenance; with `memobuild.outputs`",
    ),
    same(
        "--network",
        "`default` is the host's network here, there is no bridge",
    ),
    same("--no-cache", ""),
    same("--no-cache-filter", ""),
    same(
        "--output",
        "`oci`, `docker`, `registry`, `tar`, `local`, `cacheonly`; `image` with `push=true`",
    ),
    same(
        "--platform",
        "a RUN for another platform than the machine's is refused",
    ),
    refused(
        "--policy",
        "source policies are not there yet; name base images by digest instead",
    ),
    same(
        "--progress",
        "`auto`, `tty`, `plain`, `quiet`; our `json` instead of `rawjson`",
    ),
    no_effect(
        "--provenance",
        "`false` only: no attestations are made, any other value is refused",
    ),
    same(
        "--pull",
        "does nothing more: tags are resolved at their registry in every build",
    ),
    same(
        "--push",
        "layers that the registry has in another repository of its own are mounted",
    ),
    same("--quiet", "prints the image's id on stdout"),
    refused(
        "--resource",
        "limit the job instead, for instance with `systemd-run --scope -p MemoryMax=2G`; `--ulimit` limits a step's processes",
    ),
    no_effect("--rm", "steps leave no containers behind"),
    refused("--root", NO_SERVER),
    no_effect(
        "--sbom",
        "`false` only: no attestations are made, any other value is refused",
    ),
    same("--secret", ""),
    refused(
        "--security-opt",
        "steps always run behind a system call filter; `--allow security.insecure` is for those that can't",
    ),
    refused("--server-config", NO_SERVER),
    same("--shm-size", ""),
    refused(
        "--squash",
        "copy the result into a stage of its own: `FROM scratch`, `COPY --from=build / /`",
    ),
    same("--ssh", ""),
    same("--tag", ""),
    same("--target", ""),
    same("--ulimit", ""),
];

/// What to say about an argument that is unknown to us and known to `docker buildx build`.
pub(super) fn explain(error: &clap::Error) -> Option<CliError> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = FLAGS.iter().find(|flag| flag.name == given)?;
    Some(CliError::usage_hint(
        format!("`{}` is not supported", flag.name),
        flag.note,
    ))
}

#[cfg(test)]
mod tests {
    use super::{super::command, *};

    #[test]
    fn every_flag_is_there_or_explained() {
        assert!(FLAGS[1..].is_sorted_by_key(|flag| flag.name));
        let mut root = command();
        root.build();
        let build = root.find_subcommand("build").unwrap();
        let find = |name: &str| {
            let long = name.trim_start_matches("--");
            build.get_arguments().find(|a| a.get_long() == Some(long))
        };
        for flag in FLAGS {
            match flag.state {
                State::Same => assert!(!find(flag.name).unwrap().is_hide_set(), "{flag:?}"),
                State::NoEffect => assert!(find(flag.name).unwrap().is_hide_set(), "{flag:?}"),
                State::Refused => {
                    let args = ["memobuild-ci", "build", flag.name];
                    let error = command().try_get_matches_from(args).unwrap_err();
                    let told = explain(&error).unwrap().report(0, false);
                    let expected = format!(
                        "error: `{}` is not supported\nhint: {}\n",
                        flag.name, flag.note
                    );
                    assert_eq!(told, expected);
                }
            }
        }
        let hidden = build.get_arguments().filter(|a| a.is_hide_set());
        for arg in hidden {
            let name = format!("--{}", arg.get_long().unwrap());
            assert!(FLAGS.iter().any(|flag| flag.name == name), "{name}");
        }
        let error = command().try_get_matches_from(["memobuild-ci", "build", "--nosuch"]);
        assert!(explain(&error.unwrap_err()).is_none());
    }
}
