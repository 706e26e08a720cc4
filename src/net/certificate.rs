//! Certificates on disk: loading and checking them, and creating one for development.

use std::fmt;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

use crate::clock::UnixSecs;
use crate::config::Host;
use crate::jid;

/// The remaining validity below which [`judge`] reports that a certificate expires soon.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// The last second of the year 9999, the end of a certificate that never expires (RFC 5280 §4.1.2.5).
const NEVER: UnixSecs = UnixSecs::new(253_402_300_799);

/// An error in a host's certificate. The operator has to fix it.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file is missing, or this user may not read it.
    #[error("cannot read {path}: {error}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The file contains no PEM section of the required kind.
    #[error("{path} contains no {wanted}; it must be a PEM file with a line -----BEGIN {marker}-----", path = .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// The kind of section that is missing.
        wanted: &'static str,
        /// The marker of such a section.
        marker: &'static str,
    },
    /// The key belongs to another certificate.
    #[error("{key} is not the key of the first certificate in {certificate}", key = .key.display(), certificate = .certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate or the key is of a kind that cannot be used.
    #[error("cannot use {path}: {error}", path = .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The error.
        error: rustls::Error,
    },
    /// A development certificate could not be written.
    #[error("cannot write the development certificate {path}: {error}", path = .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// A development certificate could not be created.
    #[error("cannot create a development certificate for {domain}: {error}")]
    NotMade {
        /// The domain.
        domain: String,
        /// The error.
        error: rcgen::Error,
    },
}

/// A defect of a certificate that was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Defect {
    /// The certificate does not name the domain. Clients will reject it.
    NotForDomain,
    /// The certificate has expired. Clients will reject it.
    Expired,
    /// The certificate is not valid yet, or the clock is wrong. Clients will reject it.
    NotYetValid,
    /// The certificate expires within 14 days.
    ExpiresSoon,
}

impl Defect {
    /// All defects.
    pub const ALL: [Self; 4] = [Self::NotForDomain, Self::Expired, Self::NotYetValid, Self::ExpiresSoon];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotForDomain => "not_for_domain",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::ExpiresSoon => "expires_soon",
        }
    }

    /// Returns the remedy for the operator.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NotForDomain => "get one that lists the domain as a DNS name",
            Self::Expired => "renew it",
            Self::NotYetValid => "set the clock of this machine, or get another certificate",
            Self::ExpiresSoon => "renew it; `pushward reload` loads the new one",
        }
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotForDomain => "does not name the domain",
            Self::Expired => "has expired",
            Self::NotYetValid => "is not valid yet",
            Self::ExpiresSoon => "expires within 14 days",
        })
    }
}

/// Loads the certificate chain and the key of a host.
///
/// # Errors
/// Returns the [`CertificateError`], which names the file.
pub fn load(host: &Host) -> Result<Arc<CertifiedKey>, CertificateError> {
    load_pair(&host.certificate, &host.key)
}

/// Loads a certificate chain and its key from these files.
///
/// # Errors
/// Returns the [`CertificateError`], which names the file.
pub fn load_pair(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, CertificateError> {
    let chain = chain(certificate)?;
    let private_key = private_key(key)?;
    let leaf = chain.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()));
    if let Err(error) = ParsedCertificate::try_from(&leaf) {
        return Err(CertificateError::Unusable { path: certificate.to_owned(), error });
    }
    match CertifiedKey::from_der(chain, private_key, &aws_lc_rs::default_provider()) {
        Ok(key) => Ok(Arc::new(key)),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(CertificateError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() })
        }
        Err(error) => Err(CertificateError::Unusable { path: key.to_owned(), error }),
    }
}

/// Loads like [`load`], but first creates a certificate if [`wants_development`] returns true.
///
/// # Errors
/// Returns the [`CertificateError`].
pub fn load_or_make(host: &Host) -> Result<Arc<CertifiedKey>, CertificateError> {
    if ensure_development(host)? {
        let (domain, path) = (&host.domain, host.certificate.display());
        tracing::warn!(%domain, %path, "self-signed development certificate created: clients do not trust it by default");
    }
    load(host)
}

/// Returns the defects that clients of a domain would object to at this time. Does not check the issuer.
pub fn judge(key: &CertifiedKey, domain: &str, now: SystemTime) -> Vec<Defect> {
    let Some((leaf, intermediates)) = key.cert.split_first() else { return Vec::new() };
    let Ok(parsed) = ParsedCertificate::try_from(leaf) else { return Vec::new() };
    let mut defects = Vec::new();
    let name = jid::ascii(domain).and_then(|ascii| ServerName::try_from(ascii).ok());
    if name.is_none_or(|name| verify_server_name(&parsed, &name).is_err()) {
        defects.push(Defect::NotForDomain);
    }
    let dates = |at: SystemTime| objection(&parsed, intermediates, at.duration_since(UNIX_EPOCH).unwrap_or_default());
    match (dates(now), dates(now + SOON)) {
        (Some(Expired | ExpiredContext { .. }), _) => defects.push(Defect::Expired),
        (Some(NotValidYet | NotValidYetContext { .. }), _) => defects.push(Defect::NotYetValid),
        (_, Some(Expired | ExpiredContext { .. })) => defects.push(Defect::ExpiresSoon),
        _ => {}
    }
    defects
}

