//! What a build has besides the local store: tiers, trust scopes and keys, from flags, environment,
//! configuration and the CI platform, in this order.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use super::{BuildArgs, cache_flags};
use crate::{
    cache::{
        Access, ActionResult, Producer, Scope, ScopeError, SearchOrder, Tier, TierAddress,
        TierAddressError, Vouching,
        open::{self, OpenError, TierOptions},
        trust::{self, KeyError, Keyring, PublicKey, ScopePattern, Signer},
    },
    ci::{self, ScopeRefused},
    cli::{CliError, Context},
    config::{CacheSettings, SigningKey, TrustedKey, Write, env, units},
    event::{BuildEvent, Events},
    fs::{self, FsError},
    registry::Registry,
};

/// How long a build waits at its end where nobody says it.
const SAVE_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes up to which the tree of a cache mount is saved and restored where nobody says it.
const MOUNT_LIMIT: u64 = 512 << 20;

/// The caches of a build besides the local store, and how they are used.
#[derive(Debug)]
pub(in crate::cli) struct Caches {
    /// The tiers, the first asked first.
    pub(in crate::cli) tiers: Vec<Tier>,
    /// What is relied on and how what is saved is signed.
    pub(in crate::cli) vouching: Vouching,
    pub(in crate::cli) scopes: SearchOrder,
    pub(super) producer: Producer,
    /// How long to wait at the end for what is being saved.
    pub(super) save_timeout: Duration,
    /// Bytes up to which the trees of cache mounts are saved and restored, if they are.
    pub(super) mount_limit: Option<u64>,
}

/// Who says something about caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Origin {
    Flag(&'static str),
    Variable(&'static str),
    Setting(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => write!(f, "`{name}`"),
            Self::Setting(name) => write!(f, "`{name}` of the configuration"),
        }
    }
}

/// Settings of caches that make no sense. Trouble with a cache is none of these.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum CachesError {
    #[error("{origin} names no cache")]
    Address {
        origin: Origin,
        source: TierAddressError,
    },
    #[error("{origin} names no trust scope")]
    Scope { origin: Origin, source: ScopeError },
    #[error("{origin}: the scope is not allowed")]
    Refused {
        origin: Origin,
        source: ScopeRefused,
    },
    #[error("{origin} names a cache that can't be used")]
    Open {
        origin: Origin,
        source: Box<OpenError>,
    },
    #[error("{origin} is no key")]
    Key { origin: Origin, source: KeyError },
    #[error("{origin} names a key that can't be read")]
    KeyFile { origin: Origin, source: FsError },
    #[error("`cache.trust.require` demands signatures, and no public key is known")]
    NoKeys,
}

impl CachesError {
    /// Whether the command line is wrong, and not what it stands in.
    pub(in crate::cli) fn is_usage(&self) -> bool {
        match self {
            Self::Address { origin, .. }
            | Self::Scope { origin, .. }
            | Self::Refused { origin, .. }
            | Self::Open { origin, .. }
            | Self::Key { origin, .. }
            | Self::KeyFile { origin, .. } => matches!(origin, Origin::Flag(_)),
            Self::NoKeys => false,
        }
    }

    pub(in crate::cli) fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { source, .. } => Some(source.hint().to_owned()),
            Self::Open { source, .. } => source.hint(),
            Self::Key { source, .. } => Some(source.hint().to_owned()),
            Self::NoKeys => {
                Some("name them in `cache.trust.keys`, or in `MEMOBUILD_TRUSTED_KEYS`".to_owned())
            }
            Self::Address { .. } | Self::Scope { .. } | Self::KeyFile { .. } => None,
        }
    }
}

/// A tier that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    address: TierAddress,
    read: bool,
    write: Write,
    origin: Origin,
}

/// Finds out what the build has. Opens the tiers, which talks to nobody.
pub(in crate::cli) fn caches(
    context: &Context,
    args: &BuildArgs,
    settings: &CacheSettings,
    registry: &Arc<Registry>,
    events: &Events,
) -> Result<Caches, CliError> {
    let ci = ci::detect(&context.env);
    let (scope, origin) = scope(context, args, settings)?;
    let setting = Origin::Setting("cache.also-read");
    let also = settings
        .also_read
        .iter()
        .map(|text| read_scope(setting, text));
    let also: Vec<Scope> = also.collect::<Result<_, _>>()?;
    let scopes = ci
        .scopes(scope, also)
        .map_err(|source| CachesError::Refused { origin, source })?;
    let (signer, warning) = signer(context, settings)?;
    if let Some(warning) = warning {
        events.warn(warning, None);
    }
    let keyring = trusted(context, settings, signer.as_ref())?;
    let wanted = match args.no_remote_cache {
        true => Vec::new(),
        false => wanted(context, args, settings, events)?,
    };
    let tiers = tiers(context, &wanted, scopes.saves, registry, events)?;
    if !tiers.is_empty() {
        events.send(BuildEvent::RemoteCaches {
            caches: tiers.iter().map(|tier| tier.name.clone()).collect(),
            platform: ci.platform.name().to_owned(),
            reads: names(scopes.order.scopes()),
            saves: match tiers.iter().any(|tier| tier.access.write) {
                true => Some(scopes.order.own().to_string()),
                false => None,
            },
            signed_by: signer.as_ref().map(|s| s.public().id().to_string()),
        });
    }
    Ok(Caches {
        tiers,
        vouching: vouching(keyring, signer),
        scopes: scopes.order,
        producer: ci.producer(),
        save_timeout: save_timeout(args, settings)?,
        mount_limit: settings
            .mounts
            .filter(|mounts| mounts.save)
            .map(|mounts| mounts.max_size.unwrap_or(MOUNT_LIMIT)),
    })
}

