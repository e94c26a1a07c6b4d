//! Dockerfiles and `.dockerignore` files, as BuildKit's Dockerfile reference (version
//! 1 of the syntax) defines them.
//!
//! [`parse`] makes a [`Dockerfile`] from text: `lines` joins continued lines and
//! collects heredocs, `flags` and `words` take one instruction apart, `parser` gives
//! it its meaning. Nothing is expanded while parsing: the tree keeps words as written,
//! and lowering (`graph::lower`) hands them to [`expand`] with the variables that
//! are known at that place. Every error is a [`DockerfileError`] with the lines it is
//! about.
//!
//! [`ignore`] decides which files of a context exist for a build, [`pattern`] which
//! of them a COPY source means.

pub mod address;
pub mod ast;
mod error;
pub mod expand;
mod flags;
mod hint;
pub mod ignore;
mod instruction;
mod lines;
pub mod lint;
mod mount;
mod parser;
pub mod pattern;
mod shell_pattern;
mod source;
mod suggest;
mod words;

pub use ast::Dockerfile;
pub use error::{DockerfileError, Problem};
pub use lines::is_builtin_frontend;
pub use mount::{DeviceFlag, Mount, MountFlag, MountKind, bytes, csv_fields};
pub use parser::{parse, parse_trigger};
pub use source::{Source, Span};
pub use suggest::nearest;
pub use words::{is_heredoc, one_line};

#[cfg(test)]
mod tests;
