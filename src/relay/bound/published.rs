//! What others have published and a session goes by: its account, the settings, the drain, and its device's other sessions.

use std::sync::Arc;

use super::Driver;
use crate::push::account::LoginId;
use crate::relay::Relay;
use crate::relay::registry::Handle;
use crate::session::{Input, OtherSession, Settings, Successor};

/// The published values that the session has taken.
pub(super) struct Published {
    settings: Arc<Settings>,
    revision: u64,
    is_removed: bool,
    is_draining: bool,
    successor: Option<LoginId>,
    is_live_elsewhere: bool,
}

impl Published {
    pub(super) fn new(relay: &Relay) -> Self {
        Self {
            settings: relay.settings(),
            revision: 0,
            is_removed: false,
            is_draining: false,
            successor: None,
            is_live_elsewhere: false,
        }
    }

    /// The session has this revision of its account.
    pub(super) fn has_revision(&mut self, revision: u64) {
        self.revision = revision.max(self.revision);
    }
}

impl Driver {
    /// Takes what has been published since the session looked last.
    pub(super) fn look(&mut self) {
        self.look_at_settings();
        self.look_at_account();
        self.look_at_device();
        let wanted = self.handle.look();
        if wanted.inherit {
            self.take(Input::Inherit);
        }
        if let Some(reason) = wanted.give_way {
            self.take(Input::GiveWay(reason));
        }
        self.note_ending();
        self.handle.has_looked(wanted);
        if self.relay.is_draining() && !std::mem::replace(&mut self.published.is_draining, true) {
            self.take(Input::Drain);
        }
    }

    fn look_at_settings(&mut self) {
        let settings = self.relay.settings();
        if !Arc::ptr_eq(&settings, &self.published.settings) {
            self.published.settings = Arc::clone(&settings);
            self.take(Input::Settings(settings));
        }
    }

    fn look_at_account(&mut self) {
        let news = self.relay.registry.news(self.handle.account());
        if news.removed >= self.handle.login() && !std::mem::replace(&mut self.published.is_removed, true) {
            self.take(Input::AccountRemoved);
        }
        let newer = news.account.filter(|account| account.revision > self.published.revision);
        if let Some(account) = newer {
            self.published.has_revision(account.revision);
            self.take(Input::Account(Box::new((*account).clone())));
            self.note_services();
        }
    }

    /// What the device's other sessions mean for this one.
    pub(super) fn look_at_device(&mut self) {
        let newer = self.relay.registry.newer(&self.handle);
        let login = newer.as_ref().map(|newer| newer.login());
        if login != self.published.successor {
            self.published.successor = login;
            let same_address = |newer: Arc<Handle>| newer.resource() == self.handle.resource();
            let successor = newer.map(|newer| Successor { same_address: same_address(newer) });
            self.take(Input::Successor(successor));
        }
        let live = self.relay.registry.is_live_elsewhere(&self.handle);
        if live != std::mem::replace(&mut self.published.is_live_elsewhere, live) {
            self.take(Input::OtherSession(if live { OtherSession::Live } else { OtherSession::Away }));
        }
    }
}
