//! Parsing of addresses with a port: [`Endpoint`].

use std::fmt;
use std::net::SocketAddr;

use super::value::Wrong;

/// An address with a port, resolved for each connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Parses a name or an IP address, and a port.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, Wrong> {
    let remedy = "write the server's address and port for client connections, such as \"127.0.0.1:5322\"";
    if let Ok(address) = text.parse::<SocketAddr>()
        && address.port() != 0
    {
        return Ok(Endpoint { host: address.ip().to_string(), port: address.port() });
    }
    let named = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match named {
        Some((host, port)) if port != 0 && !host.is_empty() && !host.contains([':', '[', ']', '/', ' ', '@']) => {
            Ok(Endpoint { host: host.to_owned(), port })
        }
        _ => Err(Wrong::new(format!("\"{text}\" is not an address with a port"), remedy)),
    }
}
