//! [`PendingPublishes`]: publishes that were sent over one of our own streams and are not answered yet.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Instant;
use crate::jid::Jid;

/// The publish that an answer belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AnsweredPublish<T> {
    /// The answer belongs to this publish.
    To(T),
    /// The id is ours, but the answer is not awaited any more.
    NotAwaited,
    /// The answer does not belong to a publish of ours.
    NotOurs,
}

#[derive(Debug)]
struct PendingPublish<T> {
    id: String,
    service: Jid,
    deadline: Instant,
    asker: T,
}

/// The publishes of one stream. Their ids begin with the same secret prefix, so that even a late answer is recognised as
/// ours.
#[derive(Debug)]
pub(super) struct PendingPublishes<T> {
    prefix: String,
    timeout: Duration,
    entries: VecDeque<PendingPublish<T>>,
}

impl<T> PendingPublishes<T> {
    /// Creates an empty set. `secret` is random. `timeout` is the time that each answer may take.
    pub(super) fn new(secret: u128, timeout: Duration) -> Self {
        Self { prefix: format!("{secret:032x}"), timeout, entries: VecDeque::new() }
    }

    /// Adds a publish that is being written to a service. Returns its id.
    pub(super) fn begin(&mut self, now: Instant, random: u128, service: Jid, asker: T) -> String {
        let id = self.id(random);
        self.entries.push_back(PendingPublish { id: id.clone(), service, deadline: now + self.timeout, asker });
        id
    }

    /// Returns an id for a publish whose answer never arrives here.
    pub(super) fn id(&self, random: u128) -> String {
        format!("{}-{random:032x}", self.prefix)
    }

    /// Handles an answer with this id and sender. An answer with the right id but from another sender than the push service
    /// is not accepted.
    pub(super) fn answer(&mut self, id: &str, from: Option<&str>) -> AnsweredPublish<T> {
        if !id.starts_with(&self.prefix) {
            return AnsweredPublish::NotOurs;
        }
        let from = from.map(Jid::new);
        let at = self.entries.iter().position(|entry| entry.id == id && from.as_ref() == Some(&entry.service));
        at.and_then(|at| self.entries.remove(at))
            .map_or(AnsweredPublish::NotAwaited, |entry| AnsweredPublish::To(entry.asker))
    }

    /// Removes and returns the next publish whose deadline has passed.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<T> {
        self.deadline().filter(|deadline| *deadline <= now)?;
        self.entries.pop_front().map(|entry| entry.asker)
    }

    /// Extends all deadlines by a pause during which the peer was not read.
    pub(super) fn postpone(&mut self, pause: Duration) {
        self.entries.iter_mut().for_each(|entry| entry.deadline += pause);
    }

    /// Returns the next deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.entries.front().map(|entry| entry.deadline)
    }

    /// Returns the number of pending publishes.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether no publish is pending.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns all requesters, when the stream has ended.
    pub(super) fn into_askers(self) -> impl Iterator<Item = T> {
        self.entries.into_iter().map(|entry| entry.asker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn service() -> Jid {
        "push.example".parse().unwrap()
    }

    #[test]
    fn an_answer_needs_the_id_and_the_sender() {
        let (mut pending, now) = (PendingPublishes::new(7, TIMEOUT), Instant::now());
        let id = pending.begin(now, 1, service(), 'a');
        assert_eq!(pending.answer("x", Some("push.example")), AnsweredPublish::NotOurs);
        assert_eq!(pending.answer(&id, Some("evil.example")), AnsweredPublish::NotAwaited);
        assert_eq!(pending.answer(&id, None), AnsweredPublish::NotAwaited);
        assert_eq!(pending.answer(&id, Some("PUSH.example")), AnsweredPublish::To('a'));
        assert_eq!(pending.answer(&id, Some("push.example")), AnsweredPublish::NotAwaited);
    }

    #[test]
    fn a_peer_that_was_not_read_has_more_time_to_answer() {
        let (mut pending, now) = (PendingPublishes::new(7, TIMEOUT), Instant::now());
        pending.begin(now, 1, service(), 'a');
        pending.postpone(TIMEOUT / 2);
        assert_eq!((pending.take_late(now + TIMEOUT), pending.deadline()), (None, Some(now + TIMEOUT * 3 / 2)));
    }

    #[test]
    fn what_is_not_answered_in_time_is_late_in_order() {
        let (mut pending, now) = (PendingPublishes::new(7, TIMEOUT), Instant::now());
        pending.begin(now, 1, service(), 'a');
        let id = pending.begin(now + TIMEOUT / 2, 2, service(), 'b');
        assert_eq!((pending.deadline(), pending.take_late(now)), (Some(now + TIMEOUT), None));
        assert_eq!((pending.take_late(now + TIMEOUT), pending.take_late(now + TIMEOUT)), (Some('a'), None));
        assert_eq!((pending.len(), pending.answer(&id, Some("push.example"))), (1, AnsweredPublish::To('b')));
        assert!(pending.is_empty());
    }
}
