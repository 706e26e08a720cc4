//! Messages that may come a second time: a server whose connection broke sends unacknowledged messages again, but Pushward
//! has kept them.
//!
//! Of each kept message two hashes are remembered: of the id that the own archive has given it, and of its content. A
//! second delivery is recognized by its `<delay/>`, which only the own host or account may have written.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::archive::own_stanza_id;
use crate::clock::UnixMillis;
use crate::hash::keyed;
use crate::jid::{BareJid, Jid};
use crate::xml::{Element, Kind, Node, ns};

/// The number of kept messages that are remembered per device.
const MOST: usize = 1000;
/// The time for which each is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// The record of a message that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct RepeatedMessage {
    /// The time until which it is remembered.
    until: UnixMillis,
    marks: Marks,
}

/// The hashes that identify a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Marks {
    /// The hash of the sender and the id in the own archive.
    archived: Option<u64>,
    /// The hash of addresses, type, id and children; `None` without an id.
    content: Option<u64>,
}

/// The account whose messages are compared, and the key of the hashes.
#[derive(Clone, Copy)]
pub(super) struct OwnMessages<'a> {
    pub(super) account: &'a BareJid,
    pub(super) seed: u64,
}

/// The messages that a device's sessions have kept when their servers' connections broke, oldest first.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct KeptMessages(VecDeque<RepeatedMessage>);

impl KeptMessages {
    /// Returns whether nothing is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of remembered messages.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds all messages of another memory.
    pub(super) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
        self.0.make_contiguous().sort_by_key(|copy| copy.until);
        self.shorten();
    }

    /// Forgets messages that are too old.
    fn age(&mut self, now: UnixMillis) {
        self.0.retain(|copy| copy.until > now);
        if self.0.is_empty() {
            self.0 = VecDeque::new();
        }
    }

    /// Remembers a message that was kept.
    pub(super) fn keep(&mut self, now: UnixMillis, message: &Element, own: OwnMessages<'_>) {
        let marks = own.marks(message);
        if marks.archived.is_some() || marks.content.is_some() {
            self.0.push_back(RepeatedMessage { until: now.plus(REMEMBERED), marks });
            self.shorten();
        }
    }

    fn shorten(&mut self) {
        self.0.drain(..self.0.len().saturating_sub(MOST));
    }

    /// Returns whether a message that comes late is the second delivery of a kept one. Each is taken for one only once.
    pub(super) fn absorbs(&mut self, now: UnixMillis, message: &Element, own: OwnMessages<'_>) -> bool {
        if self.is_empty() {
            return false;
        }
        self.age(now);
        let marks = own.marks(message);
        let known = self.0.iter().position(|copy| copy.marks.are_those_of(marks));
        known.and_then(|at| self.0.remove(at)).is_some()
    }

    /// The bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        self.0.capacity() * size_of::<RepeatedMessage>()
    }
}

impl Marks {
    fn are_those_of(self, other: Self) -> bool {
        match (self.archived, other.archived) {
            (Some(one), Some(other)) => one == other,
            _ => self.content.is_some() && self.content == other.content,
        }
    }
}

