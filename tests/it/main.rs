//! The product against in-process parts: no privilege, no network.

mod config;
mod reference;
mod tidy;
