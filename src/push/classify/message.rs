//! The class of a message, by its author and its payloads.

use std::borrow::Cow;

use super::call::CallStep;
use super::class::Class;
use super::classified::{Classified, Context};
use super::mucsub_event;
use super::noise_reason::Noise;
use super::payloads::Payloads;
use crate::jid::{BareJid, Jid};
use crate::push::address::{address, bare};
use crate::xml::{Node, ns};

/// The author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Author {
    /// Another account, or the server. A message without `from` has no client as its author.
    Other,
    /// Another client of the account. The message arrived as a carbon.
    Carbon,
    /// The account. A room reflects its message.
    Reflection,
    /// The account. It wrote to itself.
    Account,
}

/// The type of a message (RFC 6121 §5.2.2). An unknown type counts as `normal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessageType {
    /// `chat` and `normal`.
    Single,
    Groupchat,
    Headline,
    Error,
}

fn kind(message: &Node<'_>) -> MessageType {
    match message.attr("type").as_deref() {
        Some("groupchat") => MessageType::Groupchat,
        Some("headline") => MessageType::Headline,
        Some("error") => MessageType::Error,
        _ => MessageType::Single,
    }
}

/// Classifies a message. Unwraps a carbon, or a message from a subscribed room, first.
pub(super) fn read<'a>(outer: Node<'a>, context: Context<'_>) -> Classified<'a> {
    let from = address(&outer, "from");
    let unwrapped = match carbon(&outer, from.as_ref(), context.account) {
        Some((way, inner)) => Unwrapped { from: address(&inner, "from"), message: inner, carbon: Some(way), context },
        None => match mucsub_event::message(&outer, from.as_ref(), context.rooms) {
            Some(inner) => Unwrapped { from: address(&inner, "from"), message: inner, carbon: None, context },
            None => Unwrapped { from, message: outer, carbon: None, context },
        },
    };
    unwrapped.read()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Sent,
    Received,
}

/// Returns the message inside a carbon. XEP-0280 §11: only the own bare JID may send carbons. A message from any other
/// sender is classified by its outer element. An error is not unwrapped, since it may return the stanza that it
/// answers.
fn carbon<'a>(outer: &Node<'a>, from: Option<&Jid>, account: &BareJid) -> Option<(Direction, Node<'a>)> {
    if !is_account(from, account) || kind(outer) == MessageType::Error {
        return None;
    }
    let (direction, carbon) = outer.children().find_map(|child| match (child.ns(), child.name()) {
        (ns::CARBONS, "sent") => Some((Direction::Sent, child)),
        (ns::CARBONS, "received") => Some((Direction::Received, child)),
        _ => None,
    })?;
    Some((direction, carbon.child("forwarded", ns::FORWARD)?.child("message", ns::CLIENT)?))
}

/// Returns whether the stanza comes from the account itself, or from its server on its behalf. RFC 6120 §8.1.2.1: so
/// does a stanza without `from`.
fn is_account(from: Option<&Jid>, account: &BareJid) -> bool {
    from.is_none_or(|from| from == account)
}

/// A message, unwrapped from its carbon.
struct Unwrapped<'a, 'c> {
    from: Option<Jid>,
    message: Node<'a>,
    carbon: Option<Direction>,
    context: Context<'c>,
}

