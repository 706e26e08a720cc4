//! Which of the client's stanzas the server has taken, and so may be acknowledged to the client.
//!
//! Where the server has stream management its `<a/>` says so; elsewhere the answer to a ping that was sent behind them on the
//! ordered stream does, whatever it is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::seq::ServerSeq;
use crate::session::contract::Replies;
use crate::session::pause::Pause;
use crate::session::sm::Handled;

/// How long a client's `<r/>` may wait for a confirmation that is expected.
const ACK_PATIENCE: Duration = Duration::from_millis(200);
/// Where nobody waits for it, the server is asked again after this long, so that a stream of stanzas does not cost a question
/// each.
const PACE: Duration = Duration::from_millis(100);
/// Or after so many stanzas of the client.
const BURST: usize = 256;
/// A server that confirms nothing is asked again after twice [`PACE`], then after twice that, and so often at most.
const LONGEST_PAUSE: u32 = 9;
/// How long the server may take to confirm anything before its connection counts as lost.
const SERVER_PATIENCE: Duration = Duration::from_secs(60);
/// Stanzas of the client that may be unconfirmed before no more are read.
const OPEN: usize = 4096;
/// Open `<r/>`s of the client that are answered one by one.
const ONE_BY_ONE: usize = 256;

/// A question to the server that is open.
#[derive(Clone, Debug)]
struct Question {
    since: Instant,
    /// It has not left: other bytes are in front of it.
    waits: bool,
    /// The ping's iq id, and the stanzas that its answer confirms. `None` for an `<r/>`, whose answer says itself.
    ping: Option<(String, ServerSeq)>,
}

/// The client's stanzas on their way to the server. Counts are of the whole session, and wrap only on the wire.
#[derive(Debug, Default)]
pub(super) struct Confirmation {
    /// The client counts: only then does anybody ask what the server has.
    counting: bool,
    /// Stanzas of the client since its `<enable/>`.
    received: u64,
    /// Stanzas written to the server, the client's and our own.
    sent: ServerSeq,
    /// The client's stanzas that the server has not confirmed: their place among `received` and among `sent`.
    open: VecDeque<(u64, ServerSeq)>,
    question: Option<Question>,
    /// Whether the server is read.
    pause: Pause,
    /// When the server was asked last.
    asked: Option<Instant>,
    /// Stanzas of the client written to the server since then.
    unasked: usize,
    /// Answers in a row that confirmed nothing although something is unconfirmed.
    fruitless: u32,
    /// The client's `<r/>`s that are not answered.
    due: Option<AnswerDue>,
    /// The client was told less than it asked for: more follows as soon as there is more to tell.
    owed: Option<Owed>,
    /// Answers wait to be written: the next one waits until they have left, and is for all.
    together: bool,
    /// An `<r/>` waits for that.
    deferred: bool,
}

/// Open `<r/>`s of the client.
#[derive(Clone, Copy, Debug)]
struct AnswerDue {
    /// How many.
    requests: usize,
    /// The stanzas that they are about.
    target: u64,
    /// When they are answered, whatever the server does.
    deadline: Instant,
}

/// What is to be told without being asked.
#[derive(Clone, Copy, Debug)]
struct Owed {
    target: u64,
    told: u64,
}

/// What makes the server confirm stanzas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConfirmationKind {
    /// Our question.
    Answer,
    /// Nothing: it does so of its own accord.
    Unasked,
}

impl Confirmation {
    /// Bytes of memory that it has beside a few.
    pub(super) fn memory(&self) -> usize {
        self.open.capacity() * size_of::<(u64, ServerSeq)>()
    }

    /// The client begins to count.
    pub(super) fn enable(&mut self) {
        self.counting = true;
        self.received = 0;
        self.open.clear();
        (self.due, self.owed, self.deferred) = (None, None, false);
    }

    /// A stanza of the client was answered here.
    pub(super) fn consumed(&mut self) {
        self.received += 1;
    }

    /// A stanza of the client is written to the server.
    pub(super) fn forwarded(&mut self) {
        self.received += 1;
        self.sent = self.sent.next();
        if self.counting {
            self.open.push_back((self.received, self.sent));
            self.unasked += 1;
        }
    }

    /// The client resumes with the `h` that it is told now: what is beyond, it sends again, under the same numbers.
    pub(super) fn rewind(&mut self) {
        self.received = self.count();
        self.open.clear();
        (self.due, self.owed, self.deferred) = (None, None, false);
    }

    /// A stanza of our own is written to the server.
    pub(super) fn injected(&mut self) {
        self.sent = self.sent.next();
    }

    /// The `h` for the client: its stanzas up to here are the server's.
    pub(super) fn handled(&self) -> Handled {
        Handled::wrapping(self.count())
    }

    fn count(&self) -> u64 {
        self.open.front().map_or(self.received, |(place, _)| place - 1)
    }

