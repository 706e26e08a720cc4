//! Rewrites of stanzas and stream features on their way to the client: stream features, disco#info of the account, delay
//! stamps.
//!
//! A rewrite copies the original bytes around its cuts and insertions. All other bytes stay unchanged (invariant 3).

pub mod fronted;
pub mod offers;
pub mod sasl2;
mod splice;

use bytes::Bytes;

use super::mechanism_filter::MechanismFilter;
use crate::clock::UnixMillis;
use crate::push::registration;
use crate::push::settings::PushSettings;
use crate::xml::{Element, Kind, Node, XmlWriter, ns};
use fronted::FrontedOffer;
use splice::{append, splice};

/// The phase of the stream to which a `<stream:features/>` belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeaturesPhase {
    /// Over TLS, before SASL.
    Unauthenticated,
    /// After SASL.
    Authenticated,
    /// After SASL2 and Bind 2 in one.
    Bound {
        /// True if stream management was enabled as well.
        managed: bool,
    },
}

/// Returns features as the client may see them: without those that end at Pushward, and with those that Pushward provides.
pub fn features(
    element: &Element,
    phase: FeaturesPhase,
    filter: &MechanismFilter,
    fronted: Option<&FrontedOffer>,
) -> Bytes {
    let root = element.node();
    let (mut cuts, mut splices) = (Vec::new(), Vec::new());
    for child in root.children() {
        let done = matches!(phase, FeaturesPhase::Bound { .. }) && child.is("bind", ns::BIND);
        if done || dropped(&child) {
            cuts.push(child.range());
            continue;
        }
        let before = cuts.len();
        filter.cut(&child, &mut cuts);
        let gone = cuts.get(before) == Some(&child.range());
        if !gone && child.is("authentication", ns::SASL2) {
            splices.extend(sasl2::authentication(&child));
        }
    }
    splices.extend(cuts.into_iter().map(|cut| (cut, Vec::new())));
    splices.sort_by_key(|(range, _)| range.start);
    if phase != FeaturesPhase::Unauthenticated {
        let mut ours = XmlWriter::new();
        // xmpp.js uses every offered feature, even if it was done inline: it would resume the session that has just begun.
        if phase != (FeaturesPhase::Bound { managed: true }) {
            ours.start("sm").attr("xmlns", ns::SM).end();
        }
        if root.child("csi", ns::CSI).is_none() {
            ours.start("csi").attr("xmlns", ns::CSI).end();
        }
        splices.push(append(&root, &ours.finish()));
    } else if let Some(fronted) = fronted {
        splices.push(append(&root, &fronted::offer(fronted)));
    }
    splice(element, &splices)
}

/// Returns features with the limit of a stanza's size (XEP-0478) lowered to `max_bytes`. `None` if it is not larger, or
/// absent.
pub fn limits(element: &Element, max_bytes: usize) -> Option<Bytes> {
    let size = element.node().child("limits", ns::STREAM_LIMITS)?.child("max-bytes", ns::STREAM_LIMITS)?;
    let larger = size.text().trim().parse::<usize>().is_ok_and(|theirs| theirs > max_bytes);
    larger.then(|| splice(element, &[(size.inner(), max_bytes.to_string().into_bytes())]))
}

/// Returns whether a feature's other end is Pushward, or it cannot pass a TLS terminator.
fn dropped(child: &Node<'_>) -> bool {
    const ALWAYS: [(&str, &str); 8] = [
        ("starttls", ns::TLS),
        ("compression", ns::COMPRESS),
        ("sm", ns::SM2),
        ("sm", ns::SM),
        ("isr", ns::ISR),
        ("auth", ns::IQ_AUTH),
        ("pipelining", ns::PIPELINING),
        ("unbind", ns::BIND),
    ];
    // The acknowledgements of jabberd2, from a draft of XEP-0198.
    const DRAFT: &str = "http://www.xmpp.org/extensions/xep-0198.html";
    ALWAYS.iter().any(|(name, ns)| child.is(name, ns))
        || child.name() == "ack" && child.ns().starts_with(DRAFT)
        // The old push, acknowledgements and rebinding of ejabberd.
        || child.ns().starts_with("p1:")
}

