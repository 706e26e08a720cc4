//! Compaction: what a file that is mostly free holds is copied into a fresh one, which then replaces it.
//!
//! redb's own compaction moves pages inside the file, in transactions that cannot be cut short and take seconds where much
//! is free. A copy costs only what is left, can be given up at any step, and leaves readers alone. It is good only if
//! nothing is written meanwhile: the writer thread makes it, and what it is asked for waits, [`BUDGET`] at most.

use std::time::Duration;

use tokio::time::Instant;

use super::disk::Disk;

/// Bytes from which on a file is worth it.
pub(in crate::store) const LARGE: u64 = 64 << 20;
/// How long nothing may have been committed before.
const QUIET: Duration = Duration::from_secs(1);
/// Where there is no such pause, it is done after this long all the same.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long jobs wait for a copy; one that takes longer is given up once a job waits.
pub(in crate::store) const BUDGET: Duration = Duration::from_millis(250);
/// The time until the next attempt: the first is the least, and each that fails doubles it.
const PAUSES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(60 * 60)];

/// Whether a file of so many bytes is mostly free, if its records need so many.
pub(in crate::store) fn is_sparse(len: u64, held: u64) -> bool {
    len >= LARGE && held < len / 4
}

/// Whether a copy of so many bytes is too large to be worth it.
pub(in crate::store) fn is_vain(len: u64, copied: u64) -> bool {
    copied > len / 2
}

/// When the file is to be compacted.
#[derive(Debug)]
pub(in crate::store) struct Compaction {
    /// Since when it is sparse.
    since: Option<Instant>,
    /// When something was last committed.
    committed: Instant,
    not_before: Instant,
    pause: Duration,
    /// Bytes that are known to be needed beside the spool.
    floor: u64,
}

impl Compaction {
    pub(in crate::store) fn new(now: Instant) -> Self {
        Self { since: None, committed: now, not_before: now, pause: PAUSES[0], floor: 0 }
    }

    /// Something was committed, after which the file has `len` bytes and the spool counts for `held`.
    pub(in crate::store) fn committed(&mut self, now: Instant, len: u64, held: u64) {
        self.committed = now;
        let sparse = is_sparse(len, held.saturating_add(self.floor));
        self.since = sparse.then(|| self.since.unwrap_or(now));
    }

    /// When it is to be done, as far as is known now.
    pub(in crate::store) fn deadline(&self) -> Option<Instant> {
        let since = self.since?;
        Some((self.committed + QUIET).min(since + PATIENCE).max(self.not_before))
    }

    /// It was done.
    pub(in crate::store) fn succeeded(&mut self, now: Instant) {
        self.since = None;
        self.pause = PAUSES[0];
        self.not_before = now + self.pause;
    }

    /// It was given up. `vain`: so much of these bytes is needed that it is not worth it.
    pub(in crate::store) fn failed(&mut self, now: Instant, vain: Option<u64>) {
        if let Some(len) = vain {
            self.floor = len / 2;
            self.since = None;
        }
        self.not_before = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSES[1]);
    }
}

/// Compacts the file, unless `go_on` gives it up; returns whether it was. Blocks, and is to be called while nobody writes.
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
