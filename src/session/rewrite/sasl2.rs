//! SASL2, Bind 2 and FAST (XEP-0388, XEP-0386, XEP-0484). Pushward's own stream management replaces the server's.

use bytes::Bytes;

use super::splice::{Splice, append, splice};
use crate::jid::FullJid;
use crate::xml::{Element, Node, XmlWriter, ns};

/// Features that Bind 2 may not enable at the server, because Pushward provides them (XEP-0386 §3).
const UNSEEN: [&str; 2] = [ns::SM, ns::PUSH];
/// Namespaces whose elements inside `<authenticate/>` end here.
const INTERCEPTED: [&str; 3] = [ns::SM, ns::SM2, ns::ISR];

/// The treatment of the `<bind/>` inside an `<authenticate/>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InlineBind {
    /// The server gets it, without stream management.
    Forward,
    /// It is removed: the server would end the session that is to be resumed (XEP-0386 §3.2).
    Withhold,
}

/// Returns the splices of an offer of SASL2: inline resumption, inline stream management.
/// [`MechanismFilter`](crate::session::mechanism_filter::MechanismFilter) handles the mechanisms.
pub(super) fn authentication(offer: &Node<'_>) -> Vec<Splice> {
    if let Some(inline) = offer.child("inline", ns::SASL2) {
        return inline_features(&inline);
    }
    let mut inline = XmlWriter::new();
    inline.start("inline").attr("xmlns", ns::SASL2).start("sm").attr("xmlns", ns::SM);
    vec![append(offer, &inline.finish())]
}

fn inline_features(inline: &Node<'_>) -> Vec<Splice> {
    let mut splices = Vec::new();
    for child in inline.children() {
        if INTERCEPTED.contains(&child.ns()) {
            splices.push(removal(&child));
        } else if child.is("bind", ns::BIND2) {
            splices.extend(bind_features(&child));
        }
    }
    let mut sm = XmlWriter::new();
    sm.start("sm").attr("xmlns", ns::SM);
    splices.push(append(inline, &sm.finish()));
    splices
}

/// Returns the splices of an offer of Bind 2. XEP-0386 §3: it has one list of features that can be enabled with the bind.
fn bind_features(bind: &Node<'_>) -> Vec<Splice> {
    let inline = bind.child("inline", ns::BIND2);
    let has = |var: &str| inline.iter().flat_map(Node::children).any(|f| f.attr("var").as_deref() == Some(var));
    let mut ours = XmlWriter::new();
    for var in [Some(ns::SM), Some(ns::CSI).filter(|csi| !has(csi))].into_iter().flatten() {
        ours.start("feature").attr("xmlns", ns::BIND2).attr("var", var).end();
    }
    let ours = ours.finish();
    let Some(inline) = inline else {
        let mut inline = XmlWriter::new();
        inline.start("inline").attr("xmlns", ns::BIND2).raw(&ours);
        return vec![append(bind, &inline.finish())];
    };
    let theirs = inline.children().filter(|f| f.attr("var").is_some_and(|var| UNSEEN.contains(&var.as_ref())));
    let mut splices: Vec<_> = theirs.map(|feature| removal(&feature)).collect();
    splices.push(append(&inline, &ours));
    splices
}

/// Returns an `<authenticate/>` as the server gets it: without resumption and stream management, which are answered here.
pub fn authenticate(element: &Element, bind: InlineBind) -> Bytes {
    let intercepted = |node: &Node<'_>| INTERCEPTED.contains(&node.ns());
    let mut splices = Vec::new();
    for child in element.node().children() {
        let is_bind = child.is("bind", ns::BIND2);
        if intercepted(&child) || is_bind && bind == InlineBind::Withhold {
            splices.push(removal(&child));
        } else if is_bind {
            splices.extend(child.children().filter(intercepted).map(|feature| removal(&feature)));
        }
    }
    splice(element, &splices)
}

/// Returns the `<success/>` of a fresh login: `<enabled/>` goes into `<bound/>`, `<failed/>` beside it (XEP-0198 §3, §5).
pub fn welcome(success: &Element, enabled: Option<Bytes>, failed: Option<Bytes>) -> Bytes {
    let root = success.node();
    let bound = root.child("bound", ns::BIND2);
    let enabled = bound.zip(enabled).map(|(bound, enabled)| append(&bound, &enabled));
    let failed = failed.map(|failed| append(&root, &failed));
    let splices: Vec<_> = enabled.into_iter().chain(failed).collect();
    splice(success, &splices)
}

/// Returns the `<success/>` of a resumption: it contains `<resumed/>`, and names the session's full JID (XEP-0388 §2.6.1),
/// which clients use as their own.
pub fn resumed(success: &Element, jid: &FullJid, resumed: &[u8]) -> Bytes {
    let root = success.node();
    let mut splices = Vec::new();
    for child in root.children() {
        if child.is("authorization-identifier", ns::SASL2) {
            let mut identifier = XmlWriter::new();
            identifier.start("authorization-identifier").attr("xmlns", ns::SASL2).text(jid.as_str());
            splices.push((child.range(), identifier.finish().to_vec()));
        } else if child.is("bound", ns::BIND2) || child.ns() == ns::SM {
            // No new session was bound.
            splices.push(removal(&child));
        }
    }
    splices.push(append(&root, resumed));
    splice(success, &splices)
}

