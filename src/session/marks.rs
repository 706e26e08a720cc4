//! Hashes by which the poison guard ([`Guard`](crate::push::guard::Guard)) recognizes stanzas, and their form in reports.

use std::hash::{Hash, Hasher};

use aws_lc_rs::digest::{Context, SHA256};

use super::event::Reported;
use super::queue::Queued;
use crate::clock::UnixMillis;
use crate::push::guard::{Guard, Mark};
use crate::xml::{Element, ns};

/// The maximum number of characters of an id that are reported.
const ID: usize = 128;

/// Returns whether a stanza that comes now was set aside before. A stanza without an id counts as a new one.
pub(super) fn is_set_aside(guard: Option<&Guard>, element: &Element) -> bool {
    let known = |guard: &Guard| guard.count() > 0 && guard.has_aside(mark(element, None));
    guard.is_some_and(|guard| known(guard) && element.node().attr("id").is_some())
}

/// Returns whether a stanza in the queue was set aside.
pub(super) fn has_set_aside(guard: Option<&Guard>, item: &Queued) -> bool {
    guard.is_some_and(|guard| guard.count() > 0 && guard.has_aside(mark_of(item)))
}

/// The stanza as it is reported, without address and content.
pub(super) fn reported(Queued { element, .. }: &Queued) -> Reported {
    let node = element.node();
    let id = node.attr("id").map(|id| id.chars().take(ID).collect());
    Reported { name: node.name().to_owned(), id, len: element.bytes().len() }
}

/// The hash of a stanza in the queue. A stanza without an id is identified by its time as well, because a later stanza may
/// have the same content.
pub(super) fn mark_of(item: &Queued) -> Mark {
    let has_id = item.element.node().attr("id").is_some();
    mark(&item.element, (!has_id).then_some(item.received))
}

/// The hash of a stanza: addresses, type, id and children, without the elements that the server adds at each delivery.
fn mark(element: &Element, received: Option<UnixMillis>) -> Mark {
    let node = element.node();
    let mut hasher = Stable::new();
    if let Some(received) = received {
        received.hash(&mut hasher);
    }
    for value in [Some(node.name()), node.attr("type").as_deref()] {
        value.hash(&mut hasher);
    }
    for name in ["from", "to", "id"] {
        node.attr(name).as_deref().hash(&mut hasher);
    }
    let attribute = |name: &str, value: &str| {
        let mut hasher = Stable::new();
        (name, value).hash(&mut hasher);
        hasher.finish()
    };
    for child in node.children() {
        if !child.is("delay", ns::DELAY) && !child.is("stanza-id", ns::STANZA_ID) {
            child.digest(&mut hasher, attribute);
        }
    }
    Mark(hasher.finish())
}

/// A hasher with the same result in every process. It is cryptographic, so no one can construct two stanzas with one hash.
struct Stable(Context);

impl Stable {
    fn new() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Hasher for Stable {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finish();
        digest.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::element;

    #[test]
    fn a_stanza_is_the_same_whenever_it_is_delivered() {
        let stanza = |attributes: &str, inside: &str| {
            mark(&element(&format!("<message from='romeo@example.net/x'{attributes}>{inside}</message>")), None)
        };
        let known = stanza(" id='1'", "<body>a &amp; b</body>");
        for added in [
            "<delay xmlns='urn:xmpp:delay' from='example.org' stamp='2026-01-01T00:00:00Z'/>",
            "<stanza-id xmlns='urn:xmpp:sid:0' by='juliet@example.org' id='9'/>",
        ] {
            assert_eq!(stanza(" id='1'", &format!("<body>a &#38; b</body>{added}")), known);
        }
        for (attributes, inside) in [
            (" id='2'", "<body>a &amp; b</body>"),
            (" id='1'", "<body>a b</body>"),
            ("", ""),
            (" type='chat' id='1'", ""),
        ] {
            assert_ne!(stanza(attributes, inside), known, "{attributes} {inside}");
        }
        let presence =
            mark(&element("<presence from='romeo@example.net/x' id='1'><body>a &amp; b</body></presence>"), None);
        assert_ne!(presence, known);
    }

    #[test]
    fn the_hash_of_a_stanza_outlives_the_program() {
        let known = mark(&element("<message from='a@b' id='1'><x xmlns='y' z='1'/></message>"), None);
        assert_eq!(known, Mark(16_432_265_243_888_199_518));
    }
}
