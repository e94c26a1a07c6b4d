//! Finding bases.
