//! How others reach a session: its mailbox, what it publishes of itself, and what others want of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::mailbox::{self, NotTaken, mailbox};
use crate::jid::{BareJid, Jid};
use crate::publish::selection::Published;
use crate::push::account::{DeviceId, LoginId};
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::push::registration::Target;
use crate::relay::Client;
use crate::relay::jobs::unix;
use crate::session::liveness::Reach;
use crate::session::negotiate::Held;
use crate::session::{EndReason, Resumption, SmId, sm};
use crate::xml::Element;

/// Offered commands that may wait for a session; a session that does not take them is busy for at most a wake-up.
pub const COMMANDS: usize = 64;

/// How long a session may take to end once it was asked to give way: to spool what it has and to close its stream.
pub const GIVE_WAY: Duration = Duration::from_secs(8);

/// What others ask of a session's task.
#[derive(Debug)]
pub enum Command {
    /// Take this connection in place of the one you have.
    Attach(Box<Attach>),
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
pub struct Attach {
    /// The connection.
    pub client: Box<Client>,
    /// Where it is from.
    pub peer: SocketAddr,
    /// Where its client left off.
    pub resumption: Resumption,
    /// Returns whether it was taken.
    pub reply: oneshot::Sender<Result<(), Refused>>,
}

/// A connection that was not taken, given back.
#[derive(Debug)]
pub struct Refused {
    /// The connection.
    pub client: Box<Client>,
    /// The client's fault, if it was one: else the session is gone.
    pub too_high: Option<sm::TooHigh>,
}

/// What an operator may want to know of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Where the client is from, or was last.
    pub peer: Option<SocketAddr>,
    /// The push services that notify the device.
    pub services: Vec<Jid>,
    /// The newest decision about a stanza, and when it fell in unix seconds.
    pub verdict: Option<(&'static str, u64)>,
    /// What became of the newest notification, and when.
    pub push: Option<(Published, SystemTime)>,
}

/// What others want of a session, until it has looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// That it ends for this reason, if it is held.
    pub give_way: Option<EndReason>,
    /// That it takes over what a session of its device has left.
    pub inherit: bool,
}

/// How others reach a session.
#[derive(Debug)]
pub struct Handle {
    login: LoginId,
    held: Held,
    resource: String,
    device: AtomicU64,
    /// A [`Reach`].
    reach: AtomicU8,
    /// Unix seconds.
    since: AtomicU64,
    /// Stanzas that wait in memory, and what they count for in bytes.
    queued: (AtomicUsize, AtomicUsize),
    /// Stanzas that are set aside for the device.
    set_aside: AtomicUsize,
    notes: Mutex<Notes>,
    commands: mailbox::Sender<Command>,
    /// Bytes of answers that came over streams of push services, and that the session has not taken.
    routed: Arc<AtomicUsize>,
    /// The id under which the registry has it.
    resumable: Mutex<Option<SmId>>,
    wanted: Mutex<Wanted>,
    /// The newest login that was answered: its session and this one both stay.
    answered: AtomicU64,
    ending: AtomicBool,
    ended: AtomicBool,
    /// Notified when `wanted`, `answered`, `ending` or `ended` has changed.
    standing: Notify,
}

impl Handle {
    /// A handle, and where the session's commands come.
    pub fn new(login: LoginId, held: Held, resource: String) -> (Self, mailbox::Receiver<Command>) {
        let (commands, receiver) = mailbox(COMMANDS);
        let handle = Self {
            login,
            held,
            resource,
            device: AtomicU64::new(0),
            reach: AtomicU8::default(),
            since: AtomicU64::new(unix()),
            queued: Default::default(),
            set_aside: AtomicUsize::new(0),
            notes: Mutex::default(),
            commands,
            routed: Arc::default(),
            resumable: Mutex::default(),
            wanted: Mutex::default(),
            answered: AtomicU64::new(0),
            ending: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            standing: Notify::new(),
        };
        (handle, receiver)
    }

    /// The login that the session came of. A later one is larger.
    pub fn login(&self) -> LoginId {
        self.login
    }

