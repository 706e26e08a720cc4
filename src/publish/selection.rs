//! [`TransportSelection`]: the order in which transports are tried for a push service, and the results kept about each
//! service.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::error::UnsentReason;
use crate::clock::Instant;
use crate::config::Transport;
use crate::push::outcome::Outcome;
use crate::registry::Published;

/// The time for which a transport is preferred after an earlier one in the order could not be used.
const AFTER_SKIP: Duration = Duration::from_secs(60 * 60);
/// The time for which a transport is preferred after the earlier ones in the order were refused.
const AFTER_REFUSAL: Duration = Duration::from_secs(24 * 60 * 60);
/// The limit for push services that are kept. Over it, the least recently used one is dropped.
const SERVICES: usize = 4096;

/// The result of trying one transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The publish was written.
    Done(Outcome),
    /// The publish was not written, for this reason.
    Skipped(UnsentReason),
}

/// One publish, while its transports are tried.
#[derive(Debug)]
pub(super) struct Trial {
    left: VecDeque<Transport>,
    /// The transport that is known to work, if there is one.
    known: Option<Transport>,
    refused: Option<Published>,
    skipped: Vec<Transport>,
}

impl Trial {
    /// Creates a trial of these transports, in order. `known`: the one that worked before.
    pub(super) fn new(order: Vec<Transport>, known: Option<Transport>) -> Self {
        Self { left: order.into(), known, refused: None, skipped: Vec::new() }
    }

    /// Returns the next transport to try.
    pub(super) fn next_transport(&mut self) -> Option<Transport> {
        self.left.pop_front()
    }

    /// Records the result of one transport. Returns the outcome of the publish once it is certain. A publish that was written
    /// is written again over another transport only if it was refused because of its sender.
    pub(super) fn tried(&mut self, transport: Transport, attempt: Attempt) -> Option<Published> {
        match attempt {
            Attempt::Done(Outcome::Refused(condition)) if is_about_sender(&condition) => {
                let outcome = Outcome::Refused(condition);
                self.refused = Some(Published { transport: Some(transport), outcome });
                None
            }
            Attempt::Done(outcome) => Some(Published { transport: Some(transport), outcome }),
            Attempt::Skipped(_) => {
                self.skipped.push(transport);
                None
            }
        }
    }

    /// Returns the outcome of the publish when no transport is left. A refusal does not count while the transport that is
    /// known to work is only unreachable.
    pub(super) fn end(self) -> Published {
        let out_of_reach = self.known.is_some_and(|known| self.skipped.contains(&known));
        let not_sent = Published { transport: None, outcome: Outcome::NotSent };
        self.refused.filter(|_| !out_of_reach).unwrap_or(not_sent)
    }

    fn any_skipped(&self) -> bool {
        !self.skipped.is_empty()
    }

    fn is_first(&self) -> bool {
        self.skipped.is_empty() && self.refused.is_none()
    }
}

/// Returns whether another transport, with another `from`, may succeed.
fn is_about_sender(condition: &str) -> bool {
    matches!(condition, "forbidden" | "not-authorized")
}

/// The state of a push service, as operators see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceStatus {
    /// The transport that is tried next. `None`: there is none.
    pub next: Option<Transport>,
    /// The outcome of the last publish, and its time.
    pub last: Option<(Published, SystemTime)>,
    /// The reasons why transports were passed over in the last attempts.
    pub passed_over: Vec<(Transport, String)>,
    /// The time until which no answers are requested on the domain's stream, because the service has sent more than answers.
    pub one_way_until: Option<SystemTime>,
}

/// The state that is kept about all push services.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct TransportSelection {
    services: BTreeMap<String, ServiceMemory>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ServiceMemory {
    used: Instant,
    /// The transport that worked when another did not, and the time until which it is preferred.
    worked: Option<(Transport, Instant)>,
    /// The reasons why transports did not work, as last logged.
    logged: BTreeMap<Transport, String>,
    last: Option<(Published, SystemTime)>,
}

impl ServiceMemory {
    fn new(now: Instant) -> Self {
        Self { used: now, worked: None, logged: BTreeMap::new(), last: None }
    }

    /// Returns the transport that is preferred now, if it is eligible.
    fn known(&self, now: Instant, fit: &[Transport]) -> Option<Transport> {
        let worked = self.worked.filter(|(_, until)| *until > now);
        worked.map(|(transport, _)| transport).filter(|known| fit.contains(known))
    }
}

impl TransportSelection {
    /// Starts a publish to a service over the eligible transports, the preferred one first.
    pub(super) fn trial(&mut self, now: Instant, service: &str, mut fit: Vec<Transport>) -> Trial {
        let memory = self.memory(now, service);
        let known = memory.known(now, &fit);
        if let Some(known) = known {
            fit.sort_by_key(|transport| *transport != known);
        }
        Trial::new(fit, known)
    }

