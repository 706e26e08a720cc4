//! [`XmlWriter`] writes XML. It escapes text and values, so no caller's text can become markup.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use quick_xml::escape::escape;

use super::condition::StreamCondition;
use super::header::Header;
use super::ns;

/// The end of a stream (RFC 6120 §4.4).
pub const STREAM_CLOSE: &[u8] = b"</stream:stream>";

/// Writes elements, escaping what needs it.
#[derive(Debug, Default)]
pub struct XmlWriter {
    buffer: Vec<u8>,
    /// The places of the open elements' names in the buffer.
    open: Vec<Range<usize>>,
    in_tag: bool,
}

impl XmlWriter {
    /// Creates an empty writer.
    pub fn new() -> Self {
        XmlWriter::default()
    }

    /// Creates an empty writer with a capacity in bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        XmlWriter { buffer: Vec::with_capacity(bytes), open: Vec::with_capacity(8), in_tag: false }
    }

    /// Opens an element. `name` is written unchanged, with its prefix if it has one.
    pub fn start(&mut self, name: &str) -> &mut Self {
        self.close_tag();
        self.put("<").put(name);
        let end = self.buffer.len();
        self.open.push(end.saturating_sub(name.len())..end);
        self.in_tag = true;
        self
    }

    /// Adds an attribute to the element just opened. Ignored (an error in debug builds) after content was written.
    pub fn attr(&mut self, name: &str, value: &str) -> &mut Self {
        debug_assert!(self.in_tag, "attribute {name} behind the start tag");
        if self.in_tag {
            self.put(" ").put(name).put("='").put(&escaped(value, WriterPlace::Value)).put("'");
        }
        self
    }

    /// Adds character data. Omits characters that XML cannot contain.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.close_tag();
        self.put(&escaped(text, WriterPlace::Text))
    }

    /// Adds bytes that are XML already.
    pub fn raw(&mut self, xml: &[u8]) -> &mut Self {
        self.close_tag();
        self.buffer.extend_from_slice(xml);
        self
    }

    /// Closes the innermost open element, as `<x/>` if it has no content.
    pub fn end(&mut self) -> &mut Self {
        match self.open.pop() {
            None => self,
            Some(_) if self.in_tag => {
                self.in_tag = false;
                self.put("/>")
            }
            Some(name) => {
                self.put("</").buffer.extend_from_within(name);
                self.put(">")
            }
        }
    }

    /// Closes all open elements and returns the written bytes.
    pub fn finish(mut self) -> Bytes {
        while !self.open.is_empty() {
            self.end();
        }
        self.buffer.into()
    }

    /// Returns the written bytes without closing the open elements, for the header of a stream.
    pub fn open(mut self) -> Bytes {
        self.close_tag();
        self.buffer.into()
    }

    fn close_tag(&mut self) {
        if self.in_tag {
            self.in_tag = false;
            self.put(">");
        }
    }

    fn put(&mut self, text: &str) -> &mut Self {
        self.buffer.extend_from_slice(text.as_bytes());
        self
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WriterPlace {
    Text,
    Value,
}

/// Escapes text, including white space that a reader would normalise (XML 1.0 §2.11, §3.3.3).
fn escaped(text: &str, place: WriterPlace) -> Cow<'_, str> {
    // The first byte of U+FFFE and U+FFFF, and of other characters.
    const MAYBE_NONCHARACTER: u8 = 0xEF;
    let stays = |byte: u8| byte >= b' ' && !matches!(byte, b'<' | b'>' | b'&' | b'\'' | b'"' | MAYBE_NONCHARACTER);
    if text.bytes().all(stays) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(|c: char| c < ' ' || matches!(c, '\u{FFFE}' | '\u{FFFF}')) {
        let special = piece.chars().next_back().filter(|c| *c < ' ' || matches!(c, '\u{FFFE}' | '\u{FFFF}'));
        let clean = special.map_or(piece, |c| piece.strip_suffix(c).unwrap_or(piece));
        out.push_str(&escape(clean));
        match (special, place) {
            (Some('\r'), _) => out.push_str("&#13;"),
            (Some(c @ ('\t' | '\n')), WriterPlace::Text) => out.push(c),
            (Some('\t'), WriterPlace::Value) => out.push_str("&#9;"),
            (Some('\n'), WriterPlace::Value) => out.push_str("&#10;"),
            (Some(_) | None, _) => {}
        }
    }
    Cow::Owned(out)
}

/// Returns the stream header that Pushward sends in response to a client's (RFC 6120 §4.7). `lang` defaults to `en`.
pub fn stream_header(from: &str, id: &str, lang: Option<&str>) -> Bytes {
    let value = |value| escaped(value, WriterPlace::Value);
    let (from, id, lang) = (value(from), value(id), value(lang.unwrap_or("en")));
    let (client, streams) = (ns::CLIENT, ns::STREAMS);
    Bytes::from(format!(
        "<?xml version='1.0'?><stream:stream xmlns='{client}' xmlns:stream='{streams}' id='{id}' from='{from}' \
         version='1.0' xml:lang='{lang}'>"
    ))
}

