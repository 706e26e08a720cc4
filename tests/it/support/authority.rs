//! Certificates for servers, issued by an authority that exists for one test.

use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use tempfile::TempDir;

/// An authority and the certificates that it has issued. Dropping it removes the files.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// The files of a certificate, in PEM.
pub(crate) struct Issued {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Certificate and key in one file.
    pub(crate) together: PathBuf,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    /// Returns the path of its own certificate, in PEM.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Returns the path of its own certificate as a TOML value.
    pub(crate) fn toml(&self) -> String {
        format!("'{}'", self.file().display())
    }

    /// Issues a certificate for a domain that is valid now.
    pub(crate) fn issue(&self, domain: &str) -> Issued {
        self.issue_for(domain, 2020..=2090)
    }

    /// Issues a certificate for a domain, valid from the start of one year to the start of another.
    pub(crate) fn issue_for(&self, domain: &str, years: RangeInclusive<i32>) -> Issued {
        let year = |year| SystemTime::from(date_time_ymd(year, 1, 1));
        // For servers only, as public authorities issue them.
        let purposes = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue_with(domain, year(*years.start())..=year(*years.end()), purposes)
    }

    /// Issues a certificate for a domain that expires after this time.
    pub(crate) fn issue_within(&self, domain: &str, valid: Duration) -> Issued {
        let now = SystemTime::now();
        self.issue_with(domain, now - valid..=now + valid, vec![ExtendedKeyUsagePurpose::ServerAuth])
    }

    /// Issues a certificate for a domain that is valid now, for clients as well, as public authorities formerly issued
    /// them.
    pub(crate) fn issue_for_both(&self, domain: &str) -> Issued {
        let purposes = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let valid = SystemTime::from(date_time_ymd(2020, 1, 1))..=SystemTime::from(date_time_ymd(2090, 1, 1));
        self.issue_with(domain, valid, purposes)
    }

    fn issue_with(
        &self,
        domain: &str,
        valid: RangeInclusive<SystemTime>,
        purposes: Vec<ExtendedKeyUsagePurpose>,
    ) -> Issued {
        let mut parameters = CertificateParams::new(vec![domain.to_owned()]).unwrap();
        parameters.extended_key_usages = purposes;
        parameters.not_before = (*valid.start()).into();
        parameters.not_after = (*valid.end()).into();
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap().pem();
        let end = valid.end().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let write = |name: &str, content: String| {
            let path = self.directory.path().join(format!("{domain}-{end}.{name}.pem"));
            fs::write(&path, content).unwrap();
            path
        };
        Issued {
            together: write("together", format!("{certificate}{}", key.serialize_pem())),
            certificate: write("certificate", certificate),
            key: write("key", key.serialize_pem()),
        }
    }
}
