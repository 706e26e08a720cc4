//! [`HeaderScan`]: reading of a stream header (RFC 6120 §4.7, §4.8) as it arrives.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use super::boundary::{Boundary, XmlToken};
use super::declare::{check_prefixes, declare, declared_prefix};
use super::tag::{Attrs, Tag, start_tag};
use crate::xml::chars::{SPACE, class, skip_space};
use crate::xml::error::{FrameError, Restricted};
use crate::xml::header::{Header, NamespaceContext, OwnHeader};
use crate::xml::limits::FrameLimits;
use crate::xml::ns;
use crate::xml::scope::{Declared, ScopeId, lookup};

/// The limits of a header's tag, on every leg.
const LIMITS: FrameLimits = FrameLimits::new(0, 1);

impl Header {
    /// Reads a complete header: an optional XML declaration and the stream's start tag, with the default namespace
    /// `jabber:client`.
    pub fn parse(bytes: Bytes) -> Result<Header, FrameError> {
        let mut scan = HeaderScan::default();
        match scan.advance(&bytes, ns::CLIENT)? {
            Some(header) if header.bytes().len() == bytes.len() => Ok(header),
            Some(_) => Err(FrameError::BadFormat { what: "content behind the stream header" }),
            None => Err(FrameError::malformed("incomplete stream header", bytes.len())),
        }
    }

    /// Returns the header that declares only what every stream declares. An element that is valid under it is
    /// self-contained.
    pub fn bare() -> Arc<Header> {
        static BARE: LazyLock<Arc<Header>> = LazyLock::new(|| {
            let bytes = format!("<stream:stream xmlns='{}' xmlns:stream='{}'>", ns::CLIENT, ns::STREAMS);
            #[expect(clippy::expect_used, reason = "a constant, read in the tests")]
            Arc::new(Header::parse(Bytes::from(bytes)).expect("a valid header"))
        });
        Arc::clone(&BARE)
    }

    /// Returns an equivalent header in the usual style: the content namespace is the default one, and the prefix is
    /// `stream`. The elements that Pushward writes on the stream rely on both. Returns the header itself if it has that
    /// style already, or cannot have it.
    pub fn usual(self: &Arc<Self>) -> Arc<Header> {
        let is_usual = self.name() == b"stream:stream" && self.default_namespace() == self.content_namespace();
        let taken = self.prefix(b"stream").is_some_and(|(_, uri)| uri != ns::STREAMS);
        if is_usual || taken || self.is_interned() {
            return Arc::clone(self);
        }
        let mut header = format!("<?xml version='1.0'?><stream:stream xmlns='{}'", self.content_namespace());
        let mut put =
            |name: &str, value: &str| header.push_str(&format!(" {name}='{}'", quick_xml::escape::escape(value)));
        put("xmlns:stream", ns::STREAMS);
        let declared = self.prefixes().filter(|(prefix, _)| !matches!(*prefix, "" | "stream"));
        declared.for_each(|(prefix, uri)| put(&format!("xmlns:{prefix}"), uri));
        let attributes = [
            ("from", self.from()),
            ("to", self.to()),
            ("id", self.id()),
            ("version", self.version()),
            ("xml:lang", self.lang()),
        ];
        attributes
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .for_each(|(name, value)| put(name, value));
        header.push('>');
        Header::parse(header.into()).map_or_else(|_| Arc::clone(self), Arc::new)
    }
}

/// The progress in a stream header. Offsets count from its `<`.
#[derive(Debug, Default)]
pub(in crate::xml) struct HeaderScan {
    at: usize,
    declared: bool,
    boundary: Boundary,
}

