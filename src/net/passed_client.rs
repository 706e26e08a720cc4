//! The header with which a node of a cluster passes a client on to another node. It has the client's addresses and TLS as the header
//! for the upstream server, and two TLVs of the range for own use (§2.2.7). Only the listener for other nodes reads them.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;

use bytes::{Bytes, BytesMut};
use proxy_header::{ParseConfig, Protocol, ProxiedAddress, ProxyHeader, Tlv};

use super::proxy_protocol::{Addresses, HeaderError, ProxiedClient, SIGNATURE, Tls, end};
use super::wire::Wire;
use crate::secret::Secret;

/// The TLV that marks a client that another node has passed on. Its value is [`HOP`].
const TYPE_HOP: u8 = 0xe0;
/// The number of nodes that have passed the client on. There is never more than one.
const HOP: &[u8] = &[1];
/// The TLV of the channel binding `tls-exporter` (RFC 9266) of the client's connection, 32 bytes.
const TYPE_EXPORTER: u8 = 0xe1;

/// A client whose TLS ends at another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedClient {
    /// The client's addresses and TLS.
    pub proxied: ProxiedClient,
    /// The channel binding of its connection, if it has one.
    pub channel: Option<Secret<[u8; 32]>>,
}

impl PassedClient {
    /// Returns the header for the other node.
    ///
    /// # Errors
    /// Never returned for addresses of a socket or a header.
    pub fn header(&self) -> io::Result<Vec<u8>> {
        let mut header = ProxyHeader::with_address(self.proxied.addresses.of_one_family());
        if let Some(tls) = self.proxied.tls {
            header.append_tlv(tls.tlv());
        }
        header.append_tlv(Tlv::Custom(TYPE_HOP, Cow::Borrowed(HOP)));
        if let Some(channel) = &self.channel {
            header.append_tlv(Tlv::Custom(TYPE_EXPORTER, Cow::Borrowed(channel.expose())));
        }
        let mut bytes = Vec::new();
        header.encode_v2(&mut bytes).map_err(io::Error::other)?;
        Ok(bytes)
    }

    /// Reads the header at the start of a stream from another node. Also returns the bytes that came behind it.
    ///
    /// # Errors
    /// Returns a [`HeaderError`], also for headers of other proxies. The stream is unusable then.
    pub async fn read<S: Wire>(stream: &mut S) -> Result<(Self, BytesMut), HeaderError> {
        let mut received = BytesMut::new();
        loop {
            let starts = received.iter().zip(SIGNATURE).all(|(a, b)| a == b);
            let end = if starts { end(&received)? } else { return Err(HeaderError::Missing) };
            if let Some(end) = end.filter(|end| *end <= received.len()) {
                let header = received.split_to(end).freeze();
                return Ok((Self::parse(&header)?, received));
            }
            if poll_fn(|cx| stream.poll_receive(cx, &mut received)).await? == 0 {
                return Err(HeaderError::Ended(received.len()));
            }
        }
    }

    /// Parses a whole header, without bytes after it.
    pub(super) fn parse(header: &Bytes) -> Result<Self, HeaderError> {
        let (parsed, length) = ProxyHeader::parse(header, ParseConfig::default()).map_err(|_| HeaderError::Invalid)?;
        let Some(ProxiedAddress { protocol: Protocol::Stream, source, destination }) = parsed.proxied_address() else {
            return Err(HeaderError::Invalid);
        };
        if length != header.len() {
            return Err(HeaderError::Invalid);
        }
        let addresses = Addresses { client: *source, server: *destination }.canonical();
        let (mut tls, mut hop, mut channel) = (None, None, None);
        for tlv in parsed.tlvs() {
            // Another version of Pushward may send more.
            let tlv = tlv.map_err(|_| HeaderError::Invalid)?;
            if let Tlv::Ssl(info) = &tlv {
                tls = info.version().zip(info.cipher()).and_then(|(version, cipher)| Tls::named(version, cipher));
            } else if let Tlv::Custom(TYPE_HOP, value) = &tlv {
                set_once(&mut hop, value.to_vec())?;
            } else if let Tlv::Custom(TYPE_EXPORTER, value) = &tlv {
                let value = <[u8; 32]>::try_from(&**value).map_err(|_| HeaderError::Invalid)?;
                set_once(&mut channel, Secret::new(value))?;
            }
        }
        match hop.as_deref() {
            Some(HOP) => Ok(Self { proxied: ProxiedClient { addresses, tls }, channel }),
            Some(_) | None => Err(HeaderError::NotOfNode),
        }
    }
}

