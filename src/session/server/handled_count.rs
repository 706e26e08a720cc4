//! Confirmation by the server of the client's stanzas, which may then be acknowledged to the client.
//!
//! A server with stream management confirms by `<a/>`. With any other server, a ping is sent after the stanzas on the
//! ordered stream, and any answer to it confirms them.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Instant;
use crate::seq::ServerSeq;
use crate::session::contract::Replies;
use crate::session::pause::Pause;
use crate::session::sm::Handled;

/// The time that a client's `<r/>` may wait for an expected confirmation.
const ACK_PATIENCE: Duration = Duration::from_millis(200);
/// The pause between two questions to the server when the client does not wait for one, so that a series of stanzas does
/// not cost a question each.
const PACE: Duration = Duration::from_millis(100);
/// The number of the client's stanzas after which the pause is skipped.
const BURST: usize = 256;
/// The maximum number of doublings of [`PACE`]: the pause doubles each time the server confirms nothing.
const LONGEST_PAUSE: u32 = 9;
/// The time within which the server has to confirm anything before its connection counts as lost.
const SERVER_PATIENCE: Duration = Duration::from_secs(60);
/// The number of unconfirmed stanzas of the client above which no more are read.
const OPEN: usize = 4096;
/// The number of open `<r/>`s of the client that are answered one by one.
const ONE_BY_ONE: usize = 256;

/// A question to the server that is open.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Question {
    since: Instant,
    /// True while it is not written, because other bytes are in front of it.
    waits: bool,
    /// The ping's iq id, and the number of stanzas that its answer confirms. `None` for an `<r/>`, whose answer contains
    /// the number.
    ping: Option<(String, ServerSeq)>,
}

/// The client's stanzas on their way to the server. Counts cover the whole session, and wrap only on the wire.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Confirmation {
    /// True if the client counts: only then is the server asked.
    counting: bool,
    /// The number of the client's stanzas since its `<enable/>`.
    received: u64,
    /// The number of stanzas written to the server, the client's and our own.
    sent: ServerSeq,
    /// The client's stanzas that the server has not confirmed: their numbers among `received` and among `sent`.
    open: VecDeque<(u64, ServerSeq)>,
    question: Option<Question>,
    /// The pause during which the server is not read.
    pause: Pause,
    /// The time of the last question to the server.
    asked: Option<Instant>,
    /// The number of the client's stanzas written to the server since then.
    unasked: usize,
    /// The number of consecutive answers that confirmed nothing although stanzas were unconfirmed.
    fruitless: u32,
    /// The client's `<r/>`s that are not answered.
    due: Option<AnswerDue>,
    /// An answer to the client that covered fewer stanzas than it asked about: another one follows as soon as more are
    /// confirmed.
    follow_up: Option<FollowUp>,
    /// True while answers wait to be written: the next one waits until they are, and covers all.
    together: bool,
    /// True if an `<r/>` waits for that.
    deferred: bool,
}

/// Open `<r/>`s of the client.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct AnswerDue {
    /// The number of requests.
    requests: usize,
    /// The number of stanzas that they ask about.
    target: u64,
    /// The time at which they are answered, even if the server confirms nothing.
    deadline: Instant,
}

/// An acknowledgement that is to be sent without a request.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct FollowUp {
    target: u64,
    sent: u64,
}

/// The cause of a confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConfirmationKind {
    /// Our question.
    Answer,
    /// No question: the server confirms of its own accord.
    Unasked,
}

impl Confirmation {
    /// The bytes of memory on the heap.
    pub(super) fn memory(&self) -> usize {
        self.open.capacity() * size_of::<(u64, ServerSeq)>()
    }

    /// Returns whether the client's stanzas are counted from one.
    pub(super) fn is_consistent(&self) -> bool {
        self.open.iter().all(|(place, _)| *place > 0)
    }

    /// Starts counting, after the client's `<enable/>`.
    pub(super) fn enable(&mut self) {
        self.counting = true;
        self.received = 0;
        self.open.clear();
        (self.due, self.follow_up, self.deferred) = (None, None, false);
    }

    /// Counts a stanza of the client that was answered here.
    pub(super) fn consumed(&mut self) {
        self.received += 1;
    }

    /// Counts a stanza of the client that is written to the server.
    pub(super) fn forwarded(&mut self) {
        self.received += 1;
        self.sent = self.sent.next();
        if self.counting {
            self.open.push_back((self.received, self.sent));
            self.unasked += 1;
        }
    }

    /// Resets the count for a client that resumes with the current `h`. It sends later stanzas again, under the same
    /// numbers.
    pub(super) fn rewind(&mut self) {
        self.received = self.count();
        self.open.clear();
        (self.due, self.follow_up, self.deferred) = (None, None, false);
    }

