//! The device's side of a session: the stream to its client, its account, the stanzas that it does not have, and its push
//! notifications. `Session` owns one [`DeviceSide`].
//!
//! | file | contents |
//! |---|---|
//! | `stanzas` | stanzas from and to the client; loss and resumption of its connection |
//! | `store` | answers of the store and of push services: the account, publishes, stanzas on disk |

mod stanzas;
mod store;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::account::AccountView;
use super::backlog::{BacklogReading, EarlierSessions};
use super::client::ClientStream;
use super::contract::{Orphans, Output};
use super::csi::Activity;
use super::delivery::Delivery;
use super::effects::Effects;
use super::event::Event;
use super::identity::{Identity, Owner};
use super::liveness::{Alarm, Liveness};
use super::notifier::Notifier;
use super::orphans::OrphanSearch;
use super::presence::OwnPresence;
use super::refill::ReadAgain;
use super::server::ServerStream;
use super::settings::Settings;
use super::sm::nonza::Enabled;
use super::spool_refusal::ASK_AGAIN;
use super::succession::{NewerSession, Successor};
use crate::clock::Instant;
use crate::push::account::Change;
use crate::xml::{Element, Frame, Header, HeaderPool};

/// The device's side of a session.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct DeviceSide {
    #[serde(skip)]
    identity: Arc<Identity>,
    #[serde(skip)]
    settings: Arc<Settings>,
    client: ClientStream,
    account: AccountView,
    delivery: Delivery,
    notifier: Notifier,
    presence: OwnPresence,
    backlog: BacklogReading,
    orphans: OrphanSearch,
    succession: NewerSession,
}

/// The state of a client at its bind.
pub(super) struct DeviceArrival {
    /// The header of the stream that the client reads.
    pub(super) header: Arc<Header>,
    pub(super) activity: Activity,
}

/// The consequence of a client's silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// No consequence.
    Tolerated,
    /// The connection is given up.
    Lost,
    /// The session was not resumed in time.
    Expired,
}

impl DeviceSide {
    pub(super) fn new(identity: Arc<Identity>, settings: Arc<Settings>, arrival: DeviceArrival, owner: Owner) -> Self {
        let liveness = Liveness::new(&settings.stream_management, identity.clock().now);
        let DeviceArrival { header, activity } = arrival;
        let backlog = BacklogReading::new(EarlierSessions::of(&owner));
        let account = AccountView::new(Arc::clone(&identity), owner);
        Self {
            client: ClientStream::new(Arc::clone(&identity), header, activity, liveness),
            delivery: Delivery::new(Arc::clone(&identity), Arc::clone(&settings)),
            notifier: Notifier::new(Arc::clone(&identity), Arc::clone(&settings), &account),
            account,
            presence: OwnPresence::new(settings.seed),
            backlog,
            orphans: OrphanSearch::default(),
            succession: NewerSession::default(),
            identity,
            settings,
        }
    }

    /// Completes a device's side that was read from a record, except for its settings. Returns whether it is consistent.
    pub(super) fn restore(&mut self, identity: &Arc<Identity>, headers: &mut HeaderPool<'_>) -> bool {
        self.client.restore(identity, headers);
        self.account.restore(identity);
        self.notifier.restore(identity, headers);
        self.backlog.restore(headers);
        self.identity = Arc::clone(identity);
        self.delivery.restore(identity, headers)
    }

    pub(super) fn on_settings(&mut self, settings: Arc<Settings>) {
        self.client.on_settings(&settings);
        self.delivery.on_settings(Arc::clone(&settings));
        self.notifier.on_settings(Arc::clone(&settings));
        self.settings = settings;
    }

    // Access to components

    pub(super) fn client(&self) -> &ClientStream {
        &self.client
    }

    pub(super) fn account(&self) -> &AccountView {
        &self.account
    }

    pub(super) fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    pub(super) fn backlog(&self) -> &BacklogReading {
        &self.backlog
    }

    pub(super) fn client_mut(&mut self) -> &mut ClientStream {
        &mut self.client
    }

    pub(super) fn account_mut(&mut self) -> &mut AccountView {
        &mut self.account
    }

    pub(super) fn delivery_mut(&mut self) -> &mut Delivery {
        &mut self.delivery
    }

    pub(super) fn backlog_mut(&mut self) -> &mut BacklogReading {
        &mut self.backlog
    }

    /// The bytes of memory in addition to the queue. Each part is bounded.
    pub(super) fn memory(&self) -> usize {
        let stanzas = self.delivery.memory() + self.presence.memory();
        stanzas + self.notifier.memory() + self.account.promised()
    }

    // Holding the session without its client