fn names(scopes: &[Scope]) -> Vec<String> {
    scopes.iter().map(Scope::to_string).collect()
}

/// Relies on what `keyring` accepts, and signs with `signer`.
fn vouching(keyring: Keyring, signer: Option<Signer>) -> Vouching {
    let check =
        move |entry: &ActionResult| keyring.accept(entry).map_err(|error| error.to_string());
    let vouching = Vouching::default().checking_with(check);
    match signer {
        Some(signer) => vouching.signing_with(move |entry| Some(signer.signature(entry))),
        None => vouching,
    }
}

/// The scope that somebody chose, and who.
fn scope(
    context: &Context,
    args: &BuildArgs,
    settings: &CacheSettings,
) -> Result<(Option<Scope>, Origin), CachesError> {
    let setting = Origin::Setting("cache.scope");
    let chosen = [
        (args.cache_scope.as_deref(), Origin::Flag("--cache-scope")),
        (
            context.env.cache_scope(),
            Origin::Variable("MEMOBUILD_CACHE_SCOPE"),
        ),
        (settings.scope.as_deref(), setting),
    ];
    for (text, origin) in chosen {
        if let Some(text) = text {
            return Ok((Some(read_scope(origin, text)?), origin));
        }
    }
    Ok((None, setting))
}

fn read_scope(origin: Origin, text: &str) -> Result<Scope, CachesError> {
    text.parse()
        .map_err(|source| CachesError::Scope { origin, source })
}

/// The tiers that are asked for, each once.
fn wanted(
    context: &Context,
    args: &BuildArgs,
    settings: &CacheSettings,
    events: &Events,
) -> Result<Vec<Wanted>, CliError> {
    let flags = [
        ("--cache-from", &args.cache_from, true, Write::No),
        ("--cache-to", &args.cache_to, false, Write::Auto),
    ];
    let mut all: Vec<Wanted> = Vec::new();
    for (flag, texts, read, write) in flags {
        for text in texts {
            let named = cache_flags::parse(flag, text)?;
            for attribute in &named.ignored {
                events.warn(format!("no effect: `{attribute}` in `{flag}`"), None);
            }
            match all.iter_mut().find(|w| w.address == named.address) {
                Some(known) => {
                    known.read |= read;
                    if known.write == Write::No {
                        known.write = write;
                    }
                }
                None => all.push(Wanted {
                    address: named.address,
                    read,
                    write,
                    origin: Origin::Flag(flag),
                }),
            }
        }
    }
    if !all.is_empty() {
        return Ok(all);
    }
    let address = |origin, text: &str| {
        text.parse()
            .map_err(|source| CachesError::Address { origin, source })
    };
    if let Some(urls) = context.env.remote_urls() {
        let origin = Origin::Variable("MEMOBUILD_REMOTE_URL");
        for url in urls {
            all.push(Wanted {
                address: address(origin, &url)?,
                read: true,
                write: Write::Auto,
                origin,
            });
        }
        return Ok(all);
    }
    let origin = Origin::Setting("cache.remote");
    for remote in &settings.remote {
        all.push(Wanted {
            address: address(origin, &remote.url)?,
            read: remote.read,
            write: remote.write,
            origin,
        });
    }
    Ok(all)
}

/// Opens the tiers. One that lacks something on this machine is left out with a warning.
fn tiers(
    context: &Context,
    wanted: &[Wanted],
    saves: bool,
    registry: &Arc<Registry>,
    events: &Events,
) -> Result<Vec<Tier>, CachesError> {
    let mut tiers = Vec::new();
    for want in wanted {
        let access = Access {
            read: want.read,
            write: match want.write {
                Write::Auto => saves,
                Write::Yes => true,
                Write::No => false,
            },
        };
        if !access.read && !access.write {
            continue;
        }
        let options = TierOptions {
            access,
            token: context.env.token(),
            registry: Arc::clone(registry),
            services: context.env.services(),
            temp_dir: context.env.temp_dir(),
        };
        match open::open(&want.address, &options) {
            Ok(tier) => tiers.push(tier),
            Err(error @ (OpenError::Missing { .. } | OpenError::Client { .. })) => {
                let cause = std::error::Error::source(&error);
                let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
                let hint = error.hint();
                events.warn(
                    format!("{error}{cause}; the build goes on without it"),
                    hint,
                );
            }
            Err(source) => {
                return Err(CachesError::Open {
                    origin: want.origin,
                    source: Box::new(source),
                });
            }
        }
    }
    Ok(tiers)
}

