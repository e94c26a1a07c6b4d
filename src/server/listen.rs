//! Connections: accepted, kept from stalling, ended.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, Sleep},
};

use super::{
    Pace, Server, Shared,
    answer::chain,
    gate::Peer,
    router::router,
    store::{GcDemand, StoreError},
};
use crate::cache::Trust;

/// Bytes by which the version of HTTP is known.
const PREFACE: usize = 24;

/// Requests that may share a connection of HTTP/2 at a time.
const STREAMS: u32 = 128;

/// How often what was used is written down.
const FLUSH: Duration = Duration::from_secs(10);

/// How often unused data are looked for.
const CLEAN: Duration = Duration::from_secs(600);

/// How long to wait after a connection could not be accepted: descriptors may be used up.
const REST: Duration = Duration::from_millis(100);

pub(super) async fn run(server: Server, stop: impl Future<Output = ()>) {
    let Server {
        listener,
        shared,
        options,
        ..
    } = server;
    let router = router(shared.clone());
    let builder = builder(options.pace);
    let room = Arc::new(Semaphore::new(options.connections));
    let (stopping, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut upkeep = JoinSet::new();
    upkeep.spawn(keep_up(shared.clone(), options.max_age));
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let permit = room.clone().acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            (permit, accepted) = accepted => match accepted {
                Ok((stream, peer)) => {
                    let router = router.clone().layer(Extension(Peer(peer)));
                    let (builder, stopped) = (builder.clone(), stopped.clone());
                    let pace = options.pace;
                    connections.spawn(async move {
                        connection(stream, router, &builder, pace, stopped).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "can't accept a connection");
                    tokio::time::sleep(REST).await;
                }
            },
        }
    }
    drop(listener);
    shared.stopping.store(true, Ordering::Relaxed);
    // Nobody listens if there are no connections.
    let _ = stopping.send(());
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(options.stop_limit, all).await.is_err() {
        tracing::warn!(left = connections.len(), "requests are cut off");
        connections.shutdown().await;
    }
    upkeep.shutdown().await;
    shared.audit.close();
    let store = shared.store.clone();
    report(tokio::task::spawn_blocking(move || store.flush()).await);
}

fn builder(pace: Pace) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(pace.window);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(pace.window)
        .keep_alive_timeout(pace.window)
        .adaptive_window(true)
        .max_concurrent_streams(STREAMS);
    builder
}

async fn connection(
    stream: TcpStream,
    router: Router,
    builder: &Builder<TokioExecutor>,
    pace: Pace,
    mut stopped: watch::Receiver<()>,
) {
    // Answers are written whole; waiting for more to send only delays them. A failure costs
    // nothing but that.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(Patient::new(stream, pace));
    let serving = builder.serve_connection(io, TowerToHyperService::new(router));
    let mut serving = pin!(serving);
    let result = tokio::select! {
        result = &mut serving => result,
        _ = stopped.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Writes down what is used, and drops what is not.
async fn keep_up(shared: Arc<Shared>, max_age: Option<Duration>) {
    let mut flush = tokio::time::interval(FLUSH);
    let mut clean = tokio::time::interval_at(Instant::now() + CLEAN, CLEAN);
    loop {
        let store = shared.store.clone();
        let work = tokio::select! {
            _ = flush.tick() => {
                shared.audit.tell_dropped(std::time::Instant::now());
                tokio::task::spawn_blocking(move || store.flush())
            }
            _ = clean.tick() => tokio::task::spawn_blocking(move || {
                store.collect(&GcDemand {
                    namespace: None,
                    max_age,
                    max_bytes: None,
                    most: Trust::Protected,
                    scopes: &|_| true,
                })?;
                store.sweep().map(|_| ())
            }),
        };
        report(work.await);
    }
}

fn report(result: Result<Result<(), StoreError>, tokio::task::JoinError>) {
    match result {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(cause = chain(&error), "the store has trouble"),
        Err(error) => tracing::error!(%error, "work on the store was cut off"),
    }
}

/// A stream that fails when the peer takes no bytes for too long, or does not even begin to
/// speak.
struct Patient {
    stream: TcpStream,
    pace: Pace,
    /// Until the peer has said which protocol it speaks.
    greeting: Option<Pin<Box<Sleep>>>,
    heard: usize,
    /// While bytes can't be written.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Bytes written since.
    taken: u64,
}

impl Patient {
    fn new(stream: TcpStream, pace: Pace) -> Self {
        Self {
            stream,
            pace,
            greeting: Some(Box::pin(tokio::time::sleep(pace.window))),
            heard: 0,
            stalled: None,
            taken: 0,
        }
    }

    /// What a write came to, with the clock that runs while it can't go on.
    fn wrote(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Ok(n)) => {
                self.taken += n as u64;
                if self.taken >= self.pace.least {
                    self.stalled = None;
                    self.taken = 0;
                }
                Poll::Ready(Ok(n))
            }
            Poll::Pending => {
                let window = self.pace.window;
                let clock = self
                    .stalled
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(window)));
                match clock.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                    Poll::Pending => Poll::Pending,
                }
            }
            failed => failed,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.greeting.is_some() {
            self.heard += buf.filled().len() - before;
            if self.heard >= PREFACE {
                self.greeting = None;
            }
        }
        if result.is_pending()
            && let Some(clock) = &mut self.greeting
            && clock.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // All has been taken.
        self.stalled = None;
        self.taken = 0;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