    /// Returns whether the session is held without its client.
    pub(super) fn is_to_be_held(&self) -> bool {
        self.client.resumption_id().id().is_some() || self.account.has_registration()
    }

    /// The time for which the session is held without its client.
    fn hold(&self) -> Duration {
        if self.account.has_registration() {
            return self.settings.hibernation.max_timeout;
        }
        self.client.hold(&self.settings)
    }

    /// Returns whether the session stays for its pushes when the client closes its stream, as it does when an app is
    /// suspended.
    fn may_linger(&self) -> bool {
        self.account.has_registration() && self.lingers()
    }

    /// The same as `may_linger`, but a registration that is being stored counts as well.
    pub(super) fn may_come_to_linger(&self) -> bool {
        (self.account.has_registration() || self.account.awaits_registration()) && self.lingers()
    }

    fn lingers(&self) -> bool {
        self.settings.hibernation.linger && !self.succession.has_successor() && self.presence.is_available()
    }

    // A newer session

    /// Returns whether a newer session of the device exists.
    pub(super) fn has_successor(&self) -> bool {
        self.succession.has_successor()
    }

    /// Notes that a newer session of the device has logged in, or is gone. Returns whether this session has to end at once.
    pub(super) fn on_successor(&mut self, now: Instant, successor: Option<Successor>, effects: &mut Effects) -> bool {
        let Some(Successor { same_address }) = successor else {
            self.succession.forget();
            return false;
        };
        if self.client.is_dark() || same_address {
            return true;
        }
        self.succession.ask(now);
        self.client.track_by_ping();
        self.client.ask(now, effects);
        false
    }

    /// Returns whether the client has shown no sign of life in time. The newer session then replaces this one.
    pub(super) fn is_superseded(&self, now: Instant) -> bool {
        self.succession_deadline().is_some_and(|at| at <= now)
    }

    /// The time at which the client counts as silent. `None` while it is not read.
    fn succession_deadline(&self) -> Option<Instant> {
        self.succession.deadline().filter(|_| !self.client.is_paused())
    }

    /// Notes that the client has sent a frame.
    pub(super) fn on_frame(&mut self, now: Instant, effects: &mut Effects) {
        self.client.on_frame(now);
        if self.succession.on_sign_of_life() {
            effects.push(Output::BothStay);
        }
    }

    /// The presence to send for a session that stays for its pushes after its client left; `None` if the session does not
    /// stay.
    pub(super) fn lingering_presence(&self) -> Option<Bytes> {
        self.presence.lingering().filter(|_| self.may_linger())
    }

    /// Takes the `unavailable` presence of a client that closes its stream.
    pub(super) fn take_parting(&mut self) -> Option<Element> {
        self.presence.take_parting()
    }

    /// Retires the resumption id, and saves the count of the client's stanzas for it.
    pub(super) fn retire_id(&mut self, server: &ServerStream, effects: &mut Effects) {
        if self.client.retire_id() {
            self.save_tombstone(server, effects);
        }
    }

    /// Saves the count for the retired id again when the server confirms more, so that the client does not send those stanzas
    /// again.
    pub(super) fn save_tombstone(&mut self, server: &ServerStream, effects: &mut Effects) {
        if !self.account.is_removed() {
            self.client.save_tombstone(server.handled(), effects);
        }
    }

    /// Puts on disk what the device's next session needs if no other process goes on with this one.
    pub(super) fn on_hand_over(&mut self, server: &ServerStream, effects: &mut Effects) {
        self.spool_all(effects);
        let id = self.client.resumption_id().id().filter(|_| !self.account.is_removed()).cloned();
        id.into_iter().for_each(|id| effects.push(Output::SaveTombstone { id, h: server.handled() }));
    }

    // Stream management of the client

    /// Enables the client's stream management. XEP-0198 §4: both counters are zero from here on. `preceding` stanzas were
    /// sent before and are not known to have arrived.
    pub(super) fn on_enabled(
        &mut self,
        enabled: Enabled,
        preceding: usize,
        server: &mut ServerStream,
        effects: &mut Effects,
    ) {
        if let Some(id) = self.client.on_enabled(enabled, preceding) {
            let (device, sm_id) = (self.account.device(), id.as_str().to_owned());
            self.account.change(Change::Resumable { device, sm_id }, effects);
            effects.push(Output::Resumable(id));
        }
        server.on_client_enabled();
        if self.backlog.on_enabled() {
            self.take_over_if_settled(effects);
        }
    }

    /// Tracks a client with a registration or a backlog by pings if it has no stream management.
    pub(super) fn track_if_needed(&mut self) {
        let has_backlog = self.delivery.queue().has_tail() || self.backlog.holds_presence();
        if has_backlog || self.account.has_registration() {
            self.client.track_by_ping();
        }
    }

