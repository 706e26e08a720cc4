//! Asks the DNS where a push service is.

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::{Resolver, TokioResolver};

use super::dial::{Fault, RESOLVE};
use super::endpoints::{Srv, Target, is_global, order};
use crate::jid;
use crate::xml::excerpt;

/// Addresses of one name that are tried.
const ADDRESSES: usize = 4;

/// The name servers of the configuration, or the system's.
pub(super) struct Dns {
    resolver: Result<TokioResolver, String>,
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
        Self { resolver: resolver.map_err(|error| format!("no name servers: {error}")) }
    }

    /// Where a domain's server may be, in the order in which it is tried.
    pub(super) async fn targets(&self, domain: &str) -> Result<Vec<Target>, String> {
        let ascii = jid::ascii(domain).ok_or_else(|| format!("{domain} is no name for the DNS"))?;
        let (direct, starttls) = tokio::join!(
            self.srv(format!("_xmpps-server._tcp.{ascii}.")),
            self.srv(format!("_xmpp-server._tcp.{ascii}."))
        );
        let targets = order(&ascii, (direct?, starttls?), |n| rand::random_range(0..=n));
        if targets.is_empty() { Err(format!("the DNS says that {domain} has no server")) } else { Ok(targets) }
    }

    /// The public addresses of a name.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Fault> {
        let resolver = self.resolver().map_err(|reason| Fault::here(reason, RESOLVE))?;
        let found = resolver.lookup_ip(format!("{host}.")).await;
        let all: Vec<IpAddr> =
            found.map_err(|error| Fault::here(excerpt(&format!("{host}: {error}")), RESOLVE))?.iter().collect();
        let mut global: Vec<_> = all.iter().copied().filter(|address| is_global(*address)).collect();
        if global.is_empty() {
            let first = all.first().map_or_else(String::new, IpAddr::to_string);
            let what = format!("{} has no address on the public internet ({first})", excerpt(host));
            return Err(Fault::here(what, "it needs a [[push.route]] if it is meant"));
        }
        global.truncate(ADDRESSES);
        Ok(global)
    }

    async fn srv(&self, name: String) -> Result<Vec<Srv>, String> {
        let found = match self.resolver()?.srv_lookup(name.clone()).await {
            Ok(found) => found,
            Err(error) if is_absence(&error) => return Ok(Vec::new()),
            Err(error) => return Err(excerpt(&format!("{name}: {error}"))),
        };
        Ok(found.answers().iter().filter_map(|record| record_of(&record.data)).collect())
    }

    fn resolver(&self) -> Result<&TokioResolver, String> {
        self.resolver.as_ref().map_err(Clone::clone)
    }
}

fn record_of(data: &RData) -> Option<Srv> {
    let RData::SRV(srv) = data else { return None };
    let target = srv.target.to_ascii().trim_end_matches('.').to_owned();
    Some(Srv { priority: srv.priority, weight: srv.weight, port: srv.port, target })
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
