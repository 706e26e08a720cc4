//! Fuzz target: the fast framer in any chunking against the exact reader.
//!
//! Options: `s` skips unfit elements, `t` has tiny limits, `c` those of a client, `v` those of a server, `r` leaves out the header,
//! `p` has a header with another default namespace and prefixes; a digit adds a chunk size.

use std::sync::Arc;

use fearless_simd::Level;

use super::error::FrameError;
use super::limits::FrameLimits;
use super::scan::Scan;
use super::skip::SkipReason;
use super::{Element, Frame, Framer, Header, Kind, Node};

const HEADER: &[u8] = b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns:h='urn:h' to='example.org' version='1.0'>";
const PREFIXED: &[u8] = b"<stream xmlns='http://etherx.jabber.org/streams' xmlns:c='jabber:client' xmlns:p='urn:p' \
    xmlns:h='jabber:client' xml:lang='de' id='1'>";
/// Chunk sizes, by digit. Zero: the rest in one piece.
const SIZES: [usize; 10] = [0, 1, 2, 3, 7, 16, 63, 64, 65, 250];

/// The limit `t`, in bytes: as in any configuration, more than the longest name that is compared when an element is skipped.
const SMALLEST: usize = 400;

/// The length of streams that are read by another framer after every chunk, which takes quadratic time.
const REPLACED: usize = 2000;

/// A frame, and its place in the stream.
struct Placed {
    at: usize,
    frame: Frame,
}

/// The result of framing a stream.
struct Framed {
    frames: Vec<Placed>,
    error: Option<FrameError>,
    /// Bytes that belong to whole frames.
    taken: usize,
}

/// Compares the fast framer, fed in chunks, with itself fed at once and with the exact reader.
pub(crate) fn framer(data: &[u8]) {
    let (options, content) = options(data);
    let has = |letter| options.contains(&letter);
    let start = if has(b'p') { PREFIXED } else { HEADER };
    let stream = if has(b'r') { content.to_vec() } else { [start, content].concat() };
    let limits = match options {
        _ if has(b't') => FrameLimits::new(SMALLEST, 4),
        _ if has(b'c') => FrameLimits::client(4096, 16),
        _ if has(b'v') => FrameLimits::server(1 << 16),
        _ => FrameLimits::new(1 << 16, 64),
    };
    let whole = frame(&stream, &[], limits, has(b's'), false);
    for placed in &whole.frames {
        check_frame(placed, &stream, &limits);
    }
    check_end(&whole, &stream, &limits, has(b's'));
    let digits = options.iter().filter(|letter| letter.is_ascii_digit());
    let sizes: Vec<usize> = digits.filter_map(|digit| SIZES.get(usize::from(digit - b'0')).copied()).collect();
    for sizes in [&sizes[..], &[1]] {
        let parts = frame(&stream, sizes, limits, has(b's'), false);
        assert_eq!(describe(&parts), describe(&whole), "in chunks of {sizes:?}");
        // After every chunk another framer begins again with the element that is incomplete.
        if stream.len() <= REPLACED {
            let parts = frame(&stream, sizes, limits, has(b's'), true);
            assert_eq!(describe(&parts), describe(&whole), "in chunks of {sizes:?}, each by another framer");
        }
    }
}

