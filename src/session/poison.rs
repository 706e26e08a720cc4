//! The part of a [`Session`] that applies the rules of the poison guard ([`Guard`](crate::push::guard::Guard)): it reports ends
//! of its client, writes a suspect stanza alone, and sets stanzas aside.

use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};

use super::queue::Queued;
use super::{Event, Reported, Session};
use crate::push::account::Change;
use crate::push::guard::{End, Finding, First, Guard, Mark};
use crate::xml::{Element, ns};

/// The most characters of an id that are reported.
const ID: usize = 128;

/// The state of the current attachment for the guard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Vigil {
    /// The time of its beginning: [`Session::count_of`].
    began: u32,
    /// The guard has taken its end.
    ended: bool,
    /// The first unacknowledged stanza is a suspect: nothing is written behind it until it is acknowledged.
    alone: bool,
}

impl Session {
    /// Milliseconds on a clock of the session's own, which wraps after 49 days. Only differences mean something.
    pub(super) fn count_of(&self, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.epoch.now).as_millis();
        u32::try_from(passed & u128::from(u32::MAX)).unwrap_or_default()
    }

    fn since(&self, now: Instant, count: u32) -> Duration {
        Duration::from_millis(u64::from(self.count_of(now).wrapping_sub(count)))
    }

    fn guard(&self) -> Option<&Guard> {
        self.owner.account.guard(self.owner.device)
    }

    /// The number of stanzas that are set aside for the device.
    pub fn set_aside(&self) -> usize {
        self.guard().map_or(0, Guard::count)
    }

    /// Stores the guard if it has changed.
    fn guarded(&mut self, guard: Guard) {
        if self.removed || self.guard().map_or(guard.is_empty(), |known| *known == guard) {
            return;
        }
        let change = Change::Guarded { device: self.owner.device, guard };
        self.owner.account.apply(change.clone());
        self.change(None, change);
    }

    /// Starts the watch over an attachment.
    pub(super) fn begin_vigil(&mut self, now: Instant) {
        self.vigil = Vigil { began: self.count_of(now), ..Vigil::default() };
        if let Some(mut guard) = self.guard().cloned() {
            guard.age(self.epoch.unix_ms(now), self.settings.stream_management.orphan_ttl);
            self.guarded(guard);
        }
    }

    /// Handles the end of the stream or connection by the client itself.
    pub(super) fn client_ends(&mut self, now: Instant) {
        if self.is_dark() || self.is_ending() || std::mem::replace(&mut self.vigil.ended, true) {
            return;
        }
        let first = self.queue.first_unacked().map(|item| {
            let written = self.since(now, item.written());
            (item.seq, First { mark: mark_of(item), written, alone: self.vigil.alone })
        });
        let end = End {
            now: self.epoch.unix_ms(now),
            lasted: self.since(now, self.vigil.began),
            first: first.map(|(_, first)| first),
            ttl: self.settings.stream_management.orphan_ttl,
        };
        let mut guard = self.guard().cloned().unwrap_or_default();
        let finding = guard.ended(end);
        self.guarded(guard);
        match (finding, first) {
            (Finding::SetAside, Some((seq, _))) => {
                self.queue.set_written_aside(seq);
                self.report_set_aside(seq);
                self.spool_all();
            }
            (Finding::Suspected, Some((seq, _))) => {
                if let Some(stanza) = self.queue.first_unacked().filter(|item| item.seq == seq).map(reported) {
                    self.event(Event::Suspected(stanza));
                }
            }
            (Finding::GivenBack(stanzas), _) => self.event(Event::GivenBack(stanzas)),
            (Finding::SetAside | Finding::Suspected | Finding::Nothing, _) => {}
        }
    }

    fn report_set_aside(&mut self, seq: u64) {
        let found = self.queue.aside().find(|item| item.seq == seq).map(reported);
        if let Some(stanza) = found {
            self.event(Event::SetAside(stanza));
        }
    }

    /// Tells the guard that the client has the first `count` stanzas that were written to it.
    pub(super) fn clear_of_suspicion(&mut self, now: Instant, count: usize) {
        let Some(guard) = self.guard().filter(|_| count > 0) else { return };
        let mut guard = guard.clone();
        let stanzas = self.queue.first_written(count).map(mark_of);
        guard.acknowledged(self.since(now, self.vigil.began), stanzas);
        self.guarded(guard);
        for item in self.queue.acknowledge_aside(count) {
            self.discard(&item);
        }
    }

    /// Returns whether the next stanza may be written. Stanzas that the guard has set aside are taken out first. A suspect waits
    /// until everything written is acknowledged, and everything else waits until the suspect is acknowledged.
    pub(super) fn may_write_next(&mut self, now: Instant) -> bool {
        if self.guard().is_none_or(|guard| !guard.is_watchful()) {
            return true;
        }
        while self.queue.next_unwritten().is_some_and(|next| self.has_set_aside(next)) {
            self.queue.set_next_aside();
            self.spool_all();
        }
        if self.vigil.alone {
            return false;
        }
        let unix = self.epoch.unix_ms(now);
        let next = self.queue.next_unwritten().map(mark_of);
        if !next.is_some_and(|mark| self.guard().is_some_and(|guard| guard.wants_alone(mark, unix))) {
            return true;
        }
        if self.queue.awaits_ack() {
            self.ask_what_is_written(now);
            return false;
        }
        self.vigil.alone = true;
        true
    }

    /// Asks for an acknowledgement of what was written, unless it was asked for.
    fn ask_what_is_written(&mut self, now: Instant) {
        if self.unasked > 0 {
            self.ask_client(now);
        }
    }

    /// Returns whether a stanza is written alone, and awaits its acknowledgement.
    pub(super) fn is_alone(&self) -> bool {
        self.vigil.alone
    }

    /// Asks for the acknowledgement of the stanza that was written alone.
    pub(super) fn ask_about_suspect(&mut self, now: Instant) {
        if self.is_alone() {
            self.ask_what_is_written(now);
        }
    }

    /// Writes what waited for the acknowledgement that has just come.
    pub(super) fn go_on_behind_suspect(&mut self, now: Instant) {
        if self.guard().is_none() && !self.is_alone() {
            return;
        }
        self.vigil.alone &= self.queue.first_unacked().is_some();
        self.write_waiting(now);
        self.ask_about_suspect(now);
    }

    /// Returns whether a stanza that comes now was set aside, so that it notifies nobody. Without an id it is another one.
    pub(super) fn is_set_aside(&self, element: &Element) -> bool {
        let known = |guard: &Guard| guard.count() > 0 && guard.has_aside(mark(element, None));
        self.guard().is_some_and(|guard| known(guard) && element.node().attr("id").is_some())
    }

    /// The same for one in the queue.
    pub(super) fn has_set_aside(&self, item: &Queued) -> bool {
        self.guard().is_some_and(|guard| guard.count() > 0 && guard.has_aside(mark_of(item)))
    }

    /// Stanzas that the guard has released and that still have to go back to their places.
    pub(super) fn released(&self) -> impl Iterator<Item = &Queued> {
        let any = self.set_aside() < self.queue.count_aside();
        self.queue.aside().filter(move |item| any && !item.is_gone() && !self.has_set_aside(item))
    }

    /// Puts released stanzas back in their places, unless a written stanza still awaits its acknowledgement.
    pub(super) fn take_back_released(&mut self) {
        if self.set_aside() < self.queue.count_aside() && !self.queue.awaits_ack() {
            let guard = self.guard().cloned().unwrap_or_default();
            self.queue.take_back(|item| !guard.has_aside(mark_of(item)));
        }
    }

    /// Puts released stanzas back in their places and writes them, if that is possible now.
    pub(super) fn write_released(&mut self, now: Instant) {
        let before = self.queue.count_aside();
        self.take_back_released();
        if before != self.queue.count_aside() {
            self.write_waiting(now);
        }
    }
}

/// The stanza as it is reported: no address and no content.
fn reported(Queued { element, .. }: &Queued) -> Reported {
    let node = element.node();
    let id = node.attr("id").map(|id| id.chars().take(ID).collect());
    Reported { name: node.name().to_owned(), id, len: element.bytes().len() }
}

/// The hash of a stanza in the queue. One without an id is known by when it came: others may say the same later.
fn mark_of(item: &Queued) -> Mark {
    let has_id = item.element.node().attr("id").is_some();
    mark(&item.element, (!has_id).then_some(item.received))
}

/// The hash of a stanza: addresses, type, id and children, without the elements that the server adds at each delivery.
fn mark(element: &Element, received: Option<u64>) -> Mark {
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

/// A hasher with the same result in every process, for which nobody can construct two stanzas with one hash.
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
