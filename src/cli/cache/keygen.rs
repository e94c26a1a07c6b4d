//! `cache keygen`: a pair of keys for signing entries.

use std::path::Path;

use crate::{
    cache::trust::Signer,
    cli::{CliError, ExitCode, answer},
    fs,
};

/// Writes `NAME.pem`, the private key, which only its owner may read, and `NAME.pub.pem`; prints the
/// key's id. Neither file may be there.
pub(super) fn keygen(name: &Path) -> Result<ExitCode, CliError> {
    let file = |suffix: &str| {
        let mut path = name.as_os_str().to_owned();
        path.push(suffix);
        path
    };
    let (signer, private) = Signer::generate()?;
    let (public, secret) = (file(".pub.pem"), file(".pem"));
    if let Some(taken) = [&public, &secret].into_iter().find(|path| fs::exists(path)) {
        return Err(CliError::usage_hint(
            format!("`{}` is there already", Path::new(taken).display()),
            "a key that is overwritten is lost: choose another name",
        ));
    }
    fs::write_new_private(&secret, private.as_bytes())?;
    fs::write_atomic(&public, signer.public().pem().as_bytes())?;
    answer(&format!("{}\n", signer.public().id()))?;
    Ok(ExitCode::Success)
}
