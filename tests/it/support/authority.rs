//! Certificates for servers, issued by an authority that only one test knows.

use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use tempfile::TempDir;

/// An authority and what it has issued; the files go when it is dropped.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// The files of a certificate, PEM.
pub(crate) struct Issued {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Both in one file.
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

    /// Its own certificate, PEM.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// As a value in TOML.
    pub(crate) fn toml(&self) -> String {
        format!("'{}'", self.file().display())
    }

    /// A certificate for a domain that is valid now.
    pub(crate) fn issue(&self, domain: &str) -> Issued {
        self.issue_for(domain, 2020..=2090)
    }

    /// A certificate for a domain, from the start of one year to the start of another.
    pub(crate) fn issue_for(&self, domain: &str, years: RangeInclusive<i32>) -> Issued {
        // For servers only, as public authorities make them.
        self.issue_with(domain, years, vec![ExtendedKeyUsagePurpose::ServerAuth])
    }

    /// A certificate for a domain that is valid now, for clients as well, as public authorities made them before.
    pub(crate) fn issue_for_both(&self, domain: &str) -> Issued {
        let purposes = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue_with(domain, 2020..=2090, purposes)
    }

    fn issue_with(&self, domain: &str, years: RangeInclusive<i32>, purposes: Vec<ExtendedKeyUsagePurpose>) -> Issued {
        let mut parameters = CertificateParams::new(vec![domain.to_owned()]).unwrap();
        parameters.extended_key_usages = purposes;
        parameters.not_before = date_time_ymd(*years.start(), 1, 1);
        parameters.not_after = date_time_ymd(*years.end(), 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap().pem();
        let write = |name: &str, content: String| {
            let path = self.directory.path().join(format!("{domain}-{}.{name}.pem", years.end()));
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
