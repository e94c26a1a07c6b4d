//! The files that describe a build's result.

use super::BuildArgs;
use crate::{cli::CliError, export::ExportedImage, fs};

/// `--iidfile` and `--metadata-file`.
pub(super) fn write_files(args: &BuildArgs, images: &[ExportedImage]) -> Result<(), CliError> {
    if let (Some(path), Some(image)) = (&args.iidfile, images.first()) {
        fs::write_atomic(path, image.digest.to_string().as_bytes())?;
    }
    let Some(path) = &args.metadata_file else {
        return Ok(());
    };
    let described: Vec<_> = images.iter().map(describe).collect();
    let value = match described.as_slice() {
        [one] => one.clone(),
        several => serde_json::json!({ "images": several }),
    };
    fs::write_atomic(path, serde_json::to_string_pretty(&value)?.as_bytes())?;
    Ok(())
}

/// The keys that `docker buildx build --metadata-file` writes, where they apply.
fn describe(image: &ExportedImage) -> serde_json::Value {
    serde_json::json!({
        "image.name": image.name,
        "containerimage.digest": image.digest,
        "containerimage.config.digest": image.config,
        "containerimage.descriptor": {
            "mediaType": image.media_type,
            "digest": image.digest,
            "size": image.size,
        },
        "memobuild.dest": image.dest.display().to_string(),
        "memobuild.layers": image.layers,
    })
}
