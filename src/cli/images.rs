//! Base images: from references to digests, configurations and layers.

use std::path::Path;

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
    registry::Registry,
};

/// Prefix of `--build-context name=docker-image://…`.
const IMAGE_SCHEME: &str = "docker-image://";

/// Resolves all references, side by side.
pub(super) async fn resolve(
    registry: &Registry,
    wanted: Vec<(String, Platform)>,
) -> Result<ImageTable, CliError> {
    let images = wanted.into_iter().map(|(reference, platform)| async move {
        let image = resolve_one(registry, &reference, &platform).await?;
        let actual = image.config.platform();
        if !runs_on(&actual, &platform) {
            return Err(CliError::BasePlatform {
                reference,
                actual: Box::new(actual),
                wanted: Box::new(platform),
            });
        }
        Ok::<_, CliError>(((reference, platform), image))
    });
    Ok(try_join_all(images).await?.into_iter().collect())
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
