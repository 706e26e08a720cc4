//! Skipping of an element that cannot be forwarded, in bounded memory: only its end is searched for. The framer returns
//! a [`Skipped`].

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use memchr::{memchr, memchr2};

use super::chars::{check_value, skip_space};
use super::element::Element;
use super::error::{FrameError, Restricted, Unfit};
use super::exact::normalized;
use super::excerpt::excerpt;
use super::header::Header;
use super::kind::Kind;
use super::writer::XmlWriter;

/// The maximum bytes of an attribute value that is kept: the length of a full JID (RFC 7622 §3.1).
const VALUE: usize = 3071;
/// The maximum bytes of a name whose end tag is compared.
const NAME: usize = 256;

/// The reason why an element was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum SkipReason {
    /// The element is larger than `[limits] upstream_stanza`.
    TooLarge,
    /// The element is larger than `[limits] stanza`, and other large elements use the shared memory.
    NoRoom,
    /// A prefix was not declared.
    Prefix,
    /// Some parsers reject the name of an element or attribute.
    Name,
    /// The element is not well-formed in another way.
    Malformed,
}

impl SkipReason {
    /// All reasons.
    pub const ALL: [Self; 5] = [Self::TooLarge, Self::NoRoom, Self::Prefix, Self::Name, Self::Malformed];

    /// Returns its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NoRoom => "no_room",
            Self::Prefix => "undeclared_prefix",
            Self::Name => "invalid_name",
            Self::Malformed => "not_well_formed",
        }
    }

    /// Returns the reason to skip an element with this error, or `None` if its end cannot be found.
    pub(super) fn of(error: &FrameError) -> Option<Self> {
        match error {
            FrameError::Unfit { what: Unfit::Unbound, .. } => Some(Self::Prefix),
            FrameError::Unfit { what: Unfit::Name, .. } => Some(Self::Name),
            FrameError::TooLarge { .. } => Some(Self::TooLarge),
            FrameError::Unfit { .. }
            | FrameError::BadEncoding
            | FrameError::TooDeep { .. }
            | FrameError::TooMany { .. }
            | FrameError::Restricted(Restricted::Entity) => Some(Self::Malformed),
            FrameError::NotWellFormed { .. }
            | FrameError::Restricted(Restricted::Comment | Restricted::Doctype | Restricted::ProcessingInstruction)
            | FrameError::BadNamespace
            | FrameError::BadFormat { .. } => None,
        }
    }
}

/// An element that was skipped.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Skipped {
    /// An empty element of the same kind. A stanza keeps its `type`, `id`, `from` and `to`.
    pub element: Element,
    /// Its name, in a form that is safe in a log line.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The reason.
    pub reason: SkipReason,
}

/// The state of the search within the element.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
enum Within {
    Content,
    /// After `<`.
    Markup,
    /// In a start tag, after this byte.
    Start(u8),
    /// In an attribute value with this quote.
    Value(u8),
    End,
    /// After `<!`. Holds the number of bytes that match the beginning of a CDATA section.
    Declaration(usize),
    /// In a CDATA section, after this number of `]`, at most two.
    CData(usize),
}

const CDATA: &[u8] = b"[CDATA[";

/// The part of an element that was read before it was skipped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    /// The number of bytes.
    pub(super) bytes: usize,
    /// The number of elements open after these bytes. If it is zero, the whole element was read.
    pub(super) depth: usize,
}

/// The progress in an element that is skipped.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct ElementSkip {
    within: Within,
    depth: usize,
    /// The name of the element, unless it is very long.
    name: Option<Box<[u8]>>,
    /// The name of the end tag, as far as it was read.
    end: Vec<u8>,
    whole: bool,
    skipped: Option<Box<Skipped>>,
}

impl ElementSkip {
    /// Skips the element that starts with `bytes`, from the end of the part described by `read`.
    pub(super) fn new(bytes: &[u8], header: &Arc<Header>, read: Read, reason: SkipReason) -> Self {
        let root = Root::read(bytes);
        let skipped = Skipped {
            element: root.remaining_element(header),
            name: root.log_name(),
            bytes: read.bytes as u64,
            reason,
        };
        let name = (root.name.len() <= NAME).then(|| root.name.into());
        let whole = read.bytes > 0 && read.depth == 0;
        let skipped = Some(Box::new(skipped));
        Self { within: Within::Content, depth: read.depth, name, end: Vec::new(), whole, skipped }
    }

