//! Fuzz target: PROXY headers of both versions.

use bytes::Bytes;

use super::{Addresses, HeaderError, LONGEST_V1, LONGEST_V2, ProxiedClient, Tls, end, header, parse};
use crate::config::ProxyProtocol;
use crate::net::passed_client::PassedClient;

/// Reads a header as it comes byte by byte, and writes what it says again. Reads it as that of another node, too.
pub(crate) fn proxy_header(data: &[u8]) {
    passed_client(data);
    let Some((length, parsed)) = read(data) else { return };
    assert!(length <= data.len().min(LONGEST_V1.max(LONGEST_V2)));
    let Ok(Some(addresses)) = parsed else { return };
    assert_eq!(addresses, addresses.canonical());
    let tls = [None, Some(Tls { version: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256" })];
    for (version, tls) in [(ProxyProtocol::V1, tls[0]), (ProxyProtocol::V2, tls[0]), (ProxyProtocol::V2, tls[1])] {
        let Ok(written) = header(version, &ProxiedClient { addresses, tls }) else { panic!("{addresses:?}") };
        let again = read(&[&written[..], b"<?xml"].concat());
        let Some((length, Ok(Some(again)))) = again else { panic!("{again:?} of {}", written.escape_ascii()) };
        assert_eq!((length, again), (written.len(), addresses), "{}", written.escape_ascii());
    }
}

/// Reads the header of a client that another node has passed on, and writes what it says again.
fn passed_client(data: &[u8]) {
    let Ok(client) = PassedClient::parse(&Bytes::copy_from_slice(data)) else { return };
    let Ok(written) = client.header() else { panic!("{client:?}") };
    let again = PassedClient::parse(&written.into());
    assert!(again.is_ok_and(|again| again == client), "{client:?} is read in another way");
}

type Parsed = Result<Option<Addresses>, HeaderError>;

/// Returns the length of the header and what it says. `None` if its end has not come, or if it is refused before.
fn read(data: &[u8]) -> Option<(usize, Parsed)> {
    let mut known = None;
    for seen in 1..=data.len().min(LONGEST_V2 + 1) {
        let prefix = data.get(..seen).unwrap_or_default();
        let Ok(found) = end(prefix) else {
            assert!(known.is_none(), "a header is refused behind its end");
            return None;
        };
        assert!(known.is_none() || found == known, "the end moves from {known:?} to {found:?}");
        known = found;
        // A reader must make progress: the end is not before what it has taken.
        assert!(found.is_none_or(|end| end >= seen), "the end, {found:?}, was passed at {seen}");
        if found == Some(seen) {
            return Some((seen, parse(prefix)));
        }
    }
    None
}
