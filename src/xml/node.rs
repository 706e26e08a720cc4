//! [`Node`], a borrowed view of an element, read in place. The framer has checked the bytes: tags are well-formed and
//! match, and there are no comments, instructions or declarations.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memchr3, memmem, memrchr};
use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;

use super::chars::skip_space;
use super::element::Element;
use super::exact::normalized;
use super::scope::{ScopeId, lookup_in};

/// An element inside an [`Element`], or its root. Ranges are offsets into [`Element::bytes`].
#[derive(Clone, Copy)]
pub struct Node<'a> {
    element: &'a Element,
    document: &'a str,
    start: usize,
    start_tag_end: usize,
    end_tag_start: usize,
    end: usize,
    name: &'a str,
    ns: &'a str,
    default: &'a str,
    scope: ScopeId,
}

/// The place of a node.
struct NodeSpan {
    start: usize,
    start_tag_end: usize,
    end_tag_start: usize,
    end: usize,
}

impl Element {
    /// Returns a view of its root.
    pub fn node(&self) -> Node<'_> {
        Node::root(self)
    }

    /// Returns whether its root has this local name and namespace.
    pub fn is(&self, name: &str, ns: &str) -> bool {
        self.node().is(name, ns)
    }
}

impl<'a> Node<'a> {
    fn root(element: &'a Element) -> Node<'a> {
        // The framer has checked the element, so neither of these fails.
        let document = std::str::from_utf8(element.bytes()).unwrap_or_default();
        let end = document.len();
        let (start_tag_end, empty) = tag_end(document.as_bytes(), 0).unwrap_or((end, true));
        // The last `<` begins the root's end tag.
        let end_tag_start = if empty { end } else { memrchr(b'<', document.as_bytes()).unwrap_or(end) };
        let span = NodeSpan { start: 0, start_tag_end, end_tag_start, end };
        Node::new(element, document, span, element.header().default_namespace(), ScopeId::default())
    }

    fn new(element: &'a Element, document: &'a str, span: NodeSpan, default: &'a str, outer: ScopeId) -> Node<'a> {
        let NodeSpan { start, start_tag_end, end_tag_start, end } = span;
        let decls = element.decls();
        let tag = start..start_tag_end;
        let (scope, normalized) = decls.map_or((outer, None), |decls| decls.enter(document, &tag, outer));
        let mut node =
            Node { element, document, start, start_tag_end, end_tag_start, end, name: "", ns: "", default, scope };
        if let Some(raw) = node.raw_attr("xmlns") {
            node.default = normalized.unwrap_or(raw);
        }
        match node.qualified_name().split_once(':') {
            None => (node.name, node.ns) = (node.qualified_name(), node.default),
            Some((prefix, local)) => {
                let uri = lookup_in(decls, document, scope, prefix.as_bytes(), element.header());
                (node.name, node.ns) = (local, uri.unwrap_or_default());
            }
        }
        node
    }

    /// Returns the local name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Returns the namespace, resolved through the parent elements and the stream header; empty if it has none.
    pub fn ns(&self) -> &'a str {
        self.ns
    }

    /// Returns whether it has this local name and namespace.
    pub fn is(&self, name: &str, ns: &str) -> bool {
        self.name == name && self.ns == ns
    }

    /// Returns the value of the attribute with this name as written, such as `xml:lang`. Resolves references and
    /// normalises white space.
    pub fn attr(&self, name: &str) -> Option<Cow<'a, str>> {
        self.raw_attr(name).map(normalized)
    }

    /// Returns the range of an attribute in the element's bytes, including the white space before it, to cut it out.
    pub fn attr_range(&self, name: &str) -> Option<Range<usize>> {
        let value = self.raw_attr(name)?;
        let from = value.as_ptr().addr().checked_sub(self.document.as_ptr().addr())?;
        let start = self.document.get(..from)?.rfind(name)?.checked_sub(1)?;
        Some(start..from + value.len() + 1)
    }