    fn count(&mut self, bytes: usize) {
        if let Some(skipped) = &mut self.skipped {
            skipped.bytes = skipped.bytes.saturating_add(bytes as u64);
        }
    }

    /// Continues reading. Returns the number of bytes that belong to the element and, at its end, the skipped element.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<(usize, Option<Box<Skipped>>), FrameError> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at).copied().filter(|_| !self.whole) {
            let rest = bytes.get(at..).unwrap_or_default();
            let run = match self.within {
                Within::Content => memchr(b'<', rest),
                Within::Value(quote) => memchr2(quote, b'<', rest),
                Within::CData(0) => memchr(b']', rest),
                Within::Markup | Within::Start(_) | Within::End | Within::Declaration(_) | Within::CData(_) => Some(0),
            };
            match run {
                Some(0) => {
                    self.whole = self.step(byte)?;
                    at += 1;
                }
                Some(run) => at += run,
                None => at = bytes.len(),
            }
        }
        self.count(at);
        Ok((at, if self.whole { self.skipped.take() } else { None }))
    }

    /// Processes a byte that may change the state. Returns whether it is the last byte.
    fn step(&mut self, byte: u8) -> Result<bool, FrameError> {
        let mut whole = false;
        self.within = match (self.within, byte) {
            (Within::Content, _) => Within::Markup,
            (Within::Markup, b'/') => {
                self.end.clear();
                Within::End
            }
            (Within::Markup, b'!') => Within::Declaration(0),
            (Within::Markup, b'<' | b'>' | b'?') | (Within::Start(_) | Within::Value(_) | Within::End, b'<') => {
                return Err(FrameError::malformed("malformed tag", 0));
            }
            (Within::Start(last), b'>') => {
                self.depth += usize::from(last != b'/');
                whole = self.depth == 0;
                Within::Content
            }
            (Within::Start(_), quote @ (b'\'' | b'"')) => Within::Value(quote),
            (Within::Markup | Within::Start(_) | Within::Value(_), _) => Within::Start(byte),
            (Within::End, b'>') => {
                self.depth = self.depth.saturating_sub(1);
                whole = self.depth == 0;
                if whole && self.name.as_ref().is_some_and(|name| **name != *self.end.trim_ascii_end()) {
                    return Err(FrameError::malformed("end tag does not match", 0));
                }
                Within::Content
            }
            (Within::End, _) => {
                if self.depth == 1 && self.end.len() <= NAME {
                    self.end.push(byte);
                }
                Within::End
            }
            (Within::Declaration(seen), _) if CDATA.get(seen) == Some(&byte) => {
                if seen + 1 == CDATA.len() {
                    Within::CData(0)
                } else {
                    Within::Declaration(seen + 1)
                }
            }
            (Within::Declaration(_), _) => return Err(FrameError::malformed("unknown markup", 0)),
            (Within::CData(2), b'>') => Within::Content,
            (Within::CData(seen), b']') => Within::CData(seen.saturating_add(1).min(2)),
            (Within::CData(_), _) => Within::CData(0),
        };
        Ok(whole)
    }
}

/// The readable parts of a damaged or incomplete start tag.
struct Root<'a> {
    name: &'a [u8],
    /// The values of [`KEPT`].
    values: [Option<Cow<'a, str>>; 4],
    /// The namespace that the tag declares for the prefix of its own name, or the default namespace if it has no
    /// prefix.
    declared: Option<Cow<'a, str>>,
}

const KEPT: [&str; 4] = ["type", "id", "from", "to"];