impl HeaderScan {
    /// Continues reading. Returns the header once it is complete. Its bytes are a copy, so that it does not keep a
    /// buffer alive. `bytes` may have grown since the last call. `default` is the default namespace that the header
    /// must declare.
    pub(in crate::xml) fn advance(&mut self, bytes: &[u8], default: &str) -> Result<Option<Header>, FrameError> {
        loop {
            let rest = bytes.get(self.at..).unwrap_or_default();
            if self.declared && rest.first().is_some_and(|byte| class(*byte) & SPACE != 0) {
                self.at = skip_space(bytes, self.at);
                continue;
            }
            if rest.first().is_some_and(|byte| *byte >= 0x80) {
                return Err(FrameError::BadEncoding);
            }
            if rest.first().is_some_and(|byte| *byte != b'<') {
                return Err(FrameError::malformed("text before the stream header", self.at));
            }
            let Some((token, len)) = self.boundary.find(rest)? else {
                return Ok(None);
            };
            let whole = bytes.get(..self.at + len).unwrap_or_default();
            match token {
                XmlToken::Declaration if !self.declared && is_declaration(whole) => {
                    check_declaration(whole)?;
                    self.declared = true;
                    self.at = whole.len();
                }
                XmlToken::Declaration => {
                    return Err(FrameError::Restricted(Restricted::ProcessingInstruction));
                }
                XmlToken::Start => return self.header(whole, default).map(Some),
                XmlToken::End | XmlToken::Text | XmlToken::CData => {
                    return Err(FrameError::malformed("no stream header", self.at));
                }
            }
        }
    }

    fn header(&self, bytes: &[u8], default: &str) -> Result<Header, FrameError> {
        let mut attrs = Attrs::default();
        let tag = start_tag(bytes, self.at, &mut attrs, LIMITS.attributes())?;
        let mut declared = Declared::default();
        declare(&mut declared, bytes, &attrs, ScopeId::default(), &LIMITS)?;
        check_prefixes(tag, &attrs, bytes, |name| lookup(Some(&declared), bytes, name.prefix(bytes), None))?;
        let header = describe(bytes, tag, &attrs);
        let streams = match tag.name.has_prefix() {
            true => header.prefix(tag.name.prefix(bytes)).is_some_and(|(_, uri)| uri == ns::STREAMS),
            false => header.default_namespace() == ns::STREAMS,
        };
        // RFC 6120 §4.8.3: the stanzas may declare the content namespace instead.
        let content =
            header.default_namespace() == default || !tag.name.has_prefix() && header.content_namespace() == default;
        if tag.name.local(bytes) != b"stream" || !streams || !content {
            return Err(FrameError::BadNamespace);
        }
        if tag.empty {
            return Err(FrameError::BadFormat { what: "empty stream" });
        }
        Ok(header)
    }
}

fn describe(bytes: &[u8], tag: Tag, attrs: &Attrs) -> Header {
    let text = |range| String::from_utf8_lossy(bytes.get(range).unwrap_or_default()).into();
    let value = |name: &[u8]| {
        let attr = attrs.iter(bytes).find(|attr| attr.name.whole(bytes) == name);
        attr.map(|attr| attr.value(bytes).into())
    };
    let declared = attrs.iter(bytes).filter_map(|attr| declared_prefix(bytes, &attr).map(|prefix| (attr, prefix)));
    let prefixes = declared.filter(|(_, prefix)| !prefix.is_empty());
    let context = NamespaceContext {
        name: tag.name.whole(bytes).into(),
        default: value(b"xmlns").unwrap_or_default(),
        prefixes: prefixes.map(|(attr, prefix)| (text(prefix), attr.value(bytes).into())).collect(),
        lang: value(b"xml:lang"),
    };
    let own = OwnHeader {
        from: value(b"from"),
        to: value(b"to"),
        id: value(b"id"),
        version: value(b"version"),
        bytes: Bytes::copy_from_slice(bytes),
    };
    Header::new(context, own)
}

fn is_declaration(token: &[u8]) -> bool {
    matches!(token, [b'<', b'?', b'x', b'm', b'l', next, ..] if class(*next) & SPACE != 0)
}

/// Checks `<?xml … ?>` (XML 1.0 §2.8, §4.3.3).
fn check_declaration(token: &[u8]) -> Result<(), FrameError> {
    let malformed = FrameError::malformed("invalid XML declaration", 0);
    let mut attrs = Attrs::default();
    let end = attrs.read(token, "<?xml".len(), LIMITS.attributes())?;
    if token.get(end..) != Some(b"?>") {
        return Err(malformed);
    }
    let mut attrs =
        attrs.iter(token).map(|attr| (attr.name.whole(token), token.get(attr.value.clone()).unwrap_or_default()));
    let mut next = attrs.next();
    match next {
        Some((b"version", [b'1', b'.', digits @ ..])) if is_number(digits) => next = attrs.next(),
        Some(_) | None => return Err(malformed),
    }
    if let Some((b"encoding", encoding)) = next {
        if !encoding.eq_ignore_ascii_case(b"utf-8") {
            return Err(FrameError::BadEncoding);
        }
        next = attrs.next();
    }
    if let Some((b"standalone", b"yes" | b"no")) = next {
        next = attrs.next();
    }
    if next.is_some() { Err(malformed) } else { Ok(()) }
}

