//! Judges stanzas of a push service on a stream that also carries its answers (XEP-0288). Users choose push services, so the
//! peer can be anybody on the internet: only answers and affiliation messages are accepted.

use crate::jid::{BareJid, Jid};
use crate::push::affiliation::Affiliation;
use crate::xml::Node;

/// The verdict on a stanza that does not answer a publish of this stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InboundVerdict {
    /// The sender belongs to another domain. The stream ends at once.
    Foreign,
    /// The stanza is for another domain. The stream ends at once.
    Misdirected,
    /// An answer that is not awaited.
    Stray,
    /// An answer for the session with this full JID, if there is one.
    Answer(Jid),
    /// The affiliation of this account, if it has the registration.
    Affiliation(BareJid, Affiliation),
    /// Any other stanza. The stream ends.
    Refused,
}

/// Judges a stanza on a stream from `peer` to `us` by its addresses (RFC 6120 §8.1.1.2, §8.1.2.2) and its kind.
pub(super) fn judge(stanza: &Node<'_>, us: &str, peer: &str) -> InboundVerdict {
    let address = |name| stanza.attr(name).map(|jid| Jid::new(&jid));
    if address("from").is_none_or(|from| from.domain() != peer) {
        return InboundVerdict::Foreign;
    }
    let to = address("to").filter(|to| to.domain() == us);
    if stanza.name() == "iq" && matches!(stanza.attr("type").as_deref(), Some("result" | "error")) {
        let session = to.filter(|to| to.node().is_some() && to.resource().is_some());
        return session.map_or(InboundVerdict::Stray, InboundVerdict::Answer);
    }
    let Some(to) = to else { return InboundVerdict::Misdirected };
    let account = to.node().is_some().then(|| to.to_bare());
    let affiliation =
        account.and_then(|account| Affiliation::read(stanza, &account).map(|affiliation| (account, affiliation)));
    affiliation
        .map_or(InboundVerdict::Refused, |(account, affiliation)| InboundVerdict::Affiliation(account, affiliation))
}

