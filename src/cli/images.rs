//! Base images: from references to digests, configurations and layers.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::try_join_all;

use super::CliError;
use crate::{
    digest::Sha256Digest,
    graph::{ImageOp, ImageOrigin, ImageTable, ResolvedImage},
    oci::{
        ImageConfig, Platform, ResolvedManifest,
        layout::{Layout, LayoutReference},
        reference::Reference,
    },
    plan::lock::Lock,
    registry::Registry,
};

/// Prefix of `--build-context name=docker-image://…`.
const IMAGE_SCHEME: &str = "docker-image://";

/// Where the digests and configurations of base images come from.
#[derive(Debug)]
pub(super) struct BaseImages {
    /// None: nobody is asked, and an empty image stands for each one.
    registry: Option<Arc<Registry>>,
    /// What the images are pinned to.
    lock: Option<Lock>,
    /// What was resolved so far: a reference means one thing throughout a command.
    known: Mutex<ImageTable>,
}

impl BaseImages {
    /// Images from their registries, where they are not pinned by their tags.
    pub(super) fn of_registry(registry: Arc<Registry>, lock: Option<Lock>) -> Self {
        Self {
            registry: Some(registry),
            lock,
            known: Mutex::default(),
        }
    }

    /// Empty images in place of all: for comparisons that need no network.
    pub(super) fn stand_ins(lock: Option<Lock>) -> Self {
        Self {
            registry: None,
            lock,
            known: Mutex::default(),
        }
    }

    /// Whether nothing is to be asked for over the network.
    pub(super) fn asks_nobody(&self) -> bool {
        self.registry.is_none()
    }

    /// Resolves all references, side by side.
    pub(super) async fn resolve(
        &self,
        wanted: Vec<(String, Platform)>,
    ) -> Result<ImageTable, CliError> {
        let images = wanted.into_iter().map(|(reference, platform)| async move {
            let key = (reference, platform);
            let known = self.known().get(&key).cloned();
            let image = match known {
                Some(image) => image,
                None => self.image(&key.0, &key.1).await?,
            };
            Ok::<_, CliError>((key, image))
        });
        let images: ImageTable = try_join_all(images).await?.into_iter().collect();
        self.known().extend(images.clone());
        Ok(images)
    }

    /// What was resolved so far.
    pub(super) fn known(&self) -> MutexGuard<'_, ImageTable> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn image(&self, reference: &str, platform: &Platform) -> Result<ResolvedImage, CliError> {
        let pinned = self.lock.as_ref();
        let pinned = pinned.and_then(|lock| lock.get(reference, &platform.to_string()));
        let image = match (&self.registry, pinned) {
            (None, None) => return stand_in(reference, platform),
            (None, Some(digest)) => {
                let mut image = stand_in(reference, platform)?;
                image.op.manifest = digest;
                return Ok(image);
            }
            (Some(registry), None) => resolve_one(registry, reference, platform).await?,
            (Some(registry), Some(digest)) => {
                let at_digest = pin(reference, digest)?;
                let mut image = resolve_one(registry, &at_digest, platform).await?;
                reference.clone_into(&mut image.op.reference);
                image
            }
        };
        let actual = image.config.platform();
        match runs_on(&actual, platform) {
            true => Ok(image),
            false => Err(CliError::BasePlatform {
                reference: reference.to_owned(),
                actual: Box::new(actual),
                wanted: Box::new(platform.clone()),
            }),
        }
    }
}

/// A reference to the manifest that an image is pinned to. One with a digest of its own, and a layout,
/// need no pin.
fn pin(reference: &str, digest: Sha256Digest) -> Result<String, CliError> {
    let name = reference.strip_prefix(IMAGE_SCHEME).unwrap_or(reference);
    if LayoutReference::is_one(reference) || name.contains('@') {
        return Ok(reference.to_owned());
    }
    let parsed: Reference = name.parse().map_err(|source| CliError::BaseReference {
        reference: reference.to_owned(),
        source,
    })?;
    Ok(format!("{}@{digest}", parsed.repository))
}

/// Resolves one reference; whether the image runs on the platform is left to the caller.
pub(super) async fn resolve_one(
    registry: &Registry,
    reference: &str,
    platform: &Platform,
) -> Result<ResolvedImage, CliError> {
    let (resolved, origin) = if LayoutReference::is_one(reference) {
        from_layout(reference, platform)?
    } else {
        let name = reference.strip_prefix(IMAGE_SCHEME).unwrap_or(reference);
        let parsed: Reference = name.parse().map_err(|source| CliError::BaseReference {
            reference: reference.to_owned(),
            source,
        })?;
        let resolved = registry
            .resolve(&parsed, platform)
            .await
            .map_err(|source| CliError::BaseImage {
                reference: reference.to_owned(),
                source: Box::new(source),
            })?;
        let repository = parsed.repository.to_string();
        (resolved, ImageOrigin::Registry { repository })
    };
    Ok(ResolvedImage {
        op: ImageOp {
            reference: reference.to_owned(),
            manifest: resolved.digest,
            layers: resolved.layers,
            origin,
        },
        config: resolved.config,
    })
}

/// An image in place of one that isn't asked for: empty, for the platform. A layout's image is
/// read, which needs no network.
pub(super) fn stand_in(reference: &str, platform: &Platform) -> Result<ResolvedImage, CliError> {
    let (layers, manifest, config, origin) = if LayoutReference::is_one(reference) {
        let (resolved, origin) = from_layout(reference, platform)?;
        (resolved.layers, resolved.digest, resolved.config, origin)
    } else {
        let origin = ImageOrigin::Registry {
            repository: String::new(),
        };
        let manifest = Sha256Digest::of(reference.as_bytes());
        (Vec::new(), manifest, ImageConfig::empty(platform), origin)
    };
    Ok(ResolvedImage {
        op: ImageOp {
            reference: reference.to_owned(),
            manifest,
            layers,
            origin,
        },
        config,
    })
}

/// Whether an image for `actual` may stand where `wanted` was asked for: the same, or an
/// older relative that the same machine runs.
fn runs_on(actual: &Platform, wanted: &Platform) -> bool {
    let architectures = (actual.architecture.as_str(), wanted.architecture.as_str());
    actual.os == wanted.os
        && (architectures.0 == architectures.1
            || matches!(architectures, ("386", "amd64") | ("arm", "arm64")))
}

fn from_layout(
    reference: &str,
    platform: &Platform,
) -> Result<(ResolvedManifest, ImageOrigin), CliError> {
    let parsed: LayoutReference =
        reference
            .parse()
            .map_err(|source| CliError::BaseLayoutReference {
                reference: reference.to_owned(),
                source,
            })?;
    let resolve = || {
        let layout = Layout::open(Path::new(&parsed.dir))?;
        layout.resolve(&parsed.selector, platform)
    };
    let resolved = resolve().map_err(|source| CliError::BaseLayout {
        reference: reference.to_owned(),
        source,
    })?;
    Ok((resolved, ImageOrigin::Layout { dir: parsed.dir }))
}
