//! Who wrote a message, and what it means from them.

use std::borrow::Cow;

use super::call::Step;
use super::payloads::Parts;
use super::{Class, Context, Noise, Reading};
use crate::jid::{BareJid, Jid};
use crate::push::mucsub;
use crate::push::rooms::{address, bare};
use crate::xml::{Node, ns};

/// Whose doing a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Author {
    /// Somebody else's, or the server's: what comes without `from` has no client behind it.
    Other,
    /// Another client's of the account, as a carbon.
    Carbon,
    /// The account's, as a room gives it back.
    Reflection,
    /// The account's, written to itself.
    Account,
}

/// The type of a message (RFC 6121 §5.2.2); what is unknown is `normal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `chat` and `normal`.
    Single,
    Groupchat,
    Headline,
    Error,
}

fn kind(message: &Node<'_>) -> Kind {
    match message.attr("type").as_deref() {
        Some("groupchat") => Kind::Groupchat,
        Some("headline") => Kind::Headline,
        Some("error") => Kind::Error,
        _ => Kind::Single,
    }
}

/// Reads a message, or what is in it if it is a carbon, or comes from a room that is subscribed to.
pub(super) fn read<'a>(outer: Node<'a>, context: Context<'_>) -> Reading<'a> {
    let from = address(&outer, "from");
    let letter = match carbon(&outer, from.as_ref(), context.account) {
        Some((way, inner)) => Letter { from: address(&inner, "from"), message: inner, carbon: Some(way), context },
        None => match mucsub::inner(&outer, from.as_ref(), context.rooms) {
            Some(inner) => Letter { from: address(&inner, "from"), message: inner, carbon: None, context },
            None => Letter { from, message: outer, carbon: None, context },
        },
    };
    letter.read()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Sent,
    Received,
}

/// XEP-0280 §11: only the own bare JID may send carbons; from anyone else a message is what its outside is. An error may give
/// back what it answers, so it is not opened.
fn carbon<'a>(outer: &Node<'a>, from: Option<&Jid>, account: &BareJid) -> Option<(Direction, Node<'a>)> {
    if !is_account(from, account) || kind(outer) == Kind::Error {
        return None;
    }
    let (direction, carbon) = outer.children().find_map(|child| match (child.ns(), child.name()) {
        (ns::CARBONS, "sent") => Some((Direction::Sent, child)),
        (ns::CARBONS, "received") => Some((Direction::Received, child)),
        _ => None,
    })?;
    Some((direction, carbon.child("forwarded", ns::FORWARD)?.child("message", ns::CLIENT)?))
}

/// Whether the account's server speaks for it. RFC 6120 §8.1.2.1: it does so without `from`, too.
fn is_account(from: Option<&Jid>, account: &BareJid) -> bool {
    from.is_none_or(|from| from == account)
}

/// A message out of its carbon.
struct Letter<'a, 'c> {
    from: Option<Jid>,
    message: Node<'a>,
    carbon: Option<Direction>,
    context: Context<'c>,
}