/// Returns whether the sender of a refused stanza gets an error. Requests, messages and subscriptions are answered (RFC 6121
/// §8.5), except for errors, headlines and messages of rooms.
pub(in crate::publish) fn is_returned(stanza: &Node<'_>) -> bool {
    match (stanza.name(), stanza.attr("type").as_deref()) {
        ("iq", kind) => matches!(kind, Some("get" | "set")),
        ("message", kind) => !matches!(kind, Some("error" | "groupchat" | "headline")),
        ("presence", kind) => matches!(kind, Some("subscribe" | "subscribed" | "unsubscribe" | "unsubscribed")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jid::addresses::ALL;
    use crate::xml::{Element, Header};

    fn check(stanza: &str, expect: &InboundVerdict) {
        let element = Element::parse(stanza.to_owned().into(), &Header::bare()).unwrap();
        assert_eq!(judge(&element.node(), "example.org", "push.example"), *expect, "{stanza}");
    }

    #[test]
    fn answers_and_affiliations_are_taken_and_all_else_is_refused() {
        let addressed = |what: &str, to: &str| format!("<{what} from='a@Push.example/x' to='{to}'/>");
        let session = || InboundVerdict::Answer("juliet@example.org/phone".parse().unwrap());
        for kind in ["result", "error"] {
            let iq = format!("iq type='{kind}'");
            check(&addressed(&iq, "juliet@Example.org/phone"), &session());
            for to in ["juliet@example.org", "example.org", "example.org/x", "juliet@other.example/x", "", "@"] {
                check(&addressed(&iq, to), &InboundVerdict::Stray);
            }
        }
        for what in ["iq type='get'", "iq type='set'", "iq", "message", "message type='error'", "presence"] {
            for to in ["juliet@example.org/phone", "juliet@example.org", "example.org"] {
                check(&addressed(what, to), &InboundVerdict::Refused);
            }
        }
        let message = |to: &str| {
            format!(
                "<message from='push.example' to='{to}'><pubsub xmlns='http://jabber.org/protocol/pubsub' node='n'>\
                 <affiliation jid='juliet@example.org' affiliation='none'/></pubsub></message>"
            )
        };
        let affiliation = Affiliation { service: "push.example".parse().unwrap(), node: "n".to_owned(), is_none: true };
        check(
            &message("juliet@example.org"),
            &InboundVerdict::Affiliation(BareJid::new("juliet@example.org").unwrap(), affiliation),
        );
        check(&message("romeo@example.org"), &InboundVerdict::Refused);
        check(&message("example.org"), &InboundVerdict::Refused);
    }

    #[test]
    fn answers_and_affiliations_are_taken_whatever_the_addresses() {
        for at in ALL.into_iter().filter(|at| at.account.contains('@')) {
            let (service, account) = (Jid::new(at.service), BareJid::new(at.account).unwrap());
            let judge = |xml: &str| {
                let element = Element::parse(at.fill(xml).into(), &Header::bare()).unwrap();
                judge(&element.node(), account.domain(), service.domain())
            };
            let answer = judge("<iq type='result' from='SERVICE' to='ACCOUNT/PHONE'/>");
            assert_eq!(answer, InboundVerdict::Answer(Jid::new(&at.fill("ACCOUNT/PHONE"))), "{}", at.name);
            assert_eq!(judge("<iq type='result' from='SERVICE' to='ACCOUNT'/>"), InboundVerdict::Stray, "{}", at.name);
            let none = "<message from='SERVICE' to='ACCOUNT'><pubsub xmlns='http://jabber.org/protocol/pubsub' node='n'>\
                <affiliation jid='ACCOUNT' affiliation='none'/></pubsub></message>";
            let affiliation = Affiliation { service: service.clone(), node: "n".to_owned(), is_none: true };
            assert_eq!(judge(none), InboundVerdict::Affiliation(account.clone(), affiliation), "{}", at.name);
            assert_eq!(judge(&none.replace("from='SERVICE'", "from='ROOM'")), InboundVerdict::Foreign, "{}", at.name);
            assert_eq!(judge(&none.replace("to='ACCOUNT'", "to='ROOM'")), InboundVerdict::Misdirected, "{}", at.name);
            assert_eq!(judge(&none.replace("jid='ACCOUNT'", "jid='BARE'")), InboundVerdict::Refused, "{}", at.name);
        }
    }

    #[test]
    fn a_stanza_comes_from_the_peer_and_goes_to_the_host() {
        for from in ["", "from='example.org'", "from='evil.example'", "from='x.push.example'", "from='@'"] {
            check(&format!("<message {from} to='juliet@example.org'/>"), &InboundVerdict::Foreign);
            check(&format!("<iq type='result' {from} to='juliet@example.org/x'/>"), &InboundVerdict::Foreign);
        }
        for to in ["", "to='push.example'", "to='juliet@other.example'", "to='sub.example.org'"] {
            check(&format!("<message from='push.example' {to}/>"), &InboundVerdict::Misdirected);
        }
    }

    #[test]
    fn what_nobody_took_is_sent_back_once() {
        for (stanza, expect) in [
            ("<iq type='get'/>", true),
            ("<iq type='result'/>", false),
            ("<iq type='error'/>", false),
            ("<message/>", true),
            ("<message type='chat'/>", true),
            ("<message type='error'/>", false),
            ("<message type='groupchat'/>", false),
            ("<message type='headline'/>", false),
            ("<presence type='subscribe'/>", true),
            ("<presence type='unsubscribed'/>", true),
            ("<presence type='probe'/>", false),
            ("<presence/>", false),
        ] {
            let stanza = Element::parse(stanza.into(), &Header::bare()).unwrap();
            assert_eq!(is_returned(&stanza.node()), expect, "{stanza:?}");
        }
    }
}
