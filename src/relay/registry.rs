//! The sessions of this process, by resumption id and by account.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use dashmap::DashMap;
use tokio::sync::oneshot;

use super::Client;
use super::jobs::unix;
use super::mailbox::{self, mailbox};
pub use super::mailbox::{Mail, NotTaken};
use crate::jid::{BareJid, Jid};
use crate::metrics::Tally;
use crate::publish::choice::Published;
use crate::push::account::{Account, DeviceId};
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::push::registration::Target;
use crate::session::liveness::Reach;
use crate::session::negotiate::{Held, Proof};
use crate::session::{EndReason, Resumption, SmId, sm};
use crate::xml::Element;

/// Offered commands that may wait for a session; a session that does not take them is busy for at most a wake-up.
pub(super) const COMMANDS: usize = 64;

/// What others ask of a session's task.
#[derive(Debug)]
pub enum Command {
    /// Take this connection in place of the one you have.
    Attach(Box<Attach>),
    /// The account is now so in the store.
    AccountChanged(Box<Account>),
    /// Publish this through your stream, for another device of the account; without an answer the outcome is unknown.
    Carry(Box<Publish>, oneshot::Sender<Outcome>),
    /// What became of a publish of yours that left by another transport.
    Published(Box<(Target, Outcome)>),
    /// A stanza for you, or for the account, came over a stream of a push service's.
    Routed(Box<Element>),
    /// The operator has set something anew: what is current.
    SettingsChanged,
    /// The daemon ends in an orderly way.
    Drain,
    /// Others of the account take your place: end for this reason, if you are held, and say so by dropping this.
    GiveWay(EndReason, oneshot::Sender<()>),
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
    /// Whether it was taken.
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

/// How others reach a session.
#[derive(Debug)]
pub struct Handle {
    number: u64,
    held: Held,
    resource: String,
    device: AtomicU64,
    /// A [`Reach`].
    reach: AtomicU8,
    /// Unix seconds.
    since: AtomicU64,
    /// Stanzas that wait in memory, and what they count for in bytes.
    queued: (AtomicUsize, AtomicUsize),
    notes: Mutex<Notes>,
    commands: mailbox::Sender<Command>,
}

impl Handle {
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

    /// Whether the session is held without its client.
    pub fn is_dark(&self) -> bool {
        self.reach() == Reach::Dark
    }

    /// Whether the client can be reached.
    pub fn reach(&self) -> Reach {
        let number = self.reach.load(Ordering::Relaxed);
        Reach::ALL.into_iter().find(|reach| *reach as u8 == number).unwrap_or_default()
    }

    /// The client can be reached, or cannot. Whether it has gone just now.
    pub fn set_reach(&self, reach: Reach) -> bool {
        let changed = self.reach() != reach;
        if changed {
            self.since.store(unix(), Ordering::Relaxed);
            self.reach.store(reach as u8, Ordering::Relaxed);
        }
        changed && reach == Reach::Dark
    }

    /// So many stanzas wait in memory, and count for so many bytes.
    pub fn set_queued(&self, (stanzas, bytes): (usize, usize)) {
        self.queued.0.store(stanzas, Ordering::Relaxed);
        self.queued.1.store(bytes, Ordering::Relaxed);
    }

    /// How many stanzas wait in memory, and what they count for in bytes.
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

    /// What is smallest is held longest.
    pub fn held_since(&self) -> (u64, u64) {
        (self.since(), self.number)
    }

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
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Registry {
    next: AtomicU64,
    resumable: DashMap<SmId, Arc<Handle>>,
    accounts: DashMap<BareJid, Vec<Arc<Handle>>>,
}

impl Registry {
    /// Enters a session and returns its handle and where its commands come.
    pub fn enter(&self, held: Held, resource: String) -> (Arc<Handle>, mailbox::Receiver<Command>) {
        let (commands, receiver) = mailbox(COMMANDS);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let account = held.account.clone();
        let handle = Arc::new(Handle {
            number,
            held,
            resource,
            device: AtomicU64::new(0),
            reach: AtomicU8::default(),
            since: AtomicU64::new(unix()),
            queued: Default::default(),
            notes: Mutex::default(),
            commands,
        });
        self.accounts.entry(account).or_default().push(Arc::clone(&handle));
        (handle, receiver)
    }

    /// The session can be found under this id from now on.
    pub fn resumable(&self, id: SmId, handle: &Arc<Handle>) {
        self.resumable.insert(id, Arc::clone(handle));
    }

