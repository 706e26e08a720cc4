//! The sessions of this process, by resumption id and by account.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dashmap::DashMap;
use tokio::sync::{mpsc, oneshot};

use super::Client;
use super::jobs::unix;
use crate::jid::BareJid;
use crate::push::account::{Account, DeviceId};
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::push::registration::Target;
use crate::session::negotiate::{Held, Proof};
use crate::session::{EndReason, Resumption, SmId, sm};
use crate::xml::Element;

/// Commands that wait for a session; a session that does not take them is busy for at most a wake-up.
pub(super) const COMMANDS: usize = 16;

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
    Published(Target, Outcome),
    /// A stanza for you, or for the account, came over a stream of a push service's.
    Routed(Element),
    /// The operator has set something anew: what is current.
    SettingsChanged,
    /// Others of the account take your place: end for this reason, if you are held, and say so by dropping this.
    GiveWay(EndReason, oneshot::Sender<()>),
}

/// A connection that proved it may take the session over.
#[derive(Debug)]
pub struct Attach {
    /// The connection.
    pub client: Client,
    /// Where its client left off.
    pub resumption: Resumption,
    /// Whether it was taken.
    pub reply: oneshot::Sender<Result<(), Refused>>,
}

/// A connection that was not taken, given back.
#[derive(Debug)]
pub struct Refused {
    /// The connection.
    pub client: Client,
    /// The client's fault, if it was one: else the session is gone.
    pub too_high: Option<sm::TooHigh>,
}

/// How others reach a session.
#[derive(Debug)]
pub struct Handle {
    number: u64,
    held: Held,
    resource: String,
    device: AtomicU64,
    dark: AtomicBool,
    /// Unix seconds.
    since: AtomicU64,
    commands: mpsc::Sender<Command>,
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
        self.dark.load(Ordering::Relaxed)
    }

    /// The client has gone, or come back. Whether it has gone just now.
    pub fn set_dark(&self, dark: bool) -> bool {
        let changed = self.is_dark() != dark;
        if changed {
            self.since.store(unix(), Ordering::Relaxed);
            self.dark.store(dark, Ordering::Relaxed);
        }
        changed && dark
    }

    /// Since when the client is there or not, in unix seconds.
    pub fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    /// What is smallest is held longest.
    pub fn held_since(&self) -> (u64, u64) {
        (self.since(), self.number)
    }

    /// Sends a command; it comes back if the session is gone.
    ///
    /// # Errors
    /// The command, if the session is gone.
    pub async fn send(&self, command: Command) -> Result<(), Command> {
        self.commands.send(command).await.map_err(|failed| failed.0)
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
    pub fn enter(&self, held: Held, resource: String) -> (Arc<Handle>, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let account = held.account.clone();
        let (device, dark, since) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(unix()));
        let handle = Arc::new(Handle { number, held, resource, device, dark, since, commands });
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

    /// How many sessions are live, and how many are held without their client.
    pub fn count(&self) -> (usize, usize) {
        let count =
            |(live, dark): (usize, usize), is_dark: bool| (live + usize::from(!is_dark), dark + usize::from(is_dark));
        let counts = self.accounts.iter().map(|entry| entry.iter().map(|h| h.is_dark()).fold((0, 0), count));
        counts.fold((0, 0), |(live, dark), (l, d)| (live + l, dark + d))
    }

    /// The other sessions of the account.
    pub fn siblings(&self, handle: &Handle) -> Vec<Arc<Handle>> {
        let Some(all) = self.accounts.get(&handle.held.account) else {
            return Vec::new();
        };
        all.iter().filter(|other| other.number != handle.number).map(Arc::clone).collect()
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.accounts.iter().map(|entry| entry.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Removes a session; another that has taken its place stays.
    pub fn leave(&self, handle: &Handle, id: Option<&SmId>) {
        if let Some(id) = id {
            self.resumable.remove_if(id, |_, current| current.number == handle.number);
        }
        self.accounts.remove_if_mut(&handle.held.account, |_, all| {
            all.retain(|other| other.number != handle.number);
            all.is_empty()
        });
    }
}
