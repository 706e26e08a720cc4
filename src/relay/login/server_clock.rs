//! [`ServerClock`]: the timeout for the server's answers during a login.

use std::time::Duration;

use crate::clock::Instant;
use crate::session::negotiate::Awaited;

/// The state of a request to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestState {
    /// All written bytes have been sent, and the server is read.
    Sent,
    /// Bytes wait to be written, or the server is not read.
    Waits,
}

/// The time since which the server has the request that it is to answer.
#[derive(Debug, Default)]
pub(super) struct ServerClock {
    since: Option<(Awaited, Instant)>,
}

impl ServerClock {
    /// Returns the time at which the server is given up.
    pub(super) fn deadline(
        &mut self,
        now: Instant,
        awaited: Option<Awaited>,
        request: RequestState,
        server_timeout: Duration,
    ) -> Option<Instant> {
        let begun = |awaited| self.since.filter(|(same, _)| *same == awaited).map_or(now, |(_, since)| since);
        self.since = awaited.filter(|_| request == RequestState::Sent).map(|awaited| (awaited, begun(awaited)));
        self.end(server_timeout)
    }

    /// Returns whether the server has had its time to answer.
    pub(super) fn is_over(&self, now: Instant, server_timeout: Duration) -> bool {
        self.end(server_timeout).is_some_and(|end| end <= now)
    }

    fn end(&self, server_timeout: Duration) -> Option<Instant> {
        self.since.map(|(awaited, since)| since + awaited.answer.patience(server_timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::negotiate::ServerAnswer;

    const PATIENCE: Duration = Duration::from_secs(25);

    fn awaited(answer: ServerAnswer, given: u64) -> Option<Awaited> {
        Some(Awaited::of(answer, given))
    }

    #[test]
    fn the_clock_runs_from_when_the_request_has_left_until_the_answer_is_another() {
        let (begin, mut clock) = (Instant::now(), ServerClock::default());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let header = awaited(ServerAnswer::Header, 0);
        assert_eq!(clock.deadline(at(0), None, RequestState::Sent, PATIENCE), None, "it owes nothing");
        assert_eq!(clock.deadline(at(1), header, RequestState::Waits, PATIENCE), None, "the request has not left");
        assert_eq!(clock.deadline(at(2), header, RequestState::Sent, PATIENCE), Some(at(27)));
        assert_eq!(
            clock.deadline(at(20), header, RequestState::Sent, PATIENCE),
            Some(at(27)),
            "looking at it does not put it off"
        );
        assert_eq!([26, 27, 28].map(|seconds| clock.is_over(at(seconds), PATIENCE)), [false, true, true]);
        let features = awaited(ServerAnswer::Features, 1);
        assert_eq!(
            clock.deadline(at(21), features, RequestState::Sent, PATIENCE),
            Some(at(46)),
            "each answer has its own time"
        );
        assert!(!clock.is_over(at(27), PATIENCE));
    }

    #[test]
    fn of_two_answers_of_one_kind_each_has_its_own_time() {
        let (begin, mut clock) = (Instant::now(), ServerClock::default());
        let later = begin + Duration::from_secs(24);
        clock.deadline(begin, awaited(ServerAnswer::Sasl, 2), RequestState::Sent, PATIENCE);
        assert_eq!(
            clock.deadline(later, awaited(ServerAnswer::Sasl, 3), RequestState::Sent, PATIENCE),
            Some(later + PATIENCE)
        );
    }

    #[test]
    fn while_the_server_is_not_read_no_clock_runs_and_then_it_begins_again() {
        let (begin, mut clock) = (Instant::now(), ServerClock::default());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let bind = awaited(ServerAnswer::Bind, 4);
        clock.deadline(at(0), bind, RequestState::Sent, PATIENCE);
        assert_eq!(clock.deadline(at(10), bind, RequestState::Waits, PATIENCE), None);
        assert!(!clock.is_over(at(100), PATIENCE));
        assert_eq!(clock.deadline(at(100), bind, RequestState::Sent, PATIENCE), Some(at(125)));
        assert_eq!(clock.deadline(at(101), None, RequestState::Sent, PATIENCE), None, "it has answered");
        assert!(!clock.is_over(at(200), PATIENCE));
    }

    #[test]
    fn a_changed_timeout_applies_to_a_request_that_is_already_sent() {
        let (begin, mut clock) = (Instant::now(), ServerClock::default());
        let header = awaited(ServerAnswer::Header, 0);
        clock.deadline(begin, header, RequestState::Sent, PATIENCE);
        assert_eq!(clock.deadline(begin, header, RequestState::Sent, PATIENCE * 2), Some(begin + PATIENCE * 2));
        assert!(!clock.is_over(begin + PATIENCE, PATIENCE * 2));
    }
}
