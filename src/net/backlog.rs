//! Bytes that wait to be written, counted by their cause.
//!
//! A peer that does not read must not cost more memory than a mark allows, and only whoever causes the bytes is to be slowed
//! down: what is relayed stops its source, what answers a peer stops that peer.

use std::collections::VecDeque;

/// Relayed bytes: while more wait for a peer, what they come from is not read. Half of it lets reading go on.
pub const HIGH_WATER: usize = 256 * 1024;

/// Replies: while more wait for a peer, that peer is not read. Half of it lets reading go on.
pub const REPLY_MARK: usize = 64 * 1024;

/// The bytes that wait for one peer.
///
/// Positions are counted in bytes written since nothing waited. Replies are the exception on the hot path, so only they are
/// kept as runs; all else is relayed.
#[derive(Debug, Default)]
pub(super) struct WriteBacklog {
    /// Bytes written since nothing waited.
    written: usize,
    /// Bytes of those that have left.
    left: usize,
    replies: Option<Box<ReplyBacklog>>,
    /// Relayed bytes have reached their mark and not fallen to half of it.
    full: bool,
    watched: WatchedBytes,
}

/// Bytes whose departure is to be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum WatchedBytes {
    /// None, or they left before anybody knew that they waited.
    #[default]
    None,
    /// Those up to this position.
    Until(usize),
    /// The same, and it is known that they wait.
    KnownToWait(usize),
    /// They have left, and that is not known yet.
    Left,
}

/// News of the bytes that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// They wait.
    Waits,
    /// They have left.
    Left,
}

/// The replies that wait.
#[derive(Debug, Default)]
struct ReplyBacklog {
    /// From where to where, in order; neighbours are one.
    runs: VecDeque<(usize, usize)>,
    bytes: usize,
    /// They have reached their mark and not fallen to half of it.
    over: bool,
    /// They have reached half their mark and not all left since.
    many: bool,
}

impl WriteBacklog {
    /// Relayed bytes were written.
    #[inline]
    pub(super) fn relayed(&mut self, len: usize) {
        self.written += len;
        self.full |= self.waiting() - self.replies() >= HIGH_WATER;
    }

    /// Bytes were written that answer the peer itself.
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

    /// Watches all that was written so far, in place of what was watched before.
    pub(super) fn watch(&mut self) {
        self.watched = if self.waiting() == 0 { WatchedBytes::None } else { WatchedBytes::Until(self.written) };
    }

    /// News of the watched bytes: once that they wait, and then once that they have left.
    pub(super) fn departure(&mut self) -> Option<Departure> {
        let (watched, news) = match self.watched {
            WatchedBytes::Until(end) => (WatchedBytes::KnownToWait(end), Some(Departure::Waits)),
            WatchedBytes::Left => (WatchedBytes::None, Some(Departure::Left)),
            unchanged @ (WatchedBytes::None | WatchedBytes::KnownToWait(_)) => (unchanged, None),
        };
        self.watched = watched;
        news
    }

    /// So many bytes still wait, as the connection knows. Encryption makes them a little more, so that what leaves last counts
    /// as leaving a moment late. Returns whether anything changed that somebody may wait for.
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

    /// The bytes of replies that wait.
    pub(super) fn replies(&self) -> usize {
        self.replies.as_ref().map_or(0, |replies| replies.bytes)
    }

    /// Returns whether relayed bytes are over their mark.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Returns whether replies are over their mark.
    pub(super) fn owes_too_much(&self) -> bool {
        self.replies.as_ref().is_some_and(|replies| replies.over)
    }

    /// Returns whether replies came over half their mark and have not all left since.
    pub(super) fn owes_much(&self) -> bool {
        self.replies.as_ref().is_some_and(|replies| replies.many)
    }
}

impl WatchedBytes {
    /// The state once all bytes up to this position have left.
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
        assert!(backlog.is_full() && !backlog.owes_too_much());
        assert!(!backlog.settle(HIGH_WATER / 2));
        assert!(backlog.is_full());
        assert!(backlog.settle(HIGH_WATER / 2 - 1), "somebody waits for it");
        assert!(!backlog.is_full());
        assert!(!backlog.settle(0));
    }

    #[test]
    fn replies_stop_their_peer_at_their_mark_and_are_many_from_half_of_it_until_all_have_left() {
        let mut backlog = WriteBacklog::default();
        let states = |backlog: &WriteBacklog| (backlog.owes_much(), backlog.owes_too_much());
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
    fn only_what_was_watched_last_is_told() {
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
    fn what_leaves_at_once_is_told_as_well() {
        let mut backlog = WriteBacklog::default();
        backlog.replied(REPLY_MARK);
        assert!(backlog.settle(0));
        backlog.relayed(HIGH_WATER);
        assert!(backlog.settle(0));
        backlog.relayed(1);
        assert!(!backlog.settle(0));
    }
}