    /// Whether the server has all.
    pub(super) fn is_complete(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether the client may send more.
    pub(super) fn has_room(&self) -> bool {
        self.open.len() < OPEN
    }

    /// Whether the server was asked and has not answered.
    pub(super) fn is_asked(&self) -> bool {
        self.question.is_some()
    }

    /// Whether the server is to be asked: something is unconfirmed, and no question is open.
    pub(super) fn must_ask(&self) -> bool {
        !self.open.is_empty() && self.question.is_none()
    }

    /// Until when the next question waits: where the client does not wait for it, and where a server whose count stays behind
    /// was asked about the same before.
    pub(super) fn pause(&self) -> Option<Instant> {
        if self.unasked == 0 && self.fruitless > 0 {
            let longer = 1 << self.fruitless.min(LONGEST_PAUSE);
            return self.asked.map(|at| at + PACE * longer);
        }
        let waited_for = self.due.is_some() || self.owed.is_some();
        self.asked.filter(|_| !waited_for && self.unasked < BURST).map(|at| at + PACE)
    }

    /// An `<r/>` was sent to the server.
    pub(super) fn asked(&mut self, now: Instant) {
        self.question_sent(now, None);
    }

    /// A ping with this id was sent to the server, behind all that was sent before.
    pub(super) fn pinged(&mut self, now: Instant, id: String) {
        self.question_sent(now, Some((id, self.sent)));
    }

    fn question_sent(&mut self, now: Instant, ping: Option<(String, ServerSeq)>) {
        (self.asked, self.unasked) = (Some(now), 0);
        self.question = Some(Question { since: now, waits: false, ping });
    }

    /// The server's `<a/>`.
    pub(super) fn server_acked(&mut self, h: Handled) {
        let kind = if self.question.take().is_some() { ConfirmationKind::Answer } else { ConfirmationKind::Unasked };
        // The stanzas between the oldest open one and the newest are fewer than 2^31.
        let behind = Handled::wrapping(self.sent.get()).since(h);
        if let Some(sent) = self.sent.checked_minus(u64::from(behind)) {
            self.confirm(sent, kind);
        }
    }

    /// Whether this is the answer to the open ping; if so, what was sent before it is confirmed.
    pub(super) fn ping_answered(&mut self, id: &str) -> bool {
        let matches = |q: &&Question| q.ping.as_ref().is_some_and(|(ping, _)| ping == id);
        let Some((_, covers)) = self.question.as_ref().filter(matches).and_then(|q| q.ping.clone()) else {
            return false;
        };
        self.question = None;
        self.confirm(covers, ConfirmationKind::Answer);
        true
    }

    /// The server has what was sent up to here.
    fn confirm(&mut self, sent: ServerSeq, kind: ConfirmationKind) {
        let stays = self.open.front().is_some_and(|(_, place)| *place > sent);
        self.fruitless =
            if stays { self.fruitless.saturating_add(u32::from(kind == ConfirmationKind::Answer)) } else { 0 };
        while self.open.front().is_some_and(|(_, place)| *place <= sent) {
            self.open.pop_front();
        }
    }

    /// The client's `<r/>`, behind so many stanzas that were not forwarded yet. It is answered by
    /// [`Confirmation::take_answers`], together with others where there are many.
    pub(super) fn client_asks(&mut self, now: Instant, unforwarded: u64) {
        if self.together {
            self.deferred = true;
            return;
        }
        let (requests, deadline) = self.due.map_or((0, now + ACK_PATIENCE), |due| (due.requests, due.deadline));
        let target = self.received.saturating_add(unforwarded);
        self.due = Some(AnswerDue { requests: (requests + 1).min(ONE_BY_ONE), target, deadline });
    }

    /// Many answers wait to be written, or all have left: then the `<r/>`s that came meanwhile get one.
    pub(super) fn answer_together(&mut self, now: Instant, waiting: Replies, unforwarded: u64) {
        self.together = waiting == Replies::Many;
        if !self.together && std::mem::take(&mut self.deferred) {
            self.client_asks(now, unforwarded);
        }
    }

    /// How many `<a/>`s are to be sent to the client now: one for each `<r/>`, or one that nobody asked for.
    pub(super) fn take_answers(&mut self, now: Instant) -> usize {
        let count = self.count();
        if let Some(due) = self.due.take_if(|due| due.target <= count || due.deadline <= now) {
            self.owed = (count < due.target).then_some(Owed { target: due.target, told: count });
            return due.requests;
        }
        let Some(owed) = self.owed.filter(|owed| owed.told < count && self.due.is_none()) else { return 0 };
        self.owed = (count < owed.target).then_some(Owed { told: count, ..owed });
        1
    }

    /// When an answer is due whatever the server does.
    pub(super) fn answer_deadline(&self) -> Option<Instant> {
        self.due.map(|due| due.deadline)
    }

    /// When the server counts as lost, if it does not answer until then.
    pub(super) fn server_deadline(&self) -> Option<Instant> {
        let runs = |question: &&Question| !question.waits && !self.pause.is_on();
        self.question.as_ref().filter(runs).map(|question| question.since + SERVER_PATIENCE)
    }

    /// The open question has not left.
    pub(super) fn question_waits(&mut self) {
        if let Some(question) = &mut self.question {
            question.waits = true;
        }
    }

    /// The open question has left.
    pub(super) fn question_left(&mut self, now: Instant) {
        if let Some(question) = self.question.as_mut().filter(|question| question.waits) {
            (question.since, question.waits) = (now, false);
        }
    }

    /// The server is not read from now on: its answer may have come.
    pub(super) fn pause_server(&mut self, now: Instant) {
        self.pause.begin(now);
    }

    /// The server is read again.
    ///
    /// Returns how much later whatever it was asked for at a moment is due.
    pub(super) fn unpause_server(&mut self, now: Instant) -> impl Fn(Instant) -> Duration + use<> {
        let later = self.pause.end(now);
        if let Some(question) = &mut self.question {
            question.since += later(question.since);
        }
        later
    }

    /// Whether the server is not read.
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
