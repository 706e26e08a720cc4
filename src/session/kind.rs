//! Classification of stanzas: which must not be lost, and which are requests.

use bytes::Bytes;

use crate::xml::{self, Element, ErrorType, Kind, StanzaCondition, stanza_error};

/// Returns whether a stanza must not be lost: messages, subscription presence, iq requests (invariant 2).
pub(super) fn is_durable(element: &Element) -> bool {
    let of_type = |types: &[&str]| element.node().attr("type").is_some_and(|t| types.contains(&t.as_ref()));
    match element.kind() {
        Kind::Message => true,
        Kind::Presence => of_type(&["subscribe", "subscribed", "unsubscribe", "unsubscribed"]),
        Kind::Iq => xml::is_request(&element.node()),
        Kind::Other => false,
    }
}

/// Returns whether the sender expects an answer (RFC 6120 §8.2.3).
pub(super) fn is_request(element: &Element) -> bool {
    element.kind() == Kind::Iq && xml::is_request(&element.node())
}

/// Returns the error for a request that the client will never receive.
pub(super) fn refusal(request: &Element) -> Bytes {
    stanza_error(&request.node(), ErrorType::Cancel, StanzaCondition::ServiceUnavailable)
}

/// Returns the error for a request that nobody can keep, while the client may come back at once.
pub(super) fn postponement(request: &Element) -> Bytes {
    stanza_error(&request.node(), ErrorType::Wait, StanzaCondition::ResourceConstraint)
}