/// The key that signs, if this build was given one, and what is odd about it.
fn signer(
    context: &Context,
    settings: &CacheSettings,
) -> Result<(Option<Signer>, Option<String>), CachesError> {
    let variable = Origin::Variable("MEMOBUILD_SIGNING_KEY");
    let setting = Origin::Setting("cache.sign");
    let (origin, text) = match (context.env.signing_key(), &settings.sign) {
        (Some(key), _) => (variable, String::from_utf8_lossy(key.expose()).into_owned()),
        (None, Some(SigningKey::Variable(name))) => match env::secret(name) {
            Some(key) if !key.is_empty() => (setting, String::from_utf8_lossy(&key).into_owned()),
            _ => return Ok((None, None)),
        },
        (None, Some(SigningKey::File(path))) => match fs::read_to_string(path) {
            Ok(pem) => (setting, pem),
            Err(error) if error.is_not_found() => {
                let path = path.display();
                let warning = format!("the signing key `{path}` is not there; nothing is signed");
                return Ok((None, Some(warning)));
            }
            Err(source) => {
                return Err(CachesError::KeyFile {
                    origin: setting,
                    source,
                });
            }
        },
        (None, None) => return Ok((None, None)),
    };
    let pem = match text.contains("-----BEGIN") {
        true => text,
        false => fs::read_to_string(Path::new(text.trim()))
            .map_err(|source| CachesError::KeyFile { origin, source })?,
    };
    match Signer::from_pem(&pem) {
        Ok(signer) => Ok((Some(signer), None)),
        Err(source) => Err(CachesError::Key { origin, source }),
    }
}

/// The keys whose signatures count, and where they are needed.
pub(in crate::cli) fn keyring(
    context: &Context,
    settings: &CacheSettings,
) -> Result<Keyring, CachesError> {
    trusted(context, settings, signer(context, settings)?.0.as_ref())
}

fn trusted(
    context: &Context,
    settings: &CacheSettings,
    signer: Option<&Signer>,
) -> Result<Keyring, CachesError> {
    let mut keys: Vec<PublicKey> = Vec::new();
    let setting = Origin::Setting("cache.trust.keys");
    let mut add = |origin, text: &str| match trust::public_keys(text) {
        Ok(more) => {
            keys.extend(more);
            Ok(())
        }
        Err(source) => Err(CachesError::Key { origin, source }),
    };
    let read = |origin, path: &Path| {
        fs::read_to_string(path).map_err(|source| CachesError::KeyFile { origin, source })
    };
    for key in &settings.trust.keys {
        match key {
            TrustedKey::Text(text) => add(setting, text)?,
            TrustedKey::File(path) => add(setting, &read(setting, path)?)?,
        }
    }
    if let Some(text) = context.env.trusted_keys() {
        let origin = Origin::Variable("MEMOBUILD_TRUSTED_KEYS");
        match text.contains("-----BEGIN") {
            true => add(origin, text)?,
            false => {
                for word in text.split_whitespace() {
                    match trust::public_keys(word) {
                        Ok(_) => add(origin, word)?,
                        Err(_) => add(origin, &read(origin, Path::new(word))?)?,
                    }
                }
            }
        }
    }
    let known = !keys.is_empty();
    let require: Vec<ScopePattern> = match &settings.trust.require {
        Some(list) => {
            let origin = Origin::Setting("cache.trust.require");
            let patterns = list.iter().map(|text| {
                text.parse()
                    .map_err(|source| CachesError::Scope { origin, source })
            });
            patterns.collect::<Result<_, _>>()?
        }
        // Who names keys wants them to be needed.
        None if known => vec![ScopePattern::One(Scope::protected())],
        None => Vec::new(),
    };
    keys.extend(signer.map(|signer| *signer.public()));
    if keys.is_empty() && !require.is_empty() {
        return Err(CachesError::NoKeys);
    }
    Ok(Keyring::new(keys, require))
}

fn save_timeout(args: &BuildArgs, settings: &CacheSettings) -> Result<Duration, CliError> {
    match &args.cache_save_timeout {
        Some(text) => units::parse_duration(text)
            .map_err(|error| CliError::usage(format!("`--cache-save-timeout {text}`: {error}"))),
        None => Ok(settings.save_timeout.unwrap_or(SAVE_TIMEOUT)),
    }
}
