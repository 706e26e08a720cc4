//! The transports of notifications ([`Transport`]), and the keys that configure them.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::addresses::is_loopback;
use super::domain::domain;
use super::endpoint::{Endpoint, endpoint};
use super::section::Section;
use super::value::{Wrong, file_name};
use crate::secret::Secret;

/// A transport of notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Transport {
    /// As the domain, over its own stream to the app server.
    S2s,
    /// As a component of the server (XEP-0114).
    Component,
    /// As the user's full JID, through the user's own session.
    Session,
}

impl Transport {
    /// All transports.
    pub const ALL: [Self; 3] = [Self::S2s, Self::Component, Self::Session];

    /// Returns its name in the file and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::S2s => "s2s",
            Self::Component => "component",
            Self::Session => "session",
        }
    }
}

/// `[host.component]`: the connection to the server as a component (XEP-0114).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// The server's address for components.
    pub address: Endpoint,
    /// The component's own domain.
    pub domain: String,
    /// The secret that authenticates the component.
    pub secret: Secret<String>,
    /// The sender of the component's stanzas.
    pub from: ComponentSender,
}

/// The sender of a component's stanzas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComponentSender {
    /// The component: answers come back to it.
    Component,
    /// The host, if the server lets a component send in its name: answers go to the server.
    Host,
}

/// `[[push.route]]`: the address of an app server that is not looked up in the DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The domain of the app server.
    pub domain: String,
    /// The address of its s2s listener.
    pub address: Endpoint,
    /// True if its connections start with TLS; otherwise TLS starts after `<starttls/>`.
    pub direct_tls: bool,
    /// The authority of its certificate, PEM; `None` for those of the system.
    pub ca: Option<PathBuf>,
}

/// Reads `transports`: some of the three, each once.
pub(super) fn order(s: &mut Section<'_>, default: Vec<Transport>) -> Vec<Transport> {
    const REMEDY: &str = "write some of \"s2s\", \"component\" and \"session\", each once";
    let line = s.line_of("transports");
    let known = [Transport::S2s, Transport::Component, Transport::Session];
    let parse = |text: &str| {
        let found = known.into_iter().find(|transport| transport.name() == text);
        found.ok_or_else(|| Wrong::new(format!("unknown transport \"{text}\""), REMEDY))
    };
    let Some(order) = s.list("transports", parse) else { return default };
    if order.is_empty() || known.iter().any(|one| order.iter().filter(|other| *other == one).count() > 1) {
        s.problem(line, "transports", "empty, or a transport is listed twice", REMEDY);
    }
    order
}

/// Reads `services`: domains.
pub(super) fn services(s: &mut Section<'_>) -> Vec<String> {
    s.list("services", service).unwrap_or_default()
}

fn service(text: &str) -> Result<String, Wrong> {
    domain(text)
        .map_err(|error| Wrong::new(error.what, "write the push service's domain, such as \"push.example.net\""))
}

/// Reads all `[[push.route]]`.
pub(super) fn routes(s: &mut Section<'_>, directory: &Path) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for mut section in s.tables("route", "[[push.route]]") {
        let line = section.line_of("domain");
        let address_line = section.line_of("address");
        let (has_domain, has_address) = (section.has("domain"), section.has("address"));
        let read = (section.parsed("domain", service), section.parsed("address", server_address));
        let direct_tls = section.choice("tls", true, &[("direct", true), ("starttls", false)]);
        let ca = section.parsed("ca", file_name).map(|at| directory.join(at.value));
        if !has_domain {
            section.problem(line, "domain", "missing", "write domain = \"push.example.net\"");
        }
        if !has_address {
            section.problem(address_line, "address", "missing", "write address = \"10.0.0.5:5270\"");
        }
        if let (Some(domain), Some(address)) = read {
            let (domain, address) = (domain.value, address.value);
            if routes.iter().any(|other| other.domain == domain) {
                let what = format!("{domain} has two [[push.route]] sections");
                section.problem(line, "domain", what, "remove one of them");
            }
            routes.push(Route { domain, address, direct_tls, ca });
        }
        section.finish();
    }
    routes
}

/// Reads `[host.component]`, if it is there.
pub(super) fn component(host: &mut Section<'_>, host_domain: &str) -> Option<Component> {
    if !host.has("component") {
        return None;
    }
    let mut s = host.table("component", "[host.component]");
    let address_line = s.line_of("address");
    let default = Endpoint { host: "127.0.0.1".to_owned(), port: 5347 };
    let address = s.parsed("address", server_address).map_or(default, |at| at.value);
    let from = s.choice(
        "from",
        ComponentSender::Component,
        &[("component", ComponentSender::Component), ("host", ComponentSender::Host)],
    );
    let (domain_line, secret_line) = (s.line_of("domain"), s.line_of("secret"));
    let (has_domain, has_secret) = (s.has("domain"), s.has("secret"));
    let domain = s.parsed("domain", domain).map(|at| at.value).unwrap_or_default();
    let secret = s.text("secret").map(|at| at.value).unwrap_or_default();
    if !has_domain || domain == host_domain && !domain.is_empty() {
        let remedy = "write the component's own domain, as in the server's configuration";
        s.problem(domain_line, "domain", "missing, or the same as the host's domain", remedy);
    }
    if !has_secret || secret.is_empty() {
        s.problem(secret_line, "secret", "missing", "write the component's password, as in the server's configuration");
    }
    if !is_loopback(&address.host) {
        let what = format!("notifications would cross the network to {address} unencrypted");
        s.problem(address_line, "address", what, "connect over loopback, or through a tunnel that ends on loopback");
    }
    s.finish();
    Some(Component { address, domain, secret: Secret::new(secret), from })
}

/// Reads `[dns] servers`.
pub(super) fn dns(mut s: Section<'_>) -> Vec<SocketAddr> {
    let parse = |text: &str| {
        let plain = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
        plain.or_else(|_| text.parse()).map_err(|_| {
            Wrong::new(
                format!("\"{text}\" is not an address"),
                "write an IP address, such as \"192.0.2.53\", with or without a port",
            )
        })
    };
    let servers = s.list("servers", parse).unwrap_or_default();
    s.finish();
    servers
}

fn server_address(text: &str) -> Result<Endpoint, Wrong> {
    endpoint(text).map_err(|error| Wrong::new(error.what, "write an address and a port, such as \"10.0.0.5:5270\""))
}
