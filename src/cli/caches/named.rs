//! `--cache-from` and `--cache-to`, as flags and as attributes of bake targets: addresses of remote
//! caches, and what buildx takes there, `type=TYPE,NAME=VALUE,…` or the name of an image.
//!
//! A type becomes the address of the kind of cache that lies in the same place. Nothing is
//! compatible with what BuildKit keeps there: only the place is the same.

use super::{CachesError, Origin};
use crate::{
    bake::CacheEntry,
    cache::{TierAddress, TierKind},
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

/// A remote cache as somebody names it.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Named<'a> {
    origin: Origin,
    writes: bool,
    form: Form<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Form<'a> {
    Text(&'a str),
    Entry(&'a CacheEntry),
}

/// Where a cache is, and what was said of it that has no meaning here.
type Place = (Option<TierAddress>, Vec<String>);

impl<'a> Named<'a> {
    /// A value of a flag that names a cache to read.
    pub(in crate::cli) fn read(flag: &'static str, text: &'a str) -> Self {
        Self {
            origin: Origin::Flag(flag),
            writes: false,
            form: Form::Text(text),
        }
    }

    /// A value of a flag that names a cache to save in.
    pub(in crate::cli) fn written(flag: &'static str, text: &'a str) -> Self {
        Self {
            writes: true,
            ..Self::read(flag, text)
        }
    }

    /// A cache in `cache-from` of a bake target, or in `cache-to`.
    pub(in crate::cli) fn of_target(entry: &'a CacheEntry, writes: bool) -> Self {
        Self {
            origin: Origin::Target(if writes { "cache-to" } else { "cache-from" }),
            writes,
            form: Form::Entry(entry),
        }
    }

    /// Who names it.
    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether it is to be saved in, and not read.
    pub(super) fn writes(&self) -> bool {
        self.writes
    }

    /// Where it is; none where it has no place of its own.
    pub(super) fn place(&self) -> Result<Place, CachesError> {
        let text = match self.form {
            Form::Text(text) => text,
            Form::Entry(entry) => return self.entry(entry),
        };
        if text.contains("://") && !text.starts_with("type=") {
            return Ok((Some(self.address(text)?), Vec::new()));
        }
        let fields = csv_fields(text);
        // A name alone is that of an image.
        if let [name] = fields.as_slice()
            && !name.contains('=')
        {
            return Ok((Some(registry(self.origin, name)?), Vec::new()));
        }
        let mut attributes = Vec::new();
        for field in &fields {
            let Some((name, value)) = field.split_once('=') else {
                let (of, flag) = (self.origin.with(text), self.origin.name());
                return Err(self.origin.wrong(
                    format!("`{field}` in {of} is not `NAME=VALUE`"),
                    Some(format!(
                        "write `{flag} type=registry,ref=IMAGE`, or the address of a cache"
                    )),
                ));
            };
            attributes.push((name.trim().to_ascii_lowercase(), value.to_owned()));
        }
        self.attributes(attributes).named()
    }

    /// That of a bake target, where a name alone has become that of an image already.
    fn entry(&self, entry: &CacheEntry) -> Result<Place, CachesError> {
        match (entry.kind.as_str(), entry.attrs.get("ref")) {
            ("registry", Some(text)) if text.contains("://") && entry.attrs.len() == 1 => {
                return Ok((Some(self.address(text)?), Vec::new()));
            }
            // Files say so beside caches that have a place; it is nothing to stop for.
            ("inline", _) => return Ok((None, vec!["type=inline".to_owned()])),
            _ => {}
        }
        let attributes = entry.attrs.iter();
        let kind = ("type".to_owned(), entry.kind.clone());
        let attributes = attributes.map(|(name, value)| (name.clone(), value.clone()));
        let attributes = std::iter::once(kind).chain(attributes);
        self.attributes(attributes.collect()).named()
    }

    fn address(&self, text: &str) -> Result<TierAddress, CachesError> {
        let origin = self.origin;
        text.parse()
            .map_err(|error| origin.wrong(format!("{origin}: {error}"), None))
    }

    fn attributes(&self, attributes: Vec<(String, String)>) -> Attributes {
        Attributes {
            origin: self.origin,
            writes: self.writes,
            attributes,
        }
    }
}

impl Origin {
    /// The bare name.
    fn name(self) -> &'static str {
        match self {
            Self::Flag(name) | Self::Variable(name) | Self::Setting(name) | Self::Target(name) => {
                name
            }
        }
    }

    /// The name with a value, for messages.
    fn with(self, value: &str) -> String {
        match self {
            Self::Flag(name) => format!("`{name} {value}`"),
            _ => format!("`{value}` in {self}"),
        }
    }

    fn wrong(self, message: String, hint: Option<String>) -> CachesError {
        CachesError::Named {
            origin: self,
            message,
            hint,
        }
    }
}

/// The attributes of one cache.
struct Attributes {
    origin: Origin,
    writes: bool,
    attributes: Vec<(String, String)>,
}

impl Attributes {
    fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.attributes.iter().filter(|(known, _)| known == name);
        let value = found.next_back().map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }

    fn need(&self, kind: &str, name: &str) -> Result<&str, CachesError> {
        self.get(name).ok_or_else(|| {
            let of = self.origin.with(&format!("type={kind}"));
            self.origin.wrong(format!("{of} has no `{name}`"), None)
        })
    }

    fn named(&self) -> Result<Place, CachesError> {
        let origin = self.origin;
        let Some(kind) = self.get("type") else {
            return Err(origin.wrong(
                format!("{origin} has no type"),
                Some(format!("start it with `type=`: {}", types())),
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
            let message = format!("`{kind}` is not a type of {origin}");
            return Err(origin.wrong(message, Some(hint)));
        };
        let mut without_meaning = Vec::new();
        for (name, _) in &self.attributes {
            let name = name.as_str();
            if name == "type" || read.contains(&name) {
                continue;
            }
            if let Some((_, variable)) = CREDENTIALS.iter().find(|(known, _)| *known == name) {
                let who = match origin {
                    Origin::Target(_) => "the file",
                    _ => "processes",
                };
                return Err(origin.wrong(
                    format!("`{name}` in {origin} would show credentials to all who see {who}"),
                    Some(match kind {
                        "s3" => format!("set `{variable}` in the environment"),
                        _ => "set the variables of the service in the environment".to_owned(),
                    }),
                ));
            }
            // One that nobody knows may be new there; a misspelt one is a mistake.
            if !ANYWHERE.contains(&name)
                && !ignored.contains(&name)
                && let Some(near) = nearest(name, read.iter().copied())
            {
                let of = origin.with(&format!("type={kind}"));
                return Err(origin.wrong(
                    format!("`{name}` is not an attribute of {of}"),
                    Some(format!("did you mean `{near}`?")),
                ));
            }
            without_meaning.push(name.to_owned());
        }
        Ok((Some(self.address(kind)?), without_meaning))
    }

    fn address(&self, kind: &str) -> Result<TierAddress, CachesError> {
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
            "registry" => registry(self.origin, self.need(kind, "ref")?)?,
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
                let name = if self.writes { "dest" } else { "src" };
                let dir = self.need(kind, name)?;
                let origin = self.origin;
                let dir = fs::absolute(dir)
                    .map_err(|source| CachesError::Directory { origin, source })?;
                let place = dir.to_string_lossy().into_owned();
                address(TierKind::Directory, "file", place, Vec::new())
            }
        })
    }
}

