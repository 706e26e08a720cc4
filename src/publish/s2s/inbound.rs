//! What a push service may send on a stream that it takes for its way to one of our hosts (XEP-0288).

use crate::jid::Jid;
use crate::xml::Node;

/// What is to become of a stanza.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It speaks for another domain: the stream ends.
    Foreign,
    /// It is for another domain: the stream ends.
    Misdirected,
    /// It is for the host itself, which is not here.
    Host,
    /// It is for a user.
    User(Jid),
}

/// Judges a stanza on a stream from `peer` to `us` by its addresses (RFC 6120 §8.1.1.2, §8.1.2.2).
pub(super) fn judge(stanza: &Node<'_>, us: &str, peer: &str) -> Verdict {
    let address = |name| stanza.attr(name).and_then(|jid| Jid::new(&jid).ok());
    if address("from").is_none_or(|from| from.domain().as_str() != peer) {
        return Verdict::Foreign;
    }
    match address("to") {
        Some(to) if to.domain().as_str() == us && to.node().is_some() => Verdict::User(to),
        Some(to) if to.domain().as_str() == us => Verdict::Host,
        Some(_) | None => Verdict::Misdirected,
    }
}

/// Whether a stanza that nobody took is sent back: requests and messages are (RFC 6121 §8.5), unless they are errors.
pub(super) fn is_returned(stanza: &Node<'_>) -> bool {
    match (stanza.name(), stanza.attr("type").as_deref()) {
        ("iq", kind) => matches!(kind, Some("get" | "set")),
        ("message", kind) => !matches!(kind, Some("error" | "groupchat" | "headline")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::{Element, Header};

    fn check(attributes: &str, expect: &Verdict) {
        let stanza = Element::parse(format!("<message {attributes}/>").into(), &Header::bare()).unwrap();
        assert_eq!(judge(&stanza.node(), "example.org", "push.example"), *expect, "{attributes}");
    }

    #[test]
    fn a_stanza_comes_from_the_peer_and_goes_to_the_host() {
        let user = Verdict::User("juliet@example.org/phone".parse().unwrap());
        check("from='Push.example' to='juliet@Example.org/phone'", &user);
        check("from='a@push.example/x' to='juliet@example.org/phone'", &user);
        check("from='push.example' to='example.org'", &Verdict::Host);
        check("from='push.example' to='example.org/x'", &Verdict::Host);
        for from in ["", "from='example.org'", "from='evil.example'", "from='x.push.example'", "from='@'"] {
            check(&format!("{from} to='juliet@example.org'"), &Verdict::Foreign);
        }
        for to in ["", "to='push.example'", "to='juliet@other.example'", "to='sub.example.org'"] {
            check(&format!("from='push.example' {to}"), &Verdict::Misdirected);
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
            ("<presence/>", false),
        ] {
            let stanza = Element::parse(stanza.into(), &Header::bare()).unwrap();
            assert_eq!(is_returned(&stanza.node()), expect, "{stanza:?}");
        }
    }
}
