//! Answers to stanzas (RFC 6120 §8.2.3, §8.3).

use bytes::Bytes;

use super::condition::{ErrorType, StanzaCondition};
use super::node::Node;
use super::ns;
use super::writer::XmlWriter;

/// Begins a reply to a stanza: same name and id, this type, addressed to the sender.
pub fn answer(stanza: &Node<'_>, kind: &str) -> XmlWriter {
    let mut xml = XmlWriter::new();
    xml.start(stanza.name()).attr("type", kind);
    for (name, value) in [("id", stanza.attr("id")), ("from", stanza.attr("to")), ("to", stanza.attr("from"))] {
        if let Some(value) = value {
            xml.attr(name, &value);
        }
    }
    xml
}

/// Returns a stanza error in reply to a stanza.
pub fn stanza_error(stanza: &Node<'_>, kind: ErrorType, condition: StanzaCondition) -> Bytes {
    let mut xml = answer(stanza, "error");
    xml.start("error").attr("type", kind.name()).start(condition.name()).attr("xmlns", ns::STANZA_ERRORS);
    xml.finish()
}

/// Returns whether a stanza is an iq request, which must be answered.
pub fn is_request(stanza: &Node<'_>) -> bool {
    stanza.name() == "iq" && matches!(stanza.attr("type").as_deref(), Some("get" | "set"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::{Element, Header};

    #[test]
    fn an_error_is_addressed_back() {
        let element = |xml: &'static str| Element::parse(xml.into(), &Header::bare()).unwrap();
        let iq = element("<iq type='get' id='1' from='a&amp;b' to='c'><x xmlns='u'/></iq>");
        assert!(is_request(&iq.node()));
        let error = stanza_error(&iq.node(), ErrorType::Cancel, StanzaCondition::ServiceUnavailable);
        assert_eq!(
            error,
            "<iq type='error' id='1' from='c' to='a&amp;b'><error type='cancel'>\
             <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        );
        for other in ["<iq type='result' id='1'/>", "<iq id='1'/>", "<message type='get'/>"] {
            assert!(!is_request(&element(other).node()), "{other}");
        }
        let message = element("<message to='c'/>");
        assert_eq!(answer(&message.node(), "error").finish(), "<message type='error' from='c'/>");
    }
}
