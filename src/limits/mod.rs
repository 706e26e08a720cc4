//! Bounds on what peers may use: the state behind `[limits]`. [`Guards`] holds it for the whole process; the listeners, logins
//! and sessions consult it.
//!
//! Each [`Limit`] has a name, which is its label in the metrics and its key in the configuration. Each hit is counted, is
//! answered where the protocol has a condition for it, and is logged at most once every ten seconds per limit, so that an
//! attack does not fill the disk. Bounds may change at any time ([`Guards::update`]).

mod bucket;
mod gate;
mod limit;
mod logins;
mod network;
mod throttle;
mod unauthenticated;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use bucket::{Bucket, Rate};
pub use gate::{Eviction, Gate, Permit};
pub use limit::Limit;
pub use logins::{FailedLogins, FailedLoginsRecord};
pub use network::Network;
pub use throttle::{Rates, Throttle};
pub use unauthenticated::Stage;
pub use watch::{ConnectionRefusal, RateLimitedLog, Watch};

use crate::config::Limits;
use crate::metrics::Metrics;
use crate::session::queue::Budget;
use crate::xml::SharedMemory;

/// The state of all limits of a process.
#[derive(Debug)]
pub struct Guards {
    watch: Arc<Watch>,
    gate: Gate,
    logins: FailedLogins,
    queues: Arc<Budget>,
    large: Arc<SharedMemory>,
    stanza_rate: AtomicUsize,
    bandwidth: AtomicUsize,
    held_per_account: AtomicUsize,
}

impl Guards {
    /// Creates the state with these bounds and without connections.
    pub fn new(limits: &Limits, metrics: &Metrics) -> Self {
        let watch = Arc::new(Watch::new(metrics.limits_reached()));
        let guards = Self {
            gate: Gate::new(Arc::clone(&watch)),
            watch,
            logins: FailedLogins::default(),
            queues: Arc::default(),
            large: Arc::default(),
            stanza_rate: AtomicUsize::default(),
            bandwidth: AtomicUsize::default(),
            held_per_account: AtomicUsize::default(),
        };
        guards.update(limits);
        guards
    }

    /// Sets other bounds. They apply to what comes from now on; what exceeds them already is kept.
    pub fn update(&self, limits: &Limits) {
        self.gate.update(&limits.connections);
        self.logins.update(limits.rates.failed_logins_per_address);
        self.queues.update(limits.queues.memory);
        self.large.update(limits.queues.memory / 4);
        self.stanza_rate.store(limits.rates.stanzas, Ordering::Relaxed);
        self.bandwidth.store(limits.rates.bytes, Ordering::Relaxed);
        self.held_per_account.store(limits.held_per_account, Ordering::Relaxed);
    }

    /// Returns the counters and log suppression of limits.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Returns the bounds on connections.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Returns the failed logins by address.
    pub fn logins(&self) -> &FailedLogins {
        &self.logins
    }

    /// Returns the memory that the queues of all sessions share.
    pub fn queues(&self) -> Arc<Budget> {
        Arc::clone(&self.queues)
    }

    /// Returns the memory shared by stanzas of servers that are larger than a client's stanza may be.
    pub fn large(&self) -> Arc<SharedMemory> {
        Arc::clone(&self.large)
    }

    /// Returns the rates at which a client may send.
    pub fn rates(&self) -> Rates {
        let per_second = |number: &AtomicUsize| Rate::per_second(number.load(Ordering::Relaxed));
        Rates { stanzas: per_second(&self.stanza_rate), bytes: per_second(&self.bandwidth) }
    }

    /// Returns the number of sessions of one account that may be held without a client.
    pub fn held_per_account(&self) -> usize {
        self.held_per_account.load(Ordering::Relaxed)
    }
}
