//! The delivery of stanzas to the client: at once, from memory, or through the spool. `DeviceSide` owns the one
//! [`Delivery`] of a session.
//!
//! | file | contents |
//! |---|---|
//! | `disk` | stanzas that go to the spool and come back; stanzas that the spool refuses |
//! | `suspects` | the poison guard: suspect stanzas are written alone, others are set aside |
//! | `leftovers` | stanzas that the client does not have when the session ends |
//! | `incoming`, `arrivals`, `written` | a stanza as it comes, as it waits, and as it is written |

mod arrivals;
mod disk;
mod incoming;
mod leftovers;
mod suspects;
mod written;

use std::sync::Arc;

use super::account::AccountView;
use super::archive::is_archived;
use super::attachment_watch::AttachmentWatch;
use super::cause::Cause;
use super::client::ClientStream;
use super::contract::Output;
use super::csi::{HeldStanzas, Urgency};
use super::effects::Effects;
use super::event::Event;
use super::given_back::GivenBack;
use super::identity::Identity;
use super::kind::{is_request, refusal};
use super::presence::{Coalesced, OwnPresence, Waiting};
use super::queue::{Budget, Placement, Queue, Queued};
use super::redelivered::OwnMessages;
use super::refill::Refill;
use super::remembered::DeviceMemory;
use super::replies::SpooledReplies;
use super::server::ServerStream;
use super::settings::Settings;
use super::spool_refusal::{ShedCounts, Spool};
use super::travel::marks;
use crate::clock::Instant;
use crate::push::rooms::Rooms;
use crate::seq::{Seq, ServerSeq};
use crate::xml::{Element, HeaderPool, Kind};
use arrivals::Arrivals;
pub(super) use incoming::{Incoming, Placed};
use written::for_client;

/// The number of stanzas of a replay after which the client is asked for an acknowledgement.
const REPLAY_BURST: usize = 100;

/// The stanzas that the client does not have.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Delivery {
    #[serde(skip)]
    identity: Arc<Identity>,
    #[serde(skip)]
    settings: Arc<Settings>,
    queue: Queue,
    arrivals: Arrivals,
    /// The state of the spool: it accepts stanzas, refuses them, or is asked again.
    spool: Spool,
    /// The stanzas that were shed since the last report.
    shed: ShedCounts,
    refill: Refill,
    /// Replies on their way to the disk.
    replies: SpooledReplies,
    /// The stanzas that are held for a client in the background.
    held: Option<Box<HeldStanzas>>,
    /// Presence of others that waits.
    presence: Waiting,
    attachment_watch: AttachmentWatch,
    given_back: Option<Box<GivenBack>>,
    /// The memory that all sessions of the device share.
    #[serde(skip)]
    memory: Arc<DeviceMemory>,
}

impl Delivery {
    pub(super) fn new(identity: Arc<Identity>, settings: Arc<Settings>) -> Self {
        Self {
            queue: Queue::new(settings.session_queue),
            presence: Waiting::new(settings.seed),
            identity,
            settings,
            arrivals: Arrivals::default(),
            spool: Spool::Accepts,
            shed: ShedCounts::default(),
            refill: Refill::default(),
            replies: SpooledReplies::default(),
            held: None,
            attachment_watch: AttachmentWatch::default(),
            given_back: None,
            memory: Arc::default(),
        }
    }

    /// Completes a delivery that was read from a record. Returns whether it is consistent.
    pub(super) fn restore(&mut self, identity: &Arc<Identity>, headers: &mut HeaderPool<'_>) -> bool {
        self.identity = Arc::clone(identity);
        self.given_back.iter_mut().for_each(|given_back| given_back.restore(headers));
        self.queue.restore(headers)
    }

    pub(super) fn on_settings(&mut self, settings: Arc<Settings>) {
        self.queue.change_limit(settings.session_queue);
        self.settings = settings;
    }

    /// Makes the queue share memory with the queues of other sessions.
    pub(super) fn share_memory(&mut self, budget: Arc<Budget>) {
        self.queue.share(budget);
    }

    /// Uses the memory that the device's sessions share. Earlier memories move there.
    pub(super) fn share_device_memory(&mut self, memory: Arc<DeviceMemory>) {
        memory.take_from(&self.memory);
        self.memory = memory;
    }

    /// Notes whether other clients of the account are online.
    pub(super) fn note_other_clients(&mut self, has_other_clients: bool) {
        self.arrivals.note_other_clients(has_other_clients);
    }

    /// Charges the bytes that the store is working on to the shared memory.
    pub(super) fn charge_store(&mut self, bytes: usize) {
        self.queue.charge_store(bytes);
    }

    /// Reports the stanzas that were shed, and publishes the queue's memory use to other sessions, at the end of a wake-up.
    pub(super) fn on_quiet(&mut self, effects: &mut Effects) {
        self.report_shed(effects);
        self.queue.publish_use();
    }

    /// Clears the memory, because the account was removed.
    pub(super) fn on_account_removed(&self) {
        self.memory.clear();
    }

