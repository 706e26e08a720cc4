//! The sessions of this process, by resumption id and by account, and the newest state of their accounts. Logins, sessions,
//! publishing and the admin commands find sessions through [`Registry`]; each session has a [`Handle`].
//!
//! | file | holds |
//! |---|---|
//! | `handle.rs` | [`Handle`], [`Command`]: the access of other tasks to a session, and the commands to it |
//! | `record.rs` | [`HandleRecord`]: the state of a handle, for another process |
//! | `gauges.rs`, `succession.rs` | the parts of a handle: published numbers; the end in favour of a newer session |
//! | `claim.rs` | [`Claim`]: the right to write a publish |
//! | `mailbox.rs` | [`mailbox`]: a queue whose senders never wait for room |
//! | `sessions.rs`, `published.rs` | [`Sessions`], [`Published`]: the access of publishing to sessions, and its result |

mod claim;
mod gauges;
pub mod handle;
pub mod mailbox;
mod published;
mod record;
mod sessions;
mod succession;

use std::collections::BTreeMap;
use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::oneshot;

use crate::jid::{BareJid, Jid};
use crate::metrics::SessionCounts;
use crate::push::account::{Account, DeviceId, LoginId};
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::session::SmId;
use crate::session::liveness::Reach;
use crate::session::negotiate::{HeldSession, Proof};
use crate::xml::Element;
pub use claim::Claim;
pub use handle::{Attach, AttachRefusal, Command, Handle, Refused, Routed, SessionNotes, StreamPublish};
pub use mailbox::{Mail, NotTaken};
pub use published::Published;
pub use record::HandleRecord;
pub use sessions::Sessions;

/// The published state of an account: the newest value.
#[derive(Clone, Debug, Default)]
pub struct PublishedAccount {
    /// The newest known revision, if one was published.
    pub account: Option<Arc<Account>>,
    /// The highest login that belongs to an account since removed. Sessions of this login and earlier ones are not of the
    /// current account, even if one of the same name exists.
    pub removed: LoginId,
}

/// The sessions of an account.
#[derive(Debug)]
struct AccountSessions<C> {
    sessions: Vec<Arc<Handle<C>>>,
    published: PublishedAccount,
}

impl<C> Default for AccountSessions<C> {
    fn default() -> Self {
        Self { sessions: Vec::new(), published: PublishedAccount::default() }
    }
}

/// All sessions. `C`: the connection of a client.
#[derive(Debug)]
pub struct Registry<C> {
    resumable: DashMap<SmId, Arc<Handle<C>>>,
    accounts: DashMap<BareJid, AccountSessions<C>>,
}

impl<C> Default for Registry<C> {
    fn default() -> Self {
        Self { resumable: DashMap::new(), accounts: DashMap::new() }
    }
}

impl<C> Registry<C> {
    /// Adds the session of a login and returns its handle and the receiver of its commands.
    pub fn enter(
        &self,
        login: LoginId,
        held: HeldSession,
        resource: String,
    ) -> (Arc<Handle<C>>, mailbox::Receiver<Command<C>>) {
        let account = held.account.clone();
        let (handle, receiver) = Handle::new(login, held, resource);
        let handle = Arc::new(handle);
        self.accounts.entry(account).or_default().sessions.push(Arc::clone(&handle));
        (handle, receiver)
    }

    /// Adds a session that another process has handed over, with the requests to it and the id under which it can be resumed.
    pub fn enter_again(&self, record: HandleRecord) -> (Arc<Handle<C>>, mailbox::Receiver<Command<C>>) {
        let resumable = record.resumable().cloned();
        let (handle, receiver) = Handle::thaw(record);
        let handle = Arc::new(handle);
        self.accounts.entry(handle.account().clone()).or_default().sessions.push(Arc::clone(&handle));
        if let Some(id) = resumable {
            self.resumable(id, &handle);
        }
        (handle, receiver)
    }

    /// Publishes an account to its sessions, except to `not`, unless a newer revision was published before.
    pub fn publish(&self, account: &BareJid, state: &Account, not: Option<&Handle<C>>) {
        let Some(mut entry) = self.accounts.get_mut(account) else { return };
        if entry.published.account.as_ref().is_some_and(|known| known.revision >= state.revision) {
            return;
        }
        entry.published.account = Some(Arc::new(state.clone()));
        let others = entry.sessions.iter().filter(|other| not.is_none_or(|not| not.login() != other.login()));
        others.for_each(|other| other.notify());
    }

    /// Stores the newest revision of an account without waking its sessions.
    pub fn keep(&self, account: &BareJid, state: &Account) {
        let Some(mut entry) = self.accounts.get_mut(account) else { return };
        if entry.published.account.as_ref().is_none_or(|known| known.revision < state.revision) {
            entry.published.account = Some(Arc::new(state.clone()));
        }
    }

