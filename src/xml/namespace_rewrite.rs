//! Rewriting of an element for another stream: the namespaces declared by its own stream header are declared on its
//! start tag.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::element::Element;
use super::header::Header;
use super::kind::Kind;

impl Element {
    /// Returns bytes with the same meaning on the stream that `target` opened. They are unchanged if both headers are
    /// the same, or if the element uses no prefix of the header. Otherwise the used namespaces are declared on the
    /// start tag. `xml:lang` is added if the languages of the streams differ and the stanza has none (RFC 6120 §4.7.4,
    /// §8.1.5).
    pub fn on_stream(&self, target: &Arc<Header>) -> Bytes {
        self.rewritten_for(target).unwrap_or_else(|| self.bytes().clone())
    }

    /// Does the same as [`Element::on_stream`], and consumes the element.
    pub fn into_stream(self, target: &Arc<Header>) -> Bytes {
        self.rewritten_for(target).unwrap_or_else(|| self.into_bytes())
    }

    /// Returns its bytes on the stream that `target` opened, if they differ.
    fn rewritten_for(&self, target: &Arc<Header>) -> Option<Bytes> {
        if self.header().shares_context(target) {
            return None;
        }
        let added = self.declarations_for(target);
        if added.is_empty() {
            return None;
        }
        let name_end = self.node().name_end();
        let mut bytes = BytesMut::with_capacity(self.bytes().len() + added.len());
        bytes.extend_from_slice(self.bytes().get(..name_end).unwrap_or_default());
        bytes.extend_from_slice(added.as_bytes());
        bytes.extend_from_slice(self.bytes().get(name_end..).unwrap_or_default());
        Some(bytes.freeze())
    }

    fn declarations_for(&self, target: &Header) -> String {
        let mut added = String::new();
        let mut add = |name: std::fmt::Arguments<'_>, value: &str| {
            added.push_str(&format!(" {name}='{}'", quick_xml::escape::escape(value)));
        };
        let own = self.header();
        if own.default_namespace() != target.default_namespace() && self.node().attr("xmlns").is_none() {
            add(format_args!("xmlns"), own.default_namespace());
        }
        let bits = self.borrowed();
        let borrowed = (0..u64::BITS as usize).filter(|index| bits & (1 << index) != 0);
        for (prefix, uri) in borrowed.filter_map(|index| own.declared(index)) {
            if target.prefix(prefix.as_bytes()).is_none_or(|(_, other)| other != uri) {
                add(format_args!("xmlns:{prefix}"), uri);
            }
        }
        if let (Some(lang), false) = (own.lang(), self.kind() == Kind::Other) {
            let same = target.lang().is_some_and(|other| other.eq_ignore_ascii_case(lang));
            if !same && self.node().attr("xml:lang").is_none() {
                add(format_args!("xml:lang"), lang);
            }
        }
        added
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
    fn an_element_is_unchanged_on_a_stream_with_the_same_context() {
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
    fn namespaces_of_the_header_are_declared_on_the_element() {
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
}
