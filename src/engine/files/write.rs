//! From a plan to a layer.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use super::{Content, Contents, FileError, Plan, Planned, Source};
use crate::{
    fs::IoContext as _,
    oci::layer::{EntryKind, LayerBuilder, LayerError, LayerIndex, LayerPath},
};

/// Adds the entries that `plan` describes to a layer. `progress` is told the number of
/// entries written so far.
pub fn write<W: Write + Send>(
    plan: &Plan,
    sources: &[Option<Source>],
    builder: &mut LayerBuilder<W>,
    mut progress: impl FnMut(usize),
) -> Result<(), FileError> {
    for (n, planned) in plan.entries.iter().enumerate() {
        match &planned.content {
            Content::None if matches!(planned.entry.kind, EntryKind::Regular { .. }) => {
                builder.append(&planned.entry, Some(&mut io::empty()))?;
            }
            Content::None => builder.append(&planned.entry, None)?,
            Content::Bytes(bytes) => builder.append(&planned.entry, Some(&mut &bytes[..]))?,
            Content::File {
                source,
                layer,
                path,
                ..
            } => {
                let mut reader = open(sources, *source, *layer, path)?;
                append(builder, planned, &mut reader, path)?;
            }
            Content::Member { archive, path, .. } => {
                let member = plan.archives[*archive].read(path).transpose()?;
                let mut reader = member.unwrap_or_else(|| Box::new(io::empty()));
                append(builder, planned, &mut reader, path)?;
            }
        }
        progress(n + 1);
    }
    Ok(())
}

/// Appends a file; one that no longer has the size that was planned has changed.
fn append<W: Write + Send>(
    builder: &mut LayerBuilder<W>,
    planned: &Planned,
    content: &mut dyn Read,
    path: &LayerPath,
) -> Result<(), FileError> {
    builder
        .append(&planned.entry, Some(content))
        .map_err(|error| match error {
            LayerError::ContentSize { .. } => FileError::Changed {
                path: path.to_string(),
            },
            error => error.into(),
        })
}

fn open<'s>(
    sources: &'s [Option<Source>],
    number: usize,
    layer: usize,
    path: &LayerPath,
) -> Result<Box<dyn Read + 's>, FileError> {
    let changed = || FileError::Changed {
        path: path.to_string(),
    };
    let source = sources
        .get(number)
        .and_then(Option::as_ref)
        .ok_or_else(changed)?;
    match &source.contents {
        Contents::Directory(dir) => Ok(Box::new(open_beneath(dir, path)?)),
        Contents::Layers(layers) => {
            let index = source.tree.layers().get(layer).ok_or_else(changed)?;
            let row = index.get(path).ok_or_else(changed)?;
            Ok(layers.get(&layer).ok_or_else(changed)?.read(row)?)
        }
        Contents::Absent => Err(changed()),
    }
}

/// Opens a file below `dir`; no component may be a symlink, so that a link put there
/// after planning leads nowhere.
pub(super) fn open_beneath(dir: &Path, path: &LayerPath) -> Result<std::fs::File, FileError> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2};
    let whole = dir.join(path.as_path());
    let root = open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at("open", dir)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = match openat2(&root, path.as_path(), flags, Mode::empty(), resolve) {
        // Kernels and seccomp profiles without openat2: the plain call.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
            rustix::fs::openat(CWD, &whole, flags, Mode::empty())
        }
        result => result,
    };
    Ok(std::fs::File::from(file.at("open", &whole)?))
}

/// Whether the layer holds what was planned: a file of the context may have changed since
/// it was hashed. The layer's index has the digests of what was written.
pub fn check(plan: &Plan, index: &LayerIndex) -> Result<(), FileError> {
    for planned in &plan.entries {
        let (Content::File { path, digest, .. } | Content::Member { path, digest, .. }) =
            &planned.content
        else {
            continue;
        };
        let written = index.get(&planned.entry.path).and_then(|row| row.content);
        if written != Some(*digest) {
            return Err(FileError::Changed {
                path: path.to_string(),
            });
        }
    }
    Ok(())
}
