//! The session core: a bound client seen from between its two streams, sans-IO.
//!
//! ```text
//!   client leg  ──Input::Client──▶ ┌─────────┐ ──Output::ToUpstream──▶  upstream leg
//!               ◀─Output::ToClient─│ Session │ ◀──Input::Upstream────
//!                                  └─────────┘ ──Output::Store, Publish, …──▶ the relay
//! ```
//!
//! The contract: [`Session::handle`] takes one [`Input`], then [`Session::poll`] is drained of [`Output`]s until it returns `None`
//! before the next input, and [`Session::deadline`] says when [`Input::Timeout`] is due. At the end of every wake-up, when nothing
//! more is at hand, the relay passes [`Input::Quiet`] once. A session knows no socket, clock, disk or randomness: the time is an
//! argument, and random ids come from the [`Dice`] it was given.
//!
//! A connection that has not bound yet is a [`negotiate::Negotiation`]; binding yields the [`Bound`] that makes a `Session`.
//!
//! # Components
//!
//! A session is made of components. Each owns its fields and changes them by its own methods: `on_…` for events, verbs for what
//! is done, nouns for questions, `deadline` for its time. They write what the relay is to do into the `Effects` that they are
//! passed; what another component has to do about it is their return value. `Session` itself only passes events on:
//! `traffic` those of frames and stanzas, `transitions` those of the session's life.
//!
//! | component | file | what it owns |
//! |---|---|---|
//! | `ClientStream` | `client` | attachment, acknowledgements and liveness of the client, resumption id and tombstone |
//! | `ServerStream` | `server` | stream management with the server, what it confirms, requests of Pushward that it has not answered |
//! | `AccountView` | `account` | the account and the device, changes and requests that the store has not answered |
//! | `Delivery` | `delivery` | the queue, the spool, waiting presence, stanzas held back or set aside, messages left to the server |
//! | `Notifier` | `notifier` | pushes, calls, rooms, the roster |
//! | `Own` | `presence` | the client's own presence |
//! | `Backlog` | `backlog` | stanzas of earlier sessions, and what of the client waits behind them |
//! | `OrphanSearch` | `orphans` | when to look for stanzas of other devices that nobody fetches |
//! | `Succession` | `succession` | a newer session of the same device |
//! | `Lifecycle` | `lifecycle` | the way to the end |
//!
//! Dependencies point down: `notifier` → `delivery` → `client`, `server`, `account` → `effects`, `identity` → `contract` → leaves.
//!
//! # Files
//!
//! | file | contents |
//! |---|---|
//! | **Before the session** | |
//! | [`starttls`] | the clear-text stream of a client before TLS |
//! | [`upgrade`] | the clear-text stream to a server that speaks STARTTLS |
//! | [`negotiate`] | from the first header over TLS to a bound or resumed session |
//! | `negotiate/…` | `exchange` (SASL), `success` and `inline` (SASL2), `bind`, `resume`, `contract` (inputs and outputs) |
//! | [`sasl`] | the name in a SASL exchange: who wants to log in |
//! | [`sieve`] | removes the SASL offers that cannot pass a proxy that ends TLS |
//! | **The session itself** | |
//! | `mod`, `traffic`, `transitions` | [`Session`] |
//! | `contract` | [`Input`], [`Output`] |
//! | `identity` | what a session begins with: [`Bound`], [`Owner`], [`SmId`], [`Dice`], [`Clock`]; what identifies it |
//! | `effects` | outputs that the relay has not taken |
//! | `settings` | configuration that may change while the session runs |
//! | `event` | reports for the log and the metrics, and the reasons of ends |
//! | **Parts of the client stream** | |
//! | [`liveness`] | live, suspect, dark; requests for acknowledgements and their deadlines |
//! | `client/resumption` | the resumption id and its tombstone |
//! | [`sm`] | counters of stream management (XEP-0198) |
//! | `csi` | client state indication (XEP-0352) where the server has none |
//! | **Parts of the server stream** | |
//! | `server/leg` | stream management with the server |
//! | `server/confirmation` | which stanzas of the client the server has taken, so that they may be acknowledged |
//! | `server/pending`, `ids` | requests and their ids |
//! | `pause` | stops the clocks for answers while a peer is not read |
//! | **Parts of the account view** | |
//! | `account/request` | iq requests of the client that concern Pushward |
//! | `account/promise` | replies that wait for the store |
//! | **Parts of delivery** | |
//! | [`queue`] | stanzas that wait for the client's acknowledgement; below it sequence numbers, spools, budgets, and what is set aside |
//! | `delivery/disk`, `refill`, `replies` | to the spool and back |
//! | `shed` | the spool refuses stanzas: what is kept, returned or lost |
//! | `delivery/suspects`, `vigil`, `marks` | the poison guard: suspect stanzas, stanzas set aside |
//! | `stamp` | times for delay stamps |
//! | `given_back` | messages that an ending session leaves to its server |
//! | `remembered` | the memory that the sessions of a device share |
//! | `redelivered` | recognizes messages that a server sends a second time |
//! | `travel` | which messages may go to another device of the account |
//! | **Parts of the notifier** | |
//! | `notifier/calls`, `ringing` | calls of a device that is there |
//! | **Parts of the backlog** | |
//! | `behind` | frames of the client that wait behind its presence |
//! | **About stanzas** | |
//! | `kind`, `archive` | what must not be lost, what is a request, what the server's archive has |
//! | `answer`, `sender` | answers that Pushward writes itself; who may have sent an answer of the server |
//! | [`rewrite`] | stanzas that are changed on their way; below it `offers` and `sasl2` (stream features) |

