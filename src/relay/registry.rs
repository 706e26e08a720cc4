//! The sessions of this process, by resumption id and by account.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use tokio::sync::{mpsc, oneshot};

use super::Client;
use crate::jid::BareJid;
use crate::session::negotiate::Held;
use crate::session::{Resumption, SmId, sm};

/// Commands that wait for a session; a session that does not take them is busy for at most a wake-up.
const COMMANDS: usize = 16;

/// What others ask of a session's task.
#[derive(Debug)]
pub enum Command {
    /// Take this connection in place of the one you have.
    Attach(Box<Attach>),
    /// The account has changed in the store.
    AccountChanged,
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
    commands: mpsc::Sender<Command>,
}

impl Handle {
    /// What must be proven to resume the session.
    pub fn held(&self) -> &Held {
        &self.held
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
    pub fn enter(&self, held: Held) -> (Arc<Handle>, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let account = held.account.clone();
        let handle = Arc::new(Handle { number, held, commands });
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
