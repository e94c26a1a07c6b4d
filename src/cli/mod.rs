//! Being written.

pub mod exit;
