//! The formats of the Open Container Initiative, and our layers within them.
//!
//! [`layer`] is the heart: canonical tars, their index, their frames. The rest are
//! small immutable views of descriptors, manifests, indexes, image configurations,
//! references and platforms, and the image layout on disk.

pub mod config;
pub mod layer;
pub mod platform;

pub use config::ImageConfig;
pub use platform::Platform;
