//! A hash of the content of an element, the same however a server writes it: the order of attributes, quotes, references and the
//! form of empty elements make no difference.

use std::hash::Hasher;

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};

use super::exact::normalized;

use super::node::Node;
use super::ns;

/// Marks that no text contains, since XML has no such characters.
const START: u8 = 1;
const END: u8 = 2;

impl Node<'_> {
    /// Feeds a hasher with names as they are written, attributes and text. Redundant declarations of the content namespace are
    /// left out; prefixes count as they are written. `attribute` hashes one attribute, so that their order does not matter.
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
