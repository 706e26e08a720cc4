//! [`Framer`] turns bytes in any chunking into [`Frame`]s: the stream header, top-level elements, white space, the end
//! of the stream. Each connection (`net::conn`) has one.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::chars::skip_space;
use super::element::Element;
use super::error::FrameError;
use super::exact::{Boundary, HeaderScan, end_tag};
use super::header::{Header, HeaderCache};
use super::kind::Kind;
use super::limits::FrameLimits;
use super::memory::{Charge, MemoryShare};
use super::ns;
use super::scan::Scan;
use super::skip::{ElementSkip, Read, SkipReason, Skipped};

/// The maximum bytes of an element, so that offsets within it fit into 32 bits.
const LARGEST: usize = i32::MAX as usize;

/// A unit of an XML stream (RFC 6120 §4).
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Frame {
    /// The stream was opened, or restarted.
    Open(Arc<Header>),
    /// A whole top-level element: a stanza or a nonza.
    Element(Element),
    /// White space between top-level elements, a keepalive (RFC 6120 §4.6.1). The number of frames for a run of white
    /// space depends on its chunks.
    Whitespace,
    /// An element that cannot be forwarded. See [`Framer::skip_unfit`].
    Skipped(Box<Skipped>),
    /// The stream was closed with its end tag (RFC 6120 §4.4).
    Close,
}

impl Frame {
    /// Returns whether the frame is a message, a presence or an iq (RFC 6120 §8).
    pub fn is_stanza(&self) -> bool {
        match self {
            Self::Element(element) => element.kind() != Kind::Other,
            Self::Skipped(skipped) => skipped.element.kind() != Kind::Other,
            Self::Open(_) | Self::Whitespace | Self::Close => false,
        }
    }
}

/// Cuts a byte stream into frames and checks them. All chunkings give the same frames.
///
/// ```
/// use pushward::xml::{Frame, FrameError, FrameLimits, Framer};
///
/// let stream = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='example.org'>\
///     <message to='juliet@example.org'><body>But, soft!</body></message></stream:stream>";
/// let mut framer = Framer::new(FrameLimits::client(1 << 20, 128));
/// let mut seen = Vec::new();
/// for received in stream.as_bytes().chunks(20) {
///     framer.buffer().extend_from_slice(received);
///     while let Some(frame) = framer.next_frame()? {
///         seen.push(match frame {
///             Frame::Open(header) => format!("stream to {}", header.to().unwrap_or_default()),
///             Frame::Element(element) => String::from_utf8_lossy(element.bytes()).into_owned(),
///             Frame::Whitespace | Frame::Skipped(_) => continue,
///             Frame::Close => "end".to_owned(),
///         });
///     }
/// }
/// let message = "<message to='juliet@example.org'><body>But, soft!</body></message>";
/// assert_eq!(seen, ["stream to example.org", message, "end"]);
/// # Ok::<(), FrameError>(())
/// ```
pub struct Framer {
    buffer: BytesMut,
    limits: FrameLimits,
    default: &'static str,
    expected: Expected,
    scan: Scan,
    closing: Boundary,
    /// Set if elements that cannot be forwarded are skipped. If not set, they end the stream.
    skips: Option<Box<Skips>>,
}

/// The state of skipping: the shared memory, and the element that is being skipped.
struct Skips {
    share: Option<MemoryShare>,
    charge: Option<Charge>,
    current: Option<ElementSkip>,
}

/// The part of the stream that comes next.
enum Expected {
    Header(HeaderScan),
    Stream(Arc<Header>),
    Closed,
    Failed(FrameError),
}

/// The state of a [`Framer`], with which another process continues its stream.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct FramerRecord {
    /// Bytes that do not belong to a frame that was returned.
    unread: Bytes,
    default: Box<str>,
    expected: ExpectedRecord,
    /// True if elements that cannot be forwarded are skipped.
    skips: bool,
    /// The element that is being skipped.
    current: Option<ElementSkip>,
}

/// The part of the stream that comes next, in a record.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
enum ExpectedRecord {
    Header,
    Stream(Arc<Header>),
    Closed,
    Failed,
}

impl Framer {
    /// Creates a framer for client streams: the default namespace is `jabber:client`.
    pub fn new(limits: FrameLimits) -> Self {
        Framer::with_default_namespace(limits, ns::CLIENT)
    }

