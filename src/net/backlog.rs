//! Bytes that wait to be written, counted by their cause. [`Conn`](super::conn::Conn) keeps a [`WriteBacklog`].
//!
//! A peer that does not read must not cost more memory than a mark allows, and only the party that causes the bytes may
//! be slowed down: relayed bytes stop their source, and replies to a peer stop that peer.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The mark for relayed bytes. While more wait for a peer, their source is not read. Reading continues below half of
/// it.
pub const HIGH_WATER: usize = 256 * 1024;

/// The mark for replies. While more wait for a peer, that peer is not read. Reading continues below half of it.
pub const REPLY_MARK: usize = 64 * 1024;

/// The bytes that wait for one peer.
///
/// Positions are counted in bytes written since the backlog was last empty. Replies are the exception on the hot path,
/// so only they are kept as runs; all other bytes are relayed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct WriteBacklog {
    /// Bytes written since the backlog was last empty.
    written: usize,
    /// The part of them that was sent.
    left: usize,
    replies: Option<Box<ReplyBacklog>>,
    /// True from the time relayed bytes reach their mark until they fall below half of it.
    full: bool,
    watched: WatchedBytes,
}

/// The bytes whose sending is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum WatchedBytes {
    /// No bytes, or bytes that were sent before anybody asked about them.
    #[default]
    None,
    /// The bytes up to this position.
    Until(usize),
    /// The bytes up to this position. The caller knows that they wait.
    KnownToWait(usize),
    /// The bytes were sent. The caller does not know it yet.
    Left,
}

/// A change of the watched bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// They wait.
    Waits,
    /// They were sent.
    Left,
}

/// The replies that wait.
#[derive(Debug, Default, Serialize, Deserialize)]
struct ReplyBacklog {
    /// The ranges of positions, in order. Adjacent ranges are merged.
    runs: VecDeque<(usize, usize)>,
    bytes: usize,
    /// True from the time replies reach their mark until they fall below half of it.
    over: bool,
    /// True from the time replies reach half their mark until all of them were sent.
    many: bool,
}

impl WriteBacklog {
    /// Counts relayed bytes that were written.
    #[inline]
    pub(super) fn relayed(&mut self, len: usize) {
        self.written += len;
        self.full |= self.waiting() - self.replies() >= HIGH_WATER;
    }

    /// Counts bytes that were written in reply to the peer itself.
    pub(super) fn replied(&mut self, len: usize) {
        let (start, end) = (self.written, self.written + len);
        self.written = end;
        let replies = self.replies.get_or_insert_default();
        match replies.runs.back_mut().filter(|(_, last)| *last == start) {
            Some((_, last)) => *last = end,
            None => replies.runs.push_back((start, end)),
        }
        replies.bytes += len;
        replies.over |= replies.bytes >= REPLY_MARK;
        replies.many |= replies.bytes >= REPLY_MARK / 2;
    }

    /// Watches all bytes written so far, instead of those watched before.
    pub(super) fn watch(&mut self) {
        self.watched = if self.waiting() == 0 { WatchedBytes::None } else { WatchedBytes::Until(self.written) };
    }

    /// Returns each change of the watched bytes once: first that they wait, then that they were sent.
    pub(super) fn departure(&mut self) -> Option<Departure> {
        let (watched, departure) = match self.watched {
            WatchedBytes::Until(end) => (WatchedBytes::KnownToWait(end), Some(Departure::Waits)),
            WatchedBytes::Left => (WatchedBytes::None, Some(Departure::Left)),
            unchanged @ (WatchedBytes::None | WatchedBytes::KnownToWait(_)) => (unchanged, None),
        };
        self.watched = watched;
        departure
    }

