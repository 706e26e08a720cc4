//! Compaction: the content of a file that is mostly free is copied into a new file, which then replaces it. [`Compaction`]
//! decides when; the writer thread runs it.
//!
//! redb's own compaction moves pages inside the file, in transactions that cannot be interrupted and that take seconds if much
//! is free. A copy costs only what is left, can be abandoned at any step, and does not disturb readers. It is valid only if
//! nothing is written meanwhile, so the writer thread makes it, and jobs wait for it, [`BUDGET`] at most.

use std::time::Duration;

use tokio::time::Instant;

use super::disk::Disk;

/// The size in bytes from which a file is compacted.
pub(in crate::store) const LARGE: u64 = 64 << 20;
/// The time without a commit before a compaction starts.
const QUIET: Duration = Duration::from_secs(1);
/// The longest time that a compaction waits for such a pause.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest time that jobs wait for a copy. A copy that takes longer is abandoned once a job waits.
pub(in crate::store) const BUDGET: Duration = Duration::from_millis(250);
/// The time until the next attempt: the first value, doubled by each failure up to the second.
const PAUSES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(60 * 60)];

/// Returns whether a file of `len` bytes whose records need `held` bytes is mostly free.
pub(in crate::store) fn is_sparse(len: u64, held: u64) -> bool {
    len >= LARGE && held < len / 4
}

/// Returns whether a copy of this size is too large to be worth it.
pub(in crate::store) fn is_too_large(len: u64, copied: u64) -> bool {
    copied > len / 2
}

/// The schedule of the compaction.
#[derive(Debug)]
pub(in crate::store) struct Compaction {
    /// The time since which the file is sparse.
    since: Option<Instant>,
    /// The time of the last commit.
    committed: Instant,
    not_before: Instant,
    pause: Duration,
    /// Bytes that are known to be needed in addition to the spool.
    floor: u64,
}

impl Compaction {
    pub(in crate::store) fn new(now: Instant) -> Self {
        Self { since: None, committed: now, not_before: now, pause: PAUSES[0], floor: 0 }
    }

    /// Notes a commit, after which the file has `len` bytes and the spool counts for `held`.
    pub(in crate::store) fn committed(&mut self, now: Instant, len: u64, held: u64) {
        self.committed = now;
        let sparse = is_sparse(len, held.saturating_add(self.floor));
        self.since = sparse.then(|| self.since.unwrap_or(now));
    }

    /// Returns the time of the next compaction, as far as it is known now.
    pub(in crate::store) fn deadline(&self) -> Option<Instant> {
        let since = self.since?;
        Some((self.committed + QUIET).min(since + PATIENCE).max(self.not_before))
    }

    /// Notes a compaction that succeeded.
    pub(in crate::store) fn succeeded(&mut self, now: Instant) {
        self.since = None;
        self.pause = PAUSES[0];
        self.not_before = now + self.pause;
    }

    /// Notes a compaction that was abandoned. `too_large` is the size of the file if the copy was too large to be worth it.
    pub(in crate::store) fn failed(&mut self, now: Instant, too_large: Option<u64>) {
        if let Some(len) = too_large {
            self.floor = len / 2;
            self.since = None;
        }
        self.not_before = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSES[1]);
    }
}

/// Compacts the file, unless `go_on` returns false; returns whether it was compacted. Blocks. Call it only while nothing is
/// written.
pub(in crate::store) fn shrink(disk: &Disk, go_on: &mut dyn FnMut(u64) -> bool) -> bool {
    let (began, before) = (Instant::now(), disk.len());
    let compacted = disk.compact(go_on);
    let duration = began.elapsed();
    match (compacted, before.and_then(|before| Ok((before, disk.len()?)))) {
        (Ok(true), Ok((before, after))) => tracing::info!(before, after, ?duration, "database compacted"),
        (Ok(true), Err(error)) => tracing::warn!(%error, "cannot read size of database file"),
        (Ok(false), _) => {
            tracing::debug!(?duration, "database not compacted");
            return false;
        }
        (Err(error), _) => {
            tracing::warn!(%error, ?duration, "database compaction failed");
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_sparse_file_is_compacted_in_the_first_pause_or_after_a_minute() {
        let begin = Instant::now();
        let mut compaction = Compaction::new(begin);
        let at = |seconds| begin + Duration::from_secs(seconds);
        compaction.committed(at(0), 200 * MIB, 100 * MIB);
        assert_eq!(compaction.deadline(), None);
        compaction.committed(at(1), 200 * MIB, 10 * MIB);
        assert_eq!(compaction.deadline(), Some(at(1) + QUIET));
        compaction.committed(at(50), 200 * MIB, 10 * MIB);
        assert_eq!(compaction.deadline(), Some(at(50) + QUIET));
        compaction.committed(at(61), 200 * MIB, 10 * MIB);
        assert_eq!(compaction.deadline(), Some(at(1) + PATIENCE));
        compaction.committed(at(61), 200 * MIB, 100 * MIB);
        assert_eq!(compaction.deadline(), None);
    }

    #[test]
    fn small_files_are_left_alone() {
        let now = Instant::now();
        let mut compaction = Compaction::new(now);
        compaction.committed(now, LARGE - 1, 0);
        assert_eq!(compaction.deadline(), None);
    }

    #[test]
    fn attempts_that_fail_become_rarer_and_vain_ones_wait_for_a_larger_file() {
        let now = Instant::now();
        let mut compaction = Compaction::new(now);
        compaction.committed(now, 200 * MIB, 0);
        for pause in [60, 120, 240] {
            compaction.failed(now, None);
            assert_eq!(compaction.deadline(), Some(now + Duration::from_secs(pause)));
        }
        compaction.failed(now, Some(200 * MIB));
        compaction.committed(now, 399 * MIB, 0);
        assert_eq!(compaction.deadline(), None);
        compaction.committed(now, 401 * MIB, 0);
        assert!(compaction.deadline().is_some());
        compaction.succeeded(now);
        assert_eq!(compaction.deadline(), None);
    }
}
