//! Tests of more than one file: tables, corpora, properties.

mod errors;
mod expand;
mod ignore;
mod parse;
