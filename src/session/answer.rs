//! Answers to stanzas that Pushward writes itself.

use bytes::Bytes;

use crate::push::registration;
use crate::push::settings::PushSettings;
use crate::xml::{ErrorType, Node, StanzaCondition, XmlWriter, ns};

/// An empty result for an iq request (RFC 6120 §8.2.3), addressed back to the asker.
pub(super) fn iq_result(request: &Node<'_>) -> Bytes {
    let mut xml = XmlWriter::new();
    answer(&mut xml, "iq", request, "result");
    xml.finish()
}

/// An error for an iq request (RFC 6120 §8.3).
pub(super) fn iq_error(request: &Node<'_>, kind: ErrorType, condition: StanzaCondition) -> Bytes {
    error("iq", request, kind, condition)
}

/// An error for a message (RFC 6120 §8.3).
pub(super) fn message_error(message: &Node<'_>, kind: ErrorType, condition: StanzaCondition) -> Bytes {
    error("message", message, kind, condition)
}

fn error(name: &str, stanza: &Node<'_>, kind: ErrorType, condition: StanzaCondition) -> Bytes {
    let mut xml = XmlWriter::new();
    answer(&mut xml, name, stanza, "error");
    xml.start("error").attr("type", kind.name()).start(condition.name()).attr("xmlns", ns::STANZA_ERRORS);
    xml.finish()
}

/// The disco#info of an account whose server has none: what a registered account with push looks like.
pub(super) fn account_info(error: &Node<'_>, settings: &PushSettings) -> Bytes {
    let mut xml = XmlWriter::new();
    xml.start("iq").attr("type", "result");
    for name in ["id", "from", "to"] {
        if let Some(value) = error.attr(name) {
            xml.attr(name, &value);
        }
    }
    xml.start("query").attr("xmlns", ns::DISCO_INFO);
    xml.start("identity").attr("category", "account").attr("type", "registered").end();
    for var in registration::features(settings) {
        xml.start("feature").attr("var", var).end();
    }
    xml.finish()
}

fn answer(xml: &mut XmlWriter, name: &str, request: &Node<'_>, kind: &str) {
    xml.start(name).attr("type", kind);
    for (name, value) in [("id", request.attr("id")), ("from", request.attr("to")), ("to", request.attr("from"))] {
        if let Some(value) = value {
            xml.attr(name, &value);
        }
    }
}

/// Returns the error (RFC 6120 §8.3) that a client gets in place of a skipped answer to its iq.
pub(super) fn unreadable(answer: &Node<'_>) -> Bytes {
    let mut xml = XmlWriter::new();
    xml.start("iq").attr("type", "error");
    for name in ["id", "from", "to"] {
        if let Some(value) = answer.attr(name) {
            xml.attr(name, &value);
        }
    }
    xml.start("error")
        .attr("type", ErrorType::Modify.name())
        .start(StanzaCondition::NotAcceptable.name())
        .attr("xmlns", ns::STANZA_ERRORS);
    xml.finish()
}
