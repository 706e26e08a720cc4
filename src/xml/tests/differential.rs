//! Tests that compare the framer and the view with an independent parser (roxmltree), and with themselves under other
//! chunkings.
//!
//! Intended differences, all rejected only by Pushward: document types, comments and processing instructions (RFC 6120
//! §11.1), character data between stanzas, an empty stream, more attributes or prefixes than the limits.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::FileFailurePersistence;

use crate::xml::exact::is_name;
use crate::xml::{Element, Frame, FrameError, FrameLimits, Framer, Header, Node, Unfit, ns};

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns:h='urn:h' to='example.org' version='1.0'>";
const LIMITS: FrameLimits = FrameLimits::new(1 << 16, 64);

/// Returns the framer's result for a stream: its frames (runs of white space as one), and the error at its end.
fn frames(parts: &[&[u8]], limits: FrameLimits) -> (Vec<Frame>, Option<FrameError>) {
    let mut framer = Framer::new(limits);
    let mut frames: Vec<Frame> = Vec::new();
    for part in parts {
        framer.buffer().extend_from_slice(part);
        loop {
            match framer.next_frame() {
                Ok(Some(Frame::Whitespace)) if matches!(frames.last(), Some(Frame::Whitespace)) => {}
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn describe((frames, error): &(Vec<Frame>, Option<FrameError>)) -> Vec<String> {
    let describe = |frame: &Frame| match frame {
        Frame::Open(header) => format!("open {:?}", header.bytes()),
        Frame::Element(element) => format!("{:?} {:?}", element.kind(), element.bytes()),
        Frame::Skipped(_) => panic!("skipped"),
        Frame::Whitespace => "space".into(),
        Frame::Close => "close".into(),
    };
    frames.iter().map(describe).chain(error.map(|error| format!("{error:?}"))).collect()
}

/// Checks that both have the same nodes, names, namespaces, attributes and text.
fn check_same(ours: Node<'_>, theirs: roxmltree::Node<'_, '_>, document: &[u8]) {
    assert_eq!(ours.name(), theirs.tag_name().name());
    assert_eq!(ours.ns(), theirs.tag_name().namespace().unwrap_or_default());
    assert_eq!(ours.raw(), &document[theirs.range()]);
    for attribute in theirs.attributes().filter(|attribute| attribute.namespace().is_none()) {
        assert_eq!(ours.attr(attribute.name()).as_deref(), Some(attribute.value()));
    }
    assert_eq!(ours.attr("xml:lang").as_deref(), theirs.attribute((ns::XML, "lang")));
    let text: String = theirs.children().filter(|child| child.is_text()).filter_map(|child| child.text()).collect();
    // roxmltree does not normalise a carriage return before a reference, contrary to XML 1.0 §2.11.
    assert_eq!(ours.text().replace('\r', "\n"), text.replace('\r', "\n"));
    let ours: Vec<_> = ours.children().collect();
    let theirs: Vec<_> = theirs.children().filter(|child| child.is_element()).collect();
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.into_iter().zip(theirs) {
        check_same(ours, theirs, document);
    }
}

fn we_alone_refuse(error: &FrameError, stream: &[u8]) -> bool {
    let odd_name = || stream.windows(2).any(|pair| matches!(pair, [b'/' | b'<' | b' ' | b'\n' | b'\t' | b'\r', b':']));
    let text = String::from_utf8_lossy(stream);
    // roxmltree accepts this, contrary to XML 1.0 §3.1 and §4.1 and Namespaces in XML 1.0 §4 and §6.1.
    match error {
        FrameError::Restricted(_) | FrameError::BadFormat { .. } | FrameError::TooMany { .. } => true,
        FrameError::Unfit { what: Unfit::Undeclared | Unfit::DeclaredTwice | Unfit::NoCharacter, .. } => true,
        FrameError::NotWellFormed { what: "end tag does not match", .. } => odd_name(),
        // roxmltree accepts the names of the 5th edition.
        FrameError::Unfit { what: Unfit::Name, .. } => odd_name() || text.chars().any(|c| !c.is_ascii() && !is_name(c)),
        FrameError::Unfit { .. } => false,
        FrameError::NotWellFormed { .. } | FrameError::TooLarge { .. } | FrameError::TooDeep { .. } => false,
        FrameError::BadNamespace | FrameError::BadEncoding => false,
    }
}

/// Checks that both parsers agree on a stream with this content between its header and its end.
fn check_against_roxmltree(content: &[u8]) {
    let stream = [HEADER.as_bytes(), content, b"</stream:stream>"].concat();
    let (frames, error) = frames(&[&stream], LIMITS);
    let accepted = matches!(frames.last(), Some(Frame::Close)) && error.is_none();
    let text = std::str::from_utf8(&stream);
    let theirs = text.ok().and_then(|text| roxmltree::Document::parse(text).ok());
    let strict = error.is_some_and(|error| we_alone_refuse(&error, &stream));
    assert!(accepted == theirs.is_some() || strict, "{error:?} at {:?}", Bytes::from(stream));
    if let (true, Some(theirs)) = (accepted, theirs) {
        let ours = frames.iter().filter_map(|frame| match frame {
            Frame::Element(element) => Some(element.node()),
            Frame::Open(_) | Frame::Skipped(_) | Frame::Whitespace | Frame::Close => None,
        });
        let theirs = theirs.root_element().children().filter(|child| child.is_element());
        let ours: Vec<_> = ours.collect();
        assert_eq!(ours.len(), theirs.clone().count());
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            check_same(ours, theirs, &stream);
        }
    }
}

/// Pieces whose combinations cover most errors.
const PIECES: &[&str] = &[
    "<a",
    "<p:a",
    "<h:a",
    "<b",
    "<message",
    "</a>",
    "</p:a>",
    "</h:a>",
    "</b>",
    "</message>",
    "</a >",
    ">",
    "/>",
    " ",
    "\n",
    "\r\n",
    "\t",
    "x",
    "é",
    "\u{1F600}",
    "\u{FFFD}",
    "\u{FFFF}",
    "\u{1}",
    "\0",
    "\u{7F}",
    "<",
    "&",
    ";",
    "'",
    "\"",
    "=",
    "]",
    "]]>",
    "<![CDATA[",
    "&lt;",
    "&amp;",
    "&#65;",
    "&#x1F600;",
    "&#0;",
    "&#xFFFF;",
    "&#10;",
    "&lol;",
    "<!--",
    "-->",
    "<?x y?>",
    "<!DOCTYPE a>",
    " b='1'",
    " b=\"2\"",
    " c = '&quot;<'",
    " c='a\tb\nc\r\nd&#9;'",
    " xmlns='u'",
    " xmlns=''",
    " xmlns:p='u'",
    " xmlns:p='v&amp;w'",
    " xmlns:q='u'",
    " p:b='1'",
    " q:b='1'",
    " h:b='1'",
    " xml:lang='en'",
    " xmlns:p=''",
    " xmlns:xml='u'",
    " xmlns:xmlns='u'",
    " xmlns:q='http://www.w3.org/2000/xmlns/'",
    "a:b:c",
    ":a",
    "a:",
    "1a",
    "-",
];

fn soup() -> impl Strategy<Value = String> {
    prop::collection::vec(select(PIECES), 0..24).prop_map(|pieces| pieces.concat())
}

fn attribute() -> impl Strategy<Value = String> {
    let name = select(&["b", "c", "d", "xml:lang", "xmlns", "xmlns:p", "xmlns:q", "p:b", "q:b", "h:c", "é"][..]);
    let value = select(&["u", "v", "", "a b", "a\nb", "&lt;&amp;", "&#x9;", "it&apos;s", "ü", "http://x/?a=b"][..]);
    let frame = select(&[("=", "'"), (" = ", "\""), ("\n=", "'")][..]);
    (name, value, frame).prop_map(|(name, value, (equals, quote))| format!(" {name}{equals}{quote}{value}{quote}"))
}

/// Returns elements that are mostly well-formed.
fn element() -> impl Strategy<Value = String> {
    let name = select(&["a", "b", "message", "iq", "p:a", "h:b", "stream:x", "ü"][..]);
    let text = select(&["", "text", "a &gt; b", "\r\n", "<![CDATA[<&]]>", "&#x1F600;", "tüx", "]]", ">"][..]);
    let leaf = (name.clone(), prop::collection::vec(attribute(), 0..3))
        .prop_map(|(name, attributes)| format!("<{name}{}/>", attributes.concat()));
    leaf.prop_recursive(5, 40, 5, move |inner| {
        let content = prop::collection::vec(prop_oneof![inner, text.clone().prop_map(String::from)], 0..5);
        (name.clone(), prop::collection::vec(attribute(), 0..4), content).prop_map(|(name, attributes, content)| {
            format!("<{name}{}>{}</{name}>", attributes.concat(), content.concat())
        })
    })
}

fn content() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::collection::vec(element(), 0..4).prop_map(|elements| elements.join("\n")),
        prop::collection::vec(prop_oneof![element(), soup()], 0..4).prop_map(|pieces| pieces.concat()),
        soup(),
    ]
}

/// Returns content with some bytes changed.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<Index>(), prop_oneof![any::<u8>(), select(&b"<>/&;'\"= :]"[..])], 0..3);
    (content(), prop::collection::vec(change, 0..3)).prop_map(|(content, changes)| {
        let mut bytes = content.into_bytes();
        for (at, byte, how) in changes.into_iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.splice(at..=at, [byte, byte])),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4096,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_an_independent_parser_rejects_we_reject_and_what_it_reads_we_read(content in damaged()) {
        check_against_roxmltree(&content);
    }

    #[test]
    fn any_chunking_gives_the_same_frames(content in damaged(), cuts in prop::collection::vec(any::<Index>(), 0..12)) {
        let stream = [HEADER.as_bytes(), &content, b"</stream:stream>"].concat();
        for limits in [LIMITS, FrameLimits::new(HEADER.len() + 10, 3)] {
            let whole = describe(&frames(&[&stream], limits));
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
            cuts.sort_unstable();
            let ends = cuts.iter().copied().chain([stream.len()]);
            let starts = [0].into_iter().chain(cuts.iter().copied());
            let parts: Vec<&[u8]> = starts.zip(ends).map(|(start, end)| &stream[start..end]).collect();
            prop_assert_eq!(&describe(&frames(&parts, limits)), &whole);
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(&describe(&frames(&bytes, limits)), &whole);
        }
    }

    #[test]
    fn an_element_means_the_same_on_another_stream(content in element(), lang in select(&["", " xml:lang='de'"][..])) {
        let parse = |bytes: String| Header::parse(bytes.into()).map(Arc::new);
        let own = parse(HEADER.replace(" to=", &format!("{lang} to="))).unwrap();
        let target = parse(HEADER.replace(" xmlns:h='urn:h'", " xmlns:h='urn:other' xml:lang='en'")).unwrap();
        let Ok(element) = Element::parse(content.into(), &own) else { return Ok(()) };
        let moved = element.on_stream(&target);
        let there = [target.bytes(), &moved[..], b"</stream:stream>"].concat();
        let here = [own.bytes(), &element.bytes()[..], b"</stream:stream>"].concat();
        let (there, here) = (String::from_utf8(there).unwrap(), String::from_utf8(here).unwrap());
        let (there, here) = (roxmltree::Document::parse(&there).unwrap(), roxmltree::Document::parse(&here).unwrap());
        let names = |document: &roxmltree::Document<'_>| -> Vec<String> {
            let elements = document.root_element().descendants().skip(1).filter(|node| node.is_element());
            let names = elements.flat_map(|node| {
                let attributes = node.attributes().map(|a| format!("{:?} {} {}", a.namespace(), a.name(), a.value()));
                attributes.chain([format!("{:?}", node.tag_name())]).collect::<Vec<_>>()
            });
            names.filter(|name| !name.contains("lang")).collect()
        };
        prop_assert_eq!(names(&there), names(&here));
    }
}
