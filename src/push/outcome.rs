//! The outcome of a publish, and the change that follows from it.

use super::account::Change;
use super::registration::Target;
use crate::clock::UnixSecs;
use crate::xml::{Node, excerpt, ns};

/// The outcome of a publish.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Outcome {
    /// The push service accepted it.
    Accepted,
    /// It was not delivered, or was refused temporarily (RFC 6120 §8.3.2 type `wait`), with this condition. It is not
    /// counted as an error, and it is repeated.
    Wait(String),
    /// It was refused with this stanza error condition. It is counted as an error.
    Refused(String),
    /// No answer arrived within `publish_timeout`. It may or may not have arrived, so it is neither counted nor
    /// repeated.
    Unknown,
    /// No transport could carry it. It is repeated.
    NotSent,
}

/// The conditions by which servers on the way report, with any type (RFC 6120 §8.3.3.16 f.), that the service is
/// unreachable.
const OUT_OF_REACH: [&str; 2] = ["remote-server-not-found", "remote-server-timeout"];

impl Outcome {
    /// Reads the answer of a push service.
    pub fn of(answer: &Node<'_>) -> Self {
        if answer.attr("type").as_deref() == Some("result") {
            return Self::Accepted;
        }
        let error = answer.child("error", ns::CLIENT);
        let condition = error.and_then(|e| e.children().find(|c| c.ns() == ns::STANZA_ERRORS));
        let condition = excerpt(condition.map_or("undefined-condition", |c| c.name()));
        match error.and_then(|e| e.attr("type")).as_deref() {
            Some("wait") => Self::Wait(condition),
            _ if OUT_OF_REACH.contains(&condition.as_str()) => Self::Wait(condition),
            _ => Self::Refused(condition),
        }
    }

    /// All names.
    pub const NAMES: [&str; 5] = ["accepted", "wait", "refused", "unknown", "not_sent"];

    /// Returns its name, the metric's label.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Wait(_) => "wait",
            Self::Refused(_) => "refused",
            Self::Unknown => "unknown",
            Self::NotSent => "not_sent",
        }
    }

    /// Returns the condition with which it was refused or not delivered.
    pub fn condition(&self) -> Option<&str> {
        match self {
            Self::Wait(condition) | Self::Refused(condition) => Some(condition),
            Self::Accepted | Self::Unknown | Self::NotSent => None,
        }
    }

    /// Returns whether the same publish may be sent again later.
    pub fn may_be_repeated(&self) -> bool {
        matches!(self, Self::Wait(_) | Self::NotSent)
    }

    /// Returns the change of the registration. `max_errors` errors in a row end it.
    pub fn change(&self, target: &Target, max_errors: u32, at: UnixSecs) -> Option<Change> {
        let target = target.clone();
        match self {
            Self::Accepted => Some(Change::Succeeded { target, at }),
            Self::Refused(_) => Some(Change::Failed { target, max_errors }),
            Self::Wait(_) | Self::NotSent => Some(Change::Undelivered { target, at }),
            Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::element;

    fn check(kind: &str, condition: &str, waits: bool) {
        let conditions = "urn:ietf:params:xml:ns:xmpp-stanzas";
        let error = format!("<error type='{kind}'><{condition} xmlns='{conditions}'/></error>");
        let answer = element(&format!("<iq type='error' id='1' from='push.example'>{error}</iq>"));
        let expect = if waits { Outcome::Wait(condition.to_owned()) } else { Outcome::Refused(condition.to_owned()) };
        assert_eq!(Outcome::of(&answer.node()), expect, "{kind} {condition}");
        assert_eq!(expect.may_be_repeated(), waits);
    }

    #[test]
    fn a_delivery_error_does_not_count_against_the_registration() {
        for kind in ["cancel", "wait", "modify", "auth", "x"] {
            check(kind, "remote-server-not-found", true);
            check(kind, "remote-server-timeout", true);
            for condition in ["gone", "item-not-found", "forbidden", "service-unavailable", "internal-server-error"] {
                check(kind, condition, kind == "wait");
            }
        }
    }

    #[test]
    fn an_undelivered_publish_is_recorded_and_an_unknown_outcome_is_not() {
        let target = Target { service: "push.example".parse().unwrap(), node: None };
        let changes = |outcome: Outcome| outcome.change(&target, 3, UnixSecs::new(7));
        let undelivered = Some(Change::Undelivered { target: target.clone(), at: UnixSecs::new(7) });
        assert_eq!(changes(Outcome::NotSent), undelivered);
        assert_eq!(changes(Outcome::Wait("remote-server-timeout".into())), undelivered);
        assert_eq!(changes(Outcome::Unknown), None);
    }
}
