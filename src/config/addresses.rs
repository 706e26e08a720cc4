//! Comparison of addresses: whether one is of this machine, or of a listener.

use std::net::IpAddr;

use super::endpoint::Endpoint;
use super::listen::Listen;

pub(super) fn is_loopback(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    // RFC 6761 §6.3: every name below localhost is loopback.
    name == "localhost"
        || name.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

pub(super) fn leads_to(upstream: &Endpoint, listener: &Listen) -> bool {
    let listening = listener.address.ip().to_canonical();
    let same_host = match upstream.host.parse::<IpAddr>() {
        Ok(address) => {
            let address = address.to_canonical();
            let any_of_family = listening.is_unspecified() && (listening.is_ipv6() || address.is_ipv4());
            address == listening || (any_of_family && address.is_loopback())
        }
        Err(_) => is_loopback(&upstream.host) && (listening.is_unspecified() || listening.is_loopback()),
    };
    same_host && upstream.port == listener.address.port()
}