    /// Creates a framer for streams with another default namespace, such as `jabber:server`.
    pub fn with_default_namespace(limits: FrameLimits, ns: &'static str) -> Self {
        Framer {
            buffer: BytesMut::new(),
            limits,
            default: ns,
            expected: Expected::Header(HeaderScan::default()),
            scan: Scan::default(),
            closing: Boundary::default(),
            skips: None,
        }
    }

    /// Writes the state between two calls of [`Framer::next_frame`], with which another process continues. The check of an
    /// element whose end has not come is not part of it, but its bytes are.
    pub fn freeze(&self) -> FramerRecord {
        let expected = match &self.expected {
            Expected::Header(_) => ExpectedRecord::Header,
            Expected::Stream(header) => ExpectedRecord::Stream(Arc::clone(header)),
            Expected::Closed => ExpectedRecord::Closed,
            Expected::Failed(_) => ExpectedRecord::Failed,
        };
        let unread = Bytes::copy_from_slice(&self.buffer);
        let current = self.skips.as_ref().and_then(|skips| skips.current.clone());
        FramerRecord { unread, default: self.default.into(), expected, skips: self.skips.is_some(), current }
    }

    /// Continues with the state of a record. The frames that follow are the same as without the record. After an error, returns
    /// another error. Shared memory is given by [`Framer::skip_unfit`]. Returns `None` if the default namespace is not
    /// known.
    pub fn thaw(record: FramerRecord, limits: FrameLimits) -> Option<Self> {
        let default = [ns::CLIENT, ns::SERVER, ns::COMPONENT_ACCEPT].into_iter().find(|ns| *ns == &*record.default)?;
        let expected = match record.expected {
            ExpectedRecord::Header => Expected::Header(HeaderScan::default()),
            ExpectedRecord::Stream(header) => Expected::Stream(header),
            ExpectedRecord::Closed => Expected::Closed,
            ExpectedRecord::Failed => Expected::Failed(FrameError::BadFormat { what: "content behind an error" }),
        };
        let skips = Skips { share: None, charge: None, current: record.current };
        let skips = record.skips.then(|| Box::new(skips));
        let buffer = BytesMut::from(record.unread);
        Some(Framer { buffer, expected, skips, ..Framer::with_default_namespace(limits, default) })
    }

    /// Skips elements that cannot be forwarded, instead of failing, if their end can be found. Also skips elements
    /// without room in `share`. Used for streams from the host's own server.
    pub fn skip_unfit(&mut self, share: Option<MemoryShare>) {
        let current = self.skips.take().and_then(|skips| skips.current);
        self.skips = Some(Box::new(Skips { share, charge: None, current }));
    }

