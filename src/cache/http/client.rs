//! One request after the other: addresses, the token, and what answers mean.
//!
//! Nothing is tried again here, but the rest of a download that broke.

use std::{fmt, time::Duration};

use bytes::Bytes;
use reqwest::{
    Method, RequestBuilder, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    redirect,
};
use serde::Serialize;
use time::OffsetDateTime;

use super::wire::{
    API_VERSION, DEFAULT_NAMESPACE, ErrorBody, ErrorDetail, VERSION_HEADER, code, is_namespace,
};
use crate::{
    cache::{CacheError, Cause, Later, Subject, TierAddress},
    oci::reference::is_loopback,
    redact::SecretBytes,
    registry::{Authorities, install_provider, retry_after},
};

/// Most bytes of an error document that are read.
const ERROR_LIMIT: usize = 64 << 10;

/// How long a connection that nobody uses is kept. Servers close them after 30 seconds.
const IDLE: Duration = Duration::from_secs(20);

/// How to talk to a server.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// The token; none where the server wants none.
    pub token: Option<SecretBytes>,
    /// Certificate authorities to trust besides the system's.
    pub authorities: Authorities,
    /// How long a connection may take.
    pub connect: Duration,
    /// How long a server may be silent.
    pub stall: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            token: None,
            authorities: Authorities::default(),
            connect: Duration::from_secs(5),
            stall: Duration::from_secs(30),
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum HttpOpenError {
    /// The address is no URL.
    #[error("`{address}` is not of the form `https://host[:port][/namespace]`")]
    Address {
        /// The address.
        address: String,
    },
    /// The namespace can't be one.
    #[error(
        "`{namespace}` in the address `{address}` is no namespace: 1 to 64 of `a-z`, `0-9`, `.`, `_`, `-`, the first a letter or digit"
    )]
    Namespace {
        /// The address.
        address: String,
        /// Its last part.
        namespace: String,
    },
    /// Others on the way could read and change everything.
    #[error(
        "`{address}` is plain http to another machine, which anybody on the way can read and change"
    )]
    Insecure {
        /// The address.
        address: String,
    },
    /// A setting that no server has.
    #[error("`{address}` has the setting `{name}`, which is unknown; there is `insecure`")]
    Setting {
        /// The address.
        address: String,
        /// The setting.
        name: String,
    },
    /// The token has bytes that can't be sent.
    #[error("the token for `{address}` has characters that a header can't have")]
    Token {
        /// The address.
        address: String,
    },
    /// The HTTP client can't be made.
    #[error("the client for `{address}` can't be made")]
    Client {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
}

impl HttpOpenError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Insecure { .. } => {
                Some("use https, or add `?insecure=true` if the network between is yours alone")
            }
            _ => None,
        }
    }
}

/// What a server answered, or why it didn't.
#[derive(Debug, thiserror::Error)]
pub enum HttpFailure {
    /// A status that is no success.
    #[error("the server answered {status}{}{}", if message.is_empty() { "" } else { ": " }, message)]
    Status {
        /// The status.
        status: u16,
        /// The word for programs; empty if the server is another one.
        code: String,
        /// The server's words.
        message: String,
    },
    /// The server speaks other versions of the protocol.
    #[error(
        "the server speaks version {} of the cache protocol, this program version {API_VERSION}",
        supported.join(", ")
    )]
    Version {
        /// Its versions.
        supported: Vec<String>,
    },
    /// The answer does not come from a cache server.
    #[error("the server is no memobuild-ci cache: {what}")]
    Protocol {
        /// What is wrong.
        what: String,
    },
    /// No answer came.
    #[error("the server can't be reached")]
    Network(#[source] reqwest::Error),
}

