//! The session's view of its account, and its changes to the account. The type is [`AccountView`].

mod deferred_reply;
pub(super) mod request;

use std::sync::Arc;

use bytes::Bytes;

use super::answer::iq_result;
use super::contract::Output;
use super::effects::Effects;
use super::event::{Event, Stored, Token};
use super::identity::{Identity, Owner};
use super::settings::Settings;
use crate::clock::Instant;
use crate::push::account::{Account, Change, DeviceId, DeviceRecognition};
use crate::push::affiliation::Affiliation;
use crate::push::guard::Guard;
use crate::push::mucsub::Subscription;
use crate::push::registration::{Extensions, Registration, Request, RequestError, Target};
use crate::xml::{Element, ErrorType, Node, StanzaCondition, stanza_error};
use deferred_reply::{DeferredReplies, DeferredReply};

/// The number of unanswered changes above which room subscriptions are not noted.
const OPEN_CHANGES: u32 = 32;

/// The account as a session sees it: the stored state, plus the session's own changes that are not stored yet.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct AccountView {
    #[serde(skip)]
    identity: Arc<Identity>,
    device: DeviceId,
    recognition: DeviceRecognition,
    account: Account,
    /// The number of changes that the store has not answered.
    open_changes: u32,
    /// The newest state that came while changes were open.
    newest: Option<Box<Account>>,
    deferred_replies: DeferredReplies,
    /// True if the user has queried the server's archive. Archived stanzas need not be kept here then.
    uses_archive: bool,
    /// True if the account was removed: nothing of it is kept.
    is_removed: bool,
}

/// The consequence of a new account state for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Update {
    /// The state is not used, or not yet.
    Ignored,
    /// The device has the same registrations as before.
    SameRegistrations,
    /// The device has other registrations, or their settings differ.
    OtherRegistrations,
}

/// The result of the store's answer to a request of the client.
#[derive(Debug)]
pub(super) struct Reply {
    /// The reply to the client.
    pub(super) reply: Bytes,
    /// The event to report.
    pub(super) event: Option<Event>,
    /// True if the device turned out to be a known one.
    pub(super) is_known_device: bool,
}

impl AccountView {
    pub(super) fn new(identity: Arc<Identity>, owner: Owner) -> Self {
        let Owner { device, recognition, account, .. } = owner;
        Self {
            identity,
            device,
            recognition,
            account,
            open_changes: 0,
            newest: None,
            deferred_replies: DeferredReplies::default(),
            uses_archive: false,
            is_removed: false,
        }
    }

    /// Completes a view that was read from a record.
    pub(super) fn restore(&mut self, identity: &Arc<Identity>) {
        self.identity = Arc::clone(identity);
    }

    pub(super) fn device(&self) -> DeviceId {
        self.device
    }

    /// The account as the session sees it.
    pub(super) fn record(&self) -> &Account {
        &self.account
    }

    /// The registrations of this device.
    pub(super) fn owned(&self) -> impl Iterator<Item = &Registration> {
        self.account.owned(self.device)
    }

    /// Returns whether this device has a registration.
    pub(super) fn has_registration(&self) -> bool {
        self.owned().next().is_some()
    }

    /// The registrations of other devices, which have no session.
    pub(super) fn absent(&self) -> impl Iterator<Item = &Registration> {
        self.account.absent(self.device)
    }

    /// Returns whether any device of the account has a registration.
    pub(super) fn has_any_registration(&self) -> bool {
        !self.account.registrations.is_empty()
    }

    /// Returns whether a device of the account wants notifications from its contacts only.
    pub(super) fn wants_roster(&self) -> bool {
        self.account.registrations.iter().any(|r| r.extensions.ignore_unknown)
    }

    pub(super) fn has_other_devices(&self) -> bool {
        self.account.devices.len() > 1
    }

    /// The poison guard of the device.
    pub(super) fn guard(&self) -> Option<&Guard> {
        self.account.guard(self.device)
    }

    // Changes

    /// Sends a change to the store.
    pub(super) fn change(&mut self, change: Change, effects: &mut Effects) {
        self.store(None, change, effects);
    }

    fn store(&mut self, token: Option<Token>, change: Change, effects: &mut Effects) {
        self.open_changes += 1;
        effects.push(Output::Store { token, change: Box::new(change) });
    }

    /// Sends a change to the store, and applies it at once, before it is on disk.
    pub(super) fn change_at_once(&mut self, change: Change, effects: &mut Effects) {
        self.account.apply(change.clone());
        self.change(change, effects);
    }

    /// Stores the time of contact with the device. The store uses it to choose which device to forget first.
    pub(super) fn note_contact(&mut self, now: Instant, effects: &mut Effects) {
        if self.has_registration() {
            let at = self.identity.calendar(now).to_secs();
            self.change(Change::Seen { device: self.device, at }, effects);
        }
    }

    /// Stores the guard if it has changed.
    pub(super) fn set_guard(&mut self, guard: Guard, effects: &mut Effects) {
        if self.is_removed || self.guard().map_or(guard.is_empty(), |known| *known == guard) {
            return;
        }
        self.change_at_once(Change::Guarded { device: self.device, guard }, effects);
    }

    /// Stores a room subscription of the client. From then on, each session of the account recognizes messages that the
    /// account writes there. Returns whether the subscription is new.
    pub(super) fn on_subscription(&mut self, iq: &Node<'_>, effects: &mut Effects) -> bool {
        let subscription = Subscription::read(iq).filter(|new| self.account.subscriptions.differs(new));
        let new = subscription.filter(|_| self.open_changes < OPEN_CHANGES);
        new.map(|new| self.change_at_once(Change::Subscribes(new), effects)).is_some()
    }

