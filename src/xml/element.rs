//! One top-level element of a stream, kept as it came.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::error::FrameError;
use super::header::Header;
use super::limits::FrameLimits;
use super::memory::Charge;
use super::node::Node;
use super::scan::{Found, Scan};
use super::scope::{Declared, Decls};

/// What a top-level element is: a stanza (RFC 6120 §8), or anything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A message stanza in the stream's content namespace.
    Message,
    /// A presence stanza in the stream's content namespace.
    Presence,
    /// An iq stanza in the stream's content namespace.
    Iq,
    /// Not a stanza.
    #[default]
    Other,
}

/// A top-level element. Cloning it copies two pointers and no bytes.
#[derive(Clone)]
pub struct Element {
    bytes: Bytes,
    header: Arc<Header>,
    /// Data that few elements have, boxed so that the others stay small.
    rare: Option<Arc<Rare>>,
    kind: Kind,
}

/// Data of elements that use prefixes or are very large.
struct Rare {
    /// Namespace declarations inside the element.
    decls: Option<Box<Declared>>,
    /// The prefixes of the stream header that it uses, one bit each.
    borrowed: u64,
    /// Its part of the memory that large elements share.
    _charge: Option<Charge>,
}

impl Element {
    /// An element of our own making, valid on the stream that `header` opened. Fails if it is not exactly one well-formed
    /// element.
    pub fn parse(bytes: Bytes, header: &Arc<Header>) -> Result<Element, FrameError> {
        if bytes.first() != Some(&b'<') {
            return Err(FrameError::BadFormat { what: "text" });
        }
        let mut scan = Scan::default();
        // It was bounded where it came from.
        match scan.advance(&bytes, header, &FrameLimits::server(bytes.len()))? {
            Some(len) if len == bytes.len() => Ok(Element::new(bytes, Arc::clone(header), scan.finish(), None)),
            Some(_) => Err(FrameError::BadFormat { what: "content behind the element" }),
            None => Err(FrameError::malformed("incomplete element", bytes.len())),
        }
    }

    pub(super) fn new(bytes: Bytes, header: Arc<Header>, found: Found, charge: Option<Charge>) -> Element {
        let Found { kind, decls, borrowed } = found;
        let plain = decls.is_none() && borrowed == 0 && charge.is_none();
        let rare = (!plain).then(|| Arc::new(Rare { decls, borrowed, _charge: charge }));
        Element { bytes, header, rare, kind }
    }

    /// An element that is known to be of this kind, and to have no prefixes.
    pub(super) fn of_kind(bytes: Bytes, header: &Arc<Header>, kind: Kind) -> Element {
        Element { bytes, header: Arc::clone(header), rare: None, kind }
    }

    /// The element exactly as it came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether it is a stanza, and which.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The header of the stream on which it came.
    pub fn header(&self) -> &Arc<Header> {
        &self.header
    }

    /// The same in bytes of its own, for what is kept: it does not keep alive what was read together with it.
    pub fn compact(&self) -> Element {
        Element { bytes: Bytes::copy_from_slice(&self.bytes), ..self.clone() }
    }

    /// A view of its root.
    pub fn node(&self) -> Node<'_> {
        Node::root(self)
    }

    /// Whether these bytes occur in it anywhere: a cheap look before a parse.
    pub fn mentions(&self, needle: &str) -> bool {
        memchr::memmem::find(&self.bytes, needle.as_bytes()).is_some()
    }

    /// Whether its root has this local name and namespace.
    pub fn is(&self, name: &str, ns: &str) -> bool {
        self.node().is(name, ns)
    }

    /// Bytes that mean the same on the stream that `target` opened. As they came if it is the same header or nothing is
    /// borrowed from the header; else with the borrowed namespaces declared on the start tag, and with `xml:lang` if the
    /// streams' languages differ and the stanza has none (RFC 6120 §4.7.4, §8.1.5).
    pub fn on_stream(&self, target: &Arc<Header>) -> Bytes {
        self.carried_to(target).unwrap_or_else(|| self.bytes.clone())
    }

    /// As [`Element::on_stream`], of an element that is wanted for nothing else.
    pub fn into_stream(self, target: &Arc<Header>) -> Bytes {
        self.carried_to(target).unwrap_or(self.bytes)
    }

    /// Its bytes on the stream that `target` opened, where they differ.
    fn carried_to(&self, target: &Arc<Header>) -> Option<Bytes> {
        if self.header.shares_meaning(target) {
            return None;
        }
        let added = self.declarations_for(target);
        if added.is_empty() {
            return None;
        }
        let name_end = self.node().name_end();
        let mut bytes = BytesMut::with_capacity(self.bytes.len() + added.len());
        bytes.extend_from_slice(self.bytes.get(..name_end).unwrap_or_default());
        bytes.extend_from_slice(added.as_bytes());
        bytes.extend_from_slice(self.bytes.get(name_end..).unwrap_or_default());
        Some(bytes.freeze())
    }

    fn declarations_for(&self, target: &Header) -> String {
        let mut added = String::new();
        let mut add = |name: std::fmt::Arguments<'_>, value: &str| {
            added.push_str(&format!(" {name}='{}'", quick_xml::escape::escape(value)));
        };
        let own = &self.header;
        if own.default_namespace() != target.default_namespace() && self.node().attr("xmlns").is_none() {
            add(format_args!("xmlns"), own.default_namespace());
        }
        let bits = self.rare.as_ref().map_or(0, |rare| rare.borrowed);
        let borrowed = (0..u64::BITS as usize).filter(|index| bits & (1 << index) != 0);
        for (prefix, uri) in borrowed.filter_map(|index| own.declared(index)) {
            if target.prefix(prefix.as_bytes()).is_none_or(|(_, other)| other != uri) {
                add(format_args!("xmlns:{prefix}"), uri);
            }
        }
        if let (Some(lang), false) = (own.lang(), self.kind == Kind::Other) {
            let same = target.lang().is_some_and(|other| other.eq_ignore_ascii_case(lang));
            if !same && self.node().attr("xml:lang").is_none() {
                add(format_args!("xml:lang"), lang);
            }
        }
        added
    }

    pub(super) fn decls(&self) -> Option<&Decls> {
        self.rare.as_ref()?.decls.as_ref().map(|declared| declared.decls())
    }
}

