//! Rewrites stanzas from the content namespace of another stream to that of client streams.

use bytes::Bytes;
use quick_xml::Reader;
use quick_xml::Writer;
use quick_xml::events::{BytesStart, Event};

use crate::xml::{Element, ErrorType, Header, Kind, Node, StanzaCondition, normalized, ns, stanza_error};

/// Returns the same stanza, self-contained, as it would be written on a client's stream: `jabber:server` or
/// `jabber:component:accept` become `jabber:client`. Returns `None` if it is not a stanza. Namespaces are compared after
/// normalisation.
pub(super) fn to_client(element: &Element) -> Option<Element> {
    let from = element.header().default_namespace().to_owned();
    let whole = element.on_stream(&Header::bare());
    let mut reader = Reader::from_reader(whole.as_ref());
    let mut writer = Writer::new(Vec::with_capacity(whole.len()));
    loop {
        let mut event = reader.read_event().ok()?;
        if let Event::Start(tag) | Event::Empty(tag) = &mut event {
            rename(tag, &from)?;
        } else if let Event::Eof = event {
            break;
        }
        writer.write_event(event).ok()?;
    }
    let rewritten = Element::parse(Bytes::from(writer.into_inner()), &Header::bare()).ok()?;
    (rewritten.kind() != Kind::Other).then_some(rewritten)
}

/// Changes the declarations of one namespace on a start tag to the namespace of clients.
fn rename(tag: &mut BytesStart<'_>, from: &str) -> Option<()> {
    let declares = |key: &str| key == "xmlns" || key.starts_with("xmlns:");
    let is_it = |value: &str| value == from || normalized(value) == from;
    let attributes: Vec<_> = tag.attributes().collect::<Result<_, _>>().ok()?;
    if !attributes.iter().any(|a| declares(a.key.as_ref()) && is_it(&a.value)) {
        return Some(());
    }
    let mut changed = BytesStart::new(tag.name().as_ref().to_owned());
    for attribute in attributes {
        if declares(attribute.key.as_ref()) && is_it(&attribute.value) {
            changed.push_attribute((attribute.key.as_ref(), ns::CLIENT));
        } else {
            changed.push_attribute(attribute);
        }
    }
    *tag = changed.into_owned();
    Some(())
}

/// Returns the error for a request or message that this entity does not accept (RFC 6120 §8.3.3.19).
pub(super) fn unavailable(stanza: &Node<'_>) -> Bytes {
    stanza_error(stanza, ErrorType::Cancel, StanzaCondition::ServiceUnavailable)
}

/// Returns the error for a stanza that is not accepted on this stream but may be accepted on another (RFC 6120 §8.3.3.18).
/// Rooms do not expel an occupant for it.
pub(super) fn busy(stanza: &Node<'_>) -> Bytes {
    stanza_error(stanza, ErrorType::Wait, StanzaCondition::ResourceConstraint)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::xml::{Frame, FrameLimits, Framer, Kind, is_request};

    fn on_server_stream(xml: &str) -> Element {
        let mut framer = Framer::with_default_namespace(FrameLimits::new(1 << 16, 32), ns::SERVER);
        let header = "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' \
                      xmlns:d='jabber:server:dialback'>";
        framer.buffer().extend_from_slice(format!("{header}{xml}").as_bytes());
        framer.next_frame().unwrap();
        match framer.next_frame().unwrap() {
            Some(Frame::Element(element)) => element,
            other => panic!("{other:?}"),
        }
    }

    fn check(xml: &str, expect: &str) {
        let rewritten = to_client(&on_server_stream(xml)).unwrap();
        assert_eq!(String::from_utf8_lossy(rewritten.bytes()), expect);
        assert_eq!(rewritten.node().ns(), ns::CLIENT);
        assert_ne!(rewritten.kind(), Kind::Other);
        assert!(Arc::ptr_eq(rewritten.header(), &Header::bare()));
    }

    #[test]
    fn a_stanza_is_the_same_in_the_namespace_of_clients() {
        check(
            "<message to='a'><body>b</body></message>",
            "<message xmlns=\"jabber:client\" to=\"a\"><body>b</body></message>",
        );
        check(
            "<iq xmlns='jabber:server' id='1'><x xmlns='u'><y xmlns='jabber:server'/></x></iq>",
            "<iq xmlns=\"jabber:client\" id=\"1\"><x xmlns='u'><y xmlns=\"jabber:client\"/></x></iq>",
        );
        check(
            "<message><body>xmlns='jabber:server' &lt;</body></message>",
            "<message xmlns=\"jabber:client\"><body>xmlns='jabber:server' &lt;</body></message>",
        );
        check(
            "<message xmlns='jabber:serv&#101;r'><x xmlns='jabber:serve&#x72;'/></message>",
            "<message xmlns=\"jabber:client\"><x xmlns=\"jabber:client\"/></message>",
        );
        check("<s:iq xmlns:s='jabber:&#115;erver'/>", "<s:iq xmlns=\"jabber:client\" xmlns:s=\"jabber:client\"/>");
        check(
            "<message from='a&apos;b'><d:x/></message>",
            "<message xmlns=\"jabber:client\" xmlns:d=\"jabber:server:dialback\" from=\"a&apos;b\"><d:x/></message>",
        );
    }

    #[test]
    fn requests_are_answered_back() {
        let iq = to_client(&on_server_stream("<iq type='get' id='1' from='a' to='b'><q xmlns='u'/></iq>")).unwrap();
        assert!(is_request(&iq.node()));
        assert_eq!(
            unavailable(&iq.node()),
            "<iq type='error' id='1' from='b' to='a'><error type='cancel'>\
             <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        );
    }
}
