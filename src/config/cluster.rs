//! `[cluster]`: this node among others that share a database.

use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::endpoint::{Endpoint, endpoint};
use super::listen::{Listen, address};
use super::overlap::may_clash;
use super::section::Section;
use super::store::{StoreEngine, StoreSettings};
use super::units::{MINUTE, SECOND};
use super::value::{Wrong, file_name};
use crate::node_id::NodeId;

/// `[cluster]`: this node among others that share a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// `node`: its number.
    pub node: NodeId,
    /// `listen`: the address for the streams of the other nodes, over TLS with certificates on both sides.
    pub listen: SocketAddr,
    /// `advertise`: the address at which the other nodes reach it. Default: `listen`.
    pub advertise: Endpoint,
    /// `certificate`: the PEM file with the chain that it shows to the other nodes.
    pub certificate: PathBuf,
    /// `key`: the PEM file with its private key.
    pub key: PathBuf,
    /// `ca`: the PEM file with the authorities of the nodes' certificates.
    pub ca: PathBuf,
    /// `lease`: the time after which another node takes the place of one that does not answer. Default: 10 s.
    pub lease: Duration,
}

impl ClusterSettings {
    /// The default of [`ClusterSettings::lease`].
    pub const LEASE: Duration = Duration::from_secs(10);
}

/// Reads the section, if there is one.
pub(super) fn read(
    mut s: Section<'_>,
    is_there: bool,
    directory: &Path,
    store: &StoreSettings,
    clients: &[Listen],
    page: Option<SocketAddr>,
) -> Option<ClusterSettings> {
    if !is_there {
        s.finish();
        return None;
    }
    let line = s.line_of("node");
    let missing = ["node", "listen", "certificate", "key", "ca"].map(|key| (key, s.has(key)));
    for (key, _) in missing.into_iter().filter(|(_, is_there)| !is_there) {
        s.problem(line, key, "missing", "add it: a cluster has no default for it");
    }
    let has_advertise = s.has("advertise");
    if store.engine != StoreEngine::Postgres {
        let remedy = "set [store] engine = \"postgres\", or remove [cluster]";
        s.problem(line, "node", "a cluster needs a database that its nodes share", remedy);
    }
    let node = NonZeroU8::new(s.number("node", 1, 1..=255)).map(NodeId::new);
    let listen_line = s.line_of("listen");
    let listen = s.parsed("listen", address).map(|at| at.value);
    let advertise = s.parsed("advertise", reachable).map(|at| at.value);
    let mut path = |key| s.parsed(key, file_name).map(|at| directory.join(at.value));
    let files = [path("certificate"), path("key"), path("ca")];
    let lease = s.duration("lease", ClusterSettings::LEASE, 3 * SECOND..=5 * MINUTE);
    let mut others = clients.iter().map(|listen| listen.address).chain(page);
    if let Some(other) = listen.and_then(|listen| others.find(|other| may_clash(*other, listen))) {
        let what = format!("cannot be used at the same time as {other}, another address in this file");
        s.problem(listen_line, "listen", what, "choose another port");
    }
    let own = listen.filter(|listen| !listen.ip().is_unspecified() && listen.port() != 0);
    let own = own.map(|listen| Endpoint { host: listen.ip().to_string(), port: listen.port() });
    if listen.is_some() && advertise.is_none() && own.is_none() && !has_advertise {
        let remedy = "add the address at which the other nodes reach this one, such as \"10.0.0.5:5280\"";
        s.problem(listen_line, "advertise", "missing, and listen names no single address", remedy);
    }
    s.finish();
    let [certificate, key, ca] = files;
    Some(ClusterSettings {
        node: node?,
        listen: listen?,
        advertise: advertise.or(own)?,
        certificate: certificate?,
        key: key?,
        ca: ca?,
        lease,
    })
}

fn reachable(text: &str) -> Result<Endpoint, Wrong> {
    let remedy =
        "write the name or IP address and the port at which the other nodes reach this one, such as \"10.0.0.5:5280\"";
    endpoint(text).map_err(|_| Wrong::new(format!("\"{text}\" is not an address with a port"), remedy))
}
