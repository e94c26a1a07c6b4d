//! Credentials for storage services, from where each service's own tools take them.
//!
//! The providers are those of the `reqsign` crates: variables, files in the home directory, tokens of the
//! CI platform, and the metadata service of the machine. They see the variables in [`Services`] and no
//! others: the program declares each variable that it reads (`config/services.rs`). They start no
//! program, so `credential_process` and the `az` command are not asked.
//!
//! That there are none is remembered: the metadata service of a machine that has none is waited for
//! once and not for each request.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use reqsign_core::{Context, ProvideCredential, ProvideCredentialChain, Result, StaticEnv};

use crate::redact::SecretBytes;

/// How long to look for credentials. Metadata services answer within milliseconds, exchanges of tokens
/// within a second or two.
const LIMIT: Duration = Duration::from_secs(10);

/// The variables by which services hand out credentials and addresses, by their names.
pub type Services = BTreeMap<&'static str, SecretBytes>;

/// The value of a variable, if it is set and UTF-8.
pub(super) fn value<'a>(services: &'a Services, name: &str) -> Option<&'a str> {
    std::str::from_utf8(services.get(name)?.expose()).ok()
}

/// A provider that sees nothing but what it is given.
struct Confined<P> {
    inner: P,
    variables: HashMap<String, String>,
    found_none: AtomicBool,
}

impl<P> fmt::Debug for Confined<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secret.
        f.debug_struct("Confined").finish_non_exhaustive()
    }
}

impl<P> Confined<P> {
    fn new(inner: P, services: &Services, more: &[(&str, &str)]) -> Self {
        let given = services
            .keys()
            .filter_map(|name| Some((*name, value(services, name)?)));
        let more = more.iter().copied();
        Self {
            inner,
            variables: given
                .chain(more)
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            found_none: AtomicBool::new(false),
        }
    }
}

impl<P: ProvideCredential> ProvideCredential for Confined<P> {
    type Credential = P::Credential;

    async fn provide_credential(&self, context: &Context) -> Result<Option<Self::Credential>> {
        if self.found_none.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let context = context.clone().with_env(StaticEnv {
            home_dir: self.variables.get("HOME").map(PathBuf::from),
            envs: self.variables.clone(),
        });
        let found = tokio::time::timeout(LIMIT, self.inner.provide_credential(&context)).await;
        let found = found.unwrap_or(Ok(None))?;
        if found.is_none() {
            self.found_none.store(true, Ordering::Relaxed);
        }
        Ok(found)
    }
}

/// Credentials for S3.
pub(super) fn s3(services: &Services) -> ProvideCredentialChain<reqsign_aws_v4::Credential> {
    let mut chain = reqsign_aws_v4::DefaultCredentialProvider::builder().no_process();
    if value(services, "AWS_EC2_METADATA_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"))
    {
        chain = chain.no_imds();
    }
    ProvideCredentialChain::new().push(Confined::new(chain.build(), services, &[]))
}

/// What is asked of Google: reading and writing objects.
const GOOGLE_SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";

/// Credentials for Google Cloud Storage.
pub(super) fn gcs(services: &Services) -> ProvideCredentialChain<reqsign_google::Credential> {
    let chain = reqsign_google::DefaultCredentialProvider::new();
    let scope = [("GOOGLE_SCOPE", GOOGLE_SCOPE)];
    ProvideCredentialChain::new().push(Confined::new(chain, services, &scope))
}

/// Credentials for Azure Blob Storage, account `account`.
pub(super) fn azure(
    services: &Services,
    account: &str,
) -> ProvideCredentialChain<reqsign_azure_storage::Credential> {
    let chain = reqsign_azure_storage::DefaultCredentialProvider::builder()
        .no_azure_cli()
        .no_azure_pipelines()
        .no_client_certificate()
        .build();
    // The library's names for what Azure's tools call otherwise.
    let mut more = vec![("AZURE_STORAGE_ACCOUNT_NAME", account)];
    if let Some(key) = value(services, "AZURE_STORAGE_KEY") {
        more.push(("AZURE_STORAGE_ACCOUNT_KEY", key));
    }
    ProvideCredentialChain::new().push(Confined::new(chain, services, &more))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Says what it sees, and counts how often it is asked.
    #[derive(Debug, Default)]
    struct Spy {
        asked: AtomicUsize,
        name: &'static str,
    }

    impl ProvideCredential for &'static Spy {
        type Credential = String;

        async fn provide_credential(&self, context: &Context) -> Result<Option<String>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            Ok(context.env_var(self.name))
        }
    }

    fn services() -> Services {
        BTreeMap::from([("AWS_PROFILE", SecretBytes::from(b"dev".to_vec()))])
    }

    #[tokio::test]
    async fn providers_see_what_they_are_given_and_nothing_else() {
        let find = async |name| {
            let spy: &'static Spy = Box::leak(Box::new(Spy {
                name,
                ..Spy::default()
            }));
            let provider = Confined::new(spy, &services(), &[("MORE", "1")]);
            let context = Context::new().with_env(reqsign_core::OsEnv);
            provider.provide_credential(&context).await.unwrap()
        };
        assert_eq!(find("AWS_PROFILE").await.as_deref(), Some("dev"));
        assert_eq!(find("MORE").await.as_deref(), Some("1"));
        assert_eq!(find("PATH").await, None, "the process's own is not seen");
    }

    #[tokio::test]
    async fn that_there_are_none_is_found_out_once() {
        let spy: &'static Spy = Box::leak(Box::new(Spy {
            name: "ABSENT",
            ..Spy::default()
        }));
        let provider = Confined::new(spy, &services(), &[]);
        for _ in 0..3 {
            let found = provider.provide_credential(&Context::new()).await;
            assert_eq!(found.unwrap(), None);
        }
        assert_eq!(spy.asked.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn nothing_is_shown() {
        let provider = Confined::new((), &services(), &[]);
        assert!(!format!("{provider:?}").contains("dev"));
    }
}
