//! The form of `memobuild.yml`, version 1.
//!
//! The doc comments here are what editors show: they become the descriptions of the
//! JSON schema and of `docs/reference/configuration.md`.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use super::{
    at::{At, Entries, Place, Scalar},
    remote::{Remotes, Texts, Write},
};

/// The layers of an image, the variants they are built in, and how.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(title = "memobuild.yml")]
pub(super) struct File {
    /// Version of this format.
    #[schemars(extend("const" = 1))]
    pub(super) version: At<u64>,
    /// Name of the image, without a tag: `service` or `registry.example/team/service`.
    /// Needed, but where `bake` stands.
    pub(super) image: Option<At<String>>,
    /// The layer targets by name. Each is one Dockerfile, built alone or on another layer.
    /// Needed, but where `bake` stands.
    #[schemars(with = "Option<Entries<Layer>>", extend("minProperties" = 1))]
    pub(super) layers: Option<At<Entries<Layer>>>,
    /// Bake or compose files whose targets are built, in place of layers: the path of one, a
    /// list of paths, or a mapping.
    pub(super) bake: Option<At<BakeForm>>,
    /// The variants by name; every layer is built in every variant. Without any there is
    /// one, called `default`, for the platform of the host.
    pub(super) variants: Option<Entries<Variant>>,
    /// The local cache, and the caches behind it that machines share.
    pub(super) cache: Option<Cache>,
    /// How to build. A flag on the command line goes before what stands here.
    pub(super) build: Option<Build>,
}

/// Bake or compose files, and which of their targets to build.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Bake {
    /// The files, from the directory of `memobuild.yml`; later ones win. A directory stands for
    /// the files in it that have one of the usual names.
    #[schemars(with = "Vec<String>", extend("minItems" = 1))]
    pub(super) files: At<Vec<At<String>>>,
    /// The targets and groups. Default: `default`
    pub(super) targets: Option<Vec<String>>,
}

/// [`Bake`], or its files alone.
#[derive(Debug)]
pub(super) struct BakeForm(pub(super) Bake);

impl BakeForm {
    /// All targets that are built by default.
    fn of(files: Vec<At<String>>) -> Self {
        let place = Place::default();
        let files = At {
            value: files,
            place,
        };
        Self(Bake {
            files,
            targets: None,
        })
    }
}

impl<'de> Deserialize<'de> for BakeForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = BakeForm;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, a list of paths, or a mapping")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<BakeForm, E> {
                let place = Place::default();
                let value = path.to_owned();
                Ok(BakeForm::of(vec![At { value, place }]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<BakeForm, A::Error> {
                let mut files = Vec::new();
                while let Some(file) = seq.next_element()? {
                    files.push(file);
                }
                Ok(BakeForm::of(files))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BakeForm, A::Error> {
                Bake::deserialize(MapAccessDeserializer::new(map)).map(BakeForm)
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl JsonSchema for BakeForm {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "BakeForm".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mapping = generator.subschema_for::<Bake>();
        let path = json_schema!({"type": "string"});
        let paths = json_schema!({"type": "array", "items": path.clone(), "minItems": 1});
        json_schema!({"anyOf": [path, paths, mapping]})
    }
}

/// One layer target.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Layer {
    /// Path of the Dockerfile, from the directory of `memobuild.yml`. `{variant}`,
    /// `{layer}` and `{arch}` (`amd64`, `arm64`, …) are replaced.
    pub(super) dockerfile: At<String>,
    /// Path of the build context, with the same replacements. Default: `.`
    pub(super) context: Option<At<String>>,
    /// The layer this one is built on. Its result becomes the value of the argument
    /// that `base-arg` names.
    pub(super) from: Option<At<String>>,
    /// The `ARG` before the first `FROM` that stands for the layer in `from`. Default:
    /// `BASE_IMAGE`
    pub(super) base_arg: Option<At<String>>,
    /// Build arguments.
    pub(super) args: Option<Entries<At<Scalar>>>,
    /// The stage to build. Default: the last one.
    pub(super) target: Option<At<String>>,
    /// When the layer's RUN steps are executed anew although nothing they are made from has
    /// changed: once their results are so old. What is built on it follows where it gave something else.
    pub(super) refresh: Option<Refresh>,
}

/// A set of platforms, with what is different there.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Variant {
    /// The platforms, each `os/arch` or `os/arch/variant`. Default: the host's.
    #[schemars(with = "Option<Vec<String>>", extend("minItems" = 1))]
    pub(super) platforms: Option<At<Vec<At<String>>>>,
    /// Build arguments for all layers, over those of the layer.
    pub(super) args: Option<Entries<At<Scalar>>>,
    /// What is different for single layers, by the layer's name.
    pub(super) layers: Option<Entries<Override>>,
}

/// What a variant changes in a layer. What is not given stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Override {
    /// Another Dockerfile.
    pub(super) dockerfile: Option<At<String>>,
    /// Another build context.
    pub(super) context: Option<At<String>>,
    /// Build arguments, over those of the layer and of the variant.
    pub(super) args: Option<Entries<At<Scalar>>>,
    /// Another stage.
    pub(super) target: Option<At<String>>,
    /// Another refresh policy.
    pub(super) refresh: Option<Refresh>,
}

