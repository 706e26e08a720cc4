//! The hash of an element's content. It is independent of how a server writes the element: the order of attributes, the
//! quotes, the references and the form of empty elements make no difference.

use std::hash::Hasher;

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};

use super::exact::normalized;

use super::node::Node;
use super::ns;

/// Separators that no text contains, since XML excludes these characters.
const START: u8 = 1;
const END: u8 = 2;

impl Node<'_> {
    /// Feeds a hasher with the names as written, the attributes and the text. Omits redundant declarations of the
    /// content namespace. Prefixes count as written. `attribute` hashes one attribute, so that the order of attributes
    /// does not matter.
    pub fn digest<H: Hasher>(&self, hasher: &mut H, attribute: impl Fn(&str, &str) -> u64) {
        let raw = std::str::from_utf8(self.raw()).unwrap_or_default();
        let mut reader = Reader::from_str(raw);
        loop {
            match reader.read_event() {
                Ok(Event::Start(tag)) => digest_tag(&tag, hasher, &attribute),
                Ok(Event::Empty(tag)) => {
                    digest_tag(&tag, hasher, &attribute);
                    hasher.write_u8(END);
                }
                Ok(Event::End(_)) => hasher.write_u8(END),
                Ok(Event::Text(text)) => hasher.write(text.xml10_content().as_bytes()),
                Ok(Event::CData(text)) => hasher.write(text.xml10_content().as_bytes()),
                Ok(Event::GeneralRef(reference)) => match reference.resolve_char_ref() {
                    Ok(Some(char)) => hasher.write(char.encode_utf8(&mut [0; 4]).as_bytes()),
                    Ok(None) | Err(_) => {
                        hasher.write(resolve_predefined_entity(&reference).unwrap_or_default().as_bytes());
                    }
                },
                Ok(Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_)) => {}
                Ok(Event::Eof) | Err(_) => return,
            }
        }
    }
}

fn digest_tag<H: Hasher>(tag: &BytesStart<'_>, hasher: &mut H, attribute: impl Fn(&str, &str) -> u64) {
    hasher.write_u8(START);
    hasher.write(tag.name().as_ref().as_bytes());
    let mut sum = 0u64;
    for attr in tag.attributes().with_checks(false).flatten() {
        let value: &str = &attr.value;
        if attr.key.as_ref() == "xmlns" && value == ns::CLIENT {
            continue;
        }
        sum = sum.wrapping_add(attribute(attr.key.as_ref(), &normalized(value)));
    }
    hasher.write_u8(START);
    hasher.write_u64(sum);
}