/// Frames a stream that comes in chunks of these sizes, again and again. If `is_replaced`, another framer continues after
/// every chunk.
fn frame(stream: &[u8], sizes: &[usize], limits: FrameLimits, skips: bool, is_replaced: bool) -> Framed {
    let mut framer = Framer::new(limits);
    if skips {
        framer.skip_unfit(None);
    }
    let mut framed = Framed { frames: Vec::new(), error: None, taken: 0 };
    let (mut rest, mut sizes) = (stream, sizes.iter().copied().cycle());
    while !rest.is_empty() {
        let size = sizes.next().filter(|size| *size > 0).unwrap_or(rest.len()).min(rest.len());
        let (chunk, behind) = rest.split_at(size);
        rest = behind;
        framer.buffer().extend_from_slice(chunk);
        loop {
            let at = stream.len() - rest.len() - framer.buffer().len();
            match framer.next_frame() {
                Ok(Some(frame)) => {
                    framed.taken = stream.len() - rest.len() - framer.buffer().len();
                    framed.frames.push(Placed { at, frame });
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(framer.next_frame().map(|_| ()), Err(error), "the error stays");
                    framed.error = Some(error);
                    return framed;
                }
            }
        }
        assert!(framer.buffer().len() <= limits.bytes, "{} bytes wait", framer.buffer().len());
        if is_replaced {
            framer = replaced(&framer, limits);
        }
        let bound = 4 * limits.bytes.min(stream.len()) + 4 * chunk.len() + 8192;
        assert!(framer.memory() <= bound, "{} of {bound} bytes", framer.memory());
    }
    framed
}

/// Returns a framer that continues from the record of another one.
fn replaced(framer: &Framer, limits: FrameLimits) -> Framer {
    let record = |framer: &Framer| rmp_serde::to_vec_named(&framer.freeze()).unwrap_or_default();
    let read = rmp_serde::from_slice(&record(framer)).ok();
    let Some(next) = read.and_then(|read| Framer::thaw(read, limits)) else { panic!("the record cannot be read") };
    assert!(record(&next) == record(framer), "the framer that continues has another record");
    next
}

/// Returns a line for each frame; runs of white space, which depend on the chunks, are one.
fn describe(framed: &Framed) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for Placed { frame, .. } in &framed.frames {
        let line = match frame {
            Frame::Open(header) => format!("open {:?}", header.bytes()),
            Frame::Element(element) => format!("{:?} {:?}", element.kind(), element.bytes()),
            Frame::Skipped(skipped) => {
                format!("skipped {} {:?} {}", skipped.bytes, skipped.reason, skipped.name)
            }
            Frame::Whitespace if lines.last().is_some_and(|last| last == "space") => continue,
            Frame::Whitespace => "space".to_owned(),
            Frame::Close => "close".to_owned(),
        };
        lines.push(line);
    }
    lines.extend(framed.error.map(|error| format!("{error:?}")));
    lines
}

/// Reads an element on the exact path alone, or on the fast path with the instructions of this level.
fn read(level: Option<Level>, bytes: &[u8], header: &Header, limits: &FrameLimits) -> (Scanned, String) {
    let window = bytes.get(..limits.bytes).unwrap_or(bytes);
    let mut scan = Scan::default();
    let scanned = match scan.advance_with(level, window, header, limits) {
        Ok(None) if bytes.len() > limits.bytes => Err(FrameError::TooLarge { limit: limits.bytes }),
        scanned => scanned,
    };
    let found = if matches!(scanned, Ok(Some(_))) { format!("{:?}", scan.finish()) } else { String::new() };
    (scanned, found)
}

type Scanned = Result<Option<usize>, FrameError>;

/// Returns the result of the exact path, which is that of the fast path on every processor.
fn exact(bytes: &[u8], header: &Header, limits: &FrameLimits) -> Scanned {
    let exact = read(None, bytes, header, limits);
    for level in [Level::new(), Level::baseline()] {
        assert_eq!(read(Some(level), bytes, header, limits), exact, "{level:?}: {}", bytes.escape_ascii());
    }
    exact.0
}

fn check_frame(placed: &Placed, stream: &[u8], limits: &FrameLimits) {
    let rest = stream.get(placed.at..).unwrap_or_default();
    match &placed.frame {
        Frame::Element(element) => {
            assert!(rest.starts_with(element.bytes()));
            assert_eq!(exact(rest, element.header(), limits), Ok(Some(element.bytes().len())));
            check_element(element);
        }
        Frame::Skipped(skipped) => {
            let Err(error) = exact(rest, skipped.element.header(), limits) else { panic!("{skipped:?} is fit") };
            assert_eq!(SkipReason::of(&error), Some(skipped.reason), "{error:?}");
            check_element(&skipped.element);
        }
        Frame::Open(header) => {
            assert!(rest.starts_with(header.bytes()));
            assert!(header.prefixes().all(|(prefix, uri)| prefix.len() + uri.len() < header.bytes().len()));
        }
        Frame::Whitespace | Frame::Close => {}
    }
}

