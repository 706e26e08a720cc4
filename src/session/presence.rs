//! Presence: what a client last said of itself, where it is joined, and what of others' need not wait twice.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;

use crate::jid::{BareJid, Jid};
use crate::xml::{Element, Kind, Node, XmlWriter, ns};

/// Rooms and others that the client sends presence to; more are treated as unknown.
const DIRECTED: usize = 1024;

/// Contacts that a client is remembered to take for available; beyond, nobody's visit is kept from it.
const TOLD: usize = 4096;

/// What a presence stanza is for its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Available,
    Unavailable,
    /// Subscriptions, probes, errors: never coalesced.
    Other,
}

fn sort(node: &Node<'_>) -> Sort {
    match node.attr("type").as_deref() {
        None => Sort::Available,
        Some("unavailable") => Sort::Unavailable,
        Some(_) => Sort::Other,
    }
}

/// Whether a stanza must not be lost: messages, subscription presence, iq requests (invariant 2).
pub(super) fn is_durable(element: &Element) -> bool {
    let of_type = |types: &[&str]| element.node().attr("type").is_some_and(|t| types.contains(&t.as_ref()));
    match element.kind() {
        Kind::Message => true,
        Kind::Presence => of_type(&["subscribe", "subscribed", "unsubscribe", "unsubscribed"]),
        Kind::Iq => of_type(&["get", "set"]),
        Kind::Other => false,
    }
}

/// The client's own presence.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// The last available presence to everybody.
    available: Option<Box<Element>>,
    /// A broadcast `unavailable` that waits for what comes next.
    parting: Option<Box<Element>>,
    directed: HashSet<BareJid>,
}

impl Own {
    /// Notes a presence stanza of the client, and says whether it is its first or later available broadcast.
    pub(super) fn sent(&mut self, element: &Element) -> bool {
        let node = element.node();
        let (sort, to) = (sort(&node), node.attr("to").and_then(|to| Jid::new(&to).ok()));
        match (sort, to) {
            (Sort::Available, None) => self.available = Some(Box::new(element.compact())),
            (Sort::Unavailable, None) => self.available = None,
            (Sort::Available, Some(to)) if self.directed.len() < DIRECTED => {
                self.directed.insert(to.to_bare());
            }
            (Sort::Unavailable, Some(to)) => {
                self.directed.remove(&to.to_bare());
            }
            _ => {}
        }
        sort == Sort::Available && node.attr("to").is_none()
    }

    /// Whether the client is available to everybody.
    pub(super) fn is_available(&self) -> bool {
        self.available.is_some()
    }

    /// Whether this is a broadcast `unavailable`.
    pub(super) fn is_parting(element: &Element) -> bool {
        let node = element.node();
        element.kind() == Kind::Presence && sort(&node) == Sort::Unavailable && node.attr("to").is_none()
    }

    /// Holds a broadcast `unavailable` until the client's next frame.
    pub(super) fn part(&mut self, element: Element) {
        self.parting = Some(Box::new(element));
    }

    /// The `unavailable` that was held.
    pub(super) fn take_parting(&mut self) -> Option<Element> {
        self.parting.take().map(|element| *element)
    }

    /// The last available presence as a lingering session shows it: `xa`, and no claim to messages over others. `None` if the
    /// client was not available, or wanted no messages.
    pub(super) fn lingering(&self) -> Option<Bytes> {
        let element = self.available.as_ref()?;
        let node = element.node();
        let priority = node.child("priority", ns::CLIENT).and_then(|p| p.text().trim().parse::<i32>().ok());
        let priority = priority.unwrap_or_default();
        if priority < 0 {
            return None;
        }
        let mut xml = XmlWriter::new();
        xml.start("presence").start("show").text("xa").end();
        xml.start("priority").text(&priority.min(0).to_string()).end();
        for child in node.children() {
            if child.is("c", "http://jabber.org/protocol/caps") || child.is("status", ns::CLIENT) {
                write_copy(&mut xml, &child);
            }
        }
        Some(xml.finish())
    }
}

/// Copies an element without children of its own.
fn write_copy(xml: &mut XmlWriter, node: &Node<'_>) {
    xml.start(node.name());
    if node.ns() != ns::CLIENT {
        xml.attr("xmlns", node.ns());
    }
    for name in ["hash", "node", "ver", "ext"] {
        if let Some(value) = node.attr(name) {
            xml.attr(name, &value);
        }
    }
    xml.text(&node.text()).end();
}

/// Others' presence: what was not written to the client yet, and whom the client takes for available.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_sender: HashMap<String, (u64, Sort)>,
    /// Hashes of the full JIDs that the client was told are available.
    told: HashSet<u64>,
}

/// What to do with a presence stanza for a dark client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coalesced {
    /// It waits like any other stanza.
    Keep,
    /// It replaces this older one.
    Replace(u64),
    /// It and this older one cancel out.
    Cancel(u64),
}

impl Waiting {
    /// Whether an older presence of the same sender is made obsolete; [`Waiting::queued`] must follow unless they cancel out.
    pub(super) fn coalesce(&mut self, element: &Element, own: &Own) -> Coalesced {
        let node = element.node();
        let Some((from, sort)) = plain(&node) else { return Coalesced::Keep };
        let Some((older, older_sort)) = self.by_sender.remove(from.as_str()) else { return Coalesced::Keep };
        let joined = own.directed.contains(&from.to_bare());
        let visited = sort == Sort::Unavailable && older_sort == Sort::Available;
        // Who was there before must be seen to leave.
        let known = self.told.len() >= TOLD || self.told.contains(&hash(from.as_str()));
        if visited && !joined && !known { Coalesced::Cancel(older) } else { Coalesced::Replace(older) }
    }

    /// A presence stanza was queued at this place.
    pub(super) fn queued(&mut self, element: &Element, seq: u64) {
        if let Some((from, sort)) = plain(&element.node()) {
            self.by_sender.insert(from.to_string(), (seq, sort));
        }
    }

    /// A presence stanza is written to the client.
    pub(super) fn written(&mut self, element: &Element) {
        match plain(&element.node()) {
            Some((from, Sort::Available)) if self.told.len() < TOLD => {
                self.told.insert(hash(from.as_str()));
            }
            Some((from, Sort::Unavailable)) => {
                self.told.remove(&hash(from.as_str()));
            }
            _ => {}
        }
    }

    /// All that waited is written.
    pub(super) fn clear(&mut self) {
        self.by_sender = HashMap::new();
    }
}

fn hash(from: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    from.hash(&mut hasher);
    hasher.finish()
}

/// The sender of presence that only tells a state. A room's with a status code tells of an event, so it keeps its place.
fn plain(node: &Node<'_>) -> Option<(Jid, Sort)> {
    let sort = sort(node);
    let event = node.child("x", ns::MUC_USER).is_some_and(|x| x.child("status", ns::MUC_USER).is_some());
    if sort == Sort::Other || event {
        return None;
    }
    let from = Jid::new(&node.attr("from")?).ok()?;
    Some((from, sort))
}
