//! The session core: a bound client seen from between its two streams, sans-IO.
//!
//! ```text
//!   client leg  ──Input::Client──▶ ┌─────────┐ ──Output::ToUpstream──▶  upstream leg
//!               ◀─Output::ToClient─│ Session │ ◀──Input::Upstream────
//!                                  └─────────┘ ──Output::Store, Publish, …──▶ the relay
//! ```
//!
//! The contract: [`Session::handle`] takes one event, then [`Session::poll`] is drained until it returns `None` before the
//! next event, and [`Session::deadline`] says when [`Input::Timeout`] is due. At the end of every wake-up, when nothing more is
//! at hand, the relay says [`Input::Quiet`] once. A session knows no socket, clock, disk or dice: the time is an argument, and
//! random ids come from the [`Dice`] it was given.
//!
//! A connection that has not bound yet is a [`negotiate::Negotiation`]; binding yields the [`Bound`] that makes a `Session`.
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
//! | `mod` | [`Session`], [`Input`], [`Output`]: the contract with the relay |
//! | `identity` | what a session begins with: [`Bound`], [`Owner`], [`SmId`], [`Dice`], [`Clock`] |
//! | `settings` | configuration that may change while the session runs |
//! | `event` | reports for the log and the metrics, and the reasons of ends |
//! | `seen` | what an operator sees of a session |
//! | `memory` | what a session keeps beside its queue, and its bounds |
//! | **The client leg** | |
//! | `from_client` | frames from the client |
//! | `request` | iq requests of the client that concern Pushward: registrations, features, archive, removal of the account |
//! | `server/confirmation` | which stanzas of the client the server has taken, so that they may be acknowledged |
//! | `behind` | stanzas of the client that wait behind its presence |
//! | `csi` | client state indication (XEP-0352) where the server has none |
//! | [`liveness`] | live, suspect, dark; requests for acknowledgements and their deadlines |
//! | `link` | loss of the client, resumption |
//! | `pause` | stops the clocks for answers while a peer is not read |
//! | `poison` | applies the poison guard: suspect stanzas, stanzas set aside |
//! | **The server leg** | |
//! | `from_server` | frames from the server |
//! | `server/leg` | stream management with the server |
//! | `answer` | answers to requests of Pushward; errors that Pushward writes |
//! | `sender` | checks the sender of an answer |
//! | `skipped` | stanzas of the server that were skipped |
//! | `presence`, `contacts` | presence of the client and of others; the roster |
//! | [`rewrite`] | stanzas that are changed on their way; below it `offers` and `sasl2` (stream features) |
//! | **Stanzas on their way to the client** | |
//! | [`sm`] | counters of stream management (XEP-0198) |
//! | [`queue`] | stanzas that wait for the client's acknowledgement; below it places, spools, budgets, and what is set aside |
//! | `deliver` | delivery at once, from memory, or through the spool |
//! | `stamp` | times for delay stamps |
//! | `shed` | the spool refuses stanzas: what is kept, returned or lost |
//! | `redelivered` | recognizes messages that a server sends a second time |
//! | `travel` | which messages may go to another device of the account |
//! | `remembered` | the memory that the sessions of a device share |
//! | **Push** | |
//! | `notify` | when to push for the device; outcomes of publishes |
//! | **Sessions of one device, and ends** | |
//! | `greeting` | what a device gets before anything new: backlog and orphans |
//! | `inherit` | takes over what earlier sessions of the device have left |
//! | `successor` | a newer session of the same device |
//! | `ending` | the end of a session, and what is kept of it |
//! | `given_back` | messages that an ending session leaves to its server |

mod answer;
mod behind;
mod contacts;
mod csi;
mod deliver;
mod ending;
mod event;
mod from_client;
mod from_server;
mod given_back;
mod greeting;
mod identity;
mod inherit;
mod link;
pub mod liveness;
mod memory;
pub mod negotiate;
mod notify;
mod pause;
mod poison;
mod presence;
pub mod queue;
mod redelivered;
mod remembered;
mod request;
pub mod rewrite;
pub mod sasl;
mod seen;
mod sender;
mod server;
mod settings;
mod shed;
pub mod sieve;
mod skipped;
pub mod sm;
mod stamp;
pub mod starttls;
mod successor;
#[cfg(test)]
pub(crate) mod tests;
mod travel;
pub mod upgrade;

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::jid::BareJid;
use crate::push::absent::Notice;
use crate::push::account::{Account, Change, DeviceId, LoginId};
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::push::pusher::Pusher;
use crate::push::registration::Target;
use crate::push::rooms::Rooms;
use crate::push::roster::Roster;
use crate::xml::{Element, Frame, Header};
pub use event::{Cause, Closing, EndReason, Event, Peer, Reported, Stored, Token, WakeReason};
pub use identity::{Attachment, Bound, Clock, Dice, Owner, Resumption, SmId};
pub use remembered::DeviceMemory;
pub use settings::Settings;
pub use shed::Shed;
pub use successor::Successor;