fn is_number(digits: &[u8]) -> bool {
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::{Element, Frame, FrameLimits, Framer, Kind};

    const OTHER: &str = "<?xml version='1.0'?><stream xmlns='http://etherx.jabber.org/streams' to='example.org' \
        version='1.0' xml:lang='de' xmlns:p='u'>";

    fn header(xml: &str) -> Result<Arc<Header>, FrameError> {
        Header::parse(Bytes::copy_from_slice(xml.as_bytes())).map(Arc::new)
    }

    /// RFC 6120 §4.8.3 shows this style as its second example.
    #[test]
    fn the_content_namespace_may_be_left_to_the_stanzas() {
        let mut framer = Framer::new(FrameLimits::new(4096, 8));
        let message = "<message xmlns='jabber:client' to='a'><body>b</body></message>";
        let stream = format!("{OTHER}{message}<error/><iq/><auth xmlns='urn:x'/></stream>");
        framer.buffer().extend_from_slice(stream.as_bytes());
        let Ok(Some(Frame::Open(header))) = framer.next_frame() else { panic!("no header") };
        assert_eq!((header.to(), header.content_namespace()), (Some("example.org"), ns::CLIENT));
        let usual = header.usual();
        let mut next = || match framer.next_frame() {
            Ok(Some(Frame::Element(element))) => {
                let on = element.on_stream(&usual);
                let same = Element::parse(on.clone(), &usual).unwrap();
                assert_eq!((same.kind(), same.node().ns()), (element.kind(), element.node().ns()));
                (element.kind(), String::from_utf8(on.to_vec()).unwrap())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(next(), (Kind::Message, message.to_owned()));
        assert_eq!(next(), (Kind::Other, "<error xmlns='http://etherx.jabber.org/streams'/>".to_owned()));
        assert_eq!(next(), (Kind::Other, "<iq xmlns='http://etherx.jabber.org/streams'/>".to_owned()));
        assert_eq!(next(), (Kind::Other, "<auth xmlns='urn:x'/>".to_owned()));
        assert!(matches!(framer.next_frame(), Ok(Some(Frame::Close))));
    }

    #[test]
    fn a_header_of_another_style_has_an_equal_in_the_usual_one() {
        let usual = header(OTHER).unwrap().usual();
        assert_eq!(
            String::from_utf8_lossy(usual.bytes()),
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams' xmlns:p='u' to='example.org' version='1.0' xml:lang='de'>"
        );
        assert!(Arc::ptr_eq(&usual, &usual.usual()), "it is as usual already");
        let prefixed = "<s:stream xmlns='jabber:client' xmlns:s='http://etherx.jabber.org/streams' id='a&lt;b'>";
        let usual = header(prefixed).unwrap().usual();
        assert_eq!((usual.name(), usual.id()), (&b"stream:stream"[..], Some("a<b")));
        assert_eq!(usual.prefix(b"s").map(|(_, uri)| uri), Some(ns::STREAMS), "its elements may use it");
        let taken = prefixed.replace(" id=", " xmlns:stream='u' id=");
        let taken = header(&taken).unwrap();
        assert!(Arc::ptr_eq(&taken, &taken.usual()));
    }

    #[test]
    fn no_other_style_is_accepted() {
        for xml in [
            "<stream xmlns='jabber:client'>",
            "<stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
            "<stream>",
            "<streams xmlns='http://etherx.jabber.org/streams'>",
            "<s:stream xmlns:s='http://etherx.jabber.org/streams'>",
            "<s:stream xmlns='http://etherx.jabber.org/streams' xmlns:s='http://etherx.jabber.org/streams'>",
        ] {
            assert!(header(xml).is_err(), "{xml}");
        }
        let mut framer = Framer::with_default_namespace(FrameLimits::new(4096, 8), ns::SERVER);
        framer.buffer().extend_from_slice(OTHER.as_bytes());
        assert!(framer.next_frame().is_err(), "servers are read by their default namespace");
    }
}
