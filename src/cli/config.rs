//! `config`: the schema of `memobuild.yml`, and a check of one.

use std::path::Path;

use clap::Subcommand;

use super::{CliError, Context, ExitCode, answer};
use crate::config::{self, Config, FILE_NAMES, Selection};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the JSON schema of `memobuild.yml`, for editors
    Schema,
    /// Check the configuration and list its targets
    Check {
        /// Print the targets as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(context: &Context, command: &ConfigCommand) -> Result<ExitCode, CliError> {
    match command {
        ConfigCommand::Schema => {
            let schema = serde_json::to_string_pretty(&config::schema())?;
            answer(&format!("{schema}\n"))?;
        }
        ConfigCommand::Check { json } => check(context, *json)?,
    }
    Ok(ExitCode::Success)
}

/// The configuration that applies: `--config`, else the one in the working directory.
pub(super) fn load(context: &Context) -> Result<Config, CliError> {
    if let Some(path) = &context.global.config {
        return Ok(Config::load_about(&*context.files, path)?);
    }
    match Config::find(&*context.files, Path::new("")) {
        Some(path) => Ok(Config::load(&*context.files, &path)?),
        None => Err(CliError::usage_hint(
            format!("there is no `{}` here", FILE_NAMES[0]),
            "name a Dockerfile's context as in `memobuild-ci build -f Dockerfile .`, or a configuration with `--config`",
        )),
    }
}

fn check(context: &Context, json: bool) -> Result<(), CliError> {
    let targets = load(context)?.targets(&Selection::default())?;
    let mut text = String::new();
    if json {
        let rows: Vec<_> = targets
            .iter()
            .map(|t| {
                serde_json::json!({
                    "layer": t.name.layer,
                    "variant": t.name.variant,
                    "platform": t.name.platform.to_string(),
                    "dockerfile": path_text(&t.dockerfile),
                    "context": path_text(&t.context),
                    "from": t.parent.as_ref().map(|p| p.layer.clone()),
                    "tag": t.tag,
                })
            })
            .collect();
        let answer = serde_json::json!({"schema_version": 1, "targets": rows});
        text = format!("{}\n", serde_json::to_string_pretty(&answer)?);
    } else {
        for target in &targets {
            let from = match &target.parent {
                Some(parent) => format!(" from {}", parent.layer),
                None => String::new(),
            };
            text += &format!("{}{from}: {}\n", target.name, path_text(&target.dockerfile));
        }
    }
    answer(&text)
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}
