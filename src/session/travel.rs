//! Messages that may go to another device of the account if their own device does not fetch them, and messages that a
//! device has already.
//!
//! A message to the bare JID belongs to the account. So does a chat message to a full JID that is gone (RFC 6121
//! §8.5.3.2.1), and most servers treat a normal message the same way. A device that got it as a copy or carbon does not get
//! it again.

use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};

use super::archive::own_stanza_id;
use super::queue::OnlineClients;
use super::redelivered::OwnMessages;
use crate::hash::keyed;
use crate::jid::{BareJid, Jid};
use crate::push::classify::has_text;
use crate::push::rooms::Rooms;
use crate::xml::{Element, Kind, Node, ns};

/// The number of hashes of messages that are remembered per device. A message has two hashes at most.
const MOST: usize = 2000;
/// The bytes of a hash, in the list and in the set.
const HASH: usize = 24;

/// The messages that a device has received recently.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "Vec<u64>", into = "Vec<u64>")]
pub(super) struct ReceivedMessages {
    order: VecDeque<u64>,
    marks: HashSet<u64>,
}

/// Reads the hashes, in the order in which they were noted.
impl From<Vec<u64>> for ReceivedMessages {
    fn from(order: Vec<u64>) -> Self {
        let mut messages = Self::default();
        order.into_iter().for_each(|mark| messages.note(mark));
        messages
    }
}

impl From<ReceivedMessages> for Vec<u64> {
    fn from(messages: ReceivedMessages) -> Self {
        messages.order.into()
    }
}

impl ReceivedMessages {
    /// Returns whether nothing is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Adds all messages of a later memory.
    pub(super) fn add(&mut self, later: &Self) {
        later.order.iter().for_each(|mark| self.note(*mark));
    }

    /// The bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        self.order.len() * HASH
    }

    pub(super) fn note(&mut self, mark: u64) {
        if !self.marks.insert(mark) {
            return;
        }
        self.order.push_back(mark);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.marks.remove(&oldest);
        }
    }

    pub(super) fn has(&self, marks: impl IntoIterator<Item = u64>) -> bool {
        marks.into_iter().any(|mark| self.marks.contains(&mark))
    }
}

/// The hashes that identify a conversational message: of its id in the own archive, and of its sender with the sender's id.
pub(super) fn marks(element: &Element, own: OwnMessages<'_>) -> impl Iterator<Item = u64> + use<> {
    let root = element.node();
    let inner = forwarded(element, &root);
    let node = inner.unwrap_or(root);
    let hash = |what: &str, of: (&str, &str)| {
        let mut hasher = keyed(own.seed);
        (what, of).hash(&mut hasher);
        hasher.finish()
    };
    let sent = node.attr("from").zip(node.attr("id")).map(|(from, id)| hash("sent", (&from, &id)));
    let archived = match inner {
        None => own_stanza_id(element, own.account),
        Some(inner) => inner_stanza_id(&inner, own.account),
    };
    let archived = archived.map(|id| hash("archived", ("", &id)));
    sent.into_iter().chain(archived).filter({
        let conversational = is_conversational(&node);
        move |_| conversational
    })
}

/// The message inside a carbon of one that came for another device (XEP-0280).
fn forwarded<'a>(element: &'a Element, root: &Node<'a>) -> Option<Node<'a>> {
    if !element.mentions(ns::CARBONS) {
        return None;
    }
    root.child("received", ns::CARBONS)?.child("forwarded", ns::FORWARD)?.child("message", ns::CLIENT)
}

fn inner_stanza_id(message: &Node<'_>, account: &BareJid) -> Option<String> {
    let own = |child: &Node<'_>| {
        child.is("stanza-id", ns::STANZA_ID) && child.attr("by").is_some_and(|by| Jid::new(&by) == *account)
    };
    message.children().find(own)?.attr("id").map(|id| id.into_owned())
}

fn is_conversational(message: &Node<'_>) -> bool {
    matches!(message.attr("type").as_deref(), None | Some("chat" | "normal"))
}