    /// Returns the child elements in order.
    pub fn children(&self) -> Children<'a> {
        Children { parent: *self, at: self.start_tag_end }
    }

    /// Returns the first child element with this local name and namespace.
    pub fn child(&self, name: &str, ns: &str) -> Option<Node<'a>> {
        self.children().find(|child| child.is(name, ns))
    }

    /// Returns the direct character data. Resolves references and CDATA sections and normalises line ends.
    pub fn text(&self) -> Cow<'a, str> {
        let inner = self.document.get(self.inner()).unwrap_or_default();
        if memchr3(b'<', b'&', b'\r', inner.as_bytes()).is_none() {
            return Cow::Borrowed(inner);
        }
        let mut reader = Reader::from_str(inner);
        let mut text = Cow::Borrowed("");
        loop {
            let piece = match reader.read_event() {
                Ok(Event::Text(piece)) => piece.xml10_content(),
                Ok(Event::CData(piece)) => piece.xml10_content(),
                Ok(Event::GeneralRef(reference)) => match reference.resolve_char_ref() {
                    Ok(Some(char)) => Cow::Owned(char.into()),
                    Ok(None) | Err(_) => Cow::Borrowed(resolve_predefined_entity(&reference).unwrap_or_default()),
                },
                Ok(Event::Start(child)) => match reader.read_to_end(child.name()) {
                    Ok(_) => continue,
                    Err(_) => return text,
                },
                Ok(Event::Eof) | Err(_) => return text,
                Ok(Event::Empty(_) | Event::End(_) | Event::Comment(_) | Event::Decl(_)) => {
                    continue;
                }
                Ok(Event::PI(_) | Event::DocType(_)) => continue,
            };
            text = if text.is_empty() { piece } else { text + piece };
        }
    }

    /// Returns the element's bytes as received.
    pub fn raw(&self) -> &'a [u8] {
        self.document.get(self.range()).unwrap_or_default().as_bytes()
    }

    /// Returns the range of its bytes.
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Returns the range of its start tag.
    pub fn start_tag(&self) -> Range<usize> {
        self.start..self.start_tag_end
    }

    /// Returns the range between its start tag and its end tag; empty for `<x/>`.
    pub fn inner(&self) -> Range<usize> {
        self.start_tag_end..self.end_tag_start
    }

    /// Returns whether it is written as `<x/>`.
    pub fn is_empty_tag(&self) -> bool {
        self.start_tag_end == self.end
    }

    /// Returns the offset after the name in the start tag, where attributes can be inserted.
    pub(super) fn name_end(&self) -> usize {
        self.start + 1 + self.qualified_name().len()
    }

    /// Returns the text of its start tag, between `<` and `>` or `/>`: the name and the attributes as written.
    pub fn tag(&self) -> &'a str {
        let tag = self.document.get(self.start_tag()).unwrap_or_default();
        let tag = tag.strip_prefix('<').unwrap_or(tag);
        let tag = tag.strip_suffix('>').unwrap_or(tag);
        if self.is_empty_tag() { tag.strip_suffix('/').unwrap_or(tag) } else { tag }
    }

    fn qualified_name(&self) -> &'a str {
        let tag = self.tag();
        let end = tag.bytes().position(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
        end.and_then(|end| tag.get(..end)).unwrap_or(tag)
    }

    fn raw_attr(&self, name: &str) -> Option<&'a str> {
        let tag = self.tag();
        let bytes = tag.as_bytes();
        let mut at = self.qualified_name().len();
        loop {
            let start = skip_space(bytes, at);
            let equals = start + memchr(b'=', bytes.get(start..)?)?;
            let open = skip_space(bytes, equals + 1);
            let quote = *bytes.get(open)?;
            let close = open + 1 + memchr(quote, bytes.get(open + 1..)?)?;
            // White space may precede the equals sign.
            let rest = tag.get(start..equals)?.strip_prefix(name);
            if rest.is_some_and(|rest| rest.trim_ascii_start().is_empty()) {
                return tag.get(open + 1..close);
            }
            at = close + 1;
        }
    }
}

/// Formats name, namespace and length, never content.
impl std::fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name)
            .field("ns", &self.ns)
            .field("len", &self.range().len())
            .finish()
    }
}

/// The child elements of a [`Node`].
pub struct Children<'a> {
    parent: Node<'a>,
    /// The place from which the next child is searched.
    at: usize,
}

impl<'a> Iterator for Children<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        let Node { element, document, default, scope, end_tag_start: stop, .. } = self.parent;
        let bytes = document.as_bytes().get(..stop)?;
        let start = next_tag(bytes, self.at)?;
        let span = element_at(bytes, start)?;
        self.at = span.end;
        Some(Node::new(element, document, span, default, scope))
    }
}

/// Returns the next start or end tag from `at` on. Ignores text in CDATA sections.
fn next_tag(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let start = at + memchr(b'<', bytes.get(at..)?)?;
        if bytes.get(start + 1) != Some(&b'!') {
            return Some(start);
        }
        at = start + memmem::find(bytes.get(start..)?, b"]]>")? + 3;
    }
}

