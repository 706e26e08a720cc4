//! What a stanza on its way to a client means to the person behind it.

use std::fmt;

use super::rooms::Rooms;
use crate::jid::{BareJid, Jid};
use crate::xml::{Element, Kind, Node, ns};

/// What the classifier knows of the account beside the stanza.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The account that receives it.
    pub account: &'a BareJid,
    /// The rooms it is in, and as whom.
    pub rooms: &'a Rooms,
}

/// What a stanza means to the person behind the account.
#[derive(Debug)]
pub struct Reading<'a> {
    /// What it is.
    pub class: Class,
    /// What a person would read: what is inside a carbon, in either direction, else the stanza itself.
    pub stanza: Node<'a>,
    /// Whose conversation it belongs to: the bare JID of the other side, or of the room.
    pub chat: Option<BareJid>,
    /// The session of a call: of [`Class::Call`] and [`Class::CallEnd`] only.
    pub call: Option<String>,
    /// Another client of the account did it: its user is there.
    pub own: bool,
}

/// The class of a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Somebody calls (XEP-0353 `propose`, XEP-0482 `invite`, a Jingle `session-initiate` over RTP).
    Call,
    /// A call is over, or was taken or declined by another client of the account.
    CallEnd,
    /// Somebody wrote: this notifies.
    Message,
    /// An invitation to a room (XEP-0249, XEP-0045 §7.8.2).
    Invite,
    /// Somebody asks to see the user's presence (RFC 6121 §3.1).
    Subscribe,
    /// Another client of the account has read [`Reading::chat`] (XEP-0333 `displayed`, XEP-0490).
    ReadSync,
    /// Nothing that a person waits for.
    Noise(Noise),
}

impl Class {
    /// Whether a stanza of this class notifies.
    pub fn is_important(self) -> bool {
        match self {
            Self::Call | Self::Message | Self::Invite | Self::Subscribe => true,
            Self::CallEnd | Self::ReadSync | Self::Noise(_) => false,
        }
    }
}

/// Why a stanza does not notify: the name is the log field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// Presence of any type.
    Presence,
    /// An iq of any type.
    Iq,
    /// A message of type `error`.
    Error,
    /// A message of type `headline` (RFC 6121 §5.2.2).
    Headline,
    /// What another client of the same account sent (XEP-0280).
    SentCarbon,
    /// A correction of an earlier message (XEP-0308).
    Correction,
    /// An encrypted element that carries a key, but no text.
    KeyTransport,
    /// No text: chat states, receipts, markers, subjects, events, archive results.
    NoText,
}

impl Reading<'_> {
    /// x
    pub fn key(&self, seed: u64) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut h = DefaultHasher::new();
        (seed, self.stanza.raw()).hash(&mut h);
        h.finish()
    }
}
impl Noise {
    /// x
    pub fn name(self) -> &'static str {
        "noise"
    }
}

impl fmt::Display for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Presence => "presence",
            Self::Iq => "iq",
            Self::Error => "error",
            Self::Headline => "headline",
            Self::SentCarbon => "sent_carbon",
            Self::Correction => "correction",
            Self::KeyTransport => "key_transport",
            Self::NoText => "no_text",
        })
    }
}

/// Reads a stanza that is on its way to a client of the account.
pub fn read<'a>(element: &'a Element, context: Context<'_>) -> Reading<'a> {
    let outer = element.node();
    let (class, stanza) = match element.kind() {
        Kind::Presence => (Class::Noise(Noise::Presence), outer),
        Kind::Iq | Kind::Other => (Class::Noise(Noise::Iq), outer),
        Kind::Message => match carbon(&outer, context.account) {
            Some(Carbon::Sent) => (Class::Noise(Noise::SentCarbon), outer),
            Some(Carbon::Received(inner)) => (message(&inner), inner),
            None => (message(&outer), outer),
        },
    };
    Reading { class, stanza, chat: None, call: None, own: false }
}

enum Carbon<'a> {
    Sent,
    Received(Node<'a>),
}

/// XEP-0280 §11: only the own bare JID may send carbons; from anyone else a message is what its outside is.
fn carbon<'a>(outer: &Node<'a>, account: &BareJid) -> Option<Carbon<'a>> {
    let own = match outer.attr("from") {
        // RFC 6120 §8.1.2.1: without `from` it is the account itself.
        None => true,
        Some(from) => Jid::new(&from).is_ok_and(|from| from.resource().is_none() && from.to_bare() == *account),
    };
    if !own {
        return None;
    }
    if outer.child("sent", ns::CARBONS).is_some() {
        return Some(Carbon::Sent);
    }
    let received = outer.child("received", ns::CARBONS)?;
    received.child("forwarded", ns::FORWARD)?.child("message", ns::CLIENT).map(Carbon::Received)
}