/// The repository of an image as the place of a cache; tag and digest say nothing here.
fn registry(origin: Origin, text: &str) -> Result<TierAddress, CachesError> {
    let reference: Reference = text
        .parse()
        .map_err(|error| origin.wrong(format!("{origin}: {error}"), None))?;
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
        let (address, ignored) = Named::read("--cache-from", text).place().unwrap();
        let address = address.unwrap();
        let settings = address.settings.iter();
        let settings = settings.map(|(name, value)| format!("{name}={value}"));
        (
            address.to_string(),
            settings.collect::<Vec<_>>().join("&"),
            ignored,
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
        let to = Named::written("--cache-to", "type=local,dest=/srv/cache,mode=max");
        let (address, _) = to.place().unwrap();
        assert_eq!(address.unwrap().to_string(), "file:///srv/cache");
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
            let error = Named::read("--cache-from", text).place().unwrap_err();
            assert_eq!(error.to_string(), says);
        }
        for text in ["ftp://x/y", "Not An Image", "oci://"] {
            assert!(
                Named::written("--cache-to", text).place().is_err(),
                "{text}"
            );
        }
    }

    fn entry(kind: &str, attrs: &[(&str, &str)]) -> CacheEntry {
        let owned = attrs.iter();
        let owned = owned.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        CacheEntry {
            kind: kind.to_owned(),
            attrs: owned.collect(),
        }
    }

    #[test]
    fn what_bake_targets_say() {
        let place = |entry: &CacheEntry, writes| Named::of_target(entry, writes).place();
        let address = |kind, attrs: &[(&str, &str)], writes| {
            let (address, ignored) = place(&entry(kind, attrs), writes).unwrap();
            (address.map(|address| address.to_string()), ignored)
        };
        let at = |text: &str| (Some(text.to_owned()), Vec::new());
        assert_eq!(
            address("registry", &[("ref", "acme/app:cache")], false),
            at("oci://docker.io/acme/app")
        );
        assert_eq!(
            address("registry", &[("ref", "https://cache.example/team")], true),
            at("https://cache.example/team")
        );
        assert_eq!(address("local", &[("dest", "/x")], true), at("file:///x"));
        assert_eq!(
            address("gha", &[("scope", "app"), ("mode", "max")], true),
            (
                Some("gha://".to_owned()),
                vec!["mode".to_owned(), "scope".to_owned()]
            )
        );
        assert_eq!(
            address("inline", &[], true),
            (None, vec!["type=inline".to_owned()])
        );
        for (kind, attrs, says) in [
            (
                "s3",
                &[("region", "x")][..],
                "`type=s3` in `cache-to` of the bake file has no `bucket`",
            ),
            (
                "gh",
                &[],
                "`gh` is not a type of `cache-to` of the bake file",
            ),
            (
                "s3",
                &[("bucket", "b"), ("secret_access_key", "hunter2")],
                "`secret_access_key` in `cache-to` of the bake file would show credentials to all who see the file",
            ),
        ] {
            let error = place(&entry(kind, attrs), true).unwrap_err();
            assert_eq!(error.to_string(), says);
            assert!(!error.is_usage());
        }
    }
}
