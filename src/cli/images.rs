//! Base images: from references to digests, configurations and layers.

use std::path::Path;

use futures_util::future::try_join_all;

use super::CliError;
use crate::{
    graph::{ImageOp, ImageOrigin, ImageTable, ResolvedImage},
    oci::{
        Platform, ResolvedManifest,
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
        Ok::<_, CliError>(((reference, platform), image))
    });
    Ok(try_join_all(images).await?.into_iter().collect())
}

async fn resolve_one(
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
    let actual = resolved.config.platform();
    if !runs_on(&actual, platform) {
        return Err(CliError::BasePlatform {
            reference: reference.to_owned(),
            actual,
            wanted: platform.clone(),
        });
    }
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