fn message(message: &Node<'_>) -> Class {
    match message.attr("type").as_deref() {
        Some("error") => return Class::Noise(Noise::Error),
        Some("headline") => return Class::Noise(Noise::Headline),
        _ => {}
    }
    if message.child("replace", ns::CORRECT).is_some() {
        return Class::Noise(Noise::Correction);
    }
    match omemo(message) {
        Some(Omemo::Payload) => return Class::Message,
        // A body beside it is the fallback text for clients without OMEMO, not something written.
        Some(Omemo::KeyTransport) => return Class::Noise(Noise::KeyTransport),
        None => {}
    }
    let encrypted = |c: &Node<'_>| c.is("x", ns::PGP_ENCRYPTED) || c.is("openpgp", ns::OPENPGP);
    let written = |c: &Node<'_>| c.is("body", ns::CLIENT) && !c.text().trim().is_empty();
    if message.children().any(|c| encrypted(&c) || c.is("encryption", ns::EME) || written(&c)) {
        Class::Message
    } else {
        Class::Noise(Noise::NoText)
    }
}

enum Omemo {
    Payload,
    KeyTransport,
}

/// XEP-0384: an `<encrypted/>` without `<payload/>` only moves keys.
fn omemo(message: &Node<'_>) -> Option<Omemo> {
    let encrypted = message.children().find(|c| {
        c.name() == "encrypted" && matches!(c.ns(), ns::OMEMO_AXOLOTL | ns::OMEMO0 | ns::OMEMO1 | ns::OMEMO2)
    })?;
    let payload = encrypted.children().any(|c| c.name() == "payload");
    Some(if payload { Omemo::Payload } else { Omemo::KeyTransport })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::element;

    fn check(stanza: &str, expect: Class) {
        let account = &BareJid::new("juliet@example.org").unwrap();
        let rooms = &Rooms::default();
        assert_eq!(read(&element(stanza), Context { account, rooms }).class, expect, "{stanza}");
    }

    fn noise(stanza: &str, expect: Noise) {
        check(stanza, Class::Noise(expect));
    }

    fn carbon(from: &str, direction: &str) -> String {
        format!(
            "<message from='{from}'><{direction} xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
             <message xmlns='jabber:client' type='chat'><body>hi</body></message></forwarded></{direction}></message>"
        )
    }

    #[test]
    fn text_and_encrypted_text_notify() {
        for stanza in [
            "<message><body>hi</body></message>",
            "<message type='chat'><body>hi</body></message>",
            "<message type='groupchat'><body>hi</body></message>",
            "<message><encrypted xmlns='eu.siacs.conversations.axolotl'><header/><payload>x</payload></encrypted></message>",
            "<message><encrypted xmlns='urn:xmpp:omemo:2'><payload>x</payload></encrypted></message>",
            "<message><x xmlns='jabber:x:encrypted'>x</x></message>",
            "<message><openpgp xmlns='urn:xmpp:openpgp:0'>x</openpgp></message>",
            "<message><encryption xmlns='urn:xmpp:eme:0' namespace='x'/></message>",
            "<message xmlns:c='jabber:client'><c:body>hi</c:body></message>",
        ] {
            check(stanza, Class::Message);
        }
    }

    #[test]
    fn what_nobody_wrote_does_not_notify() {
        noise("<presence/>", Noise::Presence);
        noise("<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>", Noise::Iq);
        noise("<message type='error'><body>hi</body></message>", Noise::Error);
        noise("<message type='headline'><body>hi</body></message>", Noise::Headline);
        noise("<message><composing xmlns='http://jabber.org/protocol/chatstates'/></message>", Noise::NoText);
        noise("<message><body/></message>", Noise::NoText);
        noise("<message><body xmlns='urn:x'>hi</body></message>", Noise::NoText);
        noise("<message type='groupchat'><subject>hi</subject></message>", Noise::NoText);
        noise(
            "<message><body>hi</body><replace xmlns='urn:xmpp:message-correct:0' id='1'/></message>",
            Noise::Correction,
        );
        let keys =
            "<message><body>Install OMEMO</body><encrypted xmlns='urn:xmpp:omemo:1'><header/></encrypted></message>";
        noise(keys, Noise::KeyTransport);
    }

    #[test]
    fn carbons_count_only_from_the_own_account() {
        check(&carbon("juliet@example.org", "received"), Class::Message);
        noise(&carbon("juliet@example.org", "sent"), Noise::SentCarbon);
        noise(&carbon("mallory@example.org", "received"), Noise::NoText);
        noise(&carbon("juliet@example.org/other", "received"), Noise::NoText);
    }
}
