//! The product against in-process parts: no privilege, no network.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail by panics and talk by printing, as tests do"
)]

mod sandbox;
mod snapshot;
mod store_kill;
mod store_trouble;
