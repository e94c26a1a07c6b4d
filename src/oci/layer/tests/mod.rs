//! Tests that span several files of the layer module.

mod index_and_content;
mod reading;
mod samples;
mod tree_model;
mod writing;
