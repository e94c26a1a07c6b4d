//! Values of options: pairs, addresses, platforms.

use std::collections::BTreeMap;

use crate::{
    cli::{CliError, Context, build::BuildArgs},
    oci::Platform,
};

pub(super) fn platforms(args: &BuildArgs) -> Result<Vec<Platform>, CliError> {
    let mut platforms = Vec::new();
    for text in &args.platform {
        let platform: Platform = text.parse()?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

/// `--build-arg NAME=VALUE`, or `NAME` for the value of the environment.
pub(in crate::cli) fn build_args(
    context: &Context,
    args: &BuildArgs,
) -> Result<BTreeMap<String, String>, CliError> {
    let mut out = BTreeMap::new();
    // Proxies are predefined arguments, as in `docker build`.
    for (name, value) in context.env.proxies() {
        out.insert(name.to_owned(), value);
    }
    for text in &args.build_arg {
        match text.split_once('=') {
            Some(("", _)) => {
                return Err(CliError::usage(format!("`--build-arg {text}` has no name")));
            }
            Some((name, value)) => {
                out.insert(name.to_owned(), value.to_owned());
            }
            None => {
                if let Some(value) = crate::config::env::build_arg(text) {
                    out.insert(text.clone(), value);
                }
            }
        }
    }
    Ok(out)
}

/// Whether a single platform is to be written like several.
pub(super) fn multi_platform(build_args: &BTreeMap<String, String>) -> Result<bool, CliError> {
    match build_args
        .get("BUILDKIT_MULTI_PLATFORM")
        .map(String::as_str)
    {
        None | Some("" | "0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some(other) => Err(CliError::usage(format!(
            "build argument `BUILDKIT_MULTI_PLATFORM={other}` is neither true nor false"
        ))),
    }
}

/// Whether the tree of a Git context keeps its `.git`.
pub(super) fn keep_git_dir(build_args: &BTreeMap<String, String>) -> bool {
    let value = build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR");
    value.is_some_and(|value| matches!(value.as_str(), "1" | "t" | "true"))
}

pub(super) fn hosts(list: &[String]) -> Result<Vec<(String, String)>, CliError> {
    list.iter()
        .map(|text| {
            let (name, address) = text
                .split_once('=')
                .or_else(|| text.split_once(':'))
                .ok_or_else(|| {
                    CliError::usage(format!("`--add-host {text}` is not `NAME:ADDRESS`"))
                })?;
            let address = address.trim_start_matches('[').trim_end_matches(']');
            if address == "host-gateway" {
                return Err(CliError::usage_hint(
                    format!("`host-gateway` in `--add-host {text}` means nothing here: steps are on the host's network"),
                    format!("write `--add-host {name}:127.0.0.1`"),
                ));
            }
            match address.parse::<std::net::IpAddr>() {
                Ok(_) => Ok((name.to_owned(), address.to_owned())),
                Err(_) => Err(CliError::usage(format!(
                    "`{address}` in `--add-host {text}` is not an IP address"
                ))),
            }
        })
        .collect()
}

pub(super) fn pair<'t>(text: &'t str, option: &str) -> Result<(&'t str, &'t str), CliError> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name, value)),
        _ => Err(CliError::usage(format!(
            "`{option} {text}` is not `NAME=VALUE`"
        ))),
    }
}

pub(super) fn pairs(list: &[String], option: &str) -> Result<BTreeMap<String, String>, CliError> {
    list.iter()
        .map(|text| pair(text, option).map(|(n, v)| (n.to_owned(), v.to_owned())))
        .collect()
}
