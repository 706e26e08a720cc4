//! A handle to a session: its mailbox, what it publishes of itself, and what others want of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::gauges::Gauges;
use super::mailbox::{self, NotTaken, mailbox};
use super::published::Published;
use super::succession::Succession;
pub use super::succession::Wanted;
use crate::clock::UnixSecs;
use crate::jid::{BareJid, Jid};
use crate::push::account::{DeviceId, LoginId};
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::push::registration::Target;
use crate::session::liveness::Reach;
use crate::session::negotiate::HeldSession;
use crate::session::{EndReason, Resumption, SmId, sm};
use crate::sync::lock;
use crate::xml::Element;

/// Offered commands that may wait for a session; a session that does not take them is busy for at most a wake-up.
pub const COMMANDS: usize = 64;

/// How long a session may take to end once it was asked to give way: to spool what it has and to close its stream.
pub const GIVE_WAY: Duration = Duration::from_secs(8);

/// What others ask of a session's task. `C`: the connection of a client.
#[derive(Debug)]
pub enum Command<C> {
    /// Take this connection in place of the one you have.
    Attach(Box<Attach<C>>),
    /// Publish this through your stream, for another device of the account; without an answer the outcome is unknown.
    Carry(Box<Publish>, oneshot::Sender<Outcome>),
    /// What became of a publish of yours that left by another transport.
    Published(Box<(Target, Outcome)>),
    /// An answer for you came over a stream of a push service's.
    Routed(Box<Routed>),
}

/// Answers over streams of push services that may wait for a session, in bytes.
const ROUTED: usize = 256 * 1024;

/// An answer that came over a stream of a push service's, counted for as long as it waits.
#[derive(Debug)]
pub struct Routed {
    /// The answer.
    pub stanza: Element,
    waiting: Arc<AtomicUsize>,
}

impl Drop for Routed {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.stanza.bytes().len(), Ordering::Relaxed);
    }
}

/// A connection that proved it may take the session over.
#[derive(Debug)]
pub struct Attach<C> {
    /// The connection.
    pub client: Box<C>,
    /// Where it is from.
    pub peer: SocketAddr,
    /// Where its client left off.
    pub resumption: Resumption,
    /// Returns whether it was taken.
    pub reply: oneshot::Sender<Result<(), Refused<C>>>,
}

/// A connection that was not taken, given back.
#[derive(Debug)]
pub struct Refused<C> {
    /// The connection.
    pub client: Box<C>,
    /// The client's fault, if it was one: else the session is gone.
    pub too_high: Option<sm::TooHigh>,
}

/// What an operator may want to know of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionNotes {
    /// Where the client is from, or was last.
    pub peer: Option<SocketAddr>,
    /// The push services that notify the device.
    pub services: Vec<Jid>,
    /// The newest decision about a stanza, and when it fell.
    pub verdict: Option<(&'static str, UnixSecs)>,
    /// What became of the newest notification, and when.
    pub push: Option<(Published, SystemTime)>,
}

/// How others reach a session. `C`: the connection of a client.
#[derive(Debug)]
pub struct Handle<C> {
    login: LoginId,
    held: HeldSession,
    resource: String,
    device: AtomicU64,
    gauges: Gauges,
    notes: Mutex<SessionNotes>,
    commands: mailbox::Sender<Command<C>>,
    /// Bytes of answers that came over streams of push services, and that the session has not taken.
    routed: Arc<AtomicUsize>,
    /// The id under which the registry has it.
    resumable: Mutex<Option<SmId>>,
    succession: Succession,
}

impl<C> Handle<C> {
    /// A handle, and where the session's commands come.
    pub(super) fn new(login: LoginId, held: HeldSession, resource: String) -> (Self, mailbox::Receiver<Command<C>>) {
        let (commands, receiver) = mailbox(COMMANDS);
        let handle = Self {
            login,
            held,
            resource,
            device: AtomicU64::new(0),
            gauges: Gauges::new(),
            notes: Mutex::default(),
            commands,
            routed: Arc::default(),
            resumable: Mutex::default(),
            succession: Succession::default(),
        };
        (handle, receiver)
    }

    /// The login that the session came of. A later one is larger.
    pub fn login(&self) -> LoginId {
        self.login
    }

    /// What must be proven to resume the session.
    pub fn held(&self) -> &HeldSession {
        &self.held
    }

    /// The account.
    pub fn account(&self) -> &BareJid {
        &self.held.account
    }

    /// The resource that the session has bound.
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// The device whose session it is.
    pub fn device(&self) -> DeviceId {
        DeviceId(self.device.load(Ordering::Relaxed))
    }

    /// The device became known, or turned out to be another.
    pub fn set_device(&self, device: DeviceId) {
        self.device.store(device.0, Ordering::Relaxed);
    }

    /// The registry has the session under this id now, or under none; returns the one before.
    pub(super) fn set_resumable(&self, id: Option<SmId>) -> Option<SmId> {
        std::mem::replace(&mut *lock(&self.resumable), id)
    }

