//! Bytes in any chunking become frames: the stream header, top-level elements, white space, the end of the stream.

use std::sync::Arc;

use bytes::{Buf, BytesMut};

use super::boundary::Boundary;
use super::chars::skip_space;
use super::element::Element;
use super::error::FrameError;
use super::header::{Header, HeaderScan};
use super::ns;
use super::scan::Scan;
use super::tag::end_tag;

/// What a peer may make us hold.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// Bytes of one top-level element, or of a stream header.
    pub bytes: usize,
    /// Nested elements, the top-level one included.
    pub depth: usize,
}

/// A unit of an XML stream (RFC 6120 §4).
#[derive(Clone, Debug)]
pub enum Frame {
    /// The stream was opened, or restarted.
    Open(Arc<Header>),
    /// A whole top-level element: a stanza, or something of the stream's own.
    Element(Element),
    /// White space between top-level elements, a keepalive (RFC 6120 §4.6.1). How a run is split into frames depends on
    /// how it arrived.
    Whitespace,
    /// The stream was closed with its end tag (RFC 6120 §4.4).
    Close,
}

/// Cuts a byte stream into frames and checks them. Any chunking gives the same frames.
pub struct Framer {
    buffer: BytesMut,
    limits: FrameLimits,
    default: &'static str,
    state: State,
    header_scan: HeaderScan,
    scan: Scan,
    closing: Boundary,
}

enum State {
    Header,
    Stream(Arc<Header>),
    Closed,
    Failed(FrameError),
}

impl Framer {
    /// A framer for client streams: the default namespace is `jabber:client`.
    pub fn new(limits: FrameLimits) -> Self {
        Framer::with_default_namespace(limits, ns::CLIENT)
    }

    /// A framer for streams with another default namespace, such as `jabber:server`.
    pub fn with_default_namespace(limits: FrameLimits, ns: &'static str) -> Self {
        Framer {
            buffer: BytesMut::new(),
            limits,
            default: ns,
            state: State::Header,
            header_scan: HeaderScan::default(),
            scan: Scan::default(),
            closing: Boundary::default(),
        }
    }

    /// Replaces the limits, for what is not yet framed.
    pub fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
    }

    /// The buffer to whose end received bytes are to be appended; call [`Framer::next_frame`] until `None` afterwards.
    /// What is in it already must not be changed.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next frame, if it is whole. After an error, the same error again.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let State::Failed(error) = self.state {
            return Err(error);
        }
        let result = self.frame();
        if let Err(error) = result {
            self.state = State::Failed(error);
        }
        result
    }

    /// Expects a stream header next (RFC 6120 §5.4.3.3, §6.4.6). Buffered bytes stay. To be called between frames.
    pub fn restart(&mut self) {
        self.state = State::Header;
        self.header_scan = HeaderScan::default();
        self.scan = Scan::default();
        self.closing = Boundary::default();
    }

    /// Throws away what is buffered (RFC 6120 §5.4.3.3: nothing sent in the clear may count after STARTTLS) and restarts.
    /// Returns how many bytes that were.
    pub fn discard(&mut self) -> usize {
        let len = self.buffer.len();
        self.buffer.clear();
        self.restart();
        len
    }

    fn frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let space = skip_space(&self.buffer, 0);
        if space > 0 {
            self.buffer.advance(space);
            return Ok(Some(Frame::Whitespace));
        }
        let window = self.buffer.get(..self.limits.bytes).unwrap_or(&self.buffer);
        let frame = match (&self.state, window) {
            (_, []) => None,
            (State::Header, _) => self.header_scan.advance(window, self.default)?.map(|header| self.opened(header)),
            (State::Stream(header), [b'<', b'/', ..]) => match self.closing.find(window)? {
                Some((_, end)) => {
                    let len = end_tag(window.get(..end).unwrap_or_default(), 0, header.name())?;
                    self.buffer.advance(len);
                    self.state = State::Closed;
                    Some(Frame::Close)
                }
                None => None,
            },
            (State::Stream(header), [b'<', ..]) if !window.starts_with(b"<![") => {
                self.scan.advance(window, header, self.limits.depth)?.map(|len| {
                    let bytes = self.buffer.split_to(len).freeze();
                    Frame::Element(Element::new(bytes, Arc::clone(header), self.scan.finish()))
                })
            }
            (State::Stream(_), _) => {
                return Err(FrameError::BadFormat { what: "text between stanzas" });
            }
            (State::Closed, _) => {
                return Err(FrameError::BadFormat { what: "content behind the end of the stream" });
            }
            (State::Failed(error), _) => return Err(*error),
        };
        let limit = self.limits.bytes;
        if frame.is_none() && self.buffer.len() > limit { Err(FrameError::TooLarge { limit }) } else { Ok(frame) }
    }

    fn opened(&mut self, header: Header) -> Frame {
        self.buffer.advance(header.bytes().len());
        self.header_scan = HeaderScan::default();
        let header = Arc::new(header);
        self.state = State::Stream(Arc::clone(&header));
        Frame::Open(header)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    const HEADER: &str = "<?xml version='1.0'?>\n<stream:stream xmlns='jabber:client' \
        xmlns:stream='http://etherx.jabber.org/streams' to='example.org' version='1.0' xml:lang='en'>";
    const LIMITS: FrameLimits = FrameLimits { bytes: 4096, depth: 8 };

    /// What the framer makes of `input`, given in chunks of `chunk` bytes; runs of white space as one line.
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
                    Ok(Some(Frame::Whitespace)) => "space".into(),
                    Ok(Some(Frame::Close)) => "close".into(),
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(framer.next_frame().unwrap_err(), error);
                        seen.push(format!("{error:?}"));
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
        assert_eq!(Kind::default(), Kind::Other);
    }
}
