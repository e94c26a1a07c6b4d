//! A tier: one cache behind the local store, and what a build may do with it.
//!
//! [`TierAddress`] is what users write, `https://cache.example`, `oci://registry.example/team/cache`,
//! `s3://bucket/prefix`; [`Tier`] is the opened backend behind the contracts of all caches.

use std::{fmt, str::FromStr, sync::Arc};

use super::{ActionCache, BlobStore};

/// An opened tier.
#[derive(Clone)]
pub struct Tier {
    /// How messages name it: its address without credentials.
    pub name: String,
    /// Its entries.
    pub actions: Arc<dyn ActionCache>,
    /// Its blobs.
    pub blobs: Arc<dyn BlobStore>,
    /// What builds may do with it.
    pub access: Access,
}

impl fmt::Debug for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tier")
            .field("name", &self.name)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// What a build may do with a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Look entries up and fetch blobs.
    pub read: bool,
    /// Save results of steps, and what was found in a later tier.
    pub write: bool,
}

impl Access {
    /// Everything.
    pub const FULL: Self = Self {
        read: true,
        write: true,
    };
    /// No writes.
    pub const READ: Self = Self {
        read: true,
        write: false,
    };
}

/// Which kind of cache an address leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TierKind {
    /// A server of this program: `http://` or `https://`.
    Server,
    /// A repository of an OCI registry: `oci://`.
    Registry,
    /// A bucket with an S3 API: `s3://`.
    S3,
    /// Google Cloud Storage: `gs://`.
    Gcs,
    /// Azure Blob Storage: `azblob://`.
    Azure,
    /// A shared directory: `file://`.
    Directory,
    /// The cache service of GitHub Actions and Gitea Actions: `gha://`.
    Actions,
}

/// Every kind with the scheme of its addresses.
const SCHEMES: [(&str, TierKind); 8] = [
    ("http", TierKind::Server),
    ("https", TierKind::Server),
    ("oci", TierKind::Registry),
    ("s3", TierKind::S3),
    ("gs", TierKind::Gcs),
    ("azblob", TierKind::Azure),
    ("file", TierKind::Directory),
    ("gha", TierKind::Actions),
];

/// The address of a tier: `scheme://place?name=value&…`. It never holds credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierAddress {
    /// What it leads to.
    pub kind: TierKind,
    /// The scheme as written.
    pub scheme: String,
    /// What stands between `://` and `?`: host and path, bucket and prefix, or a directory.
    pub place: String,
    /// The settings after `?`, in their order, percent-decoded.
    pub settings: Vec<(String, String)>,
}

/// A text that is no address of a tier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TierAddressError {
    /// It has another scheme, or none.
    #[error(
        "`{address}` is no address of a cache: it starts with `https://`, `http://`, `oci://`, \
         `s3://`, `gs://`, `azblob://`, `file://` or `gha://`"
    )]
    Scheme {
        /// The address.
        address: String,
    },
    /// Nothing stands after the scheme.
    #[error("`{address}` names no place")]
    Place {
        /// The address.
        address: String,
    },
    /// It has a user name or a password.
    #[error(
        "the address of the cache at `{host}` holds a user name or password, which would show up in logs"
    )]
    Credentials {
        /// What follows the credentials.
        host: String,
    },
    /// A setting without `=`, or with a broken percent-encoding.
    #[error("`{setting}` in the address of a cache is not of the form `name=value`")]
    Setting {
        /// The setting.
        setting: String,
    },
}

impl TierAddress {
    /// The value of a setting.
    pub fn setting(&self, name: &str) -> Option<&str> {
        let found = self.settings.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl FromStr for TierAddress {
    type Err = TierAddressError;

    fn from_str(text: &str) -> Result<Self, TierAddressError> {
        let unknown = || TierAddressError::Scheme {
            address: text.to_owned(),
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(unknown)?;
        let scheme = scheme.to_ascii_lowercase();
        let known = SCHEMES.iter().find(|(name, _)| *name == scheme);
        let kind = known.ok_or_else(unknown)?.1;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let host = place.split('/').next().unwrap_or_default();
        if kind != TierKind::Directory
            && let Some((_, host)) = host.rsplit_once('@')
        {
            return Err(TierAddressError::Credentials {
                host: host.to_owned(),
            });
        }
        let place = match place.trim_end_matches('/') {
            "" if place.starts_with('/') => "/",
            place => place,
        };
        if place.is_empty() && kind != TierKind::Actions {
            return Err(TierAddressError::Place {
                address: text.to_owned(),
            });
        }
        let settings = query.split('&').filter(|setting| !setting.is_empty());
        let settings = settings.map(|setting| {
            let pair = setting.split_once('=');
            let pair = pair.and_then(|(name, value)| Some((decoded(name)?, decoded(value)?)));
            pair.ok_or_else(|| TierAddressError::Setting {
                setting: setting.to_owned(),
            })
        });
        Ok(Self {
            kind,
            scheme,
            place: place.to_owned(),
            settings: settings.collect::<Result<_, _>>()?,
        })
    }
}

/// `text` without its percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                *hex::decode(digits).ok()?.first()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

impl fmt::Display for TierAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let address: TierAddress =
            "s3://bucket/a/b/?region=eu-west-1&endpoint=http%3A%2F%2F[::1]:9"
                .parse()
                .unwrap();
        assert_eq!(
            (address.kind, address.place.as_str()),
            (TierKind::S3, "bucket/a/b")
        );
        assert_eq!(address.setting("region"), Some("eu-west-1"));
        assert_eq!(address.setting("endpoint"), Some("http://[::1]:9"));
        assert_eq!(address.setting("other"), None);
        assert_eq!(address.to_string(), "s3://bucket/a/b");
        let read = |text: &str| text.parse::<TierAddress>().map(|a| (a.kind, a.place));
        assert_eq!(
            read("HTTPS://c.example/team"),
            Ok((TierKind::Server, "c.example/team".to_owned()))
        );
        assert_eq!(
            read("file:///srv/cache"),
            Ok((TierKind::Directory, "/srv/cache".to_owned()))
        );
        assert_eq!(read("gha://"), Ok((TierKind::Actions, String::new())));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let error = |text: &str| text.parse::<TierAddress>().unwrap_err();
        assert!(matches!(
            error("cache.example"),
            TierAddressError::Scheme { .. }
        ));
        assert!(matches!(
            error("ftp://cache.example"),
            TierAddressError::Scheme { .. }
        ));
        assert!(matches!(error("oci://"), TierAddressError::Place { .. }));
        assert!(matches!(
            error("s3://b?region"),
            TierAddressError::Setting { .. }
        ));
        assert!(matches!(
            error("s3://b?a=%zz"),
            TierAddressError::Setting { .. }
        ));
        let error = error("https://user:hunter2@cache.example/x");
        assert!(matches!(&error, TierAddressError::Credentials { .. }));
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
