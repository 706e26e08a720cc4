//! ejabberd's MUC/Sub (`urn:xmpp:mucsub:0`): a room sends its messages to subscribers that have not joined it, inside
//! publish-subscribe events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::address::{address, bare};
use crate::jid::{self, Jid};
use crate::xml::Node;

/// The namespace of subscriptions.
pub const MUCSUB: &str = "urn:xmpp:mucsub:0";
/// The maximum number of subscriptions per account that are remembered. Beyond it, the account's own messages count as
/// another's.
const SUBSCRIPTIONS: usize = 256;
/// The maximum bytes of their names.
const NAMES: usize = 64 * 1024;
/// The bytes of a subscription in addition to its names.
const ENTRY: usize = 64;

/// A request of the client to subscribe to a room, or to unsubscribe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The bare JID of the room.
    room: String,
    /// The nick; `None` to unsubscribe.
    nick: Option<String>,
}

impl Subscription {
    /// Reads an iq of the client. Returns `None` if it is another request, or concerns another account.
    pub fn read(iq: &Node<'_>) -> Option<Self> {
        let room = address(iq, "to").filter(|_| iq.attr("type").as_deref() == Some("set"))?;
        let request =
            iq.children().find(|child| child.ns() == MUCSUB).filter(|request| request.attr("jid").is_none())?;
        let nick = match request.name() {
            "subscribe" => Some(request.attr("nick")?),
            "unsubscribe" => None,
            _ => return None,
        };
        // In the form in which it is compared (RFC 7622 §3.4).
        let nick = nick.map(|nick| jid::resource(&nick).into_owned());
        Some(Self { room: bare(&room).to_owned(), nick })
    }
}

/// The rooms that the account has subscribed to, with its nicks. A room sends the messages of one client of the account
/// back to all of them. A subscription outlives sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Subscriptions {
    /// The nick, by the bare JID of the room.
    #[allow(clippy::box_collection, reason = "every account and session has the field, and few have any")]
    nicks: Option<Box<BTreeMap<String, String>>>,
}

impl Subscriptions {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nicks.is_none()
    }

    /// Returns whether a request changes anything.
    pub fn differs(&self, subscription: &Subscription) -> bool {
        self.nick(&subscription.room) != subscription.nick.as_deref()
    }

    /// Records a request of the client.
    pub fn note(&mut self, Subscription { room, nick }: Subscription) {
        let mut nicks = self.nicks.take().unwrap_or_default();
        nicks.remove(&room);
        let names = names(&nicks) + room.len() + nick.as_ref().map_or(0, String::len);
        if let Some(nick) = nick.filter(|_| nicks.len() < SUBSCRIPTIONS && names <= NAMES) {
            nicks.insert(room, nick);
        }
        self.nicks = Some(nicks).filter(|nicks| !nicks.is_empty());
    }

    /// Returns whether this occupant is a client of the account.
    pub(super) fn is_own(&self, occupant: &Jid) -> bool {
        let nick = self.nick(bare(occupant));
        nick.zip(occupant.resource()).is_some_and(|(own, nick)| own == nick)
    }

    /// Returns the bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        self.nicks.as_ref().map_or(0, |nicks| names(nicks) + nicks.len() * ENTRY)
    }

    fn nick(&self, room: &str) -> Option<&str> {
        self.nicks.as_ref()?.get(room).map(String::as_str)
    }
}

fn names(nicks: &BTreeMap<String, String>) -> usize {
    nicks.iter().map(|(room, nick)| room.len() + nick.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jid::BareJid;
    use crate::push::classify::mucsub_event::MESSAGES;
    use crate::push::classify::{self, Class, Context, Noise};
    use crate::push::rooms::Rooms;
    use crate::session::tests::element;
    use crate::xml::ns;

    const ROOM: &str = "tea@rooms.example.org";
    const SUBSCRIBE: &str = "<subscribe xmlns='urn:xmpp:mucsub:0' nick='Juliet'><event node='urn:xmpp:mucsub:nodes:messages'/>\
        </subscribe>";

    /// Builds an event as ejabberd sends it, with these outer and inner senders.
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
    fn only_the_room_itself_may_send_its_messages() {
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

    fn request(to: &str, inside: &str) -> Option<Subscription> {
        Subscription::read(&element(&iq(to, inside)).node())
    }

    #[test]
    fn an_own_message_is_no_notification() {
        let own = event(MESSAGES, ROOM, "tea@rooms.example.org/Juliet");
        let other = event(MESSAGES, ROOM, "tea@rooms.example.org/Romeo");
        let (mut rooms, mut subscriptions) = (Rooms::default(), Subscriptions::default());
        assert_eq!(class(&rooms, &own), Class::Message, "nobody knows the nick");
        let subscribe = request(ROOM, SUBSCRIBE).unwrap();
        assert!(subscriptions.differs(&subscribe));
        subscriptions.note(subscribe.clone());
        assert!(!subscriptions.differs(&subscribe));
        rooms.subscribed(&subscriptions);
        rooms.sent(&element("<presence type='unavailable'/>").node());
        assert_eq!(class(&rooms, &own), Class::Noise(Noise::Reflection), "it outlives presence");
        assert_eq!(class(&rooms, &other), Class::Message);
        subscriptions.note(request(ROOM, "<unsubscribe xmlns='urn:xmpp:mucsub:0'/>").unwrap());
        rooms.subscribed(&subscriptions);
        assert_eq!((class(&rooms, &own), rooms.memory()), (Class::Message, 0));
    }

    #[test]
    fn only_a_request_for_the_account_itself_counts() {
        assert_eq!(request(ROOM, &SUBSCRIBE.replace("nick=", "jid='romeo@example.net' nick=")), None);
        assert_eq!(request(ROOM, "<unsubscribe xmlns='urn:xmpp:mucsub:0' jid='romeo@example.net'/>"), None);
        assert_eq!(request(ROOM, "<subscribe xmlns='urn:xmpp:mucsub:0'/>"), None, "it has no nick");
        assert_eq!(request(ROOM, "<subscriptions xmlns='urn:xmpp:mucsub:0'/>"), None);
        let get = iq(ROOM, SUBSCRIBE).replace("'set'", "'get'");
        assert_eq!(Subscription::read(&element(&get).node()), None);
    }

    #[test]
    fn subscriptions_that_are_remembered_are_bounded() {
        let mut subscriptions = Subscriptions::default();
        for n in 0..2 * SUBSCRIPTIONS {
            subscriptions.note(request(&format!("room{n}@rooms.example.org"), SUBSCRIBE).unwrap());
        }
        assert_eq!(subscriptions.nicks.map(|nicks| nicks.len()), Some(SUBSCRIPTIONS));
        let mut long = Subscriptions::default();
        for n in 0..2 * SUBSCRIPTIONS {
            let subscribe = SUBSCRIBE.replace("Juliet", &"x".repeat(1000));
            long.note(request(&format!("room{n}@rooms.example.org"), &subscribe).unwrap());
        }
        let bytes = names(&long.nicks.unwrap());
        assert!(bytes <= NAMES && bytes > NAMES / 2);
    }
}
