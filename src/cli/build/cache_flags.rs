//! `--cache-from` and `--cache-to`: addresses of remote caches, and what `docker buildx build` takes
//! there, `type=TYPE,NAME=VALUE,…` or the name of an image.
//!
//! A type becomes the address of the kind of cache that lies in the same place. Nothing is
//! compatible with what BuildKit keeps there: only the place is the same.

use crate::{
    cache::{TierAddress, TierKind},
    cli::CliError,
    dockerfile::{csv_fields, nearest},
    fs,
    oci::reference::{Reference, Repository},
};

/// Attributes of any type that mean something to BuildKit and nothing here: all results are kept,
/// in our own format, and no trouble with a cache ends a build.
const ANYWHERE: &[&str] = &[
    "mode",
    "ignore-error",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "image-manifest",
    "name",
    "timeout",
];

/// The types that we have, with the attributes that are read and those that are ignored besides
/// [`ANYWHERE`].
const TYPES: &[(&str, &[&str], &[&str])] = &[
    ("registry", &["ref"], &["registry.insecure"]),
    (
        "s3",
        &[
            "bucket",
            "region",
            "endpoint_url",
            "prefix",
            "use_path_style",
        ],
        &[
            "blobs_prefix",
            "manifests_prefix",
            "upload_parallelism",
            "touch_refresh",
        ],
    ),
    (
        "azblob",
        &["container", "account_url", "prefix"],
        &["blobs_prefix", "manifests_prefix", "account_name"],
    ),
    (
        "gha",
        &[],
        &[
            "scope",
            "url",
            "url_v2",
            "token",
            "version",
            "repository",
            "ghtoken",
        ],
    ),
    ("local", &["src", "dest"], &["tag", "digest"]),
];

/// Attributes that hold credentials, and where those belong.
const CREDENTIALS: &[(&str, &str)] = &[
    ("access_key_id", "AWS_ACCESS_KEY_ID"),
    ("secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ("session_token", "AWS_SESSION_TOKEN"),
];

/// The container that BuildKit takes where none is named.
const CONTAINER: &str = "buildkit-cache";

/// A remote cache as a flag names it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedCache {
    pub(super) address: TierAddress,
    /// Attributes without a meaning here.
    pub(super) ignored: Vec<String>,
}

/// The cache that `text`, a value of `flag`, names.
pub(super) fn parse(flag: &'static str, text: &str) -> Result<NamedCache, CliError> {
    if text.contains("://") && !text.starts_with("type=") {
        let address = text
            .parse::<TierAddress>()
            .map_err(|error| CliError::usage(format!("`{flag}`: {error}")))?;
        return Ok(NamedCache {
            address,
            ignored: Vec::new(),
        });
    }
    let fields = csv_fields(text);
    // A name alone is that of an image.
    if let [name] = fields.as_slice()
        && !name.contains('=')
    {
        return Ok(NamedCache {
            address: registry(flag, name)?,
            ignored: Vec::new(),
        });
    }
    let mut attributes = Vec::new();
    for field in &fields {
        let Some((name, value)) = field.split_once('=') else {
            return Err(CliError::usage_hint(
                format!("`{field}` in `{flag} {text}` is not `NAME=VALUE`"),
                format!("write `{flag} type=registry,ref=IMAGE`, or the address of a cache"),
            ));
        };
        attributes.push((name.trim().to_ascii_lowercase(), value.to_owned()));
    }
    Attributes { flag, attributes }.named()
}

/// The attributes of one flag.
struct Attributes {
    flag: &'static str,
    attributes: Vec<(String, String)>,
}

impl Attributes {
    fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.attributes.iter().filter(|(known, _)| known == name);
        let value = found.next_back().map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }

    fn need(&self, kind: &str, name: &str) -> Result<&str, CliError> {
        self.get(name)
            .ok_or_else(|| CliError::usage(format!("`{} type={kind}` has no `{name}`", self.flag)))
    }

    fn named(&self) -> Result<NamedCache, CliError> {
        let flag = self.flag;
        let Some(kind) = self.get("type") else {
            return Err(CliError::usage_hint(
                format!("`{flag}` has no type"),
                format!("start it with `type=`: {}", types()),
            ));
        };
        let Some((_, read, ignored)) = TYPES.iter().find(|(name, ..)| *name == kind) else {
            let hint = match kind {
                "inline" => "the results of steps are not kept in images here; name a repository \
                     beside the image's with `type=registry,ref=NAME`"
                    .to_owned(),
                kind => match nearest(kind, TYPES.iter().map(|(name, ..)| *name)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("it is one of {}", types()),
                },
            };
            let message = format!("`{kind}` is not a type of `{flag}`");
            return Err(CliError::usage_hint(message, hint));
        };
        let mut without_meaning = Vec::new();
        for (name, _) in &self.attributes {
            let name = name.as_str();
            if name == "type" || read.contains(&name) {
                continue;
            }
            if let Some((_, variable)) = CREDENTIALS.iter().find(|(known, _)| *known == name) {
                return Err(CliError::usage_hint(
                    format!("`{name}` in `{flag}` would show credentials to all who see processes"),
                    match kind {
                        "s3" => format!("set `{variable}` in the environment"),
                        _ => "set the variables of the service in the environment".to_owned(),
                    },
                ));
            }
            // One that nobody knows may be new there; a misspelt one is a mistake.
            if !ANYWHERE.contains(&name)
                && !ignored.contains(&name)
                && let Some(near) = nearest(name, read.iter().copied())
            {
                return Err(CliError::usage_hint(
                    format!("`{name}` is not an attribute of `{flag} type={kind}`"),
                    format!("did you mean `{near}`?"),
                ));
            }
            without_meaning.push(name.to_owned());
        }
        Ok(NamedCache {
            address: self.address(kind)?,
            ignored: without_meaning,
        })
    }

    fn address(&self, kind: &str) -> Result<TierAddress, CliError> {
        let settings = |pairs: &[(&str, &str)]| {
            let set = pairs.iter().filter_map(|(ours, theirs)| {
                Some(((*ours).to_owned(), self.get(theirs)?.to_owned()))
            });
            set.collect::<Vec<_>>()
        };
        let below = |root: &str| match self.get("prefix").map(|prefix| prefix.trim_matches('/')) {
            None | Some("") => root.to_owned(),
            Some(prefix) => format!("{root}/{prefix}"),
        };
        let address = |kind, scheme: &str, place, settings| TierAddress {
            kind,
            scheme: scheme.to_owned(),
            place,
            settings,
        };
        Ok(match kind {
            "registry" => registry(self.flag, self.need(kind, "ref")?)?,
            "s3" => address(
                TierKind::S3,
                "s3",
                below(self.need(kind, "bucket")?),
                settings(&[
                    ("region", "region"),
                    ("endpoint", "endpoint_url"),
                    ("path-style", "use_path_style"),
                ]),
            ),
            "azblob" => address(
                TierKind::Azure,
                "azblob",
                below(self.get("container").unwrap_or(CONTAINER)),
                settings(&[("endpoint", "account_url")]),
            ),
            "gha" => address(TierKind::Actions, "gha", String::new(), Vec::new()),
            // `src` is where `--cache-from` reads, `dest` where `--cache-to` writes.
            _ => {
                let name = match self.flag {
                    "--cache-to" => "dest",
                    _ => "src",
                };
                let dir = fs::absolute(self.need(kind, name)?)?;
                let place = dir.to_string_lossy().into_owned();
                address(TierKind::Directory, "file", place, Vec::new())
            }
        })
    }
}

