//! [`History`]: the numbers of the last hour, for the charts of the page.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use crate::clock::UnixSecs;
use crate::metrics::{CounterValues, Measured};

/// The interval between two samples.
pub(super) const EVERY: Duration = Duration::from_secs(10);
/// The number of kept samples: one hour.
const KEPT: usize = 360;

/// The numbers at one time. Counters are totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Sample {
    /// The time of the sample.
    at: UnixSecs,
    connections: usize,
    live: usize,
    suspect: usize,
    dark: usize,
    messages_in: u64,
    messages_out: u64,
    logins: u64,
    failed_logins: u64,
    published: u64,
    publish_failed: u64,
    queue_bytes: usize,
    spool_bytes: u64,
}

impl Sample {
    pub(super) fn new(at: UnixSecs, connections: usize, measured: &Measured, counted: &CounterValues) -> Self {
        let total = measured.total();
        let published = |is_counted: fn(&str) -> bool| -> u64 {
            counted.publishes.iter().filter(|(name, _)| is_counted(name)).map(|(_, count)| count).sum()
        };
        Self {
            at,
            connections,
            live: total.live,
            suspect: total.suspect,
            dark: total.dark,
            messages_in: counted.messages_in,
            messages_out: counted.messages_out,
            logins: counted.logins,
            failed_logins: counted.failed_logins,
            published: published(|outcome| outcome == "accepted"),
            publish_failed: published(|outcome| outcome != "accepted"),
            queue_bytes: total.queue_bytes,
            spool_bytes: measured.disk.unwrap_or_default().spool_bytes,
        }
    }
}

/// The samples of the last hour, oldest first.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Sample>);

impl History {
    /// Adds a sample. Drops the oldest if there are too many.
    pub(super) fn push(&mut self, sample: Sample) {
        if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// Returns all samples.
    pub(super) fn samples(&self) -> Vec<Sample> {
        self.0.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut history = History::default();
        for at in 0..1000 {
            history.push(Sample { at: UnixSecs::new(at), ..Sample::default() });
        }
        let samples = history.samples();
        assert_eq!((samples.len(), samples[0].at.get(), samples[359].at.get()), (360, 640, 999));
    }
}