    /// Records that a transport worked for a service in this trial.
    pub(super) fn on_success(&mut self, now: Instant, service: &str, transport: Transport, trial: &Trial) {
        let memory = self.memory(now, service);
        memory.logged.remove(&transport);
        if !trial.is_first() {
            let long = if trial.any_skipped() { AFTER_SKIP } else { AFTER_REFUSAL };
            memory.worked = Some((transport, now + long));
        }
    }

    /// Records that a transport did not work for a service. Returns whether the reason is new.
    pub(super) fn is_news(&mut self, now: Instant, service: &str, transport: Transport, reason: &str) -> bool {
        let logged = &mut self.memory(now, service).logged;
        let is_new = logged.get(&transport).is_none_or(|last| last != reason);
        logged.insert(transport, reason.to_owned());
        is_new
    }

    /// Records the outcome of a publish to a service. `at` is the time of day.
    pub(super) fn on_end(&mut self, now: Instant, service: &str, published: Published, at: SystemTime) {
        self.memory(now, service).last = Some((published, at));
    }

    /// Returns the state of a service, for an account with these eligible transports.
    pub(super) fn service_status(&self, now: Instant, service: &str, fit: &[Transport]) -> ServiceStatus {
        let Some(memory) = self.services.get(service) else {
            return ServiceStatus { next: fit.first().copied(), ..ServiceStatus::default() };
        };
        let passed_over = fit.iter().filter_map(|one| memory.logged.get(one).map(|reason| (*one, reason.clone())));
        ServiceStatus {
            next: memory.known(now, fit).or_else(|| fit.first().copied()),
            last: memory.last.clone(),
            passed_over: passed_over.collect(),
            one_way_until: None,
        }
    }

