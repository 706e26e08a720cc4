//! Client state indication (XEP-0352) where the server has none: what a client in the background need not be woken for is held
//! until something comes that it must be.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::push::classify::{Class, Classified, Noise};
use crate::seq::Seq;
use crate::xml::{Kind, Node, ns};

/// Stanzas that are held before all of them are written: what an idle client may have to catch up on at once.
const HELD: usize = 256;

/// Whether the client's user looks at it (XEP-0352).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    Active,
    Inactive,
}

/// Whether a stanza for a client in the background waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// It is written, after all that waits.
    Now,
    /// It waits. One with the same key that still waits is obsolete.
    Later(Option<u64>),
}

/// What is held for a client in the background.
#[derive(Debug, Default)]
pub(super) struct HeldStanzas {
    /// The newest stanza of each kind that makes older ones obsolete.
    newest: HashMap<u64, Seq>,
    count: usize,
}

impl HeldStanzas {
    /// A stanza waits under this sequence number. Returns the number of the one that it makes obsolete.
    pub(super) fn hold(&mut self, key: Option<u64>, seq: Seq) -> Option<Seq> {
        self.count += 1;
        key.and_then(|key| self.newest.insert(key, seq))
    }

    /// Whether so many are held that all of them are to be written.
    pub(super) fn is_full(&self) -> bool {
        self.count >= HELD
    }
}

/// How urgent a stanza is for a client in the background.
pub(super) fn urgency(kind: Kind, reading: &Classified<'_>) -> Urgency {
    let stanza = &reading.stanza;
    match (kind, reading.class) {
        (Kind::Presence, Class::Noise(_)) => presence(stanza),
        (Kind::Message, Class::Noise(Noise::ChatState)) => Urgency::Later(key("state", stanza.attr("from"))),
        (Kind::Message, Class::Noise(Noise::Receipt | Noise::Headline)) => Urgency::Later(None),
        (Kind::Message, Class::Noise(Noise::PubsubEvent)) => Urgency::Later(event(stanza)),
        (Kind::Message | Kind::Presence | Kind::Iq | Kind::Other, _) => Urgency::Now,
    }
}

/// Who is there may wait; who wants something may not, nor what a room has to say (XEP-0045 §15.6.2).
fn presence(node: &Node<'_>) -> Urgency {
    let of_room = node.child("x", ns::MUC_USER).is_some_and(|x| x.child("status", ns::MUC_USER).is_some());
    match node.attr("type").as_deref() {
        None | Some("unavailable" | "error") if !of_room => Urgency::Later(None),
        _ => Urgency::Now,
    }
}

/// The newest items of a node are worth more than older ones, where the node has one item: what must not be lost on the way has
/// no key.
fn event(node: &Node<'_>) -> Option<u64> {
    let items = node.child("event", ns::PUBSUB_EVENT)?.child("items", ns::PUBSUB_EVENT)?;
    let replaced = [
        "http://jabber.org/protocol/mood",
        "http://jabber.org/protocol/activity",
        "http://jabber.org/protocol/tune",
        "http://jabber.org/protocol/geoloc",
        "http://jabber.org/protocol/nick",
    ];
    let name = items.attr("node")?;
    let only_items = items.children().all(|child| child.name() == "item");
    let from = node.attr("from")?;
    (only_items && replaced.contains(&name.as_ref())).then(|| hashed(&("event", from, name)))
}

fn key(kind: &str, from: Option<std::borrow::Cow<'_, str>>) -> Option<u64> {
    let from = from?;
    let bare = from.split('/').next().unwrap_or_default();
    Some(hashed(&(kind, bare)))
}

fn hashed(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
