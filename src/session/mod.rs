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

mod answer;
mod client;
pub mod liveness;
pub mod negotiate;
pub mod queue;
pub mod rewrite;
pub mod sasl;
pub mod sm;
pub mod starttls;
#[cfg(test)]
pub(crate) mod tests;
mod upstream;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;

use crate::config;
use crate::jid::FullJid;
use crate::push::notification::Publish;
use crate::push::account::{Account, Change, DeviceId};
use crate::push::registration::Target;
use crate::push::rules::Schedule;
use crate::xml::{Frame, Header};
use answer::Pending;
use liveness::Liveness;
use queue::Queue;
use sasl::SaslIdentity;
use sm::ClientLeg;

/// Where unguessable numbers come from: the shell passes a cryptographic generator, tests a counter.
pub type Dice = fn() -> u128;

/// What an operator set, as far as a session needs it.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `[stream_management]`
    pub stream_management: config::StreamManagement,
    /// `[push]`
    pub push: config::Push,
    /// `[limits] session_queue`, bytes.
    pub session_queue: usize,
}

/// One TCP connection of a client to a session. A later attachment has a larger number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment(u32);

impl Attachment {
    /// The connection on which the session was bound.
    pub const FIRST: Self = Self(1);

    fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// A resumption identifier (XEP-0198 §5 `id`, `previd`): 128 random bits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SmId(String);

impl SmId {
    /// An id as a client presented it.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as it stands on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SmId {
    // Whoever knows the id is halfway to the session, so no log shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SmId([redacted])")
    }
}

/// What login established, and a [`Session`] begins with.
#[derive(Debug)]
pub struct Bound {
    /// The full JID of the bind result: the server's word, hence the session's identity.
    pub jid: FullJid,
    /// Who the server let in, where the SASL mechanism says it in the clear.
    pub identity: Option<SaslIdentity>,
    /// The header that opened the upstream stream: the client's, of its last restart.
    pub client_header: Arc<Header>,
    /// The header that the server answered with, which the client has seen.
    pub server_header: Arc<Header>,
    /// The resumption id that the client presented before, in vain.
    pub presented: Option<SmId>,
    /// Whether the server offers client state indication (XEP-0352).
    pub server_csi: bool,
}

/// The device that logged in, and what is kept about its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The device.
    pub device: DeviceId,
    /// Whether it presented a resumption id of its own, and so is known for certain.
    pub certain: bool,
    /// Its account, as the store has it.
    pub account: Account,
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The monotonic clock.
    pub now: Instant,
    /// The calendar.
    pub wall: SystemTime,
}

/// What happened, as the relay tells it.
#[derive(Debug)]
pub enum Input {
    /// A frame from the client. Frames of an attachment that is no longer current are discarded.
    Client(Attachment, Frame),
    /// The client's connection ended without a stream footer: closed, reset, stalled or malformed.
    ClientLost(Attachment),
    /// A frame from the server.
    Upstream(Frame),
    /// The server's connection ended without a stream footer.
    UpstreamLost,
    /// A new connection takes the session over; [`Session::check_resume`] has accepted its `h`.
    Attach(Resumption),
    /// What is kept about the account, as the store has it now.
    Account(Account),
    /// The store answered [`Output::Store`].
    Stored(Token, Stored),
    /// Send this publish through the user's own stream: the `session` transport.
    Publish(Publish),
    /// The daemon ends in an orderly way.
    Drain,
    /// The wake-up has no further input.
    Quiet,
    /// The deadline has come.
    Timeout,
}

/// What to do, in order.
#[derive(Debug)]
pub enum Output {
    /// Write to the current attachment.
    ToClient(Bytes),
    /// Write to the server.
    ToUpstream(Bytes),
    /// The session can be resumed under this id from now on.
    Resumable(SmId),
    /// Commit a change of the account, then say so with [`Input::Stored`] if there is a token.
    Store(Option<Token>, Change),
    /// Notify a push service, by whatever transport is fit.
    Publish(Publish),
    /// Close the attachment: after what was written to it, or at once.
    CloseClient(Closing),
    /// Something an operator may want to know.
    Event(Event),
    /// The session is over: write what is left to both legs, close them and forget it.
    End(EndReason),
}

/// How an attachment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The stream footer or an error was written: flush, then close.
    Orderly,
    /// Close the TCP connection as it is, so that the client comes back and resumes.
    Abrupt,
}

/// What became of a change that a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is on disk. If it says so, the session's device turned out to be this one.
    Durable(Option<DeviceId>),
    /// It failed.
    Failed,
}

/// A store request that a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u64);

/// What operators ask about: the name is the log field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The client has gone; the session is held.
    Dark {
        /// Stanzas that wait.
        queued: usize,
    },
    /// An ack is overdue.
    Suspect,
    /// A client took the session up again.
    Resumed {
        /// Stanzas written again.
        replayed: usize,
    },
    /// A registration was stored.
    PushEnabled(Target),
    /// Registrations were removed at the client's wish.
    PushDisabled,
    /// A stanza for an unreachable client does not notify.
    NotPushed(crate::push::classify::Noise),
    /// A publish left.
    Published(Target),
    /// A push service answered, or did not.
    PublishOutcome(Target, Outcome),
    /// The queue of stanzas waiting for the client is full.
    QueueFull {
        /// `[limits] session_queue`, bytes.
        limit: usize,
    },
}

