//! TLS with clients: [`Certificates`] chooses the certificate and the other settings of a handshake.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use super::exporter::ExporterLog;
use crate::jid;

/// The ALPN name of client connections (XEP-0368 §4).
pub(super) const ALPN: &[u8] = b"xmpp-client";

/// The certificates of all hosts, with the TLS settings that choose among them.
#[derive(Clone, Debug)]
pub struct Certificates {
    by_host: HashMap<String, TlsSettings>,
    fallback: TlsSettings,
}

/// The settings for connections to one host.
#[derive(Clone, Debug)]
struct TlsSettings {
    plain: Arc<ServerConfig>,
    alpn: Arc<ServerConfig>,
}

impl Certificates {
    /// Takes the certificates by domain. The first one is for clients that indicate no name.
    ///
    /// # Errors
    /// Returns an error if there are no certificates, or if the TLS library cannot be set up, for example without
    /// randomness.
    pub fn new(keys: &[(String, Arc<CertifiedKey>)]) -> Result<Self, rustls::Error> {
        let first = keys.first().map(|(_, key)| Arc::clone(key)).ok_or(rustls::Error::NoCertificatesPresented)?;
        let by_name: HashMap<_, _> = keys.iter().map(|(domain, key)| (ascii(domain), Arc::clone(key))).collect();
        let by_name = Arc::new(by_name);
        let settings = |key: &Arc<CertifiedKey>| {
            TlsSettings::new(Arc::new(Resolver { by_name: Arc::clone(&by_name), fallback: Arc::clone(key) }))
        };
        let fallback = settings(&first)?;
        let by_host = keys.iter().map(|(domain, key)| Ok((ascii(domain), settings(key)?)));
        let by_host = by_host.collect::<Result<_, rustls::Error>>()?;
        Ok(Self { by_host, fallback })
    }

    /// Returns the TLS settings of a connection that asked for STARTTLS. Its certificate is that of the server name
    /// indicated by the client (RFC 6066 §3), else that of `host`, the `to` of its stream header, else that of the
    /// first host.
    pub fn starttls_config(&self, host: Option<&str>) -> Arc<ServerConfig> {
        let settings = host.and_then(|host| self.by_host.get(&ascii(host))).unwrap_or(&self.fallback);
        Arc::clone(&settings.plain)
    }

    /// Returns the TLS settings of a connection with direct TLS (XEP-0368), which has sent no `to`. If the client
    /// offers `xmpp-client`, it is selected. Clients that offer only other protocols are refused with
    /// `no_application_protocol` (RFC 7301 §3.2).
    pub fn direct_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.fallback.alpn)
    }
}

impl TlsSettings {
    fn new(resolver: Arc<Resolver>) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        // Tickets resume sessions of both versions, so the server keeps no state for disconnected clients.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        // 0-RTT data could be replayed, and it would carry passwords.
        config.max_early_data_size = 0;
        config.key_log = Arc::new(ExporterLog);
        let mut alpn = config.clone();
        alpn.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { plain: Arc::new(config), alpn: Arc::new(alpn) })
    }
}

/// Chooses the certificate by server name, else the fallback of the settings.
struct Resolver {
    by_name: Arc<HashMap<String, Arc<CertifiedKey>>>,
    fallback: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.by_name.get(&name.to_ascii_lowercase()));
        Some(Arc::clone(named.unwrap_or(&self.fallback)))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

/// Returns the form in which a domain appears in TLS (RFC 6066 §3).
pub(super) fn ascii(domain: &str) -> String {
    jid::ascii(domain).unwrap_or_else(|| domain.to_ascii_lowercase())
}

#[cfg(test)]
pub(super) mod tests {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use rustls::{
        AlertDescription, ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore,
        ServerConnection, SupportedProtocolVersion,
    };

    use super::*;
    use crate::net::certificate;

    const DOMAINS: [&str; 3] = ["one.test", "two.test", "drei-mühlen.test"];

    pub(in crate::net) struct Fixture {
        pub(in crate::net) certificates: Certificates,
        leaves: HashMap<&'static str, CertificateDer<'static>>,
    }

    impl Fixture {
        pub(in crate::net) fn new() -> Self {
            let mut leaves = HashMap::new();
            let keys = DOMAINS.map(|domain| {
                let (certificate, key) = certificate::self_signed(domain).unwrap();
                let chain: Vec<_> = rustls_pemfile::certs(&mut certificate.as_bytes()).map(Result::unwrap).collect();
                let key: PrivateKeyDer<'_> = rustls_pemfile::private_key(&mut key.as_bytes()).unwrap().unwrap();
                leaves.insert(domain, chain[0].clone());
                let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).unwrap();
                (domain.to_owned(), Arc::new(key))
            });
            Self { certificates: Certificates::new(&keys).unwrap(), leaves }
        }

        pub(in crate::net) fn roots(&self) -> RootCertStore {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(self.leaves.values().cloned());
            roots
        }

        pub(in crate::net) fn client(&self, version: &'static SupportedProtocolVersion, alpn: &[&str]) -> ClientConfig {
            let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(self.roots())
                .with_no_client_auth();
            config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
            config
        }

