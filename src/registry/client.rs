//! One request after the other: addresses, authentication, classification of answers.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use reqwest::{
    Method, RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::{
    MANIFEST_LIMIT, RegistryOptions,
    auth::{Access, Authorization, Challenge, Proof, Sessions, TokenAnswer},
    credentials::{Credentials, Keychain},
    error::{IntegrityError, RegistryError, Subject, is_quota, is_tls, message_in},
    retry::{Limits, Retry, retry_after},
    transport::{Pulse, Setup, install_provider, is_safe},
};
use crate::{
    digest::Sha256Digest,
    oci::{Descriptor, Document, Repository, descriptor::media, reference::is_loopback},
};

/// Most bytes of an error document or a token answer that are read.
const ANSWER_LIMIT: u64 = 1 << 20;
/// The manifests that we understand, and all others so that they fail with a clear message rather
/// than as missing.
const ACCEPTED_MANIFESTS: [&str; 5] = [
    media::MANIFEST,
    media::INDEX,
    media::DOCKER_MANIFEST,
    media::DOCKER_INDEX,
    "*/*",
];

/// An HTTP client, or why there is none.
type MadeClient = OnceLock<Result<reqwest::Client, Arc<reqwest::Error>>>;

/// What all operations share.
#[derive(Debug)]
pub(super) struct Client {
    /// What the HTTP clients are made of, each when it is first used: one that speaks TLS reads all of the
    /// system's certificates.
    setup: Setup,
    /// For all registries but this machine's, and for those on it.
    short: [MadeClient; 2],
    /// The same for requests with long bodies.
    uploads: [MadeClient; 2],
    keychain: Keychain,
    sessions: Sessions,
    limits: Limits,
}

impl Client {
    pub(super) fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        install_provider();
        let setup = Setup {
            user_agent: options.user_agent,
            authorities: options.authorities,
            connect: options.limits.connect,
        };
        Ok(Self {
            setup,
            short: Default::default(),
            uploads: Default::default(),
            keychain: Keychain {
                docker_config: options.docker_config,
                helper_path: options.helper_path,
            },
            sessions: Sessions::default(),
            limits: options.limits,
        })
    }

    /// Starts an operation on `repository`; `what` names it in messages.
    pub(super) fn operation(
        self: &Arc<Self>,
        repository: &Repository,
        access: Access,
        what: String,
        retry: Retry,
    ) -> Operation {
        Operation {
            client: self.clone(),
            repository: repository.clone(),
            subject: Subject {
                act: access.act(),
                what,
                host: repository.host.as_str().into(),
            },
            access,
            retry,
        }
    }

    /// The HTTP client that may talk to `host`.
    fn http(&self, host: &str) -> Result<&reqwest::Client, RegistryError> {
        self.made(&self.short, host, Some(self.limits.stall))
    }

    /// The HTTP client for requests to `host` whose bodies take their time.
    fn uploads(&self, host: &str) -> Result<&reqwest::Client, RegistryError> {
        self.made(&self.uploads, host, None)
    }

    fn made<'c>(
        &self,
        clients: &'c [MadeClient; 2],
        host: &str,
        stall: Option<Duration>,
    ) -> Result<&'c reqwest::Client, RegistryError> {
        let is_local = is_loopback(host);
        let made = clients[usize::from(is_local)].get_or_init(|| {
            let made = match is_local {
                true => self.setup.local(stall),
                false => self.setup.remote(stall),
            };
            made.map_err(Arc::new)
        });
        made.as_ref()
            .map_err(|error| RegistryError::Client(error.clone()))
    }
}

/// A running operation: a repository, what is done to it, a deadline, a count of failures.
#[derive(Debug)]
pub(super) struct Operation {
    client: Arc<Client>,
    repository: Repository,
    access: Access,
    subject: Subject,
    retry: Retry,
}

