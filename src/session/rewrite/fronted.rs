//! SASL2 and Bind 2 in front of a server that has neither: the offer, and the translation of SASL elements. The payloads of the
//! mechanisms are the same in both profiles.
//!
//! Data of zero length is an `=` in an initial response and in a `<success/>` of RFC 6120 (§6.4.2, §6.4.6), where an empty element
//! has no data. In XEP-0388 an empty element has data of zero length, and an absent one has none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::splice::{append, splice};

use crate::push::fast::{IssuedToken, TokenMechanism};
use crate::session::fronting::{FrontedParts, TokenOffer};
use crate::session::mechanism_filter::MechanismFilter;
use crate::session::sasl;
use crate::xml::{Element, Node, XmlWriter, ns};

/// Data of zero length in RFC 6120's profile.
const EMPTY: &str = "=";

/// SASL2 as Pushward offers it for a server that does not have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontedOffer {
    mechanisms: Box<[String]>,
    /// The features that are offered inside.
    pub parts: FrontedParts,
}

impl FrontedOffer {
    /// Returns the offer for a server with these features. The mechanisms are those that SASL of RFC 6120 offers after the filter and
    /// that name the account in the clear. `None` if the server has SASL2 itself, or has no such mechanism.
    pub fn new(features: &Node<'_>, filter: &MechanismFilter, parts: FrontedParts) -> Option<Self> {
        if features.child("authentication", ns::SASL2).is_some() {
            return None;
        }
        let mechanisms: Box<[String]> = mechanisms(features, filter).filter(|name| sasl::names_account(name)).collect();
        (!mechanisms.is_empty()).then_some(Self { mechanisms, parts })
    }

    /// Returns whether a mechanism is offered.
    pub fn has(&self, mechanism: &str) -> bool {
        self.mechanisms.iter().any(|offered| offered == mechanism)
    }
}

/// Returns the mechanisms of RFC 6120's profile that pass the filter.
pub(super) fn mechanisms(features: &Node<'_>, filter: &MechanismFilter) -> impl Iterator<Item = String> {
    let lists = features.children().filter(|child| child.is("mechanisms", ns::SASL));
    let offered = lists.flat_map(|list| list.children()).filter(|child| child.is("mechanism", ns::SASL));
    offered.map(|mechanism| mechanism.text().trim().to_owned()).filter(|name| filter.passes(name))
}

/// Returns the `<authentication/>` of an offer.
pub(super) fn offer(FrontedOffer { mechanisms, parts }: &FrontedOffer) -> Bytes {
    let mut xml = XmlWriter::new();
    xml.start("authentication").attr("xmlns", ns::SASL2);
    for mechanism in mechanisms {
        xml.start("mechanism").text(mechanism).end();
    }
    xml.start("inline").start("sm").attr("xmlns", ns::SM).end();
    xml.start("bind").attr("xmlns", ns::BIND2).start("inline");
    let carbons = parts.carbons.then_some(ns::CARBONS);
    for var in carbons.into_iter().chain([ns::SM, ns::CSI]) {
        xml.start("feature").attr("var", var).end();
    }
    if let Some(TokenOffer { with_binding }) = parts.tokens {
        xml.end().end().start("fast").attr("xmlns", ns::FAST);
        let usable = |mechanism: &TokenMechanism| with_binding || *mechanism != TokenMechanism::Sha256Exporter;
        for mechanism in TokenMechanism::ALL.into_iter().filter(usable) {
            xml.start("mechanism").text(mechanism.name()).end();
        }
    }
    xml.finish()
}

/// Returns the `<auth/>` for an `<authenticate/>`.
pub fn auth(authenticate: &Node<'_>) -> Bytes {
    let mechanism = authenticate.attr("mechanism").unwrap_or_default();
    let initial = authenticate.child("initial-response", ns::SASL2);
    let mut xml = XmlWriter::new();
    xml.start("auth").attr("xmlns", ns::SASL).attr("mechanism", &mechanism);
    if let Some(initial) = initial {
        let text = initial.text();
        let data = text.trim();
        xml.text(if data.is_empty() { EMPTY } else { data });
    }
    xml.finish()
}

/// Returns the `<response/>` for a `<response/>` of SASL2.
pub fn response(response: &Node<'_>) -> Bytes {
    let mut xml = XmlWriter::new();
    put(xml.start("response").attr("xmlns", ns::SASL), response.text().trim());
    xml.finish()
}

