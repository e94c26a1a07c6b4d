//! The product against in-process parts: no network, no privilege where none is named.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    missing_docs,
    reason = "helpers of tests fail by panics and talk by printing, as tests do"
)]

// The service that the store's own tests have.
#[path = "../../src/cache/actions_service/tests/service.rs"]
mod actions_service;
mod attack_backends;
mod build;
mod build_errors;
mod build_fixture;
mod build_loss;
mod build_run;
mod cache_attacks;
mod config;
mod explain;
mod language;
mod mount_trees;
#[cfg(feature = "object-storage")]
mod object_services;
mod output_push;
mod outputs;
mod pull;
mod push;
mod reference;
mod registry_cache;
mod registry_server;
mod remote;
mod sandbox;
mod server;
mod server_earlier;
mod server_limits;
mod snapshot;
mod store_kill;
mod store_trouble;
mod tidy;
mod tier_lab;
mod tiers;
mod tiers_process;
