//! The content of messages. It follows from the seed, the account and the number of the message, so that both ends can
//! compute it.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::xml::Element;

/// The kinds of messages to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It notifies.
    Chat,
    /// A room's message. It notifies.
    Room,
    /// A delivery receipt. It does not notify.
    Receipt,
}

impl Kind {
    pub(crate) fn notifies(self) -> bool {
        self != Self::Receipt
    }
}

/// The direction of a message.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) enum Direction {
    ToClient,
    ToServer,
}

/// The text of a message.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Content {
    pub(crate) seed: u64,
    pub(crate) account: usize,
    pub(crate) direction: Direction,
    pub(crate) number: u64,
}

impl Content {
    /// Returns the text, which contains no character with a meaning in XML.
    fn text(self) -> String {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        let hash = hasher.finish();
        let length = usize::try_from(hash % 400).unwrap();
        format!("{}/{} {hash:x} ü {}", self.account, self.number, "x".repeat(length))
    }

    /// Returns a message to a client.
    pub(crate) fn message(self, kind: Kind) -> String {
        let Self { account, number, .. } = self;
        let text = self.text();
        let (kind, from, payload) = match kind {
            Kind::Chat => ("chat", "peer@remote.example/x", format!("<body>{text} &amp; &lt;</body>")),
            Kind::Room => ("groupchat", "room@muc.localhost/peer", format!("<body>{text} &amp; &lt;</body>")),
            Kind::Receipt => {
                ("chat", "peer@remote.example/x", format!("<received xmlns='urn:xmpp:receipts' id='{text}'/>"))
            }
        };
        format!(
            "<message type='{kind}' from='{from}' to='user-{account}@localhost/phone' id='m{number}'>{payload}</message>"
        )
    }

    /// Returns a stanza of a client: a message, or every fourth time an iq that is answered.
    pub(crate) fn stanza(self) -> String {
        let Self { number, .. } = self;
        if number % 4 == 3 {
            return format!(
                "<iq type='get' id='client-{number}' to='localhost'><query xmlns='jabber:iq:version'/></iq>"
            );
        }
        let text = self.text();
        format!(
            "<message type='chat' to='peer@remote.example' id='client-{number}'><body>{text} &amp; &lt;</body></message>"
        )
    }

    /// Returns whether a stanza with this content has arrived as it was sent.
    pub(crate) fn is_in(self, stanza: &Element) -> bool {
        let (body, received) = (stanza.child("body"), stanza.child("received"));
        match (stanza.name.as_str(), body, received) {
            ("message", Some(body), None) => body.text == format!("{} & <", self.text()),
            ("message", None, Some(received)) => received.attribute("id") == Some(self.text().as_str()),
            ("iq", None, None) => stanza.child("query").is_some_and(|query| query.ns == "jabber:iq:version"),
            _ => false,
        }
    }
}
