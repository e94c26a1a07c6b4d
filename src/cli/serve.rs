//! `serve`: the cache server.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{CliError, ExitCode, answer};
use crate::{
    cache::trust::ScopePattern,
    config::units::{self, UnitError},
    server::{Server, ServerOptions, store::Quotas},
};

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Listen at this address; port 0 takes a free one. The address is printed
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8470")]
    listen: SocketAddr,
    /// Directory to keep everything in
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// File with the tokens that are let in, and what they may do
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Let everybody in, from other machines too
    #[arg(long, conflicts_with = "tokens")]
    insecure_no_auth: bool,
    /// File with a public key whose signatures of entries are accepted; can be given more than once
    #[arg(long = "trusted-key", value_name = "FILE")]
    trusted_keys: Vec<PathBuf>,
    /// Refuse entries of these scopes that no trusted key has signed: `protected`, `branch/*`, `*`, …; can be given more than once
    #[arg(long, value_name = "SCOPE")]
    require_signature: Vec<String>,
    /// Append a line of JSON to this file for each request that was denied
    #[arg(long, value_name = "FILE")]
    audit_log: Option<PathBuf>,
    /// Keep at most this much, for instance `100GB`
    #[arg(long, value_name = "SIZE")]
    max_size: Option<String>,
    /// Keep at most this much of one class of scopes (`local`, `pull`, `branch`, `protected`), for
    /// instance `pull=20GB`. `pull` and `local` have half of `--max-size` each if nothing is said
    #[arg(long = "quota", value_name = "CLASS=SIZE")]
    quotas: Vec<String>,
    /// Drop what was not used for this long, for instance `30d`
    #[arg(long, value_name = "DURATION")]
    max_age: Option<String>,
    /// Never collect what was written less than this ago, so that uploads can be finished
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    grace: String,
    /// Let each token make at most so many namespaces
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    max_namespaces: usize,
    /// Answer at most so many requests at once; others are asked to come back
    #[arg(long, value_name = "NUMBER", default_value_t = 512)]
    max_requests: usize,
    /// Keep at most so many connections; others wait
    #[arg(long, value_name = "NUMBER", default_value_t = 1024)]
    max_connections: usize,
    /// Drop clients that send or take fewer than 4 KiB in this time
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    idle_timeout: String,
    /// How long running requests may take to end after SIGTERM
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    stop_timeout: String,
}

pub(super) fn run(args: &ServeArgs) -> Result<ExitCode, CliError> {
    let options = options(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let served = runtime.block_on(serve(options));
    // Requests that were cut off may still read or write a file: not worth waiting for.
    runtime.shutdown_background();
    served
}

async fn serve(options: ServerOptions) -> Result<ExitCode, CliError> {
    let stop = CancellationToken::new();
    let mut watchers = JoinSet::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut stream = signal(kind).map_err(CliError::Runtime)?;
        let stop = stop.clone();
        let number = kind.as_raw_value();
        watchers.spawn(async move {
            while stream.recv().await.is_some() {
                // Who asks twice doesn't want to wait.
                if stop.is_cancelled() {
                    crate::sys::exit_now(128 + number);
                }
                stop.cancel();
            }
        });
    }
    let server = Server::bind(options).await?;
    answer(&format!("http://{}\n", server.address()))?;
    server.run(stop.cancelled_owned()).await;
    watchers.shutdown().await;
    Ok(ExitCode::Success)
}

fn options(args: &ServeArgs) -> Result<ServerOptions, CliError> {
    let mut options = ServerOptions::new(args.listen, args.data.clone());
    options.tokens = args.tokens.clone();
    options.open_to_all = args.insecure_no_auth;
    options.trusted_keys = args.trusted_keys.clone();
    for text in &args.require_signature {
        let pattern = text.parse::<ScopePattern>();
        let pattern = pattern
            .map_err(|error| CliError::usage(format!("`--require-signature {text}`: {error}")))?;
        options.require_signature.push(pattern);
    }
    options.audit_log = args.audit_log.clone();
    options.namespaces = args.max_namespaces;
    options.requests = args.max_requests.max(1);
    options.connections = args.max_connections.max(1);
    if let Some(text) = &args.max_size {
        options.quotas = Quotas::of(size("--max-size", text)?);
    }
    for quota in &args.quotas {
        let Some((class, text)) = quota.split_once('=') else {
            let hint = "write it as `pull=20GB`";
            return Err(CliError::usage_hint(
                format!("`--quota {quota}` names no class"),
                hint,
            ));
        };
        let bytes = size("--quota", text)?;
        if !options.quotas.set(class, bytes) {
            let hint = "the classes are `local`, `pull`, `branch` and `protected`";
            return Err(CliError::usage_hint(
                format!("`--quota {quota}` names no class of scopes"),
                hint,
            ));
        }
    }
    if let Some(text) = &args.max_age {
        options.max_age = Some(duration("--max-age", text)?);
    }
    options.grace = duration("--grace", &args.grace)?;
    options.pace.window = duration("--idle-timeout", &args.idle_timeout)?;
    options.stop_limit = duration("--stop-timeout", &args.stop_timeout)?;
    Ok(options)
}

fn bad(option: &str, text: &str, error: &UnitError) -> CliError {
    CliError::usage(format!("`{option} {text}`: {error}"))
}

fn size(option: &str, text: &str) -> Result<u64, CliError> {
    units::parse_size(text).map_err(|error| bad(option, text, &error))
}

fn duration(option: &str, text: &str) -> Result<Duration, CliError> {
    units::parse_duration(text).map_err(|error| bad(option, text, &error))
}
