//! What commands have besides the local store: tiers, trust scopes and keys, from flags, bake
//! targets, environment, configuration and the CI platform.

mod keys;
mod named;

pub(super) use keys::{authorities, keyring};
pub(super) use named::Named;

use std::{fmt, sync::Arc};

use super::{CliError, Context};
use crate::{
    cache::{
        Access, ActionResult, Producer, Scope, ScopeError, SearchOrder, Tier, TierAddress,
        TierAddressError, Vouching,
        open::{self, OpenError, TierOptions},
        trust::{KeyError, Keyring, Signer},
    },
    ci::{self, ScopeRefused},
    config::{CacheSettings, Write},
    event::{BuildEvent, Events},
    fs::FsError,
    registry::{Authorities, AuthoritiesError, Registry},
};

/// What the command line, and what it names, says about caches.
#[derive(Debug, Default)]
pub(super) struct Asked<'a> {
    /// The caches of flags. If there are any, they are all.
    pub(super) flags: Vec<Named<'a>>,
    /// Those of bake targets, which go before those of the configuration.
    pub(super) targets: Vec<Named<'a>>,
    /// The scope that `--cache-scope` names.
    pub(super) scope: Option<&'a str>,
    /// Whether there are to be no tiers.
    pub(super) no_tiers: bool,
}

/// The caches of a command besides the local store, and how they are used.
#[derive(Debug)]
pub(super) struct Caches {
    /// The tiers, the first asked first.
    pub(super) tiers: Vec<Tier>,
    /// What is relied on and how what is saved is signed.
    pub(super) vouching: Vouching,
    pub(super) scopes: SearchOrder,
    pub(super) producer: Producer,
    /// Whether anything is saved where nobody says that it should be.
    pub(super) saves: bool,
}

/// Who says something about caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Flag(&'static str),
    Variable(&'static str),
    Setting(&'static str),
    Target(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => write!(f, "`{name}`"),
            Self::Setting(name) => write!(f, "`{name}` of the configuration"),
            Self::Target(name) => write!(f, "`{name}` of the bake file"),
        }
    }
}