/// Returns the time at which a certificate expires.
pub fn not_after(key: &CertifiedKey) -> UnixSecs {
    let Some((leaf, intermediates)) = key.cert.split_first() else { return NEVER };
    let Ok(parsed) = ParsedCertificate::try_from(leaf) else { return NEVER };
    match objection(&parsed, intermediates, Duration::from_secs(NEVER.get())) {
        Some(ExpiredContext { not_after, .. }) => UnixSecs::new(not_after.as_secs()),
        _ => NEVER,
    }
}

/// Returns the error in the dates of a certificate at a time since the epoch. Without roots no chain is complete, but
/// the verifier checks the dates of the certificate first.
fn objection(
    parsed: &ParsedCertificate<'_>,
    intermediates: &[CertificateDer<'_>],
    at: Duration,
) -> Option<rustls::CertificateError> {
    let (at, roots) = (UnixTime::since_unix_epoch(at), RootCertStore::empty());
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    match verify_server_cert_signed_by_trust_anchor(parsed, &roots, intermediates, at, algorithms) {
        Err(rustls::Error::InvalidCertificate(error)) => Some(error),
        _ => None,
    }
}

/// Returns whether [`ensure_development`] would create a certificate: both files are missing, and the domain is
/// reserved for development (RFC 6761 §6, RFC 2606 §3: `localhost`, `example.org` and the like, and names that end in
/// `.localhost`, `.test` or `.example`). No other domain gets one, not even at the default path: clients would reject
/// it, and it would hide that the real one is missing.
pub fn wants_development(host: &Host) -> bool {
    let labels: Vec<_> = host.domain.rsplit('.').take(2).collect();
    let reserved = match labels.as_slice() {
        ["localhost" | "test" | "example", ..] => true,
        ["org" | "com" | "net", second] => *second == "example",
        _ => false,
    };
    reserved && !host.certificate.exists() && !host.key.exists()
}

/// Creates a self-signed certificate for a host if [`wants_development`] returns true. Both files get mode 0600, and a
/// missing directory is created with mode 0700. Returns whether a certificate was created, so that the caller can
/// inform the operator.
///
/// # Errors
/// [`CertificateError::Unwritable`], [`CertificateError::NotMade`].
pub fn ensure_development(host: &Host) -> Result<bool, CertificateError> {
    if !wants_development(host) {
        return Ok(false);
    }
    let (certificate, key) =
        self_signed(&host.domain).map_err(|error| CertificateError::NotMade { domain: host.domain.clone(), error })?;
    write_new(&host.key, &key)?;
    // A key without a certificate would prevent the next start from creating a pair.
    write_new(&host.certificate, &certificate).inspect_err(|_| drop(std::fs::remove_file(&host.key)))?;
    Ok(true)
}

/// Creates a self-signed certificate for a domain, valid for ten years. Returns the certificate and the key as PEM.
///
/// # Errors
/// Returns rcgen's error for a name that no certificate can contain.
pub fn self_signed(domain: &str) -> Result<(String, String), rcgen::Error> {
    let mut names = vec![jid::ascii(domain).unwrap_or_else(|| domain.to_owned())];
    if domain == "localhost" {
        names.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
    }
    let mut parameters = rcgen::CertificateParams::new(names)?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, format!("{domain} (development)"));
    parameters.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let year = current_year();
    parameters.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(year + 10, 1, 1);
    let key = rcgen::KeyPair::generate()?;
    Ok((parameters.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let unreadable = |error| CertificateError::Unreadable { path: path.to_owned(), error };
    let mut file = BufReader::new(std::fs::File::open(path).map_err(unreadable)?);
    let chain = rustls_pemfile::certs(&mut file).collect::<io::Result<Vec<_>>>().map_err(unreadable)?;
    if chain.is_empty() {
        return Err(CertificateError::Empty { path: path.to_owned(), wanted: "certificate", marker: "CERTIFICATE" });
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let unreadable = |error| CertificateError::Unreadable { path: path.to_owned(), error };
    let mut file = BufReader::new(std::fs::File::open(path).map_err(unreadable)?);
    rustls_pemfile::private_key(&mut file).map_err(unreadable)?.ok_or_else(|| CertificateError::Empty {
        path: path.to_owned(),
        wanted: "unencrypted private key",
        marker: "PRIVATE KEY",
    })
}

fn write_new(path: &Path, content: &str) -> Result<(), CertificateError> {
    let write = || {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content.as_bytes())
    };
    write().map_err(|error| CertificateError::Unwritable { path: path.to_owned(), error })
}

fn current_year() -> i32 {
    const YEAR: u64 = 31_556_952;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i32::try_from(1970 + seconds / YEAR).unwrap_or(1970)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{ChannelBinding, ProxyProtocol, Upstream, UpstreamTls};

    fn host(directory: &Path, domain: &str) -> Host {
        Host {
            domain: domain.to_owned(),
            certificate: directory.join(format!("certs/{domain}.pem")),
            key: directory.join(format!("certs/{domain}.key")),
            upstream: Upstream::default(),
            upstream_source: Vec::new(),
            upstream_proxy_protocol: ProxyProtocol::Off,
            component: None,
            upstream_tls: UpstreamTls::Off,
            upstream_ca: None,
            upstream_insecure: false,
            modern_login: true,
            channel_binding: ChannelBinding::Strip,
        }
    }

    fn written(domain: &str) -> (tempfile::TempDir, Host) {
        let directory = tempfile::tempdir().unwrap();
        let host = host(directory.path(), domain);
        assert!(ensure_development(&host).unwrap());
        (directory, host)
    }

    #[test]
    fn a_development_certificate_is_made_once_and_is_private() {
        let (_directory, host) = written("localhost");
        let key = load(&host).unwrap();
        assert_eq!(judge(&key, "localhost", SystemTime::now()), []);
        assert_eq!(judge(&key, "127.0.0.1", SystemTime::now()), []);
        for path in [&host.certificate, &host.key] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let before = std::fs::read(&host.certificate).unwrap();
        assert!(!ensure_development(&host).unwrap());
        assert_eq!(std::fs::read(&host.certificate).unwrap(), before);
    }

    #[test]
    fn only_domains_reserved_for_development_get_one() {
        let directory = tempfile::tempdir().unwrap();
        for domain in ["localhost", "a.localhost", "chat.test", "b.example", "example.org", "a.example.net"] {
            assert!(wants_development(&host(directory.path(), domain)), "{domain}");
        }
        for domain in ["jabber.org", "notlocalhost", "example.de", "test.org", "org"] {
            assert!(!wants_development(&host(directory.path(), domain)), "{domain}");
        }
    }

    #[test]
    fn an_existing_key_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let host = host(directory.path(), "localhost");
        std::fs::create_dir(directory.path().join("certs")).unwrap();
        std::fs::write(&host.key, "precious").unwrap();
        assert!(!ensure_development(&host).unwrap());
        assert_eq!(std::fs::read_to_string(&host.key).unwrap(), "precious");
    }

    #[test]
    fn an_internationalised_domain_gets_its_ascii_name() {
        let (_directory, host) = written("müller.test");
        assert_eq!(judge(&load(&host).unwrap(), "müller.test", SystemTime::now()), []);
    }

    #[test]
    fn each_fault_of_the_files_has_its_own_error() {
        let (_directory, host) = written("localhost");
        let (_other_directory, other) = written("localhost");
        let fault = |certificate: &Path, key: &Path| {
            let host = Host { certificate: certificate.to_owned(), key: key.to_owned(), ..host.clone() };
            load(&host).unwrap_err().to_string()
        };
        let missing = Path::new("/nonexistent/a.pem");
        assert!(fault(missing, &host.key).starts_with("cannot read /nonexistent/a.pem: No such file"));
        assert!(fault(&host.certificate, missing).starts_with("cannot read /nonexistent/a.pem"));
        assert!(fault(&host.key, &host.key).contains("contains no certificate"));
        assert!(fault(&host.certificate, &host.certificate).contains("contains no unencrypted private key"));
        assert!(fault(&host.certificate, &other.key).contains("not the key of the first certificate"));
        let nonsense = host.certificate.with_extension("nonsense");
        std::fs::write(&nonsense, "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n").unwrap();
        assert!(fault(&nonsense, &host.key).starts_with(&format!("cannot use {}", nonsense.display())));
    }

    #[test]
    fn a_certificate_is_judged_by_name_and_dates() {
        let (_directory, host) = written("localhost");
        let key = load(&host).unwrap();
        let year = Duration::from_secs(31_556_952);
        let now = SystemTime::now();
        assert_eq!(judge(&key, "example.org", now), [Defect::NotForDomain]);
        assert_eq!(judge(&key, "localhost", now + 11 * year), [Defect::Expired]);
        assert_eq!(judge(&key, "localhost", now - 3 * year), [Defect::NotYetValid]);
        let end = UNIX_EPOCH + Duration::from_secs(humantime_end(current_year() + 10));
        let day = Duration::from_secs(86_400);
        assert_eq!(judge(&key, "localhost", end - day), [Defect::ExpiresSoon]);
        assert_eq!(judge(&key, "localhost", end - 14 * day + day / 2), [Defect::ExpiresSoon]);
        assert_eq!(judge(&key, "localhost", end - 14 * day - day / 2), []);
        assert_eq!(not_after(&key), end.into());
    }

    fn humantime_end(year: i32) -> u64 {
        let end = humantime::parse_rfc3339(&format!("{year}-01-01T00:00:00Z")).unwrap();
        end.duration_since(UNIX_EPOCH).unwrap().as_secs()
    }
}
