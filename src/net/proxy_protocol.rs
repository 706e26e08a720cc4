//! The PROXY protocol, versions 1 and 2: what a proxy in front says of a connection, and what the server behind is told.
//!
//! The specification is HAProxy's `doc/proxy-protocol.txt`; its sections are named below.

use std::io;
use std::net::{IpAddr, SocketAddr};

use memchr::memchr;
use proxy_header::{ParseConfig, Protocol, ProxiedAddress, ProxyHeader, SslInfo, Tlv};
use rustls::{CipherSuite, CommonState, ProtocolVersion};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::config::ProxyProtocol;

/// §2.2: what version 2 starts with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// §2.1: what version 1 starts with.
const START: &[u8] = b"PROXY ";
/// §2.1: the longest header of version 1, with its CRLF.
const LONGEST_V1: usize = 107;
/// §2.2: the signature, the version, the family and the length.
const FIXED_V2: usize = 16;
/// No proxy sends as much: addresses have 216 bytes at most, and TLVs that are known, less than 1 KiB together.
const LONGEST_V2: usize = 4096;
/// §2.2: version 2, command LOCAL.
const LOCAL: u8 = 0x20;

/// Both ends of a client's connection, as the client saw them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub client: SocketAddr,
    /// The address to which it connected.
    pub server: SocketAddr,
}

impl Addresses {
    /// Those of a connection that was accepted from `peer`.
    ///
    /// # Errors
    /// The connection is gone already.
    pub fn of(tcp: &TcpStream, peer: SocketAddr) -> io::Result<Self> {
        Ok(Self { client: peer, server: tcp.local_addr()? }.canonical())
    }

    /// IPv4 is IPv4 wherever it comes from.
    fn canonical(self) -> Self {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Self { client: canonical(self.client), server: canonical(self.server) }
    }

    /// Both of one family, as a header needs them.
    fn of_one_family(self) -> ProxiedAddress {
        let wide = |address: SocketAddr| match address.ip() {
            IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
            IpAddr::V6(_) => address,
        };
        if self.client.is_ipv4() == self.server.is_ipv4() {
            ProxiedAddress::stream(self.client, self.server)
        } else {
            ProxiedAddress::stream(wide(self.client), wide(self.server))
        }
    }
}

/// The TLS of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tls {
    version: &'static str,
    cipher: &'static str,
}

/// A client, as the server behind is told of it.
#[derive(Clone, Copy, Debug)]
pub struct ProxiedClient {
    /// Both ends of its connection.
    pub addresses: Addresses,
    /// Its TLS, as it ends here.
    pub tls: Option<Tls>,
}

/// An error in a PROXY header.
#[derive(Debug, Error)]
pub enum HeaderError {
    /// The connection is broken.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It ended before the header was complete; `0`: at once, as a check of whether the port is open does.
    #[error("the connection ended after {0} bytes")]
    Ended(usize),
    /// It starts with something else.
    #[error("the connection does not start with a PROXY header")]
    Missing,
    /// There is none as large as this.
    #[error("the PROXY header is longer than {limit} bytes")]
    TooLong {
        /// In bytes.
        limit: usize,
    },
    /// It does not say what the specification has it say.
    #[error("the PROXY header is not valid")]
    Invalid,
}

/// Reads the header that a connection starts with, and nothing behind it. `None`: the proxy speaks for itself (LOCAL, as
/// health checks do) or does not know the client (UNKNOWN), so the socket's own addresses hold. TLVs are ignored.
///
/// # Errors
/// [`HeaderError`]; the connection is of no use then.
pub async fn read(tcp: &mut TcpStream) -> Result<Option<Addresses>, HeaderError> {
    let mut header = Vec::new();
    let mut ahead = [0; LONGEST_V1];
    loop {
        let taken = header.len();
        let seen = tcp.peek(&mut ahead).await?;
        header.extend_from_slice(ahead.get(..seen).unwrap_or_default());
        if seen == 0 {
            return Err(HeaderError::Ended(taken));
        }
        let end = end(&header)?;
        header.truncate(end.unwrap_or(usize::MAX));
        // All of this is the header's, so it is taken out of the socket: what is looked at next is new.
        tcp.read_exact(header.get_mut(taken..).unwrap_or_default()).await?;
        if end == Some(header.len()) {
            return parse(&header);
        }
    }
}