/// Settings of caches that make no sense. Trouble with a cache is none of these.
#[derive(Debug, thiserror::Error)]
pub(super) enum CachesError {
    #[error("{origin} names no cache")]
    Address {
        origin: Origin,
        source: TierAddressError,
    },
    #[error("{message}")]
    Named {
        origin: Origin,
        message: String,
        hint: Option<String>,
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
    #[error("{origin} names certificates that can't be used")]
    Authorities {
        origin: Origin,
        source: AuthoritiesError,
    },
    #[error("{origin} names a directory that can't be found out")]
    Directory { origin: Origin, source: FsError },
    #[error("`cache.trust.require` demands signatures, and no public key is known")]
    NoKeys,
}

impl CachesError {
    /// Whether the command line is wrong, and not what it stands in.
    pub(super) fn is_usage(&self) -> bool {
        match self {
            Self::Address { origin, .. }
            | Self::Named { origin, .. }
            | Self::Scope { origin, .. }
            | Self::Refused { origin, .. }
            | Self::Open { origin, .. }
            | Self::Key { origin, .. }
            | Self::Directory { origin, .. }
            | Self::Authorities { origin, .. }
            | Self::KeyFile { origin, .. } => matches!(origin, Origin::Flag(_)),
            Self::NoKeys => false,
        }
    }

    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { source, .. } => Some(source.hint().to_owned()),
            Self::Open { source, .. } => source.hint(),
            Self::Named { hint, .. } => hint.clone(),
            Self::Key { source, .. } => Some(source.hint().to_owned()),
            Self::NoKeys => {
                Some("name them in `cache.trust.keys`, or in `MEMOBUILD_TRUSTED_KEYS`".to_owned())
            }
            Self::Address { .. }
            | Self::Scope { .. }
            | Self::Directory { .. }
            | Self::Authorities { .. }
            | Self::KeyFile { .. } => None,
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

/// Finds out what there is. Opens the tiers, which talks to nobody.
pub(super) fn caches(
    context: &Context,
    asked: &Asked<'_>,
    settings: &CacheSettings,
    registry: &Arc<Registry>,
    events: &Events,
) -> Result<Caches, CliError> {
    let ci = ci::detect(&context.env);
    let (scope, origin) = scope(context, asked, settings)?;
    let setting = Origin::Setting("cache.also-read");
    let also = settings
        .also_read
        .iter()
        .map(|text| read_scope(setting, text));
    let also: Vec<Scope> = also.collect::<Result<_, _>>()?;
    let scopes = ci
        .scopes(scope, also)
        .map_err(|source| CachesError::Refused { origin, source })?;
    let (signer, warning) = keys::signer(context, settings)?;
    if let Some(warning) = warning {
        events.warn(warning, None);
    }
    let keyring = keys::trusted(context, settings, signer.as_ref())?;
    let wanted = match asked.no_tiers {
        true => Vec::new(),
        false => wanted(context, asked, settings, events)?,
    };
    let authorities = authorities(context, settings)?;
    let tiers = tiers(
        context,
        &wanted,
        scopes.saves,
        (registry, &authorities),
        events,
    )?;
    let tiers = match &context.simulation {
        Some(simulation) => simulation.tiers(tiers)?,
        None => tiers,
    };
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
        saves: scopes.saves,
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
    asked: &Asked<'_>,
    settings: &CacheSettings,
) -> Result<(Option<Scope>, Origin), CachesError> {
    let setting = Origin::Setting("cache.scope");
    let chosen = [
        (asked.scope, Origin::Flag("--cache-scope")),
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
    asked: &Asked<'_>,
    settings: &CacheSettings,
    events: &Events,
) -> Result<Vec<Wanted>, CliError> {
    if !asked.flags.is_empty() {
        return named(&asked.flags, events);
    }
    let address = |origin, text: &str| {
        text.parse()
            .map_err(|source| CachesError::Address { origin, source })
    };
    let mut all = Vec::new();
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
    let targets = named(&asked.targets, events)?;
    if !targets.is_empty() {
        return Ok(targets);
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

/// The caches that flags or bake targets name, each once: for what all of them say.
fn named(list: &[Named<'_>], events: &Events) -> Result<Vec<Wanted>, CliError> {
    let mut all: Vec<Wanted> = Vec::new();
    let mut told: Vec<String> = Vec::new();
    for named in list {
        let origin = named.origin();
        let (place, without_meaning) = named.place()?;
        for what in without_meaning {
            let message = format!("no effect: `{what}` in {origin}");
            if !told.contains(&message) {
                events.warn(message.clone(), None);
                told.push(message);
            }
        }
        let Some(address) = place else { continue };
        let (read, write) = match named.writes() {
            true => (false, Write::Auto),
            false => (true, Write::No),
        };
        match all.iter_mut().find(|known| known.address == address) {
            Some(known) => {
                known.read |= read;
                if known.write == Write::No {
                    known.write = write;
                }
            }
            None => all.push(Wanted {
                address,
                read,
                write,
                origin,
            }),
        }
    }
    Ok(all)
}

/// What to say where the job may do less with a tier than the build would.
fn less_access(tier: &Tier, wanted: Access) -> Option<String> {
    let what = match (
        wanted.read && !tier.access.read,
        wanted.write && !tier.access.write,
    ) {
        (false, false) => return None,
        (true, false) => "nothing is read from",
        (false, true) => "nothing is saved to",
        (true, true) => "no use is made of",
    };
    let name = &tier.name;
    Some(format!(
        "{what} the cache `{name}`, as `ACTIONS_CACHE_MODE` says"
    ))
}

/// Opens the tiers. One that lacks something on this machine is left out with a warning.
fn tiers(
    context: &Context,
    wanted: &[Wanted],
    saves: bool,
    (registry, authorities): (&Arc<Registry>, &Authorities),
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
            authorities: authorities.clone(),
            services: context.env.services(),
            temp_dir: context.env.temp_dir(),
        };
        match open::open(&want.address, &options) {
            Ok(tier) => {
                if let Some(notice) = less_access(&tier, access) {
                    events.warn(notice, None);
                }
                if tier.access.read || tier.access.write {
                    tiers.push(tier);
                }
            }
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
