//! The command line: parse, call one operation, print.
//!
//! stdout is the answer, stderr the talk. Every failure ends in one report on stderr and
//! a documented exit code ([`exit`]).

mod build;
pub mod buildx;
mod cache;
mod caches;
mod call;
mod ci;
mod completions;
mod config;
mod doctor;
mod error;
pub mod exit;
mod explain;
mod images;
mod output;
mod plan;
mod prepare;
mod serve;
mod simulate;

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode as ProcessCode,
    sync::Arc,
};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::{
    config::env::{ColorChoice, Env},
    event::Events,
    fs::{Disk, Files},
    sandbox, snapshot, ui, userns,
};
use error::CliError;
use exit::ExitCode;

/// Incremental container image builds for CI.
#[derive(Debug, Parser)]
#[command(name = "memobuild-ci", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
struct Global {
    /// Work in this directory
    #[arg(short = 'C', long = "directory", value_name = "DIR", global = true)]
    directory: Option<PathBuf>,
    /// Use this configuration instead of `memobuild.yml` in the directory
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// When to use colour
    #[arg(long, value_enum, default_value_t, value_name = "WHEN", global = true)]
    color: When,
    /// Show only warnings and errors
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Log what memobuild-ci itself does; twice: in every detail
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum When {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build images from the layer targets of `memobuild.yml`, or from one Dockerfile
    Build(Box<build::BuildArgs>),
    /// Say why steps would run, and who made what is in the cache; executes nothing
    Explain(Box<explain::ExplainArgs>),
    /// Tell which targets a change affects and what is to be done about each
    Plan(Box<plan::PlanArgs>),
    /// Show the steps of a build and what they need
    Graph(Box<plan::GraphArgs>),
    /// Play a CI pipeline here: an event of a platform, or the last commits of the repository
    Simulate(Box<simulate::SimulateArgs>),
    /// List, check or clean the local cache
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// Check `memobuild.yml`, or print its JSON schema
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Serve a cache that runners share
    Serve(Box<serve::ServeArgs>),
    /// Tell how steps can run on this machine, and how to fix what prevents it
    Doctor(doctor::DoctorArgs),
    /// Tell what the CI platform says about the build: event, trust scope, base revision
    Ci(ci::CiArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// What every command works with.
struct Context {
    global: Global,
    env: Env,
    color: bool,
    /// What is built from: Dockerfiles, ignore files, the configuration.
    files: Arc<dyn Files>,
    /// What is otherwise than it is where the environment is a simulated one.
    simulation: Option<Arc<simulate::Simulation>>,
}

impl Context {
    /// The events of a command, shown in this way.
    fn events(&self, mode: ui::ProgressMode) -> Events {
        let shown = ui::Progress::new(mode, self.color, Box::new(io::stderr()));
        Events::new(match &self.simulation {
            Some(simulation) => simulation.also_told(shown),
            None => shown,
        })
    }
}

/// Runs a hidden subcommand, which the program starts itself with; gives the arguments back
/// if they are none.
pub fn hidden(args: Vec<OsString>) -> Result<ProcessCode, Vec<OsString>> {
    let Some(first) = args.first().and_then(|a| a.to_str()) else {
        return Err(args);
    };
    let rest = &args[1..];
    match first {
        userns::ENTER => Ok(match userns::enter(rest) {
            Ok(inner) => hidden(inner).unwrap_or(ProcessCode::FAILURE),
            Err(error) => {
                // Without the namespace there is nobody else to tell.
                let _ = writeln!(
                    io::stderr(),
                    "{}",
                    ui::report(&error, ui::ReportOptions::default())
                );
                ProcessCode::from(userns::EnterError::EXIT_CODE)
            }
        }),
        sandbox::INIT => Ok(sandbox::init()),
        sandbox::PROBE => Ok(sandbox::probe_child(rest)),
        name if name.starts_with("__") => {
            let code = snapshot::worker::dispatch(
                &args,
                &mut io::stdin(),
                &mut io::stdout(),
                &mut io::stderr(),
            );
            code.map(ProcessCode::from).ok_or(args)
        }
        _ => Err(args),
    }
}

/// Runs the command that `args` (without the program's name) ask for.
pub fn run(args: Vec<OsString>) -> ProcessCode {
    let args = std::iter::once(OsString::from("memobuild-ci")).chain(args);
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let told = match buildx::explain(&error) {
                Some(error) => {
                    let color = io::stderr().is_terminal();
                    io::stderr().write_all(error.report(0, color).as_bytes())
                }
                None => error.print(),
            };
            // Nobody to tell if the terminal is gone.
            let _ = told;
            return match error.use_stderr() {
                true => ProcessCode::from(ExitCode::Usage.code()),
                false => ProcessCode::SUCCESS,
            };
        }
    };
    let env = Env::of_process();
    let choice = match cli.global.color {
        When::Auto => ColorChoice::Auto,
        When::Always => ColorChoice::Always,
        When::Never => ColorChoice::Never,
    };
    let color = env.color(choice, io::stderr().is_terminal());
    start_log(&env, cli.global.verbose);
    let context = Context {
        global: cli.global,
        env,
        color,
        files: Arc::new(Disk),
        simulation: None,
    };
    let log_lines = match &cli.command {
        Command::Build(args) => build::progress_mode(&context, args).log_lines(),
        _ => 0,
    };
    let result = enter_directory(&context).and_then(|()| match cli.command {
        Command::Build(args) => build::run(&context, &args),
        Command::Explain(args) => explain::run(&context, *args),
        Command::Plan(args) => plan::run(&context, &args),
        Command::Graph(args) => plan::graph(&context, &args),
        Command::Simulate(args) => simulate::run(&context, &args),
        Command::Cache(command) => cache::run(&context, &command),
        Command::Config(command) => config::run(&context, &command),
        Command::Serve(args) => serve::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Ci(args) => ci::run(&context, &args),
        Command::Completions(args) => completions::run(&args),
    });
    match result {
        Ok(code) => ProcessCode::from(code.code()),
        Err(error) => {
            let report = error.report(log_lines, color);
            let _ = io::stderr().write_all(report.as_bytes());
            ProcessCode::from(error.exit().code())
        }
    }
}

fn enter_directory(context: &Context) -> Result<(), CliError> {
    match &context.global.directory {
        Some(dir) => std::env::set_current_dir(dir).map_err(|source| CliError::Directory {
            dir: dir.clone(),
            source,
        }),
        None => Ok(()),
    }
}

fn start_log(env: &Env, verbose: u8) {
    let filter = match verbose {
        0 => env.log_filter().to_owned(),
        1 => "memobuild_ci=debug".to_owned(),
        _ => "trace".to_owned(),
    };
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
}

/// Prints an answer. A reader that went away early is no error.
fn answer(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(CliError::Answer),
    }
}

/// The whole command tree, for completions and the reference page.
pub fn command() -> clap::Command {
    Cli::command()
}
