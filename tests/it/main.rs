<<<<<<< HEAD
//! The product against in-process parts: no network, no privilege where none is named.
=======
//! The product against in-process parts: no privilege, no network.

>>>>>>> snapshot
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    missing_docs,
    reason = "helpers of tests fail by panics and talk by printing, as tests do"
)]

<<<<<<< HEAD
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by it, also in its helpers"
)]

mod config;
mod pull;
mod reference;
mod registry_server;
mod store_kill;
mod store_trouble;
mod tidy;
mod sandbox;
=======
mod sandbox;
mod snapshot;
mod store_kill;
mod store_trouble;
>>>>>>> snapshot
