//! The settings of the engine ([`PostgresSettings`]), and those of each of its connections.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::config::{Config, SslMode, TargetSessionAttrs};

use crate::clock::Instant;

/// The longest time until a connection to one host is there.
const CONNECT: Duration = Duration::from_secs(5);
/// The shortest time between two probes of an idle connection.
const SECOND: Duration = Duration::from_secs(1);

/// The settings of the database.
#[derive(Clone)]
pub struct PostgresSettings {
    /// The hosts, the user and the name of the database. The password is in here: never print it.
    pub config: Config,
    /// TLS with the server's certificate verified; `None` for a connection within the machine.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// True if a server without synchronous standbys is accepted.
    pub may_be_single: bool,
    /// This node.
    pub node: NodeEntry,
    /// The time for which a renewal of the lease holds.
    pub lease: Duration,
    /// True if this process has the sessions of a previous one that has ended.
    pub goes_on: bool,
}

/// The entry of a node in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// Its number. 0 is a node without a cluster.
    pub id: u8,
    /// The address of its cluster listener, `host:port`; empty without a cluster.
    pub address: String,
    /// The SHA-256 of its certificate; empty without a cluster.
    pub certificate: Vec<u8>,
}

impl std::fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresSettings").field("node", &self.node).field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl PostgresSettings {
    /// Returns the configuration of a connection: it ends within the lease if the server does not answer, and only to a
    /// primary.
    pub(super) fn connection(&self) -> Config {
        let mut config = self.config.clone();
        config
            .ssl_mode(if self.tls.is_some() { SslMode::Require } else { SslMode::Disable })
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .application_name(format!("pushward {}", self.node.id))
            .connect_timeout(CONNECT)
            .tcp_user_timeout(self.within())
            .keepalives(true)
            .keepalives_idle((self.within() / 2).max(SECOND))
            .keepalives_interval((self.within() / 4).max(SECOND))
            .keepalives_retries(2);
        config
    }

    /// Returns the statements that begin each session: durable commits, and an end within the lease if this node pauses.
    pub(super) fn session(&self) -> String {
        let (within, idle) = (self.within().as_millis(), (self.within() / 2).as_secs().max(1));
        let interval = (self.within() / 4).as_secs().max(1);
        format!(
            "SET synchronous_commit = on; SET idle_in_transaction_session_timeout = {within}; \
             SET tcp_user_timeout = {within}; SET tcp_keepalives_idle = {idle}; \
             SET tcp_keepalives_interval = {interval}; SET tcp_keepalives_count = 2; \
             SET statement_timeout = 0; SET lock_timeout = 0; SET client_min_messages = notice; \
             SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off"
        )
    }

    /// The time after which a server or node that does not answer is given up: less than the lease.
    fn within(&self) -> Duration {
        self.lease * 3 / 5
    }

    /// Returns the time between two renewals.
    pub(super) fn renewal(&self) -> Duration {
        self.lease * 3 / 10
    }

    /// Returns the end of a lease that was renewed by a statement sent at this time.
    pub(super) fn lease_from(&self, sent: Instant) -> Instant {
        sent + self.lease
    }
}