    /// The session that can be resumed under this id.
    pub fn find(&self, id: &SmId) -> Option<Arc<Handle>> {
        self.resumable.get(id).map(|entry| Arc::clone(&entry))
    }

    /// The id can be resumed no more.
    pub fn not_resumable(&self, id: &SmId, handle: &Handle) {
        self.resumable.remove_if(id, |_, current| current.number == handle.number);
    }

    /// The held session that has bound this resource, if it is certain to be of the same account.
    pub fn held_resource(&self, proof: &Proof, resource: &str) -> Option<Arc<Handle>> {
        let (account, login) = match proof {
            Proof::Account(account) => (account.clone(), None),
            Proof::Login(login) => (BareJid::new(&format!("{}@{}", login.authcid, login.host)).ok()?, Some(login)),
        };
        let same = |handle: &&Arc<Handle>| {
            let proven = login.is_none() || handle.held.identity.as_ref() == login;
            proven && handle.resource == resource && handle.is_dark()
        };
        self.accounts.get(&account)?.iter().find(same).cloned()
    }

    /// All sessions of the account.
    pub fn sessions(&self, account: &BareJid) -> Vec<Arc<Handle>> {
        self.accounts.get(account).map_or_else(Vec::new, |all| all.clone())
    }

    /// Some session of the account.
    pub fn any_session(&self, account: &BareJid) -> Option<Arc<Handle>> {
        self.accounts.get(account)?.first().cloned()
    }

    /// All sessions, in no order.
    pub fn all(&self) -> Vec<Arc<Handle>> {
        self.accounts.iter().flat_map(|entry| entry.value().clone()).collect()
    }

    /// The sessions of each domain that has any.
    pub fn tally(&self) -> BTreeMap<String, Tally> {
        let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
        for entry in &self.accounts {
            let host = entry.key().domain().as_str();
            if !tallies.contains_key(host) {
                tallies.insert(host.to_owned(), Tally::default());
            }
            let Some(tally) = tallies.get_mut(host) else { continue };
            for handle in entry.value() {
                let (queued, bytes) = handle.queued();
                tally.add(handle.reach(), queued, bytes);
            }
        }
        tallies
    }

    /// How many sessions have their client, be it late or not, and how many are held without it.
    pub fn count(&self) -> (usize, usize) {
        let total = self.tally().into_values().fold(Tally::default(), Tally::and);
        (total.live + total.suspect, total.dark)
    }

    /// The other sessions of the account.
    pub fn siblings(&self, handle: &Handle) -> Vec<Arc<Handle>> {
        let Some(all) = self.accounts.get(&handle.held.account) else {
            return Vec::new();
        };
        all.iter().filter(|other| other.number != handle.number).map(Arc::clone).collect()
    }

    /// Whether another session of the account has its client.
    pub fn has_company(&self, handle: &Handle) -> bool {
        let other = |other: &Arc<Handle>| other.number != handle.number && !other.is_dark();
        self.accounts.get(&handle.held.account).is_some_and(|all| all.iter().any(other))
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.accounts.iter().map(|entry| entry.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Removes a session; another that has taken its place stays. Returns the other sessions of the account: those that come
    /// later know nothing of this one.
    pub fn leave(&self, handle: &Handle, id: Option<&SmId>) -> Vec<Arc<Handle>> {
        if let Some(id) = id {
            self.resumable.remove_if(id, |_, current| current.number == handle.number);
        }
        let mut others = Vec::new();
        self.accounts.remove_if_mut(&handle.held.account, |_, all| {
            all.retain(|other| other.number != handle.number);
            others.clone_from(all);
            all.is_empty()
        });
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_leaves_learns_of_the_others_and_not_of_those_of_other_accounts() {
        let registry = Registry::default();
        let enter = |account: &str| {
            let held = Held { account: account.parse().unwrap(), identity: None };
            registry.enter(held, "r".to_owned())
        };
        let (first, _commands) = enter("romeo@example.org");
        let (second, _commands) = enter("romeo@example.org");
        let (_other, _commands) = enter("juliet@example.org");
        let left = registry.leave(&first, None);
        assert!(matches!(left.as_slice(), [one] if Arc::ptr_eq(one, &second)));
        assert!(registry.leave(&second, None).is_empty());
        assert_eq!(registry.len(), 1);
    }
}