    /// Takes the number of bytes that still wait in the connection. Encryption adds a few bytes, so the last bytes
    /// count as sent slightly late. Returns whether a condition changed for which a caller may wait.
    pub(super) fn settle(&mut self, waiting: usize) -> bool {
        if waiting == 0 {
            let waited_for = self.full || self.replies.as_ref().is_some_and(|replies| replies.many);
            let watched = self.watched.left(self.written);
            let departed = watched != self.watched && watched == WatchedBytes::Left;
            *self = Self { watched, ..Self::default() };
            return waited_for || departed;
        }
        self.left = self.left.max(self.written.saturating_sub(waiting));
        let watched = self.watched.left(self.left);
        let mut changed = watched != self.watched && watched == WatchedBytes::Left;
        self.watched = watched;
        if let Some(replies) = &mut self.replies {
            changed |= replies.settle(self.left);
            if replies.runs.is_empty() {
                self.replies = None;
            }
        }
        if self.full && self.waiting() - self.replies() < HIGH_WATER / 2 {
            (self.full, changed) = (false, true);
        }
        changed
    }

    fn waiting(&self) -> usize {
        self.written - self.left
    }

    /// Returns the bytes of replies that wait.
    pub(super) fn replies(&self) -> usize {
        self.replies.as_ref().map_or(0, |replies| replies.bytes)
    }

    /// Returns whether relayed bytes reached their mark and have not fallen below half of it.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Returns whether replies reached their mark and have not fallen below half of it.
    pub(super) fn replies_full(&self) -> bool {
        self.replies.as_ref().is_some_and(|replies| replies.over)
    }

    /// Returns whether replies reached half their mark and have not all been sent since.
    pub(super) fn has_many_replies(&self) -> bool {
        self.replies.as_ref().is_some_and(|replies| replies.many)
    }
}

impl WatchedBytes {
    /// Returns the state after all bytes up to this position were sent.
    fn left(self, position: usize) -> Self {
        match self {
            Self::Until(end) if end <= position => Self::None,
            Self::KnownToWait(end) if end <= position => Self::Left,
            unchanged @ (Self::None | Self::Until(_) | Self::KnownToWait(_) | Self::Left) => unchanged,
        }
    }
}

