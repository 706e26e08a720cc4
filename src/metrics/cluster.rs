//! Counters of the streams between the nodes of a cluster.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::Labels;
use super::outcome::{HopOutcome, NodeArrival};

/// The counters of the streams between the nodes of a cluster.
#[derive(Debug, Default)]
pub(super) struct ClusterCounters {
    hops: Family<Labels<1>, Counter>,
    arrivals: Family<Labels<1>, Counter>,
    relayed: Gauge,
}

/// A client whose stream is copied to and from another node. It is counted until this value is dropped.
#[derive(Debug)]
pub struct RelayedConnection(Gauge);

impl Drop for RelayedConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl ClusterCounters {
    // The encoder appends `_total` to the name of a counter.
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Logins for accounts that another node owns or may own, by the outcome of passing them on";
        registry.register("hops", help, self.hops.clone());
        let help = "Connections that came to the listener for other nodes, by outcome";
        registry.register("node_connections", help, self.arrivals.clone());
        let help = "Clients of this node whose streams are copied to and from the node that owns their account";
        registry.register("relayed_connections", help, self.relayed.clone());
    }

    pub(super) fn begin_at_zero(&self) {
        for outcome in HopOutcome::ALL {
            drop(self.hops.get_or_create(&[("outcome", outcome.name())]));
        }
        for outcome in NodeArrival::ALL {
            drop(self.arrivals.get_or_create(&[("outcome", outcome.name())]));
        }
    }

    pub(super) fn hop(&self, outcome: HopOutcome) {
        self.hops.get_or_create(&[("outcome", outcome.name())]).inc();
    }

    pub(super) fn arrival(&self, outcome: NodeArrival) {
        self.arrivals.get_or_create(&[("outcome", outcome.name())]).inc();
    }

    pub(super) fn relayed(&self) -> RelayedConnection {
        self.relayed.inc();
        RelayedConnection(self.relayed.clone())
    }
}