/// Kind and length; never content.
impl std::fmt::Debug for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Element").field("kind", &self.kind).field("len", &self.bytes.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(attributes: &str) -> Arc<Header> {
        let header = format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' {attributes}>"
        );
        Arc::new(Header::parse(header.into()).unwrap())
    }

    fn element(xml: &'static str, header: &Arc<Header>) -> Element {
        Element::parse(Bytes::from_static(xml.as_bytes()), header).unwrap()
    }

    #[test]
    fn an_element_goes_unchanged_to_a_stream_that_means_the_same() {
        let own = header("xml:lang='en' xmlns:p='u' id='1'");
        let target = header("id='2' xml:lang='EN' xmlns:p='u'");
        for xml in
            ["<message><p:a/></message>", "<stream:features/>", "<iq xml:lang='de'/>", "<r xmlns='urn:xmpp:sm:3'/>"]
        {
            assert_eq!(element(xml, &own).on_stream(&own), xml);
            assert_eq!(element(xml, &own).on_stream(&target), xml);
        }
    }

    #[test]
    fn what_an_element_borrows_from_its_header_goes_with_it() {
        let own = header("xmlns:p='u' xmlns:q='v&amp;&#39;w' xmlns:r='x'");
        let check = |xml: &'static str, expected: &str| {
            assert_eq!(element(xml, &own).on_stream(&header("xmlns:r='y'")), expected);
        };
        check("<message/>", "<message/>");
        check("<message><p:a/></message>", "<message xmlns:p='u'><p:a/></message>");
        check("<message\n a='b'><x p:c=''/></message>", "<message xmlns:p='u'\n a='b'><x p:c=''/></message>");
        check("<q:a/>", "<q:a xmlns:q='v&amp;&apos;w'/>");
        check("<r:a/>", "<r:a xmlns:r='x'/>");
        check("<a xmlns:p='z'><p:b/></a>", "<a xmlns:p='z'><p:b/></a>");
        check("<a><b xmlns:p='z'><p:c/></b><p:d/></a>", "<a xmlns:p='u'><b xmlns:p='z'><p:c/></b><p:d/></a>");
        check("<stream:error/>", "<stream:error/>");
    }

    #[test]
    fn a_stanza_keeps_its_language_where_the_stream_has_another() {
        let own = header("xml:lang='en'");
        for (target, xml, expected) in [
            ("xml:lang='de'", "<message/>", "<message xml:lang='en'/>"),
            ("", "<iq to='a'/>", "<iq xml:lang='en' to='a'/>"),
            ("xml:lang='de'", "<presence xml:lang='fr'/>", "<presence xml:lang='fr'/>"),
            ("xml:lang='de'", "<r xmlns='urn:xmpp:sm:3'/>", "<r xmlns='urn:xmpp:sm:3'/>"),
        ] {
            assert_eq!(element(xml, &own).on_stream(&header(target)), expected);
        }
        assert_eq!(element("<message/>", &header("")).on_stream(&own), "<message/>");
    }

    #[test]
    fn exactly_one_element_is_parsed() {
        let header = header("");
        for xml in ["", " ", "a", "<a/> ", " <a/>", "<a/><b/>", "<a>", "<a", "</a>", "<p:a/>", "<!-- -->"] {
            assert!(Element::parse(xml.into(), &header).is_err(), "{xml}");
        }
        assert!(element("<iq/>", &header).is("iq", "jabber:client"));
        assert!(!element("<iq/>", &header).is("iq", "jabber:server"));
    }

    #[test]
    fn debug_output_shows_no_content() {
        let header = header("from='secret'");
        let element = element("<message to='secret'><secret/></message>", &header);
        assert!(!format!("{element:?} {header:?} {:?}", element.node()).contains("secret"));
    }
}
