//! One Dockerfile, as `docker buildx build` takes it.

use std::{path::Path, sync::Arc};

use super::{Recipe, Settings, remote, words};
use crate::{
    cli::{CliError, Context, build::BuildArgs, output},
    export::{ImageJob, Output},
    fs::Files,
    graph::BuildGraph,
    oci::{Platform, reference::Reference},
    remote::Sources,
};

/// One Dockerfile, as `docker buildx build` takes it.
pub(super) async fn from_arguments(
    context: &Context,
    args: &BuildArgs,
    settings: &Settings,
    sources: &Arc<Sources>,
    graph: &mut BuildGraph,
) -> Result<(Vec<Recipe>, Vec<ImageJob>), CliError> {
    if args.target.len() > 1 {
        return Err(CliError::usage("a Dockerfile is built for one `--target`"));
    }
    if let Some(variant) = args.variant.first() {
        return Err(CliError::usage_hint(
            format!("`--variant {variant}` needs a `memobuild.yml`"),
            "leave CONTEXT and `-f` out to build from one",
        ));
    }
    for tag in &args.tag {
        tag.parse::<Reference>().map_err(|error| {
            CliError::usage(format!("`-t {tag}` is not an image name: {error}"))
        })?;
    }
    let mut platforms = words::platforms(args)?;
    if platforms.is_empty() {
        platforms.push(Platform::host());
    }
    let build_args = words::build_args(context, args)?;
    let keep_git_dir = words::keep_git_dir(&build_args);
    let place = remote::place(&*context.files, args, keep_git_dir, sources, graph).await?;
    let several = platforms.len() > 1;
    let mut recipes = Vec::new();
    for platform in platforms {
        recipes.push(Recipe {
            name: match several {
                true => format!("image ({platform})"),
                false => "image".to_owned(),
            },
            prefix: String::new(),
            dockerfile: place.dockerfile.clone(),
            stage: args.target.first().cloned(),
            platform,
            args: build_args.clone(),
            context: place.context,
            parent: None,
            links: Vec::new(),
            own: None,
            refresh: None,
            settings: settings.clone(),
        });
    }
    let reference = match args.tag.first() {
        Some(tag) => tag.clone(),
        None => default_name(&*context.files, &place.name)?,
    };
    let job = ImageJob {
        name: match args.tag.first() {
            Some(tag) => tag.clone(),
            None => "image".to_owned(),
        },
        targets: (0..recipes.len()).collect(),
        outputs: outputs(context, args, &reference)?,
        tags: args.tag.clone(),
        annotations: output::annotations(&args.annotation)?,
        multi_platform: words::multi_platform(&build_args)?,
        epoch: settings.epoch,
    };
    Ok((recipes, vec![job]))
}

/// `-o` and `--load`, else `<output directory>/<name>-<tag>`.
pub(super) fn outputs(
    context: &Context,
    args: &BuildArgs,
    reference: &str,
) -> Result<Vec<Output>, CliError> {
    let default = || vec![output::default_layout(&context.env.output_dir(), reference)];
    Ok(output::outputs(&args.output, args.load, args.push)?.unwrap_or_else(default))
}

/// The name of an image that was given none: that of its directory.
fn default_name(files: &dyn Files, dir: &Path) -> Result<String, CliError> {
    let dir = match files.exists(dir) {
        true => files.canonicalize(dir)?,
        false => dir.to_owned(),
    };
    let name: String = dir
        .file_name()
        .map(|n| n.to_string_lossy().to_lowercase())
        .unwrap_or_default()
        .chars()
        .map(|c| match c {
            'a'..='z' | '0'..='9' | '-' | '_' | '.' => c,
            _ => '-',
        })
        .collect();
    let name = name.trim_matches(['-', '_', '.']);
    Ok(match name {
        "" => "image".to_owned(),
        name => name.to_owned(),
    })
}
