//! From an address to an [`Operator`]: which service, which bucket, which settings.
//!
//! | scheme | place | settings |
//! |---|---|---|
//! | `s3` | bucket/prefix | `region`, `endpoint`, `path-style`, `anonymous` |
//! | `gs` | bucket/prefix | `endpoint`, `anonymous` |
//! | `azblob` | container/prefix | `account`, `endpoint`, `anonymous` |
//! | `file` | an absolute directory | |
//!
//! The builders get every value from here: what OpenDAL would read from the environment by itself is
//! switched off or overridden.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use opendal::{HttpTransporter, OperationContext, Operator, services};
use opendal_http_transport_reqwest::ReqwestTransport;

use super::{
    Services,
    credentials::{self, value},
};
use crate::{
    cache::{CacheError, Subject, TierAddress, TierKind, open::OpenError},
    registry::{Authorities, install_provider},
};

/// How long to wait for a connection, and for the next bytes of an answer.
const CONNECT: Duration = Duration::from_secs(10);
const STALL: Duration = Duration::from_secs(30);

/// Where objects lie.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// In a bucket.
    Bucket(Operator),
    /// In a directory, which is looked at when it is used.
    Directory(PathBuf),
}

/// The place that `address` names.
pub(super) fn place(
    address: &TierAddress,
    services: &Services,
    authorities: &Authorities,
) -> Result<Place, OpenError> {
    let known: &[&str] = match address.kind {
        TierKind::S3 => &["region", "endpoint", "path-style", "anonymous"],
        TierKind::Gcs => &["endpoint", "anonymous"],
        TierKind::Azure => &["account", "endpoint", "anonymous"],
        _ => &[],
    };
    let mut settings = address.settings.iter();
    if let Some((name, _)) = settings.find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(setting(address, name, "is unknown"));
    }
    let operator = match address.kind {
        TierKind::S3 => s3(address, services, authorities)?,
        TierKind::Gcs => gcs(address, services, authorities)?,
        TierKind::Azure => azure(address, services, authorities)?,
        _ => {
            let dir = PathBuf::from(&address.place);
            return match dir.is_absolute() {
                true => Ok(Place::Directory(dir)),
                false => Err(OpenError::Missing {
                    address: address.to_string(),
                    what: format!("an absolute path, as in `file:///{}`", address.place),
                }),
            };
        }
    };
    Ok(Place::Bucket(operator))
}

fn s3(
    address: &TierAddress,
    services: &Services,
    authorities: &Authorities,
) -> Result<Operator, OpenError> {
    let (bucket, prefix) = split(address);
    let endpoint = endpoint(
        address,
        services,
        &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
    )?;
    let region = address
        .setting("region")
        .or_else(|| value(services, "AWS_REGION"))
        .or_else(|| value(services, "AWS_DEFAULT_REGION"))
        // Services other than AWS have one region, which they don't look at.
        .or(endpoint.as_ref().map(|_| "us-east-1"));
    let region = region.ok_or_else(|| OpenError::Missing {
        address: address.to_string(),
        what: "a region: `?region=…` in the address, or `AWS_REGION`".to_owned(),
    })?;
    let path_style = flag(address, "path-style")?.unwrap_or(endpoint.is_some());
    let mut builder = services::S3::default()
        .bucket(bucket)
        .root(prefix)
        .region(region)
        .disable_config_load()
        .credential_provider_chain(credentials::s3(services));
    if let Some(endpoint) = &endpoint {
        builder = builder.endpoint(endpoint);
    }
    if !path_style {
        builder = builder.enable_virtual_host_style();
    }
    if flag(address, "anonymous")?.unwrap_or(false) {
        builder = builder.skip_signature();
    }
    connected(
        address,
        endpoint.as_deref(),
        authorities,
        Operator::new(builder),
    )
}

fn gcs(
    address: &TierAddress,
    services: &Services,
    authorities: &Authorities,
) -> Result<Operator, OpenError> {
    let (bucket, prefix) = split(address);
    let endpoint = endpoint(address, services, &[])?;
    let mut builder = services::Gcs::default()
        .bucket(bucket)
        .root(prefix)
        .disable_config_load()
        .disable_vm_metadata()
        .credential_provider_chain(credentials::gcs(services));
    if let Some(endpoint) = &endpoint {
        builder = builder.endpoint(endpoint);
    }
    if flag(address, "anonymous")?.unwrap_or(false) {
        builder = builder.skip_signature();
    }
    connected(
        address,
        endpoint.as_deref(),
        authorities,
        Operator::new(builder),
    )
}

fn azure(
    address: &TierAddress,
    services: &Services,
    authorities: &Authorities,
) -> Result<Operator, OpenError> {
    let (container, prefix) = split(address);
    let account = address
        .setting("account")
        .or_else(|| value(services, "AZURE_STORAGE_ACCOUNT"))
        .ok_or_else(|| OpenError::Missing {
            address: address.to_string(),
            what: "an account: `?account=…` in the address, or `AZURE_STORAGE_ACCOUNT`".to_owned(),
        })?;
    let endpoint = endpoint(address, services, &[])?
        .unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
    let mut builder = services::Azblob::default()
        .container(container)
        .root(prefix)
        .account_name(account)
        .endpoint(&endpoint)
        .credential_provider_chain(credentials::azure(services, account));
    if flag(address, "anonymous")?.unwrap_or(false) {
        builder = builder.skip_signature();
    }
    connected(
        address,
        Some(&endpoint),
        authorities,
        Operator::new(builder),
    )
}

