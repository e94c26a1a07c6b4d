//! The product against in-process parts: no privilege, no network.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod pull;
mod registry_server;
