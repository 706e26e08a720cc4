//! Counters of the database and of stanzas that it did not take.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::handover::Handover;
use super::labels::gauge;
use super::latency::Latency;
use super::measured::DiskUsage;
use super::unsaved::UnsavedGauge;

/// The metrics that the store counts itself.
#[derive(Clone, Debug, Default)]
pub struct StoreMetrics {
    /// The durations of commits.
    pub commits: Latency,
    /// Stanzas that were lost because they cannot be read, or deleted before any client had fetched them.
    pub lost: Counter,
}

/// The counters of the database.
#[derive(Debug, Default)]
pub(super) struct Storage {
    store: StoreMetrics,
    accounts: Gauge,
    spooled: Gauge,
    spool_bytes: Gauge,
    store_bytes: Gauge,
    spool_failed: Counter,
    returned: Counter,
    unsaved: Gauge,
    unsaved_bytes: Gauge,
}

impl Storage {
    pub(super) fn new(store: StoreMetrics) -> Self {
        Self { store, ..Self::default() }
    }

    pub(super) fn register(&self, registry: &mut Registry, handover: &Handover) {
        registry.register("accounts", "Accounts with stored data", self.accounts.clone());
        registry.register("spool_stanzas", "Stanzas waiting on disk", self.spooled.clone());
        let help = "Bytes of stanzas waiting on disk, including overhead";
        registry.register_with_unit("spool", help, Unit::Bytes, self.spool_bytes.clone());
        let help = "Times that the spool started to refuse the stanzas of a session";
        registry.register("spool_failed", help, self.spool_failed.clone());
        let help = "Stanzas returned to their senders because neither spool nor memory had room";
        registry.register("stanzas_returned", help, self.returned.clone());
        let help = "Stanzas lost: neither spool nor memory had room and they may not be returned, or their records on \
            disk are unreadable";
        registry.register("stanzas_lost", help, self.store.lost.clone());
        handover.register(registry);
        let help = "Stanzas kept only in memory because the spool refuses them: a crash loses them";
        registry.register("unsaved_stanzas", help, self.unsaved.clone());
        let help = "Bytes of stanzas kept only in memory because the spool refuses them";
        registry.register_with_unit("unsaved", help, Unit::Bytes, self.unsaved_bytes.clone());
        registry.register_with_unit("store", "Size of the database file", Unit::Bytes, self.store_bytes.clone());
        let help = "Duration of database commits";
        registry.register_with_unit("store_commit", help, Unit::Seconds, self.store.commits.shared());
    }

    pub(super) fn measure(&self, disk: &DiskUsage) {
        self.accounts.set(gauge(disk.accounts));
        self.spooled.set(gauge(disk.spooled));
        self.spool_bytes.set(gauge(disk.spool_bytes));
        self.store_bytes.set(gauge(disk.store_bytes));
    }

    pub(super) fn spool_failed(&self) {
        self.spool_failed.inc();
    }

    pub(super) fn returned(&self, stanzas: u64) {
        self.returned.inc_by(stanzas);
    }

    pub(super) fn lost(&self, stanzas: u64) {
        self.store.lost.inc_by(stanzas);
    }

    pub(super) fn unsaved(&self) -> UnsavedGauge {
        UnsavedGauge::new(self.unsaved.clone(), self.unsaved_bytes.clone())
    }
}
