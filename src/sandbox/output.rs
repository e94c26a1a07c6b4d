//! The parent's side: starts the first process, passes its output on, ends it.

use std::{
    ffi::OsString,
    future::Future,
    io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStringExt, net::UnixStream as StdUnixStream},
    },
    pin::Pin,
    process::{Command, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    process::ChildStderr,
    time::{Instant, sleep_until},
};

use super::{
    SandboxError,
    spec::{Failure, Report},
};
use crate::{event::Stream, oci::layer::LayerPath};

/// Bytes passed on at a time.
const BUFFER: usize = 64 * 1024;
/// How long the end of the output is waited for after the last process has died. It
/// is there at once unless the process handed its streams to one outside.
const DRAIN: Duration = Duration::from_secs(1);
/// How long a kill may take before the supervisor is killed too.
const KILL: Duration = Duration::from_secs(10);
/// How much of a failed first process's last words is kept.
const LAST_WORDS: u64 = 4096;

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself. 127: the program was not found, 126: it can't be executed; the
    /// reason then stands in the output, as with a shell.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Killed because its time was up.
    TimedOut,
    /// Killed because it was to stop.
    Stopped,
}

/// A process that was run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub exit: Exit,
    /// Empty files and directories that were made as mount points, parents first; they
    /// are no change of the step.
    pub stubs: Vec<LayerPath>,
    /// Milliseconds of processor time, of it and its waited-for children.
    pub cpu_ms: u64,
    /// Largest resident set of one process in bytes.
    pub peak_rss: u64,
}

/// What the reports have said so far.
#[derive(Default)]
struct Told {
    /// The stubs; set when the process was executed.
    ready: Option<Vec<LayerPath>>,
    failed: Option<Failure>,
    /// How it ended, and what it used.
    exited: Option<(Exit, u64, u64)>,
    /// No more reports will come.
    silent: bool,
}

impl Told {
    fn take(&mut self, line: io::Result<Option<String>>) {
        let report = match line {
            Ok(Some(line)) => serde_json::from_str(&line).ok(),
            Ok(None) | Err(_) => None,
        };
        match report {
            Some(Report::Ready { stubs }) => {
                let path = |bytes: Vec<u8>| LayerPath::new(OsString::from_vec(bytes)).ok();
                self.ready = Some(stubs.into_iter().filter_map(path).collect());
            }
            Some(Report::Failed(failure)) => self.failed = Some(failure),
            Some(Report::Exited {
                code,
                signal,
                cpu_ms,
                peak_rss,
            }) => {
                let exit = match (code, signal) {
                    (_, Some(signal)) => Exit::Signal(signal),
                    (code, None) => Exit::Code(code.unwrap_or_default()),
                };
                self.exited = Some((exit, cpu_ms, peak_rss));
                self.silent = true;
            }
            None => self.silent = true,
        }
    }
}

pub(super) async fn run(
    mut command: Command,
    request: &[u8],
    output: &mut (dyn FnMut(Stream, &[u8]) + Send),
    stop: impl Future<Output = ()> + Send,
    timeout: Option<Duration>,
) -> Result<Finished, SandboxError> {
    let deadline = timeout.map(|t| Instant::now() + t);
    let (ours, theirs) = StdUnixStream::pair().map_err(SandboxError::Start)?;
    ours.set_nonblocking(true).map_err(SandboxError::Start)?;
    command
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    let mut child = command.spawn().map_err(SandboxError::Start)?;
    // It holds the child's end of the socket, whose closing must be seen.
    drop(command);
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(SandboxError::Start(io::ErrorKind::BrokenPipe.into()));
    };
    let (reports, mut orders) = UnixStream::from_std(ours)
        .map_err(SandboxError::Start)?
        .into_split();
    let mut reports = BufReader::new(reports).lines();
    // A child that is gone already shows in its reports.
    let _ = orders.write_all(request).await;

    tokio::pin!(stop);
    let mut told = Told::default();
    let mut ending = None;
    let mut patience = None;
    let (mut out, mut err) = (vec![0; BUFFER], vec![0; BUFFER]);
    let (mut out_open, mut err_open) = (true, true);
    loop {
        // What is on standard error before the process runs is kept for the error.
        let running = told.ready.is_some();
        if told.silent && !(running && (out_open || err_open)) {
            break;
        }
        tokio::select! {
            line = reports.next_line(), if !told.silent => {
                told.take(line);
                if told.silent {
                    patience = Some(Instant::now() + DRAIN);
                }
            }
            piece = read(&mut stdout, &mut out), if running && out_open => {
                let piece = piece?;
                out_open = !piece.is_empty();
                output(Stream::Stdout, piece);
            }
            piece = read(&mut stderr, &mut err), if running && err_open => {
                let piece = piece?;
                err_open = !piece.is_empty();
                output(Stream::Stderr, piece);
            }
            why = asked(stop.as_mut(), deadline), if ending.is_none() && !told.silent => {
                ending = Some(why);
                // The end of the orders is the order to kill.
                let _ = orders.shutdown().await;
                patience = Some(Instant::now() + KILL);
            }
            () = until(patience), if patience.is_some() => {
                if told.silent {
                    break;
                }
                // Its death kills PID 1.
                child.start_kill().map_err(SandboxError::Start)?;
                patience = None;
            }
        }
    }
    let result = conclude(told, ending, stderr).await;
    drop(orders);
    child.wait().await.map_err(SandboxError::Start)?;
    result
}

async fn conclude(
    told: Told,
    ending: Option<Exit>,
    stderr: ChildStderr,
) -> Result<Finished, SandboxError> {
    if let Some(failure) = told.failed {
        return Err(SandboxError::Setup {
            step: failure.step,
            what: failure.what,
            source: io::Error::from_raw_os_error(failure.errno),
        });
    }
    let (exit, cpu_ms, peak_rss) = match (told.exited, ending) {
        (Some((Exit::Signal(9), cpu_ms, peak_rss)), Some(ending)) => (ending, cpu_ms, peak_rss),
        (Some(exited), _) if told.ready.is_some() => exited,
        (_, Some(ending)) => (ending, 0, 0),
        (None, None) if told.ready.is_some() => return Err(SandboxError::Lost),
        (_, None) => {
            return Err(SandboxError::Entering {
                said: last_words(stderr).await,
            });
        }
    };
    Ok(Finished {
        exit,
        stubs: told.ready.unwrap_or_default(),
        cpu_ms,
        peak_rss,
    })
}

async fn read<'a>(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &'a mut [u8],
) -> Result<&'a [u8], SandboxError> {
    let size = from.read(buffer).await.map_err(SandboxError::Output)?;
    Ok(&buffer[..size])
}

async fn asked(stop: Pin<&mut impl Future<Output = ()>>, deadline: Option<Instant>) -> Exit {
    tokio::select! {
        () = stop => Exit::Stopped,
        () = until(deadline), if deadline.is_some() => Exit::TimedOut,
    }
}

async fn until(time: Option<Instant>) {
    if let Some(time) = time {
        sleep_until(time).await;
    }
}

async fn last_words(stderr: ChildStderr) -> String {
    let mut said = Vec::new();
    let mut stderr = stderr.take(LAST_WORDS);
    let read = stderr.read_to_end(&mut said);
    // What was read until then is the best there is.
    let _ = tokio::time::timeout(DRAIN, read).await;
    let said = String::from_utf8_lossy(&said);
    match said.trim() {
        "" => "its first process ended without a word".to_owned(),
        said => said.replace('\n', "; "),
    }
}