use answer::Pending;
use behind::Behind;
use ending::{Leave, Phase};
use greeting::Greeting;
use identity::Binding;
use liveness::Liveness;
use poison::Vigil;
use queue::{Inherited, Queue, Spooled};
use request::Promise;
use server::confirmation::Confirmation;
use server::leg::ServerLeg;
use shed::Spool;
use sm::Tracking;
use successor::Succession;

/// What happened, as the relay tells it. Small, because each is handed on: what is large is rare, and boxed.
#[derive(Debug)]
pub enum Input {
    /// A frame from the client. Frames of an attachment that is no longer current are discarded.
    Client(Attachment, Frame),
    /// The client's connection ended without a stream footer: the way there broke, it stalled, or it was closed here.
    ClientLost(Attachment),
    /// The client has closed or reset its connection without a stream footer.
    ClientBroke(Attachment),
    /// A frame from the server.
    Upstream(Frame),
    /// The server's connection ended without a stream footer.
    UpstreamLost,
    /// A new connection takes the session over; [`Session::check_resume`] has accepted its `h`.
    Attach(Box<Resumption>),
    /// What is kept about the account has been changed by another session: as the store has it now.
    Account(Box<Account>),
    /// The store answered [`Output::Store`]; `None` if it failed.
    Changed(Option<Box<Account>>),
    /// The store answered [`Output::Store`].
    Stored(Token, Stored),
    /// What was handed to the spool up to this place is on disk.
    Spooled(u64),
    /// The spool does not take what it was handed, nor anything that was handed to it since.
    SpoolRefused,
    /// What [`Output::Load`] asked for; nothing if there is no more.
    Loaded(Vec<Spooled>),
    /// What [`Output::TakeOver`] asked for: the spools that have stanzas, in the order of their binds.
    TookOver(Vec<Inherited>),
    /// What [`Output::Load`] asked for cannot be read now.
    LoadFailed,
    /// What [`Output::TakeOver`] asked for cannot be done now.
    TakeOverFailed,
    /// If the session is held, it ends for this reason: others of the account take its place.
    GiveWay(EndReason),
    /// The newest session of the device that logged in behind this one; `None`: there is none any more.
    Successor(Option<Successor>),
    /// Whether another session of the device has its client, which acknowledges.
    DeviceLive(bool),
    /// All older sessions of the device have ended, given way or answered, or too long have not.
    OlderSettled,
    /// A session of the device that ended late has left stanzas: they are to be taken over.
    Inherit,
    /// The account was removed: nothing is kept for this session any more.
    AccountRemoved,
    /// Send this publish through the user's own stream, the `session` transport, then say [`Output::Carried`] with the number.
    Carry(u64, Box<Publish>),
    /// What became of [`Output::Publish`].
    Published(Box<(Target, Outcome)>),
    /// An answer for the client that came by another way than the user's own stream.
    Routed(Element),
    /// This peer is not read from now on.
    Paused(Peer),
    /// This peer is read again.
    Unpaused(Peer),
    /// What [`Output::Watch`] is about has not left: other bytes are in front of it.
    Waits(Peer),
    /// It has left now.
    Left(Peer),
    /// Many replies wait for the client: what it asks for is answered together once they have left; or they have left.
    RepliesWait(bool),
    /// The operator has set others.
    Settings(Arc<Settings>),
    /// The daemon ends in an orderly way.
    Drain,
    /// The wake-up has no further input.
    Quiet,
    /// The deadline has come.
    Timeout,
}

