//! The check of the connection to the upstream server: whether clients can log in over it, and which clients cannot.

use std::net::UdpSocket;

use rustls::ProtocolVersion;

use super::probe::{self, ProbeError, Sasl2, ServerOffer};
use super::report::{HostEntry, Report};
use crate::config::{ChannelBinding, Config, Host, ProxyProtocol, UpstreamTls};
use crate::exit;
use crate::net::certificate;
use crate::net::trust::Trusts;
use crate::net::upstream::{ConnectTerms, Way};
use crate::session::mechanism_filter::UpstreamWarning;

const END_POINT: &str = "tls-server-end-point";

/// Connects as the sessions of clients would, and checks the features of the server.
pub(super) async fn server(report: &mut Report, at: &HostEntry<'_>, config: &Config, ended: &[String]) {
    let Host { domain, upstream, .. } = at.host;
    sources(report, at);
    let way = match Way::new(at.host, &mut Trusts::default()) {
        Ok(way) => way,
        Err(error) => {
            let remedy = "name a PEM file with the certificate of the authority that issued the server's certificate";
            return report.problem(&at.problem("upstream_ca", error, remedy), exit::CONFIG);
        }
    };
    match probe::probe(&way, domain, &terms(config), &mut None).await {
        Ok(offer) => {
            let over = if offer.certificate.is_some() { " over TLS" } else { "" };
            let mechanisms = offer.mechanisms.join(", ");
            report.fine(format_args!(
                "{domain}: the server at {upstream} is ready{over}; login mechanisms: {mechanisms}"
            ));
            sasl2(report, at, &offer, ended);
            binding(report, at, &offer);
            if at.host.upstream_tls != UpstreamTls::Off {
                versions(report, at, &way, config).await;
                handover(report, at);
            }
        }
        Err(error) => {
            let what = format_args!("the server at {upstream}: {error}");
            report.problem(&at.problem("upstream", what, &remedy(&error, at.host)), exit::UNAVAILABLE);
        }
    }
}

/// Returns the remedy. If only one side uses the PROXY protocol, the server closes the connection or reports invalid XML, so
/// the remedy names the key.
fn remedy(error: &ProbeError, host: &Host) -> String {
    let other_port = error.remedy();
    match host.upstream_proxy_protocol {
        _ if !error.may_be_of_a_proxy_header() => other_port.to_owned(),
        ProxyProtocol::Off => format!(
            "{other_port}; or set upstream_proxy_protocol, if the server expects a PROXY header at this port (see its log)"
        ),
        ProxyProtocol::V1 | ProxyProtocol::V2 => format!(
            "{other_port}; or set upstream_proxy_protocol = \"off\", if the server expects no PROXY header at this port (see \
                its log)"
        ),
    }
}

/// Returns the terms for probing a server.
pub(crate) fn terms(config: &Config) -> ConnectTerms {
    ConnectTerms {
        connect_timeout: config.limits.timeouts.connect,
        write_timeout: config.stream_management.write_timeout,
        limits: crate::xml::FrameLimits::server(config.limits.stanzas.upstream),
        tls: None,
    }
}

/// Checks that the source addresses belong to this machine. Otherwise connections would silently use other sources.
fn sources(report: &mut Report, at: &HostEntry<'_>) {
    for source in &at.host.upstream_source {
        if let Err(error) = UdpSocket::bind((*source, 0)) {
            let what = format_args!("cannot connect from {source}: {error}");
            let remedy = "use addresses of this machine: `ip address` lists them";
            report.problem(&at.problem("upstream_source", what, remedy), exit::CONFIG);
        }
    }
}

/// Reports who offers SASL2 to clients. `ended`: the hosts for which the running daemon has stopped to offer it.
fn sasl2(report: &mut Report, at: &HostEntry<'_>, offer: &ServerOffer, ended: &[String]) {
    let Host { domain, modern_login, .. } = at.host;
    let mut fine = |what: &str| report.fine(format_args!("{domain}: SASL2: {what}"));
    match offer.sasl2 {
        Sasl2::Own => return fine("offered by the server"),
        Sasl2::Possible if !modern_login => return fine("not offered: modern_login = false"),
        Sasl2::Impossible => return fine("not offered: the server offers neither PLAIN nor SCRAM"),
        Sasl2::Possible => {}
    }
    if ended.contains(domain) {
        fine("not offered: SCRAM of the server depends on its own offers");
        let warning = UpstreamWarning::FrontingEnds;
        return report.warning(&at.problem("modern_login", warning, warning.remedy()));
    }
    fine("offered by Pushward");
}

