//! [`Dns`]: looks up the servers of a push service in the DNS.

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::RData;
use hickory_resolver::{Resolver, TokioResolver};

use super::endpoints::{Candidate, Srv, SrvRecords, is_global, order};
use super::error::{ReachCause, ReachError};
use crate::jid;
use crate::xml::excerpt;

/// The limit for addresses of one name that are tried.
const ADDRESSES: usize = 4;

/// The configured name servers, or those of the system.
pub(super) struct Dns {
    /// The resolver, or the reason why there is none.
    resolver: Result<TokioResolver, ReachCause>,
}

impl Dns {
    pub(super) fn new(servers: &[SocketAddr]) -> Self {
        let builder = if servers.is_empty() {
            Resolver::builder_tokio()
        } else {
            let servers = servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            Ok(Resolver::builder_with_config(config, TokioRuntimeProvider::default()))
        };
        let resolver = builder.and_then(|builder| builder.build());
        Self { resolver: resolver.map_err(|error| ReachCause::NoNameServers(error.to_string())) }
    }

    /// Returns the candidates for a domain's server, in the order in which they are tried. There is at least one.
    pub(super) async fn candidates(&self, domain: &str) -> Result<Vec<Candidate>, ReachCause> {
        let ascii = jid::ascii(domain).ok_or_else(|| ReachCause::NotForDns(domain.to_owned()))?;
        let (direct, starttls) = tokio::join!(
            self.srv(format!("_xmpps-server._tcp.{ascii}.")),
            self.srv(format!("_xmpp-server._tcp.{ascii}."))
        );
        let records = SrvRecords { direct: direct?, starttls: starttls? };
        let candidates = order(&ascii, records, |n| rand::random_range(0..=n));
        if candidates.is_empty() { Err(ReachCause::NoServer(domain.to_owned())) } else { Ok(candidates) }
    }

    /// Returns the public addresses of a name.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ReachError> {
        let found = self.resolver()?.lookup_ip(format!("{host}.")).await;
        let all: Vec<IpAddr> = found.map_err(|error| failure(host, &error))?.iter().collect();
        let mut global: Vec<_> = all.iter().copied().filter(|address| is_global(*address)).collect();
        if global.is_empty() {
            return Err(ReachCause::NotPublic { host: excerpt(host), first: all.first().copied() }.into());
        }
        global.truncate(ADDRESSES);
        Ok(global)
    }

    async fn srv(&self, name: String) -> Result<Vec<Srv>, ReachCause> {
        let found = match self.resolver()?.srv_lookup(name.clone()).await {
            Ok(found) => found,
            Err(error) if is_absence(&error) => return Ok(Vec::new()),
            Err(error) => return Err(failure(name.trim_end_matches('.'), &error)),
        };
        Ok(found.answers().iter().filter_map(|record| record_of(&record.data)).collect())
    }

    fn resolver(&self) -> Result<&TokioResolver, ReachCause> {
        self.resolver.as_ref().map_err(Clone::clone)
    }
}

fn record_of(data: &RData) -> Option<Srv> {
    let RData::SRV(srv) = data else { return None };
    let target = srv.target.to_ascii().trim_end_matches('.').to_owned();
    Some(Srv { priority: srv.priority, weight: srv.weight, port: srv.port, target })
}

fn failure(name: &str, error: &NetError) -> ReachCause {
    ReachCause::Dns { name: excerpt(name), reason: reason(error) }
}

/// Returns the reason of a failure in words. The text of the library has its data in the form for programmers.
fn reason(error: &NetError) -> String {
    if error.is_nx_domain() {
        return "it does not exist".to_owned();
    }
    if error.is_no_records_found() {
        return "it has no address".to_owned();
    }
    if let NetError::Dns(DnsError::ResponseCode(code)) = error {
        return format!("the name server answered {}", code.to_str().to_lowercase());
    }
    if matches!(error, NetError::Timeout) {
        return "no name server answered in time".to_owned();
    }
    if matches!(error, NetError::NoConnections) {
        return "no name server can be reached".to_owned();
    }
    excerpt(&error.to_string())
}

fn is_absence(error: &NetError) -> bool {
    error.is_no_records_found() || error.is_nx_domain()
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

#[cfg(test)]
mod tests {
    use hickory_resolver::net::NoRecords;
    use hickory_resolver::proto::op::{Query, ResponseCode};

    use super::*;

    #[test]
    fn a_failed_lookup_is_a_sentence_with_the_name() {
        let none = |code| NetError::Dns(DnsError::NoRecordsFound(NoRecords::new(Query::new(), code)));
        for (error, expect) in [
            (none(ResponseCode::NXDomain), "it does not exist"),
            (none(ResponseCode::NoError), "it has no address"),
            (NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)), "the name server answered server failure"),
            (NetError::Timeout, "no name server answered in time"),
            (NetError::NoConnections, "no name server can be reached"),
            (NetError::Message("other"), "other"),
        ] {
            let text = failure("push.test", &error).to_string();
            assert_eq!(text, format!("cannot look up the name push.test: {expect}"));
        }
    }
}
