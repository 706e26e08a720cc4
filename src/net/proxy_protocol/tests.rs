//! Tests with headers as proxies send them, in pieces and followed by more bytes, and with invalid headers.

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap().0);
    ours.set_nodelay(true).unwrap();
    (ours, theirs)
}

/// Returns the result of reading these bytes, and the bytes after the header once the sender has closed.
async fn received(bytes: &[u8]) -> (Result<Option<Addresses>, HeaderError>, Vec<u8>) {
    let (mut sender, mut receiver) = pair().await;
    let send = async {
        sender.write_all(bytes).await.unwrap();
        drop(sender);
    };
    let receive = async {
        let read = read(&mut receiver).await;
        let mut rest = Vec::new();
        receiver.read_to_end(&mut rest).await.unwrap_or_default();
        (read, rest)
    };
    tokio::join!(send, receive).1
}

fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, payload].concat()
}

fn addresses(client: &str, server: &str) -> Addresses {
    Addresses { client: client.parse().unwrap(), server: server.parse().unwrap() }
}

/// 192.0.2.7:4660 to 198.51.100.1:5222.
const IPV4: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x34, 0x14, 0x66];

async fn check(header: &[u8], expect: Option<Addresses>) {
    let (read, rest) = received(&[header, b"<?xml version='1.0'?>\n"].concat()).await;
    assert_eq!(read.unwrap(), expect, "{}", header.escape_ascii());
    assert_eq!(rest, b"<?xml version='1.0'?>\n", "{}", header.escape_ascii());
}

async fn check_refused(header: &[u8], expect: &str) {
    let error = received(header).await.0.expect_err("no header was expected").to_string();
    assert_eq!(error, expect, "{}", header.escape_ascii());
}

