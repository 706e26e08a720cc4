//! Client state indication (XEP-0352) for servers that have none. Stanzas that need not wake a client in the background are
//! held until a stanza comes that must.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use crate::hash::keyed;
use crate::push::classify::{Class, Classified, Noise};
use crate::seq::Seq;
use crate::xml::{Kind, Node, ns};

/// The number of held stanzas at which all are written. It bounds what an idle client has to catch up on at once.
const HELD: usize = 256;

/// The state of the client: in use, or in the background (XEP-0352).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Activity {
    Active,
    Inactive,
}

/// The urgency of a stanza for a client in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// It is written now, after all waiting stanzas.
    Now,
    /// It waits. A waiting stanza with the same key becomes obsolete.
    Later(Option<u64>),
}

/// The stanzas that are held for a client in the background.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct HeldStanzas {
    /// The newest stanza of each kind that makes older ones obsolete.
    newest: BTreeMap<u64, Seq>,
    count: usize,
}

impl HeldStanzas {
    /// Holds a stanza with this sequence number. Returns the number of the stanza that it makes obsolete.
    pub(super) fn hold(&mut self, key: Option<u64>, seq: Seq) -> Option<Seq> {
        self.count += 1;
        key.and_then(|key| self.newest.insert(key, seq))
    }

    /// Returns whether so many stanzas are held that all are to be written.
    pub(super) fn is_full(&self) -> bool {
        self.count >= HELD
    }
}

/// Returns the urgency of a stanza for a client in the background.
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

/// Returns the urgency of presence. Availability may wait. Requests may not, nor may status codes of rooms (XEP-0045
/// §15.6.2).
fn presence(node: &Node<'_>) -> Urgency {
    let of_room = node.child("x", ns::MUC_USER).is_some_and(|x| x.child("status", ns::MUC_USER).is_some());
    match node.attr("type").as_deref() {
        None | Some("unavailable" | "error") if !of_room => Urgency::Later(None),
        _ => Urgency::Now,
    }
}

/// Returns the key of a pubsub event if a newer one replaces it, which is true for nodes with a single item. Events that
/// must not be lost have no key.
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
    let mut hasher = keyed(());
    value.hash(&mut hasher);
    hasher.finish()
}
