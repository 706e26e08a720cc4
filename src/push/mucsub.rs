//! ejabberd's MUC/Sub (`urn:xmpp:mucsub:0`): a room sends its messages to subscribers that have not joined it, inside
//! publish-subscribe events.

use std::collections::HashMap;

use super::rooms::{Rooms, address, bare};
use crate::jid::Jid;
use crate::xml::{Node, ns};

/// The namespace of subscriptions.
pub const MUCSUB: &str = "urn:xmpp:mucsub:0";
/// The node of a room's messages.
const MESSAGES: &str = "urn:xmpp:mucsub:nodes:messages";
/// Subscriptions that are remembered; in more, the account's own messages are taken for another's.
const SUBSCRIPTIONS: usize = 256;
/// Bytes of the names of one.
const NAMES: usize = 2048;
/// What one takes beside its names.
const ENTRY: usize = 64;

/// The message inside an event of a room that is not joined. Only the room itself may say what was written in it.
pub(super) fn inner<'a>(outer: &Node<'a>, from: Option<&Jid>, rooms: &Rooms) -> Option<Node<'a>> {
    let room = from.filter(|from| from.resource().is_none())?.to_bare();
    if outer.attr("type").as_deref() == Some("error") || rooms.has_joined(&room) {
        return None;
    }
    let items = outer.child("event", ns::PUBSUB_EVENT)?.child("items", ns::PUBSUB_EVENT)?;
    if items.attr("node").as_deref() != Some(MESSAGES) {
        return None;
    }
    let last = items.children().filter(|item| item.is("item", ns::PUBSUB_EVENT)).last()?;
    let message = last.child("message", ns::CLIENT)?;
    address(&message, "from").filter(|from| bare(from) == room.as_str()).map(|_| message)
}

/// Rooms that the client has subscribed to, and as whom: what it writes there comes back to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Subscribed {
    /// The nick, by the bare JID of the room.
    nicks: HashMap<String, String>,
    /// What the names take.
    bytes: usize,
}

impl Subscribed {
    /// Notes a request of the client.
    pub(super) fn sent(&mut self, iq: &Node<'_>) {
        let Some(room) = address(iq, "to").filter(|_| iq.attr("type").as_deref() == Some("set")) else { return };
        if iq.child("unsubscribe", MUCSUB).is_some_and(|it| it.attr("jid").is_none()) {
            return self.forget(bare(&room));
        }
        // With `jid` it is about somebody else.
        let Some(subscribe) = iq.child("subscribe", MUCSUB).filter(|it| it.attr("jid").is_none()) else { return };
        let Some(nick) = subscribe.attr("nick") else { return };
        // As it is compared (RFC 7622 §3.4).
        let occupant = room.to_bare().with_resource_str(&nick);
        let nick = occupant.map_or_else(|_| nick.into_owned(), |occupant| occupant.resource().as_str().to_owned());
        self.remember(bare(&room), nick);
    }

    /// Whether this occupant is the client, or another client of the account.
    pub(super) fn is_own(&self, occupant: &Jid) -> bool {
        let nick = self.nicks.get(bare(occupant));
        nick.zip(occupant.resource()).is_some_and(|(own, nick)| own == nick.as_str())
    }

    /// Bytes of memory that they have.
    pub(super) fn memory(&self) -> usize {
        self.bytes + self.nicks.len() * ENTRY
    }

    fn remember(&mut self, room: &str, nick: String) {
        self.forget(room);
        let bytes = room.len() + nick.len();
        if self.nicks.len() < SUBSCRIPTIONS && bytes <= NAMES {
            self.bytes += bytes;
            self.nicks.insert(room.to_owned(), nick);
        }
    }

