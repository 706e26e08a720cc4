//! What a session knows of its account, and what it changes there.

mod promise;
pub(super) mod request;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::answer::iq_result;
use super::contract::Output;
use super::effects::Effects;
use super::event::{Event, Stored, Token};
use super::identity::{Identity, Owner};
use super::settings::Settings;
use crate::push::account::{Account, Change, DeviceId, DeviceRecognition};
use crate::push::affiliation::Affiliation;
use crate::push::guard::Guard;
use crate::push::mucsub::Subscription;
use crate::push::registration::{Extensions, Registration, Request, RequestError, Target};
use crate::xml::{Element, ErrorType, Node, StanzaCondition, stanza_error};
use promise::Promises;

/// Changes that the store has not answered, beyond which subscriptions to rooms are not noted.
const OPEN_CHANGES: u32 = 32;

/// The account as a session sees it: as the store has it, and ahead of that the session's own changes.
pub(super) struct AccountView {
    identity: Arc<Identity>,
    device: DeviceId,
    recognition: DeviceRecognition,
    account: Account,
    /// Changes that the store has not answered.
    open_changes: u32,
    /// The newest state that came meanwhile.
    newest: Option<Box<Account>>,
    promises: Promises,
    /// The user has asked the server's archive, so what it has need not be kept here.
    uses_archive: bool,
    /// The account was removed: nothing of it is kept.
    is_removed: bool,
}

/// What a new state of the account means for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Update {
    /// It is not used, or not yet.
    Ignored,
    /// The device has the same registrations as before.
    SameRegistrations,
    /// The device has other registrations, or they ask for something else.
    OtherRegistrations,
}