/// Returns the `<abort/>` for an `<abort/>` of SASL2.
pub fn abort() -> Bytes {
    let mut xml = XmlWriter::new();
    xml.start("abort").attr("xmlns", ns::SASL);
    xml.finish()
}

/// Returns the `<challenge/>` of SASL2 for one of the server.
pub fn challenge(challenge: &Node<'_>) -> Bytes {
    let mut xml = XmlWriter::new();
    put(xml.start("challenge").attr("xmlns", ns::SASL2), data(&challenge.text()).unwrap_or_default());
    xml.finish()
}

/// Returns the `<failure/>` of SASL2 for one of the server. XEP-0388 §2.6.2: conditions keep their namespace, and a text has that
/// of SASL2.
pub fn failure(failure: &Node<'_>) -> Bytes {
    let mut xml = XmlWriter::new();
    xml.start("failure").attr("xmlns", ns::SASL2);
    for child in failure.children() {
        if child.is("text", ns::SASL) {
            xml.start("text").attr("xmlns", ns::SASL2);
            if let Some(lang) = child.attr("xml:lang") {
                xml.attr("xml:lang", &lang);
            }
            put(&mut xml, &child.text()).end();
        } else {
            put(xml.start(child.name()).attr("xmlns", child.ns()), &child.text()).end();
        }
    }
    xml.finish()
}

/// Returns a `<failure/>` of Pushward's own. `profile` is the namespace of the profile.
pub fn refusal(profile: &str, condition: &str) -> Bytes {
    let mut xml = XmlWriter::new();
    xml.start("failure").attr("xmlns", profile).start(condition).attr("xmlns", ns::SASL);
    xml.finish()
}

/// Returns the data of a SASL element of the server in the form of SASL2; `None` if it has none.
pub fn data(text: &str) -> Option<&str> {
    match text.trim() {
        "" => None,
        EMPTY => Some(""),
        data => Some(data),
    }
}

/// The content of a `<success/>` of SASL2, in the order in which it is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Success<'a> {
    /// The data of the server's `<success/>`.
    pub additional_data: Option<&'a str>,
    /// The JID of the client: full if it is bound.
    pub identifier: &'a str,
    /// `<bound/>` (XEP-0386), as XML.
    pub bound: Option<&'a [u8]>,
    /// `<failed/>` (XEP-0198 §5), as XML.
    pub failed: Option<&'a [u8]>,
    /// `<token/>` (XEP-0484 §3.3), as XML.
    pub token: Option<&'a [u8]>,
}

/// Returns the `<success/>` of SASL2 (XEP-0388 §2.6.1).
pub fn success(content: Success<'_>) -> Bytes {
    let mut xml = XmlWriter::new();
    xml.start("success").attr("xmlns", ns::SASL2);
    if let Some(data) = content.additional_data {
        put(xml.start("additional-data"), data).end();
    }
    xml.start("authorization-identifier").text(content.identifier).end();
    for part in [content.bound, content.failed, content.token].into_iter().flatten() {
        xml.raw(part);
    }
    xml.finish()
}

/// Returns the `<token/>` for a client. It holds a secret.
pub fn token(issued: &IssuedToken) -> Bytes {
    let mut xml = XmlWriter::new();
    xml.start("token").attr("xmlns", ns::FAST).attr("expiry", &issued.expiry()).attr("token", issued.text.expose());
    xml.finish()
}

/// Returns a `<success/>` of Pushward's own with further parts: the data of the mechanism, and a token.
pub fn completed(success: &Element, responder: Option<&[u8]>, issued: Option<&IssuedToken>) -> Bytes {
    let root = success.node();
    let mut splices = Vec::new();
    if let (Some(responder), Some(first)) = (responder, root.children().next()) {
        let mut data = XmlWriter::new();
        data.start("additional-data").attr("xmlns", ns::SASL2).text(&STANDARD.encode(responder));
        splices.push((first.range().start..first.range().start, data.finish().to_vec()));
    }
    splices.extend(issued.map(|issued| append(&root, &token(issued))));
    splice(success, &splices)
}

/// The parts of a `<bound/>`.
#[derive(Clone, Copy, Debug, Default)]
pub struct BoundParts<'a> {
    /// True if the server has enabled message carbons.
    pub carbons: bool,
    /// `<metadata/>` of the archive (XEP-0313 §7.1), as XML.
    pub metadata: Option<&'a [u8]>,
    /// `<enabled/>` (XEP-0198 §3), as XML.
    pub enabled: Option<&'a [u8]>,
}

