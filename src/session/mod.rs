//! The session core, sans-IO: a bound client, between its stream and the stream to the server. The relay drives one [`Session`]
//! per task.
//!
//! ```text
//!   client leg  ──Input::Client──▶ ┌─────────┐ ──Output::ToUpstream──▶  upstream leg
//!               ◀─Output::ToClient─│ Session │ ◀──Input::Upstream────
//!                                  └─────────┘ ──Output::Store, Publish, …──▶ the relay
//! ```
//!
//! The contract: [`Session::handle`] takes one [`Input`]. Then the relay calls [`Session::poll`] for [`Output`]s until it returns
//! `None`, before it passes the next input. [`Session::deadline`] is the time at which [`Input::Timeout`] is due. At the end of
//! every wake-up, the relay passes [`Input::Quiet`] once. A session has no socket, clock, disk or randomness: the time is an
//! argument, and random ids come from a [`RandomSource`]. A connection that has not bound yet is a [`negotiate::Negotiation`];
//! its result is the [`Bound`] from which a `Session` is created.
//!
#![doc = include_str!("run_loop.md")]
//!
#![doc = include_str!("map.md")]

mod account;
mod answer;
mod archive;
mod attachment_watch;
mod backlog;
mod behind;
mod cause;
mod client;
mod contract;
mod csi;
mod delivery;
mod device;
mod effects;
mod event;
pub mod fronting;
mod given_back;
mod hosts;
mod identity;
mod ids;
mod kind;
mod lifecycle;
pub mod liveness;
mod marks;
pub mod mechanism_filter;
mod names;
pub mod negotiate;
mod notifier;
mod orphans;
mod pause;
mod presence;
pub mod queue;
mod record;
mod redelivered;
mod refill;
mod remembered;
mod replies;
pub mod rewrite;
mod ringing;
pub mod sasl;
mod sender;
mod server;
pub mod settings;
pub mod sm;
mod spool_refusal;
mod stamp;
pub mod starttls;
mod succession;
#[cfg(any(test, fuzzing))]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "clippy does not know that it is for tests")]
#[cfg_attr(fuzzing, allow(dead_code, unused_imports, reason = "the fuzzer uses the model alone"))]
pub(crate) mod tests;
mod traffic;
mod transitions;
mod travel;
pub mod upgrade;

use std::sync::Arc;

use crate::clock::Instant;
use crate::jid::Jid;
use crate::push::account::DeviceId;
use crate::push::guard::Guard;
use crate::xml::{FrameError, HeaderCache};
pub use cause::Cause;
pub use contract::{Input, Orphans, OtherSession, Output, PublishResult, Replies};
pub use event::{Closing, EndReason, Event, Peer, Reported, Stored, Token, WakeReason};
pub use identity::{Bound, Clock, Owner, Resumption, ResumptionTokens, TokenWish};
pub use names::{Attachment, RandomSource, SmId, SmIdOrigin, SmIdSource};
pub use record::{RECORD_VERSION, RECORD_VERSIONS_READ, ThawError};
pub use remembered::{DeviceMemory, DeviceMemoryRecord};
pub use settings::Settings;
pub use spool_refusal::ShedCounts;
pub use succession::Successor;

use csi::Activity;
use device::{DeviceArrival, DeviceSide};
use effects::{Effects, WakeUp};
use identity::Identity;
use ids::RequestIds;
use lifecycle::Lifecycle;
use liveness::Reach;
use queue::{AsideMemory, Budget, Unsaved};
use record::{Frozen, Thawed};
use server::ServerStream;

/// A bound session: both legs, the queue, and the pushes.
pub struct Session {
    settings: Arc<Settings>,
    identity: Arc<Identity>,
    effects: Effects,
    device: DeviceSide,
    server: ServerStream,
    lifecycle: Lifecycle,
    /// The session's share of the common memory for everything except its queue.
    aside: AsideMemory,
}