    fn memory(&mut self, now: Instant, service: &str) -> &mut ServiceMemory {
        if self.services.len() >= SERVICES && !self.services.contains_key(service) {
            let oldest = self.services.iter().min_by_key(|(_, memory)| memory.used);
            if let Some(oldest) = oldest.map(|(service, _)| service.clone()) {
                self.services.remove(&oldest);
            }
        }
        let memory = self.services.entry(service.to_owned()).or_insert_with(|| ServiceMemory::new(now));
        memory.used = now;
        memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Transport::{Component, S2s, Session};

    const SERVICE: &str = "push.example";
    const ORDER: [Transport; 3] = [S2s, Component, Session];

    fn refused(condition: &str) -> Attempt {
        Attempt::Done(Outcome::Refused(condition.to_owned()))
    }

    fn skipped() -> Attempt {
        Attempt::Skipped(UnsentReason::NoSession)
    }

    /// Publishes once with these results of the transports. Returns the tried transports and the outcome.
    fn publish(
        selection: &mut TransportSelection,
        now: Instant,
        fare: impl Fn(Transport) -> Attempt,
    ) -> (Vec<Transport>, Published) {
        let mut trial = selection.trial(now, SERVICE, ORDER.to_vec());
        let mut tried = Vec::new();
        while let Some(transport) = trial.next_transport() {
            tried.push(transport);
            if let Some(published) = trial.tried(transport, fare(transport)) {
                selection.on_success(now, SERVICE, transport, &trial);
                return (tried, published);
            }
        }
        (tried, trial.end())
    }

    fn by(transport: Transport, outcome: Outcome) -> Published {
        Published { transport: Some(transport), outcome }
    }

    #[test]
    fn each_combination_of_transport_results_has_its_outcome() {
        let none = Published { transport: None, outcome: Outcome::NotSent };
        type TransportResults = fn(Transport) -> Attempt;
        let table: [(TransportResults, &[Transport], Published); 8] = [
            (|_| Attempt::Done(Outcome::Accepted), &[S2s], by(S2s, Outcome::Accepted)),
            (|_| Attempt::Done(Outcome::Unknown), &[S2s], by(S2s, Outcome::Unknown)),
            (|_| Attempt::Done(Outcome::Wait("x".into())), &[S2s], by(S2s, Outcome::Wait("x".into()))),
            (|_| refused("item-not-found"), &[S2s], by(S2s, Outcome::Refused("item-not-found".into()))),
            (|_| refused("forbidden"), &ORDER, by(Session, Outcome::Refused("forbidden".into()))),
            (|_| skipped(), &ORDER, none),
            (
                |t| if t == Session { Attempt::Done(Outcome::Accepted) } else { skipped() },
                &ORDER,
                by(Session, Outcome::Accepted),
            ),
            (
                |t| if t == S2s { refused("not-authorized") } else { Attempt::Done(Outcome::Unknown) },
                &[S2s, Component],
                by(Component, Outcome::Unknown),
            ),
        ];
        for (row, (fare, tried, expect)) in table.into_iter().enumerate() {
            assert_eq!(
                publish(&mut TransportSelection::default(), Instant::now(), fare),
                (tried.to_vec(), expect),
                "row {row}"
            );
        }
    }

    #[test]
    fn the_transport_that_worked_is_tried_first_until_its_preference_expires() {
        let (mut selection, now) = (TransportSelection::default(), Instant::now());
        let fare = |t| if t == Session { Attempt::Done(Outcome::Accepted) } else { skipped() };
        assert_eq!(publish(&mut selection, now, fare).0, ORDER);
        assert_eq!(publish(&mut selection, now + AFTER_SKIP / 2, fare).0, [Session]);
        assert_eq!(publish(&mut selection, now + AFTER_SKIP, fare).0, ORDER);
        let fare = |t| if t == Session { Attempt::Done(Outcome::Accepted) } else { refused("forbidden") };
        let now = now + 3 * AFTER_SKIP;
        assert_eq!(publish(&mut selection, now, fare).0, ORDER);
        assert_eq!(publish(&mut selection, now + AFTER_REFUSAL / 2, fare).0, [Session]);
        assert_eq!(publish(&mut selection, now + AFTER_REFUSAL, fare).0, ORDER);
    }

    #[test]
    fn the_next_process_knows_which_transport_works_for_as_long() {
        let (mut selection, now) = (TransportSelection::default(), Instant::now());
        let fare = |t| if t == Session { Attempt::Done(Outcome::Accepted) } else { skipped() };
        let published = publish(&mut selection, now, fare).1;
        assert!(selection.is_news(now, SERVICE, S2s, "unreachable"));
        selection.on_end(now, SERVICE, published, SystemTime::now());
        let bytes = rmp_serde::to_vec_named(&selection).unwrap();
        let mut after: TransportSelection = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(after.service_status(now, SERVICE, &ORDER), selection.service_status(now, SERVICE, &ORDER));
        assert!(!after.is_news(now, SERVICE, S2s, "unreachable"));
        assert_eq!(publish(&mut after, now + AFTER_SKIP / 2, fare).0, [Session]);
        assert_eq!(publish(&mut after, now + AFTER_SKIP, fare).0, ORDER);
    }

    #[test]
    fn a_refusal_does_not_count_while_what_is_known_to_work_is_out_of_reach() {
        let (mut selection, now) = (TransportSelection::default(), Instant::now());
        publish(&mut selection, now, |t| if t == Component { Attempt::Done(Outcome::Accepted) } else { skipped() });
        let fare = |t| if t == Component { skipped() } else { refused("forbidden") };
        assert_eq!(publish(&mut selection, now, fare).1.outcome, Outcome::NotSent);
        assert_eq!(
            publish(&mut selection, now + AFTER_SKIP, fare).1,
            by(Session, Outcome::Refused("forbidden".to_owned()))
        );
    }

    #[test]
    fn a_reason_is_news_once() {
        let (mut selection, now) = (TransportSelection::default(), Instant::now());
        assert!(selection.is_news(now, SERVICE, S2s, "a"));
        assert!(!selection.is_news(now, SERVICE, S2s, "a"));
        assert!(selection.is_news(now, SERVICE, S2s, "b"));
        assert!(selection.is_news(now, SERVICE, Component, "b"));
        assert!(selection.is_news(now, "other.example", S2s, "b"));
        selection.on_success(now, SERVICE, S2s, &Trial::new(Vec::new(), None));
        assert!(selection.is_news(now, SERVICE, S2s, "b"));
    }

    #[test]
    fn operators_see_the_next_transport_and_why_others_were_passed_over() {
        let (mut selection, now) = (TransportSelection::default(), Instant::now());
        assert_eq!(
            selection.service_status(now, SERVICE, &ORDER),
            ServiceStatus { next: Some(S2s), ..ServiceStatus::default() }
        );
        assert_eq!(selection.service_status(now, SERVICE, &[]), ServiceStatus::default());
        let fare = |t| if t == Session { Attempt::Done(Outcome::Unknown) } else { skipped() };
        let published = publish(&mut selection, now, fare).1;
        assert!(selection.is_news(now, SERVICE, S2s, "unreachable"));
        let last = (published, SystemTime::UNIX_EPOCH);
        selection.on_end(now, SERVICE, last.0.clone(), last.1);
        let expect = ServiceStatus {
            next: Some(Session),
            last: Some(last),
            passed_over: vec![(S2s, "unreachable".to_owned())],
            one_way_until: None,
        };
        assert_eq!(selection.service_status(now, SERVICE, &ORDER), expect);
        // Another account has no session transport, so the first eligible one comes next again.
        assert_eq!(selection.service_status(now, SERVICE, &[Component]).next, Some(Component));
        assert_eq!(selection.service_status(now + AFTER_SKIP, SERVICE, &ORDER).next, Some(S2s));
    }

    #[test]
    fn services_that_are_remembered_are_bounded() {
        let (mut selection, now) = (TransportSelection::default(), Instant::now());
        for n in 0..2 * SERVICES as u64 {
            selection.trial(now + Duration::from_secs(n), &n.to_string(), ORDER.to_vec());
        }
        assert_eq!(selection.services.len(), SERVICES);
        assert!(!selection.services.contains_key("0"));
    }
}
