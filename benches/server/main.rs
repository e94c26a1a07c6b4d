//! How long look-ups take while a hundred clients ask at once.
//!
//! `cargo bench --bench server [-- CLIENTS ROUNDS KEYS]` starts a cache server with 5,000 entries on
//! loopback; each client sends ROUNDS batches of KEYS keys, half of them hits, one right after the
//! other. It prints the quantiles of the time that a batch takes, in milliseconds.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a benchmark fails by panics and prints"
)]

use std::time::{Duration, Instant};

use memobuild_ci::{
    cache::{
        ActionCache as _, Scope,
        conformance::sample_action,
        http::{HttpCache, HttpOptions},
    },
    key::{RecipePart, RecipeValue},
    server::{Server, ServerOptions},
};
use tokio::task::JoinSet;

const ENTRIES: u64 = 5_000;

fn main() {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse::<u64>().ok());
    let clients = numbers.next().unwrap_or(100);
    let rounds = numbers.next().unwrap_or(30);
    let keys = numbers.next().unwrap_or(50);
    let dir = tempfile::tempdir().unwrap();
    // Two runtimes, as two processes have.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = ServerOptions::new("127.0.0.1:0".parse().unwrap(), dir.path().to_owned());
    let server = runtime.block_on(Server::bind(options)).unwrap();
    let address = format!("http://{}", server.address());
    let mut serving = JoinSet::new();
    serving.spawn_on(server.run(std::future::pending()), runtime.handle());
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(measure(&address, clients, rounds, keys));
}

fn client(address: &str) -> HttpCache {
    HttpCache::open(&address.parse().unwrap(), &HttpOptions::default()).unwrap()
}

async fn measure(address: &str, clients: u64, rounds: u64, keys: u64) {
    let cache = client(address);
    for number in 0..ENTRIES {
        let mut entry = sample_action(number, &[]);
        entry.scope = Scope::protected();
        // About what a RUN of a real image has.
        entry.recipe = (0..12)
            .map(|n| RecipePart {
                name: format!("environment {n}"),
                value: RecipeValue::Text("value ".repeat(20)),
            })
            .collect();
        cache.put(&entry).await.unwrap();
    }
    let mut asking = JoinSet::new();
    let started = Instant::now();
    for own in 0..clients {
        let cache = client(address);
        asking.spawn(async move {
            let scopes = [Scope::protected(), Scope::branch("main"), Scope::pull("7")];
            let mut times = Vec::new();
            for round in 0..rounds {
                let batch: Vec<_> = (0..keys)
                    .map(|n| (own * 7919 + round * 104_729 + n * 2) % (2 * ENTRIES))
                    .map(|number| sample_action(number, &[]).key)
                    .collect();
                let asked = Instant::now();
                let found = cache.lookup(&scopes, &batch).await.unwrap();
                times.push(asked.elapsed());
                assert_eq!(found.len() as u64, keys);
            }
            times
        });
    }
    let mut times: Vec<Duration> = asking.join_all().await.into_iter().flatten().collect();
    let took = started.elapsed();
    times.sort();
    let quantile = |q: usize| times[(times.len() - 1) * q / 100].as_secs_f64() * 1000.0;
    println!(
        "{} look-ups of {keys} keys by {clients} clients in {:.2} s: p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        times.len(),
        took.as_secs_f64(),
        quantile(50),
        quantile(90),
        quantile(99),
        quantile(100),
    );
}