    /// Returns whether an `<a/>` may be sent to the client: it is connected, and everything that it missed has been written.
    pub(super) fn may_answer(&self) -> bool {
        let replaying = self.client.is_resuming() || self.delivery.queue().has_tail();
        !self.client.is_dark() && !replaying && self.client.counts()
    }

    /// Sends the client its `<a/>`, if one is due. It is never sent before a replay.
    pub(super) fn answer(&mut self, now: Instant, server: &mut ServerStream, effects: &mut Effects) {
        if self.may_answer() {
            let count = server.take_answers(now);
            self.client.send_acks(count, server.handled(), effects);
        }
    }

    /// Asks the client what it has read, if there is something to ask and the pause between two questions is over.
    pub(super) fn ask_if_due(&mut self, now: Instant, effects: &mut Effects) {
        let is_paused = self.client.question_pause().is_some_and(|until| until > now);
        if self.delivery.has_unread() && self.client.may_be_asked() && !is_paused {
            self.client.ask(now, effects);
        }
    }

    /// Makes a frame of the client wait if it came after a waiting presence. Otherwise returns it.
    pub(super) fn follow(&mut self, frame: Frame) -> Option<Frame> {
        self.backlog.follow(frame, |element| self.client.is_ping_answer(element))
    }

    /// Notes that the client itself ends its stream or connection.
    pub(super) fn on_client_ends(&mut self, now: Instant, effects: &mut Effects) {
        if self.client.is_open() {
            self.delivery.on_client_ends(now, &mut self.account, effects);
        }
    }

    // Time

    /// Handles the client's alarm that is due.
    pub(super) fn on_alarm(&mut self, now: Instant, server: &mut ServerStream, effects: &mut Effects) -> Silence {
        match self.client.on_timeout(now) {
            Some(Alarm::Probe) => self.client.ask(now, effects),
            Some(Alarm::Suspect) => {
                effects.event(Event::Suspect);
                self.push_for_waiting(now, server, effects);
            }
            Some(Alarm::GiveUp) => return Silence::Lost,
            Some(Alarm::Wake) => self.notify(effects, |notifier, situation, effects| {
                notifier.wake(situation, effects);
                None
            }),
            Some(Alarm::Expired) => return Silence::Expired,
            None => {}
        }
        Silence::Tolerated
    }

    /// Adopts orphans, repeats failed disk reads, and sends the pushes that are due.
    pub(super) fn on_timeout(&mut self, now: Instant, server: &mut ServerStream, effects: &mut Effects) {
        self.take_orphans(now, effects);
        let again = self.delivery.on_timeout(now, &self.account, effects);
        if again == Some(ReadAgain::Spools) {
            self.take_over(effects);
        }
        if again.is_some() {
            self.refill_if_there(now, server, effects);
        }
        if !self.client.is_paused() {
            self.notify(effects, |notifier, situation, effects| notifier.on_call_timeout(now, situation, effects));
        }
        self.push_due(now, server, effects);
    }

    /// Schedules the adoption of stanzas that no other device fetches, some time after the first presence.
    fn await_orphans(&mut self, now: Instant) {
        if self.account.has_other_devices() {
            self.orphans.begin(now + self.settings.stream_management.orphan_grace);
        }
    }

    fn take_orphans(&mut self, now: Instant, effects: &mut Effects) {
        let Some(orphans) = self.orphans.on_timeout(now) else { return };
        if !self.delivery.spool_accepts() {
            return self.orphans.postpone(now + ASK_AGAIN, orphans);
        }
        self.adopt(orphans, effects);
        self.orphans.on_adopted(now, orphans, self.settings.stream_management.resume_timeout);
    }

    /// Moves orphans to this session's spool. They come after the stanzas that wait already.
    pub(super) fn adopt(&mut self, orphans: Orphans, effects: &mut Effects) {
        self.delivery.adopt(orphans, &self.account, effects);
        self.track_if_needed();
    }

    /// Starts the clocks again when the client is read again.
    pub(super) fn on_unpaused(&mut self, now: Instant) {
        self.client.on_unpaused(now);
        self.notifier.on_client_unpaused(now);
        self.succession.on_client_unpaused(now);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let asks = self.delivery.has_unread() && self.client.may_be_asked();
        [
            self.client.deadline(),
            self.client.question_pause().filter(|_| asks),
            self.notifier.deadline(&self.account),
            self.notifier.call_deadline().filter(|_| !self.client.is_paused()),
            self.delivery.deadline(&self.client),
            self.orphans.deadline(),
            self.succession_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