/// Returns the offset after the `>` of the start tag at `at`, and whether the element is written as `<x/>`.
fn tag_end(bytes: &[u8], mut at: usize) -> Option<(usize, bool)> {
    loop {
        let found = at + memchr3(b'>', b'"', b'\'', bytes.get(at..)?)?;
        match *bytes.get(found)? {
            b'>' => return Some((found + 1, found.checked_sub(1).and_then(|last| bytes.get(last)) == Some(&b'/'))),
            quote => at = found + 1 + memchr(quote, bytes.get(found + 1..)?)? + 1,
        }
    }
}

/// Returns the element whose start tag is at `start`.
fn element_at(bytes: &[u8], start: usize) -> Option<NodeSpan> {
    let (start_tag_end, empty) = tag_end(bytes, start)?;
    if empty {
        return Some(NodeSpan { start, start_tag_end, end_tag_start: start_tag_end, end: start_tag_end });
    }
    let (mut at, mut depth) = (start_tag_end, 1usize);
    loop {
        let tag = next_tag(bytes, at)?;
        if bytes.get(tag + 1) == Some(&b'/') {
            at = tag + memchr(b'>', bytes.get(tag..)?)? + 1;
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(NodeSpan { start, start_tag_end, end_tag_start: tag, end: at });
            }
        } else {
            let (end, empty) = tag_end(bytes, tag)?;
            at = end;
            depth += usize::from(!empty);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::xml::{Header, ns};

    fn element(xml: &str) -> Element {
        let header =
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:h='urn:h'>";
        let header = Arc::new(Header::parse(header.into()).unwrap());
        Element::parse(xml.to_owned().into(), &header).unwrap()
    }

    #[test]
    fn namespaces_resolve_through_ancestors_and_the_stream_header() {
        let element = element(
            "<a xmlns:p='u'><b xmlns='v' xmlns:p='w'><p:c/><d/><e xmlns=''/></b><p:f/><h:g/><stream:i/><j/>\
             <k xmlns='x&amp;y' xmlns:q=' &#x7A; '><l/><q:m/></k></a>",
        );
        let mut found = Vec::new();
        fn walk<'a>(node: Node<'a>, found: &mut Vec<(&'a str, &'a str)>) {
            found.push((node.name(), node.ns()));
            node.children().for_each(|child| walk(child, found));
        }
        walk(element.node(), &mut found);
        let expected = [
            ("a", ns::CLIENT),
            ("b", "v"),
            ("c", "w"),
            ("d", "v"),
            ("e", ""),
            ("f", "u"),
            ("g", "urn:h"),
            ("i", ns::STREAMS),
            ("j", ns::CLIENT),
            ("k", "x&y"),
            ("l", "x&y"),
            ("m", " z "),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn attributes_are_unescaped_and_normalised() {
        let element = element("<a b='1 &lt;&#50;&apos;' c = \"it's\n\" xml:lang='en' xmlns:p='u' p:b='3'/>");
        let node = element.node();
        assert_eq!(node.attr("b").unwrap(), "1 <2'");
        assert_eq!(node.attr("c").unwrap(), "it's ");
        assert_eq!(node.attr("xml:lang").unwrap(), "en");
        assert_eq!(node.attr("p:b").unwrap(), "3");
        assert!(matches!(node.attr("xml:lang"), Some(Cow::Borrowed(_))));
        assert!(node.attr("d").is_none());
    }

    #[test]
    fn text_excludes_that_of_child_elements() {
        for (xml, expected) in [
            ("<a/>", ""),
            ("<a></a>", ""),
            ("<a>x</a>", "x"),
            ("<a>x &lt;<b>y</b><b/>&#x1F600;<![CDATA[<z&amp;>]]>\r\n]]</a>", "x <\u{1F600}<z&amp;>\n]]"),
        ] {
            assert_eq!(element(xml).node().text(), expected);
        }
        assert!(matches!(element("<a>x</a>").node().text(), Cow::Borrowed("x")));
    }

    #[test]
    fn ranges_are_the_places_of_a_node() {
        let element = element("<a b='>'>\u{e9}<c><c/></c >&amp;<c d='/'/></a>");
        let all = |range: Range<usize>| std::str::from_utf8(&element.bytes()[range]).unwrap();
        let root = element.node();
        assert_eq!((all(root.range()), all(root.start_tag())), (all(0..element.bytes().len()), "<a b='>'>"));
        assert_eq!(all(root.inner()), "\u{e9}<c><c/></c >&amp;<c d='/'/>");
        let children: Vec<_> = root.children().collect();
        let [first, second] = children[..] else { panic!("{children:?}") };
        assert_eq!((all(first.range()), all(first.start_tag()), all(first.inner())), ("<c><c/></c >", "<c>", "<c/>"));
        assert_eq!(
            (all(second.range()), all(second.start_tag()), all(second.inner())),
            ("<c d='/'/>", "<c d='/'/>", "")
        );
        assert_eq!((first.raw(), first.is_empty_tag(), second.is_empty_tag()), (&b"<c><c/></c >"[..], false, true));
        assert_eq!(root.child("c", ns::CLIENT).unwrap().range(), first.range());
        assert!(root.child("c", "other").is_none());
    }

    /// Returns the result of an independent parser for an element: names, attributes, direct text, depth first.
    fn oracle(xml: &str) -> Vec<String> {
        let mut reader = Reader::from_str(xml);
        let (mut found, mut open) = (Vec::<String>::new(), Vec::new());
        loop {
            let event = reader.read_event().unwrap();
            let text = match &event {
                Event::Start(tag) | Event::Empty(tag) => {
                    let attrs = tag.attributes().map(|attr| {
                        let attr = attr.unwrap();
                        format!(" {}={:?}", attr.key.into_inner(), normalized(&attr.value))
                    });
                    let name = tag.name().into_inner().to_owned();
                    found.push(format!("{name}{}:", attrs.collect::<String>()));
                    if matches!(event, Event::Start(_)) {
                        open.push(found.len() - 1);
                    }
                    continue;
                }
                Event::End(_) => {
                    open.pop();
                    continue;
                }
                Event::Text(piece) => piece.xml10_content().into_owned(),
                Event::CData(piece) => piece.xml10_content().into_owned(),
                Event::GeneralRef(reference) => match reference.resolve_char_ref().unwrap() {
                    Some(char) => char.to_string(),
                    None => resolve_predefined_entity(reference).unwrap().to_owned(),
                },
                Event::Eof => return found,
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => panic!("{event:?}"),
            };
            found[*open.last().unwrap()].push_str(&text);
        }
    }

    fn walk(node: Node<'_>, names: &[&str], found: &mut Vec<String>) {
        let attrs = names.iter().filter_map(|name| node.attr(name).map(|value| format!(" {name}={value:?}")));
        found.push(format!("{}{}:{}", node.qualified_name(), attrs.collect::<String>(), node.text()));
        node.children().for_each(|child| walk(child, names, found));
    }

    #[test]
    fn an_independent_parser_finds_the_same() {
        const NAMES: [&str; 3] = ["a", "ab", "a-b"];
        const VALUES: [&str; 5] = ["''", "\"a='1'\"", "'/>'", "'\"<'", "\t"];
        const TEXTS: [&str; 7] = ["", "x", "a='&lt;'>", "&#x26;", "<![CDATA[</b><c d='>]]>", "\r\n", "<![CDATA[]]>"];
        // xorshift, for the same documents in every run.
        let mut state = 88_172_645_463_325_252_u64;
        let mut below = |n: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % n as u64).unwrap()
        };
        fn grow(depth: usize, below: &mut impl FnMut(usize) -> usize) -> String {
            let name = ["b", "bb", "b.c"][below(3)];
            let mut xml = format!("<{name}");
            for attr in NAMES {
                if below(2) == 0 {
                    let value = VALUES[below(VALUES.len())].replace('<', "&lt;");
                    let value = if value == "\t" { "'\t'".to_owned() } else { value };
                    let space = ["", " ", "\n"][below(3)];
                    xml.push_str(&format!("{}{attr}{space}={space}{value}", [" ", "\r\n ", "\t"][below(3)]));
                }
            }
            if below(4) == 0 {
                return xml + ["/>", " />"][below(2)];
            }
            xml.push_str(["\n>", ">"][below(2)]);
            for _ in 0..below(4) {
                xml.push_str(TEXTS[below(TEXTS.len())]);
                if depth > 0 {
                    xml.push_str(&grow(depth - 1, below));
                }
            }
            xml.push_str(TEXTS[below(TEXTS.len())]);
            xml + "</" + name + ["", " "][below(2)] + ">"
        }
        let mut nodes = 0;
        for _ in 0..2000 {
            let xml = grow(4, &mut below);
            let (element, mut found) = (element(&xml), Vec::new());
            walk(element.node(), &NAMES, &mut found);
            assert_eq!(found, oracle(&xml), "{xml}");
            nodes += found.len();
        }
        assert!(nodes > 10_000, "only {nodes} elements");
    }
}
