//! A body that must not trickle.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Instant, Sleep},
};

use super::{GuardLimits, Slow, breaker::Breaker};

/// Passes on what `inner` gives, counts it, and fails if a whole window brings too little.
/// Time that the reader takes for itself doesn't count against the tier: the window begins anew
/// when bytes are asked for after a pause.
pub(super) struct GuardedBody {
    inner: Box<dyn tokio::io::AsyncRead + Send + Unpin>,
    breaker: Arc<Breaker>,
    window: Duration,
    /// Bytes that a window must bring.
    least: u64,
    in_window: u64,
    /// Runs while the tier is waited for.
    alarm: Option<Pin<Box<Sleep>>>,
    /// What is left of the window while nobody waits.
    left: Duration,
}

impl GuardedBody {
    pub(super) fn new(
        inner: Box<dyn AsyncRead + Send + Unpin>,
        breaker: Arc<Breaker>,
        limits: &GuardLimits,
    ) -> Self {
        let least = limits
            .slowest
            .saturating_mul(u64::try_from(limits.window.as_millis()).unwrap_or(u64::MAX))
            / 1000;
        Self {
            inner,
            breaker,
            window: limits.window,
            least: least.max(1),
            in_window: 0,
            alarm: None,
            left: limits.window,
        }
    }
}

impl AsyncRead for GuardedBody {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Ready(result) => {
                let read = (buf.filled().len() - before) as u64;
                this.breaker.meter().read(read);
                this.in_window += read;
                match &result {
                    Ok(()) if read == 0 && buf.remaining() > 0 => this.breaker.body_ended(),
                    Ok(()) => {}
                    Err(error) => this.breaker.body_broke(error),
                }
                // The clock stands still until bytes are waited for again.
                if let Some(alarm) = this.alarm.take() {
                    this.left = alarm.deadline().saturating_duration_since(Instant::now());
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                let left = this.left;
                let alarm = this
                    .alarm
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
                loop {
                    ready!(alarm.as_mut().poll(cx));
                    if this.in_window < this.least {
                        let error = this.breaker.body_failed(Slow::Trickle);
                        return Poll::Ready(Err(io::Error::other(error)));
                    }
                    this.in_window = 0;
                    alarm.as_mut().reset(Instant::now() + this.window);
                }
            }
        }
    }
}
