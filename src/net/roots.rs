//! Certificate authorities: those of the system, or those in a file.

use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use rustls::RootCertStore;

/// An error in loading authorities. The operator has to fix it.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file is missing, or this user may not read it.
    #[error("cannot read {path}: {error}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The file holds no certificate.
    #[error("{path} contains no certificate; it must be a PEM file with a line -----BEGIN CERTIFICATE-----", path = .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A certificate in the file cannot be used.
    #[error("cannot use {path}: {error}", path = .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The error.
        error: rustls::Error,
    },
    /// The system has no authorities.
    #[error(
        "no certificate authorities found on this system{reason}; install ca-certificates, set SSL_CERT_FILE, or name a \
            file in upstream_ca or ca"
    )]
    NoSystemRoots {
        /// The error that prevented reading them, if there was one.
        reason: String,
    },
}

/// Loads the authorities in a PEM file.
///
/// # Errors
/// Returns a [`RootsError`] that names the file.
pub fn in_file(path: &Path) -> Result<RootCertStore, RootsError> {
    let unreadable = |error| RootsError::Unreadable { path: path.to_owned(), error };
    let mut file = BufReader::new(std::fs::File::open(path).map_err(unreadable)?);
    let mut roots = RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut file) {
        let added = roots.add(certificate.map_err(unreadable)?);
        added.map_err(|error| RootsError::Unusable { path: path.to_owned(), error })?;
    }
    if roots.is_empty() { Err(RootsError::Empty { path: path.to_owned() }) } else { Ok(roots) }
}

/// Loads the system's authorities. Skips unreadable ones if there are others. Reads files.
///
/// # Errors
/// [`RootsError::NoSystemRoots`].
pub fn system() -> Result<RootCertStore, RootsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        return Err(RootsError::NoSystemRoots { reason });
    }
    Ok(roots)
}