/// Checks channel binding. It ends where TLS ends, unless both ends show the same certificate.
fn binding(report: &mut Report, at: &HostEntry<'_>, offer: &ServerOffer) {
    let Host { upstream, upstream_tls, channel_binding, .. } = at.host;
    let plus: Vec<_> = offer.mechanisms.iter().filter(|name| name.ends_with("-PLUS")).map(String::as_str).collect();
    let offered = [&plus[..], &offer.bindings.iter().map(String::as_str).collect::<Vec<_>>()].concat().join(", ");
    let remedy = UpstreamWarning::BindingMissed.remedy();
    let mut warn = |what: String, remedy: &str| report.warning(&at.problem("channel_binding", what, remedy));
    let survives = !plus.is_empty() && offer.bindings.iter().any(|name| name == END_POINT);
    match channel_binding {
        ChannelBinding::Strip if !offered.is_empty() => {
            let what = format!(
                "the server at {upstream} offers channel binding ({offered}), which Pushward removes: clients that \
                    report its absence (SCRAM flag y), or that verify a hash of the offers (XEP-0474), cannot log in"
            );
            warn(what, remedy);
        }
        ChannelBinding::ServerEndPoint if !survives => {
            let what =
                format!("the server at {upstream} offers no mechanism with {END_POINT}: channel binding is removed");
            warn(what, "remove the key, or enable tls-server-end-point on the server");
        }
        ChannelBinding::ServerEndPoint if !same_certificate(at.host, offer) => {
            let what =
                format!("the server at {upstream} presents a certificate other than {}", at.host.certificate.display());
            warn(
                what,
                "use the same certificate and key for both, or, on Prosody 13, set tls_server_end_point_hash to the \
                    hash of Pushward's certificate; otherwise clients that use channel binding cannot log in",
            );
        }
        ChannelBinding::Strip | ChannelBinding::ServerEndPoint => {}
    }
    if *upstream_tls != UpstreamTls::Off && offered.is_empty() {
        report.fine(format_args!("{}: the server offers no channel binding, so none is removed", at.host.domain));
    }
}

/// Checks the TLS versions of the server. Both legs use a client's version, if the server supports it (XEP-0515).
async fn versions(report: &mut Report, at: &HostEntry<'_>, way: &Way, config: &Config) {
    let Host { domain, upstream, .. } = at.host;
    let mut both = true;
    for (version, name) in [(ProtocolVersion::TLSv1_2, "TLS 1.2"), (ProtocolVersion::TLSv1_3, "TLS 1.3")] {
        let what = match way.connect(&ConnectTerms { tls: Some(version), ..terms(config) }, None).await {
            Ok(conn) if conn.stream().version() == Some(version) => continue,
            Ok(_) => format!(
                "the server at {upstream} does not support {name}: for a client that uses it, the two legs have \
                    different TLS versions, and a client that compares them (XEP-0515) does not log in"
            ),
            Err(error) => format!("the server at {upstream}, with {name} only: {error}"),
        };
        both = false;
        report.warning(&at.problem("upstream_tls", what, UpstreamWarning::OtherTls.remedy()));
    }
    if both {
        report.fine(format_args!(
            "{domain}: the server supports TLS 1.2 and TLS 1.3, so both legs use the client's version"
        ));
    }
}

/// Reports that sessions over TLS end when Pushward is upgraded or restarted.
fn handover(report: &mut Report, at: &HostEntry<'_>) {
    let what = "the connections to the server use TLS, whose keys cannot be handed over to another process: an upgrade or \
        restart of Pushward ends the held sessions of this host";
    let remedy = "connect without TLS over loopback, or over a unix socket, if the server runs on this machine";
    report.warning(&at.problem("upstream_tls", what, remedy));
}

fn same_certificate(host: &Host, offer: &ServerOffer) -> bool {
    let own = certificate::load(host).ok().and_then(|key| key.cert.first().cloned());
    own.is_some() && own == offer.certificate
}