    /// Replaces the limits for bytes that are not framed yet.
    pub fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
    }

    /// Returns the buffer for received bytes. After appending to it, call [`Framer::next_frame`] until it returns
    /// `None`. Bytes in the buffer must not be changed.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Returns the next frame if it is complete. After an error, returns the same error again.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Expected::Failed(error) = self.expected {
            return Err(error);
        }
        let result = self.frame();
        if let Err(error) = result {
            self.expected = Expected::Failed(error);
        }
        result
    }

    /// Expects a stream header next (RFC 6120 §5.4.3.3, §6.4.6). Keeps the buffered bytes. Call it only between frames.
    pub fn restart(&mut self) {
        self.expected = Expected::Header(HeaderScan::default());
        self.scan = Scan::default();
        self.closing = Boundary::default();
        if let Some(skips) = &mut self.skips {
            (skips.charge, skips.current) = (None, None);
        }
    }

    /// Replaces the stream's header by its interned form (see [`Header::interned`]) and returns that. Frees memory
    /// needed by earlier elements. Returns `None` if no stream is open.
    pub fn intern_header(&mut self, cache: &mut HeaderCache) -> Option<Arc<Header>> {
        self.scan.shrink();
        let Expected::Stream(header) = &mut self.expected else { return None };
        *header = header.interned(cache);
        Some(Arc::clone(header))
    }

    /// Discards the buffered bytes and restarts. RFC 6120 §5.4.3.3: bytes sent in clear text must be ignored after
    /// STARTTLS. Returns the number of discarded bytes.
    pub fn discard(&mut self) -> usize {
        let len = self.buffer.len();
        self.buffer.clear();
        self.restart();
        len
    }

    /// Returns the bytes of memory in use for the element that is being read.
    pub fn memory(&self) -> usize {
        self.buffer.capacity() + self.scan.memory()
    }

    fn frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.skips.as_ref().is_some_and(|skips| skips.current.is_some()) {
            return self.skip();
        }
        let space = skip_space(&self.buffer, 0);
        if space > 0 {
            self.buffer.advance(space);
            return Ok(Some(Frame::Whitespace));
        }
        let window = self.buffer.get(..self.limits.bytes).unwrap_or(&self.buffer);
        let frame = match (&mut self.expected, window) {
            (_, []) => None,
            (Expected::Header(scan), _) => scan.advance(window, self.default)?.map(|header| self.opened(header)),
            (Expected::Stream(header), [b'<', b'/', ..]) => match self.closing.find(window)? {
                Some((_, end)) => {
                    let len = end_tag(window.get(..end).unwrap_or_default(), 0, header.name())?;
                    self.buffer.advance(len);
                    self.expected = Expected::Closed;
                    Some(Frame::Close)
                }
                None => None,
            },
            (Expected::Stream(header), [b'<', ..]) if !window.starts_with(b"<![") => {
                let header = Arc::clone(header);
                return self.element(header);
            }
            (Expected::Stream(_), _) => {
                return Err(FrameError::BadFormat { what: "text between stanzas" });
            }
            (Expected::Closed, _) => {
                return Err(FrameError::BadFormat { what: "content behind the end of the stream" });
            }
            (Expected::Failed(error), _) => return Err(*error),
        };
        let limit = self.limits.bytes;
        if frame.is_none() && self.buffer.len() > limit { Err(FrameError::TooLarge { limit }) } else { Ok(frame) }
    }

    /// Continues reading an element.
    fn element(&mut self, header: Arc<Header>) -> Result<Option<Frame>, FrameError> {
        let limit = self.limits.bytes.min(LARGEST);
        let window = self.buffer.get(..limit).unwrap_or(&self.buffer);
        let found = self.scan.advance(window, &header, &self.limits);
        let error = match found {
            Ok(None) if self.buffer.len() > limit => FrameError::TooLarge { limit },
            Ok(found) if !self.has_room(found) => return self.start_skip(&header, SkipReason::NoRoom),
            Ok(None) => return Ok(None),
            Err(error) => error,
            Ok(Some(len)) => {
                let bytes = self.buffer.split_to(len).freeze();
                let charge = self.skips.as_mut().and_then(|skips| skips.charge.take());
                return Ok(Some(Frame::Element(Element::new(bytes, header, self.scan.finish(), charge))));
            }
        };
        match SkipReason::of(&error).filter(|_| self.skips.is_some()) {
            Some(reason) => self.start_skip(&header, reason),
            None => Err(error),
        }
    }

    /// Returns whether there is memory for the element. `found` is its length if it is complete.
    fn has_room(&mut self, found: Option<usize>) -> bool {
        let Some(Skips { share: Some(share), charge, .. }) = self.skips.as_deref_mut() else { return true };
        let bytes = found.unwrap_or(self.buffer.len());
        if bytes <= share.free {
            return true;
        }
        // The remaining buffer does not belong to a complete element.
        let held = if found.is_some() { bytes } else { self.buffer.capacity() };
        let memory = held + self.scan.memory();
        charge.get_or_insert_with(|| Charge::of(&share.memory)).set(memory)
    }

    /// Starts to skip the element at the start of the buffer.
    fn start_skip(&mut self, header: &Arc<Header>, reason: SkipReason) -> Result<Option<Frame>, FrameError> {
        let Some(skips) = &mut self.skips else { return Ok(None) };
        let scan = std::mem::take(&mut self.scan);
        let read = Read { bytes: scan.checked(), depth: scan.depth() };
        let skip = ElementSkip::new(&self.buffer, header, read, reason);
        self.buffer.advance(scan.checked());
        skips.charge = None;
        skips.current = Some(skip);
        self.skip()
    }

    fn skip(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(Skips { current, .. }) = self.skips.as_deref_mut() else { return Ok(None) };
        let Some(skip) = current else { return Ok(None) };
        let (count, skipped) = skip.advance(&self.buffer)?;
        self.buffer.advance(count);
        if skipped.is_some() {
            *current = None;
        }
        Ok(skipped.map(Frame::Skipped))
    }

    fn opened(&mut self, header: Header) -> Frame {
        self.buffer.advance(header.bytes().len());
        let header = Arc::new(header);
        self.expected = Expected::Stream(Arc::clone(&header));
        Frame::Open(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::HeaderPool;

    #[test]
    fn an_interned_header_has_the_same_meaning_and_is_shared_by_similar_streams() {
        let mut cache = HeaderCache::default();
        let mut opened = |attributes: &str, name: &str| {
            let mut framer = Framer::new(FrameLimits::new(4096, 8));
            let xml = format!("<{name} xmlns='jabber:client' xmlns:stream='{}' {attributes}>", ns::STREAMS);
            framer.buffer().extend_from_slice(xml.as_bytes());
            let Ok(Some(Frame::Open(header))) = framer.next_frame() else { panic!("{xml}") };
            framer.intern_header(&mut cache);
            framer.buffer().extend_from_slice(format!("<p:a/></{name}>").as_bytes());
            let Ok(Some(Frame::Element(element))) = framer.next_frame() else { panic!("{xml}") };
            assert!(matches!(framer.next_frame(), Ok(Some(Frame::Close))));
            assert!(header.means_the_same(element.header()) && element.header().id().is_none());
            let original = Element::parse(element.bytes().clone(), &header).unwrap();
            assert_eq!(element.on_stream(&Header::bare()), original.on_stream(&Header::bare()));
            Arc::clone(element.header())
        };
        let first = opened("xmlns:p='u' xml:lang='en' id='1'", "stream:stream");
        assert!(first.shares_context(&opened("xmlns:p='u' xml:lang='en' id='2' from='a'", "stream:stream")));
        for (other, name) in [("xmlns:p='u'", "stream:stream"), ("xmlns:p='v' xml:lang='en'", "stream:stream")] {
            assert!(!first.shares_context(&opened(other, name)));
        }
        let again = first.interned(&mut cache);
        assert!(first.shares_context(&again) && !Arc::ptr_eq(&first, &again));
    }

    #[test]
    fn headers_of_records_are_shared_with_each_other_and_with_other_streams() {
        let (mut cache, other) = (HeaderCache::default(), Header::parse(HEADER.into()).unwrap());
        let other = other.interned(&mut cache);
        let read = |header: &Arc<Header>| -> Arc<Header> {
            rmp_serde::from_slice(&rmp_serde::to_vec_named(header).unwrap()).unwrap()
        };
        let received = Arc::new(Header::parse(HEADER.into()).unwrap());
        let mut headers = [read(&received), read(&other), read(&received), read(&other), read(&Header::bare())];
        let mut pool = HeaderPool::new(&mut cache);
        headers.iter_mut().for_each(|header| pool.share(header));
        let [one, interned, same, same_interned, bare] = headers;
        assert!(Arc::ptr_eq(&one, &same) && Arc::ptr_eq(&interned, &same_interned) && !Arc::ptr_eq(&one, &interned));
        assert!(one.shares_context(&other) && interned.shares_context(&other) && Arc::ptr_eq(&bare, &Header::bare()));
        assert_eq!((one.bytes(), one.to(), interned.to()), (HEADER.as_bytes(), Some("example.org"), None));
    }

    const HEADER: &str = "<?xml version='1.0'?>\n<stream:stream xmlns='jabber:client' \
        xmlns:stream='http://etherx.jabber.org/streams' to='example.org' version='1.0' xml:lang='en'>";
    const LIMITS: FrameLimits = FrameLimits::new(4096, 8);

    /// Returns the frames of `input`, given in chunks of `chunk` bytes. A run of white space gives one line.
    fn frames(input: &[u8], chunk: usize) -> Vec<String> {
        let mut framer = Framer::new(LIMITS);
        let mut seen: Vec<String> = Vec::new();
        for part in input.chunks(chunk) {
            framer.buffer().extend_from_slice(part);
            loop {
                let line = match framer.next_frame() {
                    Ok(Some(Frame::Open(header))) => format!("open {:?}", header.to()),
                    Ok(Some(Frame::Element(e))) => {
                        format!("{:?} {}", e.kind(), String::from_utf8_lossy(e.bytes()))
                    }
                    Ok(Some(Frame::Skipped(skipped))) => format!("Skipped {} {:?}", skipped.bytes, skipped.reason),
                    Ok(Some(Frame::Whitespace)) => "space".into(),
                    Ok(Some(Frame::Close)) => "close".into(),
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(framer.next_frame().unwrap_err(), error);
                        let of_xml = matches!(error, FrameError::Unfit { .. });
                        seen.push(if of_xml { format!("NotWellFormed {error}") } else { format!("{error:?}") });
                        return seen;
                    }
                };
                if line != "space" || seen.last().is_none_or(|last| last != "space") {
                    seen.push(line);
                }
            }
        }
        seen
    }

    /// Checks the frames of `content` after a stream header, in one piece and byte by byte.
    fn check(content: &[u8], expected: &str) {
        let input = [HEADER.as_bytes(), content].concat();
        for chunk in [1, 7, input.len()] {
            let seen = frames(&input, chunk).split_off(1).join("; ");
            assert!(seen.starts_with(expected), "{:?} in chunks of {chunk}: {seen}", String::from_utf8_lossy(content));
        }
    }

    #[test]
    fn a_stream_is_cut_into_its_frames_whatever_the_chunks() {
        let stanza =
            "<message to='a' type=\"chat\"><body>a &lt; b \u{1F600}</body><x xmlns='u'/><![CDATA[<]]></message>";
        let input = format!("{HEADER}{stanza} \n<stream:features/><iq xmlns='other'/></stream:stream >");
        let expected = vec![
            "open Some(\"example.org\")".to_owned(),
            format!("Message {stanza}"),
            "space".into(),
            "Other <stream:features/>".into(),
            "Other <iq xmlns='other'/>".into(),
            "close".into(),
        ];
        for chunk in 1..=input.len() {
            assert_eq!(frames(input.as_bytes(), chunk), expected, "chunks of {chunk}");
        }
    }

    #[test]
    fn a_stanza_is_known_by_its_name_in_the_content_namespace() {
        check(b"<iq/>", "Iq ");
        check(b"<presence to='a'></presence>", "Presence ");
        check(b"<message xmlns='jabber:client'/>", "Message ");
        check(b"<message xmlns='jabber:&#99;lient'/>", "Message ");
        check(b"<c:message xmlns:c='jabber:client'/>", "Message ");
        check(b"<message xmlns='jabber:server'/>", "Other ");
        check(b"<message xmlns=''/>", "Other ");
        check(b"<stream:message/>", "Other ");
        check(b"<messages/>", "Other ");
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        for content in [
            &b"<a></b>"[..],
            b"<a></a b>",
            b"<a b></a>",
            b"<a b=c></a>",
            b"<a b='1'c='2'/>",
            b"<a b='1' b='2'/>",
            b"<a b='<'/>",
            b"<a b='&'/>",
            b"<a b='&#0;'/>",
            b"<a b='&#x110000;'/>",
            b"<a b='&#xD800;'/>",
            b"<a b='\x01'/>",
            b"<a>\0</a>",
            b"<a>\x1b</a>",
            b"<a>]]></a>",
            b"<a>&</a>",
            b"<a>&#xFFFE;</a>",
            b"<a>&#;</a>",
            b"<a>&#x;</a>",
            b"<a>\xEF\xBF\xBF</a>",
            b"<a><![CDATA[\x02]]></a>",
            b"<a><![CDAT[x]]></a>",
            b"<a><!ELEMENT a ANY></a>",
            b"<1a/>",
            b"< a/>",
            b"<a/ >",
            b"<a//>",
            b"<a:b:c/>",
            b"<:a/>",
            b"<a:/>",
            b"<\xC3\x97/>",
            b"<-/>",
            b"<a =''/>",
            b"<p:a/>",
            b"<a p:b=''/>",
            b"<a><b xmlns:p='u'/><p:c/></a>",
            b"<a xmlns:p=''/>",
            b"<a xmlns:xml='u'/>",
            b"<a xmlns:xmlns='u'/>",
            b"<a xmlns='http://www.w3.org/2000/xmlns/'/>",
            b"<xmlns:a/>",
            b"<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>",
            b"<a xmlns='u' xmlns='u'/>",
            b"<a xmlns:p='u' xmlns:q='u' p:b='' q:b=''/>",
            b"<a xmlns:p='u' xmlns:q='&#117;' p:b='' q:b=''/>",
            b"</a>",
            b"</stream:strea>",
            b"</stream:streams>",
        ] {
            check(content, "NotWellFormed");
        }
    }

    #[test]
    fn xml_that_xmpp_prohibits_is_refused_as_soon_as_it_shows() {
        check(b"<!D", "Restricted(Doctype)");
        check(b"<!-", "Restricted(Comment)");
        check(b"<a><!-", "Restricted(Comment)");
        check(b"<a><?php ?>", "Restricted(ProcessingInstruction)");
        check(b"<?xml version='1.0'?>", "Restricted(ProcessingInstruction)");
        check(b"<a>&lol;</a>", "Restricted(Entity)");
        check(b"<a b='&lol;'/>", "Restricted(Entity)");
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_refused() {
        for bytes in
            [&b"\xC0\xBC"[..], b"\xE0\x80\xBC", b"\xED\xA0\x80", b"\xF5\x80\x80\x80", b"\xFF", b"\x80", b"\xC3"]
        {
            check(&[b"<a>", bytes, b"</a>"].concat(), "BadEncoding");
            check(&[b"<a b='", bytes, b"'/>"].concat(), "BadEncoding");
            check(&[b"<a", bytes, b"/>"].concat(), "BadEncoding");
            check(&[b"<a><![CDATA[", bytes, b"]]></a>"].concat(), "BadEncoding");
        }
    }

    #[test]
    fn text_between_stanzas_is_refused() {
        for content in [&b"x"[..], b" &#32;", b"<iq/>x", b"<![CDATA[ ]]>", b"\0", b"</stream:stream>x"] {
            let input = [HEADER.as_bytes(), content].concat();
            let last = frames(&input, 1).pop().unwrap();
            assert!(last.starts_with("BadFormat"), "{content:?}: {last}");
        }
    }

    #[test]
    fn limits_hold_before_the_element_is_complete() {
        let long = vec![b'x'; LIMITS.bytes];
        for start in [&b"<a>"[..], b"<a b='", b"<", b"<a></", b"</", b"<a><![CDATA[", b"<a>&"] {
            check(&[start, &long].concat(), "TooLarge { limit: 4096 }");
        }
        check(&[&b"<a>"[..], &long[7..], b"</a>"].concat(), "Other ");
        check(&[&b"<a>"[..], &long[6..], b"</a>"].concat(), "TooLarge");
        check(&b"<a>".repeat(9), "TooDeep { limit: 8 }");
        check(&[b"<a>".repeat(8), b"<a/>".to_vec()].concat(), "TooDeep { limit: 8 }");
        check(&[b"<a>".repeat(7), b"<a/>".to_vec(), b"</a>".repeat(7)].concat(), "Other ");
        let attributes: String = (0..200).map(|i| format!(" a{i}=''")).collect();
        check(format!("<a{attributes}/>").as_bytes(), "TooMany");
        let prefixes: String = (0..65).map(|i| format!(" xmlns:a{i}='u'")).collect();
        check(format!("<a{prefixes}/>").as_bytes(), "TooMany");
        let header = format!("<stream:stream{}", " ".repeat(LIMITS.bytes));
        assert_eq!(frames(header.as_bytes(), 1), ["TooLarge { limit: 4096 }"]);
    }

    #[test]
    fn a_stream_starts_with_a_header_in_the_right_namespaces() {
        let check = |input: &str, expected: &str| {
            for chunk in [1, 9, input.len()] {
                let seen = frames(input.as_bytes(), chunk).join("; ");
                assert!(seen.starts_with(expected), "{input:?} in chunks of {chunk}: {seen}");
            }
        };
        let streams = "xmlns:s='http://etherx.jabber.org/streams'";
        check(&format!("<s:stream {streams} xmlns='jabber:client'></s:stream>"), "open None; close");
        check(&format!(" \n{HEADER}"), "space; open");
        for declaration in ["version='1.0' encoding='UTF-8'", "version = \"1.0\" encoding='utf-8' standalone='yes' "] {
            check(&format!("<?xml {declaration}?>\n<s:stream {streams} xmlns='jabber:client'>"), "open");
        }
        check("<?xml version='1.0' encoding='latin1'?>", "BadEncoding");
        check("\u{FEFF}<?xml version='1.0'?>", "BadEncoding");
        for declaration in
            ["", "version='2.0'", "encoding='utf-8'", "version='1.0'encoding='utf-8'", "version='1.0' x='y'"]
        {
            check(&format!("<?xml {declaration}?>"), "NotWellFormed");
        }
        check("<?xml version='1.0'?><?xml version='1.0'?>", "Restricted(ProcessingInstruction)");
        check("<!DOCTYPE stream>", "Restricted(Doctype)");
        check(&format!("<s:stream {streams} xmlns='jabber:server'>"), "BadNamespace");
        check(&format!("<s:stream {streams}>"), "BadNamespace");
        check(&format!("<s:streams {streams} xmlns='jabber:client'>"), "BadNamespace");
        check("<stream:stream xmlns='jabber:client' xmlns:stream='u'>", "BadNamespace");
        check("<stream xmlns='http://etherx.jabber.org/streams'></stream>", "open None; close");
        check("<stream:stream xmlns='jabber:client'>", "NotWellFormed");
        check("GET / HTTP/1.1", "NotWellFormed");
        check("\u{16}\u{3}\u{1}", "NotWellFormed");
        check(&format!("<s:stream {streams} xmlns='jabber:client'/>"), "BadFormat");
    }

    #[test]
    fn after_a_restart_a_new_header_is_expected_and_buffered_bytes_stay() {
        let mut framer = Framer::new(LIMITS);
        framer.buffer().extend_from_slice(format!("{HEADER}<auth xmlns='a'/>{HEADER}<iq/>").as_bytes());
        assert!(matches!(framer.next_frame(), Ok(Some(Frame::Open(_)))));
        assert!(matches!(framer.next_frame(), Ok(Some(Frame::Element(_)))));
        framer.restart();
        assert!(matches!(framer.next_frame(), Ok(Some(Frame::Open(_)))));
        assert!(matches!(framer.next_frame(), Ok(Some(Frame::Element(_)))));
        assert!(matches!(framer.next_frame(), Ok(None)));
    }

    #[test]
    fn discarded_bytes_are_ignored() {
        let mut framer = Framer::new(LIMITS);
        framer.buffer().extend_from_slice(format!("{HEADER}<iq><a b='").as_bytes());
        assert!(matches!(framer.next_frame(), Ok(Some(Frame::Open(_)))));
        assert!(matches!(framer.next_frame(), Ok(None)));
        assert_eq!(framer.discard(), "<iq><a b='".len());
        framer.buffer().extend_from_slice(HEADER.as_bytes());
        assert!(matches!(framer.next_frame(), Ok(Some(Frame::Open(_)))));
    }

    #[test]
    fn another_content_namespace_can_be_expected() {
        let mut framer = Framer::with_default_namespace(LIMITS, ns::SERVER);
        framer.buffer().extend_from_slice(HEADER.replace(ns::CLIENT, ns::SERVER).as_bytes());
        framer.buffer().extend_from_slice(b"<iq/>");
        assert!(matches!(framer.next_frame(), Ok(Some(Frame::Open(_)))));
        assert!(matches!(framer.next_frame(), Ok(Some(Frame::Element(e))) if e.kind() == Kind::Iq));
    }

    /// A stanza may arrive one byte per read. Scanning 200 KiB again each time would process 20 GB.
    #[test]
    fn a_large_stanza_that_comes_byte_by_byte_costs_linear_work() {
        let size = 200 << 10;
        let piece = |piece: &str| piece.repeat(size / piece.len());
        for stanza in [
            format!("<a>{}</a>", piece("x")),
            format!("<a>{}</a>", piece("\u{44F}")),
            format!("<a>{}</a>", piece("&amp;")),
            format!("<a>{}</a>", piece("]")),
            format!("<a>{}</a>", piece("<a b='c'/>")),
            format!("<a b='{}'/>", piece("x")),
            format!("<a b='{}'/>", piece("\u{44F}>")),
            format!("<a{}/>", piece(" ")),
            format!("<{}/>", piece("a")),
            format!("<a></a{}>", piece(" ")),
            format!("<a><![CDATA[{}]]></a>", piece("]]")),
            format!("<a xmlns:p='u'>{}</a>", piece("<p:a p:b=''/>")),
        ] {
            let mut framer = Framer::new(FrameLimits::new(1 << 20, 8));
            framer.buffer().extend_from_slice(HEADER.as_bytes());
            framer.next_frame().unwrap();
            for byte in stanza.as_bytes() {
                assert!(matches!(framer.next_frame(), Ok(None)));
                framer.buffer().extend_from_slice(&[*byte]);
            }
            let Ok(Some(Frame::Element(element))) = framer.next_frame() else { panic!("{}", &stanza[..20]) };
            assert_eq!(element.bytes(), stanza.as_bytes());
        }
    }
}
