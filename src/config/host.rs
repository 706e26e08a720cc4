//! `[[host]]`: the domains that are served, and their upstream servers.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::domain::domain;
use super::listen::Listen;
use super::section::{At, Section};
use super::transport::{self, Component};
use super::upstream::{self, ProxyProtocol, Upstream};
use super::value::file_name;
pub use crate::session::mechanism_filter::ChannelBinding;

const UPSTREAM_TLS: [(&str, UpstreamTls); 3] =
    [("off", UpstreamTls::Off), ("starttls", UpstreamTls::Starttls), ("direct", UpstreamTls::Direct)];
const CHANNEL_BINDING: [(&str, ChannelBinding); 2] =
    [("strip", ChannelBinding::Strip), ("server-end-point", ChannelBinding::ServerEndPoint)];

/// A domain that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The domain, normalised (RFC 7622 §3.2): lower case.
    pub domain: String,
    /// `certificate`: the certificate chain, PEM. Default: `certs/DOMAIN.pem`.
    pub certificate: PathBuf,
    /// `key`: the private key, PEM. Default: `certs/DOMAIN.key`.
    pub key: PathBuf,
    /// `upstream`: the XMPP server of this domain. Default: `127.0.0.1:5322`.
    pub upstream: Upstream,
    /// `upstream_source`: the local addresses for connections to it, used in turn. Default: none, the system chooses.
    pub upstream_source: Vec<IpAddr>,
    /// `upstream_proxy_protocol`: the PROXY header that passes the client's address to it. Default: off.
    pub upstream_proxy_protocol: ProxyProtocol,
    /// `[host.component]`: the component of the server that sends notifications. Default: none.
    pub component: Option<Component>,
    /// `upstream_tls`: TLS on connections to it. Default: off.
    pub upstream_tls: UpstreamTls,
    /// `upstream_ca`: the authorities that may have issued its certificate, PEM. Default: those of the system.
    pub upstream_ca: Option<PathBuf>,
    /// `upstream_insecure`: true if passwords may cross a network unencrypted while `upstream_tls` is off. Default: false.
    pub upstream_insecure: bool,
    /// `channel_binding`: the treatment of channel binding, which cannot work end to end because TLS ends here. Default:
    /// strip.
    pub channel_binding: ChannelBinding,
    /// `modern_login`: true if SASL2, Bind 2 and FAST are offered while the server has no SASL2. Default: true.
    pub modern_login: bool,
}

/// The start of TLS on connections to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamTls {
    /// Without TLS.
    #[default]
    Off,
    /// After `<starttls/>` (RFC 6120 §5).
    Starttls,
    /// From the first byte (XEP-0368).
    Direct,
}

pub(super) fn hosts(sections: Vec<Section<'_>>, directory: &Path, listen: &[Listen]) -> Vec<Host> {
    let mut hosts: Vec<Host> = Vec::new();
    for mut section in sections {
        let has_domain = section.has("domain");
        let domain = section.parsed("domain", domain);
        if !has_domain {
            section.problem(section.line_of("domain"), "domain", "missing", "write domain = \"example.org\"");
        }
        let domain = domain.unwrap_or_else(|| At { value: String::new(), line: section.line_of("domain") });
        let lines = ["upstream", "upstream_ca", "upstream_insecure", "channel_binding"].map(|key| section.line_of(key));
        let source_line = section.line_of("upstream_source");
        if !domain.value.is_empty() && hosts.iter().any(|other| other.domain == domain.value) {
            let what = format!("{} has two [[host]] sections", domain.value);
            section.problem(domain.line, "domain", what, "remove one of them");
        }
        let host = Host {
            certificate: file(&mut section, "certificate", directory, format!("certs/{}.pem", domain.value)),
            key: file(&mut section, "key", directory, format!("certs/{}.key", domain.value)),
            upstream: upstream::upstream(&mut section, directory, listen),
            upstream_source: upstream::source(&mut section),
            upstream_proxy_protocol: section.choice(
                "upstream_proxy_protocol",
                ProxyProtocol::Off,
                &upstream::PROXY_PROTOCOL,
            ),
            component: transport::component(&mut section, &domain.value),
            upstream_tls: section.choice("upstream_tls", UpstreamTls::Off, &UPSTREAM_TLS),
            upstream_ca: section.parsed("upstream_ca", file_name).map(|at| directory.join(at.value)),
            upstream_insecure: section.boolean("upstream_insecure", false),
            channel_binding: section.choice("channel_binding", ChannelBinding::Strip, &CHANNEL_BINDING),
            modern_login: section.boolean("modern_login", true),
            domain: domain.value,
        };
        encryption(&section, &host, lines);
        families(&section, &host, source_line);
        section.finish();
        hosts.push(host);
    }
    hosts
}

fn file(section: &mut Section<'_>, key: &'static str, directory: &Path, default: String) -> PathBuf {
    directory.join(section.parsed(key, file_name).map_or(default, |at| at.value))
}

/// Checks the settings of TLS to the server against each other and against the server's address. A server that is given by
/// name is checked whenever it is connected to, by the addresses that the name resolves to.
fn encryption(section: &Section<'_>, host: &Host, lines: [usize; 4]) {
    let [upstream, ca, insecure, binding] = lines;
    let exposed = host.upstream.ip().is_some_and(|ip| !ip.is_loopback());
    if host.upstream_tls != UpstreamTls::Off {
        if host.upstream_insecure {
            let what = "has an effect only without TLS: Pushward never accepts a wrong certificate of the server";
            section.problem(
                insecure,
                "upstream_insecure",
                what,
                "remove the key, and name the authority in upstream_ca",
            );
        }
        return;
    }
    if exposed && !host.upstream_insecure {
        let what = format!("passwords would cross the network to {} unencrypted", host.upstream);
        let remedy = "set upstream_tls = \"starttls\", or connect over loopback, or set upstream_insecure = true if the \
            network is trusted";
        section.problem(upstream, "upstream", what, remedy);
    }
    let remedy = "set upstream_tls to \"starttls\" or \"direct\", or remove the key";
    if host.upstream_ca.is_some() {
        section.problem(ca, "upstream_ca", "has an effect only with TLS to the server", remedy);
    }
    if host.channel_binding != ChannelBinding::Strip {
        section.problem(binding, "channel_binding", "has an effect only with TLS to the server", remedy);
    }
}

/// Reports local addresses from which the server cannot be reached.
fn families(section: &Section<'_>, host: &Host, line: usize) {
    let sources = &host.upstream_source;
    let problem = |what: String, remedy: &str| section.problem(line, "upstream_source", what, remedy);
    match &host.upstream {
        Upstream::Unix(_) if !sources.is_empty() => {
            problem("does not apply to a unix socket".to_owned(), "remove the key: a unix socket uses no ports");
        }
        Upstream::Tcp(endpoint) => {
            let server = host.upstream.ip();
            let other = |source: &&IpAddr| server.is_some_and(|server| server.is_ipv4() != source.is_ipv4());
            if let Some(source) = sources.iter().find(other) {
                let what =
                    format!("{source} cannot connect to {endpoint}: one is an IPv4 address, the other an IPv6 address");
                problem(what, "write addresses of the same kind as the server's");
            }
        }
        Upstream::Unix(_) => {}
    }
}
