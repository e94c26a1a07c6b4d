//! Targets of bake and compose files.

use std::{io::Write as _, path::Path, time::SystemTime};

use crate::{
    bake::{self, File, Inputs, Plan},
    cli::{CliError, Context, build::BuildArgs},
    config,
    fs,
    oci::Platform,
};

/// What the files define and the options ask for.
pub(in crate::cli) fn plan(context: &Context, args: &BuildArgs) -> Result<Plan, CliError> {
    let mut files = Vec::new();
    for path in &args.bake {
        if path.is_dir() {
            files.extend(default_files(path)?);
        } else {
            files.push(file(path)?);
        }
    }
    let targets: Option<Vec<String>> = args
        .positional
        .iter()
        .chain(args.target.iter().map(Path::new).map(Path::to_path_buf).collect::<Vec<_>>().iter())
        .map(|word| word.to_str().map(str::to_owned))
        .collect();
    let inputs = Inputs {
        files,
        targets: targets.ok_or_else(|| CliError::usage("names of targets are plain text"))?,
        overrides: args.set.clone(),
        env: &config::env::build_arg,
        read: &read,
        local_platform: Platform::host().to_string(),
        now: SystemTime::now(),
        home: context
            .env
            .home()
            .map(|home| home.display().to_string())
            .unwrap_or_default(),
    };
    let mut plan = bake::read(inputs)?;
    // As `docker buildx bake` does: every target is told the time that the caller wants.
    if let Some(epoch) = context.env.source_date_epoch()? {
        for target in plan.targets.values_mut() {
            let value = || epoch.to_string();
            target
                .args
                .entry("SOURCE_DATE_EPOCH".to_owned())
                .or_insert_with(value);
        }
    }
    Ok(plan)
}

/// `--print`.
pub(in crate::cli) fn print(context: &Context, args: &BuildArgs) -> Result<(), CliError> {
    let plan = plan(context, args)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", plan.to_json()).map_err(CliError::Answer)
}

fn file(path: &Path) -> Result<File, CliError> {
    Ok(File {
        name: path.display().to_string(),
        text: fs::read_to_string(path)?,
    })
}

/// The files in `dir` that have one of the names which are read by default.
fn default_files(dir: &Path) -> Result<Vec<File>, CliError> {
    let mut files = Vec::new();
    for name in bake::DEFAULT_FILES {
        let path = match dir == Path::new(".") {
            true => Path::new(name).to_owned(),
            false => dir.join(name),
        };
        if fs::exists(&path) {
            files.push(file(&path)?);
        }
    }
    if files.is_empty() {
        let problem = bake::Problem::NoFile {
            dir: dir.display().to_string(),
        };
        let hint = format!("these are looked for: {}", bake::DEFAULT_FILES.join(", "));
        return Err(bake::BakeError::without_place(problem, Some(hint)).into());
    }
    Ok(files)
}

/// A file that a compose file names.
fn read(path: &str) -> Result<Option<String>, String> {
    match fs::read_to_string(Path::new(path)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.source.to_string()),
    }
}