impl<'a> Unwrapped<'a, '_> {
    fn read(self) -> Classified<'a> {
        let Self { ref from, message, context, .. } = self;
        let kind = kind(&message);
        let room = from.as_ref().filter(|_| kind == MessageType::Groupchat);
        let mut payloads = Payloads::read(&message, room.map_or(context.account.as_str(), bare));
        let author = self.author(kind, &payloads);
        let stanza_id = payloads.stanza_id.take();
        if kind == MessageType::Error || room.is_some_and(|room| payloads.delayed && is_history(&message, room)) {
            let noise = if kind == MessageType::Error { Noise::Error } else { Noise::RoomHistory };
            return Classified { stanza_id, chat: self.chat(author), ..Classified::new(Class::Noise(noise), message) };
        }
        if let Some(last) = self.read_elsewhere(&payloads) {
            let chat = last.attr("id").map(|id| Jid::new(&id).into_bare());
            return Classified { stanza_id, chat, own: true, ..Classified::new(Class::ReadSync, message) };
        }
        let class = class(author, kind, &payloads);
        let own = author != Author::Other && payloads.by_a_person();
        let call = match class {
            Class::Call | Class::CallEnd => call_id(kind, &message, payloads, stanza_id.as_ref()),
            Class::Message | Class::Invite | Class::Subscribe | Class::ReadSync | Class::Noise(_) => None,
        };
        let chat = self.chat(author);
        let mut reading = Classified { class, stanza: message, chat, call, own, stanza_id };
        if reading.inviter().is_some_and(|inviter| inviter == *context.account) {
            reading.class = Class::Noise(Noise::NoteToSelf);
        }
        reading
    }

    fn author(&self, kind: MessageType, payloads: &Payloads<'_>) -> Author {
        let Context { account, rooms } = self.context;
        match &self.from {
            _ if self.carbon == Some(Direction::Sent) => Author::Carbon,
            Some(from) if kind == MessageType::Groupchat && rooms.is_own(from, payloads.occupant_id.as_deref()) => {
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

    /// Returns the item of the chat that was read last (XEP-0490 §4).
    fn read_elsewhere(&self, payloads: &Payloads<'a>) -> Option<Node<'a>> {
        if !is_account(self.from.as_ref(), self.context.account) {
            return None;
        }
        let items = payloads.event?.child("items", ns::PUBSUB_EVENT)?;
        let items = Some(items).filter(|items| items.attr("node").as_deref() == Some(ns::MDS))?;
        items.children().filter(|item| item.is("item", ns::PUBSUB_EVENT)).last()
    }
}

/// Returns whether the room itself delayed the message (XEP-0045 §7.2).
fn is_history(message: &Node<'_>, room: &Jid) -> bool {
    let delays = message.children().filter(|child| child.is("delay", ns::DELAY));
    delays.filter_map(|delay| address(&delay, "from")).any(|by| bare(&by) == bare(room))
}

fn class(author: Author, kind: MessageType, payloads: &Payloads<'_>) -> Class {
    if author == Author::Other {
        return by_others(kind, payloads);
    }
    if payloads.signal.as_ref().is_some_and(|signal| signal.step.settles()) {
        return Class::CallEnd;
    }
    if payloads.displayed {
        return Class::ReadSync;
    }
    match author {
        Author::Carbon => Class::Noise(Noise::SentCarbon),
        Author::Reflection => Class::Noise(Noise::Reflection),
        Author::Other | Author::Account => match by_others(kind, payloads) {
            noise @ Class::Noise(_) => noise,
            Class::Call | Class::CallEnd | Class::Message | Class::Invite | Class::Subscribe | Class::ReadSync => {
                Class::Noise(Noise::NoteToSelf)
            }
        },
    }
}

fn by_others(kind: MessageType, payloads: &Payloads<'_>) -> Class {
    match (kind, &payloads.signal) {
        (MessageType::Headline, _) if payloads.event.is_some() => Class::Noise(Noise::PubsubEvent),
        (MessageType::Headline, _) => Class::Noise(Noise::Headline),
        (_, Some(signal)) => signal.step.by_others(),
        // In a room it only mentions a room: invitations are sent to people (XEP-0249, XEP-0045 §7.8.2).
        (MessageType::Single, None) if payloads.invitation => Class::Invite,
        _ => payloads.words().map_or_else(Class::Noise, |()| Class::Message),
    }
}

/// Returns the id of a call. XEP-0482 §3.1: the room assigns the id of an invitation to a call, otherwise its sender
/// does.
fn call_id(
    kind: MessageType,
    message: &Node<'_>,
    payloads: Payloads<'_>,
    stanza_id: Option<&Cow<'_, str>>,
) -> Option<String> {
    let signal = payloads.signal?;
    let id = match signal.step {
        CallStep::Invite if kind == MessageType::Groupchat => stanza_id.cloned(),
        CallStep::Invite => payloads.origin_id.or_else(|| message.attr("id")),
        CallStep::Offer
        | CallStep::OtherOffer
        | CallStep::Retract
        | CallStep::Finish
        | CallStep::Answer
        | CallStep::Left
        | CallStep::Ringing => signal.id,
    };
    id.map(Cow::into_owned)
}
