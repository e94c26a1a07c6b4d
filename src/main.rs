//! The `memobuild-ci` program: hands over to the library and sets the exit code.

<<<<<<< HEAD
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    // Hidden subcommands run before anything starts a thread.
    match memobuild_ci::cli::hidden(args) {
        Ok(code) => code,
        Err(args) => memobuild_ci::cli::run(args),
=======
use std::{
    ffi::OsString,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use memobuild_ci::{sandbox, snapshot, userns};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = hidden(&args) {
        return code;
    }
    ExitCode::SUCCESS
}

/// Runs a subcommand that we start ourselves, before any thread exists; none if `args`
/// are a user's.
fn hidden(args: &[OsString]) -> Option<ExitCode> {
    let (name, rest) = args.split_first()?;
    match name.to_str()? {
        userns::ENTER => Some(match userns::enter(rest) {
            Ok(args) => hidden(&args).unwrap_or(ExitCode::FAILURE),
            Err(error) => {
                let cause = std::error::Error::source(&error);
                let cause = cause.map(|e| format!(": {e}")).unwrap_or_default();
                // Nobody to tell that nobody listens.
                let _ = writeln!(io::stderr(), "{error}{cause}");
                ExitCode::from(userns::EnterError::EXIT_CODE)
            }
        }),
        sandbox::INIT => Some(sandbox::init()),
        sandbox::PROBE => Some(sandbox::probe_child(Path::new(rest.first()?))),
        _ => {
            snapshot::worker::dispatch(args, &mut io::stdin(), &mut io::stdout(), &mut io::stderr())
                .map(ExitCode::from)
        }
>>>>>>> snapshot
    }
}
