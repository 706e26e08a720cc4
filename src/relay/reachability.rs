//! Tests whether any upstream server accepts connections. The readiness probe of [`crate::admin`] uses it.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::snapshot::Snapshot;
use crate::net::upstream::ConnectTerms;

/// The deadline for all servers together, independent of the timeout of a login.
const PATIENCE: Duration = Duration::from_secs(3);
/// The number of hosts that are tried at the same time.
const AT_ONCE: usize = 16;

/// Returns whether the server of any host accepts connections, including TLS if it is configured.
pub(super) async fn reaches_a_server(snapshot: &Snapshot) -> bool {
    let hosts = snapshot.config.hosts.iter();
    let mut ways = hosts.filter_map(|host| snapshot.ways.to(&host.domain).cloned());
    let terms = || ConnectTerms {
        connect_timeout: PATIENCE,
        write_timeout: PATIENCE,
        limits: snapshot.upstream_limits(),
        tls: None,
    };
    let search = async {
        let mut tries = JoinSet::new();
        loop {
            while tries.len() < AT_ONCE
                && let Some(way) = ways.next()
            {
                let terms = terms();
                tries.spawn(async move { way.connect(&terms, None).await.is_ok() });
            }
            match tries.join_next().await {
                Some(Ok(true)) => return true,
                Some(Ok(false) | Err(_)) => {}
                None => return false,
            }
        }
    };
    timeout(PATIENCE, search).await.unwrap_or(false)
}
