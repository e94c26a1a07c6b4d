//! Who touches the files: this process, or a helper in a user namespace.
//!
//! root unpacks, compares and removes in this process. A user can't: the files belong
//! to ids of a user namespace and carry its attributes. There each act is a hidden
//! subcommand of this program ([`super::worker`]), run inside the namespace
//! through [`Inside`].

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use super::{
    DiffOptions, DiffSummary, Sink, SnapshotError, diff, fold,
    meta::Meta,
    overlay::Flavour,
    packing::{self, TreeMeasure},
    unpack::{Unpacker, implicit_directory, unpack_tar},
    worker,
};
use crate::{
    fs::{self, IoContext},
    oci::layer::{
        Compression, Entry, EntryKind, LayerBuilder, LayerError, LayerOptions, LayerPath,
        TarEntries, Tree,
    },
    userns::Userns,
};

/// Runs hidden subcommands of this program as root of a user namespace.
pub trait Inside: Send + Sync + std::fmt::Debug {
    /// The command that runs the subcommand; its standard streams are the caller's to set.
    fn command(&self, args: &[OsString]) -> Command;
}

impl Inside for Userns {
    fn command(&self, args: &[OsString]) -> Command {
        Self::command(self, args)
    }
}

/// Who touches the files of a [`Snapshots`](super::Snapshots).
#[derive(Debug, Clone)]
pub enum Access {
    /// This process, which is root.
    Root,
    /// Helpers in a user namespace.
    UserNamespace(Arc<dyn Inside>),
}

impl Access {
    /// Unpacks all of `tar` into the empty directory `dir`.
    pub(super) fn unpack(&self, dir: &Path, tar: &mut dyn Read) -> Result<Meta, SnapshotError> {
        match self {
            Self::Root => unpack_tar(dir, Flavour::Root, tar),
            Self::UserNamespace(inside) => {
                let mut helper = Helper::start(&**inside, worker::UNPACK, &[dir.as_os_str()])?;
                helper.feed(tar)?;
                let answer = helper.answer()?;
                serde_json::from_slice(&answer).map_err(SnapshotError::Protocol)
            }
        }
    }

    /// Merges the snapshot directories `layers` into the empty directory `dest`.
    pub(super) fn fold(&self, dest: &Path, layers: &[PathBuf]) -> Result<Meta, SnapshotError> {
        match self {
            Self::Root => fold::fold(dest, layers, Flavour::Root),
            Self::UserNamespace(inside) => {
                let args: Vec<_> = std::iter::once(dest.as_os_str())
                    .chain(layers.iter().map(|layer| layer.as_os_str()))
                    .collect();
                let answer = Helper::start(&**inside, worker::FOLD, &args)?.answer()?;
                serde_json::from_slice(&answer).map_err(SnapshotError::Protocol)
            }
        }
    }

    /// Removes `path` with all that is in it; that it is not there is no error.
    pub(super) fn remove(&self, path: &Path) -> Result<(), SnapshotError> {
        match self {
            Self::Root => Ok(fs::remove_dir_all(path)?),
            Self::UserNamespace(_) if !fs::exists(path) => Ok(()),
            Self::UserNamespace(inside) => {
                Helper::start(&**inside, worker::REMOVE, &[path.as_os_str()])?.answer()?;
                Ok(())
            }
        }
    }

    /// Gives the empty directory `dir` the attributes of the root's entry.
    pub(super) fn set_root(&self, dir: &Path, entry: Option<&Entry>) -> Result<(), SnapshotError> {
        let entry = entry
            .filter(|entry| entry.kind == EntryKind::Directory)
            .cloned()
            .unwrap_or_else(|| implicit_directory(&LayerPath::ROOT));
        match self {
            Self::Root => {
                let mut unpacker = Unpacker::new(dir, Flavour::Root)?;
                unpacker.apply(&entry, &mut io::empty())?;
                unpacker.finish()?;
            }
            Self::UserNamespace(_) => {
                self.unpack(dir, &mut one_entry(&entry)?.as_slice())?;
            }
        }
        Ok(())
    }

    /// Sends the difference between `lower` and the directory `upper` to `sink`, and
    /// normalises `upper`.
    pub(super) fn diff(
        &self,
        upper: &Path,
        lower: &Tree,
        options: &DiffOptions,
        sink: &mut Sink<'_>,
    ) -> Result<DiffSummary, SnapshotError> {
        match self {
            Self::Root => diff::diff(upper, Flavour::Root, lower, options, sink),
            Self::UserNamespace(inside) => {
                let dir = upper.parent().unwrap_or(upper);
                let mut request = tempfile::Builder::new()
                    .prefix("request-")
                    .tempfile_in(dir)
                    .at("create a file in", dir)?;
                request
                    .write_all(&worker::request(lower, options)?)
                    .at("write", request.path())?;
                let args = [upper.as_os_str(), request.path().as_os_str()];
                let mut helper = Helper::start(&**inside, worker::DIFF, &args)?;
                let passed = helper.pass_entries(sink);
                // The helper's own error says more than that its tar ends early.
                helper.answer()?;
                passed
            }
        }
    }

