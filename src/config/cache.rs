//! From the `cache:` of a [`File`](super::file::File) to [`CacheSettings`].

use std::path::Path;

use super::{
    CacheSettings, MountSettings, RemoteSettings, SigningKey, TrustSettings, TrustedKey, Write,
    at::At,
    check::duration,
    error::{Fault, Problem},
    file::{Cache, Sign, Trust},
    remote::OneRemote,
    units::parse_size,
};

/// The settings of the caches; paths start at `root`.
pub(super) fn settings(cache: Option<&Cache>, root: &Path) -> Result<CacheSettings, Fault> {
    let Some(cache) = cache else {
        return Ok(CacheSettings::default());
    };
    let size = |text: &At<String>| parse_size(text).map_err(|e| Fault::new(text.place, e));
    let mounts = match &cache.mounts {
        Some(mounts) => Some(MountSettings {
            save: mounts.save.unwrap_or_default(),
            max_size: mounts.max_size.as_ref().map(size).transpose()?,
        }),
        None => None,
    };
    let also_read = cache.also_read.iter().flatten();
    let remotes = cache.remote.iter().flat_map(|remotes| &remotes.0);
    Ok(CacheSettings {
        dir: cache.dir.as_ref().map(|dir| root.join(dir.as_str())),
        max_size: cache.max_size.as_ref().map(size).transpose()?,
        max_age: cache.max_age.as_ref().map(duration).transpose()?,
        remote: remotes.map(remote).collect(),
        scope: cache.scope.as_ref().map(|scope| scope.value.clone()),
        also_read: also_read.map(|scope| scope.value.clone()).collect(),
        sign: cache.sign.as_ref().map(|sign| match sign {
            Sign::KeyEnv(name) => SigningKey::Variable(name.clone()),
            Sign::KeyFile(path) => SigningKey::File(root.join(path)),
        }),
        trust: cache
            .trust
            .as_ref()
            .map(|t| trust(t, root))
            .unwrap_or_default(),
        save_timeout: cache.save_timeout.as_ref().map(duration).transpose()?,
        mounts,
        ca_certificates: cache
            .ca_certificates
            .as_ref()
            .map(|path| root.join(path.as_str())),
    })
}

fn remote(remote: &OneRemote) -> RemoteSettings {
    match remote {
        OneRemote::Url(url) => RemoteSettings {
            url: url.clone(),
            read: true,
            write: Write::Auto,
        },
        OneRemote::Full(remote) => RemoteSettings {
            url: remote.url.value.clone(),
            read: remote.read.unwrap_or(true),
            write: remote.write.unwrap_or_default(),
        },
    }
}

fn trust(trust: &Trust, root: &Path) -> TrustSettings {
    let keys = trust.keys.iter().flat_map(|keys| &keys.0);
    let require = trust.require.as_ref();
    TrustSettings {
        keys: keys.map(|text| key(text, root)).collect(),
        require: require.map(|list| list.iter().map(|text| text.value.clone()).collect()),
    }
}

/// A key or the file it is in: base64 of an Ed25519 key always starts so.
fn key(text: &str, root: &Path) -> TrustedKey {
    match text.contains("-----BEGIN") || text.trim().starts_with("MCowBQYDK2Vw") {
        true => TrustedKey::Text(text.to_owned()),
        false => TrustedKey::File(root.join(text)),
    }
}

/// Whether the files of public keys and certificates are there. That of the private key may be missing: only some
/// builds are given it.
pub(super) fn files(cache: Option<&Cache>, settings: &CacheSettings) -> Result<(), Fault> {
    if let (Some(path), Some(cache)) = (&settings.ca_certificates, cache)
        && !path.is_file()
    {
        let text = cache.ca_certificates.as_ref();
        let place = text.map(|text| text.place).unwrap_or_default();
        let path = path.clone();
        return Err(Fault::new(place, Problem::NoCertificates { path }));
    }
    let mut files = settings.trust.keys.iter().filter_map(|key| match key {
        TrustedKey::File(path) => Some(path),
        TrustedKey::Text(_) => None,
    });
    let Some(path) = files.find(|path| !path.is_file()) else {
        return Ok(());
    };
    let keys = cache.and_then(|cache| cache.trust.as_ref()?.keys.as_ref());
    let place = keys.map(|keys| keys.place).unwrap_or_default();
    let path = path.clone();
    Err(Fault::new(place, Problem::NoKey { path })
        .hint("make a pair of keys with `memobuild-ci cache keygen NAME`"))
}