/// The same, with the namespaces and the language of another header: elements have the same meaning under both.
pub fn stream_header_like(header: &Header, from: &str, id: &str) -> Bytes {
    let value = |value| escaped(value, WriterPlace::Value);
    let mut out = format!("<?xml version='1.0'?><{}", String::from_utf8_lossy(header.name()));
    for (prefix, uri) in header.prefixes() {
        let colon = if prefix.is_empty() { "" } else { ":" };
        out.push_str(&format!(" xmlns{colon}{prefix}='{}'", value(uri)));
    }
    out.push_str(&format!(" id='{}' from='{}' version='1.0'", value(id), value(from)));
    if let Some(lang) = header.lang() {
        out.push_str(&format!(" xml:lang='{}'", value(lang)));
    }
    out.push('>');
    Bytes::from(out)
}

/// Returns a stream error and the end of the stream (RFC 6120 §4.9). `application` is an application-specific condition
/// as XML.
pub fn stream_error(condition: StreamCondition, application: Option<&[u8]>, text: Option<&str>) -> Bytes {
    let mut error = XmlWriter::new();
    error.start("stream:error").start(condition.name()).attr("xmlns", ns::STREAM_ERRORS).end();
    if let Some(text) = text {
        error.start("text").attr("xmlns", ns::STREAM_ERRORS).attr("xml:lang", "en").text(text).end();
    }
    error.raw(application.unwrap_or_default()).end().raw(STREAM_CLOSE);
    error.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::xml::{Element, Header};

    fn header() -> Arc<Header> {
        Arc::new(Header::parse(stream_header("example.org", "1", None)).unwrap())
    }

    #[test]
    fn elements_are_written_in_the_shortest_form() {
        let mut xml = XmlWriter::new();
        xml.start("iq").attr("type", "set").start("a").end().start("b").text("").end().start("c").text("x").end();
        xml.raw(b"<d/>").start("e").start("f");
        assert_eq!(xml.finish(), "<iq type='set'><a/><b></b><c>x</c><d/><e><f/></e></iq>");
    }

    #[test]
    fn a_stream_header_is_written_in_its_canonical_form() {
        let expected = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
            xmlns:stream='http://etherx.jabber.org/streams' id='a&apos;b' from='example.org' version='1.0' xml:lang='de'>";
        let header = stream_header("example.org", "a'b", Some("de"));
        assert_eq!(header, expected);
        let header = Header::parse(header).unwrap();
        assert_eq!((header.id(), header.from(), header.to()), (Some("a'b"), Some("example.org"), None));
        assert_eq!((header.version(), header.lang()), (Some("1.0"), Some("de")));
        let prefixes: Vec<_> = header.prefixes().collect();
        assert_eq!(prefixes, [("", ns::CLIENT), ("stream", ns::STREAMS)]);
    }

    #[test]
    fn a_header_like_another_one_gives_elements_the_same_meaning() {
        for declarations in [
            "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xml:lang='de'",
            "xmlns:stream='http://etherx.jabber.org/streams' xmlns:x='urn:a&amp;b' xmlns='jabber:client'",
            "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xml:lang=''",
        ] {
            let other = format!("<?xml version='1.0'?><stream:stream {declarations} id='1' from='a' version='1.0'>");
            let other = Header::parse(Bytes::from(other)).unwrap();
            let like = Header::parse(stream_header_like(&other, "example.org", "2")).unwrap();
            assert!(like.means_the_same(&other), "{declarations}");
            assert_eq!((like.id(), like.from(), like.version()), (Some("2"), Some("example.org"), Some("1.0")));
        }
    }

    #[test]
    fn a_stream_error_ends_the_stream() {
        let error = stream_error(StreamCondition::PolicyViolation, Some(b"<x xmlns='urn:x'/>"), Some("a < b"));
        assert_eq!(
            error,
            "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
             <text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>a &lt; b</text><x xmlns='urn:x'/>\
             </stream:error></stream:stream>"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in any::<String>(), text in any::<String>()) {
            let mut xml = XmlWriter::new();
            xml.start("a").attr("b", &value).text(&text);
            let element = Element::parse(xml.finish(), &header()).unwrap();
            let xml = |c: &char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..);
            let (value, text): (String, String) = (value.chars().filter(xml).collect(), text.chars().filter(xml).collect());
            prop_assert_eq!(element.node().attr("b").unwrap(), value);
            prop_assert_eq!(element.node().text(), text);
        }
    }
}
