//! A step's output: split into lines, redacted, clipped.
//!
//! Every step may say [`LOG_MAX_BYTES`]; after that its output is still read, so that the
//! process doesn't block, and only counted. The last [`TAIL_LINES`] lines are kept for
//! the error report, whatever was clipped. Memory stays bounded however much a step says.

use std::{collections::VecDeque, mem};

use crate::{
    event::{BuildEvent, Events, StepId, Stream},
    redact::Redactor,
};

/// Bytes of output that a step may send to the log.
pub(super) const LOG_MAX_BYTES: usize = 2 << 20;

/// Lines kept for the error report.
pub(super) const TAIL_LINES: usize = 25;

/// Longest line, in bytes; what follows becomes the next line.
const LINE_MAX: usize = 16 << 10;

/// Turns chunks of output into log events.
#[derive(Debug)]
pub(super) struct StepLog<'a> {
    events: &'a Events,
    redactor: &'a Redactor,
    step: StepId,
    sent: usize,
    clipped: u64,
    pending: [Vec<u8>; 2],
    tail: VecDeque<String>,
}

impl<'a> StepLog<'a> {
    /// The log of one step.
    pub(super) fn new(events: &'a Events, redactor: &'a Redactor, step: StepId) -> Self {
        Self {
            events,
            redactor,
            step,
            sent: 0,
            clipped: 0,
            pending: Default::default(),
            tail: VecDeque::new(),
        }
    }

    /// Takes a chunk as it was read.
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let pending = &mut self.pending[index(stream)];
            pending.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = mem::take(pending);
                self.line(stream, &line);
            } else {
                self.cut(stream);
            }
        }
    }

    /// Sends what is too much of a line without end, but no part of a secret.
    fn cut(&mut self, stream: Stream) {
        let enough = LINE_MAX + self.redactor.longest();
        while self.pending[index(stream)].len() >= enough {
            let pending = &mut self.pending[index(stream)];
            let at = self.redactor.cut(pending, LINE_MAX);
            let line: Vec<u8> = pending.drain(..at).collect();
            self.line(stream, &line);
        }
    }

    /// Sends what is left, says how much was clipped, and gives the last lines.
    pub(super) fn finish(mut self) -> Vec<String> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = mem::take(&mut self.pending[index(stream)]);
            if !line.is_empty() {
                self.line(stream, &line);
            }
        }
        if self.clipped > 0 {
            self.events.send(BuildEvent::StepLog {
                step: self.step,
                stream: Stream::Stderr,
                line: format!(
                    "[output clipped after {LOG_MAX_BYTES} bytes, {} bytes more]",
                    self.clipped
                ),
            });
        }
        self.tail.into()
    }

    fn line(&mut self, stream: Stream, bytes: &[u8]) {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        // A progress bar redraws one line with carriage returns: its last state counts.
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let bytes = bytes.rsplit(|b| *b == b'\r').next().unwrap_or(bytes);
        let line = self
            .redactor
            .redact(&String::from_utf8_lossy(bytes))
            .into_owned();
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.clone());
        if self.sent + line.len() > LOG_MAX_BYTES {
            self.clipped += line.len() as u64 + 1;
            return;
        }
        self.sent += line.len() + 1;
        self.events.send(BuildEvent::StepLog {
            step: self.step,
            stream,
            line,
        });
    }
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::Recorder;

    fn run(chunks: &[&[u8]]) -> (Vec<String>, Vec<String>) {
        let recorder = Arc::new(Recorder::default());
        let events = Events::new(recorder.clone());
        let redactor = Redactor::default();
        let mut log = StepLog::new(&events, &redactor, StepId(1));
        for chunk in chunks {
            log.write(Stream::Stdout, chunk);
        }
        let tail = log.finish();
        let lines = recorder
            .events()
            .into_iter()
            .filter_map(|event| match event {
                BuildEvent::StepLog { line, .. } => Some(line),
                _ => None,
            })
            .collect();
        (lines, tail)
    }

    #[test]
    fn lines_are_put_together_from_chunks() {
        let (lines, tail) = run(&[b"on", b"e\ntwo\r\n10%\r20%\nlast"]);
        assert_eq!(lines, ["one", "two", "20%", "last"]);
        assert_eq!(tail, lines);
    }

    #[test]
    fn a_flood_is_clipped_and_its_end_is_kept() {
        let line = [b'x'; 99];
        let flood: Vec<u8> = (0..40_000)
            .flat_map(|_| [&line[..], b"\n"].concat())
            .collect();
        let (lines, tail) = run(&[&flood, b"the end\n"]);
        assert!(lines.len() < 22_000);
        assert_eq!(tail.len(), TAIL_LINES);
        assert_eq!(tail.last().unwrap(), "the end");
        assert!(lines.last().unwrap().starts_with("[output clipped after"));
    }

    #[test]
    fn a_secret_is_not_cut_in_two() {
        let recorder = Arc::new(Recorder::default());
        let events = Events::new(recorder.clone());
        let redactor = Redactor::new(["correct horse"]);
        let mut log = StepLog::new(&events, &redactor, StepId(1));
        for chunk in "correct horse".repeat(20_000).as_bytes().chunks(1000) {
            log.write(Stream::Stdout, chunk);
        }
        log.finish();
        let events = recorder.events();
        assert!(events.len() > 10);
        for event in events {
            let BuildEvent::StepLog { line, .. } = event else {
                continue;
            };
            assert!(!line.contains("corr") && !line.contains("orse"), "{line}");
        }
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let (lines, _) = run(&[&[b'x'; 100_000][..]]);
        assert!(!lines.is_empty());
        assert!(lines.iter().all(|l| l.len() <= 100_000));
    }
}
