//! memobuild-ci builds container images incrementally in CI.
//!
//! # What a build is
//!
//! A build starts from Dockerfiles: one on the command line, the layer targets of a
//! `memobuild.yml`, or the targets of a bake file ([`bake`]). Each Dockerfile is parsed ([`dockerfile`]) and
//! lowered to one [`graph`] of *vertices* for all targets and platforms. Every
//! vertex has a *definition key* and, once its inputs are solved, a *content key*
//! ([`key`]). The [`engine`] solves vertices from the targets backwards: a key that
//! the [`cache`] knows is a hit and costs metadata only; a miss is executed, a COPY
//! as a pure transformation of trees, a RUN in a [`sandbox`] over unpacked layers
//! ([`snapshot`]). Results are lazy: a layer's bytes are fetched only where an
//! executing step or an export needs them. [`export`] writes the OCI layout. Whose
//! build it is, and so whom its results are trusted by, is read from the CI platform ([`ci`]). All
//! that happens is told as one stream of [`event`]s, which [`ui`] renders.
//!
//! `docs/internals/architecture.md` tells it at length, with the solver's algorithm and where to
//! add what.
//!
//! # The modules, in order
//!
//! A module uses only modules listed above it; `tests/it/tidy.rs` holds that.
//!
//! | group | modules |
//! |---|---|
//! | foundations | [`sys`], [`redact`], [`digest`], [`fs`], [`event`] |
//! | formats | [`oci`], [`device`], [`dockerfile`], [`config`], [`bake`] |
//! | meaning | [`graph`], [`key`] |
//! | the outside | [`registry`], [`cache`], [`remote`], [`context`], [`git`] |
//! | running a step | [`userns`], [`snapshot`], [`ssh`], [`sandbox`] |
//! | operations | [`engine`], [`export`], [`plan`] |
//! | faces | [`ci`], [`ui`], [`server`], [`simulate`] |
//! | command line | [`cli`] |
//!
//! # Files on disk
//!
//! | path | content | format |
//! |---|---|---|
//! | `$MEMOBUILD_CACHE_DIR` | blobs, results of steps, unpacked layers, cache mounts, fetched sources | `docs/internals/storage-format.md` |
//! | `.memobuild-output/<name>-<tag>` | the image | OCI image layout 1.1 |
//! | `memobuild.yml` | layer targets and variants, or the bake files to build | `docs/reference/configuration.md` |

pub mod digest;
pub mod event;
pub mod fs;
pub mod redact;
pub mod sys;

pub mod bake;
pub mod config;
pub mod device;
pub mod dockerfile;
pub mod oci;

pub mod graph;
pub mod key;

pub mod cache;
pub mod context;
pub mod git;
pub mod registry;
pub mod remote;

pub mod sandbox;
pub mod snapshot;
pub mod ssh;
pub mod userns;

pub mod engine;
pub mod export;
pub mod plan;

pub mod ci;
pub mod server;
pub mod simulate;
pub mod ui;

pub mod cli;