/// What to do, in order. Small, because each is queued and handed on: what is large is rare, and boxed.
#[derive(Debug)]
pub enum Output {
    /// Write to the current attachment what comes from elsewhere.
    ToClient(Bytes),
    /// Write to the current attachment what answers it.
    ReplyToClient(Bytes),
    /// Write to the server what comes from elsewhere.
    ToUpstream(Bytes),
    /// Write to the server what answers it.
    ReplyToUpstream(Bytes),
    /// A peer was asked something with the bytes that were written to it last. Say [`Input::Waits`] if they do not leave at once,
    /// and then [`Input::Left`] when they have, unless the same peer was watched again meanwhile.
    Watch(Peer),
    /// The session can be resumed under this id from now on.
    Resumable(SmId),
    /// Commit a change of the account, then say so with [`Input::Stored`] if there is a token.
    Store(Option<Token>, Box<Change>),
    /// Commit these stanzas to the spool, then say [`Input::Spooled`] with the last one's place.
    Spool(Vec<Spooled>),
    /// Delete these places from a spool. What begins with zero is a prefix that was delivered, and need not be deleted at once.
    Unspool {
        /// The session that wrote the spool; `None` for the own one.
        spool: Option<LoginId>,
        /// The places.
        places: RangeInclusive<u64>,
    },
    /// Read back stanzas, then say [`Input::Loaded`].
    Load(queue::Load),
    /// Make the session the owner of what the device's ended sessions have spooled, then say [`Input::TookOver`].
    TakeOver,
    /// Move stanzas to these places that were addressed to the account and wait for its other devices, which have no session;
    /// then say [`Input::Spooled`] with the last place.
    Adopt {
        /// Of devices with a registration, or of those without.
        registered: bool,
        /// The places.
        places: RangeInclusive<u64>,
    },
    /// Remember the client's `h` for this id after the session's end.
    Bury(SmId, sm::Handled),
    /// The device is to be woken by a push that needs no session.
    Wake(WakeReason),
    /// Notify a push service by whatever transport is fit, then say [`Input::Published`].
    Publish(Box<Publish>),
    /// What became of the publish with this number.
    Carried(u64, Box<Outcome>),
    /// Devices of the account that have no session are to hear of this.
    Elsewhere(Box<Notice>),
    /// The client has answered: this session and that of [`Input::Successor`] both stay.
    Answered,
    /// Close the attachment: after what was written to it, or at once.
    CloseClient(Closing),
    /// Something an operator may want to know.
    Event(Box<Event>),
    /// The session is over: write what is left to both legs, close them and forget it.
    End(EndReason),
}

/// Room for so many effects is kept from one event of a wake-up to the next.
const FEW: usize = 4;

/// A bound session: both legs, what waits, and the pushes about it.
pub struct Session {
    settings: Arc<Settings>,
    dice: Dice,
    /// Ties the monotonic clock to the calendar, for delay stamps.
    epoch: Clock,
    stamps: stamp::Stamps,
    bound: Binding,
    account: BareJid,
    owner: Owner,
    attachment: Attachment,
    /// The header of the stream that the current attachment reads.
    attached_header: Arc<Header>,
    /// A header that declares nothing: what stands on the disk leans on none.
    bare_header: Arc<Header>,
    tracking: Tracking,
    sm_id: Option<SmId>,
    /// The id that can be resumed no more, and the `h` that is remembered for it.
    buried: Option<Box<(SmId, Option<sm::Handled>)>>,
    /// XEP-0198 §5 `max` as the client asked, seconds.
    asked_max: Option<u64>,
    /// A resumption that waits until the server has confirmed what the client sent before.
    resuming: Option<Instant>,
    /// The `<success/>` of SASL2 that is to tell the client of its resumption.
    welcome: Option<Box<Element>>,
    liveness: Liveness,
    confirm: Confirmation,
    server: ServerLeg,
    queue: Queue,
    /// Whether the spool takes what it is handed.
    spool: Spool,
    /// What was shed since the last report.
    shed: shed::Shed,
    /// What the device's sessions remember.
    device_memory: Arc<DeviceMemory>,
    /// Another client of the account is there.
    has_company: bool,
    /// An open [`Output::Load`].
    loading: Option<deliver::Loading>,
    /// When to read again from a disk that could not be read.
    read_again: Option<Instant>,
    /// Then the spools of earlier sessions are asked for again, too.
    retake: bool,
    greeting: Greeting,
    behind: Behind,
    own_presence: presence::Own,
    rooms: Rooms,
    waiting_presence: presence::Waiting,
    roster: Roster,
    /// Contacts matter, and the server was asked for them.
    roster_asked: bool,
    pending: Pending,
    pusher: Pusher,
    /// The newest place whose stanza was judged.
    judged: u64,
    /// Other devices of the account have registrations, but no session.
    elsewhere: bool,
    /// A call that the client has not acknowledged, and when it is pushed all the same.
    ringing: Option<(u64, Instant)>,
    /// Stanzas written since the client was last asked for an ack.
    unasked: usize,
    /// The account was removed: nothing of it is kept.
    removed: bool,
    succession: Succession,
    /// Another session of the device has its client, so nothing is pushed.
    live_elsewhere: bool,
    /// The newest important stanza, where memory does not have it.
    beyond: Option<Box<(u64, Element)>>,
    /// When to look for orphans, and whether also for those whose owner has a registration.
    orphans_due: Option<(Instant, bool)>,
    client_inactive: bool,
    held: Option<Box<csi::Held>>,
    /// The user has asked the server's archive, so what it has need not be kept here.
    archive: bool,
    /// What the session has of the shared memory beside its queue.
    aside: queue::Aside,
    upstream_written: Instant,
    promises: VecDeque<Promise>,
    /// The client has left, while requests of it are open: until when they are waited for, and how it left.
    leaving: Option<Box<(Instant, Leave)>>,
    given_back: Option<Box<given_back::GivenBack>>,
    /// Changes of the account that the store has not answered.
    open_changes: u32,
    /// The newest state of the account that came meanwhile.
    account_news: Option<Box<Account>>,
    next_token: u64,
    outputs: VecDeque<Output>,
    /// The last event was [`Input::Quiet`].
    wake_up_ends: bool,
    phase: Phase,
    vigil: Vigil,
}

