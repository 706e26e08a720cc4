//! `[[listen]]`: where clients connect.

use std::net::{Ipv6Addr, SocketAddr};

use super::section::Section;
use super::value::{Wrong, wrong};

/// One address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address; port 0 lets the system choose.
    pub address: SocketAddr,
    /// When TLS starts.
    pub tls: ListenTls,
}

/// When TLS starts on a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenTls {
    /// After `<starttls/>` (RFC 6120 §5).
    Starttls,
    /// At once (XEP-0368).
    Direct,
}

impl Default for Listen {
    fn default() -> Self {
        Self { address: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 5222)), tls: ListenTls::Starttls }
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
        if address.port() != 0 && listeners.iter().any(|other| other.address == address) {
            section.problem(line, "address", format!("{address} is listened on twice"), "remove one [[listen]]");
        }
        section.finish();
        listeners.push(Listen { address, tls });
    }
    listeners
}

fn address(text: &str) -> Result<SocketAddr, Wrong> {
    let remedy = "write an IP address and a port, such as \"[::]:5222\" or \"192.0.2.1:5222\"";
    text.parse().map_err(|_| wrong(format!("\"{text}\" is not an address"), remedy))
}