impl<'a> Root<'a> {
    fn read(bytes: &'a [u8]) -> Self {
        let tag = bytes.get(1..).unwrap_or_default();
        let ends_name = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'/' | b'>');
        let name = tag.split(ends_name).next().unwrap_or_default();
        let mut root = Self { name, values: Default::default(), declared: None };
        let mut at = name.len();
        while let Some((key, value, end)) = attribute(tag, at) {
            at = end;
            let place = match KEPT.iter().position(|kept| kept.as_bytes() == key) {
                Some(index) => root.values.get_mut(index),
                None if declares(key, root.prefix()) => Some(&mut root.declared),
                None => None,
            };
            if let Some(place) = place {
                *place = place.take().or_else(|| readable(value));
            }
        }
        root
    }

    fn prefix(&self) -> &'a [u8] {
        memchr(b':', self.name).and_then(|colon| self.name.get(..colon)).unwrap_or_default()
    }

    fn kind(&self, header: &Header) -> Kind {
        let prefix = self.prefix();
        let (local, inherited) = match prefix {
            [] => (self.name, Some(header.default_namespace())),
            [..] => (self.name.get(prefix.len() + 1..).unwrap_or_default(), header.prefix(prefix).map(|(_, uri)| uri)),
        };
        let namespace = self.declared.as_deref().or(inherited);
        if namespace == Some(header.content_namespace()) { Kind::of(local) } else { Kind::Other }
    }

    /// Returns the remaining empty element.
    fn remaining_element(&self, header: &Arc<Header>) -> Element {
        let kind = self.kind(header);
        let name = match kind {
            Kind::Message => "message",
            Kind::Presence => "presence",
            Kind::Iq => "iq",
            Kind::Other => return Element::of_kind(Bytes::from_static(b"<skipped xmlns=''/>"), header, kind),
        };
        let mut xml = XmlWriter::new();
        xml.start(name);
        if header.default_namespace() != header.content_namespace() {
            xml.attr("xmlns", header.content_namespace());
        }
        for (name, value) in KEPT.iter().zip(&self.values) {
            if let Some(value) = value {
                xml.attr(name, value);
            }
        }
        Element::of_kind(xml.finish(), header, kind)
    }

    fn log_name(&self) -> String {
        excerpt(&String::from_utf8_lossy(self.name.get(..NAME).unwrap_or(self.name)))
    }
}

/// Returns the name and value of the attribute after the white space at `at`, and its end.
fn attribute(tag: &[u8], at: usize) -> Option<(&[u8], &[u8], usize)> {
    let start = skip_space(tag, at);
    let equals = start + tag.get(start..)?.iter().position(|byte| matches!(byte, b'=' | b'<' | b'>'))?;
    let open = skip_space(tag, equals + 1);
    let quote = tag.get(open).copied().filter(|byte| matches!(byte, b'\'' | b'"'))?;
    let end = open + 1 + memchr(quote, tag.get(open + 1..)?)?;
    Some((tag.get(start..equals)?.trim_ascii_end(), tag.get(open + 1..end)?, end + 1))
}

/// Returns whether this attribute declares the prefix, or the default namespace if the prefix is empty.
fn declares(key: &[u8], prefix: &[u8]) -> bool {
    match key.strip_prefix(b"xmlns") {
        Some([]) => prefix.is_empty(),
        Some([b':', declared @ ..]) => !prefix.is_empty() && declared == prefix,
        Some(_) | None => false,
    }
}