/// The operator with an HTTP client of ours.
fn connected(
    address: &TierAddress,
    endpoint: Option<&str>,
    authorities: &Authorities,
    operator: opendal::Result<Operator>,
) -> Result<Operator, OpenError> {
    let subject = || Subject::Url(address.to_string());
    let broken = |source| OpenError::Client {
        address: address.to_string(),
        source,
    };
    let operator = operator.map_err(|e| broken(super::failure::sorted("open", subject(), e)))?;
    install_provider();
    let mut client = reqwest::Client::builder()
        .user_agent(concat!("memobuild-ci/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .read_timeout(STALL)
        // Whoever holds the tier decides.
        .retry(reqwest::retry::never());
    if endpoint.is_some_and(is_loopback) {
        client = client.no_proxy();
    }
    let client = authorities.trusted_by(client).build().map_err(|source| {
        broken(CacheError::Broken {
            act: "set up the client for",
            subject: subject(),
            source: Box::new(source),
        })
    })?;
    let transport = HttpTransporter::new(ReqwestTransport::new(client));
    Ok(operator.with_context(OperationContext::new().with_http_transport(transport)))
}

/// Bucket and prefix.
fn split(address: &TierAddress) -> (&str, &str) {
    address
        .place
        .split_once('/')
        .unwrap_or((&address.place, ""))
}

fn setting(address: &TierAddress, name: &str, problem: impl Into<String>) -> OpenError {
    OpenError::Setting {
        address: address.to_string(),
        name: name.to_owned(),
        problem: problem.into(),
    }
}

fn flag(address: &TierAddress, name: &str) -> Result<Option<bool>, OpenError> {
    match address.setting(name) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(other) => Err(setting(
            address,
            name,
            format!("is `{other}`, not `true` or `false`"),
        )),
    }
}

/// The service's URL, from the setting or from the first of these variables. Plain http is for this
/// machine, and for S3, whose requests are signed and hold no secret.
fn endpoint(
    address: &TierAddress,
    services: &Services,
    variables: &[&str],
) -> Result<Option<String>, OpenError> {
    let from_variables = || variables.iter().find_map(|name| value(services, name));
    let Some(url) = address.setting("endpoint").or_else(from_variables) else {
        return Ok(None);
    };
    let known = reqwest::Url::parse(url).ok();
    let Some(known) = known.filter(|url| matches!(url.scheme(), "http" | "https")) else {
        return Err(setting(
            address,
            "endpoint",
            "is no `https://` or `http://` address",
        ));
    };
    if !known.username().is_empty() || known.password().is_some() || known.query().is_some() {
        return Err(setting(
            address,
            "endpoint",
            "holds credentials, which would show up in logs",
        ));
    }
    if known.scheme() == "http" && address.kind != TierKind::S3 && !is_loopback(url) {
        return Err(setting(
            address,
            "endpoint",
            format!("is `{url}`: a token would be sent over plain http"),
        ));
    }
    Ok(Some(url.trim_end_matches('/').to_owned()))
}

/// Whether `url` leads to this machine.
fn is_loopback(url: &str) -> bool {
    let url = reqwest::Url::parse(url).ok();
    let host = url.as_ref().and_then(reqwest::Url::host_str);
    host.is_some_and(|host| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::SecretBytes;

    fn open(address: &str, variables: &[(&'static str, &str)]) -> Result<Place, String> {
        let services = variables
            .iter()
            .map(|(name, value)| (*name, SecretBytes::from(value.as_bytes().to_vec())));
        place(
            &address.parse().unwrap(),
            &services.collect(),
            &Authorities::default(),
        )
        .map_err(|e| e.to_string())
    }

    #[test]
    fn addresses_open() {
        for (address, variables) in [
            ("s3://bucket?region=eu-west-1", &[][..]),
            ("s3://bucket/a/b", &[("AWS_REGION", "eu-west-1")]),
            (
                "s3://bucket?endpoint=http://minio.lan:9000&path-style=true",
                &[],
            ),
            (
                "s3://bucket",
                &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")],
            ),
            ("gs://bucket/prefix", &[]),
            ("gs://bucket?endpoint=http://[::1]:4443&anonymous=true", &[]),
            ("azblob://container/p?account=acme", &[]),
            ("azblob://container", &[("AZURE_STORAGE_ACCOUNT", "acme")]),
        ] {
            let place = open(address, variables);
            assert!(matches!(place, Ok(Place::Bucket(_))), "{address} {place:?}");
        }
        let place = open("file:///srv/cache", &[]);
        assert!(matches!(place, Ok(Place::Directory(dir)) if dir.ends_with("srv/cache")));
    }

    #[test]
    fn what_is_wrong_in_an_address_is_said() {
        for (address, message) in [
            (
                "s3://b?regoin=x",
                "setting `regoin` of cache `s3://b` is unknown",
            ),
            (
                "s3://b",
                "cache `s3://b` needs a region: `?region=…` in the address, or `AWS_REGION`",
            ),
            (
                "s3://b?region=x&path-style=yes",
                "setting `path-style` of cache `s3://b` is `yes`, not `true` or `false`",
            ),
            (
                "s3://b?endpoint=minio",
                "setting `endpoint` of cache `s3://b` is no `https://` or `http://` address",
            ),
            (
                "gs://b?endpoint=http://gcs.lan",
                "setting `endpoint` of cache `gs://b` is `http://gcs.lan`: a token would be sent over plain http",
            ),
            (
                "azblob://b",
                "cache `azblob://b` needs an account: `?account=…` in the address, or `AZURE_STORAGE_ACCOUNT`",
            ),
            (
                "file://srv/cache",
                "cache `file://srv/cache` needs an absolute path, as in `file:///srv/cache`",
            ),
            (
                "file:///srv?region=x",
                "setting `region` of cache `file:///srv` is unknown",
            ),
        ] {
            assert_eq!(open(address, &[]).unwrap_err(), message, "{address}");
        }
        let error = open("s3://b?endpoint=http://u:hunter2@h", &[]).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
