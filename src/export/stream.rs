//! One stream of bytes to a file, which appears whole or not at all, or to standard output, a pipe
//! or a device.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use tokio_util::sync::CancellationToken;

use super::{ExportError, Stream};
use crate::{
    engine::BuildError,
    fs::{self, AtomicFile, IoContext as _},
    oci::{layer::LayerError, layout::LayoutError},
};

/// Where bytes go; a file is nothing until [`commit`](Self::commit).
pub(super) struct Sink {
    out: Out,
    name: PathBuf,
    stop: CancellationToken,
}

enum Out {
    File(Box<BufWriter<AtomicFile>>),
    /// A pipe or a device.
    Special(File),
    Stdout(io::Stdout),
}

impl Sink {
    /// Opens the stream; missing directories are made. Writing fails once `stop` is cancelled.
    pub(super) fn open(to: &Stream, stop: &CancellationToken) -> Result<Self, ExportError> {
        let (out, name) = match to {
            Stream::Stdout => (Out::Stdout(io::stdout()), PathBuf::from("standard output")),
            Stream::File(file) => {
                if file.is_dir() {
                    return Err(ExportError::IsADirectory { path: file.clone() });
                }
                if let Some(parent) = file.parent().filter(|p| !p.as_os_str().is_empty()) {
                    fs::create_dir_all(parent)?;
                }
                let out = match fs::open_special(file)? {
                    Some(special) => Out::Special(special),
                    None => {
                        let out = AtomicFile::create(fs::behind_link(file)?)?;
                        Out::File(Box::new(BufWriter::with_capacity(1 << 20, out)))
                    }
                };
                (out, file.clone())
            }
        };
        Ok(Self {
            out,
            name,
            stop: stop.clone(),
        })
    }

    /// The file, or what stands for standard output in messages.
    pub(super) fn name(&self) -> PathBuf {
        self.name.clone()
    }

    /// Ends the stream; a file gets its name now.
    pub(super) fn commit(mut self) -> Result<(), ExportError> {
        self.flush().at("write", &self.name)?;
        if let Out::File(file) = self.out {
            let file = file
                .into_inner()
                .map_err(io::IntoInnerError::into_error)
                .at("write", &self.name)?;
            file.commit()?;
        }
        Ok(())
    }
}

impl Write for Sink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() {
            return Err(io::Error::other(Stopped));
        }
        match &mut self.out {
            Out::File(file) => file.write(buf),
            Out::Special(file) => file.write(buf),
            Out::Stdout(stdout) => stdout.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.out {
            Out::File(file) => file.flush(),
            Out::Special(file) => file.flush(),
            Out::Stdout(stdout) => stdout.flush(),
        }
    }
}

/// The build was told to stop in the middle of a stream.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Stopped;

/// Whether an I/O failure is only that the build was told to stop.
pub(super) fn is_stopped(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Stopped>)
}

/// A failure of writing a stream, as what it is: an interruption, or one of its file.
pub(super) fn write_error(error: ExportError, name: &std::path::Path) -> ExportError {
    let source = match error {
        ExportError::Layer(LayerError::Write(source)) => source,
        ExportError::Layout(LayoutError::File(error)) if is_stopped(&error.source) => error.source,
        ExportError::Fs(error) if is_stopped(&error.source) => error.source,
        error => return error,
    };
    if is_stopped(&source) {
        return BuildError::Interrupted.into();
    }
    match Err::<(), _>(source).at("write", name) {
        Err(error) => error.into(),
        Ok(()) => BuildError::Interrupted.into(),
    }
}