impl<'a> Letter<'a, '_> {
    fn read(self) -> Reading<'a> {
        let Self { ref from, message, context, .. } = self;
        let kind = kind(&message);
        let room = from.as_ref().filter(|_| kind == Kind::Groupchat);
        let mut parts = Parts::read(&message, room.map_or(context.account.as_str(), bare));
        let author = self.author(kind, &parts);
        let stanza_id = parts.stanza_id.take();
        if kind == Kind::Error || room.is_some_and(|room| parts.delayed && is_history(&message, room)) {
            let noise = if kind == Kind::Error { Noise::Error } else { Noise::RoomHistory };
            return Reading { stanza_id, chat: self.chat(author), ..Reading::new(Class::Noise(noise), message) };
        }
        if let Some(last) = self.read_elsewhere(&parts) {
            let chat = last.attr("id").map(|id| Jid::new(&id).into_bare());
            return Reading { stanza_id, chat, own: true, ..Reading::new(Class::ReadSync, message) };
        }
        let class = class(author, kind, &parts);
        let own = author != Author::Other && parts.by_a_person();
        let call = match class {
            Class::Call | Class::CallEnd => call_id(kind, &message, parts, stanza_id.as_ref()),
            Class::Message | Class::Invite | Class::Subscribe | Class::ReadSync | Class::Noise(_) => None,
        };
        let chat = self.chat(author);
        let mut reading = Reading { class, stanza: message, chat, call, own, stanza_id };
        if reading.inviter().is_some_and(|inviter| inviter == *context.account) {
            reading.class = Class::Noise(Noise::NoteToSelf);
        }
        reading
    }

    fn author(&self, kind: Kind, parts: &Parts<'_>) -> Author {
        let Context { account, rooms } = self.context;
        match &self.from {
            _ if self.carbon == Some(Direction::Sent) => Author::Carbon,
            Some(from) if kind == Kind::Groupchat && rooms.is_own(from, parts.occupant_id.as_deref()) => {
                Author::Reflection
            }
            Some(from) if bare(from) == account.as_str() => Author::Account,
            Some(_) | None => Author::Other,
        }
    }

    fn chat(self, author: Author) -> Option<BareJid> {
        let other = match author {
            Author::Other | Author::Reflection => self.from,
            Author::Carbon | Author::Account => address(&self.message, "to").or(self.from),
        };
        other.map(Jid::into_bare)
    }

    /// XEP-0490 §4: the item of what was read last.
    fn read_elsewhere(&self, parts: &Parts<'a>) -> Option<Node<'a>> {
        if !is_account(self.from.as_ref(), self.context.account) {
            return None;
        }
        let items = parts.event?.child("items", ns::PUBSUB_EVENT)?;
        let items = Some(items).filter(|items| items.attr("node").as_deref() == Some(ns::MDS))?;
        items.children().filter(|item| item.is("item", ns::PUBSUB_EVENT)).last()
    }
}

/// XEP-0045 §7.2: what the room itself has delayed.
fn is_history(message: &Node<'_>, room: &Jid) -> bool {
    let delays = message.children().filter(|child| child.is("delay", ns::DELAY));
    delays.filter_map(|delay| address(&delay, "from")).any(|by| bare(&by) == bare(room))
}

fn class(author: Author, kind: Kind, parts: &Parts<'_>) -> Class {
    if author == Author::Other {
        return by_others(kind, parts);
    }
    if parts.signal.as_ref().is_some_and(|signal| signal.step.settles()) {
        return Class::CallEnd;
    }
    if parts.displayed {
        return Class::ReadSync;
    }
    match author {
        Author::Carbon => Class::Noise(Noise::SentCarbon),
        Author::Reflection => Class::Noise(Noise::Reflection),
        Author::Other | Author::Account => match by_others(kind, parts) {
            noise @ Class::Noise(_) => noise,
            Class::Call | Class::CallEnd | Class::Message | Class::Invite | Class::Subscribe | Class::ReadSync => {
                Class::Noise(Noise::NoteToSelf)
            }
        },
    }
}

fn by_others(kind: Kind, parts: &Parts<'_>) -> Class {
    match (kind, &parts.signal) {
        (Kind::Headline, _) if parts.event.is_some() => Class::Noise(Noise::PubsubEvent),
        (Kind::Headline, _) => Class::Noise(Noise::Headline),
        (_, Some(signal)) => signal.step.by_others(),
        // In a room it is only a mention: invitations go to people (XEP-0249, XEP-0045 §7.8.2).
        (Kind::Single, None) if parts.invitation => Class::Invite,
        _ => parts.words().map_or_else(Class::Noise, |()| Class::Message),
    }
}

/// XEP-0482 §3.1: an invitation to a call is named by the room, else by its sender.
fn call_id(kind: Kind, message: &Node<'_>, parts: Parts<'_>, stanza_id: Option<&Cow<'_, str>>) -> Option<String> {
    let signal = parts.signal?;
    let id = match signal.step {
        Step::Invite if kind == Kind::Groupchat => stanza_id.cloned(),
        Step::Invite => parts.origin_id.or_else(|| message.attr("id")),
        Step::Offer | Step::OtherOffer | Step::Retract | Step::Finish | Step::Answer | Step::Left | Step::Ringing => {
            signal.id
        }
    };
    id.map(Cow::into_owned)
}
