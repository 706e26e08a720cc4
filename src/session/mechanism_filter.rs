//! The filter of a server's SASL offers: removes those that cannot pass a proxy that terminates TLS.
//!
//! Channel binding ties authentication to one TLS connection. Behind a proxy there are two. Only `tls-server-end-point`
//! (RFC 5929 §4), a hash of the certificate, is the same on both if both use the same certificate. `*-PLUS` mechanisms and
//! the types of XEP-0440 pass together or not at all: clients treat one without the other as an attack (XEP-0440 §3).

use std::fmt;
use std::ops::Range;

use crate::xml::{Node, ns};

const END_POINT: &str = "tls-server-end-point";

/// The treatment of the channel binding that a server offers on its own TLS connection with Pushward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ChannelBinding {
    /// It is removed from the offers.
    #[default]
    Strip,
    /// `tls-server-end-point` (RFC 5929 §4) passes: Pushward and the server use the same certificate.
    ServerEndPoint,
}

/// The kind of connection to the server. It decides which offers pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Leg {
    /// Without TLS.
    Plain,
    /// Over TLS of its own.
    Tls(ChannelBinding),
}

/// The offers of a server that are hidden from clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HiddenOffers {
    /// Channel binding. A client that supports it then indicates that it saw none (`y`), and the server treats that as an
    /// attack (RFC 5802 §6).
    pub binding: bool,
    /// Any offer that a server may have hashed (XEP-0474).
    pub anything: bool,
}

/// A problem of a server that its operator can solve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamWarning {
    /// The server requires TLS, and its leg has none.
    TlsRequired,
    /// A client did not see the channel binding that the server offers, said so, and was refused.
    BindingMissed,
    /// The server sends a hash of its offers, of which the client did not see all.
    OffersHashed,
    /// The server does not support the TLS version that a client uses (XEP-0515).
    OtherTls,
    /// A challenge of the server depends on its own offers or TLS connection, so SASL2 is not offered for it any more.
    FrontingEnds,
    /// The server bound another account than the one whose name logged in.
    OtherAccount,
}

impl UpstreamWarning {
    /// The remedy, for the operator.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::TlsRequired => {
                "set upstream_tls = \"starttls\"; or configure the server to accept logins without TLS on loopback \
                    (Prosody: c2s_require_encryption = false and allow_unencrypted_plain_auth = true; ejabberd: a \
                    listener with starttls: false and, from 24.10 on, allow_unencrypted_sasl2: true)"
            }
            Self::BindingMissed | Self::OffersHashed => {
                "connect over loopback with upstream_tls = \"off\", where the server offers no channel binding; or use \
                    one certificate for both and set channel_binding = \"server-end-point\"; or, on ejabberd, list the \
                    SCRAM-*-PLUS mechanisms in disable_sasl_mechanisms and set disable_sasl_scram_downgrade_protection: \
                    true"
            }
            Self::OtherTls => "enable both TLS 1.2 and TLS 1.3 on the server",
            Self::FrontingEnds => {
                "enable SASL2 on the server; or turn off the protection of its offers (ejabberd: \
                    disable_sasl_scram_downgrade_protection: true; Prosody: remove mod_sasl_ssdp) and reload Pushward"
            }
            Self::OtherAccount => {
                "set modern_login = false for this host: the server maps names of logins to other accounts"
            }
        }
    }
}

impl fmt::Display for UpstreamWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TlsRequired => "the server requires TLS, and the connection to it has none",
            Self::BindingMissed => {
                "the server refused a client that supports channel binding: the server offers channel binding on this \
                    connection, and Pushward removed it from the offers"
            }
            Self::OffersHashed => {
                "the server sends a hash of its offers (XEP-0474), and Pushward removed some of them: clients that \
                    verify the hash do not log in"
            }
            Self::OtherTls => {
                "the server does not support the TLS version of a client: if it states in SCRAM which version it sees \
                    (XEP-0515), clients that compare the versions do not log in"
            }
            Self::FrontingEnds => {
                "a SCRAM challenge of the server depends on its own offers or TLS connection (XEP-0474, XEP-0515): Pushward \
                    does not offer SASL2 for this host any more"
            }
            Self::OtherAccount => {
                "the server bound a client to another account than the one that the client was announced: the login has ended"
            }
        })
    }
}

/// The filter for the offers in one `<stream:features/>`.
#[derive(Clone, Copy, Debug)]
pub struct MechanismFilter {
    binding: ChannelBinding,
    hidden: HiddenOffers,
}