    /// What must be proven to resume the session.
    pub fn held(&self) -> &Held {
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

    /// Returns whether the session is held without its client.
    pub fn is_dark(&self) -> bool {
        self.reach() == Reach::Dark
    }

    /// Returns whether the client can be reached.
    pub fn reach(&self) -> Reach {
        let number = self.reach.load(Ordering::Relaxed);
        Reach::ALL.into_iter().find(|reach| *reach as u8 == number).unwrap_or_default()
    }

    /// The client can be reached, or cannot. Returns whether that has changed.
    pub fn set_reach(&self, reach: Reach) -> bool {
        let changed = self.reach() != reach;
        if changed {
            self.since.store(unix(), Ordering::Relaxed);
            self.reach.store(reach as u8, Ordering::Relaxed);
        }
        changed
    }

    /// Publishes the number of stanzas that wait in memory, and their bytes.
    pub fn set_queued(&self, (stanzas, bytes): (usize, usize)) {
        self.queued.0.store(stanzas, Ordering::Relaxed);
        self.queued.1.store(bytes, Ordering::Relaxed);
    }

    /// Publishes the number of stanzas that are set aside for the device.
    pub fn note_set_aside(&self, stanzas: usize) {
        self.set_aside.store(stanzas, Ordering::Relaxed);
    }

    /// The number of stanzas that are set aside for the device.
    pub fn set_aside(&self) -> usize {
        self.set_aside.load(Ordering::Relaxed)
    }

    /// The number of stanzas that wait in memory, and their bytes.
    pub fn queued(&self) -> (usize, usize) {
        (self.queued.0.load(Ordering::Relaxed), self.queued.1.load(Ordering::Relaxed))
    }

    /// Notes something for operators.
    pub fn note(&self, note: impl FnOnce(&mut Notes)) {
        note(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What was noted.
    pub fn notes(&self) -> Notes {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Since when the client is there or not, in unix seconds.
    pub fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    /// The smallest is held longest.
    pub fn held_since(&self) -> (u64, LoginId) {
        (self.since(), self.login)
    }

    /// The registry has the session under this id now, or under none; returns the one before.
    pub fn set_resumable(&self, id: Option<SmId>) -> Option<SmId> {
        std::mem::replace(&mut self.resumable.lock().unwrap_or_else(PoisonError::into_inner), id)
    }

    // The mailbox

    /// Leaves a command that may be refused, without waiting.
    ///
    /// # Errors
    /// The command, if too many wait or the session is gone.
    pub fn offer(&self, command: Command) -> Result<(), NotTaken<Command>> {
        self.commands.offer(command)
    }

    /// Leaves a command whose number was bounded when it was admitted, without waiting.
    ///
    /// # Errors
    /// The command, if the session is gone.
    pub fn deliver(&self, command: Command) -> Result<(), Command> {
        self.commands.deliver(command)
    }

    /// Leaves an answer that came over a stream of a push service's, without waiting.
    ///
    /// # Errors
    /// The command, if too much waits or the session is gone.
    pub fn route(&self, stanza: Element) -> Result<(), NotTaken<Command>> {
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
        self.wanted().give_way.get_or_insert(reason);
        self.notify();
    }

    /// Wants the session to take over what a session of its device has left.
    pub fn inherit(&self) {
        self.wanted().inherit = true;
        self.notify();
    }

    /// What is wanted of the session. [`Handle::has_looked`] must follow once it was done or declined.
    pub fn look(&self) -> Wanted {
        *self.wanted()
    }

    /// The session has done, or declined, what was wanted.
    pub fn has_looked(&self, at: Wanted) {
        let mut wanted = self.wanted();
        if wanted.give_way == at.give_way {
            wanted.give_way = None;
        }
        wanted.inherit &= !at.inherit;
        drop(wanted);
        self.standing.notify_waiters();
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // What the session says of itself

    /// The session and that of this later login of its device both stay.
    pub fn answer(&self, login: LoginId) {
        self.answered.fetch_max(login.0, Ordering::Relaxed);
        self.standing.notify_waiters();
    }

    /// The session has begun to end.
    pub fn set_ending(&self) {
        if !self.ending.swap(true, Ordering::Relaxed) {
            self.standing.notify_waiters();
        }
    }

    /// Returns whether the session has begun to end.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// All that the session had is on disk or on its way there, and it is not in the registry any more.
    pub fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
        self.standing.notify_waiters();
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    // Waiting for it

    /// Waits until the session has ended, or has answered this later login or one behind it. Cancel safe.
    pub async fn settled(&self, login: LoginId) {
        self.until(|| self.has_ended() || self.answered.load(Ordering::Relaxed) >= login.0).await;
    }

    /// Waits until the session has ended; returns whether it has within [`GIVE_WAY`]. Cancel safe.
    pub async fn ended(&self) -> bool {
        timeout(GIVE_WAY, self.until(|| self.has_ended())).await.is_ok()
    }

    /// Has the session end if it is held, and waits for that; returns whether it has ended, or stays, within [`GIVE_WAY`].
    /// Cancel safe.
    pub async fn end(&self, reason: EndReason) -> bool {
        self.give_way(reason);
        let stays = || !self.is_ending() && self.wanted().give_way.is_none();
        timeout(GIVE_WAY, self.until(|| self.has_ended() || stays())).await.is_ok()
    }

    async fn until(&self, is: impl Fn() -> bool) {
        loop {
            let changed = self.standing.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if is() {
                return;
            }
            changed.await;
        }
    }
}