/// Returns a value that is valid and not too long.
fn readable(value: &[u8]) -> Option<Cow<'_, str>> {
    let value = Some(value).filter(|value| value.len() <= VALUE && check_value(value, 0).is_ok())?;
    std::str::from_utf8(value).ok().map(normalized)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::{Header, ns};

    /// Returns the skipped element of these bytes, given in chunks of `chunk` bytes, and the number of remaining bytes.
    fn skip(bytes: &[u8], chunk: usize) -> Result<Option<(Box<Skipped>, usize)>, FrameError> {
        let header = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:c='jabber:client'>";
        let header = Arc::new(Header::parse(header.into()).unwrap());
        let mut skip = ElementSkip::new(bytes, &header, Read { bytes: 0, depth: 0 }, SkipReason::Prefix);
        let mut read = 0;
        for part in bytes.chunks(chunk) {
            let (count, skipped) = skip.advance(part)?;
            read += count;
            if let Some(skipped) = skipped {
                return Ok(Some((skipped, bytes.len() - read)));
            }
        }
        Ok(None)
    }

    #[test]
    fn where_the_default_namespace_is_the_streams_a_stanza_is_known_by_its_own() {
        let header = Header::parse("<stream xmlns='http://etherx.jabber.org/streams'>".into()).map(Arc::new).unwrap();
        for (xml, kind) in [
            ("<message xmlns='jabber:client' id='1' a='' a=''/>", Kind::Message),
            ("<c:iq xmlns:c='jabber:client' a='' a=''/>", Kind::Iq),
            ("<message id='1' a='' a=''/>", Kind::Other),
        ] {
            let read = Read { bytes: 0, depth: 0 };
            let skipped = ElementSkip::new(xml.as_bytes(), &header, read, SkipReason::Malformed).skipped.unwrap();
            assert_eq!(skipped.element.kind(), kind, "{xml}");
            let again = Element::parse(skipped.element.bytes().clone(), &header).unwrap();
            assert_eq!(again.kind(), kind, "{xml}");
        }
    }

    #[test]
    fn an_element_is_skipped_up_to_its_end_whatever_it_contains() {
        for (xml, kind, name) in [
            ("<message/>", Kind::Message, "message"),
            ("<message a='/>'></message >", Kind::Message, "message"),
            ("<iq><q:x/><message>&x;<!x>", Kind::Iq, ""),
            ("<iq><q:x y='<'/></iq>", Kind::Iq, ""),
            ("<iq><a></b></c>", Kind::Iq, ""),
            ("<iq><q:x/><![CDATA[</iq>]] ]></iq>]]]><a b=\"'/>'\"/></iq>", Kind::Iq, ""),
            ("<presence\n><a><b><c/></b></a>\u{1}</presence>", Kind::Presence, "presence"),
            ("<message xmlns='jabber:server'/>", Kind::Other, "message"),
            ("<message xmlns='jabber:&#99;lient'/>", Kind::Message, "message"),
            ("<c:message></c:message>", Kind::Message, "c:message"),
            ("<d:message xmlns:d='jabber:client'/>", Kind::Message, "d:message"),
            ("<d:message/>", Kind::Other, "d:message"),
            ("<x/>", Kind::Other, "x"),
        ] {
            for chunk in [1, 3, xml.len() + 4] {
                let found = skip(format!("{xml}<a/>").as_bytes(), chunk);
                match found {
                    Ok(Some((skipped, left))) if !name.is_empty() => {
                        assert_eq!((skipped.element.kind(), &*skipped.name), (kind, name), "{xml}");
                        assert_eq!((skipped.bytes, left == 4 || chunk < 9), (xml.len() as u64, true), "{xml}");
                    }
                    Ok(Some((skipped, _))) => assert_eq!(skipped.bytes, xml.len() as u64, "{xml}"),
                    Ok(None) => panic!("{xml}"),
                    Err(_) => assert!(xml.contains("<!x") || xml.contains("'<'") || xml.contains("</c>"), "{xml}"),
                }
            }
        }
    }

    #[test]
    fn a_skipped_stanza_keeps_its_addresses() {
        let long = "x".repeat(VALUE + 1);
        for (xml, expected) in [
            ("<iq to='a&amp;b' p:x='' id = \"1\"\n type='get'><x/>", "<iq type='get' id='1' to='a&amp;b'/>"),
            ("<iq id='1' id='2' to='&x;' from='", "<iq id='1'/>"),
            ("<message xmlns='jabber:client' type='chat'", "<message type='chat'/>"),
            (&format!("<message to='{long}' id='1'/>"), "<message id='1'/>"),
            ("<a id='1'/>", "<skipped xmlns=''/>"),
        ] {
            let header = Header::bare();
            let skip = ElementSkip::new(xml.as_bytes(), &header, Read { bytes: 0, depth: 0 }, SkipReason::TooLarge);
            let left = skip.skipped.unwrap().element;
            assert_eq!(left.bytes(), expected);
            let parsed = Element::parse(left.bytes().clone(), &header).unwrap();
            assert_eq!((parsed.kind(), parsed.is("skipped", "")), (left.kind(), left.kind() == Kind::Other));
            assert_eq!(header.default_namespace(), ns::CLIENT);
        }
    }

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        for (at, reason) in SkipReason::ALL.into_iter().enumerate() {
            assert!(SkipReason::ALL.iter().skip(at + 1).all(|other| other.name() != reason.name()));
        }
    }
}
