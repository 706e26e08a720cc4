//! Calls for a live device. It is notified by push if it does not acknowledge them.

use super::situation::Situation;
use super::{HoldEnd, Notifier};
use crate::clock::Instant;
use crate::push::classify::{Class, Classified};
use crate::push::notification::{Detail, Summary};
use crate::push::pusher::{Arrival, Verdict};
use crate::push::waiting::Facts;
use crate::seq::Seq;
use crate::session::account::AccountView;
use crate::session::effects::Effects;
use crate::session::event::Event;
use crate::session::ringing::{PATIENCE, Ringing};

impl Notifier {
    /// Starts a call for a live client. The client has five seconds to acknowledge it, unless it wants calls by push alone.
    pub(super) fn ring(
        &mut self,
        now: Instant,
        seq: Seq,
        reading: &Classified<'_>,
        account: &AccountView,
        effects: &mut Effects,
    ) {
        let Ok(audience) = self.audience(reading, account) else { return };
        self.ringing.get_or_insert(Ringing::new(now, seq));
        let by_push = self.settings.push.jingle;
        let wanted =
            by_push && account.owned().enumerate().any(|(place, r)| r.extensions.jingle && audience.has(place));
        if wanted && self.pusher.rings(now, self.facts(reading)) {
            effects.event(Event::Judged(Verdict::Ring));
            let summary = Summary::new(&self.settings.push, self.pusher.counts(0), Some(Detail::of(reading)));
            self.publish_where(&summary, |place, r| r.extensions.jingle && audience.has(place), account, effects);
        }
    }

    /// Pushes a call that a live client has not acknowledged in time.
    pub(in crate::session) fn on_call_timeout(
        &mut self,
        now: Instant,
        situation: Situation<'_>,
        effects: &mut Effects,
    ) -> HoldEnd {
        let Situation { account, delivery, unreachable_since } = situation;
        let ringing = self.ringing.take_if(|ringing| ringing.until() <= now)?;
        let stanza = &delivery.queue().find(ringing.seq())?.element;
        let reading = self.read(stanza);
        let (facts, audience) = (self.facts(&reading), self.audience(&reading, account));
        let arrival = Arrival { since: now, age: PATIENCE, seq: ringing.seq(), facts, audience };
        if unreachable_since.is_some() {
            return None;
        }
        self.judge(now, arrival, &reading, account, effects);
        self.push_due(now, situation, effects)
    }

    /// Extends the deadline of a call, because the client was not read for a while and its acknowledgement may have come.
    pub(in crate::session) fn on_client_unpaused(&mut self, now: Instant) {
        self.ringing = self.ringing.map(|ringing| ringing.prolonged(now));
    }

    /// Notifies the registrations that take calls by push alone, and were notified of the call, that it has ended.
    pub(super) fn end_call(
        &mut self,
        reading: &Classified<'_>,
        facts: Facts,
        account: &AccountView,
        effects: &mut Effects,
    ) {
        if reading.class != Class::CallEnd || !self.pusher.call_over(facts) {
            return;
        }
        self.ringing = None;
        let by_push = self.settings.push.jingle;
        let summary = Summary::new(&self.settings.push, self.pusher.counts(0), Some(Detail::of(reading)));
        self.publish_where(&summary, |_, r| by_push && r.extensions.jingle, account, effects);
    }
}