impl MechanismFilter {
    /// Creates the filter for the features of a server on this leg.
    pub fn new(features: &Node<'_>, leg: Leg) -> Self {
        let lists = || features.children().filter(|child| holds_mechanisms(child));
        let names = || lists().flat_map(|list| list.children()).filter(|m| m.name() == "mechanism");
        let plus = names().any(|m| m.text().trim().ends_with("-PLUS"));
        let types = features.child("sasl-channel-binding", ns::SASL_CB);
        let types: Vec<_> = types.iter().flat_map(Node::children).filter_map(|t| t.attr("type")).collect();
        let known = types.iter().any(|t| t == END_POINT);
        let end_point = leg == Leg::Tls(ChannelBinding::ServerEndPoint) && plus && known;
        let binding = if end_point { ChannelBinding::ServerEndPoint } else { ChannelBinding::Strip };
        let narrowed = types.iter().any(|t| !end_point || t != END_POINT);
        let anything = narrowed || names().any(|m| !passes(m.text().trim(), binding));
        Self { binding, hidden: HiddenOffers { binding: plus && !end_point, anything } }
    }

    /// The offers that clients do not get.
    pub fn hidden(&self) -> HiddenOffers {
        self.hidden
    }

    /// Returns whether clients get this mechanism if the server offers it.
    pub fn passes(&self, mechanism: &str) -> bool {
        passes(mechanism, self.binding)
    }

    /// Adds the ranges to cut from one of the features, in ascending order.
    pub fn cut(&self, feature: &Node<'_>, cuts: &mut Vec<Range<usize>>) {
        if feature.is("sasl-channel-binding", ns::SASL_CB) {
            let keeps = self.binding == ChannelBinding::ServerEndPoint;
            self.cut_list(feature, cuts, |child| child.attr("type").as_deref() == Some(END_POINT) && keeps);
        } else if holds_mechanisms(feature) {
            self.cut_list(feature, cuts, |m| m.name() != "mechanism" || passes(m.text().trim(), self.binding));
        }
    }

    /// Cuts entries from a list of mechanisms. A list without any mechanism is cut whole (XEP-0388 §2.1, XEP-0484 §3.1).
    fn cut_list(&self, list: &Node<'_>, cuts: &mut Vec<Range<usize>>, keep: impl Fn(&Node<'_>) -> bool) {
        let is_offer = |child: &Node<'_>| matches!(child.name(), "mechanism" | "channel-binding");
        if !list.children().any(|child| is_offer(&child) && keep(&child)) {
            cuts.push(list.range());
            return;
        }
        for child in list.children() {
            if !keep(&child) {
                cuts.push(child.range());
            } else if child.is("inline", ns::SASL2) {
                child.children().filter(|c| c.is("fast", ns::FAST)).for_each(|fast| self.cut_fast(&fast, cuts));
            }
        }
    }

    /// Cuts token mechanisms (XEP-0484). Of those bound to a channel, only those bound to the certificate pass. Early data
    /// is never offered, because it could be replayed.
    fn cut_fast(&self, fast: &Node<'_>, cuts: &mut Vec<Range<usize>>) {
        let whole = cuts.len();
        cuts.extend(fast.attr_range("tls-0rtt"));
        let early = cuts.get(whole).cloned();
        self.cut_list(fast, cuts, |m| passes_token(m.text().trim(), self.binding));
        if early.is_some() && cuts.last() == Some(&fast.range()) {
            cuts.remove(whole);
        }
    }
}

fn holds_mechanisms(feature: &Node<'_>) -> bool {
    feature.is("mechanisms", ns::SASL) || feature.is("authentication", ns::SASL2)
}

/// Returns whether a mechanism passes. Those that need the client's own TLS channel to the server do not, nor do those that
/// may negotiate a security layer. DIGEST-MD5 could negotiate one too, but no known server offers it, and a list shorter
/// than the server's fails XEP-0474.
fn passes(mechanism: &str, binding: ChannelBinding) -> bool {
    let may_bind = binding == ChannelBinding::ServerEndPoint;
    !matches!(mechanism, "EXTERNAL" | "GSSAPI") && (may_bind || !mechanism.ends_with("-PLUS"))
}

