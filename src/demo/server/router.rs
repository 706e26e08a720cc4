//! [`Router`]: the online sessions, and the messages that wait for offline accounts.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::broadcast;
use tokio::sync::mpsc::{Sender, error::TrySendError};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::edit::with_delay;
use super::push::Notification;
use super::settings::{DemoAccount, ServerSettings};
use crate::demo::trace::Observer;
use crate::jid::{BareJid, FullJid, JidError};
use crate::sync::lock;
use crate::xml::{Element, Header};

/// The number of notifications that a receiver may be behind.
const NOTIFICATIONS: usize = 1024;
/// The limit for messages that wait for an offline account. Further ones are refused.
const OFFLINE: usize = 100;
/// The time that a stanza waits for room in the queue of a session that does not read. After it, that session is closed.
const ROOM: Duration = Duration::from_secs(10);

/// The connection to a session's stream.
#[derive(Clone)]
pub(super) struct ClientLink {
    /// The server's stream header.
    pub(super) header: Arc<Header>,
    /// The queue of bytes to write.
    pub(super) queue: Sender<Bytes>,
    /// Ends the stream.
    pub(super) close: CancellationToken,
}

impl ClientLink {
    /// Queues a stanza that arrived on another stream.
    pub(super) async fn deliver(&self, element: &Element) {
        self.send(element.on_stream(&self.header)).await;
    }

    /// Queues bytes. Closes a session that does not read for 10 s.
    pub(super) async fn send(&self, bytes: Bytes) {
        match timeout(ROOM, self.queue.send(bytes)).await {
            Ok(Ok(())) => {}
            // The stream has just ended.
            Ok(Err(_)) => self.close.cancel(),
            Err(_) => {
                tracing::warn!("session queue of the embedded server full: session closed");
                self.close.cancel();
            }
        }
    }
}

/// The number of one binding of a resource. A later binding of the same resource has another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BindingId(u64);

/// An available presence.
#[derive(Clone)]
pub(super) struct Presence {
    pub(super) element: Element,
    pub(super) priority: i8,
}

struct OnlineSession {
    binding: BindingId,
    link: ClientLink,
    presence: Option<Presence>,
}

#[derive(Default)]
struct RouterState {
    sessions: HashMap<BareJid, BTreeMap<String, OnlineSession>>,
    offline: HashMap<BareJid, VecDeque<Element>>,
    bindings: u64,
}

/// The state of the server.
pub(super) struct Router {
    domain: String,
    observer: Option<Observer>,
    accounts: HashMap<BareJid, DemoAccount>,
    notifications: broadcast::Sender<Notification>,
    state: Mutex<RouterState>,
}

impl Router {
    pub(super) fn new(settings: ServerSettings) -> Result<Self, JidError> {
        let ServerSettings { domain, accounts, observer } = settings;
        let named = accounts.into_iter().map(|a| Ok((BareJid::new(&format!("{}@{domain}", a.name))?, a)));
        let accounts = named.collect::<Result<_, JidError>>()?;
        let (notifications, _) = broadcast::channel(NOTIFICATIONS);
        Ok(Self { domain, observer, accounts, notifications, state: Mutex::default() })
    }

    pub(super) fn domain(&self) -> &str {
        &self.domain
    }

    pub(super) fn observer(&self) -> Option<Observer> {
        self.observer.clone()
    }

    pub(super) fn notifications(&self) -> broadcast::Receiver<Notification> {
        self.notifications.subscribe()
    }

    /// Reports a notification to all receivers. There may be none.
    pub(super) fn notify(&self, notification: Notification) {
        drop(self.notifications.send(notification));
    }

    pub(super) fn authenticate(&self, name: &str, password: &str) -> Option<BareJid> {
        let jid = BareJid::new(&format!("{name}@{}", self.domain)).ok()?;
        self.accounts.get(&jid).filter(|account| account.password == password).map(|_| jid)
    }

    pub(super) fn has_account(&self, account: &BareJid) -> bool {
        self.accounts.contains_key(account)
    }

    /// Returns the bare JIDs in the roster.
    pub(super) fn contacts(&self, account: &BareJid) -> Vec<BareJid> {
        let names = self.accounts.get(account).map(|a| a.contacts.as_slice()).unwrap_or_default();
        names.iter().filter_map(|name| BareJid::new(&format!("{name}@{}", self.domain)).ok()).collect()
    }

