//! HTTP clients: whom they trust, where they follow redirects to, how long they wait.

use std::{
    sync::{Arc, Mutex, Once, PoisonError},
    time::Duration,
};

use reqwest::{Url, redirect};
use tokio::time::Instant;

use super::authorities::Authorities;
use crate::oci::reference::is_loopback;

/// Redirects followed for one request.
const REDIRECT_LIMIT: usize = 10;

/// What HTTP clients are made of.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) user_agent: String,
    pub(super) authorities: Authorities,
    /// To open a connection.
    pub(super) connect: Duration,
}

impl Setup {
    /// For all registries but this machine's. `stall` is the longest silence; reqwest counts it from
    /// the first byte of a request on, so requests with long bodies have none.
    pub(super) fn remote(
        &self,
        stall: Option<Duration>,
    ) -> Result<reqwest::Client, reqwest::Error> {
        let builder = self.builder(false, stall);
        self.authorities.trusted_by(builder).build()
    }

    /// For registries on this machine.
    pub(super) fn local(&self, stall: Option<Duration>) -> Result<reqwest::Client, reqwest::Error> {
        let builder = self.builder(true, stall).no_proxy().tls_certs_only([]);
        builder.build()
    }

    fn builder(&self, is_local: bool, stall: Option<Duration>) -> reqwest::ClientBuilder {
        let builder = reqwest::Client::builder()
            .user_agent(&self.user_agent)
            .connect_timeout(self.connect)
            .redirect(redirects(is_local))
            // Our own policy decides.
            .retry(reqwest::retry::never());
        match stall {
            Some(stall) => builder.read_timeout(stall),
            None => builder,
        }
    }
}

/// Makes ring the process's TLS provider where none is installed: reqwest would panic.
pub(crate) fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Another thread may have been faster; then there is one.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
    });
}

/// Follows redirects, but to plain http only from this machine to this machine.
fn redirects(is_local: bool) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        if attempt.previous().len() > REDIRECT_LIMIT {
            return attempt.error("too many redirects");
        }
        match is_safe(attempt.url(), is_local) {
            true => attempt.follow(),
            false => attempt.error("redirected to plain http"),
        }
    })
}

/// Whether nobody on the way can read what goes to `url`, to which a registry sends us
/// that is on this machine or not.
pub(super) fn is_safe(url: &Url, is_local: bool) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => is_local && url.host_str().is_some_and(is_loopback),
        _ => false,
    }
}

/// When a body moved last.
#[derive(Debug, Clone)]
pub(super) struct Pulse(Arc<Mutex<Instant>>);

impl Pulse {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Something moved.
    pub(super) fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Ends when nothing has moved for so long.
    pub(super) async fn stalled(&self, stall: Duration) {
        loop {
            let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() >= stall {
                return;
            }
            tokio::time::sleep_until(last + stall).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_lead_nobody_to_plain_http() {
        for (url, is_local, expected) in [
            ("https://a.example/", false, true),
            ("http://a.example/", false, false),
            ("http://a.example/", true, false),
            ("http://127.0.0.1:5000/", true, true),
            ("http://127.0.0.1:5000/", false, false),
            ("file:///etc/passwd", true, false),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(is_safe(&url, is_local), expected, "{url} {is_local}");
        }
    }
}