mod account;
mod answer;
mod archive;
mod backlog;
mod behind;
mod client;
mod contract;
mod csi;
mod delivery;
mod effects;
mod event;
mod given_back;
mod identity;
mod ids;
mod kind;
mod lifecycle;
pub mod liveness;
mod marks;
pub mod negotiate;
mod notifier;
mod orphans;
mod pause;
mod presence;
pub mod queue;
mod redelivered;
mod refill;
mod remembered;
mod replies;
pub mod rewrite;
mod ringing;
pub mod sasl;
mod sender;
mod server;
mod settings;
mod shed;
pub mod sieve;
pub mod sm;
mod stamp;
pub mod starttls;
mod status;
mod storage;
mod succession;
#[cfg(test)]
pub(crate) mod tests;
mod traffic;
mod transitions;
mod travel;
pub mod upgrade;
mod vigil;

use std::sync::Arc;
use std::time::Instant;

pub use contract::{Input, Orphans, OtherSession, Output, PublishResult, Replies};
pub use event::{Cause, Closing, EndReason, Event, Peer, Reported, Stored, Token, WakeReason};
pub use identity::{Attachment, Bound, Clock, Dice, Owner, Resumption, SmId};
pub use remembered::DeviceMemory;
pub use settings::Settings;
pub use shed::Shed;
pub use succession::Successor;

use account::AccountView;
use backlog::Backlog;
use client::{Activity, ClientStream};
use delivery::Delivery;
use effects::{Effects, WakeUp};
use identity::Identity;
use ids::RequestIds;
use lifecycle::Lifecycle;
use liveness::Liveness;
use notifier::Notifier;
use orphans::OrphanSearch;
use presence::Own;
use queue::Aside;
use server::{CarriedPublish, ServerStream};
use succession::Succession;

/// A bound session: both legs, what waits, and the pushes about it.
pub struct Session {
    settings: Arc<Settings>,
    identity: Arc<Identity>,
    effects: Effects,
    client: ClientStream,
    server: ServerStream,
    account: AccountView,
    delivery: Delivery,
    notifier: Notifier,
    presence: Own,
    backlog: Backlog,
    orphans: OrphanSearch,
    succession: Succession,
    lifecycle: Lifecycle,
    /// What the session has of the shared memory beside its queue.
    aside: Aside,
}

impl Session {
    /// A session whose client is attached by [`Attachment::FIRST`].
    pub fn new(settings: Arc<Settings>, bound: Bound, owner: Owner, dice: Dice, clock: Clock) -> Self {
        let Bound { jid, client_header, server_header, enabled, inactive, server_csi, server_sm, .. } = bound;
        let identity = Arc::new(Identity::new(jid, client_header, server_csi, clock, dice));
        let ids = RequestIds::new(dice());
        let activity = if inactive { Activity::Inactive } else { Activity::Active };
        let liveness = Liveness::new(&settings.stream_management, clock.now);
        let backlog = Backlog::new(owner.waits, owner.older);
        let account = AccountView::new(Arc::clone(&identity), owner);
        let mut session = Self {
            effects: Effects::default(),
            client: ClientStream::new(Arc::clone(&identity), ids.clone(), server_header, activity, liveness),
            server: ServerStream::new(Arc::clone(&identity), ids, server_sm),
            delivery: Delivery::new(Arc::clone(&identity), Arc::clone(&settings)),
            notifier: Notifier::new(Arc::clone(&identity), Arc::clone(&settings), &account),
            account,
            presence: Own::default(),
            backlog,
            orphans: OrphanSearch::default(),
            succession: Succession::default(),
            lifecycle: Lifecycle::new(),
            aside: Aside::default(),
            identity,
            settings,
        };
        session.server.enable(clock.now, &mut session.effects);
        if let Some(enabled) = enabled {
            session.on_client_counts(enabled, 0);
        }
        session.track_if_needed();
        session
    }