/// Returns the `<bound/>` of Bind 2 (XEP-0386 §3.3).
pub fn bound(parts: BoundParts<'_>) -> Bytes {
    let mut xml = XmlWriter::new();
    xml.start("bound").attr("xmlns", ns::BIND2);
    if parts.carbons {
        xml.start("enabled").attr("xmlns", ns::CARBONS).end();
    }
    for part in [parts.metadata, parts.enabled].into_iter().flatten() {
        xml.raw(part);
    }
    xml.finish()
}

/// Returns the `<metadata/>` of an answer (XEP-0313 §7.1) for a `<bound/>`; `None` if it has none.
pub fn metadata(answer: &Node<'_>) -> Option<Bytes> {
    let metadata = answer.child("metadata", ns::MAM)?;
    let mut xml = XmlWriter::new();
    xml.start("metadata").attr("xmlns", ns::MAM);
    for end in metadata.children().filter(|end| matches!(end.name(), "start" | "end")) {
        xml.start(end.name());
        for name in ["id", "timestamp"] {
            if let Some(value) = end.attr(name) {
                xml.attr(name, &value);
            }
        }
        xml.end();
    }
    Some(xml.finish())
}

/// Writes text; none if it is empty, so that the element is an empty tag.
fn put<'x>(xml: &'x mut XmlWriter, text: &str) -> &'x mut XmlWriter {
    if text.is_empty() { xml } else { xml.text(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::element;

    fn check(actual: &Bytes, expect: &str) {
        assert_eq!(std::str::from_utf8(actual).unwrap(), expect);
    }

    #[test]
    fn absent_empty_and_present_data_stay_apart() {
        let authenticate = |inner: &str| {
            let node = format!(
                "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>{inner}<user-agent id='u'/></authenticate>"
            );
            auth(&element(&node).node())
        };
        let auth = |text: &str| format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'{text}");
        check(&authenticate(""), &auth("/>"));
        check(&authenticate("<initial-response/>"), &auth(">=</auth>"));
        check(&authenticate("<initial-response>AGo=</initial-response>"), &auth(">AGo=</auth>"));
        let answer = |text: &str| {
            let xml = format!("<response xmlns='urn:xmpp:sasl:2'>{text}</response>");
            response(&element(&xml).node())
        };
        check(&answer(""), "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
        check(&answer("Yz0="), "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>Yz0=</response>");
        let ask = |text: &str| {
            let xml = format!("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{text}</challenge>");
            challenge(&element(&xml).node())
        };
        check(&ask(""), "<challenge xmlns='urn:xmpp:sasl:2'/>");
        check(&ask("="), "<challenge xmlns='urn:xmpp:sasl:2'/>");
        check(&ask(" cj0x "), "<challenge xmlns='urn:xmpp:sasl:2'>cj0x</challenge>");
        assert_eq!([data(""), data("="), data("dj0=")], [None, Some(""), Some("dj0=")]);
    }

    #[test]
    fn conditions_of_a_failure_keep_their_namespace_and_its_text_does_not() {
        let theirs = element(
            "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/><text xml:lang='en'>a &lt; b</text>\
             <why xmlns='urn:x'>c</why></failure>",
        );
        check(
            &failure(&theirs.node()),
            "<failure xmlns='urn:xmpp:sasl:2'><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>\
             <text xmlns='urn:xmpp:sasl:2' xml:lang='en'>a &lt; b</text><why xmlns='urn:x'>c</why></failure>",
        );
    }

    #[test]
    fn metadata_of_the_archive_is_written_anew() {
        let answer = element(
            "<iq type='result' id='1'><metadata xmlns='urn:xmpp:mam:2' x='1'>\
             <start id='a' timestamp='2020-01-01T00:00:00Z'/><end id='b' timestamp='2021-01-01T00:00:00Z'/><other/></metadata></iq>",
        );
        check(
            &metadata(&answer.node()).unwrap(),
            "<metadata xmlns='urn:xmpp:mam:2'><start id='a' timestamp='2020-01-01T00:00:00Z'/>\
             <end id='b' timestamp='2021-01-01T00:00:00Z'/></metadata>",
        );
        assert_eq!(metadata(&element("<iq type='result' id='1'/>").node()), None);
    }
}
