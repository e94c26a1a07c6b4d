//! The formats of the Open Container Initiative, and our layers within them.
//!
//! [`layer`] is the heart: canonical tars, their index, their frames. The rest are
//! small immutable views of descriptors, manifests, indexes, image configurations,
//! references and platforms, and the image layout on disk.

pub mod config;
pub mod descriptor;
pub mod index;
pub mod layer;
pub mod layout;
pub mod manifest;
pub mod platform;
pub mod reference;
pub mod validate;

pub use config::ImageConfig;
pub use descriptor::{Descriptor, MediaKind};
pub use index::ImageIndex;
pub use manifest::{Document, Manifest, ManifestError, ResolvedManifest};
pub use platform::Platform;
pub use reference::{Reference, Repository};