/// The end of a header that starts like this, if it is known.
fn end(header: &[u8]) -> Result<Option<usize>, HeaderError> {
    let starts = |with: &[u8]| header.iter().zip(with).all(|(a, b)| a == b);
    if starts(SIGNATURE) {
        let Some((_, [high, low])) = header.get(..FIXED_V2).and_then(|fixed| fixed.split_last_chunk::<2>()) else {
            return Ok(None);
        };
        let end = FIXED_V2 + usize::from(u16::from_be_bytes([*high, *low]));
        return if end <= LONGEST_V2 { Ok(Some(end)) } else { Err(HeaderError::TooLong { limit: LONGEST_V2 }) };
    }
    if !starts(START) {
        return Err(HeaderError::Missing);
    }
    match memchr(b'\n', header) {
        Some(at) if at < LONGEST_V1 => Ok(Some(at + 1)),
        None if header.len() < LONGEST_V1 => Ok(None),
        Some(_) | None => Err(HeaderError::TooLong { limit: LONGEST_V1 }),
    }
}

/// A whole header, and nothing else.
fn parse(header: &[u8]) -> Result<Option<Addresses>, HeaderError> {
    // §2.2: the rest of a LOCAL header is discarded, whatever it says.
    if header.starts_with(SIGNATURE) && header.get(SIGNATURE.len()) == Some(&LOCAL) {
        return Ok(None);
    }
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(header, config) {
        Ok((parsed, length)) if length == header.len() => match parsed.proxied_address() {
            None => Ok(None),
            Some(ProxiedAddress { protocol: Protocol::Stream, source, destination }) => {
                Ok(Some(Addresses { client: *source, server: *destination }.canonical()))
            }
            Some(_) => Err(HeaderError::Invalid),
        },
        Ok(_) | Err(_) => Err(HeaderError::Invalid),
    }
}

/// The PROXY header for the server. It always names an address: ejabberd closes connections that are LOCAL or UNKNOWN.
///
/// # Errors
/// Never with addresses that a socket or a header had.
pub fn header(version: ProxyProtocol, client: &ProxiedClient) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut header = ProxyHeader::with_address(client.addresses.of_one_family());
    let written = match version {
        ProxyProtocol::Off => Ok(()),
        ProxyProtocol::V1 => header.encode_v1(&mut bytes),
        ProxyProtocol::V2 => {
            if let Some(tls) = client.tls {
                header.append_tlv(tls.tlv());
            }
            header.encode_v2(&mut bytes)
        }
    };
    written.map_err(io::Error::other)?;
    Ok(bytes)
}

impl Tls {
    /// The parameters that were agreed on with a client, once the handshake is over.
    pub fn of(connection: &CommonState) -> Option<Self> {
        let version = version(connection.protocol_version()?)?;
        Some(Self { version, cipher: cipher(connection.negotiated_cipher_suite()?.suite())? })
    }

    /// §2.2.6 PP2_TYPE_SSL, as HAProxy sends it with `send-proxy-v2-ssl` and `proxy-v2-options ssl-cipher`. No client
    /// shows a certificate, so none was verified.
    fn tlv(self) -> Tlv<'static> {
        const NOT_VERIFIED: u32 = 1;
        let mut info = SslInfo::new(true, false, false, NOT_VERIFIED);
        info.append_tlv(Tlv::SslVersion(self.version.into()));
        info.append_tlv(Tlv::SslCipher(self.cipher.into()));
        Tlv::Ssl(info)
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "another's enum that grows: no other version is spoken here")]
fn version(version: ProtocolVersion) -> Option<&'static str> {
    match version {
        ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
        ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
        _ => None,
    }
}

/// The names of OpenSSL, which are what HAProxy sends and servers know.
#[expect(clippy::wildcard_enum_match_arm, reason = "another's enum that grows: a test holds that all in use are here")]
fn cipher(suite: CipherSuite) -> Option<&'static str> {
    use CipherSuite as S;
    Some(match suite {
        S::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        S::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        S::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        S::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        S::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        S::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        S::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        S::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        S::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => return None,
    })
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod tests;