fn removal(node: &Node<'_>) -> Splice {
    (node.range(), Vec::new())
}

#[cfg(test)]
mod tests {
    use super::super::FeaturesPhase;
    use super::super::tests::shown;
    use super::*;
    use crate::session::tests::element;

    fn check(actual: &Bytes, expect: &str) {
        assert_eq!(std::str::from_utf8(actual).unwrap(), expect);
    }

    fn check_offer(offer: &str, expect: &str) {
        let offered = element(&format!("<stream:features>{offer}</stream:features>"));
        check(
            &shown(&offered, FeaturesPhase::Unauthenticated),
            &format!("<stream:features>{expect}</stream:features>"),
        );
    }

    #[test]
    fn stream_management_is_offered_inline_once_and_in_our_name() {
        check_offer(
            "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>SCRAM-SHA-1-PLUS</mechanism><mechanism>SCRAM-SHA-1</mechanism>\
             <inline><sm xmlns='urn:xmpp:sm:3'/><isr xmlns='https://xmpp.org/extensions/isr/0'/>\
             <bind xmlns='urn:xmpp:bind:0'><inline><feature var='urn:xmpp:sm:3'/><feature var='urn:xmpp:carbons:2'/>\
             <feature var='urn:xmpp:csi:0'/><feature var='urn:xmpp:sm:3'/></inline></bind></inline></authentication>",
            "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>SCRAM-SHA-1</mechanism>\
             <inline><bind xmlns='urn:xmpp:bind:0'><inline><feature var='urn:xmpp:carbons:2'/>\
             <feature var='urn:xmpp:csi:0'/><feature xmlns='urn:xmpp:bind:0' var='urn:xmpp:sm:3'/></inline></bind>\
             <sm xmlns='urn:xmpp:sm:3'/></inline></authentication>",
        );
    }

    #[test]
    fn what_the_server_lacks_is_made_up_for() {
        check_offer(
            "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>PLAIN</mechanism></authentication>",
            "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>PLAIN</mechanism>\
             <inline xmlns='urn:xmpp:sasl:2'><sm xmlns='urn:xmpp:sm:3'/></inline></authentication>",
        );
        check_offer(
            "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>PLAIN</mechanism>\
             <inline><bind xmlns='urn:xmpp:bind:0'/></inline></authentication>",
            "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>PLAIN</mechanism>\
             <inline><bind xmlns='urn:xmpp:bind:0'><inline xmlns='urn:xmpp:bind:0'>\
             <feature xmlns='urn:xmpp:bind:0' var='urn:xmpp:sm:3'/><feature xmlns='urn:xmpp:bind:0' var='urn:xmpp:csi:0'/>\
             </inline></bind><sm xmlns='urn:xmpp:sm:3'/></inline></authentication>",
        );
        check_offer(
            "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>PLAIN</mechanism><inline/></authentication>",
            "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>PLAIN</mechanism>\
             <inline><sm xmlns='urn:xmpp:sm:3'/></inline></authentication>",
        );
    }

    #[test]
    fn without_a_usable_mechanism_sasl2_is_not_offered() {
        check_offer(
            "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>SCRAM-SHA-1-PLUS</mechanism><inline/></authentication>\
             <register xmlns='http://jabber.org/features/iq-register'/>",
            "<register xmlns='http://jabber.org/features/iq-register'/>",
        );
    }

    #[test]
    fn tokens_are_offered_that_are_bound_to_no_channel_and_come_in_no_early_data() {
        let offer = |fast: &str| {
            format!(
                "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>PLAIN</mechanism><inline>{fast}\
                 <x xmlns='urn:x'/></inline></authentication>"
            )
        };
        let expect =
            |fast: &str| offer(fast).replace("<x xmlns='urn:x'/>", "<x xmlns='urn:x'/><sm xmlns='urn:xmpp:sm:3'/>");
        let kept = "<fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-NONE</mechanism></fast>";
        check_offer(
            &offer(
                "<fast xmlns='urn:xmpp:fast:0' tls-0rtt='true'><mechanism>HT-SHA-256-EXPR</mechanism>\
                 <mechanism>HT-SHA-256-NONE</mechanism></fast>",
            ),
            &expect(kept),
        );
        check_offer(&offer(kept), &expect(kept));
        check_offer(&offer("<fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-ENDP</mechanism></fast>"), &expect(""));
    }

    #[test]
    fn the_server_hears_nothing_of_stream_management() {
        let ask = |bind: &str, resume: &str| {
            format!(
                "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>eA==</initial-response>\
                 <user-agent id='u'/>{bind}{resume}<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>\
                 </authenticate>"
            )
        };
        let bind = |inner: &str| format!("<bind xmlns='urn:xmpp:bind:0'><tag>x</tag>{inner}</bind>");
        let carbons = "<enable xmlns='urn:xmpp:carbons:2'/>";
        let all = bind(&format!("{carbons}<enable xmlns='urn:xmpp:sm:3' resume='true'/>"));
        let full = element(&ask(&all, "<resume xmlns='urn:xmpp:sm:3' previd='p' h='1'/>"));
        check(&authenticate(&full, InlineBind::Forward), &ask(&bind(carbons), ""));
        check(&authenticate(&full, InlineBind::Withhold), &ask("", ""));
    }
}
