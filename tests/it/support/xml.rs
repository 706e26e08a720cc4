//! XML for the tests, independent of the product's: a splitter that keeps bytes as they are, and a small tree.

use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::reader::NsReader;

/// One item at the top level of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// `<stream:stream …>`, without an XML declaration before it.
    Header(String),
    /// A whole element, byte for byte.
    Element(String),
    /// `</stream:stream>`
    Footer,
}

/// Splits a stream into [`Item`]s.
#[derive(Default)]
pub(crate) struct Framer {
    buffer: Vec<u8>,
    whitespace: usize,
}

impl Framer {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the number of whitespace bytes between elements so far.
    pub(crate) fn whitespace(&self) -> usize {
        self.whitespace
    }

    /// Returns the next item, if it is complete.
    pub(crate) fn next(&mut self) -> Option<Item> {
        loop {
            let blank = self.buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.whitespace += blank;
            self.buffer.drain(..blank);
            if !self.buffer.starts_with(b"<?") {
                break;
            }
            let end = find(&self.buffer, 0, b"?>")?;
            self.buffer.drain(..end);
        }
        if self.buffer.starts_with(b"</") {
            let end = find(&self.buffer, 0, b">")?;
            self.buffer.drain(..end);
            return Some(Item::Footer);
        }
        let (end, _) = tag_end(&self.buffer, 0)?;
        if self.buffer.starts_with(b"<stream:stream") {
            return Some(Item::Header(self.take(end)));
        }
        let end = element_end(&self.buffer)?;
        Some(Item::Element(self.take(end)))
    }

    fn take(&mut self, end: usize) -> String {
        String::from_utf8(self.buffer.drain(..end).collect()).expect("a peer sent something that is not UTF-8")
    }
}

fn find(bytes: &[u8], from: usize, needle: &[u8]) -> Option<usize> {
    let at = bytes.get(from..)?.windows(needle.len()).position(|window| window == needle)?;
    Some(from + at + needle.len())
}

/// Returns the end of the start tag at `from`, and whether it is an empty element.
fn tag_end(bytes: &[u8], from: usize) -> Option<(usize, bool)> {
    let mut quote = None;
    for (at, &byte) in bytes.iter().enumerate().skip(from) {
        match (quote, byte) {
            (Some(open), _) if open == byte => quote = None,
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'>') => return Some((at + 1, bytes[at - 1] == b'/')),
            _ => {}
        }
    }
    None
}

fn element_end(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = 0;
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == b'<')?;
        let rest = &bytes[at..];
        if rest.starts_with(b"<![CDATA[") {
            at = find(bytes, at, b"]]>")?;
        } else if rest.starts_with(b"<!--") {
            at = find(bytes, at, b"-->")?;
        } else if rest.starts_with(b"</") {
            at = find(bytes, at, b">")?;
            depth -= 1;
        } else {
            let (end, empty) = tag_end(bytes, at)?;
            at = end;
            depth += usize::from(!empty);
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// An element with its namespaces resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) ns: String,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) children: Vec<Element>,
    pub(crate) text: String,
}

impl Element {
    /// Parses an element at the top level of a `jabber:client` stream.
    pub(crate) fn parse(xml: &str) -> Self {
        let wrapped = format!("<s xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>{xml}</s>");
        let mut reader = NsReader::from_str(&wrapped);
        let mut open = vec![Self::default()];
        loop {
            let (ns, event) = reader.read_resolved_event().unwrap_or_else(|error| panic!("{error} in {xml}"));
            match event {
                Event::Start(tag) => open.push(Self::start(&ns, &tag)),
                Event::Empty(tag) => {
                    let element = Self::start(&ns, &tag);
                    open.last_mut().unwrap().children.push(element);
                }
                Event::End(_) => {
                    let element = open.pop().unwrap();
                    open.last_mut().unwrap().children.push(element);
                }
                Event::Text(text) => open.last_mut().unwrap().text.push_str(&text),
                Event::CData(text) => open.last_mut().unwrap().text.push_str(&text),
                Event::GeneralRef(reference) => open.last_mut().unwrap().text.push(character(&reference)),
                Event::Eof => break,
                other => panic!("{other:?} in {xml}"),
            }
        }
        open.pop().unwrap().children.pop().unwrap().children.pop().unwrap_or_else(|| panic!("no element in {xml}"))
    }

    fn start(ns: &ResolveResult<'_>, tag: &BytesStart<'_>) -> Self {
        let ns = match ns {
            ResolveResult::Bound(ns) => ns.0.to_owned(),
            other => panic!("{other:?} prefix of {tag:?}"),
        };
        let attributes = tag.attributes().map(|attribute| {
            let attribute = attribute.unwrap();
            (attribute.key.as_ref().to_owned(), quick_xml::escape::unescape(&attribute.value).unwrap().into_owned())
        });
        let mut attributes: Vec<_> = attributes.collect();
        // The order of attributes has no meaning, and Prosody changes it.
        attributes.sort();
        Self { name: tag.local_name().as_ref().to_owned(), ns, attributes, ..Self::default() }
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns the first child of that name.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// Returns all elements of that name at any depth, in document order.
    pub(crate) fn all(&self, name: &str) -> Vec<&Self> {
        let mut found: Vec<&Self> = if self.name == name { vec![self] } else { Vec::new() };
        found.extend(self.children.iter().flat_map(|child| child.all(name)));
        found
    }

    /// Returns the values of a form's field (XEP-0004).
    pub(crate) fn field(&self, var: &str) -> Vec<&str> {
        let field = self.children.iter().find(|child| child.attribute("var") == Some(var));
        field.map(|field| field.all("value").iter().map(|value| value.text.as_str()).collect()).unwrap_or_default()
    }
}

fn character(reference: &BytesRef<'_>) -> char {
    if let Some(character) = reference.resolve_char_ref().unwrap() {
        return character;
    }
    match reference.as_ref() {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "quot" => '"',
        "apos" => '\'',
        other => panic!("undefined entity {other}"),
    }
}