/// Returns whether a token mechanism passes. XEP-0484 §5: `HT-`, the hash, and the kind of binding: `NONE`, `ENDP`, `UNIQ`
/// or `EXPR`.
fn passes_token(mechanism: &str, binding: ChannelBinding) -> bool {
    mechanism.ends_with("-NONE") || binding == ChannelBinding::ServerEndPoint && mechanism.ends_with("-ENDP")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::element;

    const STRIP: Leg = Leg::Tls(ChannelBinding::Strip);
    const KEEP: Leg = Leg::Tls(ChannelBinding::ServerEndPoint);
    const TYPES: &str = "<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'><channel-binding type='tls-exporter'/>\
        <channel-binding type='tls-server-end-point'/></sasl-channel-binding>";
    const KEPT_TYPES: &str = "<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'>\
        <channel-binding type='tls-server-end-point'/></sasl-channel-binding>";

    fn mechanisms(names: &[&str]) -> String {
        let names: String = names.iter().map(|name| format!("<mechanism>{name}</mechanism>")).collect();
        format!("<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{names}</mechanisms>")
    }

    fn sasl2(names: &[&str], inline: &str) -> String {
        let names: String = names.iter().map(|name| format!("<mechanism>{name}</mechanism>")).collect();
        format!("<authentication xmlns='urn:xmpp:sasl:2'>{names}<inline>{inline}</inline></authentication>")
    }

    /// Returns the filtered features, and the hidden offers.
    fn filtered(features: &str, leg: Leg) -> (String, HiddenOffers) {
        let features = format!("<stream:features>{features}</stream:features>");
        let element = element(&features);
        let filter = MechanismFilter::new(&element.node(), leg);
        let mut cuts = Vec::new();
        element.node().children().for_each(|child| filter.cut(&child, &mut cuts));
        assert!(cuts.is_sorted_by_key(|cut| cut.start), "{cuts:?}");
        let mut left = features.clone();
        cuts.into_iter().rev().for_each(|cut| left.replace_range(cut, ""));
        let inner = left.strip_prefix("<stream:features>").and_then(|left| left.strip_suffix("</stream:features>"));
        (inner.unwrap().to_owned(), filter.hidden())
    }

    fn check(features: &str, leg: Leg, expect: &str, hidden: (bool, bool)) {
        let (binding, anything) = hidden;
        assert_eq!(filtered(features, leg), (expect.to_owned(), HiddenOffers { binding, anything }));
    }

    const PLUS: [&str; 4] = ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "EXTERNAL", "PLAIN"];

    #[test]
    fn stripping_takes_mechanisms_and_types_together() {
        check(&format!("{}{TYPES}", mechanisms(&PLUS)), STRIP, &mechanisms(&["SCRAM-SHA-1", "PLAIN"]), (true, true));
        check(&format!("{TYPES}{}", mechanisms(&["PLAIN"])), STRIP, &mechanisms(&["PLAIN"]), (false, true));
        check(&mechanisms(&PLUS), Leg::Plain, &mechanisms(&["SCRAM-SHA-1", "PLAIN"]), (true, true));
    }

    #[test]
    fn what_survives_one_certificate_on_both_legs_passes() {
        let kept = mechanisms(&["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN"]);
        check(&format!("{}{TYPES}", mechanisms(&PLUS)), KEEP, &format!("{kept}{KEPT_TYPES}"), (false, true));
        check(&format!("{kept}{KEPT_TYPES}"), KEEP, &format!("{kept}{KEPT_TYPES}"), (false, false));
    }

    #[test]
    fn one_without_the_other_never_passes() {
        let kept = mechanisms(&["SCRAM-SHA-1", "PLAIN"]);
        check(&mechanisms(&PLUS), KEEP, &kept, (true, true));
        check(&format!("{kept}{TYPES}"), KEEP, &kept, (false, true));
        let others = TYPES.replace("tls-server-end-point", "tls-unique");
        check(&format!("{}{others}", mechanisms(&PLUS)), KEEP, &kept, (true, true));
    }

    #[test]
    fn a_leg_without_channel_binding_passes_untouched() {
        let offers = format!(
            "{}{}",
            mechanisms(&["SCRAM-SHA-1", "DIGEST-MD5", "X-OAUTH2", "PLAIN"]),
            sasl2(&["SCRAM-SHA-1"], "<fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-NONE</mechanism></fast>")
        );
        for leg in [Leg::Plain, STRIP, KEEP] {
            check(&offers, leg, &offers, (false, false));
        }
    }

    #[test]
    fn an_offer_of_nothing_is_none() {
        check(&mechanisms(&["EXTERNAL"]), STRIP, "", (false, true));
        check(&sasl2(&["EXTERNAL", "SCRAM-SHA-1-PLUS"], "<bind xmlns='urn:xmpp:bind:0'/>"), STRIP, "", (true, true));
    }

    #[test]
    fn tokens_bound_to_the_channel_go_and_early_data_is_not_offered() {
        let fast = |attributes: &str, kinds: &[&str]| {
            let kinds: String = kinds.iter().map(|kind| format!("<mechanism>HT-SHA-256-{kind}</mechanism>")).collect();
            format!("<sm xmlns='urn:xmpp:sm:3'/><fast xmlns='urn:xmpp:fast:0'{attributes}>{kinds}</fast>")
        };
        let all = fast(" tls-0rtt='true' x='1'", &["NONE", "ENDP", "UNIQ", "EXPR"]);
        let offers = format!("{}{TYPES}", sasl2(&["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"], &all));
        check(&offers, STRIP, &sasl2(&["SCRAM-SHA-1"], &fast(" x='1'", &["NONE"])), (true, true));
        let kept = sasl2(&["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"], &fast(" x='1'", &["NONE", "ENDP"]));
        check(&offers, KEEP, &format!("{kept}{KEPT_TYPES}"), (false, true));
        let none = sasl2(&["PLAIN"], &fast(" tls-0rtt=\"true\"", &["EXPR"]));
        check(&none, STRIP, &sasl2(&["PLAIN"], "<sm xmlns='urn:xmpp:sm:3'/>"), (false, false));
    }
}