impl Session {
    /// Creates a session whose client is attached as [`Attachment::FIRST`].
    pub fn new(settings: Arc<Settings>, bound: Bound, owner: Owner, random: RandomSource, clock: Clock) -> Self {
        let Bound { jid, client_header, server_header, enabled, inactive, server, asked, .. } = bound;
        let is_answer_due = asked.is_some();
        let request_ids = asked.unwrap_or_else(|| RequestIds::new(random()));
        let identity = Arc::new(Identity::new(jid, client_header, server, clock, random, request_ids));
        let activity = if inactive { Activity::Inactive } else { Activity::Active };
        let arrival = DeviceArrival { header: server_header, activity };
        let mut server = ServerStream::new(Arc::clone(&identity), is_answer_due);
        let mut device = DeviceSide::new(Arc::clone(&identity), Arc::clone(&settings), arrival, owner);
        let mut effects = Effects::default();
        server.enable(clock.now, &mut effects);
        if let Some(enabled) = enabled {
            device.on_enabled(enabled, 0, &mut server, &mut effects);
        }
        device.track_if_needed();
        Self { settings, identity, effects, device, server, lifecycle: Lifecycle::new(), aside: AsideMemory::default() }
    }

    /// Writes the state of the session into a record of version [`RECORD_VERSION`]. Call it between two inputs, when
    /// [`Session::poll`] has returned `None`.
    ///
    /// Not in the record: the settings, and the memory that sessions share. Answers to the session's requests that come later
    /// are for the session that continues.
    pub fn freeze(&self) -> Vec<u8> {
        debug_assert!(self.effects.is_empty(), "effects are not part of the record");
        let Self { identity, device, server, lifecycle, .. } = self;
        Frozen { identity: identity.record(), device, server, lifecycle }.write()
    }

    /// Continues the session of a record. As after [`Session::new`], [`Session::share_memory`] and
    /// [`Session::share_device_memory`] may follow. The settings must have the same [`Settings::seed`] as before.
    ///
    /// # Errors
    /// The record has a version that this program cannot read, or is damaged.
    pub fn thaw(record: &[u8], settings: Arc<Settings>, random: RandomSource) -> Result<Self, ThawError> {
        Self::thaw_sharing(record, settings, random, &mut HeaderCache::default())
    }

    /// The same as [`Session::thaw`], for many sessions whose streams have similar headers. The sessions share one
    /// allocation of equal namespace contexts.
    ///
    /// # Errors
    /// The same as of [`Session::thaw`].
    pub fn thaw_sharing(
        record: &[u8],
        settings: Arc<Settings>,
        random: RandomSource,
        headers: &mut HeaderCache,
    ) -> Result<Self, ThawError> {
        let mut thawed = Thawed::read(record)?;
        let identity = thawed.restore(&settings, random, headers)?;
        let Thawed { device, server, lifecycle, .. } = thawed;
        let (effects, aside) = (Effects::default(), AsideMemory::default());
        Ok(Self { settings, identity, effects, device, server, lifecycle, aside })
    }

