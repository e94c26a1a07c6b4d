//! One request after the other: addresses, authentication, classification of answers.

use std::{
    sync::{Arc, Once},
    time::Duration,
};

use reqwest::{
    Certificate, RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, RETRY_AFTER, WWW_AUTHENTICATE},
    redirect,
};
use time::OffsetDateTime;

use super::{
    MANIFEST_LIMIT, RegistryOptions,
    auth::{Authorization, Challenge, Sessions, TokenAnswer},
    credentials::{Credentials, Keychain},
    error::{IntegrityError, RegistryError, Subject, is_tls, message_in},
    retry::{Limits, Retry, retry_after},
};
use crate::{
    digest::Sha256Digest,
    fs,
    oci::{Descriptor, Document, Repository, descriptor::media, reference::is_loopback},
};

/// Most bytes of an error document or a token answer that are read.
const ANSWER_LIMIT: u64 = 1 << 20;
/// Redirects followed for one request.
const REDIRECT_LIMIT: usize = 10;
/// The manifests that we understand, and all others so that they fail with a clear message rather
/// than as missing.
const ACCEPTED_MANIFESTS: [&str; 5] = [
    media::MANIFEST,
    media::INDEX,
    media::DOCKER_MANIFEST,
    media::DOCKER_INDEX,
    "*/*",
];

/// What all operations share.
#[derive(Debug)]
pub(super) struct Client {
    /// For all registries but this machine's; a failure to set it up shows when it is used.
    remote: Result<reqwest::Client, Arc<reqwest::Error>>,
    /// For registries on this machine: plain http, no proxy.
    local: reqwest::Client,
    keychain: Keychain,
    sessions: Sessions,
    limits: Limits,
}

impl Client {
    pub(super) fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        install_provider();
        let mut authorities = Vec::new();
        for path in &options.authorities {
            let pem = fs::read(path).map_err(RegistryError::Authority)?;
            authorities.extend(Certificate::from_pem_bundle(&pem).map_err(setup)?);
        }
        let builder = |is_local| {
            reqwest::Client::builder()
                .user_agent(&options.user_agent)
                .connect_timeout(options.limits.connect)
                .read_timeout(options.limits.stall)
                .redirect(redirects(is_local))
                // Our own policy decides.
                .retry(reqwest::retry::never())
        };
        let mut remote = builder(false);
        if !authorities.is_empty() {
            remote = remote.tls_certs_merge(authorities);
        }
        let local = builder(true).no_proxy().tls_certs_only([]);
        Ok(Self {
            remote: remote.build().map_err(Arc::new),
            local: local.build().map_err(setup)?,
            keychain: Keychain {
                docker_config: options.docker_config,
                helper_path: options.helper_path,
            },
            sessions: Sessions::default(),
            limits: options.limits,
        })
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Starts an operation on `repository` that may take `limit`; `what` names it in
    /// messages.
    pub(super) fn operation<'a>(
        &'a self,
        repository: &'a Repository,
        what: String,
        limit: Duration,
    ) -> Operation<'a> {
        Operation {
            client: self,
            repository,
            subject: Subject {
                what,
                host: repository.host.clone(),
            },
            retry: Retry::new(&self.limits, limit),
        }
    }

    /// The HTTP client that may talk to `host`.
    fn http(&self, host: &str) -> Result<&reqwest::Client, RegistryError> {
        match is_loopback(host) {
            true => Ok(&self.local),
            false => self
                .remote
                .as_ref()
                .map_err(|error| RegistryError::Client(error.clone())),
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

fn setup(error: reqwest::Error) -> RegistryError {
    RegistryError::Client(Arc::new(error))
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
fn is_safe(url: &Url, is_local: bool) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => is_local && url.host_str().is_some_and(is_loopback),
        _ => false,
    }
}

/// A running operation: a repository, a deadline, a count of failures.
pub(super) struct Operation<'a> {
    client: &'a Client,
    repository: &'a Repository,
    subject: Subject,
    retry: Retry<'a>,
}