/// Returns the disco#info result of the account with the features of push (XEP-0357 §4.1); `None` if it has these already.
/// Other extensions `tigase:push` are removed: registrations end at Pushward, so no client can use the server's.
pub fn account_info(element: &Element, settings: &PushSettings) -> Option<Bytes> {
    let root = element.node();
    let query = root.child("query", ns::DISCO_INFO)?;
    let offered = registration::features(settings);
    let mut missing = offered.clone();
    let mut splices = Vec::new();
    for feature in query.children().filter(|f| f.is("feature", ns::DISCO_INFO)) {
        let var = feature.attr("var").unwrap_or_default();
        missing.retain(|missing| *missing != var);
        if var.starts_with(ns::TIGASE_PUSH_ANY) && !offered.contains(&var.as_ref()) {
            splices.push((feature.range(), Vec::new()));
        }
    }
    if !missing.is_empty() {
        let mut features = XmlWriter::new();
        for var in missing {
            features.start("feature").attr("xmlns", ns::DISCO_INFO).attr("var", var).end();
        }
        splices.push(append(&query, &features.finish()));
    }
    (!splices.is_empty()).then(|| splice(element, &splices))
}

/// Returns a stanza with its arrival time (XEP-0203). `None` if it has a delay already, or is an iq, which takes none.
pub fn delayed(element: &Element, domain: &str, received: UnixMillis) -> Option<Bytes> {
    let root = element.node();
    let takes_delay = matches!(element.kind(), Kind::Message | Kind::Presence);
    if !takes_delay || root.child("delay", ns::DELAY).is_some() {
        return None;
    }
    let mut delay = XmlWriter::new();
    let stamp = humantime::format_rfc3339_millis(received.to_time()?).to_string();
    delay.start("delay").attr("xmlns", ns::DELAY).attr("from", domain).attr("stamp", &stamp);
    Some(splice(element, &[append(&root, &delay.finish())]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::mechanism_filter::Leg;
    use crate::session::tests::element;

    pub(super) fn shown(features: &Element, phase: FeaturesPhase) -> Bytes {
        super::features(features, phase, &MechanismFilter::new(&features.node(), Leg::Plain), None)
    }

    fn check(actual: &Bytes, expect: &str) {
        assert_eq!(std::str::from_utf8(actual).unwrap(), expect);
    }

    #[test]
    fn features_before_sasl_lose_what_ends_at_the_proxy() {
        let features = element(
            "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>\
             <mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-1-PLUS</mechanism>\
             <mechanism>SCRAM-SHA-1</mechanism><mechanism>EXTERNAL</mechanism><mechanism>PLAIN</mechanism></mechanisms>\
             <sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'><channel-binding type='tls-exporter'/></sasl-channel-binding>\
             <compression xmlns='http://jabber.org/features/compress'><method>zlib</method></compression>\
             <pipelining xmlns='urn:xmpp:features:pipelining'/><push xmlns='p1:push'/>\
             <register xmlns='http://jabber.org/features/iq-register'/></stream:features>",
        );
        check(
            &shown(&features, FeaturesPhase::Unauthenticated),
            "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-1</mechanism>\
             <mechanism>PLAIN</mechanism></mechanisms><register xmlns='http://jabber.org/features/iq-register'/></stream:features>",
        );
    }

    #[test]
    fn features_after_sasl_offer_our_own_stream_management_once() {
        let features = element(
            "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><sm xmlns='urn:xmpp:sm:2'/>\
             <sm xmlns='urn:xmpp:sm:3'/><csi xmlns='urn:xmpp:csi:0'/></stream:features>",
        );
        check(
            &shown(&features, FeaturesPhase::Authenticated),
            "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><csi xmlns='urn:xmpp:csi:0'/>\
             <sm xmlns='urn:xmpp:sm:3'/></stream:features>",
        );
        check(
            &shown(&element("<stream:features/>"), FeaturesPhase::Authenticated),
            "<stream:features><sm xmlns='urn:xmpp:sm:3'/><csi xmlns='urn:xmpp:csi:0'/></stream:features>",
        );
    }

    #[test]
    fn features_after_an_inline_bind_offer_nothing_that_is_done() {
        let features = element(
            "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><required/></bind>\
             <sm xmlns='urn:xmpp:sm:3'/><ver xmlns='urn:xmpp:features:rosterver'/></stream:features>",
        );
        let after = |managed| shown(&features, FeaturesPhase::Bound { managed });
        check(
            &after(true),
            "<stream:features><ver xmlns='urn:xmpp:features:rosterver'/><csi xmlns='urn:xmpp:csi:0'/></stream:features>",
        );
        check(
            &after(false),
            "<stream:features><ver xmlns='urn:xmpp:features:rosterver'/><sm xmlns='urn:xmpp:sm:3'/>\
             <csi xmlns='urn:xmpp:csi:0'/></stream:features>",
        );
    }

    #[test]
    fn a_stanza_may_be_as_large_as_both_of_us_take() {
        let features = |bytes: &str| {
            format!(
                "<stream:features><limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>{bytes}</max-bytes>\
                 <idle-seconds>60</idle-seconds></limits></stream:features>"
            )
        };
        check(&limits(&element(&features("262144")), 10_000).unwrap(), &features("10000"));
        for same in ["10000", "512", "", "-1", "a lot"] {
            assert_eq!(limits(&element(&features(same)), 10_000), None, "{same}");
        }
        assert_eq!(limits(&element("<stream:features/>"), 10_000), None);
    }

    #[test]
    fn jabberd2_offers_nothing_that_ends_here() {
        let features = element(
            "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><required/></bind>\
             <unbind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>\
             <ack xmlns='http://www.xmpp.org/extensions/xep-0198.html#ns'/>\
             <session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></stream:features>",
        );
        check(
            &shown(&features, FeaturesPhase::Authenticated),
            "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><required/></bind>\
             <session xmlns='urn:ietf:params:xml:ns:xmpp-session'/><sm xmlns='urn:xmpp:sm:3'/>\
             <csi xmlns='urn:xmpp:csi:0'/></stream:features>",
        );
    }

    fn vars(info: &Bytes) -> Vec<String> {
        let info = Element::parse(info.clone(), &crate::xml::Header::bare()).unwrap();
        let query = info.node().child("query", ns::DISCO_INFO).unwrap();
        let features = query.children().filter(|f| f.is("feature", ns::DISCO_INFO));
        features.map(|f| f.attr("var").unwrap().into_owned()).collect()
    }

    #[test]
    fn the_account_gains_push_once() {
        let settings = &PushSettings { extensions: false, ..PushSettings::default() };
        let query =
            |inner: &str| element(&format!("<iq type='result' id='1'><query xmlns='{}'{inner}</iq>", ns::DISCO_INFO));
        let added = account_info(&query("><feature var='x'/></query>"), settings).unwrap();
        assert!(added.ends_with(
            b"<feature var='x'/><feature xmlns='http://jabber.org/protocol/disco#info' var='urn:xmpp:push:0'/></query></iq>"
        ));
        let added = account_info(&query(" node='' />"), settings).unwrap();
        assert!(added.ends_with(
            b" node='' ><feature xmlns='http://jabber.org/protocol/disco#info' var='urn:xmpp:push:0'/></query></iq>"
        ));
        assert_eq!(account_info(&query("><feature var='urn:xmpp:push:0'/></query>"), settings), None);
        assert_eq!(account_info(&element("<iq type='result' id='1'/>"), settings), None);
    }

    /// Siskin leaves calls to push if it sees `tigase:push:jingle:0`, no matter who offered it.
    #[test]
    fn the_account_offers_the_extensions_that_pushward_has_and_no_others() {
        let theirs = ["x", "tigase:push:jingle:0", "tigase:push:encrypt:0", "tigase:push:away:0", "y"];
        let theirs: String = theirs.iter().map(|var| format!("<feature var='{var}'/>")).collect();
        let info =
            element(&format!("<iq type='result' id='1'><query xmlns='{}'>{theirs}</query></iq>", ns::DISCO_INFO));
        let offer = |extensions, jingle| {
            let settings = PushSettings { extensions, jingle, ..PushSettings::default() };
            let info = account_info(&info, &settings).unwrap();
            assert_eq!(
                account_info(&Element::parse(info.clone(), &crate::xml::Header::bare()).unwrap(), &settings),
                None
            );
            let mut vars = vars(&info);
            vars.sort();
            vars
        };
        assert_eq!(offer(false, false), ["urn:xmpp:push:0", "x", "y"]);
        let mut all = registration::features(&PushSettings::default());
        all.extend(["x", "y"]);
        all.sort_unstable();
        assert_eq!(offer(true, false), all);
        all.push(ns::TIGASE_JINGLE);
        all.sort_unstable();
        assert_eq!(offer(true, true), all);
    }

    #[test]
    fn a_message_that_waited_says_since_when_and_an_iq_does_not() {
        let at = UnixMillis::new(1_000_000_000_000);
        check(
            &delayed(&element("<message><body>x</body></message>"), "example.org", at).unwrap(),
            "<message><body>x</body><delay xmlns='urn:xmpp:delay' from='example.org' stamp='2001-09-09T01:46:40.000Z'/></message>",
        );
        check(
            &delayed(&element("<presence/>"), "example.org", at).unwrap(),
            "<presence><delay xmlns='urn:xmpp:delay' from='example.org' stamp='2001-09-09T01:46:40.000Z'/></presence>",
        );
        let has_one = element("<message><delay xmlns='urn:xmpp:delay' stamp='2001-09-09T01:46:40Z'/></message>");
        assert_eq!(delayed(&has_one, "example.org", at), None);
        assert_eq!(delayed(&element("<iq type='result' id='1'/>"), "example.org", at), None);
    }
}