impl Operation {
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
        let (headers, actual, bytes) = self.manifest(selector, digest, size).await?;
        let served_as = text(&headers, CONTENT_TYPE.as_str());
        match Document::parse(&bytes, served_as) {
            Ok(document) => Ok((actual, document)),
            Err(source) => Err(RegistryError::Manifest {
                subject: self.subject.clone(),
                source,
            }),
        }
    }

    /// Fetches the bytes of the manifest `selector`, a tag or a digest, and verifies them.
    pub(super) async fn manifest(
        &mut self,
        selector: &str,
        digest: Option<Sha256Digest>,
        size: Option<u64>,
    ) -> Result<(HeaderMap, Sha256Digest, Vec<u8>), RegistryError> {
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
        Ok((headers, actual, bytes))
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
        self.authenticated(url, || prepare(http.get(url.clone())))
            .await
    }

    /// One request without a body, or with one that is sent in no time, with authentication; `prepare`
    /// adds it and headers. Gives only answers of success.
    pub(super) async fn ask(
        &self,
        method: Method,
        url: &Url,
        prepare: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let http = self.client.http(&self.repository.host)?;
        self.unless_stalled(&Pulse::new(), async {
            let request = || prepare(http.request(method.clone(), url.clone()));
            self.authenticated(url, request).await
        })
        .await
    }

    /// One request of any method, with authentication. `prepare` adds headers and a body, which
    /// may take as long as it moves: `pulse` is beaten when it does. Gives only answers of success.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &Url,
        pulse: &Pulse,
        prepare: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let http = self.client.uploads(&self.repository.host)?;
        self.unless_stalled(pulse, async {
            let request = || prepare(http.request(method.clone(), url.clone()));
            self.authenticated(url, request).await
        })
        .await
    }

    /// The answer, unless `pulse` stands still for too long before it comes.
    async fn unless_stalled(
        &self,
        pulse: &Pulse,
        answer: impl Future<Output = Result<Response, RegistryError>>,
    ) -> Result<Response, RegistryError> {
        let limit = self.client.limits.stall;
        tokio::select! {
            // The HTTP client may notice the same at the same time, and knows less about it.
            biased;
            () = pulse.stalled(limit) => Err(RegistryError::Stalled {
                subject: self.subject.clone(),
                limit,
            }),
            answer = answer => answer,
        }
    }

    /// Sends a request, which `request` makes, and once more with what a 401 answer asks for.
    async fn authenticated(
        &self,
        url: &Url,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let send = async |proof: Option<&Proof>| {
            let request = match proof {
                Some(proof) => proof.authorization.apply(request()),
                None => request(),
            };
            request.send().await.map_err(|error| self.network(error))
        };
        // Uploads may lead to a storage elsewhere, which our credentials are not for.
        if !self.is_ours(url)? {
            return self.success(send(None).await?, false).await;
        }
        let session = (self.client.sessions).of(&self.repository, &self.access);
        let known = session.proof();
        let first = send(known.as_deref()).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            let with_credentials = known.is_some_and(|proof| proof.with_credentials);
            return self.success(first, with_credentials).await;
        }
        // Side by side, requests would all ask for a token of their own.
        let renewing = session.renewal.lock().await;
        let proof = match session.proof() {
            Some(newer) if known.as_ref() != Some(&newer) => newer,
            _ => {
                session.forget();
                let (authorization, with_credentials) = self.authorize(first).await?;
                session.set(Proof {
                    authorization,
                    with_credentials,
                })
            }
        };
        drop(renewing);
        let second = send(Some(&proof)).await?;
        if second.status() == StatusCode::UNAUTHORIZED {
            session.forget();
        }
        self.success(second, proof.with_credentials).await
    }

    /// Whether `url` leads to the registry itself.
    fn is_ours(&self, url: &Url) -> Result<bool, RegistryError> {
        let own = self.url("")?;
        let place = |url: &Url| {
            (
                url.host_str().map(str::to_owned),
                url.port_or_known_default(),
            )
        };
        Ok(place(url) == place(&own))
    }

    /// The address that a `Location` header in the answer to a request for `base` names.
    pub(super) fn location(&self, base: &Url, headers: &HeaderMap) -> Result<Url, RegistryError> {
        let location = text(headers, LOCATION.as_str()).and_then(|text| base.join(text).ok());
        let mut url =
            location.ok_or_else(|| self.protocol("doesn't say where to upload to".to_owned()))?;
        // Registries behind a proxy may not know that they are spoken to by https.
        if base.scheme() == "https" && url.host_str() == base.host_str() && url.port().is_none() {
            // Both are schemes of the web: there is no way to fail.
            let _ = url.set_scheme("https");
        }
        match is_safe(&url, self.repository.is_loopback()) {
            true => Ok(url),
            false => Err(self.protocol("sends uploads to plain http".to_owned())),
        }
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
            let scopes = self.access.scopes(&self.repository, scope);
            let token = self.token(realm, service, &scopes, &credentials).await?;
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
        scopes: &[String],
        credentials: &Credentials,
    ) -> Result<String, RegistryError> {
        let mut url = Url::parse(realm)
            .ok()
            .filter(|url| is_safe(url, self.repository.is_loopback()))
            .ok_or_else(|| self.protocol("names a token server that is not https".to_owned()))?;
        // The host that is spoken to decides between proxy and none.
        let http = self.client.http(url.host_str().unwrap_or_default())?;
        let service = service.map(|service| ("service", service));
        let mut parameters: Vec<(&str, &str)> = scopes
            .iter()
            .map(|scope| ("scope", scope.as_str()))
            .collect();
        parameters.extend(service);
        let joined = scopes.join(" ");
        let request = match credentials {
            Credentials::IdentityToken(token) => {
                parameters = vec![("scope", &joined)];
                parameters.extend(service);
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
        let is_upload = self.access != Access::Pull;
        let retry_after = text(response.headers(), RETRY_AFTER.as_str())
            .and_then(|header| retry_after(header, OffsetDateTime::now_utc()));
        Err(match status {
            StatusCode::INSUFFICIENT_STORAGE
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::PAYMENT_REQUIRED
                if is_upload =>
            {
                RegistryError::Quota {
                    subject,
                    message: self.message(response).await,
                }
            }
            StatusCode::METHOD_NOT_ALLOWED if is_upload => RegistryError::ReadOnly {
                subject,
                message: self.message(response).await,
            },
            StatusCode::BAD_REQUEST | StatusCode::PRECONDITION_FAILED if is_upload => {
                match self.message(response).await {
                    message if is_quota(&message) => RegistryError::Quota { subject, message },
                    message => RegistryError::Refused { subject, message },
                }
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                match self.denied(response, with_credentials).await {
                    RegistryError::Denied { message, .. } if is_upload && is_quota(&message) => {
                        RegistryError::Quota { subject, message }
                    }
                    error => error,
                }
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
            StatusCode::RANGE_NOT_SATISFIABLE => RegistryError::Range { subject },
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
        let stall = self.client.limits.stall;
        loop {
            let chunk =
                timeout(stall, response.chunk())
                    .await
                    .map_err(|_| RegistryError::Stalled {
                        subject: self.subject.clone(),
                        limit: stall,
                    })?;
            let Some(chunk) = chunk.map_err(|error| self.network(error))? else {
                return Ok(body);
            };
            if body.len() as u64 + chunk.len() as u64 > limit {
                return Err(self.protocol(format!("sends more than {limit} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn addresses_are_https_but_on_this_machine() {
        let client = Arc::new(Client::new(RegistryOptions::default()).unwrap());
        for (repository, expected) in [
            ("debian", "https://registry-1.docker.io/v2/library/debian/x"),
            ("ghcr.io/a/b", "https://ghcr.io/v2/a/b/x"),
            ("10.0.0.1:5000/a", "https://10.0.0.1:5000/v2/a/x"),
            ("localhost:5000/a", "http://localhost:5000/v2/a/x"),
            ("[::1]:5000/a", "http://[::1]:5000/v2/a/x"),
        ] {
            let repository: Repository = repository.parse().unwrap();
            let retry = Retry::new(&client.limits, Duration::ZERO);
            let operation = client.operation(&repository, Access::Pull, String::new(), retry);
            assert_eq!(operation.url("x").unwrap().as_str(), expected);
        }
    }
}
