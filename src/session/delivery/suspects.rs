//! The part of a [`Delivery`] that applies the rules of the poison guard ([`Guard`](crate::push::guard::Guard)): it reports ends
//! of the client, writes a suspect stanza alone, and sets stanzas aside.

use std::time::Duration;

use super::Delivery;
use super::leftovers::discard;
use crate::clock::Instant;
use crate::push::guard::{End, Finding, First, Guard};
use crate::session::account::AccountView;
use crate::session::attachment_watch::AttachmentWatch;
use crate::session::client::ClientStream;
use crate::session::effects::Effects;
use crate::session::event::Event;
use crate::session::marks::{has_set_aside, mark_of, reported};
use crate::session::queue::Queued;

impl Delivery {
    fn since(&self, now: Instant, count: u32) -> Duration {
        Duration::from_millis(u64::from(self.identity.elapsed_ms(now).wrapping_sub(count)))
    }

    /// Starts the watch over an attachment.
    pub(in crate::session) fn on_attached(&mut self, now: Instant, account: &mut AccountView, effects: &mut Effects) {
        self.attachment_watch = AttachmentWatch::new(self.identity.elapsed_ms(now));
        if let Some(mut guard) = account.guard().cloned() {
            guard.age(self.identity.calendar(now), self.settings.stream_management.orphan_ttl);
            account.set_guard(guard, effects);
        }
    }

    /// Reports to the guard that the client itself ends its stream or connection.
    pub(in crate::session) fn on_client_ends(
        &mut self,
        now: Instant,
        account: &mut AccountView,
        effects: &mut Effects,
    ) {
        if !self.attachment_watch.end() {
            return;
        }
        let first = self.queue.first_unacked().map(|item| {
            let written = self.since(now, item.written());
            (item.seq, First { mark: mark_of(item), written, alone: self.attachment_watch.is_alone() })
        });
        let end = End {
            now: self.identity.calendar(now),
            lasted: self.since(now, self.attachment_watch.began()),
            first: first.map(|(_, first)| first),
            ttl: self.settings.stream_management.orphan_ttl,
        };
        let mut guard = account.guard().cloned().unwrap_or_default();
        let finding = guard.ended(end);
        account.set_guard(guard, effects);
        match (finding, first) {
            (Finding::SetAside, Some((seq, First { mark, .. }))) => {
                if let Some(stanza) = self.queue.first_unacked().filter(|item| item.seq == seq).map(reported) {
                    effects.event(Event::SetAside(stanza));
                }
                self.queue.set_written_aside(seq, mark);
                self.spool_all(account, effects);
            }
            (Finding::Suspected, Some((seq, _))) => {
                if let Some(stanza) = self.queue.first_unacked().filter(|item| item.seq == seq).map(reported) {
                    effects.event(Event::Suspected(stanza));
                }
            }
            (Finding::GivenBack(stanzas), _) => effects.event(Event::GivenBack(stanzas)),
            (Finding::SetAside | Finding::Suspected | Finding::Nothing, _) => {}
        }
    }

    /// Reports to the guard that the client has acknowledged the first `count` written stanzas.
    pub(in crate::session) fn clear_of_suspicion(
        &mut self,
        now: Instant,
        count: usize,
        account: &mut AccountView,
        effects: &mut Effects,
    ) {
        let Some(guard) = account.guard().filter(|_| count > 0) else { return };
        let mut guard = guard.clone();
        let stanzas = self.queue.marks_of_written(count, mark_of);
        guard.acknowledged(self.since(now, self.attachment_watch.began()), stanzas);
        account.set_guard(guard, effects);
        for item in self.queue.acknowledge_aside(count) {
            discard(&self.queue, &item, effects);
        }
    }

    /// Returns whether the next stanza may be written. Stanzas that the guard has set aside are taken out first. A suspect waits
    /// until everything written is acknowledged, and everything else waits until the suspect is acknowledged.
    pub(super) fn may_write_next(
        &mut self,
        now: Instant,
        client: &mut ClientStream,
        account: &AccountView,
        effects: &mut Effects,
    ) -> bool {
        let Some(guard) = account.guard().filter(|guard| guard.is_watchful()) else { return true };
        let mut next = self.queue.next_unwritten().map(mark_of);
        while let Some(mark) = next.filter(|mark| guard.has_aside(*mark)) {
            self.queue.set_next_aside(mark);
            self.spool_all(account, effects);
            next = self.queue.next_unwritten().map(mark_of);
        }
        if self.attachment_watch.is_alone() {
            return false;
        }
        let time = self.identity.calendar(now);
        if !next.is_some_and(|mark| guard.wants_alone(mark, time)) {
            return true;
        }
        if self.queue.awaits_ack() {
            client.ask_about_written(now, effects);
            return false;
        }
        self.attachment_watch.begin_alone();
        true
    }

    /// Returns whether a suspect was written alone and awaits acknowledgement.
    pub(in crate::session) fn is_alone(&self) -> bool {
        self.attachment_watch.is_alone()
    }

    /// Asks the client to acknowledge the stanza that was written alone.
    pub(super) fn ask_about_suspect(&self, now: Instant, client: &mut ClientStream, effects: &mut Effects) {
        if self.attachment_watch.is_alone() {
            client.ask_about_written(now, effects);
        }
    }

    /// Writes the stanzas that waited for the acknowledgement that just came.
    pub(in crate::session) fn go_on_behind_suspect(
        &mut self,
        now: Instant,
        client: &mut ClientStream,
        account: &AccountView,
        effects: &mut Effects,
    ) {
        if account.guard().is_none() && !self.attachment_watch.is_alone() {
            return;
        }
        if self.queue.first_unacked().is_none() {
            self.attachment_watch.on_all_acknowledged();
        }
        self.write_waiting(now, client, account, effects);
        self.ask_about_suspect(now, client, effects);
    }

    /// The stanzas that the guard has released and that are not back in the queue yet.
    pub(in crate::session) fn released<'a>(&'a self, account: &'a AccountView) -> impl Iterator<Item = &'a Queued> {
        let guard = account.guard();
        let any = guard.map_or(0, Guard::count) < self.queue.count_aside();
        self.queue.aside().filter(move |item| any && !item.is_gone() && !has_set_aside(guard, item))
    }

    /// Puts released stanzas back at their positions, unless a written stanza awaits acknowledgement.
    pub(super) fn take_back_released(&mut self, account: &AccountView) {
        let guard = account.guard();
        if guard.map_or(0, Guard::count) < self.queue.count_aside() && !self.queue.awaits_ack() {
            self.queue.take_back(|item| !guard.is_some_and(|guard| guard.has_aside(mark_of(item))));
        }
    }

    /// Puts released stanzas back at their positions and writes them, if that is possible now.
    pub(in crate::session) fn write_released(
        &mut self,
        now: Instant,
        client: &mut ClientStream,
        account: &AccountView,
        effects: &mut Effects,
    ) {
        let before = self.queue.count_aside();
        self.take_back_released(account);
        if before != self.queue.count_aside() {
            self.write_waiting(now, client, account, effects);
        }
    }
}