impl ReplyBacklog {
    fn settle(&mut self, left: usize) -> bool {
        while let Some((start, end)) = self.runs.front_mut().filter(|(start, _)| *start < left) {
            let until = left.min(*end);
            self.bytes -= until - *start;
            *start = until;
            if until < *end {
                break;
            }
            self.runs.pop_front();
        }
        let relieved = self.over && self.bytes < REPLY_MARK / 2;
        let drained = self.many && self.bytes == 0;
        self.over &= !relieved;
        self.many &= !drained;
        relieved || drained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(backlog: &WriteBacklog) -> (usize, usize) {
        (backlog.waiting() - backlog.replies(), backlog.replies())
    }

    #[test]
    fn bytes_are_counted_by_their_cause_as_they_leave_in_order() {
        let mut backlog = WriteBacklog::default();
        backlog.relayed(100);
        backlog.replied(30);
        backlog.replied(20);
        backlog.relayed(10);
        backlog.replied(5);
        assert_eq!(state(&backlog), (110, 55));
        for (waiting, expect) in
            [(165, (110, 55)), (115, (60, 55)), (60, (10, 50)), (16, (10, 6)), (15, (10, 5)), (7, (2, 5)), (2, (0, 2))]
        {
            backlog.settle(waiting);
            assert_eq!(state(&backlog), expect, "{waiting} wait");
        }
        backlog.settle(0);
        assert_eq!(state(&backlog), (0, 0));
        assert!(backlog.replies.is_none());
    }

    #[test]
    fn what_encryption_adds_is_never_counted_as_written() {
        let mut backlog = WriteBacklog::default();
        backlog.relayed(1000);
        backlog.replied(10);
        backlog.settle(1032);
        assert_eq!(state(&backlog), (1000, 10));
        backlog.settle(500);
        backlog.settle(510);
        assert_eq!(state(&backlog), (490, 10));
    }

    #[test]
    fn neighbouring_replies_are_one_run() {
        let mut backlog = WriteBacklog::default();
        (0..1000).for_each(|_| backlog.replied(30));
        assert_eq!(backlog.replies.as_ref().unwrap().runs.len(), 1);
    }

    #[test]
    fn relayed_bytes_stop_their_source_from_their_mark_down_to_half_of_it() {
        let mut backlog = WriteBacklog::default();
        backlog.replied(HIGH_WATER);
        assert!(!backlog.is_full(), "replies are none of theirs");
        backlog.settle(0);
        backlog.relayed(HIGH_WATER - 1);
        assert!(!backlog.is_full());
        backlog.relayed(1);
        assert!(backlog.is_full() && !backlog.replies_full());
        assert!(!backlog.settle(HIGH_WATER / 2));
        assert!(backlog.is_full());
        assert!(backlog.settle(HIGH_WATER / 2 - 1), "somebody waits for it");
        assert!(!backlog.is_full());
        assert!(!backlog.settle(0));
    }

    #[test]
    fn replies_stop_their_peer_at_their_mark_and_are_many_from_half_of_it_until_all_have_left() {
        let mut backlog = WriteBacklog::default();
        let states = |backlog: &WriteBacklog| (backlog.has_many_replies(), backlog.replies_full());
        backlog.relayed(HIGH_WATER / 2);
        backlog.replied(REPLY_MARK / 2 - 1);
        assert_eq!(states(&backlog), (false, false));
        backlog.replied(1);
        assert_eq!(states(&backlog), (true, false));
        backlog.replied(REPLY_MARK / 2);
        assert_eq!(states(&backlog), (true, true));
        backlog.relayed(100);
        assert!(!backlog.settle(100 + REPLY_MARK / 2));
        assert!(backlog.settle(100 + REPLY_MARK / 2 - 1));
        assert_eq!(states(&backlog), (true, false));
        assert!(backlog.settle(100));
        assert_eq!(states(&backlog), (false, false));
    }

    #[test]
    fn watched_bytes_wait_until_the_last_of_them_has_left_whatever_comes_behind_them() {
        let mut backlog = WriteBacklog::default();
        backlog.relayed(1000);
        backlog.watch();
        backlog.relayed(1000);
        assert_eq!(backlog.departure(), Some(Departure::Waits));
        assert_eq!(backlog.departure(), None, "that is known");
        backlog.relayed(1000);
        assert!(!backlog.settle(2001));
        assert_eq!(backlog.departure(), None);
        assert!(backlog.settle(2000), "somebody waits for it");
        assert_eq!(backlog.departure(), Some(Departure::Left));
        assert_eq!((backlog.departure(), backlog.settle(1000)), (None, false));
    }

    #[test]
    fn watched_bytes_that_leave_before_anybody_asks_are_no_event() {
        let mut backlog = WriteBacklog::default();
        backlog.watch();
        assert_eq!(backlog.departure(), None, "nothing waits");
        for waiting in [10, 0] {
            backlog.relayed(1000);
            backlog.watch();
            backlog.relayed(10);
            assert!(!backlog.settle(waiting));
            assert_eq!(backlog.departure(), None);
        }
    }

    #[test]
    fn only_the_bytes_watched_last_are_reported() {
        let mut backlog = WriteBacklog::default();
        backlog.relayed(100);
        backlog.watch();
        assert_eq!(backlog.departure(), Some(Departure::Waits));
        backlog.relayed(100);
        backlog.watch();
        assert!(!backlog.settle(100));
        assert_eq!(backlog.departure(), Some(Departure::Waits));
        assert!(backlog.settle(0));
        assert_eq!(backlog.departure(), Some(Departure::Left));
    }

    #[test]
    fn bytes_that_leave_at_once_are_reported_too() {
        let mut backlog = WriteBacklog::default();
        backlog.replied(REPLY_MARK);
        assert!(backlog.settle(0));
        backlog.relayed(HIGH_WATER);
        assert!(backlog.settle(0));
        backlog.relayed(1);
        assert!(!backlog.settle(0));
    }
}
