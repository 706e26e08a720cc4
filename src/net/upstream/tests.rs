//! Tests of the three kinds of connection, and of the errors that each can report.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::ChannelBinding;
use crate::net::certificate;

/// Returns a certificate for a domain, valid in these years.
fn issued(domain: &str, years: (i32, i32)) -> (String, String) {
    let mut parameters = rcgen::CertificateParams::new(vec![domain.to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn acceptor(pair: &(String, String)) -> TlsAcceptor {
    speaking(&[&TLS12, &TLS13], pair)
}

fn speaking(versions: &[&'static SupportedProtocolVersion], (certificate, key): &(String, String)) -> TlsAcceptor {
    let chain = rustls_pemfile::certs(&mut certificate.as_bytes()).map(Result::unwrap).collect();
    let key: PrivateKeyDer<'_> = rustls_pemfile::private_key(&mut key.as_bytes()).unwrap().unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"xmpp-client".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Starts a server that sends each of these texts after it has received something, then starts TLS and sends `inside`.
async fn server(clear: Vec<String>, acceptor: Option<TlsAcceptor>) -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut received = [0; 1024];
            for text in &clear {
                if tcp.read(&mut received).await.is_ok_and(|count| count > 0) {
                    tcp.write_all(text.as_bytes()).await.unwrap();
                }
            }
            match &acceptor {
                Some(acceptor) => {
                    if let Ok(mut tls) = acceptor.accept(tcp).await {
                        // The client may have closed after the handshake.
                        drop(tls.write_all(b"inside").await);
                        tls.read(&mut received).await.unwrap_or_default();
                    }
                }
                None => drop(tcp.read(&mut received).await),
            }
        }
    });
    Upstream::Tcp(Endpoint { host: "127.0.0.1".to_owned(), port })
}

fn host(upstream: Upstream, tls: UpstreamTls, ca: Option<PathBuf>) -> Host {
    Host {
        domain: "chat.test".to_owned(),
        certificate: PathBuf::new(),
        key: PathBuf::new(),
        upstream,
        upstream_source: Vec::new(),
        upstream_proxy_protocol: ProxyProtocol::Off,
        component: None,
        upstream_tls: tls,
        upstream_ca: ca,
        upstream_insecure: false,
        modern_login: true,
        channel_binding: ChannelBinding::Strip,
    }
}

const TERMS: ConnectTerms = ConnectTerms {
    connect_timeout: Duration::from_secs(5),
    write_timeout: Duration::from_secs(5),
    limits: CLEAR_TEXT,
    tls: None,
};

async fn connected(host: &Host) -> Result<UpstreamStream, ConnectError> {
    let way = Way::new(host, &mut Trusts::default()).unwrap();
    Ok(way.connect(&TERMS, None).await?.into_inner())
}

async fn check_error(host: &Host, what: &str, remedy: &str) {
    let error = connected(host).await.expect_err("no connection");
    assert!(error.to_string().contains(what), "{what} is not in: {error}");
    assert!(error.remedy().contains(remedy), "{remedy} is not in: {}", error.remedy());
}

fn opening(features: &str) -> String {
    let header = crate::xml::stream_header("chat.test", "1", None);
    format!("{}<stream:features>{features}</stream:features>", String::from_utf8_lossy(&header))
}

const OFFER: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";

#[tokio::test]
async fn both_kinds_of_tls_verify_the_domain_of_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    let pair = certificate::self_signed("chat.test").unwrap();
    std::fs::write(&ca, &pair.0).unwrap();
    // Clear text after `<proceed/>` is discarded.
    let proceed = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
    for (tls, clear) in
        [(UpstreamTls::Direct, vec![]), (UpstreamTls::Starttls, vec![opening(OFFER), proceed.to_owned()])]
    {
        let upstream = server(clear, Some(acceptor(&pair))).await;
        let mut stream = connected(&host(upstream, tls, Some(ca.clone()))).await.unwrap();
        assert!(stream.certificate().is_some());
        let mut inside = [0; 6];
        stream.read_exact(&mut inside).await.unwrap();
        assert_eq!(&inside, b"inside");
    }
}

#[tokio::test]
async fn the_version_of_the_client_is_used_if_the_server_supports_it() {
    const BOTH: [ProtocolVersion; 2] = [ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3];
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    let pair = certificate::self_signed("chat.test").unwrap();
    std::fs::write(&ca, &pair.0).unwrap();
    let proceed = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
    for (tls, clear) in
        [(UpstreamTls::Direct, vec![]), (UpstreamTls::Starttls, vec![opening(OFFER), proceed.to_owned()])]
    {
        for (versions, expect) in [
            (&[&TLS12, &TLS13][..], BOTH),
            (&[&TLS12], [ProtocolVersion::TLSv1_2; 2]),
            (&[&TLS13], [ProtocolVersion::TLSv1_3; 2]),
        ] {
            let upstream = server(clear.clone(), Some(speaking(versions, &pair))).await;
            let way = Way::new(&host(upstream, tls, Some(ca.clone())), &mut Trusts::default()).unwrap();
            // The second round relies on the remembered missing version.
            for (wanted, expect) in BOTH.into_iter().zip(expect).chain(BOTH.into_iter().zip(expect)) {
                let conn = way.connect(&ConnectTerms { tls: Some(wanted), ..TERMS }, None).await.unwrap();
                assert_eq!(conn.stream().version(), Some(expect), "{wanted:?} of {versions:?}");
                assert_eq!(way.lacking.has(wanted), wanted != expect);
            }
        }
    }
}