        /// Returns the host whose certificate a client receives that indicates `sni`, while its stream is for `to`.
        fn shown(&self, sni: Option<&str>, to: Option<&str>) -> &'static str {
            let mut config = self.client(&TLS13, &[]);
            config.enable_sni = sni.is_some();
            // A client that indicates no name still verifies one, and reports another certificate as an error.
            DOMAINS
                .into_iter()
                .find(|domain| {
                    let expected = sni.unwrap_or(domain);
                    let server = self.certificates.starttls_config(to);
                    match handshake(config.clone(), expected, server) {
                        Ok((client, _)) => client.peer_certificates().unwrap()[0] == self.leaves[domain],
                        Err(_) => false,
                    }
                })
                .expect("a certificate of ours")
        }
    }

    /// Both ends of a completed handshake.
    fn handshake(
        config: ClientConfig,
        domain: &str,
        server: Arc<ServerConfig>,
    ) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
        let name = ServerName::try_from(ascii(domain)).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut server = ServerConnection::new(server).unwrap();
        let mut failed = None;
        while client.wants_write() || server.wants_write() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            feed(&wire, |bytes| server.read_tls(bytes));
            failed = failed.or(server.process_new_packets().err());
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            feed(&wire, |bytes| client.read_tls(bytes));
            client.process_new_packets()?;
        }
        match failed {
            Some(error) => Err(error),
            None => Ok((client, server)),
        }
    }

    fn feed(mut wire: &[u8], mut read: impl FnMut(&mut &[u8]) -> std::io::Result<usize>) {
        while !wire.is_empty() {
            read(&mut wire).unwrap();
        }
    }

    #[test]
    fn the_indicated_name_chooses_the_certificate() {
        let fixture = Fixture::new();
        for domain in DOMAINS {
            assert_eq!(fixture.shown(Some(domain), None), domain);
            assert_eq!(fixture.shown(Some(domain), Some("one.test")), domain);
        }
        assert_eq!(fixture.shown(Some("TWO.test"), None), "two.test");
    }

    /// docs/operating.md documents this. Once the library has a setting for it, sending the fallback certificate is better.
    #[test]
    fn a_name_that_is_not_ascii_is_refused_by_the_library() {
        let fixture = Fixture::new();
        let refuses = |name: &[u8]| {
            let domain = ServerName::try_from("two.test").unwrap();
            let mut client = ClientConnection::new(Arc::new(fixture.client(&TLS13, &[])), domain).unwrap();
            let mut server = ServerConnection::new(fixture.certificates.starttls_config(None)).unwrap();
            let mut hello = Vec::new();
            client.write_tls(&mut hello).unwrap();
            let at = hello.windows(name.len()).position(|bytes| bytes == b"two.test").expect("the name in the hello");
            hello[at..at + name.len()].copy_from_slice(name);
            feed(&hello, |bytes| server.read_tls(bytes));
            server.process_new_packets().is_err()
        };
        assert!(!refuses(b"two.test"));
        assert!(refuses("z\u{f6}.test".as_bytes()));
    }

    #[test]
    fn without_a_name_the_stream_chooses_and_then_the_first_host() {
        let fixture = Fixture::new();
        assert_eq!(fixture.shown(None, Some("two.test")), "two.test");
        assert_eq!(fixture.shown(None, Some("Drei-Mühlen.test")), "drei-mühlen.test");
        assert_eq!(fixture.shown(None, Some("unknown.test")), "one.test");
        assert_eq!(fixture.shown(None, None), "one.test");
    }

    #[test]
    fn both_versions_are_spoken_and_their_sessions_resumed() {
        let fixture = Fixture::new();
        for (version, expect) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
            let config = fixture.client(version, &[]);
            let server = fixture.certificates.starttls_config(Some("two.test"));
            let (client, _) = handshake(config.clone(), "two.test", Arc::clone(&server)).unwrap();
            assert_eq!(client.protocol_version(), Some(expect));
            assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
            let (client, _) = handshake(config, "two.test", server).unwrap();
            assert_eq!(client.handshake_kind(), Some(HandshakeKind::Resumed), "{expect:?}");
        }
    }

    #[test]
    fn alpn_is_agreed_on_where_it_is_offered_and_only_then() {
        let fixture = Fixture::new();
        for version in [&TLS12, &TLS13] {
            let (direct, starttls) = (fixture.certificates.direct_config(), fixture.certificates.starttls_config(None));
            let agreed = |offered: &[&str], server: &Arc<ServerConfig>| {
                let (client, _) = handshake(fixture.client(version, offered), "one.test", Arc::clone(server))?;
                Ok::<_, rustls::Error>(client.alpn_protocol().map(<[u8]>::to_vec))
            };
            assert_eq!(agreed(&["xmpp-client"], &direct).unwrap().as_deref(), Some(ALPN));
            assert_eq!(agreed(&["h2", "xmpp-client"], &direct).unwrap().as_deref(), Some(ALPN));
            assert_eq!(agreed(&[], &direct).unwrap(), None);
            assert_eq!(agreed(&["xmpp-client"], &starttls).unwrap(), None);
            let refused = agreed(&["xmpp-server", "h2"], &direct).unwrap_err();
            assert_eq!(refused, rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol));
        }
    }
}