/// What the store's answer to a request of the client means.
#[derive(Debug)]
pub(super) struct Reply {
    /// The reply to the client.
    pub(super) reply: Bytes,
    /// What is to be reported.
    pub(super) event: Option<Event>,
    /// The device turned out to be one that was known before.
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
            promises: Promises::default(),
            uses_archive: false,
            is_removed: false,
        }
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

    /// Whether anything is to be notified to this device.
    pub(super) fn has_registration(&self) -> bool {
        self.owned().next().is_some()
    }

    /// The registrations of other devices, which have no session.
    pub(super) fn absent(&self) -> impl Iterator<Item = &Registration> {
        self.account.absent(self.device)
    }

    /// Whether any device of the account has a registration.
    pub(super) fn has_any_registration(&self) -> bool {
        !self.account.registrations.is_empty()
    }

    /// Whether a device of the account wants to hear of its contacts only.
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

    /// Has a change stored.
    pub(super) fn change(&mut self, change: Change, effects: &mut Effects) {
        self.store(None, change, effects);
    }

    fn store(&mut self, token: Option<Token>, change: Change, effects: &mut Effects) {
        self.open_changes += 1;
        effects.push(Output::Store { token, change: Box::new(change) });
    }

    /// Has a change stored, and goes by it from now on, whether it is on disk or not.
    pub(super) fn change_at_once(&mut self, change: Change, effects: &mut Effects) {
        self.account.apply(change.clone());
        self.change(change, effects);
    }

    /// The device was in contact, which the store keeps for the choice of which device to forget first.
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

    /// The client subscribes to a room: what the account writes there is known as its own from then on, by each of its sessions.
    /// Returns whether this is news.
    pub(super) fn on_subscription(&mut self, iq: &Node<'_>, effects: &mut Effects) -> bool {
        let subscription = Subscription::read(iq).filter(|news| self.account.subscriptions.differs(news));
        let news = subscription.filter(|_| self.open_changes < OPEN_CHANGES);
        news.map(|news| self.change_at_once(Change::Subscribes(news), effects)).is_some()
    }

    /// The registration that a message takes back. XEP-0357 §8: a push service may do that, nobody else can.
    pub(super) fn revoked_by(&self, message: &Element) -> Option<Target> {
        if !message.mentions("affiliation") {
            return None;
        }
        let told = Affiliation::read(&message.node(), self.identity.account()).filter(|told| told.is_none)?;
        let mut targets = self.account.registrations.iter().map(|r| &r.target);
        targets.find(|target| told.is_about(target)).cloned()
    }

    // What the store says

    /// The store has answered a change; `None`: it failed.
    pub(super) fn on_changed(&mut self, account: Option<Box<Account>>) -> Update {
        self.open_changes = self.open_changes.saturating_sub(1);
        if account.is_none() {
            self.account.doubt_publishes();
        }
        self.on_account(account)
    }

    /// Another session has changed the account.
    pub(super) fn on_account(&mut self, account: Option<Box<Account>>) -> Update {
        let newest = [self.newest.take(), account].into_iter().flatten().max_by_key(|account| account.revision);
        // Our own changes are ahead of what is answered before them.
        if self.open_changes > 0 {
            let removed = newest.as_deref().is_some_and(|newest| self.drop_removed(newest));
            self.newest = newest;
            return if removed { Update::OtherRegistrations } else { Update::Ignored };
        }
        let Some(account) = newest.filter(|account| account.revision >= self.account.revision) else {
            return Update::Ignored;
        };
        let is_same = account.owned(self.device).map(wishes).eq(self.owned().map(wishes));
        self.account = *account;
        if is_same { Update::SameRegistrations } else { Update::OtherRegistrations }
    }

    /// Drops the registrations that a newer state does not have: no change of our own that is still open brings one back before its
    /// own answer. Returns whether this device had one of them.
    fn drop_removed(&mut self, newest: &Account) -> bool {
        let had = self.owned().count();
        if newest.revision >= self.account.revision {
            self.account.registrations.retain(|r| newest.registrations.iter().any(|kept| kept.target == r.target));
        }
        self.owned().count() < had
    }

    /// The account was removed.
    pub(super) fn on_removed(&mut self) {
        self.is_removed = true;
    }

    pub(super) fn is_removed(&self) -> bool {
        self.is_removed
    }

    /// Whether the store has not answered everything that it was asked for.
    pub(super) fn awaits_store(&self) -> bool {
        self.has_open_requests() || self.open_changes > 0
    }

    // Requests of the client

    /// The client has asked the server's archive.
    pub(super) fn on_archive_query(&mut self) {
        self.uses_archive = true;
    }

    pub(super) fn uses_archive(&self) -> bool {
        self.uses_archive
    }

    /// Whether the client has asked for something, and the store has not answered.
    pub(super) fn has_open_requests(&self) -> bool {
        !self.promises.is_empty()
    }

    /// Whether the client has asked for a registration, and the store has not answered.
    pub(super) fn awaits_registration(&self) -> bool {
        self.promises.iter().any(|promise| matches!(promise.event(), Event::PushEnabled(_)))
    }

    /// Bytes of memory that the open requests have.
    pub(super) fn promised(&self) -> usize {
        self.promises.memory()
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
        if !self.promises.has_room(iq.attr("id").map_or(0, |id| id.len())) {
            return Some(stanza_error(iq, ErrorType::Wait, StanzaCondition::ResourceConstraint));
        }
        if self.is_removed {
            // Who has the account's name next is not to be pushed for by it.
            return Some(stanza_error(iq, ErrorType::Cancel, StanzaCondition::ItemNotFound));
        }
        let (change, event) = match request {
            Err(error) => return Some(stanza_error(iq, error.kind(), error.condition())),
            Ok(Request::Enable { target, options, extensions }) => {
                let event = Event::PushEnabled(target.clone());
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
                (Change::Enable { registration, recognition, max_devices }, event)
            }
            Ok(Request::Disable(service, node)) => (Change::Disable { service, node }, Event::PushDisabled),
        };
        let on_failure = stanza_error(iq, ErrorType::Wait, StanzaCondition::InternalServerError);
        let token = self.promises.add(event, iq_result(iq), on_failure);
        self.store(Some(token), change, effects);
        None
    }

    /// The store has answered a request: the client hears of it only now (XEP-0357 §5).
    pub(super) fn on_stored(&mut self, token: Token, stored: Stored) -> Option<Reply> {
        let promise = self.promises.take(token)?;
        let Stored::Durable(device) = stored else {
            return Some(Reply { reply: promise.broken(), event: None, is_known_device: false });
        };
        let known = device.filter(|device| *device != self.device);
        self.device = known.unwrap_or(self.device);
        let (reply, event) = promise.kept();
        Some(Reply { reply, event: Some(event), is_known_device: known.is_some() })
    }
}

/// Where a registration is told, and what it asked for.
fn wishes(registration: &Registration) -> (&Target, &Extensions) {
    (&registration.target, &registration.extensions)
}