    /// Publishes that an account was removed, with the sessions of this login and earlier ones.
    pub fn publish_removal(&self, account: &BareJid, up_to: LoginId) {
        let Some(mut entry) = self.accounts.get_mut(account) else { return };
        entry.published.removed = entry.published.removed.max(up_to);
        entry.sessions.iter().for_each(|session| session.notify());
    }

    /// Returns the published state of an account.
    pub fn published_account(&self, account: &BareJid) -> PublishedAccount {
        self.accounts.get(account).map_or_else(PublishedAccount::default, |entry| entry.published.clone())
    }

    /// Lists the session under this resumption id from now on.
    pub fn resumable(&self, id: SmId, handle: &Arc<Handle<C>>) {
        let before = handle.set_resumable(Some(id.clone()));
        if let Some(before) = before.filter(|before| *before != id) {
            self.resumable.remove_if(&before, |_, current| current.login() == handle.login());
        }
        self.resumable.insert(id, Arc::clone(handle));
    }

    /// Returns the session with this resumption id. It can be resumed, or is ending.
    pub fn find(&self, id: &SmId) -> Option<Arc<Handle<C>>> {
        self.resumable.get(id).map(|entry| Arc::clone(&entry))
    }

    /// Stops listing the session under a resumption id.
    pub fn not_resumable(&self, handle: &Handle<C>) {
        if let Some(id) = handle.set_resumable(None) {
            self.resumable.remove_if(&id, |_, current| current.login() == handle.login());
        }
    }

    /// Returns the held session that has bound this resource, if it certainly belongs to the account that was proven.
    pub fn held_resource(&self, proof: &Proof, resource: &str) -> Option<Arc<Handle<C>>> {
        let account = match proof {
            Proof::Account(account) => account.clone(),
            Proof::Login(login) => BareJid::of_user(&login.authcid, &login.host)?,
        };
        let same =
            |handle: &&Arc<Handle<C>>| proof.proves(handle.held()) && handle.resource() == resource && handle.is_dark();
        self.accounts.get(&account)?.sessions.iter().find(same).cloned()
    }

    /// Returns all sessions of the account.
    pub fn sessions(&self, account: &BareJid) -> Vec<Arc<Handle<C>>> {
        self.accounts.get(account).map_or_else(Vec::new, |entry| entry.sessions.clone())
    }

    /// Returns one of the sessions of the account.
    pub fn any_session(&self, account: &BareJid) -> Option<Arc<Handle<C>>> {
        self.accounts.get(account)?.sessions.first().cloned()
    }

    /// Returns all sessions, in no particular order.
    pub fn all(&self) -> Vec<Arc<Handle<C>>> {
        self.accounts.iter().flat_map(|entry| entry.value().sessions.clone()).collect()
    }

    /// Returns the counts of the sessions of each domain that has any.
    pub fn session_counts(&self) -> BTreeMap<String, SessionCounts> {
        let mut by_host: BTreeMap<String, SessionCounts> = BTreeMap::new();
        for entry in &self.accounts {
            let host = entry.key().domain();
            if !by_host.contains_key(host) {
                by_host.insert(host.to_owned(), SessionCounts::default());
            }
            let Some(counts) = by_host.get_mut(host) else { continue };
            for handle in &entry.value().sessions {
                let (queued, bytes) = handle.queued();
                counts.add(handle.reach(), queued, bytes);
            }
        }
        by_host
    }

    /// Returns the number of sessions with a client (live or suspect), and of those held without one.
    pub fn count(&self) -> (usize, usize) {
        let total = self.session_counts().into_values().fold(SessionCounts::default(), SessionCounts::and);
        (total.live + total.suspect, total.dark)
    }

    /// Returns the other sessions of the account.
    pub fn siblings(&self, handle: &Handle<C>) -> Vec<Arc<Handle<C>>> {
        self.others(handle, |_| true)
    }

    /// Returns the other sessions of the device, or of the full JID, that logged in before this one.
    pub fn older(&self, handle: &Handle<C>) -> Vec<Arc<Handle<C>>> {
        self.others(handle, |other| other.login() < handle.login() && is_same(handle, other))
    }

    /// Returns the newest session of the device, or of the full JID, that logged in after this one.
    pub fn newer(&self, handle: &Handle<C>) -> Option<Arc<Handle<C>>> {
        let newer = self.others(handle, |other| other.login() > handle.login() && is_same(handle, other));
        newer.into_iter().max_by_key(|other| other.login())
    }

    /// Returns whether another session of the device has a client that acknowledges.
    pub fn is_live_elsewhere(&self, handle: &Handle<C>) -> bool {
        let is_live = |other: &Handle<C>| other.device() == handle.device() && other.reach() == Reach::Live;
        !self.others(handle, |other| is_live(other) && !other.is_ending()).is_empty()
    }