/// When something is built anew although nothing it is made from has changed: what it
/// downloads may have.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Refresh {
    /// Not at all.
    Never,
    /// When it is older than 1 day.
    Daily,
    /// When it is older than 7 days.
    Weekly,
    /// When it is older than so much: `12h`, `7d`, `2w`.
    MaxAge(At<String>),
}

/// The local cache (layer blobs, results of steps, unpacked layers), and the remote caches behind it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Cache {
    /// Its directory, from the directory of `memobuild.yml`. `MEMOBUILD_CACHE_DIR` goes
    /// before it. Default: `$XDG_CACHE_HOME/memobuild-ci`
    pub(super) dir: Option<At<String>>,
    /// The size above which the least recently used is removed: `10GB`, `10GiB`.
    pub(super) max_size: Option<At<String>>,
    /// The age since its last use at which an entry is removed: `30d`.
    pub(super) max_age: Option<At<String>>,
    /// Remote caches, the first asked first: `https://cache.example`, `oci://registry.example/team/cache`,
    /// `s3://bucket/prefix?region=eu-west-1`, `gs://bucket/prefix`, `azblob://container/prefix`, `file:///srv/cache`,
    /// `gha://`. `--cache-from` and `--cache-to` go before them, then `MEMOBUILD_REMOTE_URL`.
    pub(super) remote: Option<At<Remotes>>,
    /// The trust scope that builds write under: `branch/<name>`, `pull/<number>`, `local`. `--cache-scope` and
    /// `MEMOBUILD_CACHE_SCOPE` go before it. Default: what the CI platform says about the build.
    pub(super) scope: Option<At<String>>,
    /// Scopes to read besides `protected` and the own one; those that are not trusted more than the own one
    /// are left out.
    pub(super) also_read: Option<Vec<At<String>>>,
    /// The private key that signs what builds save. `MEMOBUILD_SIGNING_KEY` goes before it.
    pub(super) sign: Option<Sign>,
    /// Whose entries in remote caches are relied on.
    pub(super) trust: Option<Trust>,
    /// How long a build waits at its end for what is still being saved. Default: `60s`
    pub(super) save_timeout: Option<At<String>>,
    /// The trees of `RUN --mount=type=cache`.
    pub(super) mounts: Option<Mounts>,
    /// A PEM file, from the directory of `memobuild.yml`, with certificate authorities to trust besides the
    /// system's, for remote caches, registries and URLs. `MEMOBUILD_CA_CERTIFICATES` adds to it.
    pub(super) ca_certificates: Option<At<String>>,
}

/// A remote cache, and what builds may do with it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Remote {
    /// Its address.
    pub(super) url: At<String>,
    /// Whether it is read. Default: `true`
    pub(super) read: Option<bool>,
    /// Whether results are saved there. `auto` is all builds but those of a pull request from a fork and those on
    /// an unknown CI platform. Default: `auto`
    pub(super) write: Option<Write>,
}

/// Where the private key is: Ed25519, PKCS#8, PEM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Sign {
    /// In the environment variable of this name. Where it is not set, nothing is signed.
    KeyEnv(String),
    /// In this file, from the directory of `memobuild.yml`. Where it is missing, nothing is signed and a build warns.
    KeyFile(String),
}

/// Which signatures are known, and where they are needed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Trust {
    /// Public keys: files, from the directory of `memobuild.yml`, or the keys themselves as PEM or the base64 in it.
    /// Besides them counts the public half of the key that signs, and `MEMOBUILD_TRUSTED_KEYS`.
    pub(super) keys: Option<At<Texts>>,
    /// The scopes whose entries must be signed by one of the keys: `protected`, `branch/*`, `pull/*`, a single
    /// scope, `*`. Default: `protected`, where there are keys.
    pub(super) require: Option<Vec<At<String>>>,
}

/// The trees of `RUN --mount=type=cache` and remote caches.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Mounts {
    /// Whether a tree that is not on the machine is restored from the remote caches, and saved there by builds
    /// that changed it. Everybody who reads the caches can read it. `--cache-mounts` and `MEMOBUILD_CACHE_MOUNTS` go
    /// before it. Default: `false`
    pub(super) save: Option<bool>,
    /// The size above which a tree is neither saved nor restored, that of a tar of it: `2GB`. Default: `512MiB`
    pub(super) max_size: Option<At<String>>,
}

/// Defaults for builds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Build {
    /// The network of `RUN` steps. Default: `host`
    pub(super) network: Option<Network>,
    /// Certificate authorities to show to `RUN` steps beside the image's own: `host`, or
    /// the path of a PEM file. They enter no layer and no key.
    pub(super) ca_certificates: Option<At<String>>,
    /// Compression of new layers. Default: `zstd`
    pub(super) compression: Option<Compression>,
    /// Seconds since 1970 that all times in the image are clamped to, unless
    /// `SOURCE_DATE_EPOCH` is set in the environment.
    pub(super) source_date_epoch: Option<At<u64>>,
    /// Steps that run at the same time. Default: the number of processors.
    #[schemars(extend("minimum" = 1))]
    pub(super) jobs: Option<At<u64>>,
}

/// The network of `RUN` steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The host's.
    #[default]
    Host,
    /// Only a loopback device of its own.
    None,
}

/// The compression of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Zstandard: quick, small; needs a consumer from 2020 or later.
    #[default]
    Zstd,
    /// Gzip: understood by every consumer.
    Gzip,
}
