//! The cache server of this program: its protocol.
//!
//! [`wire`] is what client and server say to each other.

pub mod wire;
