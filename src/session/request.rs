//! The client's iq requests that concern Pushward: registrations (XEP-0357), features, the archive, the account's end.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use super::answer::{iq_error, iq_result};
use super::{Event, Session, Stored, Token};
use crate::jid::Jid;
use crate::push::account::Change;
use crate::push::registration::{Registration, Request, RequestError};
use crate::xml::{Element, Node, ns};

/// Requests of one session that wait for the store; more are asked to come back later.
const OPEN_REQUESTS: usize = 32;

/// Bytes of their answers.
const PROMISED: usize = 64 * 1024;

/// A reply that waits for the store.
#[derive(Debug)]
pub(super) struct Promise {
    token: Token,
    event: Event,
    on_success: Bytes,
    on_failure: Bytes,
}

impl Promise {
    fn bytes(&self) -> usize {
        self.on_success.len() + self.on_failure.len()
    }
}

impl Session {
    /// Bytes of memory that the open requests have.
    pub(super) fn promised(&self) -> usize {
        self.promises.iter().map(Promise::bytes).sum()
    }

    /// Answers an iq that is ours to answer, and notes one whose answer concerns us.
    pub(super) fn answer_iq(&mut self, now: Instant, element: &Element) -> bool {
        // Most iqs need no second look.
        if ![ns::PUSH, ns::DISCO_INFO, ns::MAM_ANY, ns::REGISTER].iter().any(|ns| element.mentions(ns)) {
            return false;
        }
        let node = element.node();
        let account = node.attr("to").is_none_or(|to| self.is_account(&to));
        let host = node.attr("to").is_some_and(|to| self.is_host(&to));
        let Some(child) = node.children().next().filter(|_| account || host) else { return false };
        let (id, kind) = (node.attr("id").unwrap_or_default(), node.attr("type"));
        match (kind.as_deref(), child.name(), child.ns()) {
            (Some("get"), "query", ns::DISCO_INFO) if account && child.attr("node").is_none() => {
                self.pending.query(&id);
            }
            (Some("set"), "query", ns::REGISTER) if child.child("remove", ns::REGISTER).is_some() => {
                self.pending.removal(now, &id);
            }
            (Some("set"), "query", mam) if account && mam.starts_with(ns::MAM_ANY) => self.archive = true,
            (Some("set"), ..) => {
                let Some(request) = Request::parse(&child, &self.bound.jid, &self.settings.push) else { return false };
                self.push_request(now, &node, request);
                return true;
            }
            _ => {}
        }
        false
    }

    /// Whether the client has asked for a registration, and the store has not answered.
    pub(super) fn awaits_registration(&self) -> bool {
        self.promises.iter().any(|promise| matches!(promise.event, Event::PushEnabled(_)))
    }

    /// Whether the client has asked for something, and the store has not answered.
    pub(super) fn has_open_requests(&self) -> bool {
        !self.promises.is_empty()
    }

    pub(super) fn is_account(&self, to: &str) -> bool {
        Jid::new(to) == self.account
    }

    fn is_host(&self, to: &str) -> bool {
        Jid::new(to).as_str() == self.bound.jid.domain()
    }

    fn push_request(&mut self, now: Instant, iq: &Node<'_>, request: Result<Request, RequestError>) {
        // The answers repeat the id of the request, which may be long.
        let id = iq.attr("id").map_or(0, |id| id.len());
        if self.promises.len() >= OPEN_REQUESTS || self.promised().saturating_add(2 * id) > PROMISED {
            return self.deliver_own(now, iq_error(iq, "wait", "resource-constraint"));
        }
        if self.removed {
            // Who has the account's name next is not to be pushed for by it.
            return self.deliver_own(now, iq_error(iq, "cancel", "item-not-found"));
        }
        let (change, event) = match request {
            Err(error) => return self.deliver_own(now, iq_error(iq, error.kind().name(), error.condition().name())),
            Ok(Request::Enable { target, options, extensions }) => {
                let event = Event::PushEnabled(target.clone());
                let (device, last_seen) = (self.owner.device, self.epoch.unix(now));
                let registration = Registration {
                    target,
                    options,
                    device,
                    last_seen,
                    errors: 0,
                    last_success: None,
                    undelivered_since: None,
                    extensions,
                };
                let (certain, max_devices) = (self.owner.certain, self.settings.push.max_devices);
                (Change::Enable { registration, certain, max_devices }, event)
            }
            Ok(Request::Disable(service, node)) => (Change::Disable { service, node }, Event::PushDisabled),
        };
        let token = Token(self.next_token);
        self.next_token = self.next_token.wrapping_add(1);
        let on_success = iq_result(iq);
        let on_failure = iq_error(iq, "wait", "internal-server-error");
        self.promises.push_back(Promise { token, event, on_success, on_failure });
        self.change(Some(token), change);
    }

    /// The client hears of its request only once the store has spoken (XEP-0357 §5).
    pub(super) fn stored(&mut self, now: Instant, token: Token, stored: Stored) {
        let Some(at) = self.promises.iter().position(|p| p.token == token) else { return };
        let Some(promise) = self.promises.remove(at) else { return };
        if self.promises.is_empty() {
            self.promises = VecDeque::new();
        }
        match stored {
            Stored::Durable(device) => {
                if let Some(device) = device.filter(|device| *device != self.owner.device) {
                    self.owner.device = device;
                    // It was known before: what waits for it goes to this session.
                    self.inherit();
                }
                self.event(promise.event);
                self.deliver_own(now, promise.on_success);
            }
            Stored::Failed => self.deliver_own(now, promise.on_failure),
        }
        self.leave_if_due(now);
    }
}