    // What the session publishes of itself

    /// Returns whether the session is held without its client.
    pub fn is_dark(&self) -> bool {
        self.reach() == Reach::Dark
    }

    /// Returns whether the client can be reached.
    pub fn reach(&self) -> Reach {
        self.gauges.reach()
    }

    /// The client can be reached, or cannot. Returns whether that has changed.
    pub fn set_reach(&self, reach: Reach) -> bool {
        self.gauges.set_reach(reach)
    }

    /// Since when the client is there or not.
    pub fn since(&self) -> UnixSecs {
        self.gauges.since()
    }

    /// The smallest is held longest.
    pub fn held_since(&self) -> (UnixSecs, LoginId) {
        (self.since(), self.login)
    }

    /// Publishes the number of stanzas that wait in memory, and their bytes.
    pub fn set_queued(&self, stanzas: usize, bytes: usize) {
        self.gauges.set_queued(stanzas, bytes);
    }

    /// The number of stanzas that wait in memory, and their bytes.
    pub fn queued(&self) -> (usize, usize) {
        self.gauges.queued()
    }

    /// Publishes the number of stanzas that are set aside for the device.
    pub fn set_set_aside(&self, stanzas: usize) {
        self.gauges.set_set_aside(stanzas);
    }

    /// The number of stanzas that are set aside for the device.
    pub fn set_aside(&self) -> usize {
        self.gauges.set_aside()
    }

    /// Notes something for operators.
    pub fn note(&self, note: impl FnOnce(&mut SessionNotes)) {
        note(&mut lock(&self.notes));
    }

    /// What was noted.
    pub fn notes(&self) -> SessionNotes {
        lock(&self.notes).clone()
    }

    // The mailbox

    /// Leaves a command that may be refused, without waiting.
    ///
    /// # Errors
    /// The command, if too many wait or the session is gone.
    pub fn offer(&self, command: Command<C>) -> Result<(), NotTaken<Command<C>>> {
        self.commands.offer(command)
    }

    /// Leaves a command whose number was bounded when it was admitted, without waiting.
    ///
    /// # Errors
    /// The command, if the session is gone.
    pub fn deliver(&self, command: Command<C>) -> Result<(), Command<C>> {
        self.commands.deliver(command)
    }

    /// Leaves an answer that came over a stream of a push service's, without waiting.
    ///
    /// # Errors
    /// The command, if too much waits or the session is gone.
    pub fn route(&self, stanza: Element) -> Result<(), NotTaken<Command<C>>> {
        let waiting = self.routed.fetch_add(stanza.bytes().len(), Ordering::Relaxed);
        let routed = Command::Routed(Box::new(Routed { stanza, waiting: Arc::clone(&self.routed) }));
        // One may always wait, however long it is.
        if waiting > ROUTED { Err(NotTaken::Full(routed)) } else { self.offer(routed) }
    }

    /// Lets the session look at what was published: its account, the settings, the drain, its device's other sessions, and
    /// what is wanted of it.
    pub fn notify(&self) {
        self.commands.notify();
    }

    // What others want of the session

    /// Wants the session to end for this reason, if it is held.
    pub fn give_way(&self, reason: EndReason) {
        self.succession.want_end(reason);
        self.notify();
    }

    /// Wants the session to take over what a session of its device has left.
    pub fn inherit(&self) {
        self.succession.want_inheritance();
        self.notify();
    }

    /// What is wanted of the session. [`Handle::has_looked`] must follow once it was done or declined.
    pub fn look(&self) -> Wanted {
        self.succession.wanted()
    }

    /// The session has done, or declined, what was wanted.
    pub fn has_looked(&self, at: Wanted) {
        self.succession.settle(at);
    }

    /// The session and that of this later login of its device both stay.
    pub fn answer(&self, login: LoginId) {
        self.succession.answer(login);
    }

    /// The session has begun to end.
    pub fn set_ending(&self) {
        self.succession.set_ending();
    }

    /// Returns whether the session has begun to end.
    pub fn is_ending(&self) -> bool {
        self.succession.is_ending()
    }

    /// All that the session had is on disk or on its way there, and it is not in the registry any more.
    pub fn set_ended(&self) {
        self.succession.set_ended();
    }

    /// Waits until the session has ended, or has answered this later login or one behind it. Cancel safe.
    pub async fn settled(&self, login: LoginId) {
        self.succession.settled(login).await;
    }

    /// Waits until the session has ended; returns whether it has within [`GIVE_WAY`]. Cancel safe.
    pub async fn ended(&self) -> bool {
        timeout(GIVE_WAY, self.succession.ended()).await.is_ok()
    }

    /// Has the session end if it is held, and waits for that; returns whether it has ended, or stays, within [`GIVE_WAY`].
    /// Cancel safe.
    pub async fn end(&self, reason: EndReason) -> bool {
        self.give_way(reason);
        timeout(GIVE_WAY, self.succession.ended_or_stays()).await.is_ok()
    }
}