    /// Counts a stanza of our own that is written to the server.
    pub(super) fn injected(&mut self) {
        self.sent = self.sent.next();
    }

    /// The `h` for the client: the number of its stanzas that the server has confirmed.
    pub(super) fn handled(&self) -> Handled {
        Handled::wrapping(self.count())
    }

    fn count(&self) -> u64 {
        self.open.front().map_or(self.received, |(place, _)| place - 1)
    }

    /// Returns whether the server has confirmed everything.
    pub(super) fn is_complete(&self) -> bool {
        self.open.is_empty()
    }

    /// Returns whether the client may send more.
    pub(super) fn has_room(&self) -> bool {
        self.open.len() < OPEN
    }

    /// Returns whether the server was asked and has not answered.
    pub(super) fn is_asked(&self) -> bool {
        self.question.is_some()
    }

    /// Returns whether the server is to be asked: stanzas are unconfirmed, and no question is open.
    pub(super) fn must_ask(&self) -> bool {
        !self.open.is_empty() && self.question.is_none()
    }

    /// The end of the pause before the next question. There is a pause if the client does not wait, or if the server was
    /// asked about the same stanzas and did not confirm them.
    pub(super) fn pause(&self) -> Option<Instant> {
        if self.unasked == 0 && self.fruitless > 0 {
            let longer = 1 << self.fruitless.min(LONGEST_PAUSE);
            return self.asked.map(|at| at + PACE * longer);
        }
        let waited_for = self.due.is_some() || self.follow_up.is_some();
        self.asked.filter(|_| !waited_for && self.unasked < BURST).map(|at| at + PACE)
    }

    /// Notes that an `<r/>` was sent to the server.
    pub(super) fn asked(&mut self, now: Instant) {
        self.question_sent(now, None);
    }

    /// Notes that a ping with this id was sent to the server, after everything sent before.
    pub(super) fn pinged(&mut self, now: Instant, id: String) {
        self.question_sent(now, Some((id, self.sent)));
    }

    fn question_sent(&mut self, now: Instant, ping: Option<(String, ServerSeq)>) {
        (self.asked, self.unasked) = (Some(now), 0);
        self.question = Some(Question { since: now, waits: false, ping });
    }

    /// Takes the server's `<a/>`.
    pub(super) fn server_acked(&mut self, h: Handled) {
        let kind = if self.question.take().is_some() { ConfirmationKind::Answer } else { ConfirmationKind::Unasked };
        // There are fewer than 2^31 stanzas between the oldest open one and the newest.
        let behind = Handled::wrapping(self.sent.get()).since(h);
        if let Some(sent) = self.sent.checked_minus(u64::from(behind)) {
            self.confirm(sent, kind);
        }
    }

    /// Returns whether this answers the open ping. If so, everything sent before the ping is confirmed.
    pub(super) fn ping_answered(&mut self, id: &str) -> bool {
        let matches = |q: &&Question| q.ping.as_ref().is_some_and(|(ping, _)| ping == id);
        let Some((_, covers)) = self.question.as_ref().filter(matches).and_then(|q| q.ping.clone()) else {
            return false;
        };
        self.question = None;
        self.confirm(covers, ConfirmationKind::Answer);
        true
    }

    /// Notes that the server has everything sent up to this number.
    fn confirm(&mut self, sent: ServerSeq, kind: ConfirmationKind) {
        let stays = self.open.front().is_some_and(|(_, place)| *place > sent);
        self.fruitless =
            if stays { self.fruitless.saturating_add(u32::from(kind == ConfirmationKind::Answer)) } else { 0 };
        while self.open.front().is_some_and(|(_, place)| *place <= sent) {
            self.open.pop_front();
        }
    }

    /// Takes the client's `<r/>`, which came after `unforwarded` stanzas that were not forwarded yet.
    /// [`Confirmation::take_answers`] answers it, together with others if there are many.
    pub(super) fn client_asks(&mut self, now: Instant, unforwarded: u64) {
        if self.together {
            self.deferred = true;
            return;
        }
        let (requests, deadline) = self.due.map_or((0, now + ACK_PATIENCE), |due| (due.requests, due.deadline));
        let target = self.received.saturating_add(unforwarded);
        self.due = Some(AnswerDue { requests: (requests + 1).min(ONE_BY_ONE), target, deadline });
    }

    /// Notes that many answers wait to be written, or that all were written. In the second case the `<r/>`s that came
    /// meanwhile get one answer.
    pub(super) fn answer_together(&mut self, now: Instant, waiting: Replies, unforwarded: u64) {
        self.together = waiting == Replies::Many;
        if !self.together && std::mem::take(&mut self.deferred) {
            self.client_asks(now, unforwarded);
        }
    }

