//! The address of a host's XMPP server, and the settings of connections to it: [`Upstream`], [`ProxyProtocol`].

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::addresses::leads_to;
use super::admin::Admin;
use super::endpoint::{Endpoint, endpoint};
use super::listen::Listen;
use super::section::Section;
use super::value::Wrong;

pub(super) const PROXY_PROTOCOL: [(&str, ProxyProtocol); 3] =
    [("off", ProxyProtocol::Off), ("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)];

/// The address of an XMPP server for client connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// Over TCP.
    Tcp(Endpoint),
    /// A unix socket on this machine.
    Unix(PathBuf),
}

impl Upstream {
    /// Returns its IP address, if it is given as one.
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

/// The PROXY header at the start of a connection to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// None.
    #[default]
    Off,
    /// Version 1, a line of text.
    V1,
    /// Version 2, binary, including the client's TLS.
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
        let what = format!("Pushward itself listens on {endpoint}");
        section.problem(line, "upstream", what, "move the server to another port, such as 127.0.0.1:5322");
    }
    upstream
}

fn unix(path: &str, directory: &Path) -> Result<Upstream, Wrong> {
    let remedy = "write the path of the server's socket, such as \"unix:/run/ejabberd/c2s.sock\"";
    let socket = directory.join(path);
    if path.is_empty() {
        return Err(Wrong::new("no path after \"unix:\"", remedy));
    }
    if socket.as_os_str().len() > Admin::SOCKET_BYTES {
        return Err(Wrong::new(
            format!("{} is longer than the limit for the path of a socket", socket.display()),
            remedy,
        ));
    }
    Ok(Upstream::Unix(socket))
}

/// Reads `upstream_source`: addresses of this machine, each once.
pub(super) fn source(section: &mut Section<'_>) -> Vec<IpAddr> {
    const REMEDY: &str = "write IP addresses of this machine, each once, such as \"127.0.0.2\"";
    let line = section.line_of("upstream_source");
    let parse = |text: &str| match text.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() => Ok(address),
        _ => Err(Wrong::new(format!("\"{text}\" is not a usable address"), REMEDY)),
    };
    let sources = section.list("upstream_source", parse).unwrap_or_default();
    if sources.iter().any(|one| sources.iter().filter(|other| *other == one).count() > 1) {
        section.problem(line, "upstream_source", "an address is listed twice", REMEDY);
    }
    sources
}
