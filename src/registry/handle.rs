//! A handle to a session ([`Handle`]): its mailbox ([`Command`]), the state that it publishes, and the requests to it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::claim::Claim;
use super::gauges::Gauges;
use super::mailbox::{self, NotTaken, mailbox};
use super::published::Published;
use super::record::HandleRecord;
pub use super::succession::SessionRequests;
use super::succession::Succession;
use crate::clock::{Instant, UnixSecs};
use crate::jid::{BareJid, Jid};
use crate::push::account::{DeviceId, LoginId};
use crate::push::fast::TokenVerdict;
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::session::liveness::Reach;
use crate::session::negotiate::HeldSession;
use crate::session::sasl::LoginMethod;
use crate::session::{EndReason, PublishResult, Resumption, SmId, sm};
use crate::store::AccountOwnership;
use crate::sync::lock;
use crate::xml::Element;

/// The most offered commands that may wait for a session, which is busy for at most one wake-up: more means that it hangs.
pub const COMMANDS: usize = 64;

/// The longest time that a session may take to end after it was asked to: to spool its stanzas and to close its stream.
pub const END_TIMEOUT: Duration = Duration::from_secs(8);

/// A command to a session's task. `C`: the connection of a client.
#[derive(Debug)]
pub enum Command<C> {
    /// Replace the client connection with this one.
    Attach(Box<Attach<C>>),
    /// Publish this through the session's own stream, for another device of the account.
    PublishOnStream(Box<StreamPublish>),
    /// The outcome of a publish of this session that went by another transport.
    Published(Box<PublishResult>),
    /// A publish of this session that no transport has written, because publishing was interrupted.
    Unpublished(Box<Publish>),
    /// An answer to this session that came over the stream of an app server.
    Routed(Box<Routed>),
}

/// A publish for another device of the account. The session writes it only if it gets the claim.
#[derive(Debug)]
pub struct StreamPublish {
    /// The publish.
    pub publish: Box<Publish>,
    /// The right to write it.
    pub claim: Claim,
    /// Receives the outcome. If it is dropped, the outcome of a publish whose claim was taken is unknown.
    pub reply: oneshot::Sender<Outcome>,
}

/// The most bytes of answers over streams of app servers that may wait for a session.
const ROUTED: usize = 256 * 1024;

/// An answer that came over the stream of an app server. Its bytes are counted while it waits.
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

/// A connection that has proven that it may take over the session.
#[derive(Debug)]
pub struct Attach<C> {
    /// The connection.
    pub client: Box<C>,
    /// The address of the client.
    pub peer: SocketAddr,
    /// The method by which the client has logged in.
    pub login: Option<LoginMethod>,
    /// The time at which the login began.
    pub began: Instant,
    /// The client's request to resume.
    pub resumption: Resumption,
    /// Receives whether the session took the connection.
    pub reply: oneshot::Sender<Result<(), Refused<C>>>,
}

/// A connection that the session did not take, returned.
#[derive(Debug)]
pub struct Refused<C> {
    /// The connection.
    pub client: Box<C>,
    /// The reason.
    pub reason: AttachRefusal,
}

/// The reason why a session did not take a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachRefusal {
    /// The session has ended.
    Ended,
    /// The client claims stanzas that were never sent.
    TooHigh(sm::TooHigh),
    /// The client's token does not open the session.
    Token(TokenVerdict),
}

/// Notes about a session for operators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionNotes {
    /// The current or last address of the client.
    pub peer: Option<SocketAddr>,
    /// The method of the client's last login.
    pub login: Option<LoginMethod>,
    /// The app servers that notify the device.
    pub services: Vec<Jid>,
    /// The newest decision about a stanza, and its time.
    pub verdict: Option<(Cow<'static, str>, UnixSecs)>,
    /// The outcome of the newest notification, and its time.
    pub push: Option<(Published, SystemTime)>,
}