    /// The registration that a message revokes. XEP-0357 §8: only the push service may do that.
    pub(super) fn revoked_by(&self, message: &Element) -> Option<Target> {
        if !message.mentions("affiliation") {
            return None;
        }
        let revoked = Affiliation::read(&message.node(), self.identity.account()).filter(|revoked| revoked.is_none)?;
        let mut targets = self.account.registrations.iter().map(|r| &r.target);
        targets.find(|target| revoked.is_about(target)).cloned()
    }

    // Answers of the store

    /// Takes the store's answer to a change. `None` means that the change failed.
    pub(super) fn on_changed(&mut self, account: Option<Box<Account>>) -> Update {
        self.open_changes = self.open_changes.saturating_sub(1);
        if account.is_none() {
            self.account.doubt_publishes();
        }
        self.on_account(account)
    }

    /// Takes an account that another session has changed.
    pub(super) fn on_account(&mut self, account: Option<Box<Account>>) -> Update {
        let newest = [self.newest.take(), account].into_iter().flatten().max_by_key(|account| account.revision);
        // The session's own open changes are newer than this state.
        if self.open_changes > 0 {
            let removed = newest.as_deref().is_some_and(|newest| self.drop_removed(newest));
            self.newest = newest;
            return if removed { Update::OtherRegistrations } else { Update::Ignored };
        }
        let Some(account) = newest.filter(|account| account.revision >= self.account.revision) else {
            return Update::Ignored;
        };
        let is_same = account.owned(self.device).map(target_and_extensions).eq(self.owned().map(target_and_extensions));
        self.account = *account;
        if is_same { Update::SameRegistrations } else { Update::OtherRegistrations }
    }

    /// Drops the registrations that a newer state does not have. An open change of our own cannot bring one back before its
    /// own answer. Returns whether this device had one of them.
    fn drop_removed(&mut self, newest: &Account) -> bool {
        let before = self.owned().count();
        if newest.revision >= self.account.revision {
            self.account.registrations.retain(|r| newest.registrations.iter().any(|kept| kept.target == r.target));
        }
        self.owned().count() < before
    }

    /// Notes that the account was removed.
    pub(super) fn on_removed(&mut self) {
        self.is_removed = true;
    }

    pub(super) fn is_removed(&self) -> bool {
        self.is_removed
    }

    /// Returns whether the store has unanswered requests or changes.
    pub(super) fn awaits_store(&self) -> bool {
        self.has_open_requests() || self.open_changes > 0
    }

    // Requests of the client

    /// Notes that the client has queried the server's archive.
    pub(super) fn on_archive_query(&mut self) {
        self.uses_archive = true;
    }

    pub(super) fn uses_archive(&self) -> bool {
        self.uses_archive
    }

    /// Returns whether a request of the client waits for the store.
    pub(super) fn has_open_requests(&self) -> bool {
        !self.deferred_replies.is_empty()
    }

    /// Returns whether a registration request of the client waits for the store.
    pub(super) fn awaits_registration(&self) -> bool {
        self.deferred_replies.iter().any(DeferredReply::enables)
    }

    /// The bytes of memory that the open requests use.
    pub(super) fn promised(&self) -> usize {
        self.deferred_replies.memory()
    }

    /// Takes the client's request for a registration. Returns the reply, unless it waits for the store.
    pub(super) fn on_push_request(
        &mut self,
        now: Instant,
        iq: &Node<'_>,
        request: Result<Request, RequestError>,
        settings: &Settings,
        effects: &mut Effects,
    ) -> Option<Bytes> {
        if !self.deferred_replies.has_room(iq.attr("id").map_or(0, |id| id.len())) {
            return Some(stanza_error(iq, ErrorType::Wait, StanzaCondition::ResourceConstraint));
        }
        if self.is_removed {
            // A later owner of the account's name must not be notified by this registration.
            return Some(stanza_error(iq, ErrorType::Cancel, StanzaCondition::ItemNotFound));
        }
        let (change, enabled) = match request {
            Err(error) => return Some(stanza_error(iq, error.kind(), error.condition())),
            Ok(Request::Enable { target, options, extensions }) => {
                let enabled = Some(target.clone());
                let registration = Registration {
                    target,
                    options,
                    device: self.device,
                    last_seen: self.identity.calendar(now).to_secs(),
                    errors: 0,
                    last_success: None,
                    undelivered_since: None,
                    extensions,
                };
                let (recognition, max_devices) = (self.recognition, settings.push.max_devices);
                (Change::Enable { registration, recognition, max_devices }, enabled)
            }
            Ok(Request::Disable(service, node)) => (Change::Disable { service, node }, None),
        };
        let on_failure = stanza_error(iq, ErrorType::Wait, StanzaCondition::InternalServerError);
        let token = self.deferred_replies.add(enabled, iq_result(iq), on_failure);
        self.store(Some(token), change, effects);
        None
    }

    /// Takes the store's answer to a request. The client gets its reply only now (XEP-0357 §5).
    pub(super) fn on_stored(&mut self, token: Token, stored: Stored) -> Option<Reply> {
        let deferred = self.deferred_replies.take(token)?;
        let Stored::Durable(device) = stored else {
            return Some(Reply { reply: deferred.into_failure(), event: None, is_known_device: false });
        };
        let known = device.filter(|device| *device != self.device);
        self.device = known.unwrap_or(self.device);
        let (reply, event) = deferred.into_success();
        Some(Reply { reply, event: Some(event), is_known_device: known.is_some() })
    }
}

/// The target of a registration and its settings.
fn target_and_extensions(registration: &Registration) -> (&Target, &Extensions) {
    (&registration.target, &registration.extensions)
}
