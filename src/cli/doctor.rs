//! `doctor`: what this machine allows.

use clap::Args;

use super::{CliError, ExitCode, answer};
use crate::{
    sandbox::{self, Tier},
    userns::Program,
};

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DoctorArgs) -> Result<ExitCode, CliError> {
    let report = sandbox::probe(&Program::current()?);
    let mut text = String::new();
    if args.json {
        let findings: Vec<_> = report
            .findings
            .iter()
            .map(|f| {
                serde_json::json!({
                    "name": f.name, "ok": f.ok, "detail": f.detail, "fix": f.fix,
                })
            })
            .collect();
        let answer = serde_json::json!({
            "schema_version": 1,
            "tier": report.tier,
            "findings": findings,
        });
        text = format!("{}\n", serde_json::to_string_pretty(&answer)?);
    } else {
        for finding in &report.findings {
            let state = if finding.ok { "ok" } else { "no" };
            text += &format!("{state}  {}: {}\n", finding.name, finding.detail);
            if let Some(fix) = &finding.fix {
                text += &format!("    fix: {fix}\n");
            }
        }
        text += match report.tier {
            Some(Tier::Root) => "RUN steps run in namespaces as root, over overlayfs\n",
            Some(Tier::UserNamespace) => "RUN steps run in a user namespace, over overlayfs\n",
            Some(Tier::UserNamespaceBoundProc) => {
                "RUN steps run in a user namespace with this container's /proc\n"
            }
            None => "RUN steps can't run here\n",
        };
    }
    answer(&text)?;
    Ok(match report.tier {
        Some(_) => ExitCode::Success,
        None => ExitCode::HostUnsupported,
    })
}