    // Queries

    /// The stanzas that wait.
    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Returns whether too many replies are on their way to the disk, so that the client is not read.
    pub(super) fn has_too_many_replies(&self) -> bool {
        self.replies.are_over_limit()
    }

    /// The server's number of the first stanza that neither the client nor the disk has, `None` if there is none.
    pub(super) fn first_unsettled(&mut self) -> Option<ServerSeq> {
        self.queue.first_unsettled()
    }

    /// Returns whether the client is to be asked what it has read: stanzas notify, or others wait for the memory of these.
    pub(super) fn has_unread(&self) -> bool {
        self.queue.awaits_ack() && (self.queue.notifying() > 0 || self.queue.has_tail() && !self.is_loading())
    }

    /// The bytes of memory in addition to the queue.
    pub(super) fn memory(&self) -> usize {
        let given_back = self.given_back.as_ref().map_or(0, |given_back| given_back.memory());
        self.memory.memory() + given_back + self.presence.memory()
    }

    // Incoming stanzas

    /// Returns whether a stanza is the second delivery of a message that was kept.
    pub(super) fn is_redelivered(&self, now: Instant, element: &Element) -> bool {
        self.memory.absorbs(self.identity.calendar(now), element, self.own())
    }

    /// Notes that the device got a message, directly or from an earlier session's spool, so it needs no copy from another
    /// device.
    pub(super) fn note_received(&self, element: &Element, account: &AccountView) {
        if element.kind() == Kind::Message && account.has_other_devices() && !account.is_removed() {
            self.memory.note_received(marks(element, self.own()));
        }
    }

