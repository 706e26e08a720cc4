//! Events of MUC/Sub, in which a room sends its messages to subscribers that have not joined it.

use crate::jid::Jid;
use crate::push::address::{address, bare};
use crate::push::rooms::Rooms;
use crate::xml::{Node, ns};

/// The node of a room's messages.
pub(in crate::push) const MESSAGES: &str = "urn:xmpp:mucsub:nodes:messages";

/// Returns the message inside an event of a room that is not joined. Only the room itself may send such events.
pub(super) fn message<'a>(outer: &Node<'a>, from: Option<&Jid>, rooms: &Rooms) -> Option<Node<'a>> {
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