impl OwnMessages<'_> {
    /// Returns whether the server itself marks a message as delayed (XEP-0203).
    pub(super) fn comes_late(self, message: &Element) -> bool {
        let by_own = |delay: &Node<'_>| {
            let from = delay.attr("from").map(|from| Jid::new(&from));
            from.is_some_and(|from| from == *self.account || from.as_str() == self.account.domain())
        };
        message.kind() == Kind::Message
            && message.mentions(ns::DELAY)
            && message.node().children().any(|child| child.is("delay", ns::DELAY) && by_own(&child))
    }

    fn marks(self, message: &Element) -> Marks {
        let node = message.node();
        let archived = own_stanza_id(message, self.account).map(|id| {
            let mut hasher = keyed(self.seed);
            node.attr("from").hash(&mut hasher);
            id.hash(&mut hasher);
            hasher.finish()
        });
        Marks { archived, content: node.attr("id").is_some().then(|| self.content(&node)) }
    }

    fn content(self, node: &Node<'_>) -> u64 {
        let mut hasher = keyed(self.seed);
        for name in ["from", "to", "id"] {
            node.attr(name).hash(&mut hasher);
        }
        // RFC 6121 §5.2.2: a message without a type is normal.
        node.attr("type").as_deref().unwrap_or("normal").hash(&mut hasher);
        let attribute = |name: &str, value: &str| {
            let mut hasher = keyed(self.seed);
            (name, value).hash(&mut hasher);
            hasher.finish()
        };
        for child in node.children() {
            // The id of the own archive may be missing in the other delivery.
            if !child.is("delay", ns::DELAY) && !child.is("stanza-id", ns::STANZA_ID) {
                child.digest(&mut hasher, attribute);
            }
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::DeviceMemory;
    use crate::session::tests::element;

    const DELAY: &str = "<delay xmlns='urn:xmpp:delay' from='example.org' stamp='2026-01-01T00:00:00Z'/>";

    fn message(id: &str, inside: &str) -> Element {
        element(&format!("<message from='romeo@example.net/x' to='juliet@example.org/phone'{id}>{inside}</message>"))
    }

    fn late(id: &str, inside: &str) -> Element {
        message(id, &format!("{inside}{DELAY}"))
    }

    fn check(kept: &Element, comes: &Element, absorbed: bool) {
        let account = BareJid::new("juliet@example.org").unwrap();
        let own = OwnMessages { account: &account, seed: 7 };
        let memory = DeviceMemory::default();
        memory.keep(UnixMillis::new(0), std::iter::once(kept), own);
        assert_eq!(memory.absorbs(UnixMillis::new(1), comes, own), absorbed, "{:?}", comes.bytes());
        assert!(!memory.absorbs(UnixMillis::new(1), comes, own), "each absorbs one delivery");
    }

    #[test]
    fn a_message_that_the_server_sends_late_is_known_by_all_that_it_says() {
        let kept = message(" id='1'", "<body>a &amp; b</body><x xmlns='y' a='1' b='2'/>");
        check(&kept, &late(" type='normal' id='1'", "<body>a &#38; b</body><x b=\"2\" xmlns='y' a='1'></x>"), true);
        check(&kept, &kept, false);
        for inside in ["<body>a</body><x xmlns='y' a='1' b='2'/>", "<body>a &amp; b</body><x xmlns='y' a='2' b='1'/>"] {
            check(&kept, &late(" id='1'", inside), false);
        }
        check(&kept, &late(" id='2'", "<body>a &amp; b</body><x xmlns='y' a='1' b='2'/>"), false);
        check(&message("", "<body>b</body>"), &late("", "<body>b</body>"), false);
    }

    #[test]
    fn only_the_own_host_or_account_says_that_a_message_comes_late() {
        let kept = message(" id='1'", "<body>b</body>");
        for (from, absorbed) in [
            (" from='example.org'", true),
            (" from='juliet@example.org'", true),
            (" from='juliet@example.org/phone'", false),
            (" from='romeo@example.net'", false),
            ("", false),
        ] {
            let delay = format!("<delay xmlns='urn:xmpp:delay'{from} stamp='2026-01-01T00:00:00Z'/>");
            check(&kept, &message(" id='1'", &format!("<body>b</body>{delay}")), absorbed);
        }
    }

    #[test]
    fn where_the_archive_has_given_ids_they_decide() {
        let archived = |id: &str| format!("<stanza-id xmlns='urn:xmpp:sid:0' by='juliet@example.org' id='{id}'/>");
        let kept = message("", &format!("<body>b</body>{}", archived("1")));
        check(&kept, &late("", &format!("<body>changed</body>{}", archived("1"))), true);
        check(&kept, &late("", &format!("<body>b</body>{}", archived("2"))), false);
        check(
            &message(" id='1'", "<body>b</body>"),
            &late(" id='1'", &format!("<body>b</body>{}", archived("1"))),
            true,
        );
    }

    #[test]
    fn the_newest_thousand_are_remembered_for_an_hour() {
        let account = BareJid::new("juliet@example.org").unwrap();
        let own = OwnMessages { account: &account, seed: 7 };
        let mut memory = KeptMessages::default();
        let end = UnixMillis::new(0).plus(REMEMBERED);
        let id = |n: usize| format!(" id='{n}'");
        (0..=MOST).for_each(|n| memory.keep(UnixMillis::new(0), &message(&id(n), ""), own));
        let mut other = KeptMessages::default();
        other.keep(UnixMillis::new(1), &message(" id='other'", ""), own);
        memory.add(other);
        assert_eq!(memory.len(), MOST);
        for (n, absorbed) in [(0, false), (1, false), (2, true)] {
            assert_eq!(memory.absorbs(end.minus(Duration::from_millis(1)), &late(&id(n), ""), own), absorbed, "{n}");
        }
        assert!(!memory.absorbs(end, &late(&id(3), ""), own));
        assert_eq!(memory.len(), 1);
        memory.age(end.plus(Duration::from_millis(1)));
        assert_eq!(memory.memory(), 0);
    }
}
