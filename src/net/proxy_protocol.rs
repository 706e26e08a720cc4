//! The PROXY protocol, versions 1 and 2: reading the header that a proxy sends in front of a client's connection, and
//! writing the header for the upstream server.
//!
//! The specification is HAProxy's `doc/proxy-protocol.txt`. The section numbers below refer to it.

use std::io;
use std::net::{IpAddr, SocketAddr};

use memchr::memchr;
use proxy_header::{ParseConfig, Protocol, ProxiedAddress, ProxyHeader, SslInfo, Tlv};
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use rustls::{CipherSuite, CommonState, ProtocolVersion};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::config::ProxyProtocol;

/// §2.2: the first bytes of version 2.
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// §2.1: the first bytes of version 1.
const START: &[u8] = b"PROXY ";
/// §2.1: the maximum length of a version 1 header, including CRLF.
const LONGEST_V1: usize = 107;
/// §2.2: the length of signature, version, family and length.
const FIXED_V2: usize = 16;
/// The maximum accepted length of a version 2 header. Proxies send less: addresses have at most 216 bytes, and the
/// known TLVs together less than 1 KiB.
const LONGEST_V2: usize = 4096;
/// The versions of TLS that are spoken with clients, and their names.
const VERSIONS: [(ProtocolVersion, &str); 2] =
    [(ProtocolVersion::TLSv1_2, "TLSv1.2"), (ProtocolVersion::TLSv1_3, "TLSv1.3")];
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
    /// Returns the addresses of a connection that was accepted from `peer`.
    ///
    /// # Errors
    /// Returns an error if the connection is closed already.
    pub fn of(tcp: &TcpStream, peer: SocketAddr) -> io::Result<Self> {
        Ok(Self { client: peer, server: tcp.local_addr()? }.canonical())
    }

    /// Converts IPv4-mapped IPv6 addresses to IPv4.
    pub(super) fn canonical(self) -> Self {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Self { client: canonical(self.client), server: canonical(self.server) }
    }

    /// Returns both addresses in one family, as a header requires.
    pub(super) fn of_one_family(self) -> ProxiedAddress {
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

/// The client's properties that the header for the upstream server contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxiedClient {
    /// Both ends of the client's connection.
    pub addresses: Addresses,
    /// The TLS of the client's connection, which ends here.
    pub tls: Option<Tls>,
}

/// An error in a PROXY header.
#[derive(Debug, Error)]
pub enum HeaderError {
    /// The connection is broken.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The connection ended before the header was complete. `0` means that it ended at once, as a check for an open
    /// port does.
    #[error("the connection ended after {0} bytes")]
    Ended(usize),
    /// The connection starts with other bytes.
    #[error("the connection does not start with a PROXY header")]
    Missing,
    /// The header is longer than any valid one.
    #[error("the PROXY header is longer than {limit} bytes")]
    TooLong {
        /// The maximum in bytes.
        limit: usize,
    },
    /// The header violates the specification.
    #[error("the PROXY header is not valid")]
    Invalid,
    /// The header is not that of a node that passes a client on.
    #[error("the PROXY header is not that of another node")]
    NotOfNode,
}

/// Reads the header at the start of a connection, and nothing after it. Returns `None` if the proxy connects for itself
/// (LOCAL, for example a health check) or does not know the client (UNKNOWN); then the socket's own addresses apply.
/// TLVs are ignored.
///
/// # Errors
/// Returns a [`HeaderError`], after which the connection is unusable.
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
        // All these bytes belong to the header, so they are removed from the socket. The next peek sees new bytes.
        tcp.read_exact(header.get_mut(taken..).unwrap_or_default()).await?;
        if end == Some(header.len()) {
            return parse(&header);
        }
    }
}

/// Returns the end of a header that starts with these bytes, if the end is known.
pub(super) fn end(header: &[u8]) -> Result<Option<usize>, HeaderError> {
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

/// Parses a whole header, without bytes after it.
fn parse(header: &[u8]) -> Result<Option<Addresses>, HeaderError> {
    // §2.2: the rest of a LOCAL header is discarded, whatever it contains.
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

/// Returns the PROXY header for the upstream server. It always contains an address, because ejabberd closes connections
/// with a LOCAL or UNKNOWN header.
///
/// # Errors
/// Never returned for addresses of a socket or a header.
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
    /// Returns the negotiated parameters of a client's connection, after the handshake.
    pub fn of(connection: &CommonState) -> Option<Self> {
        let version = connection.protocol_version()?;
        let (_, version) = VERSIONS.into_iter().find(|(spoken, _)| *spoken == version)?;
        Some(Self { version, cipher: cipher(connection.negotiated_cipher_suite()?.suite())? })
    }

    /// Returns the version.
    pub fn protocol_version(&self) -> Option<ProtocolVersion> {
        VERSIONS.into_iter().find(|(_, name)| *name == self.version).map(|(version, _)| version)
    }

    /// Returns the parameters with these names. `None` if one is not known here.
    pub(super) fn named(version: &str, cipher_name: &str) -> Option<Self> {
        let (_, version) = VERSIONS.into_iter().find(|(_, name)| *name == version)?;
        let mut ciphers = ALL_CIPHER_SUITES.iter().filter_map(|suite| cipher(suite.suite()));
        Some(Self { version, cipher: ciphers.find(|name| *name == cipher_name)? })
    }

    /// Returns PP2_TYPE_SSL (§2.2.6), as HAProxy sends it with `send-proxy-v2-ssl` and `proxy-v2-options ssl-cipher`.
    /// Clients send no certificate, so none was verified.
    pub(super) fn tlv(self) -> Tlv<'static> {
        const NOT_VERIFIED: u32 = 1;
        let mut info = SslInfo::new(true, false, false, NOT_VERIFIED);
        info.append_tlv(Tlv::SslVersion(self.version.into()));
        info.append_tlv(Tlv::SslCipher(self.cipher.into()));
        Tlv::Ssl(info)
    }
}

/// Returns the OpenSSL name of a cipher suite. HAProxy sends these names, and servers know them.
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