    /// Takes one event. Drain [`Session::poll`] before the next.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.effects.begin(if matches!(input, Input::Quiet) { WakeUp::Ends } else { WakeUp::GoesOn });
        if self.lifecycle.is_over() {
            return;
        }
        let current = self.attachment();
        let Self { device, server, effects, .. } = self;
        match input {
            Input::Client { attachment, frame } if attachment == current => self.on_client_frame(now, frame),
            Input::ClientLost(attachment) if attachment == current => self.on_client_lost(now),
            Input::ClientBroke(attachment) if attachment == current => {
                device.on_client_ends(now, effects);
                self.on_client_lost(now);
            }
            // Invariant 10: only the owner detaches.
            Input::Client { .. } | Input::ClientLost(_) | Input::ClientBroke(_) => {}
            Input::Upstream(frame) => self.on_server_frame(now, frame),
            Input::UpstreamLost => self.on_server_lost(now),
            Input::Attach(resumption) => self.on_attach(now, *resumption),
            Input::Account(account) => device.on_account(now, account, server, effects),
            Input::AccountRemoved => device.on_account_removed(),
            Input::Changed(account) => {
                device.on_changed(now, account, server, effects);
                self.leave_if_due(now);
            }
            Input::Stored { token, stored } => self.on_stored(now, token, stored),
            Input::Spooled { up_to } => self.on_spooled(now, up_to),
            Input::SpoolRefused => self.on_spool_refused(now),
            Input::Loaded(items) => device.on_loaded(now, items, server, effects),
            Input::TookOver(spools) => device.on_took_over(now, &spools, server, effects),
            Input::LoadFailed => device.delivery_mut().on_load_failed(now),
            Input::TakeOverFailed => device.delivery_mut().on_take_over_failed(now),
            Input::OlderSettled => device.on_older_settled(now, server, effects),
            Input::Inherit => device.on_inherit(effects),
            Input::EndIfHeld(reason) => self.on_end_if_held(now, reason),
            Input::Successor(successor) => self.on_successor(now, successor),
            Input::OtherSession(other) => device.on_other_session(now, other, server, effects),
            Input::PublishOnStream { number, publish } => self.publish_on_stream(now, number, &publish),
            Input::Published(result) => device.on_published(now, *result, server, effects),
            Input::Routed(stanza) => self.on_routed(now, stanza),
            Input::Paused(Peer::Client) => device.client_mut().on_paused(now),
            Input::Paused(Peer::Server) => server.on_paused(now),
            Input::Unpaused(Peer::Client) => device.on_unpaused(now),
            Input::Unpaused(Peer::Server) => server.on_unpaused(now),
            Input::Waits(Peer::Client) => device.client_mut().on_question_waits(),
            Input::Waits(Peer::Server) => server.on_question_waits(),
            Input::Left(Peer::Client) => device.client_mut().on_question_left(now),
            Input::Left(Peer::Server) => server.on_question_left(now),
            Input::RepliesWait(replies) => {
                server.on_replies_wait(now, replies, device.backlog().stanzas_behind());
                device.answer(now, server, effects);
            }
            Input::Settings(settings) => self.on_settings(settings),
            Input::Drain => self.on_drain(now),
            Input::Fence => self.begin_end(now, EndReason::Fenced),
            Input::HandOver => device.on_hand_over(server, effects),
            Input::Quiet => self.on_quiet(now),
            Input::Timeout => self.on_timeout(now),
        }
        self.go_on_behind_presence(now);
    }

    /// Applies another configuration. Waits that have begun and holds that were granted keep their times.
    fn on_settings(&mut self, settings: Arc<Settings>) {
        self.device.on_settings(Arc::clone(&settings));
        self.settings = settings;
    }

    /// The next effect, `None` when all are taken.
    pub fn poll(&mut self) -> Option<Output> {
        self.effects.poll()
    }

    /// The time at which [`Input::Timeout`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        if let Some(deadline) = self.lifecycle.end_deadline() {
            return Some(deadline);
        }
        [
            self.device.deadline(),
            self.server.deadline(&self.settings),
            self.server.answer_deadline().filter(|_| self.device.may_answer()),
            self.server.question_due().filter(|_| self.device.client().counts()),
            self.lifecycle.leave_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Makes the session share memory with others. Call it before the first input.
    pub fn share_memory(&mut self, budget: Arc<Budget>) {
        self.aside = AsideMemory::of(Arc::clone(&budget));
        self.aside.set(self.memory_aside());
        self.device.delivery_mut().share_memory(budget);
    }

    /// Makes the session use the memory of its device. Call it before the first input, and again if the device turns out to
    /// be another one. Earlier memories move there.
    pub fn share_device_memory(&mut self, memory: Arc<DeviceMemory>) {
        self.device.delivery_mut().share_device_memory(memory);
    }

    /// Notes whether other clients of the account are online. They also receive stanzas that are addressed to it.
    pub fn note_other_clients(&mut self, has_other_clients: bool) {
        self.device.delivery_mut().note_other_clients(has_other_clients);
    }

    /// Charges the bytes of the session that the store is working on to the shared memory.
    pub fn charge_store(&mut self, bytes: usize) {
        self.device.delivery_mut().charge_store(bytes);
    }

    /// Notes that older sessions turned out to be of the same device. This session waits for their stanzas.
    pub fn expect_older(&mut self) {
        self.device.backlog_mut().expect_older();
    }

    /// Ends the session with the stream error for client bytes that are not an XML stream (RFC 6120 §4.9.3).
    pub fn refuse_bytes(&mut self, now: Instant, error: &FrameError) {
        self.effects.reply_to_client(error.stream_error());
        self.begin_end(now, EndReason::ClientError);
    }

    /// Checks whether a connection may resume with this `h`, before the old attachment is given up.
    ///
    /// # Errors
    /// The client claims stanzas that were never sent.
    pub fn check_resume(&self, h: sm::Handled) -> Result<(), sm::TooHigh> {
        self.device.client().check_resume(h)
    }

    /// The configuration of the session.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The device of the session.
    pub fn device(&self) -> DeviceId {
        self.device.account().device()
    }

    /// The current attachment.
    pub fn attachment(&self) -> Attachment {
        self.device.client().attachment()
    }

    /// Returns whether the client's next frame can be taken now.
    pub fn can_read_client(&self) -> bool {
        !self.device.client().is_resuming() && self.server.has_room() && !self.device.delivery().has_too_many_replies()
    }

    /// Returns whether the server's next frame can be taken now. `false` means that the disk is too slow, or refuses
    /// stanzas.
    pub fn can_read_upstream(&self) -> bool {
        let sheds = !self.device.delivery().spool_accepts() && self.device.client().is_dark() && !self.is_ending();
        sheds || self.device.delivery().queue().has_room() && !self.is_paused()
    }

    /// Returns whether the server is not read: the spool refuses, and memory is at its limit for stanzas that the client
    /// has not received.
    pub(super) fn is_paused(&self) -> bool {
        self.device.client().is_open() && self.device.delivery().is_over_bounds(&self.server)
    }

    /// Returns whether the session is held when its client's connection is lost.
    pub fn is_to_be_held(&self) -> bool {
        self.device.is_to_be_held()
    }

    /// Returns whether the end has begun: the session cannot be resumed any more.
    pub fn is_ending(&self) -> bool {
        self.lifecycle.is_ending()
    }

    /// The reachability of the client.
    pub fn reach(&self) -> Reach {
        self.device.client().reach()
    }

    /// Returns whether the session is held without a usable client connection.
    pub fn is_dark(&self) -> bool {
        self.device.client().is_dark()
    }

    /// The number of stanzas that wait in memory for the client's acknowledgement, and their memory charge in bytes.
    pub fn queued(&self) -> (usize, usize) {
        (self.device.delivery().queue().len(), self.device.delivery().queue().bytes())
    }

    /// The bytes of the client that wait for a presence before they are relayed to the server.
    pub fn held_bytes(&self) -> usize {
        self.device.backlog().bytes_behind()
    }

    /// The number of stanzas that are set aside for the device.
    pub fn set_aside(&self) -> usize {
        self.device.account().guard().map_or(0, Guard::count)
    }

    /// The stanzas that a crash would lose while the spool refuses, unless the server has them too.
    pub fn unsaved(&self) -> Unsaved {
        self.device.delivery().unsaved()
    }

    /// Returns whether the spool accepts stanzas.
    pub fn spool_accepts(&self) -> bool {
        self.device.delivery().spool_accepts()
    }

    /// The push services that notify the device.
    pub fn services(&self) -> Vec<Jid> {
        self.device.account().owned().map(|r| r.target.service.clone()).collect::<Box<[Jid]>>().into_vec()
    }

    /// The bytes of memory that the session uses in addition to its queue.
    fn memory_aside(&self) -> usize {
        self.device.memory() + self.server.memory()
    }
}