    /// Sends what is in `dir` to `sink`.
    pub(super) fn pack(
        &self,
        dir: &Path,
        sink: &mut Sink<'_>,
    ) -> Result<DiffSummary, SnapshotError> {
        match self {
            Self::Root => packing::pack(dir, Flavour::Root, sink),
            Self::UserNamespace(inside) => {
                let mut helper = Helper::start(&**inside, worker::PACK, &[dir.as_os_str()])?;
                let passed = helper.pass_entries(sink);
                if matches!(
                    passed,
                    Err(SnapshotError::Layer(LayerError::ReadContent { .. }))
                ) {
                    // Whoever takes the entries wants no more of them.
                    return passed;
                }
                helper.answer()?;
                passed
            }
        }
    }

    /// What [`pack`](Self::pack) would send, without reading a file.
    pub(super) fn measure(&self, dir: &Path) -> Result<TreeMeasure, SnapshotError> {
        match self {
            Self::Root => packing::measure(dir, Flavour::Root),
            Self::UserNamespace(inside) => {
                let helper = Helper::start(&**inside, worker::MEASURE, &[dir.as_os_str()])?;
                serde_json::from_slice(&helper.answer()?).map_err(SnapshotError::Protocol)
            }
        }
    }
}

/// A tar of one entry without content.
fn one_entry(entry: &Entry) -> Result<Vec<u8>, LayerError> {
    let options = LayerOptions {
        compression: Compression::None,
        level: None,
    };
    let mut builder = LayerBuilder::new(Vec::new(), options);
    builder.append(entry, None)?;
    Ok(builder.finish()?.0)
}

/// A hidden subcommand at work in the user namespace; killed when dropped.
struct Helper {
    act: &'static str,
    child: Child,
}

impl Helper {
    fn start(
        inside: &dyn Inside,
        act: &'static str,
        args: &[&std::ffi::OsStr],
    ) -> Result<Self, SnapshotError> {
        let args: Vec<OsString> = std::iter::once(OsString::from(act))
            .chain(args.iter().map(|arg| (*arg).to_owned()))
            .collect();
        let child = inside
            .command(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| SnapshotError::Spawn { act, source })?;
        Ok(Self { act, child })
    }

    /// Gives all of `input` to the helper. One that ends early tells why in its answer.
    fn feed(&mut self, input: &mut dyn Read) -> Result<(), SnapshotError> {
        let Some(mut stdin) = self.child.stdin.take() else {
            return Ok(());
        };
        let mut buffer = vec![0; 128 * 1024];
        loop {
            let n = match input.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(LayerError::Read(error).into()),
            };
            match stdin.write_all(&buffer[..n]) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                result => result.map_err(|source| self.broken(source))?,
            }
        }
    }

    /// Sends the entries of the tar that the helper writes to `sink`.
    fn pass_entries(&mut self, sink: &mut Sink<'_>) -> Result<DiffSummary, SnapshotError> {
        let mut summary = DiffSummary::default();
        let Some(stdout) = &mut self.child.stdout else {
            return Ok(summary);
        };
        let mut entries = TarEntries::new(&mut *stdout);
        while let Some(mut item) = entries.next_entry()? {
            let entry = item.entry.clone();
            summary.entries += 1;
            if let EntryKind::Regular { size } = entry.kind {
                summary.bytes += size;
                sink(&entry, Some(&mut item))?;
            } else {
                sink(&entry, None)?;
            }
        }
        Ok(summary)
    }

    /// Waits for the end; gives what is left of the output.
    fn answer(mut self) -> Result<Vec<u8>, SnapshotError> {
        drop(self.child.stdin.take());
        let mut answer = Vec::new();
        let mut message = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout
                .read_to_end(&mut answer)
                .map_err(|source| self.broken(source))?;
        }
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr
                .read_to_string(&mut message)
                .map_err(|source| self.broken(source))?;
        }
        let status = self.child.wait().map_err(|source| self.broken(source))?;
        if status.success() {
            return Ok(answer);
        }
        let message = match message.trim() {
            "" => status.to_string(),
            text => text.to_owned(),
        };
        Err(SnapshotError::Worker {
            act: self.act,
            message,
        })
    }

    fn broken(&self, source: io::Error) -> SnapshotError {
        SnapshotError::Spawn {
            act: self.act,
            source,
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Both fail if it has ended, which is the usual case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