/// The repository of an image as the place of a cache; tag and digest say nothing here.
fn registry(flag: &str, text: &str) -> Result<TierAddress, CliError> {
    let reference: Reference = text
        .parse()
        .map_err(|error| CliError::usage(format!("`{flag}`: {error}")))?;
    let Repository { host, path } = &reference.repository;
    Ok(TierAddress {
        kind: TierKind::Registry,
        scheme: "oci".to_owned(),
        place: format!("{host}/{path}"),
        settings: Vec::new(),
    })
}

fn types() -> String {
    let names = TYPES.iter().map(|(name, ..)| format!("`{name}`"));
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, String, Vec<String>) {
        let named = parse("--cache-from", text).unwrap();
        let settings = named.address.settings.iter();
        let settings = settings.map(|(name, value)| format!("{name}={value}"));
        (
            named.address.to_string(),
            settings.collect::<Vec<_>>().join("&"),
            named.ignored,
        )
    }

    #[test]
    fn what_buildx_takes() {
        let plain = |address: &str| (address.to_owned(), String::new(), Vec::new());
        assert_eq!(
            read("type=registry,ref=registry.example/team/app:cache"),
            plain("oci://registry.example/team/app")
        );
        assert_eq!(read("acme/app"), plain("oci://docker.io/acme/app"));
        assert_eq!(read("type=gha"), plain("gha://"));
        assert_eq!(
            read("type=local,src=/srv/cache"),
            plain("file:///srv/cache")
        );
        assert_eq!(
            read("oci://registry.example/team/app"),
            plain("oci://registry.example/team/app")
        );
        assert_eq!(
            read(
                "type=s3,bucket=b,region=eu-west-1,endpoint_url=http://127.0.0.1:9/,prefix=a/b/,\
                 use_path_style=true,mode=max,name=app"
            ),
            (
                "s3://b/a/b".to_owned(),
                "region=eu-west-1&endpoint=http://127.0.0.1:9/&path-style=true".to_owned(),
                vec!["mode".to_owned(), "name".to_owned()]
            )
        );
        assert_eq!(
            read("type=azblob,account_url=https://a.blob.example"),
            (
                "azblob://buildkit-cache".to_owned(),
                "endpoint=https://a.blob.example".to_owned(),
                Vec::new()
            )
        );
        let to = parse("--cache-to", "type=local,dest=/srv/cache,mode=max").unwrap();
        assert_eq!(to.address.to_string(), "file:///srv/cache");
    }

    #[test]
    fn what_is_refused() {
        for (text, says) in [
            ("type=inline", "`inline` is not a type of `--cache-from`"),
            ("type=regstry", "`regstry` is not a type of `--cache-from`"),
            ("ref=a/b,mode=max", "`--cache-from` has no type"),
            ("type=registry", "`--cache-from type=registry` has no `ref`"),
            (
                "type=local,dest=/x",
                "`--cache-from type=local` has no `src`",
            ),
            (
                "type=s3,buckt=x",
                "`buckt` is not an attribute of `--cache-from type=s3`",
            ),
            (
                "type=s3,bucket=b,secret_access_key=hunter2",
                "`secret_access_key` in `--cache-from` would show credentials to all who see processes",
            ),
            (
                "type=gha,scope",
                "`scope` in `--cache-from type=gha,scope` is not `NAME=VALUE`",
            ),
        ] {
            let error = parse("--cache-from", text).unwrap_err();
            assert_eq!(error.to_string(), says);
        }
        for text in ["ftp://x/y", "Not An Image", "oci://"] {
            assert!(parse("--cache-to", text).is_err(), "{text}");
        }
    }
}
