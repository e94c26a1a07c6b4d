//! `--shm-size`, `--ulimit` and `--allow`: what steps get.

use std::sync::Arc;

use crate::{
    cli::{CliError, Context, build::BuildArgs},
    device::{AllowedDevices, DeviceRegistry},
    dockerfile::{bytes, csv_fields, nearest},
    graph::{Ulimit, lower::StepSettings},
};

/// What may be allowed. Only the first and the last change anything: a step may use the
/// host's network and what the Dockerfile's author can read anyway.
const ENTITLEMENTS: [&str; 7] = [
    "security.insecure",
    "network.host",
    "fs",
    "fs.read",
    "fs.write",
    "ssh",
    "device",
];

/// What the options say about every RUN.
pub(super) fn step_settings(context: &Context, args: &BuildArgs) -> Result<StepSettings, CliError> {
    let mut settings = StepSettings {
        shm_size: args.shm_size.as_deref().map(shm_size).transpose()?,
        ulimits: ulimits(&args.ulimit)?,
        devices: Arc::new(DeviceRegistry::read(context.env.device_dirs())),
        ..StepSettings::default()
    };
    for text in &args.allow {
        allow(&mut settings, text)?;
    }
    Ok(settings)
}

/// Bytes of `--shm-size`.
pub(super) fn shm_size(text: &str) -> Result<u64, CliError> {
    bytes(text).ok_or_else(|| {
        CliError::usage_hint(
            format!("`--shm-size {text}` is not a size"),
            "write a number with `k`, `m` or `g`: `64m`",
        )
    })
}

/// Of two limits of one name the later counts.
pub(super) fn ulimits(list: &[String]) -> Result<Vec<Ulimit>, CliError> {
    let mut out: Vec<Ulimit> = Vec::new();
    for text in list {
        let limit: Ulimit = text
            .parse()
            .map_err(|error| CliError::usage(format!("`--ulimit {text}`: {error}")))?;
        out.retain(|known| known.name != limit.name);
        out.push(limit);
    }
    out.sort_by_key(|limit| limit.name);
    Ok(out)
}

/// Takes one `--allow`.
pub(super) fn allow(settings: &mut StepSettings, text: &str) -> Result<(), CliError> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    match (name, value) {
        ("security.insecure", None) => settings.insecure = true,
        ("network.host" | "ssh", None) | ("fs" | "fs.read" | "fs.write", Some(_)) => {}
        ("device", value) => allow_device(&mut settings.allowed_devices, value.unwrap_or(""))?,
        _ => {
            let near = nearest(name, ENTITLEMENTS);
            let hint = near.map_or(
                "it is `security.insecure`, `network.host` or `device[=NAME]`".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            let message = format!("`--allow {text}`: there is no such entitlement");
            return Err(CliError::usage_hint(message, hint));
        }
    }
    Ok(())
}

/// `NAME[,alias=OTHER]`, or nothing for all.
fn allow_device(allowed: &mut AllowedDevices, text: &str) -> Result<(), CliError> {
    if text.is_empty() {
        allowed.all = true;
        return Ok(());
    }
    let mut fields = csv_fields(text).into_iter();
    let name = fields.next().unwrap_or_default();
    let mut alias = None;
    for field in fields {
        match field.split_once('=') {
            Some(("alias", value)) => alias = Some(value.to_owned()),
            _ => {
                return Err(CliError::usage(format!(
                    "`{field}` in `--allow device={text}` is not `alias=NAME`"
                )));
            }
        }
    }
    match alias {
        Some(alias) => allowed.names.insert(alias, Some(name)),
        None => allowed.names.insert(name, None),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(texts: &[&str]) -> Result<StepSettings, CliError> {
        let mut settings = StepSettings::default();
        for text in texts {
            allow(&mut settings, text)?;
        }
        Ok(settings)
    }

    #[test]
    fn entitlements() {
        let settings = allowed(&["security.insecure", "network.host", "fs.read=/x"]).unwrap();
        assert!(settings.insecure);
        assert!(!allowed(&[]).unwrap().insecure);
        let error = allowed(&["security.insecur"]).unwrap_err();
        assert!(
            error
                .report(0, false)
                .contains("did you mean `security.insecure`?")
        );
        assert!(allowed(&["security.insecure=yes"]).is_err());
    }

    #[test]
    fn allowed_devices() {
        let devices = |texts: &[&str]| allowed(texts).map(|s| s.allowed_devices);
        assert!(devices(&["device"]).unwrap().all);
        let some = devices(&["device=v.example/d=a", "device=v.example/d=b,alias=mine"]).unwrap();
        assert!(!some.all);
        assert_eq!(some.names["v.example/d=a"], None);
        assert_eq!(some.names["mine"].as_deref(), Some("v.example/d=b"));
        assert!(devices(&["device=a,b"]).is_err());
    }

    #[test]
    fn limits_are_sorted_and_the_later_counts() {
        let list = ["nofile=1", "core=0", "nofile=5:6"].map(str::to_owned);
        let limits = ulimits(&list).unwrap();
        assert_eq!(limits.len(), 2);
        assert_eq!(limits[1].soft, Some(5));
        assert!(ulimits(&["open=1".to_owned()]).is_err());
        assert!(shm_size("large").is_err());
    }
}
