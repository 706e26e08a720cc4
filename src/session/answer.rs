//! Answers to stanzas, written by Pushward itself.

use bytes::Bytes;

use super::rewrite;
use crate::push::registration;
use crate::push::settings::PushSettings;
use crate::xml::{Element, ErrorType, Node, StanzaCondition, XmlWriter, answer, ns};

/// Returns an empty result for an iq request (RFC 6120 §8.2.3), addressed to its sender.
pub(super) fn iq_result(request: &Node<'_>) -> Bytes {
    answer(request, "result").finish()
}

/// Returns the server's answer to a request for the features of an account, with those of Pushward.
pub(super) fn account_features(answer: &Element, settings: &PushSettings) -> Element {
    let node = answer.node();
    let info = match node.attr("type").as_deref() {
        Some("error") => Some(account_info(&node, settings)),
        _ => rewrite::account_info(answer, settings),
    };
    let rewritten = info.and_then(|bytes| Element::parse(bytes, answer.header()).ok());
    rewritten.unwrap_or_else(|| answer.clone())
}

/// Returns the disco#info of an account for a server that has none: that of a registered account with push.
fn account_info(error: &Node<'_>, settings: &PushSettings) -> Bytes {
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

/// Returns the error (RFC 6120 §8.3) that a client gets in place of a skipped answer to its iq.
pub(super) fn unreadable(skipped: &Node<'_>) -> Bytes {
    let mut xml = XmlWriter::new();
    xml.start("iq").attr("type", "error");
    for name in ["id", "from", "to"] {
        if let Some(value) = skipped.attr(name) {
            xml.attr(name, &value);
        }
    }
    xml.start("error")
        .attr("type", ErrorType::Modify.name())
        .start(StanzaCondition::NotAcceptable.name())
        .attr("xmlns", ns::STANZA_ERRORS);
    xml.finish()
}