impl Session {
    /// A session whose client is attached by [`Attachment::FIRST`].
    #[allow(clippy::too_many_lines, reason = "it names every field once, and does little else")]
    pub fn new(settings: Arc<Settings>, mut bound: Bound, owner: Owner, dice: Dice, clock: Clock) -> Self {
        let now = clock.now;
        let bare = Header::bare();
        let elsewhere = owner.account.absent(owner.device).next().is_some();
        let mut rooms = Rooms::default();
        rooms.subscribed(&owner.account.subscriptions);
        let (enabled, server_sm) = (bound.enabled.take(), bound.server_sm);
        let mut session = Self {
            dice,
            epoch: clock,
            stamps: stamp::Stamps::default(),
            attachment: Attachment::FIRST,
            attached_header: Arc::clone(&bound.server_header),
            bare_header: bare,
            tracking: Tracking::None,
            sm_id: None,
            buried: None,
            asked_max: None,
            resuming: None,
            welcome: None,
            liveness: Liveness::new(&settings.stream_management, now),
            confirm: Confirmation::default(),
            server: ServerLeg::new(now, server_sm),
            queue: Queue::new(settings.session_queue),
            spool: Spool::Accepts,
            shed: shed::Shed::default(),
            device_memory: Arc::default(),
            has_company: false,
            loading: None,
            read_again: None,
            retake: false,
            behind: Behind::default(),
            greeting: if owner.waits || owner.older { Greeting::Backlog } else { Greeting::Awaited },
            own_presence: presence::Own::default(),
            rooms,
            waiting_presence: presence::Waiting::default(),
            pending: Pending::new(dice()),
            pusher: Pusher::new(Arc::clone(&settings.push)),
            judged: 0,
            elsewhere,
            ringing: None,
            roster: Roster::new(&bound.jid.to_bare(), settings.seed),
            account: bound.jid.to_bare(),
            roster_asked: false,
            unasked: 0,
            removed: false,
            succession: Succession::default(),
            live_elsewhere: false,
            beyond: None,
            orphans_due: None,
            client_inactive: bound.inactive,
            held: None,
            archive: false,
            aside: queue::Aside::default(),
            upstream_written: now,
            promises: VecDeque::new(),
            leaving: None,
            given_back: None,
            open_changes: 0,
            account_news: None,
            next_token: 0,
            outputs: VecDeque::new(),
            wake_up_ends: false,
            phase: Phase::Running,
            vigil: Vigil::default(),
            owner,
            bound: Binding::of(bound),
            settings,
        };
        session.enable_server_sm(now);
        if let Some(enabled) = enabled {
            session.client_counts(enabled, 0);
        }
        session.track_by_ping();
        session
    }

