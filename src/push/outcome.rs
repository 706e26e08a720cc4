//! What became of a publish, and what follows from it.

use super::account::Change;
use super::registration::Target;
use crate::xml::{Node, excerpt, ns};

/// What became of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The push service accepted it.
    Accepted,
    /// It was refused for now (RFC 6120 §8.3.2 type `wait`), with this condition: not counted, repeated.
    Wait(String),
    /// It was refused, with this stanza error condition: counted.
    Refused(String),
    /// No answer in `publish_timeout`: it may or may not have arrived, so it is neither counted nor repeated.
    Unknown,
    /// No transport could carry it: repeated.
    NotSent,
}

impl Outcome {
    /// What the answer of a push service means.
    pub fn of(answer: &Node<'_>) -> Self {
        if answer.attr("type").as_deref() == Some("result") {
            return Self::Accepted;
        }
        let error = answer.child("error", ns::CLIENT);
        let condition = error.and_then(|e| e.children().find(|c| c.ns() == ns::STANZA_ERRORS));
        let condition = excerpt(condition.map_or("undefined-condition", |c| c.name()));
        match error.and_then(|e| e.attr("type")).as_deref() {
            Some("wait") => Self::Wait(condition),
            _ => Self::Refused(condition),
        }
    }

    /// All names.
    pub const NAMES: [&str; 5] = ["accepted", "wait", "refused", "unknown", "not_sent"];

    /// Its name: the metric's label.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Wait(_) => "wait",
            Self::Refused(_) => "refused",
            Self::Unknown => "unknown",
            Self::NotSent => "not_sent",
        }
    }

    /// Whether the same may be sent once more, after a while.
    pub fn may_be_repeated(&self) -> bool {
        matches!(self, Self::Wait(_) | Self::NotSent)
    }

    /// What is noted about the registration; `max_errors` in a row end it.
    pub fn change(&self, target: &Target, max_errors: u32, at: u64) -> Option<Change> {
        let target = target.clone();
        match self {
            Self::Accepted => Some(Change::Succeeded { target, at }),
            Self::Refused(_) => Some(Change::Failed { target, max_errors }),
            Self::Wait(_) | Self::Unknown | Self::NotSent => None,
        }
    }
}
