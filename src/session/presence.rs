//! Presence: the client's last own presence, the addresses that it sends directed presence to, and presence of others that
//! need not wait twice.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use bytes::Bytes;

use crate::hash::keyed;
use crate::jid::Jid;
use crate::seq::Seq;
use crate::xml::{Element, Kind, Node, XmlWriter, ns};

/// The number of rooms and others that the client sends presence to; further ones are treated as unknown.
const DIRECTED: usize = 1024;

/// The bytes of a client's own presence that are kept.
const LINGERING: usize = 4096;

/// The number of senders whose waiting presence may be coalesced. Presence of further senders waits like any other stanza.
const SENDERS: usize = 4096;

/// The bytes of a hash in a set, and of a hash with a sequence number.
const HASH: usize = 14;
const PLACE: usize = 40;

/// The number of contacts that the client is remembered to see as available. Beyond it, presence pairs are never cancelled
/// out.
const SHOWN: usize = 4096;

/// The meaning of a presence stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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

/// The possibility that the session stays for its pushes if the client closes its stream after an `unavailable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linger {
    Possible,
    Impossible,
}

/// The client's own presence.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct OwnPresence {
    /// The key of the hashes.
    key: u64,
    /// True if the client is available to everyone.
    available: bool,
    /// Its last broadcast of available presence, as a lingering session shows it.
    lingering: Option<Bytes>,
    /// A broadcast `unavailable` that waits for the next frame.
    parting: Option<Box<Element>>,
    /// Hashes of the bare JIDs that the client sends presence to.
    directed: BTreeSet<u64>,
}

impl OwnPresence {
    /// Creates the presence of a client that has sent none. `key` is random.
    pub(super) fn new(key: u64) -> Self {
        Self { key, available: false, lingering: None, parting: None, directed: BTreeSet::new() }
    }

    /// Notes a presence stanza of the client, and returns whether it is an available broadcast.
    pub(super) fn sent(&mut self, element: &Element) -> bool {
        let node = element.node();
        let (sort, to) = (sort(&node), node.attr("to").map(|to| Jid::new(&to)));
        match (sort, to) {
            (Sort::Available, None) => (self.available, self.lingering) = (true, lingering(&node)),
            (Sort::Unavailable, None) => (self.available, self.lingering) = (false, None),
            (Sort::Available, Some(to)) if self.directed.len() < DIRECTED => {
                let to = self.hash(&to);
                self.directed.insert(to);
            }
            (Sort::Unavailable, Some(to)) => {
                let to = self.hash(&to);
                self.directed.remove(&to);
            }
            _ => {}
        }
        sort == Sort::Available && node.attr("to").is_none()
    }

    /// Returns whether the client is available to everyone.
    pub(super) fn is_available(&self) -> bool {
        self.available
    }

    /// Returns whether the client sends presence to this address.
    fn is_joined(&self, to: &Jid) -> bool {
        self.directed.contains(&self.hash(to))
    }

    fn hash(&self, jid: &Jid) -> u64 {
        hash(self.key, jid.bare())
    }

    /// The bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        let held = self.parting.as_ref().map_or(0, |parting| parting.bytes().len());
        held + self.lingering.as_ref().map_or(0, |lingering| lingering.len()) + self.directed.len() * HASH
    }

    /// Returns whether this is a broadcast `unavailable`.
    pub(super) fn is_parting(element: &Element) -> bool {
        let node = element.node();
        element.kind() == Kind::Presence && sort(&node) == Sort::Unavailable && node.attr("to").is_none()
    }

    /// Holds a broadcast `unavailable` until the client's next frame.
    pub(super) fn part(&mut self, element: Element) {
        self.parting = Some(Box::new(element));
    }

    /// Takes the `unavailable` that was held.
    pub(super) fn take_parting(&mut self) -> Option<Element> {
        self.parting.take().map(|element| *element)
    }

    /// The last available presence as a lingering session shows it: `xa`, and with no priority over other clients. `None`
    /// if the client was not available, or wanted no messages.
    pub(super) fn lingering(&self) -> Option<Bytes> {
        self.lingering.clone()
    }
}

/// Returns an available presence as a lingering session shows it. Status and capabilities are left out if they are too
/// long.
fn lingering(presence: &Node<'_>) -> Option<Bytes> {
    let priority = presence.child("priority", ns::CLIENT).and_then(|p| p.text().trim().parse::<i32>().ok());
    let priority = priority.unwrap_or_default();
    if priority < 0 {
        return None;
    }
    let mut xml = XmlWriter::new();
    xml.start("presence").start("show").text("xa").end();
    xml.start("priority").text(&priority.min(0).to_string()).end();
    for child in presence.children() {
        if child.is("c", "http://jabber.org/protocol/caps") || child.is("status", ns::CLIENT) {
            write_copy(&mut xml, &child);
        }
    }
    let shown = xml.finish();
    if shown.len() <= LINGERING {
        return Some(shown);
    }
    let mut xml = XmlWriter::new();
    xml.start("presence").start("show").text("xa").end();
    xml.start("priority").text(&priority.min(0).to_string());
    Some(xml.finish())
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

/// Hashes an address with a random key, so that no one can choose addresses that collide.
fn hash(key: u64, address: &str) -> u64 {
    let mut hasher = keyed(key);
    address.hash(&mut hasher);
    hasher.finish()
}

/// Presence of others: stanzas not written to the client yet, and contacts that the client sees as available.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Waiting {
    /// The key of the hashes.
    key: u64,
    /// The waiting stanzas, by a hash of the full JID.
    by_sender: BTreeMap<u64, (Seq, Sort)>,
    /// Hashes of the full JIDs that the client sees as available.
    shown_available: BTreeSet<u64>,
}

