//! Histograms of durations: [`Latency`].

use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;

/// The upper bounds of the buckets, in seconds: from a commit on a fast disk to the answer of a slow app server.
const BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// A histogram of durations; clones share it.
#[derive(Clone, Debug)]
pub struct Latency(Histogram);

impl Default for Latency {
    fn default() -> Self {
        Self(Self::histogram())
    }
}

impl Latency {
    /// Records a duration.
    pub fn observe(&self, took: Duration) {
        self.0.observe(took.as_secs_f64());
    }

    /// Returns the histogram, for the registry.
    pub(super) fn shared(&self) -> Histogram {
        self.0.clone()
    }

    /// Creates a histogram with the common buckets.
    pub(super) fn histogram() -> Histogram {
        Histogram::new(BUCKETS)
    }
}
