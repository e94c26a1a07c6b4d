//! The product against in-process parts: no privilege, no network.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by it, also in its helpers"
)]

mod config;
mod reference;
mod tidy;
