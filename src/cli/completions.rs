//! `completions`: a completion script on stdout.

use clap::Args;
use clap_complete::Shell;

use super::{CliError, ExitCode, answer, command};

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "memobuild-ci", &mut script);
    answer(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::Success)
}