#[tokio::test]
async fn bytes_after_a_header_stay_in_the_socket() {
    let v4 = addresses("192.0.2.7:4660", "198.51.100.1:5222");
    check(b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 5222\r\n", Some(v4)).await;
    check(&v2(0x21, 0x11, IPV4), Some(v4)).await;
    let v6 = addresses("[2001:db8::7]:1", "[2001:db8::1]:5222");
    check(b"PROXY TCP6 2001:db8::7 2001:db8::1 1 5222\r\n", Some(v6)).await;
    let mapped = b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 4660 5222\r\n";
    check(mapped, Some(v4)).await;
}

#[tokio::test]
async fn a_local_or_unknown_header_keeps_the_sockets_own_address() {
    check(b"PROXY UNKNOWN\r\n", None).await;
    check(b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None).await;
    check(&v2(0x20, 0x00, b""), None).await;
    check(&v2(0x20, 0x11, IPV4), None).await;
    check(&v2(0x20, 0x77, b"anything"), None).await;
    check(&v2(0x21, 0x00, b""), None).await;
    check(&v2(0x21, 0x31, &[b'/'; 216]), None).await;
}

#[tokio::test]
async fn tlvs_are_ignored_up_to_a_bound() {
    let v4 = addresses("192.0.2.7:4660", "198.51.100.1:5222");
    for tlvs in [&b"\x04\0\x02ab\x20\0\x05\x01\0\0\0\x01"[..], b"\x01\xff\xff", b"broken", &[0; 4000]] {
        check(&v2(0x21, 0x11, &[IPV4, tlvs].concat()), Some(v4)).await;
    }
    check_refused(&v2(0x21, 0x11, &[IPV4, &[0; 4096]].concat()), "the PROXY header is longer than 4096 bytes").await;
    let mut endless = v2(0x21, 0x11, IPV4);
    endless[14..16].copy_from_slice(&[0xff, 0xff]);
    check_refused(&endless, "the PROXY header is longer than 4096 bytes").await;
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    let v4 = addresses("192.0.2.7:4660", "198.51.100.1:5222");
    let v1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 5222\r\n".to_vec();
    for header in [v1, v2(0x21, 0x11, &[IPV4, b"\x04\0\x02ab"].concat())] {
        let (mut sender, mut receiver) = pair().await;
        let send = async {
            for byte in [&header[..], b"<"].concat() {
                sender.write_all(&[byte]).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        let (read, ()) = tokio::join!(read(&mut receiver), send);
        assert_eq!(read.unwrap(), Some(v4));
        assert_eq!(receiver.read_u8().await.unwrap(), b'<');
    }
}

#[tokio::test]
async fn other_bytes_are_refused_at_the_first_byte() {
    const MISSING: &str = "the connection does not start with a PROXY header";
    for bytes in [&b"<?xml"[..], b"\x16\x03\x01", b"GET / HTTP/1.1\r\n", b"PROXX", b"\r\n\r\n\r", b"proxy TCP4"] {
        check_refused(bytes, MISSING).await;
    }
    for bytes in [
        &b"PROXY \r\n"[..],
        b"PROXY TCP4\r\n",
        b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        b"PROXY TCP4 1.2.3.4 ::1 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
        b"PROXY UNKNOWN\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rx\n",
    ] {
        check_refused(bytes, "the PROXY header is not valid").await;
    }
    let invalid = [v2(0x11, 0x11, IPV4), v2(0x22, 0x11, IPV4), v2(0x21, 0x12, IPV4), v2(0x21, 0x41, IPV4)];
    let short = [v2(0x21, 0x11, &IPV4[1..]), v2(0x21, 0x21, IPV4), v2(0x21, 0x31, &[0; 215])];
    for bytes in invalid.iter().chain(&short) {
        check_refused(bytes, "the PROXY header is not valid").await;
    }
    check_refused(&[b'P'; 1], "the connection ended after 1 bytes").await;
    check_refused(b"", "the connection ended after 0 bytes").await;
    let endless = [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat();
    check_refused(&endless, "the PROXY header is longer than 107 bytes").await;
}

fn sent(version: ProxyProtocol, client: &ProxiedClient) -> Vec<u8> {
    header(version, client).unwrap()
}

fn client(addresses: Addresses, tls: Option<Tls>) -> ProxiedClient {
    ProxiedClient { addresses, tls }
}

#[test]
fn the_header_for_the_server_has_the_bytes_of_the_specification() {
    let tls = Tls { version: "TLSv1.3", cipher: "TLS_AES_256_GCM_SHA384" };
    let v4 = client(addresses("192.0.2.7:4660", "198.51.100.1:5222"), Some(tls));
    assert_eq!(sent(ProxyProtocol::Off, &v4), b"");
    assert_eq!(sent(ProxyProtocol::V1, &v4), b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 5222\r\n");
    let tlv = b"\x20\0\x28\x01\0\0\0\x01\x21\0\x07TLSv1.3\x23\0\x16TLS_AES_256_GCM_SHA384";
    assert_eq!(tlv.len(), 3 + 5 + 3 + 7 + 3 + 22);
    assert_eq!(tlv[2], 5 + 3 + 7 + 3 + 22);
    let mut expect = v2(0x21, 0x11, &[IPV4, tlv].concat());
    assert_eq!(sent(ProxyProtocol::V2, &v4), expect);
    expect = v2(0x21, 0x11, IPV4);
    assert_eq!(sent(ProxyProtocol::V2, &client(v4.addresses, None)), expect);
    let mixed = client(addresses("192.0.2.7:1", "[2001:db8::1]:2"), None);
    assert_eq!(sent(ProxyProtocol::V1, &mixed), b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n");
}

#[test]
fn every_cipher_suite_in_use_has_a_name() {
    let suites = rustls::crypto::aws_lc_rs::default_provider().cipher_suites;
    assert!(suites.len() >= 9);
    for suite in suites {
        assert!(cipher(suite.suite()).is_some(), "{suite:?}");
    }
}

proptest! {
    /// No bytes cause a panic, or a read beyond the bounds.
    #[test]
    fn hostile_bytes_are_bounded(
        start in prop_oneof![Just(SIGNATURE.to_vec()), Just(START.to_vec()), Just(b"PROXY TCP4 ".to_vec()), Just(Vec::new())],
        rest in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            "[0-9a-f:. TCPUNKOW\r\n]{0,120}".prop_map(String::into_bytes),
            (prop::sample::select(vec![0x20, 0x21]), any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)).prop_map(
                |(command, family, payload)| [&[command, family, 0, payload.len().to_le_bytes()[0]], &payload[..]].concat()
            ),
        ],
    ) {
        let bytes = [start, rest].concat();
        if let Ok(Some(end)) = end(&bytes) {
            prop_assert!(end <= LONGEST_V2);
            if let Some(header) = bytes.get(..end) {
                drop(parse(header));
            }
        }
    }

    /// A header that is written and read back is unchanged.
    #[test]
    fn a_header_is_read_back_unchanged(client: SocketAddr, server: SocketAddr) {
        let clean = |address: SocketAddr| SocketAddr::new(address.ip(), address.port());
        let addresses = Addresses { client: clean(client), server: clean(server) }.canonical();
        for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
            let header = header(version, &ProxiedClient { addresses, tls: None }).unwrap();
            prop_assert_eq!(end(&header).unwrap(), Some(header.len()));
            prop_assert_eq!(parse(&header).unwrap(), Some(addresses));
        }
    }
}