    fn state(&self) -> MutexGuard<'_, RouterState> {
        lock(&self.state)
    }

    /// Binds a resource. Closes the session that had it before (RFC 6120 §7.7.2.2).
    pub(super) fn join(&self, jid: &FullJid, link: ClientLink) -> BindingId {
        let mut state = self.state();
        state.bindings += 1;
        let binding = BindingId(state.bindings);
        let session = OnlineSession { binding, link, presence: None };
        let sessions = state.sessions.entry(jid.to_bare()).or_default();
        if let Some(replaced) = sessions.insert(jid.resource().to_owned(), session) {
            replaced.link.close.cancel();
        }
        binding
    }

    /// Removes a binding. Returns whether it was available.
    pub(super) fn leave(&self, jid: &FullJid, binding: BindingId) -> bool {
        let mut state = self.state();
        let Some(sessions) = state.sessions.get_mut(&jid.to_bare()) else { return false };
        let resource = jid.resource();
        if sessions.get(resource).is_none_or(|session| session.binding != binding) {
            return false;
        }
        sessions.remove(resource).is_some_and(|session| session.presence.is_some())
    }

    pub(super) fn is_online(&self, jid: &FullJid) -> bool {
        let state = self.state();
        state.sessions.get(&jid.to_bare()).is_some_and(|own| own.contains_key(jid.resource()))
    }

    /// Stores an available presence, or `None` for unavailable. Returns whether the session was available before.
    ///
    /// At the first presence with non-negative priority, the account's waiting messages are queued, before any newer ones.
    pub(super) fn set_presence(&self, jid: &FullJid, binding: BindingId, presence: Option<Presence>) -> bool {
        let account = jid.to_bare();
        let mut guard = self.state();
        let state = &mut *guard;
        let session = state.sessions.get_mut(&account).and_then(|own| own.get_mut(jid.resource()));
        let Some(session) = session.filter(|session| session.binding == binding) else { return false };
        let receives = presence.as_ref().is_some_and(|presence| presence.priority >= 0);
        let before = std::mem::replace(&mut session.presence, presence).is_some();
        if receives {
            hand_over(state.offline.get_mut(&account), &session.link);
        }
        before
    }

    /// Returns the available sessions of an account that receive messages to its bare JID (RFC 6121 §8.5.2.1).
    pub(super) fn receivers(&self, account: &BareJid) -> Vec<ClientLink> {
        self.available(account, |presence| presence.priority >= 0)
    }

    /// Returns all available sessions of an account.
    pub(super) fn audience(&self, account: &BareJid) -> Vec<ClientLink> {
        self.available(account, |_| true)
    }

    fn available(&self, account: &BareJid, wanted: impl Fn(&Presence) -> bool) -> Vec<ClientLink> {
        let state = self.state();
        let sessions = state.sessions.get(account).into_iter().flat_map(BTreeMap::values);
        sessions.filter(|s| s.presence.as_ref().is_some_and(&wanted)).map(|s| s.link.clone()).collect()
    }

    /// Returns the presences of an account's available sessions.
    pub(super) fn presences(&self, account: &BareJid) -> Vec<Element> {
        let state = self.state();
        let sessions = state.sessions.get(account).into_iter().flat_map(BTreeMap::values);
        sessions.filter_map(|s| s.presence.as_ref().map(|presence| presence.element.clone())).collect()
    }

    /// Returns the session with a full JID.
    pub(super) fn session(&self, jid: &FullJid) -> Option<ClientLink> {
        let state = self.state();
        state.sessions.get(&jid.to_bare())?.get(jid.resource()).map(|session| session.link.clone())
    }

    /// Stores a message for an account until it is available. Returns whether there was room.
    pub(super) fn keep(&self, account: &BareJid, message: &Element) -> bool {
        let mut state = self.state();
        let waiting = state.offline.entry(account.clone()).or_default();
        if waiting.len() >= OFFLINE {
            return false;
        }
        waiting.push_back(with_delay(message, &self.domain, SystemTime::now()));
        true
    }
}

/// Queues the waiting messages, as far as there is room. The others continue to wait.
fn hand_over(waiting: Option<&mut VecDeque<Element>>, link: &ClientLink) {
    let Some(waiting) = waiting else { return };
    while let Some(message) = waiting.front() {
        match link.queue.try_send(message.on_stream(&link.header)) {
            Ok(()) => drop(waiting.pop_front()),
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => return,
        }
    }
}
