//! Where the XMPP server of a host is, and how it is connected to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::Admin;
use super::host::Host;
use super::listen::Listen;
use super::place::leads_to;
use super::section::Section;
use super::value::{Wrong, wrong};

pub(super) const PROXY_PROTOCOL: [(&str, ProxyProtocol); 3] =
    [("off", ProxyProtocol::Off), ("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)];

/// Where an XMPP server takes connections of clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// Over TCP.
    Tcp(Endpoint),
    /// A unix socket of this machine.
    Unix(PathBuf),
}

impl Upstream {
    /// Its IP address, if it is written as one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(endpoint) => endpoint.host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(endpoint) => endpoint.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self::Tcp(Endpoint { host: "127.0.0.1".to_owned(), port: 5322 })
    }
}

/// An address with a port, resolved whenever it is connected to.
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

/// Which PROXY header a connection to the server starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// None.
    #[default]
    Off,
    /// One line of text.
    V1,
    /// Binary, with the client's TLS.
    V2,
}

pub(super) fn upstream(section: &mut Section<'_>, directory: &Path, listen: &[Listen]) -> Upstream {
    let line = section.line_of("upstream");
    let parse = |text: &str| match text.strip_prefix("unix:") {
        Some(path) => unix(path, directory),
        None => endpoint(text).map(Upstream::Tcp),
    };
    let upstream = section.parsed("upstream", parse).map(|at| at.value).unwrap_or_default();
    if let Upstream::Tcp(endpoint) = &upstream
        && listen.iter().any(|listener| leads_to(endpoint, listener))
    {
        let what = format!("{endpoint} is an address that this process listens on");
        section.problem(line, "upstream", what, "move the server to another port, such as 127.0.0.1:5322");
    }
    upstream
}

fn unix(path: &str, directory: &Path) -> Result<Upstream, Wrong> {
    let remedy = "write the path of the server's socket, such as \"unix:/run/ejabberd/c2s.sock\"";
    let socket = directory.join(path);
    if path.is_empty() {
        return Err(wrong("\"unix:\" is not followed by a path", remedy));
    }
    if socket.as_os_str().len() > Admin::SOCKET_BYTES {
        return Err(wrong(format!("{} is longer than a socket's path may be", socket.display()), remedy));
    }
    Ok(Upstream::Unix(socket))
}

/// A name or an IP address, and a port.
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
        _ => Err(wrong(format!("\"{text}\" is not an address with a port"), remedy)),
    }
}

/// `upstream_source`: addresses of this machine, each once.
pub(super) fn source(section: &mut Section<'_>) -> Vec<IpAddr> {
    const REMEDY: &str = "write IP addresses of this machine, each once, such as \"127.0.0.2\"";
    let line = section.line_of("upstream_source");
    let parse = |text: &str| match text.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() => Ok(address),
        _ => Err(wrong(format!("\"{text}\" is not the address of a machine"), REMEDY)),
    };
    let sources = section.list("upstream_source", parse).unwrap_or_default();
    if sources.iter().any(|one| sources.iter().filter(|other| *other == one).count() > 1) {
        section.problem(line, "upstream_source", "one is there twice", REMEDY);
    }
    sources
}

/// Sources that no connection to the server could have.
pub(super) fn families(section: &Section<'_>, host: &Host, line: usize) {
    let sources = &host.upstream_source;
    let problem = |what: String, remedy: &str| section.problem(line, "upstream_source", what, remedy);
    match &host.upstream {
        Upstream::Unix(_) if !sources.is_empty() => {
            problem("a unix socket has no addresses".to_owned(), "remove it: no ports run out there");
        }
        Upstream::Tcp(endpoint) => {
            let server = host.upstream.ip();
            let other = |source: &&IpAddr| server.is_some_and(|server| server.is_ipv4() != source.is_ipv4());
            if let Some(source) = sources.iter().find(other) {
                let what = format!("{source} cannot connect to {endpoint}: one is IPv4, the other IPv6");
                problem(what, "write addresses of the server's kind");
            }
        }
        Upstream::Unix(_) => {}
    }
}
