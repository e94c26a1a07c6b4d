//! The key that signs a build's entries, those whose signatures count, and the certificate authorities
//! that servers are trusted by.

use std::path::Path;

use super::{CachesError, Origin};
use crate::{
    cache::{
        Scope,
        trust::{self, Keyring, PublicKey, ScopePattern, Signer},
    },
    cli::Context,
    config::{CacheSettings, SigningKey, TrustedKey, env},
    fs,
    registry::Authorities,
};

/// The key that signs, if this build was given one, and what is odd about it.
pub(super) fn signer(
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

pub(super) fn trusted(
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

/// The certificate authorities to trust besides the system's.
pub(in crate::cli) fn authorities(
    context: &Context,
    settings: &CacheSettings,
) -> Result<Authorities, CachesError> {
    let setting = Origin::Setting("cache.ca-certificates");
    let variable = Origin::Variable("MEMOBUILD_CA_CERTIFICATES");
    let configured = settings.ca_certificates.iter().cloned();
    let files = configured.map(|path| (setting, path));
    let given = context.env.ca_certificates().into_iter();
    let mut authorities = Authorities::default();
    for (origin, path) in files.chain(given.map(|path| (variable, path))) {
        authorities
            .add(&path)
            .map_err(|source| CachesError::Authorities { origin, source })?;
    }
    Ok(authorities)
}