/// The handle through which other tasks reach a session. `C`: the connection of a client.
#[derive(Debug)]
pub struct Handle<C> {
    login: LoginId,
    held: HeldSession,
    resource: String,
    device: AtomicU64,
    gauges: Gauges,
    notes: Mutex<SessionNotes>,
    commands: mailbox::Sender<Command<C>>,
    /// The bytes of answers over streams of app servers that wait for the session.
    routed: Arc<AtomicUsize>,
    /// The id under which the registry lists the session.
    resumable: Mutex<Option<SmId>>,
    succession: Succession,
    ownership: Mutex<AccountOwnership>,
}

impl<C> Handle<C> {
    /// Creates a handle, and the receiver of the session's commands.
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
            ownership: Mutex::default(),
        };
        (handle, receiver)
    }

    /// Returns the state for another process.
    pub fn freeze(&self) -> HandleRecord {
        let SessionNotes { peer, login: method, verdict, push, .. } = self.notes();
        HandleRecord {
            login: self.login,
            held: self.held.clone(),
            resource: self.resource.clone(),
            device: self.device(),
            is_dark: self.is_dark(),
            since: self.since(),
            resumable: lock(&self.resumable).clone(),
            answered: self.succession.answered(),
            requests: self.requests(),
            peer,
            method,
            verdict,
            push,
        }
    }

    /// Goes on in another process. [`Handle::device`] and the notes are as they were, and the session has no client.
    pub(super) fn thaw(record: HandleRecord) -> (Self, mailbox::Receiver<Command<C>>) {
        let HandleRecord { login, held, resource, device, is_dark, since, answered, requests, .. } = record;
        let HandleRecord { peer, method, verdict, push, .. } = record;
        let (handle, commands) = Self::new(login, held, resource);
        handle.set_device(device);
        if is_dark {
            handle.gauges.set_reach(Reach::Dark);
        }
        handle.gauges.set_since(since);
        handle.note_both_stay(answered);
        handle.succession.request(requests);
        handle.note(|notes| *notes = SessionNotes { peer, login: method, services: Vec::new(), verdict, push });
        (handle, commands)
    }

    /// Returns the login that began the session. Later logins are greater.
    pub fn login(&self) -> LoginId {
        self.login
    }

    /// Returns what must be proven to resume the session.
    pub fn held(&self) -> &HeldSession {
        &self.held
    }

    /// Returns the account.
    pub fn account(&self) -> &BareJid {
        &self.held.account
    }

    /// Returns the resource that the session has bound.
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// Keeps the account with this node for as long as the session lives.
    pub fn own(&self, ownership: AccountOwnership) {
        *lock(&self.ownership) = ownership;
    }

    /// Returns the device of the session.
    pub fn device(&self) -> DeviceId {
        DeviceId(self.device.load(Ordering::Relaxed))
    }

    /// Sets the device, when it becomes known or turns out to be another.
    pub fn set_device(&self, device: DeviceId) {
        self.device.store(device.0, Ordering::Relaxed);
    }

    /// Sets the id under which the registry lists the session, or none; returns the previous one.
    pub(super) fn set_resumable(&self, id: Option<SmId>) -> Option<SmId> {
        std::mem::replace(&mut *lock(&self.resumable), id)
    }

    // State that the session publishes

    /// Returns whether the session is held without a client.
    pub fn is_dark(&self) -> bool {
        self.reach() == Reach::Dark
    }

    /// Returns whether the client can be reached.
    pub fn reach(&self) -> Reach {
        self.gauges.reach()
    }

    /// Sets whether the client can be reached. Returns whether that has changed.
    pub fn set_reach(&self, reach: Reach) -> bool {
        self.gauges.set_reach(reach)
    }

    /// Returns the time of the last change of [`Handle::reach`].
    pub fn since(&self) -> UnixSecs {
        self.gauges.since()
    }

    /// Returns a key by which held sessions are ordered; the smallest is the one held longest.
    pub fn held_since(&self) -> (UnixSecs, LoginId) {
        (self.since(), self.login)
    }

    /// Publishes the number of stanzas that wait in memory, and their bytes.
    pub fn set_queued(&self, stanzas: usize, bytes: usize) {
        self.gauges.set_queued(stanzas, bytes);
    }

    /// Returns the number of stanzas that wait in memory, and their bytes.
    pub fn queued(&self) -> (usize, usize) {
        self.gauges.queued()
    }

    /// Publishes the number of stanzas that are set aside for the device.
    pub fn set_set_aside(&self, stanzas: usize) {
        self.gauges.set_set_aside(stanzas);
    }

    /// Returns the number of stanzas that are set aside for the device.
    pub fn set_aside(&self) -> usize {
        self.gauges.set_aside()
    }

    /// Changes the notes for operators.
    pub fn note(&self, note: impl FnOnce(&mut SessionNotes)) {
        note(&mut lock(&self.notes));
    }

    /// Returns the notes for operators.
    pub fn notes(&self) -> SessionNotes {
        lock(&self.notes).clone()
    }

    // The mailbox

    /// Sends a command that may be refused, without waiting.
    ///
    /// # Errors
    /// The command, if too many wait or the session has ended.
    pub fn offer(&self, command: Command<C>) -> Result<(), NotTaken<Command<C>>> {
        self.commands.offer(command)
    }

    /// Sends a command whose number was bounded when it was admitted, without waiting.
    ///
    /// # Errors
    /// The command, if the session has ended.
    pub fn deliver(&self, command: Command<C>) -> Result<(), Command<C>> {
        self.commands.deliver(command)
    }

    /// Sends an answer that came over the stream of an app server, without waiting.
    ///
    /// # Errors
    /// The command, if too much waits or the session has ended.
    pub fn route(&self, stanza: Element) -> Result<(), NotTaken<Command<C>>> {
        let waiting = self.routed.fetch_add(stanza.bytes().len(), Ordering::Relaxed);
        let routed = Command::Routed(Box::new(Routed { stanza, waiting: Arc::clone(&self.routed) }));
        // The first one may always wait, however long it is.
        if waiting > ROUTED { Err(NotTaken::Full(routed)) } else { self.offer(routed) }
    }

    /// Wakes the session so that it looks at published state: its account, the settings, the drain, the other sessions of its
    /// device, and the requests to it.
    pub fn notify(&self) {
        self.commands.notify();
    }

    // Requests of other tasks

    /// Asks the session to end for this reason, if it is held. [`EndReason::Drained`]: in any case.
    pub fn end_if_held(&self, reason: EndReason) {
        self.succession.request_end(reason);
        self.notify();
    }

    /// Asks the session to take over the stanzas that another session of its device has left.
    pub fn inherit(&self) {
        self.succession.request_inheritance();
        self.notify();
    }

    /// Returns the requests to the session. [`Handle::on_requests_handled`] must follow once they are done or declined.
    pub fn requests(&self) -> SessionRequests {
        self.succession.requests()
    }

    /// Notes that the session has done or declined these requests.
    pub fn on_requests_handled(&self, handled: SessionRequests) {
        self.succession.settle(handled);
    }

    /// Notes that the session and the one of this later login of its device both stay.
    pub fn note_both_stay(&self, login: LoginId) {
        self.succession.note_both_stay(login);
    }

    /// Notes that the session has begun to end.
    pub fn set_ending(&self) {
        self.succession.set_ending();
    }

    /// Returns whether the session has begun to end.
    pub fn is_ending(&self) -> bool {
        self.succession.is_ending()
    }

    /// Notes that the session has ended: its state is on disk or on its way there, and the registry does not list it any more.
    pub fn set_ended(&self) {
        self.succession.set_ended();
    }

    /// Waits until the session has ended, or has answered this later login or one after it. Cancel safe.
    pub async fn settled(&self, login: LoginId) {
        self.succession.settled(login).await;
    }

    /// Waits until the session has ended; returns whether it has within [`END_TIMEOUT`]. Cancel safe.
    pub async fn ended(&self) -> bool {
        timeout(END_TIMEOUT, self.succession.ended()).await.is_ok()
    }

    /// Asks the session to end if it is held, and waits for that; returns whether it has ended or declined within
    /// [`END_TIMEOUT`]. Cancel safe.
    pub async fn end(&self, reason: EndReason) -> bool {
        self.end_if_held(reason);
        timeout(END_TIMEOUT, self.succession.ended_or_stays()).await.is_ok()
    }
}
