//! `build --call METHOD`: what a build would look at, without building.
//!
//! | method | answer |
//! |---|---|
//! | `check` | violations of build checks ([`check`]) |
//! | `outline` | what the target takes: arguments, secrets, SSH agents |
//! | `targets` | the stages, with their descriptions |
//!
//! Names, formats and JSON fields are those of `docker buildx build --call`.

mod annotations;
mod check;
mod json;
mod outline;
mod target_calls;
mod targets;

pub(super) use target_calls::TargetCalls;

use super::{
    CliError, Context, ExitCode, answer,
    build::{self, BuildArgs},
    prepare,
};
use crate::{config::Config, dockerfile::lint::SETTINGS_ARGUMENT, event::Events};

/// What `--call` or `--check` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    method: Method,
    format: Format,
    /// Violations don't show in the exit code.
    ignore_status: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Check,
    Outline,
    Targets,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    GitHub,
    GitLab,
}

impl Call {
    /// The name of what is called, as BuildKit has it.
    pub(super) fn method(self) -> &'static str {
        match self.method {
            Method::Check => "lint",
            Method::Outline => "outline",
            Method::Targets => "targets",
        }
    }

    /// The call that the options ask for; none for a build.
    pub(super) fn of(args: &BuildArgs) -> Result<Option<Self>, CliError> {
        match (&args.call, args.check) {
            (None, false) => Ok(None),
            (None, true) => Self::parse("check", "--check"),
            (Some(text), check) => {
                let call = Self::parse(text, &format!("--call {text}"))?;
                if check && call.is_none_or(|c| c.method != Method::Check) {
                    let message = format!("`--check` and `--call {text}` ask for different things");
                    return Err(CliError::usage(message));
                }
                Ok(call)
            }
        }
    }

    /// Reads `METHOD[,format=FORMAT][,ignorestatus=BOOL]`, which stands in `place`.
    fn parse(text: &str, place: &str) -> Result<Option<Self>, CliError> {
        let wrong = |part: &str, hint: &str| {
            CliError::usage_hint(format!("`{part}` in `{place}` is unknown"), hint)
        };
        let mut parts = text.split(',').map(str::trim);
        let method = match parts.next().unwrap_or_default() {
            "build" | "" => None,
            "check" | "lint" => Some(Method::Check),
            "outline" => Some(Method::Outline),
            "targets" => Some(Method::Targets),
            other => {
                return Err(wrong(
                    other,
                    "it is `check`, `outline`, `targets` or `build`",
                ));
            }
        };
        let (mut format, mut ignore_status) = (Format::Text, false);
        for part in parts {
            match part.split_once('=').unwrap_or((part, "true")) {
                ("format", "text") => format = Format::Text,
                ("format", "json") => format = Format::Json,
                ("format", "github") => format = Format::GitHub,
                ("format", "gitlab") => format = Format::GitLab,
                ("format", _) => {
                    let hint = "formats are `text`, `json`, `github` and `gitlab`";
                    return Err(wrong(part, hint));
                }
                ("ignorestatus", "true") => ignore_status = true,
                ("ignorestatus", "false") => ignore_status = false,
                _ => return Err(wrong(part, "there are `format` and `ignorestatus`")),
            }
        }
        let annotates = matches!(format, Format::GitHub | Format::GitLab);
        if annotates && method != Some(Method::Check) {
            let hint = "`format=github` and `format=gitlab` are for `check`";
            return Err(wrong("format", hint));
        }
        Ok(method.map(|method| Self {
            method,
            format,
            ignore_status,
        }))
    }
}

/// Answers the call.
pub(super) async fn run(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
    call: Call,
) -> Result<ExitCode, CliError> {
    let asked = prepare::read(context, args, configuration, None, &Events::silent()).await;
    if call.method == Method::Check {
        let settings = configuration.map(|c| c.cache.clone()).unwrap_or_default();
        let registry = build::registry(context, &settings)?;
        let report = match asked {
            Ok(asked) => check::check(asked, configuration, &registry, None).await,
            Err(error) => {
                let given = prepare::build_args(context, args)?;
                let settings = given.get(SETTINGS_ARGUMENT).map(String::as_str);
                check::Report::of_unparsed(error, settings)?
            }
        };
        answer(&report.answer(call.format)?)?;
        return report.outcome(context, call.ignore_status);
    }
    let asked = asked?;
    let text = match (call.method, call.format) {
        (Method::Targets, Format::Json) => json::several(targets::json(&asked.recipes))?,
        (Method::Targets, _) => targets::text(&asked.recipes),
        (_, format) => {
            let outlines = outline::outlines(asked, configuration)?;
            match format {
                Format::Json => json::several(outline::json(&outlines))?,
                _ => outline::text(&outlines),
            }
        }
    };
    answer(&text)?;
    Ok(ExitCode::Success)
}

/// A table with a line of heads, columns `gap` spaces apart.
fn table(gap: usize, rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let line: String = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}{:gap$}", ""))
            .collect();
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read() {
        let parse = |text: &str| Call::parse(text, "--call").unwrap();
        let check = Call {
            method: Method::Check,
            format: Format::Text,
            ignore_status: false,
        };
        assert_eq!(parse("check"), Some(check));
        assert_eq!(parse("lint,format=text"), Some(check));
        assert_eq!(parse("build"), None);
        let call = parse("check,format=github,ignorestatus").unwrap();
        assert_eq!((call.format, call.ignore_status), (Format::GitHub, true));
        assert_eq!(
            parse("outline,format=json").unwrap().method,
            Method::Outline
        );
        for wrong in [
            "chek",
            "check,format=xml",
            "check,fmt=json",
            "check,ignorestatus=maybe",
            "outline,format=github",
        ] {
            assert!(
                matches!(Call::parse(wrong, "--call"), Err(CliError::Usage { .. })),
                "{wrong}"
            );
        }
    }

    #[test]
    fn tables_align_their_columns() {
        let row = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        let rows = [row(&["NAME", "VALUE", "X"]), row(&["é", "longer than", ""])];
        assert_eq!(table(2, &rows), "NAME  VALUE        X\né     longer than\n");
    }
}