    /// Takes one event. Drain [`Session::poll`] before the next.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.effects.begin(if matches!(input, Input::Quiet) { WakeUp::Ends } else { WakeUp::GoesOn });
        if self.lifecycle.is_over() {
            return;
        }
        let current = self.client.attachment();
        match input {
            Input::Client { attachment, frame } if attachment == current => self.on_client_frame(now, frame),
            Input::ClientLost(attachment) if attachment == current => self.on_client_lost(now),
            Input::ClientBroke(attachment) if attachment == current => {
                self.on_client_ends(now);
                self.on_client_lost(now);
            }
            // Invariant 10: only the owner detaches.
            Input::Client { .. } | Input::ClientLost(_) | Input::ClientBroke(_) => {}
            Input::Upstream(frame) => self.on_server_frame(now, frame),
            Input::UpstreamLost => self.on_server_lost(now),
            Input::Attach(resumption) => self.on_attach(now, *resumption),
            Input::Account(account) => self.on_account(now, account),
            Input::AccountRemoved => self.on_account_removed(),
            Input::Changed(account) => self.on_changed(now, account),
            Input::Stored { token, stored } => self.on_stored(now, token, stored),
            Input::Spooled { up_to } => self.on_spooled(now, up_to),
            Input::SpoolRefused => self.on_spool_refused(now),
            Input::Loaded(items) => self.on_loaded(now, items),
            Input::TookOver(spools) => self.on_took_over(now, &spools),
            Input::LoadFailed => self.delivery.on_load_failed(now),
            Input::TakeOverFailed => self.delivery.on_take_over_failed(now),
            Input::OlderSettled => self.on_older_settled(now),
            Input::Inherit => self.on_inherit(),
            Input::GiveWay(reason) => self.on_give_way(now, reason),
            Input::Successor(successor) => self.on_successor(now, successor),
            Input::OtherSession(other) => {
                if self.notifier.on_other_session(other) {
                    self.push_due(now);
                }
            }
            Input::Carry { number, publish } => {
                let deadline = now + self.settings.push.publish_timeout;
                let carried = CarriedPublish { number, publish: &publish, deadline };
                self.server.publish(now, &carried, &mut self.effects);
            }
            Input::Published(published) => self.on_published(now, *published),
            Input::Routed(stanza) => self.on_routed(now, stanza),
            Input::Paused(Peer::Client) => self.client.on_paused(now),
            Input::Paused(Peer::Server) => self.server.on_paused(now),
            Input::Unpaused(Peer::Client) => {
                self.client.on_unpaused(now);
                self.notifier.on_client_unpaused(now);
                self.succession.on_client_unpaused(now);
            }
            Input::Unpaused(Peer::Server) => self.server.on_unpaused(now),
            Input::Waits(Peer::Client) => self.client.on_question_waits(),
            Input::Waits(Peer::Server) => self.server.on_question_waits(),
            Input::Left(Peer::Client) => self.client.on_question_left(now),
            Input::Left(Peer::Server) => self.server.on_question_left(now),
            Input::RepliesWait(replies) => {
                self.server.on_replies_wait(now, replies, self.backlog.stanzas_behind());
                self.answer_client(now);
            }
            Input::Settings(settings) => self.on_settings(settings),
            Input::Drain => self.on_drain(now),
            Input::Quiet => {
                self.on_quiet(now);
                self.delivery.report_shed(&mut self.effects);
                self.delivery.on_quiet();
                self.aside.set(self.memory_aside());
            }
            Input::Timeout => self.on_timeout(now),
        }
        self.go_on_behind_presence(now);
    }

    /// The next effect, `None` when all are taken.
    pub fn poll(&mut self) -> Option<Output> {
        self.effects.poll()
    }

    /// When [`Input::Timeout`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        if let Some(deadline) = self.lifecycle.end_deadline() {
            return Some(deadline);
        }
        let Settings { server_timeout, stream_management, .. } = &*self.settings;
        [
            self.client.deadline(),
            self.notifier.deadline(&self.account),
            self.succession_deadline(),
            self.notifier.call_deadline().filter(|_| !self.client.is_paused()),
            self.server.deadline(*server_timeout, stream_management.upstream_keepalive),
            self.server.answer_deadline().filter(|_| self.may_answer_client()),
            self.server.question_due().filter(|_| self.client.counts()),
            self.client.question_pause().filter(|_| self.delivery.has_unread() && self.client.may_be_asked()),
            self.lifecycle.leave_deadline(),
            self.delivery.deadline(&self.client),
            self.orphans.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