/// The action for a presence stanza for a dark client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coalesced {
    /// It waits like any other stanza.
    Keep,
    /// It replaces this older one.
    Replace(Seq),
    /// It and this older one cancel out.
    Cancel(Seq),
}

impl Waiting {
    /// Creates the state before any presence. `key` is random.
    pub(super) fn new(key: u64) -> Self {
        Self { key, by_sender: BTreeMap::new(), shown_available: BTreeSet::new() }
    }

    /// Decides whether an older presence of the same sender is obsolete. [`Waiting::queued`] must follow unless they cancel
    /// out.
    pub(super) fn coalesce(&mut self, element: &Element, own: &OwnPresence) -> Coalesced {
        let node = element.node();
        let Some((from, sort)) = plain(&node) else { return Coalesced::Keep };
        let Some((older, older_sort)) = self.by_sender.remove(&hash(self.key, from.as_str())) else {
            return Coalesced::Keep;
        };
        let joined = own.is_joined(&from);
        let visited = sort == Sort::Unavailable && older_sort == Sort::Available;
        // The client must see a contact leave that was available before.
        let known =
            self.shown_available.len() >= SHOWN || self.shown_available.contains(&hash(self.key, from.as_str()));
        if visited && !joined && !known { Coalesced::Cancel(older) } else { Coalesced::Replace(older) }
    }

    /// Notes that a presence stanza was queued with this number.
    pub(super) fn queued(&mut self, element: &Element, seq: Seq) {
        if let Some((from, sort)) = plain(&element.node()) {
            let sender = hash(self.key, from.as_str());
            if self.by_sender.len() < SENDERS || self.by_sender.contains_key(&sender) {
                self.by_sender.insert(sender, (seq, sort));
            }
        }
    }

    /// Notes that a presence stanza is written to the client.
    pub(super) fn written(&mut self, element: &Element) {
        match plain(&element.node()) {
            Some((from, Sort::Available)) if self.shown_available.len() < SHOWN => {
                self.shown_available.insert(hash(self.key, from.as_str()));
            }
            Some((from, Sort::Unavailable)) => {
                self.shown_available.remove(&hash(self.key, from.as_str()));
            }
            _ => {}
        }
    }

    /// Forgets the waiting stanzas, because all of them are written.
    pub(super) fn clear(&mut self) {
        self.by_sender.clear();
    }

    /// The bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        self.by_sender.len() * PLACE + self.shown_available.len() * HASH
    }
}

/// The sender of presence that only reports a state. Presence of a room with a status code reports an event, so it is not
/// coalesced.
fn plain(node: &Node<'_>) -> Option<(Jid, Sort)> {
    let sort = sort(node);
    let event = node.child("x", ns::MUC_USER).is_some_and(|x| x.child("status", ns::MUC_USER).is_some());
    if sort == Sort::Other || event {
        return None;
    }
    let from = Jid::new(&node.attr("from")?);
    Some((from, sort))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::element;

    #[test]
    fn a_long_presence_is_remembered_in_short() {
        let mut own = OwnPresence::new(1);
        let status = "x".repeat(1 << 20);
        assert!(own.sent(&element(&format!("<presence><status>{status}</status><priority>5</priority></presence>"))));
        let shown = "<presence><show>xa</show><priority>0</priority></presence>";
        assert_eq!((own.is_available(), own.lingering()), (true, Some(shown.into())));
        own.sent(&element(&format!("<presence><status>{status}</status><priority>-1</priority></presence>")));
        assert_eq!((own.is_available(), own.lingering()), (true, None));
        assert!(own.memory() < 2 * LINGERING);
    }

    #[test]
    fn what_is_kept_of_presence_is_bounded() {
        let (mut own, mut waiting) = (OwnPresence::new(1), Waiting::new(1));
        for n in 0..SENDERS + 1000 {
            let long = "x".repeat(1000);
            own.sent(&element(&format!("<presence to='{n}{long}@{n}.example/{long}'/>")));
            let presence = element(&format!("<presence from='{n}{long}@{n}.example/{long}'/>"));
            waiting.queued(&presence, Seq::new(n as u64));
            waiting.written(&presence);
        }
        assert!(own.memory() < 64 << 10 && waiting.memory() < 512 << 10, "{} {}", own.memory(), waiting.memory());
        own.part(element(&format!("<presence type='unavailable'><status>{}</status></presence>", "x".repeat(5000))));
        assert!(own.memory() > 5000, "what is held counts");
        waiting.clear();
        assert!(waiting.memory() < 128 << 10);
    }
}
