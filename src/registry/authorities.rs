//! Certificate authorities to trust besides the system's.

use std::path::{Path, PathBuf};

use reqwest::{Certificate, ClientBuilder};

use crate::fs::{self, FsError};

/// Certificates of authorities. By default none.
#[derive(Debug, Clone, Default)]
pub struct Authorities(Vec<Certificate>);

/// A file that gives no certificates.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// It can't be read.
    #[error(transparent)]
    Read(#[from] FsError),
    /// It holds something else.
    #[error("`{}` is no PEM file with certificates", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It holds none.
    #[error("`{}` has no certificate", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Authorities {
    /// Adds all certificates of a PEM file.
    pub fn add(&mut self, path: &Path) -> Result<(), AuthoritiesError> {
        let pem = fs::read(path)?;
        let found = Certificate::from_pem_bundle(&pem).map_err(|source| AuthoritiesError::Pem {
            path: path.to_owned(),
            source,
        })?;
        if found.is_empty() {
            let path = path.to_owned();
            return Err(AuthoritiesError::Empty { path });
        }
        self.0.extend(found);
        Ok(())
    }

    /// A client that trusts them, too.
    pub fn trusted_by(&self, client: ClientBuilder) -> ClientBuilder {
        match self.0.is_empty() {
            true => client,
            false => client.tls_certs_merge(self.0.iter().cloned()),
        }
    }
}
