//! `[[listen]]`: the addresses that clients connect to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::overlap::overlaps;
use super::section::Section;
use super::value::Wrong;

/// An address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address; port 0 lets the system choose.
    pub address: SocketAddr,
    /// The start of TLS.
    pub tls: ListenTls,
    /// The trusted proxies, if every connection to this address must start with a PROXY header; `None` if clients connect
    /// directly.
    pub proxies: Option<TrustedProxies>,
}

/// The proxies whose PROXY headers are trusted. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Returns whether this address is one of them.
    pub fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl Default for TrustedProxies {
    /// Returns the loopback networks.
    fn default() -> Self {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8);
        Self(vec![v4.into(), Ipv6Net::from(Ipv6Addr::LOCALHOST).into()])
    }
}

/// The start of TLS on a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenTls {
    /// After `<starttls/>` (RFC 6120 §5).
    Starttls,
    /// From the first byte (XEP-0368).
    Direct,
}

impl Default for Listen {
    fn default() -> Self {
        Self { address: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 5222)), tls: ListenTls::Starttls, proxies: None }
    }
}

pub(super) fn listeners(sections: Vec<Section<'_>>) -> Vec<Listen> {
    let mut listeners: Vec<Listen> = Vec::new();
    for mut section in sections {
        let default = Listen::default();
        let line = section.line_of("address");
        let address = section.parsed("address", address).map_or(default.address, |at| at.value);
        let tls =
            section.choice("tls", default.tls, &[("starttls", ListenTls::Starttls), ("direct", ListenTls::Direct)]);
        if let Some(other) = listeners.iter().find(|other| overlaps(other.address, address)) {
            let what = if other.address == address {
                format!("{address} is in two [[listen]] sections")
            } else {
                format!("{address} and {}, of another [[listen]], cannot be used at the same time", other.address)
            };
            section.problem(line, "address", what, "remove one of them, or choose another port");
        }
        let proxies = proxies(&mut section);
        section.finish();
        listeners.push(Listen { address, tls, proxies });
    }
    listeners
}

fn proxies(section: &mut Section<'_>) -> Option<TrustedProxies> {
    let line = section.line_of("trusted_proxies");
    let behind = section.boolean("proxy_protocol", false);
    let networks = section.list("trusted_proxies", network).unwrap_or_default();
    if !networks.is_empty() && !behind {
        let remedy = "set proxy_protocol = true, or remove the key";
        section.problem(line, "trusted_proxies", "has an effect only with proxy_protocol = true", remedy);
    }
    let trusted = if networks.is_empty() { TrustedProxies::default() } else { TrustedProxies(networks) };
    behind.then_some(trusted)
}

fn network(text: &str) -> Result<IpNet, Wrong> {
    let remedy = "write addresses or networks of proxies, such as \"192.0.2.7\" or \"10.0.0.0/8\"";
    let one = text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
    one.or_else(|_| text.parse()).map_err(|_| Wrong::new(format!("\"{text}\" is not a network"), remedy))
}

pub(super) fn address(text: &str) -> Result<SocketAddr, Wrong> {
    let remedy = "write an IP address and a port, such as \"[::]:5222\" or \"192.0.2.1:5222\"";
    text.parse().map_err(|_| Wrong::new(format!("\"{text}\" is not an address"), remedy))
}
