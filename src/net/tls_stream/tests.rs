use rustls::SupportedProtocolVersion;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::join;
use tokio_rustls::TlsConnector;
use tokio_rustls::client;

use super::*;
use crate::net::tls::tests::Fixture;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

type Server = TlsStream<DuplexStream>;
type Client = client::TlsStream<DuplexStream>;

async fn connect(io: DuplexStream, fixture: &Fixture, version: &'static SupportedProtocolVersion) -> Client {
    let connector = TlsConnector::from(Arc::new(fixture.client(version, &[])));
    connector.connect(ServerName::try_from("one.test").unwrap(), io).await.unwrap()
}

/// Returns both ends of a connection that can hold this many bytes in flight.
async fn pair(version: &'static SupportedProtocolVersion, on_their_way: usize) -> (Server, Client) {
    let fixture = Fixture::new();
    let (ours, theirs) = duplex(on_their_way);
    let config = fixture.certificates.starttls_config(None);
    let (server, client) = join!(TlsStream::accept(ours, config), connect(theirs, &fixture, version));
    (server.unwrap(), client)
}

async fn receive(server: &mut Server, into: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|cx| server.poll_receive(cx, into)).await
}

async fn send(server: &mut Server, bytes: &[u8]) -> io::Result<()> {
    let mut from = BytesMut::from(bytes);
    poll_fn(|cx| server.poll_send(cx, &mut from)).await
}

fn pattern(len: usize) -> Vec<u8> {
    (0..251).cycle().take(len).collect()
}

/// Echoes all bytes until the client ends, then ends.
async fn echo(io: DuplexStream, config: Arc<ServerConfig>) {
    let mut server = TlsStream::accept(io, config).await.unwrap();
    let mut received = BytesMut::new();
    // The remaining handshake bytes are sent first.
    send(&mut server, &[]).await.unwrap();
    while receive(&mut server, &mut received).await.unwrap() > 0 {
        send(&mut server, &received.split()).await.unwrap();
    }
    poll_fn(|cx| server.poll_close(cx)).await.unwrap();
}

#[tokio::test]
async fn bytes_pass_both_ways_whatever_the_chunks() {
    let fixture = Fixture::new();
    let config = fixture.certificates.starttls_config(None);
    for version in VERSIONS {
        for (on_their_way, len) in [(1, 700), (7, 5_000), (4_096, 200_000), (1 << 20, 200_000)] {
            let (ours, theirs) = duplex(on_their_way);
            let (sent, mut back) = (pattern(len), Vec::new());
            let client = async {
                let (mut from_server, mut to_server) = tokio::io::split(connect(theirs, &fixture, version).await);
                let write = async {
                    to_server.write_all(&sent).await.unwrap();
                    to_server.shutdown().await.unwrap();
                };
                join!(write, from_server.read_to_end(&mut back)).1
            };
            let (_, read) = join!(echo(ours, Arc::clone(&config)), client);
            read.expect("an end with notice");
            assert!(back == sent, "{version:?}, {on_their_way} on their way: {} of {len} bytes", back.len());
        }
    }
}

#[tokio::test]
async fn tickets_are_sent_with_the_first_data() {
    let (mut server, mut client) = pair(&TLS13, 1 << 16).await;
    assert_eq!((server.unsent(), client.get_ref().1.tls13_tickets_received()), (0, 0));
    assert!(server.tickets && !server.sealed.is_empty());
    send(&mut server, b"hello").await.unwrap();
    assert!(server.sealed.is_empty());
    let mut received = [0; 5];
    client.read_exact(&mut received).await.unwrap();
    assert_eq!((&received, client.get_ref().1.tls13_tickets_received()), (b"hello", 1));

    // A server without data to send still closes in order.
    let (mut server, mut client) = pair(&TLS13, 1 << 16).await;
    poll_fn(|cx| server.poll_close(cx)).await.unwrap();
    assert_eq!(client.read(&mut received).await.unwrap(), 0);
    assert_eq!(client.get_ref().1.tls13_tickets_received(), 1);
}

#[tokio::test]
async fn data_directly_after_the_handshake_is_not_lost() {
    let fixture = Fixture::new();
    let (ours, theirs) = duplex(1 << 16);
    let config = fixture.certificates.starttls_config(None);
    let hasty = async {
        let mut client = connect(theirs, &fixture, &TLS13).await;
        client.write_all(b"at once").await.unwrap();
        client.flush().await.unwrap();
        client
    };
    let (server, _client) = join!(TlsStream::accept(ours, config), hasty);
    let mut server = server.unwrap();
    assert_eq!(&server.early[..], b"at once", "it came with the end of the handshake");
    let mut received = BytesMut::new();
    assert_eq!(receive(&mut server, &mut received).await.unwrap(), 7);
    assert_eq!(&received[..], b"at once");
}

