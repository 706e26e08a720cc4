//! The gauges of stanzas that only memory has while the spool refuses them.

use prometheus_client::metrics::gauge::Gauge;

/// The share of one session in two gauges; dropping it removes the share.
#[derive(Debug)]
pub struct UnsavedGauge {
    stanzas: (Gauge, usize),
    bytes: (Gauge, usize),
}

impl UnsavedGauge {
    pub(super) fn new(stanzas: Gauge, bytes: Gauge) -> Self {
        Self { stanzas: (stanzas, 0), bytes: (bytes, 0) }
    }

    /// Sets the current share.
    pub fn set(&mut self, stanzas: usize, bytes: usize) {
        for ((gauge, counted), now) in [(&mut self.stanzas, stanzas), (&mut self.bytes, bytes)] {
            if *counted != now {
                gauge.inc_by(signed(now).saturating_sub(signed(*counted)));
                *counted = now;
            }
        }
    }
}

impl Drop for UnsavedGauge {
    fn drop(&mut self) {
        self.set(0, 0);
    }
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
