//! Nodes for tests: an authority that exists for one test, and what it issues.

use std::num::NonZeroU8;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

use super::directory::NodeAddress;
use super::node_tls::NodeTls;
use crate::node_id::NodeId;

/// The authority of a cluster.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "cluster");
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// Issues a certificate of a node.
    pub(crate) fn issue(&self) -> Arc<CertifiedKey> {
        self.issue_for(&[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth], 2090)
    }

    /// Issues a certificate for these purposes that expires in this year.
    pub(crate) fn issue_for(&self, purposes: &[ExtendedKeyUsagePurpose], until: i32) -> Arc<CertifiedKey> {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.extended_key_usages = purposes.to_vec();
        (parameters.not_before, parameters.not_after) = (date_time_ymd(2010, 1, 1), date_time_ymd(until, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.0).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(CertifiedKey::from_der(vec![certificate], key, &aws_lc_rs::default_provider()).unwrap())
    }

    /// Returns the TLS of a node.
    pub(crate) fn node(&self) -> NodeTls {
        NodeTls::new(self.issue(), self.roots()).unwrap()
    }
}

/// Returns the number of a node.
pub(crate) fn number(number: u8) -> NodeId {
    NodeId::new(NonZeroU8::new(number).unwrap())
}

/// Returns the address of a node.
pub(crate) fn address(node: u8, address: impl ToString, tls: &NodeTls) -> NodeAddress {
    NodeAddress { node: number(node), epoch: 1, address: address.to_string(), certificate: tls.fingerprint() }
}
