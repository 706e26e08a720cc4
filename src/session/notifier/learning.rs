//! The part of a [`Notifier`] that takes the state of the account, and reads rooms and the roster on their way.

use super::Notifier;
use crate::push::rooms::Rooms;
use crate::session::account::AccountView;
use crate::xml::{Element, Node, ns};

impl Notifier {
    /// Takes a new state of the account.
    pub(in crate::session) fn on_account(&mut self, account: &AccountView) {
        self.on_subscriptions(account);
        self.has_absent_devices = account.absent().next().is_some();
    }

    /// Takes new room subscriptions of the account.
    pub(in crate::session) fn on_subscriptions(&mut self, account: &AccountView) {
        self.rooms.subscribed(&account.record().subscriptions);
    }

    /// The rooms that the client is in.
    pub(in crate::session) fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// Notes presence that the client sends.
    pub(in crate::session) fn on_presence_sent(&mut self, presence: &Node<'_>) {
        self.rooms.sent(presence);
    }

    /// Notes presence that a room sends to the client.
    pub(in crate::session) fn on_room_presence(&mut self, presence: &Element) {
        if presence.mentions(ns::MUC_USER) {
            self.rooms.received(&presence.node());
        }
    }

    /// Returns whether to request the roster now: once, if it is needed. The client may have it stored, and request only
    /// changes (RFC 6121 §2.6).
    pub(in crate::session) fn take_roster_request(&mut self, account: &AccountView) -> bool {
        let asks = !self.asked_for_roster && account.wants_roster();
        self.asked_for_roster |= asks;
        asks
    }

    /// Takes a roster, or a change of it, on its way to the client.
    pub(in crate::session) fn on_iq(&mut self, iq: &Element) {
        let is_roster = self.asked_for_roster && iq.mentions(ns::ROSTER);
        if is_roster && self.identity.is_server(iq.node().attr("from").as_deref()) {
            self.roster.learn(&iq.node());
        }
    }
}