#[tokio::test]
async fn the_error_names_the_fault_of_a_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    for (domain, years, what, remedy) in [
        ("other.test", (2020, 2090), "its certificate is for other.test, not for chat.test", "lists the domain"),
        ("chat.test", (2020, 2021), "its certificate expired at 2021-01-01T00:00:00Z", "renew it"),
        ("chat.test", (2080, 2090), "its certificate is not valid before 2080-01-01T00:00:00Z", "set the clock"),
    ] {
        let pair = issued(domain, years);
        std::fs::write(&ca, &pair.0).unwrap();
        let upstream = server(vec![], Some(acceptor(&pair))).await;
        check_error(&host(upstream, UpstreamTls::Direct, Some(ca.clone())), what, remedy).await;
    }
    // An authority with another name, and one with the same name and another key.
    let shown = issued("chat.test", (2020, 2090));
    for (trusted, what) in [
        (certificate::self_signed("chat.test").unwrap(), "issued by an unknown authority"),
        (issued("chat.test", (2020, 2090)), "not signed by the authority"),
    ] {
        std::fs::write(&ca, &trusted.0).unwrap();
        let upstream = server(vec![], Some(acceptor(&shown))).await;
        check_error(&host(upstream, UpstreamTls::Direct, Some(ca.clone())), what, "upstream_ca").await;
    }
}

#[tokio::test]
async fn the_error_for_another_protocol_names_the_setting_to_change() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    let pair = certificate::self_signed("chat.test").unwrap();
    std::fs::write(&ca, &pair.0).unwrap();
    let with = |upstream, tls| host(upstream, tls, Some(ca.clone()));
    let plain = server(vec![opening(OFFER)], None).await;
    check_error(&with(plain, UpstreamTls::Direct), "does not use TLS", "\"direct\" is for a port that starts with TLS")
        .await;
    let without = server(vec![opening("")], None).await;
    check_error(&with(without, UpstreamTls::Starttls), "does not offer STARTTLS", "upstream_tls = \"off\"").await;
    let failure = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>".to_owned();
    let refuses = server(vec![opening(OFFER), failure], None).await;
    check_error(&with(refuses, UpstreamTls::Starttls), "then refuses it", "give the server a certificate").await;
    let no_xmpp = server(vec!["HTTP/1.1 400 Bad Request\r\n".to_owned()], None).await;
    check_error(&with(no_xmpp, UpstreamTls::Starttls), "no valid XML stream", "with STARTTLS").await;
    let endless = server(vec![format!("{}<a>{}", opening(""), "x".repeat(80 << 10))], None).await;
    check_error(&with(endless, UpstreamTls::Starttls), "does not offer STARTTLS", "").await;
    let flood = server(vec![format!("<?xml version='1.0'?><stream:stream x='{}", "x".repeat(80 << 10))], None).await;
    check_error(&with(flood, UpstreamTls::Starttls), "no valid XML stream", "").await;
}

#[tokio::test]
async fn a_server_that_stays_silent_is_given_up() {
    let upstream = server(vec![String::new()], None).await;
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), certificate::self_signed("chat.test").unwrap().0).unwrap();
    let host = host(upstream, UpstreamTls::Starttls, Some(ca.path().to_owned()));
    let terms = ConnectTerms { connect_timeout: Duration::from_millis(50), ..TERMS };
    let error =
        Way::new(&host, &mut Trusts::default()).unwrap().connect(&terms, None).await.expect_err("no connection");
    assert_eq!(error.to_string(), "cannot connect: no answer within 50ms");
}

#[tokio::test]
async fn without_tls_only_loopback_addresses_are_used_unless_configured() {
    let outside = Upstream::Tcp(Endpoint { host: "192.0.2.1".to_owned(), port: 5222 });
    let mut host = host(outside, UpstreamTls::Off, None);
    check_error(&host, "its name resolves to 192.0.2.1", "upstream_tls = \"starttls\"").await;
    host.upstream = server(vec![], None).await;
    assert!(matches!(connected(&host).await, Ok(UpstreamStream::Plain(_))));
    if let Upstream::Tcp(endpoint) = &mut host.upstream {
        endpoint.host = "localhost".to_owned();
    }
    assert!(matches!(connected(&host).await, Ok(UpstreamStream::Plain(_))));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c2s.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let unix = Host { upstream: Upstream::Unix(path), ..host.clone() };
    assert!(matches!(connected(&unix).await, Ok(UpstreamStream::Plain(Socket::Unix(_)))));
    host.upstream_insecure = true;
    assert!(connected(&host).await.is_ok());
}

#[test]
fn invalid_trust_settings_are_reported_at_loading() {
    let upstream = Upstream::default();
    let fault = |ca: &str| {
        let host = host(upstream.clone(), UpstreamTls::Starttls, Some(PathBuf::from(ca)));
        Ways::load(&[host]).unwrap_err().to_string()
    };
    assert!(fault("/nonexistent/ca.pem").starts_with("cannot read /nonexistent/ca.pem: No such file"));
    assert!(fault(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).contains("contains no certificate"));
}