    /// Wakes the other sessions of the device, or of the full JID, so that they look at each other.
    pub fn notify_same(&self, handle: &Handle<C>) {
        self.others(handle, |other| is_same(handle, other)).iter().for_each(|other| other.notify());
    }

    fn others(&self, handle: &Handle<C>, wanted: impl Fn(&Handle<C>) -> bool) -> Vec<Arc<Handle<C>>> {
        let Some(entry) = self.accounts.get(handle.account()) else { return Vec::new() };
        let others = entry.sessions.iter().filter(|other| other.login() != handle.login() && wanted(other));
        others.map(Arc::clone).collect()
    }

    /// Returns whether another session of the account has its client.
    pub fn has_other_clients(&self, handle: &Handle<C>) -> bool {
        !self.others(handle, |other| !other.is_dark()).is_empty()
    }

    /// Returns the number of sessions.
    pub fn len(&self) -> usize {
        self.accounts.iter().map(|entry| entry.sessions.len()).sum()
    }

    /// Returns whether there are no sessions.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Removes a session; one that has taken its place stays. Returns the other sessions of the account. Sessions that are
    /// added later do not learn of the removed one.
    pub fn leave(&self, handle: &Handle<C>) -> Vec<Arc<Handle<C>>> {
        self.not_resumable(handle);
        let mut others = Vec::new();
        self.accounts.remove_if_mut(handle.account(), |_, entry| {
            entry.sessions.retain(|other| other.login() != handle.login());
            others.clone_from(&entry.sessions);
            others.is_empty()
        });
        others
    }
}

impl<C: Send> Sessions for Registry<C> {
    fn publish_on_stream(
        &self,
        account: &BareJid,
        publish: Publish,
        claim: Claim,
    ) -> Result<oneshot::Receiver<Outcome>, NotTaken<()>> {
        let session = self.any_session(account).ok_or(NotTaken::Gone(()))?;
        let (reply, replied) = oneshot::channel();
        match session.offer(Command::PublishOnStream(Box::new(StreamPublish {
            publish: Box::new(publish),
            claim,
            reply,
        }))) {
            Ok(()) => Ok(replied),
            Err(refused) => Err(refused.without_message()),
        }
    }

    fn route(&self, to: &Jid, stanza: Element) -> Result<(), NotTaken<()>> {
        let sessions = self.sessions(&to.to_bare());
        let session = to.resource().and_then(|to| sessions.iter().find(|session| session.resource() == to));
        session.ok_or(NotTaken::Gone(()))?.route(stanza).map_err(NotTaken::without_message)
    }
}

/// Returns whether two sessions of an account are of one device, or have the same full JID.
fn is_same<C>(one: &Handle<C>, other: &Handle<C>) -> bool {
    let device = one.device();
    device != DeviceId::default() && device == other.device() || one.resource() == other.resource()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixSecs;

    #[tokio::test]
    async fn leaving_returns_the_other_sessions_of_the_account_only() {
        let registry = Registry::<()>::default();
        let enter = |login: u64, account: &str| {
            let held = HeldSession { account: account.parse().unwrap(), identity: None };
            registry.enter(LoginId(login), held, "r".to_owned())
        };
        let (first, _commands) = enter(1, "romeo@example.org");
        let (second, _commands) = enter(2, "romeo@example.org");
        let (_other, _commands) = enter(3, "juliet@example.org");
        let left = registry.leave(&first);
        assert!(matches!(left.as_slice(), [one] if Arc::ptr_eq(one, &second)));
        assert!(registry.leave(&second).is_empty());
        assert_eq!(registry.len(), 1);
    }

    /// A process of an earlier version leaves records without the notes.
    #[test]
    fn the_notes_of_a_handle_go_with_its_record_and_may_be_missing() {
        let account: BareJid = "romeo@example.org".parse().unwrap();
        let held = HeldSession { account, identity: None };
        let (handle, _commands) = Registry::<()>::default().enter(LoginId(1), held, "r".to_owned());
        let published = Published { transport: None, outcome: Outcome::Accepted };
        let (verdict, push) = (("push".into(), UnixSecs::new(5)), (published, std::time::SystemTime::UNIX_EPOCH));
        handle.note(|notes| (notes.verdict, notes.push) = (Some(verdict), Some(push)));
        let record = handle.freeze();
        let (again, _commands) = Registry::<()>::default().enter_again(record.clone());
        assert_eq!(again.notes(), handle.notes());
        let mut earlier = serde_json::to_value(record).unwrap();
        let fields = earlier.as_object_mut().unwrap();
        assert!(fields.remove("verdict").is_some() && fields.remove("push").is_some(), "{fields:?}");
        let (again, _commands) = Registry::<()>::default().enter_again(serde_json::from_value(earlier).unwrap());
        assert_eq!(again.notes(), SessionNotes::default());
    }
}