impl Operation<'_> {
    pub(super) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Runs one attempt within the deadline.
    pub(super) async fn attempt<T>(
        &self,
        attempt: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        self.retry.attempt(&self.subject, attempt).await
    }

    /// Forgets earlier failures: something was achieved.
    pub(super) fn progressed(&mut self) {
        self.retry.progressed();
    }

    /// Pauses after `error`, or gives it back where trying again makes no sense.
    pub(super) async fn pause(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.retry.pause(error).await
    }

    /// Fetches and verifies the manifest or index `selector`, a tag or a digest.
    pub(super) async fn document(
        &mut self,
        selector: &str,
        digest: Option<Sha256Digest>,
        size: Option<u64>,
    ) -> Result<(Sha256Digest, Document), RegistryError> {
        let path = format!("manifests/{selector}");
        let accept = ACCEPTED_MANIFESTS.join(", ");
        let (headers, bytes) = self.bytes(&path, &accept, MANIFEST_LIMIT).await?;
        let actual = self.verify(&bytes, digest, size)?;
        let claimed = text(&headers, "docker-content-digest");
        if let Some(claimed) = claimed.filter(|c| c.starts_with("sha256:"))
            && claimed != actual.to_string()
        {
            return Err(self.corrupt(IntegrityError::Claim {
                claimed: claimed.to_owned(),
                actual,
            }));
        }
        let served_as = text(&headers, CONTENT_TYPE.as_str());
        match Document::parse(&bytes, served_as) {
            Ok(document) => Ok((actual, document)),
            Err(source) => Err(RegistryError::Manifest {
                subject: self.subject.clone(),
                source,
            }),
        }
    }

    /// Fetches and verifies a blob that fits into memory.
    pub(super) async fn small_blob(
        &mut self,
        blob: &Descriptor,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        if blob.size > limit {
            return Err(self.protocol(format!("offers a configuration of {} bytes", blob.size)));
        }
        let path = format!("blobs/{}", blob.digest);
        let (_, bytes) = self.bytes(&path, "*/*", limit).await?;
        self.verify(&bytes, Some(blob.digest), Some(blob.size))?;
        Ok(bytes)
    }

    /// The digest of `bytes`, which must be the expected one, as their size.
    fn verify(
        &self,
        bytes: &[u8],
        digest: Option<Sha256Digest>,
        size: Option<u64>,
    ) -> Result<Sha256Digest, RegistryError> {
        let actual = Sha256Digest::of(bytes);
        let length = bytes.len() as u64;
        if let Some(expected) = size.filter(|size| *size != length) {
            return Err(self.corrupt(IntegrityError::Size {
                expected,
                actual: length,
            }));
        }
        match digest {
            Some(expected) if expected != actual => {
                Err(self.corrupt(IntegrityError::Digest { expected, actual }))
            }
            _ => Ok(actual),
        }
    }

    /// The whole body of a GET below `/v2/<repository>/`, tried until it is there.
    async fn bytes(
        &mut self,
        path: &str,
        accept: &str,
        limit: u64,
    ) -> Result<(HeaderMap, Vec<u8>), RegistryError> {
        let url = self.url(path)?;
        loop {
            let attempt = async {
                let response = self
                    .get(&url, |request| request.header(ACCEPT, accept))
                    .await?;
                let headers = response.headers().clone();
                Ok((headers, self.body(response, limit).await?))
            };
            match self.attempt(attempt).await {
                Ok(answer) => {
                    self.progressed();
                    return Ok(answer);
                }
                Err(error) => self.pause(error).await?,
            }
        }
    }

    /// The address of `path` in the repository.
    pub(super) fn url(&self, path: &str) -> Result<Url, RegistryError> {
        let scheme = match self.repository.is_loopback() {
            true => "http",
            false => "https",
        };
        let host = self.repository.api_host();
        let text = format!("{scheme}://{host}/v2/{}/{path}", self.repository.path);
        Url::parse(&text).map_err(|_| self.protocol(format!("has no valid address `{text}`")))
    }

    /// One GET, with authentication; `prepare` adds headers. Gives only answers of
    /// success.
    pub(super) async fn get(
        &self,
        url: &Url,
        prepare: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let http = self.client.http(&self.repository.host)?;
        let session = self.repository.to_string();
        let send = async |authorization: Option<&Authorization>| {
            let request = prepare(http.get(url.clone()));
            let request = match authorization {
                Some(authorization) => authorization.apply(request),
                None => request,
            };
            request.send().await.map_err(|error| self.network(error))
        };
        let known = self.client.sessions.get(&session);
        let first = send(known.as_ref()).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return self.success(first, known.is_some()).await;
        }
        self.client.sessions.forget(&session);
        let (authorization, with_credentials) = self.authorize(first).await?;
        let second = send(Some(&authorization)).await?;
        let second = self.success(second, with_credentials).await?;
        self.client.sessions.set(session, authorization);
        Ok(second)
    }

    /// Meets the challenges of a 401 answer; tells whether credentials were used.
    async fn authorize(&self, answer: Response) -> Result<(Authorization, bool), RegistryError> {
        let challenges: Vec<Challenge> = answer
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|header| header.to_str().ok())
            .flat_map(Challenge::parse)
            .collect();
        let credentials = self.client.keychain.look_up(&self.repository.host).await;
        let credentials = credentials.map_err(|source| RegistryError::Credentials {
            subject: self.subject.clone(),
            source,
        })?;
        let with_credentials = credentials != Credentials::Anonymous;
        if let Credentials::RegistryToken(token) = credentials {
            return Ok((Authorization::Bearer(token), true));
        }
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer {
                realm,
                service,
                scope,
            } => Some((realm, service.as_deref(), scope.as_deref())),
            Challenge::Basic => None,
        });
        if let Some((realm, service, scope)) = bearer {
            let token = self.token(realm, service, scope, &credentials).await?;
            return Ok((Authorization::Bearer(token), with_credentials));
        }
        match credentials {
            Credentials::Basic { username, password } if challenges.contains(&Challenge::Basic) => {
                Ok((Authorization::Basic(username, password), true))
            }
            _ => Err(self.denied(answer, with_credentials).await),
        }
    }

    /// A bearer token from the token server at `realm`.
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
        credentials: &Credentials,
    ) -> Result<String, RegistryError> {
        let mut url = Url::parse(realm)
            .ok()
            .filter(|url| is_safe(url, self.repository.is_loopback()))
            .ok_or_else(|| self.protocol("names a token server that is not https".to_owned()))?;
        // The host that is spoken to decides between proxy and none.
        let http = self.client.http(url.host_str().unwrap_or_default())?;
        let own_scope = format!("repository:{}:pull", self.repository.path);
        let mut parameters = vec![("scope", scope.unwrap_or(&own_scope))];
        parameters.extend(service.map(|service| ("service", service)));
        let request = match credentials {
            Credentials::IdentityToken(token) => {
                parameters.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", "memobuild-ci"),
                    ("refresh_token", token),
                ]);
                http.post(url)
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(encode(&parameters))
            }
            Credentials::Basic { username, password } => {
                url.query_pairs_mut().extend_pairs(&parameters);
                http.get(url).basic_auth(username, Some(password))
            }
            Credentials::Anonymous | Credentials::RegistryToken(_) => {
                url.query_pairs_mut().extend_pairs(&parameters);
                http.get(url)
            }
        };
        let response = request.send().await.map_err(|error| self.network(error))?;
        let with_credentials = *credentials != Credentials::Anonymous;
        // OAuth 2 refuses a refresh token with 400.
        if response.status() == StatusCode::BAD_REQUEST {
            return Err(self.denied(response, with_credentials).await);
        }
        let response = self.success(response, with_credentials).await?;
        let body = self.body(response, ANSWER_LIMIT).await?;
        serde_json::from_slice::<TokenAnswer>(&body)
            .ok()
            .and_then(TokenAnswer::into_token)
            .ok_or_else(|| self.protocol("has a token server that gives no token".to_owned()))
    }

    /// The answer, if it is one of success; else the error that it means.
    async fn success(
        &self,
        response: Response,
        with_credentials: bool,
    ) -> Result<Response, RegistryError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let subject = self.subject.clone();
        let retry_after = text(response.headers(), RETRY_AFTER.as_str())
            .and_then(|header| retry_after(header, OffsetDateTime::now_utc()));
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                self.denied(response, with_credentials).await
            }
            StatusCode::NOT_FOUND => RegistryError::NotFound {
                subject,
                message: self.message(response).await,
            },
            StatusCode::TOO_MANY_REQUESTS => RegistryError::RateLimited {
                subject,
                retry_after,
            },
            _ if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                RegistryError::Server {
                    subject,
                    status: status.as_u16(),
                    message: self.message(response).await,
                    retry_after,
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE => self.protocol("refuses the range".to_owned()),
            _ => self.protocol(format!("answers with status {}", status.as_u16())),
        })
    }

    async fn denied(&self, response: Response, with_credentials: bool) -> RegistryError {
        RegistryError::Denied {
            subject: self.subject.clone(),
            message: self.message(response).await,
            with_credentials,
        }
    }

    /// What the registry says in an error document; empty where it can't be had.
    async fn message(&self, response: Response) -> String {
        match self.body(response, ANSWER_LIMIT).await {
            Ok(body) => message_in(&body),
            Err(_) => String::new(),
        }
    }

    /// The whole body, of at most `limit` bytes.
    async fn body(&self, mut response: Response, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.network(error))?
        {
            if body.len() as u64 + chunk.len() as u64 > limit {
                return Err(self.protocol(format!("sends more than {limit} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// A failure below HTTP. The address is left out: redirects carry signatures.
    pub(super) fn network(&self, error: reqwest::Error) -> RegistryError {
        let source = error.without_url();
        let subject = self.subject.clone();
        if is_tls(&source) {
            return RegistryError::Tls { subject, source };
        }
        if source.is_redirect() {
            return RegistryError::Redirect { subject, source };
        }
        RegistryError::Unreachable { subject, source }
    }

    pub(super) fn corrupt(&self, source: IntegrityError) -> RegistryError {
        RegistryError::Integrity {
            subject: self.subject.clone(),
            source,
        }
    }

    pub(super) fn protocol(&self, problem: String) -> RegistryError {
        RegistryError::Protocol {
            subject: self.subject.clone(),
            problem,
        }
    }
}

/// The text of a header.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// `parameters` as `application/x-www-form-urlencoded`.
fn encode(parameters: &[(&str, &str)]) -> String {
    let form = Url::parse_with_params("http://localhost/", parameters);
    form.ok()
        .and_then(|url| url.query().map(str::to_owned))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_https_but_on_this_machine() {
        let client = Client::new(RegistryOptions::default()).unwrap();
        for (repository, expected) in [
            ("debian", "https://registry-1.docker.io/v2/library/debian/x"),
            ("ghcr.io/a/b", "https://ghcr.io/v2/a/b/x"),
            ("10.0.0.1:5000/a", "https://10.0.0.1:5000/v2/a/x"),
            ("localhost:5000/a", "http://localhost:5000/v2/a/x"),
            ("[::1]:5000/a", "http://[::1]:5000/v2/a/x"),
        ] {
            let repository: Repository = repository.parse().unwrap();
            let operation = client.operation(&repository, String::new(), Duration::ZERO);
            assert_eq!(operation.url("x").unwrap().as_str(), expected);
        }
    }

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