/// A client for one namespace of one server.
pub(super) struct Client {
    http: reqwest::Client,
    /// Of the namespace, without a slash at its end.
    base: String,
    authorization: Option<HeaderValue>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(address: &TierAddress, options: &HttpOptions) -> Result<Self, HttpOpenError> {
        install_provider();
        let name = address.to_string();
        if let Some((setting, _)) = address.settings.iter().find(|(n, _)| n != "insecure") {
            return Err(HttpOpenError::Setting {
                address: name,
                name: setting.clone(),
            });
        }
        let (base, host) = base(address)?;
        let is_local = is_loopback(&host);
        let insecure = address.setting("insecure") == Some("true");
        if address.scheme == "http" && !is_local && !insecure {
            return Err(HttpOpenError::Insecure { address: name });
        }
        let failed = |source| HttpOpenError::Client {
            address: name.clone(),
            source,
        };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("memobuild-ci/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.connect)
            .read_timeout(options.stall)
            .pool_idle_timeout(IDLE)
            // The server never redirects; who does is another one, and must not get the token.
            .redirect(redirect::Policy::none())
            // Decorators decide.
            .retry(reqwest::retry::never());
        if is_local {
            builder = builder.no_proxy();
        }
        builder = match address.scheme.as_str() {
            "http" => builder.tls_certs_only([]),
            _ => options.authorities.trusted_by(builder),
        };
        let authorization = options.token.as_ref().map(|token| {
            let text = std::str::from_utf8(token.expose()).ok();
            let value =
                text.and_then(|t| HeaderValue::from_str(&format!("Bearer {}", t.trim())).ok());
            let mut value = value.ok_or_else(|| HttpOpenError::Token {
                address: name.clone(),
            })?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Self {
            http: builder.build().map_err(failed)?,
            base,
            authorization: authorization.transpose()?,
        })
    }

    /// How messages name the server.
    pub(super) fn subject(&self) -> Subject {
        Subject::Url(self.base.clone())
    }

    /// A request for `path` in the namespace.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self
            .http
            .request(method, format!("{}/{path}", self.base))
            .header(VERSION_HEADER, API_VERSION);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        request
    }

    /// Posts `body` as JSON and gives the bytes of the answer.
    pub(super) async fn post(
        &self,
        act: &'static str,
        subject: &Subject,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Bytes, CacheError> {
        // Serialising plain structs to memory has no way to fail.
        let text = serde_json::to_vec(body).unwrap_or_default();
        let request = self
            .request(Method::POST, path)
            .header(CONTENT_TYPE, "application/json")
            .body(text);
        let response = self.send(act, subject, request).await?;
        let bytes = response.bytes().await;
        bytes.map_err(|error| network(act, subject, error))
    }

    /// Sends a request; every answer but one of success is an error.
    pub(super) async fn send(
        &self,
        act: &'static str,
        subject: &Subject,
        request: RequestBuilder,
    ) -> Result<Response, CacheError> {
        let refused = |failure| Err(failure_of(act, subject.clone(), failure, None));
        match self.send_any(act, subject, request).await? {
            Answer::Success(response) => Ok(response),
            Answer::Absent(detail) => refused(HttpFailure::Status {
                status: StatusCode::NOT_FOUND.as_u16(),
                code: detail.code,
                message: detail.message,
            }),
            Answer::Refused { detail, status } => match detail.code.as_str() {
                code::DIGEST => Err(CacheError::Corrupt {
                    subject: subject.clone(),
                    what: detail.message,
                }),
                _ => refused(HttpFailure::Status {
                    status,
                    code: detail.code,
                    message: detail.message,
                }),
            },
        }
    }

    /// Sends a request. That something is not there, or that the server refuses what it was
    /// sent, is for the caller to judge.
    pub(super) async fn send_any(
        &self,
        act: &'static str,
        subject: &Subject,
        request: RequestBuilder,
    ) -> Result<Answer, CacheError> {
        let response = request.send().await;
        let response = response.map_err(|error| network(act, subject, error))?;
        let status = response.status();
        let is_ours = response.headers().contains_key(VERSION_HEADER);
        if status.is_success() && is_ours {
            return Ok(Answer::Success(response));
        }
        let after = response.headers().get(RETRY_AFTER);
        let after = after.and_then(|value| value.to_str().ok());
        let after = after.and_then(|text| retry_after(text, OffsetDateTime::now_utc()));
        let detail = detail(response).await;
        let number = status.as_u16();
        if is_ours && detail.code == code::VERSION {
            let supported = detail.supported;
            let failure = HttpFailure::Version { supported };
            return Err(failure_of(act, subject.clone(), failure, None));
        }
        let passes = matches!(number, 408 | 425 | 429 | 500..=599) && number != 507;
        if !is_ours && !passes && !matches!(number, 401 | 403 | 407 | 413) {
            let what = format!("it answered {number} without the header `{VERSION_HEADER}`");
            let failure = HttpFailure::Protocol { what };
            return Err(failure_of(act, subject.clone(), failure, None));
        }
        match number {
            404 => Ok(Answer::Absent(detail)),
            409 | 416 | 422 | 424 => Ok(Answer::Refused {
                detail,
                status: number,
            }),
            _ => {
                let failure = HttpFailure::Status {
                    status: number,
                    code: detail.code,
                    message: detail.message,
                };
                Err(failure_of(act, subject.clone(), failure, after))
            }
        }
    }

    /// An answer that makes no sense.
    pub(super) fn protocol(&self, act: &'static str, what: impl Into<String>) -> CacheError {
        let failure = HttpFailure::Protocol { what: what.into() };
        failure_of(act, self.subject(), failure, None)
    }
}

/// What a server answered.
#[derive(Debug)]
pub(super) enum Answer {
    Success(Response),
    /// What was asked for is not there.
    Absent(ErrorDetail),
    /// What was sent does not fit to what is there.
    Refused {
        detail: ErrorDetail,
        status: u16,
    },
}

/// The URL of the namespace that `address` names, and the host in it.
fn base(address: &TierAddress) -> Result<(String, String), HttpOpenError> {
    let name = address.to_string();
    let invalid = || HttpOpenError::Address {
        address: name.clone(),
    };
    let url = Url::parse(&name).map_err(|_| invalid())?;
    if !matches!(url.scheme(), "http" | "https") || url.fragment().is_some() {
        return Err(invalid());
    }
    let host = url.host_str().ok_or_else(invalid)?.to_owned();
    let path = url.path().trim_end_matches('/');
    let (prefix, namespace) = path.rsplit_once('/').unwrap_or(("", ""));
    let namespace = match namespace {
        "" => DEFAULT_NAMESPACE,
        namespace => namespace,
    };
    if !is_namespace(namespace) {
        return Err(HttpOpenError::Namespace {
            namespace: namespace.to_owned(),
            address: name,
        });
    }
    let origin = url.origin().ascii_serialization();
    Ok((format!("{origin}{prefix}/v{API_VERSION}/{namespace}"), host))
}

/// Reads the error document of an answer, as far as it is one.
async fn detail(mut response: Response) -> ErrorDetail {
    let mut text = Vec::new();
    while text.len() < ERROR_LIMIT {
        match response.chunk().await {
            Ok(Some(bytes)) => text.extend_from_slice(&bytes),
            // The status says enough.
            Ok(None) | Err(_) => break,
        }
    }
    let body = serde_json::from_slice::<ErrorBody>(&text);
    body.map(|body| body.error).unwrap_or_default()
}

/// A failure below HTTP. The address is left out: the subject has it.
pub(super) fn network(act: &'static str, subject: &Subject, error: reqwest::Error) -> CacheError {
    let is_setup = error.is_builder();
    let source: Cause = Box::new(HttpFailure::Network(error.without_url()));
    let subject = subject.clone();
    match is_setup {
        true => CacheError::Broken {
            act,
            subject,
            source,
        },
        false => CacheError::Transient {
            act,
            subject,
            source,
        },
    }
}

/// Sorts a failure by what can be done about it.
fn failure_of(
    act: &'static str,
    subject: Subject,
    failure: HttpFailure,
    after: Option<Duration>,
) -> CacheError {
    let status = match &failure {
        HttpFailure::Status { status, .. } => *status,
        _ => 0,
    };
    let source: Cause = match after {
        Some(after) if status != 507 => Box::new(Later {
            after,
            source: Some(Box::new(failure)),
        }),
        _ => Box::new(failure),
    };
    match status {
        401 | 403 | 407 => CacheError::Denied {
            act,
            subject,
            source,
        },
        413 | 507 => CacheError::Full {
            act,
            subject,
            source,
        },
        408 | 425 | 429 | 500..=599 => CacheError::Transient {
            act,
            subject,
            source,
        },
        _ => CacheError::Broken {
            act,
            subject,
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(address: &str) -> Result<Client, HttpOpenError> {
        Client::new(&address.parse().unwrap(), &HttpOptions::default())
    }

    #[test]
    fn the_last_part_of_an_address_is_the_namespace() {
        let base = |address: &str| open(address).unwrap().base;
        assert_eq!(
            base("https://cache.example"),
            "https://cache.example/v1/default"
        );
        assert_eq!(
            base("https://cache.example:8443/team-a/"),
            "https://cache.example:8443/v1/team-a"
        );
        assert_eq!(
            base("https://ci.example/cache/team"),
            "https://ci.example/cache/v1/team"
        );
        assert_eq!(base("http://[::1]:9"), "http://[::1]:9/v1/default");
        assert!(matches!(
            open("https://cache.example/Team"),
            Err(HttpOpenError::Namespace { .. })
        ));
    }

    #[test]
    fn plain_http_goes_no_further_than_this_machine() {
        assert!(open("http://127.0.0.1:1").is_ok());
        assert!(open("http://localhost:1/x").is_ok());
        let error = open("http://cache.example").unwrap_err();
        assert!(matches!(error, HttpOpenError::Insecure { .. }), "{error}");
        assert!(error.hint().unwrap().contains("?insecure=true"));
        assert!(open("http://cache.example?insecure=true").is_ok());
        assert!(open("http://cache.example?insecure=false").is_err());
        assert!(matches!(
            open("https://cache.example?tls=no"),
            Err(HttpOpenError::Setting { .. })
        ));
    }

    #[test]
    fn the_token_shows_nowhere() {
        let options = HttpOptions {
            token: Some(b"hunter2-hunter2\n".to_vec().into()),
            ..HttpOptions::default()
        };
        let client = Client::new(&"https://cache.example".parse().unwrap(), &options).unwrap();
        let shown = format!(
            "{client:?} {:?} {options:?}",
            client.request(Method::GET, "x")
        );
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn failures_are_sorted_by_what_can_be_done() {
        let sort = |status, after| {
            let failure = HttpFailure::Status {
                status,
                code: String::new(),
                message: String::new(),
            };
            failure_of("x", Subject::Url(String::new()), failure, after)
        };
        assert!(matches!(sort(401, None), CacheError::Denied { .. }));
        assert!(matches!(sort(403, None), CacheError::Denied { .. }));
        assert!(matches!(sort(507, None), CacheError::Full { .. }));
        assert!(matches!(sort(400, None), CacheError::Broken { .. }));
        assert!(sort(503, None).is_transient());
        let second = Duration::from_secs(1);
        assert_eq!(Later::asked_by(&sort(429, Some(second))), Some(second));
    }
}