/// A TLV that changes the meaning of the connection comes once.
fn set_once<T>(place: &mut Option<T>, value: T) -> Result<(), HeaderError> {
    if place.replace(value).is_some() { Err(HeaderError::Invalid) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::ProtocolVersion;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    fn tls() -> Tls {
        Tls::named("TLSv1.3", "TLS_AES_256_GCM_SHA384").unwrap()
    }

    fn passed(channel: Option<[u8; 32]>) -> PassedClient {
        let addresses =
            Addresses { client: "192.0.2.7:4660".parse().unwrap(), server: "198.51.100.1:5222".parse().unwrap() };
        PassedClient { proxied: ProxiedClient { addresses, tls: Some(tls()) }, channel: channel.map(Secret::new) }
    }

    /// Returns the result of reading these bytes, which come in pieces of this size.
    async fn read(bytes: &[u8], piece: usize) -> Result<(PassedClient, BytesMut), HeaderError> {
        let (mut sender, mut receiver) = duplex(piece);
        let send = async {
            sender.write_all(bytes).await.unwrap();
            drop(sender);
            std::future::pending().await
        };
        tokio::select! {
            read = PassedClient::read(&mut receiver) => read,
            () = send => unreachable!(),
        }
    }

    fn with_tlvs(tlvs: &[u8]) -> Vec<u8> {
        let mut header = passed(None).header().unwrap();
        let hop = [TYPE_HOP, 0, 1, 1];
        assert!(header.ends_with(&hop));
        header.truncate(header.len() - hop.len());
        header.extend_from_slice(tlvs);
        let length = u16::try_from(header.len() - 16).unwrap().to_be_bytes();
        header[14..16].copy_from_slice(&length);
        header
    }

    #[tokio::test]
    async fn a_client_is_read_as_it_was_written_whatever_the_chunks() {
        for (client, piece) in [(passed(Some([7; 32])), 1), (passed(None), 10), (passed(Some([0; 32])), 1000)] {
            let bytes = [&client.header().unwrap()[..], b"<?xml"].concat();
            let (read, rest) = read(&bytes, piece).await.unwrap();
            assert_eq!(read, client);
            assert!(b"<?xml".starts_with(&rest));
        }
        assert_eq!(tls().protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert!(!format!("{:?}", passed(Some([7; 32]))).contains('7'.to_string().repeat(2).as_str()));
    }

    #[tokio::test]
    async fn a_header_without_the_mark_of_a_node_is_refused() {
        let exporter = [&[TYPE_EXPORTER, 0, 32][..], &[7; 32]].concat();
        for tlvs in [&b""[..], &[TYPE_HOP, 0, 0], &[TYPE_HOP, 0, 1, 0], &[TYPE_HOP, 0, 1, 2], &exporter] {
            let error = read(&with_tlvs(tlvs), 1000).await.unwrap_err();
            assert!(matches!(error, HeaderError::NotOfNode), "{error}");
        }
        let hop = [TYPE_HOP, 0, 1, 1];
        let short = [&hop[..], &[TYPE_EXPORTER, 0, 31], &[7; 31]].concat();
        let twice = [&hop[..], &exporter, &exporter].concat();
        for tlvs in [&short, &twice, &[&hop[..], &hop].concat(), &[&hop[..], &[0xe2, 0, 9]].concat()] {
            let error = read(&with_tlvs(tlvs), 1000).await.unwrap_err();
            assert!(matches!(error, HeaderError::Invalid), "{error}");
        }
        let unknown = [&[0xe2, 0, 1, 5][..], &hop, &exporter].concat();
        assert!(read(&with_tlvs(&unknown), 1000).await.is_ok(), "later versions may add some");
    }

    #[tokio::test]
    async fn other_bytes_are_refused() {
        for (bytes, expect) in [
            (&b"<?xml version='1.0'?>"[..], "does not start with"),
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 5222\r\n", "does not start with"),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "is not valid"),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", "longer than"),
            (b"\r\n\r\n\0\r\nQUIT\n\x21", "ended after 13 bytes"),
            (b"", "ended after 0 bytes"),
        ] {
            let error = read(bytes, 1000).await.unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        }
    }

    proptest! {
        /// No bytes cause a panic.
        #[test]
        fn hostile_tlvs_are_bounded(tlvs in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(PassedClient::parse(&with_tlvs(&tlvs).into()));
        }
    }
}