    fn own(&self) -> OwnMessages<'_> {
        OwnMessages { account: self.identity.account(), seed: self.settings.seed }
    }

    /// Writes a stanza to a client that does not acknowledge stanzas. It counts as read.
    pub(super) fn write_untracked(&mut self, stanza: &Incoming, client: &ClientStream, effects: &mut Effects) {
        if stanza.element.kind() == Kind::Presence {
            self.presence.written(&stanza.element);
        }
        effects.stanza_to_client(stanza.element.on_stream(client.header()), stanza.cause);
    }

    /// Replaces waiting presence of the same sender, and returns whether the two cancel out.
    pub(super) fn cancels_out(&mut self, element: &Element, own: &OwnPresence) -> bool {
        if element.kind() != Kind::Presence {
            return false;
        }
        match self.presence.coalesce(element, own) {
            Coalesced::Keep => false,
            Coalesced::Replace(older) => {
                self.queue.remove_unwritten(older);
                false
            }
            Coalesced::Cancel(older) => self.queue.remove_unwritten(older),
        }
    }

    /// Puts a stanza into memory, or makes it wait for the spool.
    pub(super) fn accept(
        &mut self,
        now: Instant,
        stanza: Incoming,
        urgency: Urgency,
        client: &ClientStream,
        rooms: &Rooms,
        effects: &mut Effects,
    ) -> Placed {
        let Incoming { element, server_seq, cause } = stanza;
        let waits = client.is_dark() || urgency != Urgency::Now;
        let place = self.queue.place(element.bytes().len());
        let seq = match place {
            Placement::Memory(seq) | Placement::SpoolOnly(seq) => seq,
        };
        if waits && matches!(place, Placement::Memory(_)) && element.kind() == Kind::Presence {
            self.presence.queued(&element, seq);
        }
        // A stanza that may wait long must not keep a larger buffer alive.
        let compact = client.is_dark() || matches!(place, Placement::SpoolOnly(_));
        let element = if compact { element.compact() } else { element };
        let stanza = Incoming { element, server_seq, cause };
        let item = self.arrivals.item(self.identity.calendar(now), stanza, seq, rooms);
        match place {
            Placement::Memory(_) => {
                self.queue.hold(item.because(cause));
                if self.holds_back(urgency, seq) { Placed::HeldBack(seq) } else { Placed::Memory(seq) }
            }
            Placement::SpoolOnly(_) => {
                if cause == Cause::Reply {
                    self.replies.add(seq, item.element.bytes().len());
                }
                self.hold_for_spool(item, effects);
                Placed::Spool(seq)
            }
        }
    }

    /// Makes a stanza without room in memory wait for the spool.
    fn hold_for_spool(&mut self, item: Queued, effects: &mut Effects) {
        if let Some(full) = self.queue.take_full() {
            effects.event(Event::QueueFull(full));
        }
        let seq = item.seq;
        if is_request(&item.element) {
            self.queue.noted().note_request(seq, refusal(&item.element));
        }
        if is_archived(&item.element, self.identity.account()) {
            self.queue.noted().note_archived(seq);
        }
        self.queue.hold_for_spool(item);
    }

    /// Returns whether the stanza that just joined the queue waits there for a client in the background.
    fn holds_back(&mut self, urgency: Urgency, seq: Seq) -> bool {
        let Urgency::Later(key) = urgency else { return false };
        let held = self.held.get_or_insert_default();
        let obsolete = held.hold(key, seq);
        let is_full = held.is_full();
        if let Some(obsolete) = obsolete {
            // A stanza on disk is deleted when the client has it.
            if self.queue.find(obsolete).is_some_and(|item| !item.is_spooled()) {
                self.queue.remove_unwritten(obsolete);
            }
        }
        self.queue.delay(seq);
        !is_full
    }

    /// Returns whether stanzas are held for a client in the background.
    pub(super) fn has_held_back(&self) -> bool {
        self.held.is_some()
    }

    // Writing and acknowledgements

    /// Writes the stanzas that have not been written to the current attachment.
    pub(super) fn write_waiting(
        &mut self,
        now: Instant,
        client: &mut ClientStream,
        account: &AccountView,
        effects: &mut Effects,
    ) {
        if !client.is_written_to() {
            return;
        }
        self.held = None;
        let written = self.identity.elapsed_ms(now);
        while self.may_write_next(now, client, account, effects)
            && let Some(item) = self.queue.write_next()
        {
            let bytes = for_client(item, self.identity.domain(), client.header());
            if item.element.kind() == Kind::Presence {
                self.presence.written(&item.element);
            }
            effects.stanza_to_client(bytes, item.cause);
            self.queue.note_written(written);
            client.on_stanza_written();
            if client.unasked() >= REPLAY_BURST {
                client.ask(now, effects);
            }
        }
        self.ask_about_suspect(now, client, effects);
    }

    /// Removes the first `count` written stanzas, which the client has acknowledged.
    pub(super) fn on_acknowledged(&mut self, count: usize, effects: &mut Effects) {
        for (spool, last) in self.queue.acknowledge(count) {
            for places in self.queue.spare(spool, Seq::ZERO..=last) {
                effects.push(Output::Unspool { spool, places });
            }
        }
    }

    /// Reduces the memory of the waiting stanzas after the connection was lost, because they may wait long.
    pub(super) fn on_client_lost(&mut self) {
        self.queue.compact();
    }

    /// Marks all stanzas as unwritten, because the client resumes.
    pub(super) fn rewind(&mut self, account: &AccountView) {
        self.queue.rewind();
        self.presence.clear();
        self.take_back_released(account);
    }

    // The end

    /// Leaves all stanzas to the server that were not acknowledged to it. The server delivers them elsewhere.
    pub(super) fn give_back(&mut self, acked: ServerSeq, effects: &mut Effects) {
        let theirs = leftovers::give_back(&mut self.queue, acked, effects);
        self.given_back.get_or_insert_default().hold(theirs.into_iter());
    }

    /// Holds a stanza that came after the session's end. It is not acknowledged to the server, which delivers it elsewhere.
    pub(super) fn hold_given_back(&mut self, now: Instant, stanza: Incoming, rooms: &Rooms) {
        let limit = self.settings.session_queue;
        let item = self.arrivals.item(self.identity.calendar(now), stanza, Seq::ZERO, rooms);
        self.given_back.get_or_insert_default().hold_later(item, limit);
    }

    /// Keeps the stanzas that were left to the server for the device, because the server's connection broke. Returns
    /// whether there were any.
    pub(super) fn take_given_back(&mut self) -> bool {
        let Some(given_back) = self.given_back.take() else { return false };
        for item in given_back.into_messages() {
            match self.queue.place(item.element.bytes().len()) {
                Placement::Memory(seq) => self.queue.hold(item.renumbered(seq)),
                Placement::SpoolOnly(seq) => self.queue.hold_for_spool(item.renumbered(seq)),
            }
        }
        true
    }

    /// Keeps and remembers messages after the server's connection broke. The server may be gone, or may send stanzas again
    /// that were not acknowledged to it.
    pub(super) fn keep_what_may_come_again(
        &mut self,
        now: Instant,
        acked: ServerSeq,
        account: &AccountView,
        effects: &mut Effects,
    ) {
        leftovers::forget_repeated(&mut self.queue, acked, effects);
        if account.is_removed() {
            return;
        }
        // An acknowledgement that was on its way may be lost as well.
        let counted = self.queue.iter().chain(self.queue.in_flight()).filter(|item| item.server_seq.is_some());
        let messages = counted.map(|item| &item.element).filter(|element| element.kind() == Kind::Message);
        let added = self.memory.keep(self.identity.calendar(now), messages, self.own());
        if added > 0 {
            effects.event(Event::Kept(added));
        }
    }

    /// Refuses the iq requests that the client does not have, if `server` is there. The client will not answer them.
    pub(super) fn refuse_requests(&mut self, now: Instant, server: Option<&mut ServerStream>, effects: &mut Effects) {
        leftovers::refuse_requests(&mut self.queue, now, server, effects);
    }

    /// Drops the stanzas that the server's archive has: the device finds them there.
    pub(super) fn forget_archived(&mut self, effects: &mut Effects) {
        leftovers::forget_archived(&mut self.queue, self.identity.account(), effects);
    }
}
