//! The product against in-process parts: no privilege, no network.

mod pull;
mod registry_server;