/// What became of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The push service accepted it.
    Accepted,
    /// It was refused for now (XEP-0086 type `wait`): not counted.
    Wait(String),
    /// It was refused, with this stanza error condition: counted.
    Refused(String),
    /// No answer in `publish_timeout`: it may or may not have arrived.
    Unknown,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The client closed its stream.
    ClientClosed,
    /// The client vanished and its session cannot be resumed.
    ClientLost,
    /// The client broke the protocol and was told so.
    ClientError,
    /// The server closed its stream.
    UpstreamClosed,
    /// The server's connection broke.
    UpstreamLost,
    /// Nobody resumed in time.
    Expired,
    /// More waited for the client than `session_queue` allows.
    QueueFull,
    /// The daemon was asked to stop.
    Drained,
}

/// A connection that proved it may take a session over.
#[derive(Clone, Debug)]
pub struct Resumption {
    /// XEP-0198 §5: the last stanza the client handled.
    pub h: sm::Handled,
    /// The header that the client's new stream was answered with.
    pub server_header: Arc<Header>,
}

/// A reply that waits for the store.
#[derive(Debug)]
struct Promise {
    token: Token,
    event: Event,
    on_success: Bytes,
    on_failure: Bytes,
}

/// A bound session: both legs, what waits, and the pushes about it.
pub struct Session {
    settings: Arc<Settings>,
    dice: Dice,
    /// Ties the monotonic clock to the calendar, for delay stamps.
    epoch: Clock,
    bound: Bound,
    attachment: Attachment,
    /// The header of the stream that the current attachment reads.
    attached_header: Arc<Header>,
    client: Option<ClientLeg>,
    sm_id: Option<SmId>,
    /// XEP-0198 §5 `max` as the client asked, seconds.
    asked_max: Option<u64>,
    liveness: Liveness,
    queue: Queue,
    pending: Pending,
    owner: Owner,
    schedule: Schedule,
    client_inactive: bool,
    upstream_written: Instant,
    promises: VecDeque<Promise>,
    next_token: u64,
    outputs: VecDeque<Output>,
    ended: bool,
}

impl Session {
    /// A session whose client is attached by [`Attachment::FIRST`].
    pub fn new(settings: Arc<Settings>, bound: Bound, owner: Owner, dice: Dice, clock: Clock) -> Self {
        let now = clock.now;
        Self {
            dice,
            epoch: clock,
            attachment: Attachment::FIRST,
            attached_header: Arc::clone(&bound.server_header),
            client: None,
            sm_id: None,
            asked_max: None,
            liveness: Liveness::new(&settings.stream_management, now),
            queue: Queue::new(settings.session_queue),
            pending: Pending::new(dice()),
            owner,
            schedule: Schedule::new(settings.push.batch_delay, settings.push.min_interval),
            client_inactive: false,
            upstream_written: now,
            promises: VecDeque::new(),
            next_token: 0,
            outputs: VecDeque::new(),
            ended: false,
            bound,
            settings,
        }
    }

    /// Takes one event. Drain [`Session::poll`] before the next.
    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.ended {
            return;
        }
        match input {
            Input::Client(attachment, frame) if attachment == self.attachment => self.client_frame(now, frame),
            Input::ClientLost(attachment) if attachment == self.attachment => self.client_lost(now),
            // Invariant 10: only the owner detaches.
            Input::Client(..) | Input::ClientLost(_) => {}
            Input::Upstream(frame) => self.upstream_frame(now, frame),
            Input::UpstreamLost => self.upstream_lost(),
            Input::Attach(resumption) => self.attach(now, resumption),
            Input::Account(account) => self.account_changed(now, account),
            Input::Stored(token, stored) => self.stored(now, token, stored),
            Input::Publish(publish) => self.publish_here(now, &publish),
            Input::Drain => self.drain(),
            Input::Quiet => self.quiet(now),
            Input::Timeout => self.timeout(now),
        }
    }

    /// The next effect, `None` when all are taken.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let keepalive = self.upstream_written + self.settings.stream_management.upstream_keepalive;
        [
            self.liveness.deadline(),
            self.schedule.due().filter(|_| self.owned().next().is_some()),
            self.pending.deadline(),
            Some(keepalive),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The session's full JID.
    pub fn jid(&self) -> &FullJid {
        &self.bound.jid
    }

    /// Who logged in, where it is known in the clear.
    pub fn identity(&self) -> Option<&SaslIdentity> {
        self.bound.identity.as_ref()
    }

    /// The current attachment.
    pub fn attachment(&self) -> Attachment {
        self.attachment
    }

    /// Whether the session is held without a usable client connection.
    pub fn is_dark(&self) -> bool {
        self.liveness.is_dark()
    }

    /// Whether a connection may resume with this `h`; asked before the old attachment is given up.
    ///
    /// # Errors
    /// The client claims stanzas that were never sent.
    pub fn check_resume(&self, h: sm::Handled) -> Result<(), sm::TooHigh> {
        self.client.as_ref().map_or(Ok(()), |leg| leg.check(h))
    }

    fn out(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    fn event(&mut self, event: Event) {
        self.out(Output::Event(event));
    }

    fn write_client(&mut self, bytes: impl Into<Bytes>) {
        self.out(Output::ToClient(bytes.into()));
    }

    fn write_upstream(&mut self, now: Instant, bytes: Bytes) {
        self.upstream_written = now;
        self.out(Output::ToUpstream(bytes));
    }

    fn end(&mut self, reason: EndReason) {
        self.ended = true;
        self.out(Output::End(reason));
    }

    /// Unix seconds of a moment.
    fn unix(&self, at: Instant) -> u64 {
        self.wall(at).duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// The calendar time of a moment, for delay stamps.
    fn wall(&self, at: Instant) -> SystemTime {
        self.epoch.wall + at.saturating_duration_since(self.epoch.now)
    }
}