    /// Takes one event. Drain [`Session::poll`] before the next.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.wake_up_ends = matches!(input, Input::Quiet);
        match input {
            _ if self.phase == Phase::Over => {}
            Input::Client(attachment, frame) if attachment == self.attachment => self.client_frame(now, frame),
            Input::ClientLost(attachment) if attachment == self.attachment => self.client_lost(now),
            Input::ClientBroke(attachment) if attachment == self.attachment => {
                self.client_ends(now);
                self.client_lost(now);
            }
            // Invariant 10: only the owner detaches.
            Input::Client(..) | Input::ClientLost(_) | Input::ClientBroke(_) => {}
            Input::Upstream(frame) => self.upstream_frame(now, frame),
            Input::UpstreamLost => self.upstream_lost(now),
            Input::Attach(resumption) => self.attach(now, *resumption),
            Input::Account(account) => self.account_changed(now, Some(account)),
            Input::AccountRemoved => self.forget_account(),
            Input::Changed(account) => {
                self.open_changes = self.open_changes.saturating_sub(1);
                self.account_changed(now, account);
                self.leave_if_due(now);
            }
            Input::Stored(token, stored) => self.stored(now, token, stored),
            Input::Spooled(seq) => self.spooled(now, seq),
            Input::SpoolRefused => self.spool_refused(now),
            Input::Loaded(items) => self.loaded(now, items),
            Input::TookOver(spools) => self.took_over(now, &spools),
            Input::LoadFailed => self.load_failed(now),
            Input::TakeOverFailed => self.take_over_failed(now),
            Input::OlderSettled => self.older_settled(now),
            Input::Inherit => self.inherit(),
            Input::GiveWay(reason) => self.give_way(now, reason),
            Input::Successor(successor) => self.on_successor(now, successor),
            Input::DeviceLive(live) => self.on_device_live(now, live),
            Input::Carry(number, publish) => self.carry(now, number, &publish),
            Input::Published(published) => {
                let (target, outcome) = *published;
                self.published(now, target, outcome);
            }
            Input::Routed(stanza) => self.routed(now, stanza),
            Input::Paused(peer) => self.paused(now, peer),
            Input::Unpaused(peer) => self.unpaused(now, peer),
            Input::Waits(peer) => self.question_waits(peer),
            Input::Left(peer) => self.question_left(now, peer),
            Input::RepliesWait(many) => self.replies_wait(now, many),
            Input::Settings(settings) => self.settings_changed(settings),
            Input::Drain => self.drain(now),
            Input::Quiet => {
                self.quiet(now);
                self.report_shed();
                self.queue.tell_share();
                self.tell_aside();
            }
            Input::Timeout => self.timeout(now),
        }
        self.go_on_behind_presence(now);
    }

    /// The next effect, `None` when all are taken.
    pub fn poll(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() && (self.outputs.capacity() > FEW || self.wake_up_ends) {
            self.outputs = VecDeque::new();
        }
        output
    }

    /// When [`Input::Timeout`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let keepalive = self.upstream_written + self.settings.stream_management.upstream_keepalive;
        if let Some(deadline) = self.phase.deadline() {
            return Some(deadline);
        }
        [
            self.liveness.deadline(),
            self.pusher.deadline().filter(|_| self.has_registration() && !self.live_elsewhere),
            self.succession_deadline(),
            self.ringing.map(|(_, at)| at).filter(|_| !self.liveness.is_paused()),
            self.pending.deadline(),
            self.confirm.answer_deadline().filter(|_| self.may_answer_client()),
            self.confirm.server_deadline(),
            self.enable_deadline(),
            self.next_question(),
            self.resuming,
            self.leaving.as_ref().map(|leaving| leaving.0),
            self.spool_due(),
            self.spool.deadline(),
            self.read_again,
            self.orphans_due.map(|(at, _)| at),
            Some(keepalive),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The device whose session it is.
    pub fn device(&self) -> DeviceId {
        self.owner.device
    }

    /// The current attachment.
    pub fn attachment(&self) -> Attachment {
        self.attachment
    }

    fn out(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    fn event(&mut self, event: Event) {
        self.out(Output::Event(Box::new(event)));
    }

    fn write_client(&mut self, bytes: impl Into<Bytes>) {
        self.out(Output::ToClient(bytes.into()));
    }

    /// Answers what the client itself has sent.
    fn reply_client(&mut self, bytes: Bytes) {
        self.out(Output::ReplyToClient(bytes));
    }

    /// Nothing is written behind the footer.
    fn write_upstream(&mut self, now: Instant, bytes: Bytes) {
        self.put_upstream(now, Output::ToUpstream(bytes));
    }

    /// Answers what the server itself has sent.
    fn reply_upstream(&mut self, now: Instant, bytes: Bytes) {
        self.put_upstream(now, Output::ReplyToUpstream(bytes));
    }

    fn put_upstream(&mut self, now: Instant, output: Output) {
        if matches!(self.phase, Phase::Closing(..) | Phase::Over) {
            return;
        }
        self.upstream_written = now;
        self.out(output);
    }

    fn change(&mut self, token: Option<Token>, change: Change) {
        self.open_changes += 1;
        self.out(Output::Store(token, Box::new(change)));
    }
}