/// Checks that the exact path stops where the stream stops.
fn check_end(framed: &Framed, stream: &[u8], limits: &FrameLimits, skips: bool) {
    let header = framed.frames.iter().find_map(|placed| match &placed.frame {
        Frame::Open(header) => Some(header),
        Frame::Element(_) | Frame::Skipped(_) | Frame::Whitespace | Frame::Close => None,
    });
    let is_closed = framed.frames.iter().any(|placed| matches!(placed.frame, Frame::Close));
    let rest = stream.get(framed.taken..).unwrap_or_default();
    let is_element = rest.starts_with(b"<") && !rest.starts_with(b"</") && !rest.starts_with(b"<![");
    let Some(header) = header.filter(|_| is_element && !is_closed) else { return };
    match (exact(rest, header, limits), framed.error) {
        (Ok(None), None) => {}
        (Ok(Some(_)), _) => panic!("an element is left"),
        // Its end may be missing, or there may be none.
        (Err(error), _) if skips && SkipReason::of(&error).is_some() => {}
        (found, error) => assert_eq!(found.err(), error),
    }
}

/// Reads all of an element, and moves it to another stream.
fn check_element(element: &Element) {
    let header = element.header();
    check_node(&element.node(), element.bytes());
    let target = other_header();
    let moved = Element::parse(element.on_stream(&target), &target);
    let moved = moved.unwrap_or_else(|error| panic!("{error} on another stream: {:?}", element.bytes()));
    check_same(&element.node(), &moved.node(), true);
    let again = Element::parse(element.bytes().clone(), header).map(|again| again.kind());
    assert_eq!(again, Ok(element.kind()));
    if element.kind() != Kind::Other {
        let reply = super::answer(&element.node(), "result").finish();
        assert!(Element::parse(reply.clone(), &Header::bare()).is_ok(), "{reply:?}");
    }
}

fn other_header() -> Arc<Header> {
    let xml =
        "<s:stream xmlns='jabber:client' xmlns:s='http://etherx.jabber.org/streams' xmlns:h='urn:o' xml:lang='en'>";
    Header::parse(xml.into()).map_or_else(|_| Header::bare(), Arc::new)
}

fn check_node(node: &Node<'_>, bytes: &[u8]) {
    assert_eq!(bytes.get(node.range()), Some(node.raw()));
    let (all, tag, inner) = (node.range(), node.start_tag(), node.inner());
    assert!(all.start <= tag.start && tag.end <= inner.start && inner.start <= inner.end && inner.end <= all.end);
    assert!(node.text().len() <= bytes.len());
    assert!(node.attr("id").is_none_or(|value| value.len() <= bytes.len()));
    for child in node.children() {
        check_node(&child, bytes);
    }
}

/// Checks that two nodes have the same meaning. The root's language may have been added.
fn check_same(one: &Node<'_>, other: &Node<'_>, is_root: bool) {
    assert_eq!((one.name(), one.ns(), one.text()), (other.name(), other.ns(), other.text()));
    for name in ["id", "to", "from", "type"] {
        assert_eq!(one.attr(name), other.attr(name));
    }
    assert!(is_root || one.attr("xml:lang") == other.attr("xml:lang"));
    let (ours, theirs): (Vec<_>, Vec<_>) = (one.children().collect(), other.children().collect());
    assert_eq!(ours.len(), theirs.len());
    for (one, other) in ours.iter().zip(&theirs) {
        check_same(one, other, false);
    }
}

/// Splits off the options: the letters of the first line. Without a line feed there are none.
pub(crate) fn options(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (data.get(..end).unwrap_or_default(), data.get(end + 1..).unwrap_or_default()),
        None => (&[], data),
    }
}
