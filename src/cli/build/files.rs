//! What a build tells about its result: `--iidfile`, `--metadata-file`, and the id on stdout.

use serde_json::{Map, Value, json};

use super::BuildArgs;
use crate::{
    cli::{CliError, Context, answer},
    export::{Exported, ImageJob, Output},
    fs,
};

/// Fails for an `--iidfile` that can't be written, and removes that of an earlier build: a build
/// that fails must not leave it.
pub(super) fn check(args: &BuildArgs, jobs: &[ImageJob]) -> Result<(), CliError> {
    let Some(path) = &args.iidfile else {
        return Ok(());
    };
    if !jobs.first().is_some_and(ImageJob::has_id) {
        return Err(CliError::usage_hint(
            "`--iidfile` names one image, and several platforms without an image output have none",
            "add an image output, for instance `-o type=oci,dest=FILE`",
        ));
    }
    // Where `/dev/stdout` or the like was named, there is nothing to remove.
    match fs::open_special(path)? {
        Some(_) => Ok(()),
        None => Ok(fs::remove_file(fs::behind_link(path)?)?),
    }
}

/// `--iidfile` and `--metadata-file`.
pub(super) fn write_files(args: &BuildArgs, exported: &[Exported]) -> Result<(), CliError> {
    let id = exported.first().and_then(|one| one.id);
    if let (Some(path), Some(id)) = (&args.iidfile, id) {
        fs::write_to(path, id.to_string().as_bytes())?;
    }
    let Some(path) = &args.metadata_file else {
        return Ok(());
    };
    let described: Vec<Value> = exported.iter().map(describe).collect();
    let value = match described.as_slice() {
        [one] => one.clone(),
        several => json!({ "images": several }),
    };
    fs::write_to(path, serde_json::to_string_pretty(&value)?.as_bytes())?;
    Ok(())
}

/// Prints the images' ids with `-q`, as `docker build` does, unless stdout has the result.
pub(super) fn print_ids(
    context: &Context,
    jobs: &[ImageJob],
    exported: &[Exported],
) -> Result<(), CliError> {
    let taken = jobs
        .iter()
        .any(|job| job.outputs.iter().any(Output::is_stdout));
    if !context.global.quiet || taken {
        return Ok(());
    }
    let ids: String = exported
        .iter()
        .filter_map(|one| one.id)
        .map(|id| format!("{id}\n"))
        .collect();
    answer(&ids)
}

/// The keys that `docker buildx build --metadata-file` writes, where they apply, and ours.
fn describe(exported: &Exported) -> Value {
    let mut value = Map::new();
    if let Some(image) = &exported.image {
        let digest = &image.descriptor.digest;
        value.insert("containerimage.digest".to_owned(), json!(digest));
        value.insert(
            "containerimage.descriptor".to_owned(),
            json!(image.descriptor),
        );
        if let Some(config) = &image.config {
            value.insert("containerimage.config.digest".to_owned(), json!(config));
        }
        if !image.names.is_empty() {
            value.insert("image.name".to_owned(), json!(image.names.join(",")));
        }
    }
    let dests = exported.dests.iter();
    let dests: Vec<String> = dests.map(|dest| dest.display().to_string()).collect();
    if let Some(dest) = dests.first() {
        value.insert("memobuild.dest".to_owned(), json!(dest));
    }
    value.insert("memobuild.layers".to_owned(), json!(exported.layers));
    value.insert("memobuild.name".to_owned(), json!(exported.name));
    value.insert("memobuild.outputs".to_owned(), json!(dests));
    Value::Object(value)
}
