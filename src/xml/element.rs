//! [`Element`]: one top-level element of a stream, kept as received.

use std::sync::Arc;

use bytes::Bytes;

use super::error::FrameError;
use super::header::Header;
use super::kind::Kind;
use super::limits::FrameLimits;
use super::memory::Charge;
use super::progress::FoundElement;
use super::scan::Scan;
use super::scope::{Declared, Decls};

/// A top-level element. Cloning it copies two pointers and no bytes.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "ElementRecord")]
pub struct Element {
    bytes: Bytes,
    header: Arc<Header>,
    /// Data that few elements have. It is boxed to keep the others small.
    #[serde(skip)]
    rare: Option<Arc<Rare>>,
    #[serde(skip)]
    kind: Kind,
}

/// An element in a record. The rest is found by parsing it again.
#[derive(serde::Deserialize)]
struct ElementRecord {
    bytes: Bytes,
    header: Arc<Header>,
}

impl TryFrom<ElementRecord> for Element {
    type Error = FrameError;

    fn try_from(ElementRecord { bytes, header }: ElementRecord) -> Result<Self, FrameError> {
        Element::parse(bytes, &header)
    }
}

/// Data of elements that use prefixes or are very large.
struct Rare {
    /// Namespace declarations inside the element.
    decls: Option<Box<Declared>>,
    /// The prefixes of the stream header that the element uses, one bit each.
    borrowed: u64,
    /// Its part of the memory shared by large elements.
    _charge: Option<Charge>,
}

impl Element {
    /// Parses an element that Pushward has written for the stream of `header`. Fails if it is not exactly one
    /// well-formed element.
    pub fn parse(bytes: Bytes, header: &Arc<Header>) -> Result<Element, FrameError> {
        if bytes.first() != Some(&b'<') {
            return Err(FrameError::BadFormat { what: "text" });
        }
        let mut scan = Scan::default();
        // Its size was limited where it was received.
        match scan.advance(&bytes, header, &FrameLimits::server(bytes.len()))? {
            Some(len) if len == bytes.len() => Ok(Element::new(bytes, Arc::clone(header), scan.finish(), None)),
            Some(_) => Err(FrameError::BadFormat { what: "content behind the element" }),
            None => Err(FrameError::malformed("incomplete element", bytes.len())),
        }
    }

    pub(super) fn new(bytes: Bytes, header: Arc<Header>, found: FoundElement, charge: Option<Charge>) -> Element {
        let FoundElement { kind, decls, borrowed } = found;
        let plain = decls.is_none() && borrowed == 0 && charge.is_none();
        let rare = (!plain).then(|| Arc::new(Rare { decls, borrowed, _charge: charge }));
        Element { bytes, header, rare, kind }
    }

    /// Creates an element of this kind without prefixes. The caller has checked both.
    pub(super) fn of_kind(bytes: Bytes, header: &Arc<Header>, kind: Kind) -> Element {
        Element { bytes, header: Arc::clone(header), rare: None, kind }
    }

    /// Returns the element exactly as received.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns its bytes.
    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the header of the stream on which the element was received.
    pub fn header(&self) -> &Arc<Header> {
        &self.header
    }

    /// Copies the element into its own memory, so that it does not keep the shared read buffer alive.
    pub fn compact(&self) -> Element {
        Element { bytes: Bytes::copy_from_slice(&self.bytes), ..self.clone() }
    }

    /// Returns whether these bytes occur anywhere in the element: a cheap test before parsing.
    pub fn mentions(&self, needle: &str) -> bool {
        memchr::memmem::find(&self.bytes, needle.as_bytes()).is_some()
    }

    /// Returns the prefixes of its stream's header that it uses, one bit each.
    pub(super) fn borrowed(&self) -> u64 {
        self.rare.as_ref().map_or(0, |rare| rare.borrowed)
    }

    pub(super) fn decls(&self) -> Option<&Decls> {
        self.rare.as_ref()?.decls.as_ref().map(|declared| declared.decls())
    }
}

/// Formats kind and length, never content.
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