/// Returns whether a message came from a room that the client is in, or is about to join: private messages of occupants are
/// for this client alone. Call it when the message comes.
pub(super) fn is_from_room(element: &Element, rooms: &Rooms) -> bool {
    if element.kind() != Kind::Message || rooms.is_empty() {
        return false;
    }
    let Some(from) = element.node().attr("from") else { return false };
    let bare = from.split_once('/').map_or(&*from, |(bare, _)| bare);
    BareJid::new(bare).is_ok_and(|room| rooms.nick(&room).is_some())
}

/// Returns whether a message may go to another device if its own does not fetch it.
pub(super) fn may_travel(element: &Element, online_clients: OnlineClients) -> bool {
    let message = element.node();
    if element.kind() != Kind::Message || online_clients == OnlineClients::Room || !is_conversational(&message) {
        return false;
    }
    let restricted = |c: Node<'_>| {
        c.is("no-copy", ns::HINTS)
            || c.is("private", ns::CARBONS)
            || c.is("sent", ns::CARBONS)
            || c.is("received", ns::CARBONS)
            || c.is("event", ns::PUBSUB_EVENT)
    };
    if message.children().any(restricted) {
        return false;
    }
    // Servers deliver only stanzas to the account's own addresses.
    let to_client = message.attr("to").is_some_and(|to| to.contains('/'));
    if !to_client {
        return online_clients == OnlineClients::None;
    }
    let of_room = message.child("x", ns::MUC_USER).is_some();
    let chat = message.attr("type").as_deref() == Some("chat");
    !of_room && (chat || has_text(&message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::element;

    fn travels(attributes: &str, inside: &str, online_clients: OnlineClients) -> bool {
        may_travel(
            &element(&format!("<message from='romeo@example.net/x'{attributes}>{inside}</message>")),
            online_clients,
        )
    }

    #[test]
    fn what_came_to_a_full_jid_travels_if_a_person_may_want_it() {
        const BODY: &str = "<body>b</body>";
        const TO: &str = " to='juliet@example.org/phone'";
        let omemo = "<encrypted xmlns='eu.siacs.conversations.axolotl'><payload>x</payload></encrypted>";
        for (kind, inside, expected) in [
            (" type='chat'", BODY, true),
            (" type='chat'", "", true),
            ("", BODY, true),
            (" type='normal'", omemo, true),
            (" type='normal'", "<x xmlns='y'/>", false),
            (" type='groupchat'", BODY, false),
            (" type='headline'", BODY, false),
            (" type='error'", BODY, false),
            (" type='chat'", "<body>b</body><no-copy xmlns='urn:xmpp:hints'/>", false),
            (" type='chat'", "<body>b</body><private xmlns='urn:xmpp:carbons:2'/>", false),
            (" type='chat'", "<body>b</body><x xmlns='http://jabber.org/protocol/muc#user'/>", false),
            ("", "<body>b</body><event xmlns='http://jabber.org/protocol/pubsub#event'/>", false),
            ("", "<received xmlns='urn:xmpp:carbons:2'/>", false),
        ] {
            for online_clients in [OnlineClients::None, OnlineClients::Others] {
                assert_eq!(
                    travels(&format!("{TO}{kind}"), inside, online_clients),
                    expected,
                    "{kind} {inside} {online_clients:?}"
                );
            }
            assert!(!travels(&format!("{TO}{kind}"), inside, OnlineClients::Room));
        }
        assert!(travels(" to='juliet@example.org/Phone 🦊' type='chat'", BODY, OnlineClients::Others));
    }

    #[test]
    fn what_came_to_the_account_travels_unless_another_client_has_it() {
        for to in [" to='juliet@example.org'", ""] {
            assert!(travels(to, "", OnlineClients::None) && !travels(to, "<body>b</body>", OnlineClients::Others));
        }
    }

    #[test]
    fn the_newest_marks_are_remembered() {
        let mut had = ReceivedMessages::default();
        (0..=MOST as u64).for_each(|mark| had.note(mark));
        had.note(5);
        assert!(!had.has([0]) && had.has([1, 0]) && had.order.len() == MOST && had.marks.len() == MOST);
        let mut other = ReceivedMessages::default();
        other.add(&had);
        assert_eq!(other, had);
    }
}
