//! The `memobuild-ci` program: hands over to the library and sets the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    // Hidden subcommands run before anything starts a thread.
    match memobuild_ci::cli::hidden(args) {
        Ok(code) => code,
        Err(args) => memobuild_ci::cli::run(args),
    }
}