#[tokio::test]
async fn an_orderly_end_differs_from_one_without_notice() {
    for version in VERSIONS {
        let (mut server, mut client) = pair(version, 1 << 16).await;
        client.write_all(b"last").await.unwrap();
        client.shutdown().await.unwrap();
        let mut received = BytesMut::new();
        assert_eq!(receive(&mut server, &mut received).await.unwrap(), 4);
        assert_eq!(receive(&mut server, &mut received).await.unwrap(), 0);
        assert_eq!(receive(&mut server, &mut received).await.unwrap(), 0);

        let (mut server, client) = pair(version, 1 << 16).await;
        drop(client);
        let error = receive(&mut server, &mut received).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn new_keys_are_taken_and_answered() {
    let (mut server, mut client) = pair(&TLS13, 1 << 16).await;
    for round in 0..3 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(&pattern(50_000)).await.unwrap();
        client.flush().await.unwrap();
        let mut received = BytesMut::new();
        while received.len() < 50_000 {
            receive(&mut server, &mut received).await.unwrap();
        }
        assert!(received == pattern(50_000), "round {round}");
        send(&mut server, b"thanks").await.unwrap();
        let mut answer = [0; 6];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"thanks");
    }
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_receives_an_alert() {
    const ALERT: u8 = 21;
    let fixture = Fixture::new();
    let (ours, mut theirs) = duplex(1 << 16);
    theirs.write_all(b"<?xml version='1.0'?><stream:stream to='one.test'>").await.unwrap();
    let error = TlsStream::accept(ours, fixture.certificates.starttls_config(None)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    let mut answer = Vec::new();
    theirs.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.first(), Some(&ALERT), "{answer:?}");
}

#[tokio::test]
async fn a_record_that_was_tampered_with_ends_the_connection() {
    let (mut server, mut client) = pair(&TLS13, 1 << 16).await;
    client.write_all(b"good").await.unwrap();
    client.flush().await.unwrap();
    let forged = [&[23, 3, 3, 0, 40][..], &[7; 40]].concat();
    client.get_mut().0.write_all(&forged).await.unwrap();
    let mut received = BytesMut::new();
    let error = receive(&mut server, &mut received).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    drop(server);
    let error = client.read(&mut [0]).await.unwrap_err();
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
}

#[tokio::test]
async fn an_incomplete_record_is_bounded() {
    // A handshake message announced as longer than allowed (RFC 8446 §4), sent one record at a time.
    let fixture = Fixture::new();
    let (ours, mut theirs) = duplex(1 << 20);
    let hello = [&[22, 3, 1, 0x40, 0, 1, 0, 0xFF, 0xFF][..], &[0; 0x3FFC]].concat();
    theirs.write_all(&hello).await.unwrap();
    let more = [&[22, 3, 1, 0, 1][..], &[0]].concat();
    theirs.write_all(&more.repeat(40_000)).await.unwrap();
    let error = TlsStream::accept(ours, fixture.certificates.starttls_config(None)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
}

#[tokio::test]
async fn encryption_for_a_client_that_does_not_read_is_bounded() {
    let (mut server, mut client) = pair(&TLS13, 1_000).await;
    let mut from = BytesMut::from(&pattern(1_000_000)[..]);
    let pending = poll_fn(|cx| Poll::Ready(server.poll_send(cx, &mut from).is_pending())).await;
    assert!(pending);
    assert_eq!(from.len(), 1_000_000 - SEAL);
    assert!(server.unsent() < SEAL + 1_000, "{}", server.unsent());
    let mut back = vec![0; 1_000_000];
    let (sent, read) = join!(poll_fn(|cx| server.poll_send(cx, &mut from)), client.read_exact(&mut back));
    sent.unwrap();
    read.unwrap();
    assert!(back == pattern(1_000_000));
    assert_eq!(server.unsent(), 0);
}

/// RFC 9266 §4.2. The client is the TLS library itself.
#[tokio::test]
async fn both_ends_of_a_connection_have_the_same_channel_binding() {
    const LABEL: &[u8] = b"EXPORTER-Channel-Binding";
    let exported = |client: &Client| client.get_ref().1.export_keying_material([0; 32], LABEL, Some(b"")).unwrap();
    let (first, first_client) = pair(&TLS13, 1 << 16).await;
    let (second, second_client) = pair(&TLS13, 1 << 16).await;
    assert_eq!(first.channel_binding(), Some(exported(&first_client)));
    assert_eq!(second.channel_binding(), Some(exported(&second_client)));
    assert_ne!(first.channel_binding(), second.channel_binding());
    let (old, _client) = pair(&TLS12, 1 << 16).await;
    assert_eq!(old.channel_binding(), None);
}

/// The suites have hashes of different lengths.
#[tokio::test]
async fn the_channel_binding_does_not_depend_on_the_suite_or_on_how_tls_was_resumed() {
    let fixture = Fixture::new();
    let config = fixture.certificates.starttls_config(None);
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    for suite in provider.cipher_suites.iter().filter(|suite| suite.tls13().is_some()) {
        let only = rustls::crypto::CryptoProvider { cipher_suites: vec![*suite], ..provider.clone() };
        let settings = rustls::ClientConfig::builder_with_provider(Arc::new(only))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(fixture.roots())
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(settings));
        for kind in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
            let (ours, theirs) = duplex(1 << 16);
            let name = ServerName::try_from("one.test").unwrap();
            let (server, client) = join!(TlsStream::accept(ours, Arc::clone(&config)), connector.connect(name, theirs));
            let (mut server, mut client) = (server.unwrap(), client.unwrap());
            assert_eq!(client.get_ref().1.handshake_kind(), Some(kind), "{suite:?}");
            let exported = client.get_ref().1.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None);
            assert_eq!(server.channel_binding(), Some(exported.unwrap()), "{suite:?} {kind:?}");
            // The ticket for the next connection.
            send(&mut server, b"x").await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
        }
    }
}
