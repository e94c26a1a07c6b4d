//! A long export: how far it is, and whether it is to stop.

use std::{
    cell::Cell,
    io::{self, Read},
};

use tokio_util::sync::CancellationToken;

use super::{ExportError, stream::Stopped};
use crate::{
    engine::BuildError,
    event::{BuildEvent, Events},
};

/// Progress is told each time that so many bytes more are written.
const TELL_EVERY: u64 = 16 << 20;

/// Tells progress and passes the wish to stop on.
pub(super) struct Watch<'w> {
    stop: &'w CancellationToken,
    events: &'w Events,
    what: String,
    total: u64,
    done: Cell<u64>,
    told: Cell<u64>,
}

impl<'w> Watch<'w> {
    /// Watches the writing of `total` bytes.
    pub(super) fn new(
        stop: &'w CancellationToken,
        events: &'w Events,
        what: String,
        total: u64,
    ) -> Self {
        Self {
            stop,
            events,
            what,
            total,
            done: Cell::new(0),
            told: Cell::new(0),
        }
    }

    /// The wish to stop.
    pub(super) fn stop(&self) -> &CancellationToken {
        self.stop
    }

    /// Fails once the build is to stop.
    pub(super) fn check(&self) -> Result<(), ExportError> {
        match self.stop.is_cancelled() {
            true => Err(BuildError::Interrupted.into()),
            false => Ok(()),
        }
    }

    /// The content of a file, watched.
    pub(super) fn content<'c>(&'c self, inner: impl Read + 'c) -> impl Read + 'c {
        Watched { inner, watch: self }
    }

    fn add(&self, bytes: u64) {
        self.done.set(self.done.get() + bytes);
        if self.done.get() - self.told.get() >= TELL_EVERY {
            self.tell();
        }
    }

    /// Ends the bar, if there was one.
    pub(super) fn end(&self) {
        if self.told.get() > 0 {
            self.done.set(self.total);
            self.tell();
        }
    }

    fn tell(&self) {
        self.told.set(self.done.get());
        self.events.send(BuildEvent::Transfer {
            what: self.what.clone(),
            current: self.done.get(),
            total: Some(self.total),
        });
    }
}

struct Watched<'w, R> {
    inner: R,
    watch: &'w Watch<'w>,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.watch.stop.is_cancelled() {
            return Err(io::Error::other(Stopped));
        }
        let n = self.inner.read(buf)?;
        self.watch.add(n as u64);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn long_exports_are_told_of_and_can_be_stopped() {
        struct Collect(Arc<Mutex<Vec<u64>>>);
        impl crate::event::EventSink for Collect {
            fn event(&self, _: u64, event: &BuildEvent) {
                if let BuildEvent::Transfer { current, .. } = event {
                    self.0.lock().unwrap().push(*current);
                }
            }
        }
        let told = Arc::new(Mutex::new(Vec::new()));
        let events = Events::new(Arc::new(Collect(Arc::clone(&told))));
        let stop = CancellationToken::new();
        for (size, expected) in [(1 << 20, 0), (40 << 20, 3)] {
            told.lock().unwrap().clear();
            let watch = Watch::new(&stop, &events, "x".to_owned(), size);
            io::copy(
                &mut watch.content(io::repeat(0).take(size)),
                &mut io::sink(),
            )
            .unwrap();
            watch.end();
            let told = told.lock().unwrap();
            assert_eq!(told.len(), expected);
            assert!(told.is_empty() || told.last() == Some(&size));
        }
        let watch = Watch::new(&stop, &events, "x".to_owned(), 1);
        stop.cancel();
        let stopped = watch.content(io::repeat(0)).read(&mut [0]);
        assert!(super::super::stream::is_stopped(&stopped.unwrap_err()));
        assert!(watch.check().is_err());
    }
}
