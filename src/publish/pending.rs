//! Publishes that left by a stream of our own and whose answers are awaited.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::jid::Jid;

/// The publish that an answer belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AnsweredPublish<T> {
    /// It is the answer to this publish.
    To(T),
    /// It has our id, and is not awaited any more.
    NotAwaited,
    /// It is not about a publish of ours.
    NotOurs,
}

#[derive(Debug)]
struct PendingPublish<T> {
    id: String,
    service: Jid,
    deadline: Instant,
    asker: T,
}

/// The publishes of one stream. Their ids begin with the same secret, so that an answer is known as ours however late it is.
#[derive(Debug)]
pub(super) struct PendingPublishes<T> {
    prefix: String,
    timeout: Duration,
    entries: VecDeque<PendingPublish<T>>,
}

impl<T> PendingPublishes<T> {
    /// None is pending; `secret` is random, and answers may take `timeout`.
    pub(super) fn new(secret: u128, timeout: Duration) -> Self {
        Self { prefix: format!("{secret:032x}"), timeout, entries: VecDeque::new() }
    }

    /// A publish to a service is written; returns its id.
    pub(super) fn begin(&mut self, now: Instant, random: u128, service: Jid, asker: T) -> String {
        let id = self.id(random);
        self.entries.push_back(PendingPublish { id: id.clone(), service, deadline: now + self.timeout, asker });
        id
    }

    /// An id for a publish whose answer never comes here.
    pub(super) fn id(&self, random: u128) -> String {
        format!("{}-{random:032x}", self.prefix)
    }

    /// Takes an answer with this id and sender. The right id from anyone but the push service answers nothing.
    pub(super) fn answer(&mut self, id: &str, from: Option<&str>) -> AnsweredPublish<T> {
        if !id.starts_with(&self.prefix) {
            return AnsweredPublish::NotOurs;
        }
        let from = from.map(Jid::new);
        let at = self.entries.iter().position(|entry| entry.id == id && from.as_ref() == Some(&entry.service));
        at.and_then(|at| self.entries.remove(at))
            .map_or(AnsweredPublish::NotAwaited, |entry| AnsweredPublish::To(entry.asker))
    }

    /// The next one whose time is over.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<T> {
        self.deadline().filter(|deadline| *deadline <= now)?;
        self.entries.pop_front().map(|entry| entry.asker)
    }

    /// Gives all answers so much more time: the peer could not be heard for so long.
    pub(super) fn postpone(&mut self, pause: Duration) {
        self.entries.iter_mut().for_each(|entry| entry.deadline += pause);
    }

    /// When the next one is late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.entries.front().map(|entry| entry.deadline)
    }

    /// How many are pending.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is pending.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The stream is over.
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
