//! Changes to stanzas: adds an attribute, or a delay stamp (XEP-0203).

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use quick_xml::escape::escape;

use crate::xml::{Element, XmlWriter, ns};

/// Returns the element with one more attribute. Returns it unchanged if it has that attribute.
pub(super) fn with_attribute(element: &Element, name: &str, value: &str) -> Element {
    if element.node().attr(name).is_some() {
        return element.clone();
    }
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>');
    let at = element.bytes().iter().position(is_end).unwrap_or_default();
    spliced(element, at, format!(" {name}='{}'", escape(value)).as_bytes())
}

/// Returns the message with the time at which it began to wait (XEP-0203).
pub(super) fn with_delay(message: &Element, domain: &str, since: SystemTime) -> Element {
    let node = message.node();
    if node.child("delay", ns::DELAY).is_some() || node.is_empty_tag() {
        return message.clone();
    }
    let mut delay = XmlWriter::new();
    let stamp = humantime::format_rfc3339_seconds(since).to_string();
    delay.start("delay").attr("xmlns", ns::DELAY).attr("from", domain).attr("stamp", &stamp);
    spliced(message, node.inner().end, &delay.finish())
}

/// Returns the element with bytes inserted at an offset. Returns it unchanged if the result is not an element.
fn spliced(element: &Element, at: usize, inserted: &[u8]) -> Element {
    let bytes = element.bytes();
    let (Some(before), Some(after)) = (bytes.get(..at), bytes.get(at..)) else { return element.clone() };
    let mut whole = BytesMut::with_capacity(bytes.len() + inserted.len());
    for part in [before, inserted, after] {
        whole.extend_from_slice(part);
    }
    Element::parse(Bytes::from(whole), element.header()).unwrap_or_else(|error| {
        tracing::error!(%error, "embedded server wrote an invalid stanza");
        element.clone()
    })
}