    fn forget(&mut self, room: &str) {
        if let Some(nick) = self.nicks.remove(room) {
            self.bytes = self.bytes.saturating_sub(room.len() + nick.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jid::BareJid;
    use crate::push::classify::{self, Class, Context, Noise};
    use crate::session::tests::element;

    const ROOM: &str = "tea@rooms.example.org";
    const SUBSCRIBE: &str = "<subscribe xmlns='urn:xmpp:mucsub:0' nick='Juliet'><event node='urn:xmpp:mucsub:nodes:messages'/>\
        </subscribe>";

    /// As ejabberd sends it, with these senders outside and inside.
    fn event(node: &str, outer: &str, inner: &str) -> String {
        format!(
            "<message from='{outer}' to='juliet@example.org' id='e'>\
             <event xmlns='http://jabber.org/protocol/pubsub#event'><items node='{node}'><item id='e'>\
             <message xmlns='jabber:client' from='{inner}' to='juliet@example.org' type='groupchat' id='m'>\
             <stanza-id xmlns='urn:xmpp:sid:0' by='{ROOM}' id='s1'/><body>hello</body></message>\
             </item></items></event></message>"
        )
    }

    fn iq(to: &str, inside: &str) -> String {
        format!("<iq type='set' to='{to}' id='1'>{inside}</iq>")
    }

    fn class(rooms: &Rooms, stanza: &str) -> Class {
        let account = BareJid::new("juliet@example.org").unwrap();
        classify::read(&element(stanza), Context { account: &account, rooms }).class
    }

    const NOISE: Class = Class::Noise(Noise::PubsubEvent);

    #[test]
    fn a_message_of_a_room_that_is_not_joined_is_a_message() {
        let rooms = Rooms::default();
        let stanza = element(&event(MESSAGES, ROOM, "tea@rooms.example.org/Romeo"));
        let account = BareJid::new("juliet@example.org").unwrap();
        let reading = classify::read(&stanza, Context { account: &account, rooms: &rooms });
        assert_eq!((reading.class, reading.own), (Class::Message, false));
        assert_eq!(reading.chat.as_ref().map(|chat| chat.as_str()), Some(ROOM));
        let body = reading.stanza.child("body", ns::CLIENT).unwrap();
        assert_eq!(body.text(), "hello");
    }

    #[test]
    fn only_the_room_itself_says_what_was_written_in_it() {
        let rooms = Rooms::default();
        let inside = "tea@rooms.example.org/Romeo";
        for (node, outer, inner) in [
            ("urn:xmpp:mucsub:nodes:presence", ROOM, inside),
            ("urn:xmpp:mucsub:nodes:subject", ROOM, inside),
            (MESSAGES, "mallory@example.org", inside),
            (MESSAGES, "rooms.example.org", inside),
            (MESSAGES, inside, inside),
            (MESSAGES, "tea@rooms.example.org/other", inside),
            (MESSAGES, ROOM, "coffee@rooms.example.org/Romeo"),
            (MESSAGES, ROOM, ""),
        ] {
            assert_eq!(class(&rooms, &event(node, outer, inner)), NOISE, "{node} {outer} {inner}");
        }
        let error = event(MESSAGES, ROOM, inside).replacen("<message ", "<message type='error' ", 1);
        assert_eq!(class(&rooms, &error), Class::Noise(Noise::Error));
    }

    #[test]
    fn a_room_that_is_joined_sends_its_messages_itself() {
        let mut rooms = Rooms::default();
        let join = "<presence to='tea@rooms.example.org/Juliet'><x xmlns='http://jabber.org/protocol/muc'/></presence>";
        rooms.sent(&element(join).node());
        let stanza = event(MESSAGES, ROOM, "tea@rooms.example.org/Romeo");
        assert_eq!(class(&rooms, &stanza), NOISE);
        rooms.sent(&element("<presence to='tea@rooms.example.org/Juliet' type='unavailable'/>").node());
        assert_eq!(class(&rooms, &stanza), Class::Message);
    }

    #[test]
    fn an_own_message_is_no_notification() {
        let own = event(MESSAGES, ROOM, "tea@rooms.example.org/Juliet");
        let other = event(MESSAGES, ROOM, "tea@rooms.example.org/Romeo");
        let mut rooms = Rooms::default();
        assert_eq!(class(&rooms, &own), Class::Message, "nobody knows the nick");
        rooms.subscribes(&element(&iq(ROOM, &SUBSCRIBE.replace("nick=", "jid='romeo@example.net' nick="))).node());
        assert_eq!(class(&rooms, &own), Class::Message, "somebody else was subscribed");
        rooms.subscribes(&element(&iq(ROOM, SUBSCRIBE)).node());
        rooms.sent(&element("<presence type='unavailable'/>").node());
        assert_eq!(class(&rooms, &own), Class::Noise(Noise::Reflection), "it outlives presence");
        assert_eq!(class(&rooms, &other), Class::Message);
        rooms.subscribes(&element(&iq(ROOM, "<unsubscribe xmlns='urn:xmpp:mucsub:0'/>")).node());
        assert_eq!((class(&rooms, &own), rooms.memory()), (Class::Message, 0));
    }

    #[test]
    fn subscriptions_that_are_remembered_are_bounded() {
        let mut subscribed = Subscribed::default();
        for n in 0..2 * SUBSCRIPTIONS {
            subscribed.sent(&element(&iq(&format!("room{n}@rooms.example.org"), SUBSCRIBE)).node());
        }
        subscribed.sent(&element(&iq(ROOM, &SUBSCRIBE.replace("Juliet", &"x".repeat(NAMES)))).node());
        assert_eq!(subscribed.nicks.len(), SUBSCRIPTIONS);
        assert!(subscribed.memory() <= SUBSCRIPTIONS * (NAMES + ENTRY));
    }
}