    /// The number of `<a/>`s that are to be sent to the client now: one for each `<r/>`, or an unrequested one.
    pub(super) fn take_answers(&mut self, now: Instant) -> usize {
        let count = self.count();
        if let Some(due) = self.due.take_if(|due| due.target <= count || due.deadline <= now) {
            self.follow_up = (count < due.target).then_some(FollowUp { target: due.target, sent: count });
            return due.requests;
        }
        let Some(follow_up) = self.follow_up.filter(|follow_up| follow_up.sent < count && self.due.is_none()) else {
            return 0;
        };
        self.follow_up = (count < follow_up.target).then_some(FollowUp { sent: count, ..follow_up });
        1
    }

    /// The time at which an answer is due, even if the server confirms nothing.
    pub(super) fn answer_deadline(&self) -> Option<Instant> {
        self.due.map(|due| due.deadline)
    }

    /// The time at which the server counts as lost unless it answers.
    pub(super) fn server_deadline(&self) -> Option<Instant> {
        let runs = |question: &&Question| !question.waits && !self.pause.is_on();
        self.question.as_ref().filter(runs).map(|question| question.since + SERVER_PATIENCE)
    }

    /// Notes that the open question waits to be written.
    pub(super) fn question_waits(&mut self) {
        if let Some(question) = &mut self.question {
            question.waits = true;
        }
    }

    /// Notes that the open question was written.
    pub(super) fn question_left(&mut self, now: Instant) {
        if let Some(question) = self.question.as_mut().filter(|question| question.waits) {
            (question.since, question.waits) = (now, false);
        }
    }

    /// Notes that the server is not read from now on: its answer may have come unread.
    pub(super) fn pause_server(&mut self, now: Instant) {
        self.pause.begin(now);
    }

    /// Notes that the server is read again. Returns a function that gives the delay to add for a question asked at a given
    /// time.
    pub(super) fn unpause_server(&mut self, now: Instant) -> impl Fn(Instant) -> Duration + use<> {
        let later = self.pause.end(now);
        if let Some(question) = &mut self.question {
            question.since += later(question.since);
        }
        later
    }

    /// Returns whether the server is not read.
    pub(super) fn is_server_paused(&self) -> bool {
        self.pause.is_on()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_server_confirmed_is_handled() {
        let mut c = Confirmation::default();
        c.enable();
        let now = Instant::now();
        c.forwarded();
        c.consumed();
        c.injected();
        c.forwarded();
        assert_eq!(c.handled(), Handled::new(0));
        assert!(c.must_ask());
        c.asked(now);
        c.server_acked(Handled::new(2));
        assert_eq!(c.handled(), Handled::new(2), "the consumed one counts with the one before it");
        c.server_acked(Handled::new(3));
        assert_eq!(c.handled(), Handled::new(3));
    }

    #[test]
    fn the_answer_to_a_ping_confirms_what_was_sent_before_it() {
        let mut c = Confirmation::default();
        c.enable();
        let now = Instant::now();
        c.forwarded();
        c.injected();
        c.pinged(now, "x".into());
        c.forwarded();
        assert!(!c.ping_answered("y"));
        assert!(c.ping_answered("x"));
        assert_eq!(c.handled(), Handled::new(1));
        assert!(c.must_ask());
    }

    #[test]
    fn the_next_question_waits_unless_much_was_sent_or_the_client_waits() {
        let mut c = Confirmation::default();
        c.enable();
        let now = Instant::now();
        c.forwarded();
        assert_eq!(c.pause(), None, "the first one does not wait");
        c.asked(now);
        c.server_acked(Handled::new(1));
        for _ in 1..BURST {
            c.forwarded();
            assert_eq!(c.pause(), Some(now + PACE));
        }
        c.forwarded();
        assert_eq!(c.pause(), None);
        c.asked(now);
        c.forwarded();
        assert_eq!(c.pause(), Some(now + PACE));
        c.client_asks(now, 0);
        assert_eq!(c.pause(), None);
    }

    #[test]
    fn an_ack_request_waits_a_moment_and_what_follows_is_owed() {
        let mut c = Confirmation::default();
        c.enable();
        let now = Instant::now();
        c.forwarded();
        c.client_asks(now, 0);
        c.client_asks(now, 0);
        assert_eq!(c.take_answers(now), 0);
        assert_eq!(c.take_answers(now + ACK_PATIENCE), 2);
        assert_eq!(c.take_answers(now + ACK_PATIENCE), 0);
        c.server_acked(Handled::new(1));
        assert_eq!(c.take_answers(now + ACK_PATIENCE), 1);
        assert_eq!(c.take_answers(now + ACK_PATIENCE), 0);
    }
}
