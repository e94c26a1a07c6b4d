//! Hidden subcommands that touch files inside a user namespace.
//!
//! | subcommand | arguments | standard input | standard output |
//! |---|---|---|---|
//! | `__unpack` | empty directory | layer tar | `meta.json` |
//! | `__fold` | empty directory, snapshot directories | | `meta.json` |
//! | `__diff` | upper directory, request file | | canonical tar |
//! | `__pack` | directory | | canonical tar |
//! | `__measure` | directory | | JSON of a `TreeMeasure` |
//! | `__remove` | path | | |
//!
//! An error goes to standard error, with all its causes, and the exit code is 1. Both
//! ends are of the same program, so none of this carries a version. The request file:
//! `u64 LE length · JSON of the options`, then for each lower layer, lowest first,
//! `u64 LE length · encoded layer index`.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    DiffOptions, SnapshotError,
    diff::diff,
    fold::fold,
    overlay::Flavour,
    packing::{self, pack},
    unpack::unpack_tar,
};
use crate::{
    fs::{self, IoContext},
    oci::layer::{Compression, LayerBuilder, LayerIndex, LayerOptions, LayerPath, Tree},
};

/// Unpacks a layer.
pub(super) const UNPACK: &str = "__unpack";
/// Merges unpacked layers.
pub(super) const FOLD: &str = "__fold";
/// Takes a difference.
pub(super) const DIFF: &str = "__diff";
/// Packs a directory.
pub(super) const PACK: &str = "__pack";
/// Counts what packing a directory would give.
pub(super) const MEASURE: &str = "__measure";
/// Removes a directory tree.
pub(super) const REMOVE: &str = "__remove";

/// Compression is for the process that asked.
const PLAIN: LayerOptions = LayerOptions {
    compression: Compression::None,
    level: None,
};

/// Runs the subcommand if `args` (without the program's name) is one of them; gives the
/// exit code.
pub fn dispatch(
    args: &[OsString],
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Option<u8> {
    let (name, args) = args.split_first()?;
    let paths: Vec<PathBuf> = args.iter().map(PathBuf::from).collect();
    let result = match (name.to_str()?, paths.as_slice()) {
        (UNPACK, [dir]) => {
            unpack_tar(dir, Flavour::User, stdin).and_then(|meta| answer(&meta, stdout))
        }
        (FOLD, [dest, layers @ ..]) => {
            fold(dest, layers, Flavour::User).and_then(|meta| answer(&meta, stdout))
        }
        (DIFF, [upper, request]) => write_diff(upper, request, stdout),
        (PACK, [dir]) => write_pack(dir, stdout),
        (MEASURE, [dir]) => packing::measure(Path::new(dir), Flavour::User)
            .and_then(|measured| answer(&measured, stdout)),
        (REMOVE, [path]) => fs::remove_dir_all(path).map_err(SnapshotError::from),
        _ => return None,
    };
    let Err(error) = result else {
        return Some(0);
    };
    // Nobody is left to be told if this fails.
    let _ = writeln!(stderr, "{}", with_causes(&error));
    Some(1)
}

/// The error and its causes on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn answer(value: &impl Serialize, stdout: &mut dyn Write) -> Result<(), SnapshotError> {
    serde_json::to_writer(stdout, value).map_err(SnapshotError::Protocol)
}

fn write_diff(upper: &Path, request: &Path, stdout: &mut dyn Write) -> Result<(), SnapshotError> {
    let bytes = fs::read(request)?;
    let (lower, options) = read_request(&bytes, request)?;
    let mut builder = LayerBuilder::new(stdout, PLAIN);
    diff(
        upper,
        Flavour::User,
        &lower,
        &options,
        &mut |entry, content| builder.append(entry, content),
    )?;
    builder.finish()?;
    Ok(())
}

fn write_pack(dir: &Path, stdout: &mut dyn Write) -> Result<(), SnapshotError> {
    let mut builder = LayerBuilder::new(stdout, PLAIN);
    pack(dir, Flavour::User, &mut |entry, content| {
        builder.append(entry, content)
    })?;
    builder.finish()?;
    Ok(())
}

/// [`DiffOptions`] as JSON; paths as bytes, because JSON knows only text.
#[derive(Serialize, Deserialize)]
struct Options {
    mtime: i64,
    normalise: bool,
    stubs: Vec<Vec<u8>>,
}

/// The request file of `__diff`.
pub(super) fn request(lower: &Tree, options: &DiffOptions) -> Result<Vec<u8>, SnapshotError> {
    let mut out = Vec::new();
    let stubs = options.stubs.iter().map(|path| path.as_bytes().to_vec());
    let options = serde_json::to_vec(&Options {
        mtime: options.mtime,
        normalise: options.normalise,
        stubs: stubs.collect(),
    })
    .map_err(SnapshotError::Protocol)?;
    add_part(&mut out, &options);
    for layer in lower.layers() {
        add_part(&mut out, &layer.encode()?);
    }
    Ok(out)
}

fn add_part(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The lower layers and options in the request file `bytes`.
fn read_request(bytes: &[u8], path: &Path) -> Result<(Tree, DiffOptions), SnapshotError> {
    let mut rest = bytes;
    let mut next = || -> Result<Option<&[u8]>, SnapshotError> {
        let Some((length, after)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (part, after) = after
            .split_at_checked(length)
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
            .at("read", path)?;
        rest = after;
        Ok(Some(part))
    };
    let options: Options =
        serde_json::from_slice(next()?.unwrap_or_default()).map_err(SnapshotError::Protocol)?;
    let mut layers = Vec::new();
    while let Some(part) = next()? {
        layers.push(Arc::new(LayerIndex::decode(part)?));
    }
    let stubs = options
        .stubs
        .into_iter()
        .filter_map(|path| LayerPath::new(OsString::from_vec(path)).ok());
    let options = DiffOptions {
        mtime: options.mtime,
        normalise: options.normalise,
        stubs: stubs.collect(),
    };
    Ok((Tree::new(layers), options))
}
