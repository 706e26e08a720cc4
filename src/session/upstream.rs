//! How a [`Session`] reacts to its server, and how stanzas travel to the client.

use std::time::Instant;

use bytes::Bytes;

use super::answer::{self, OpenPublish, iq_result};
use super::{Closing, EndReason, Event, Outcome, Output, Session, rewrite};
use crate::push::classify::{self, Class};
use crate::push::notification::{Publish, Summary};
use crate::push::account::{Account, Change};
use crate::push::registration::{Registration, Target};
use crate::xml::{self, Element, Frame, Kind, Node, ns};

impl Session {
    pub(super) fn upstream_frame(&mut self, now: Instant, frame: Frame) {
        match frame {
            // Never relayed: there are clients that give up on whitespace.
            Frame::Whitespace => {}
            Frame::Element(element) if element.kind() == Kind::Other => {
                if !self.liveness.is_dark() {
                    let bytes = element.on_stream(&self.attached_header);
                    self.write_client(bytes);
                }
            }
            Frame::Element(element) => self.upstream_stanza(now, element),
            Frame::Close => {
                self.write_client(xml::STREAM_CLOSE);
                self.out(Output::ToUpstream(xml::STREAM_CLOSE.into()));
                self.end(EndReason::UpstreamClosed);
            }
            Frame::Open(_) => self.upstream_lost(),
        }
    }

    /// Without a footer the client comes back and logs in again.
    pub(super) fn upstream_lost(&mut self) {
        self.out(Output::CloseClient(Closing::Abrupt));
        self.end(EndReason::UpstreamLost);
    }

    fn upstream_stanza(&mut self, now: Instant, element: Element) {
        if element.kind() == Kind::Iq {
            if !self.pending.is_idle() && self.upstream_answer(now, &element) {
                return;
            }
            if self.liveness.is_dark() && self.answer_ping(now, &element) {
                return;
            }
        }
        self.deliver(now, element);
    }

    /// Takes the answers to our own requests, and rewrites those that concern us.
    fn upstream_answer(&mut self, now: Instant, element: &Element) -> bool {
        let node = element.node();
        let (Some(id), Some(kind)) = (node.attr("id"), node.attr("type")) else {
            return false;
        };
        if kind != "result" && kind != "error" {
            return false;
        }
        if self.pending.is_ours(&id) {
            if let Some(open) = self.pending.take_publish(&id, node.attr("from").as_deref()) {
                self.publish_answered(open, &node);
            }
            // Invariant 5: a late answer is still ours.
            return true;
        }
        if !self.pending.take_query(&id) {
            return false;
        }
        let info = if kind == "error" { Some(answer::account_info(&node)) } else { rewrite::account_info(element) };
        let rewritten = info.and_then(|bytes| Element::parse(bytes, element.header()).ok());
        self.deliver(now, rewritten.unwrap_or_else(|| element.clone()));
        true
    }

    /// XEP-0199: while the client is dark, pings are answered for it, so that nobody takes it for gone.
    fn answer_ping(&mut self, now: Instant, element: &Element) -> bool {
        let node = element.node();
        if node.attr("type").as_deref() != Some("get") || node.child("ping", ns::PING).is_none() {
            return false;
        }
        let result = iq_result(&node);
        self.write_upstream(now, result);
        true
    }

    /// Writes a stanza to the client, or lets it wait.
    fn deliver(&mut self, now: Instant, element: Element) {
        if self.client.is_none() {
            let bytes = element.on_stream(&self.attached_header);
            return self.write_client(bytes);
        }
        let seq = match self.queue.push(element.clone(), now) {
            Ok(seq) => seq,
            Err(full) => return self.queue_full(full.limit),
        };
        if !self.liveness.is_dark() && self.queue.write_next().is_some() {
            self.count_sent();
            let bytes = element.on_stream(&self.attached_header);
            self.write_client(bytes);
        }
        if let Some(since) = self.liveness.unreachable_since() {
            match classify::classify(&element, &self.bound.jid.to_bare()) {
                Class::Message => self.schedule.waiting(now, since, seq),
                Class::Noise(noise) => self.event(Event::NotPushed(noise)),
            }
            self.push_due(now);
        }
    }

    /// A stanza of our own making counts and waits like any other.
    pub(super) fn deliver_own(&mut self, now: Instant, bytes: Bytes) {
        if let Ok(element) = Element::parse(bytes, &self.attached_header) {
            self.deliver(now, element);
        }
    }

    fn queue_full(&mut self, limit: usize) {
        self.event(Event::QueueFull { limit });
        self.out(Output::CloseClient(Closing::Abrupt));
        self.out(Output::ToUpstream(xml::STREAM_CLOSE.into()));
        self.end(EndReason::QueueFull);
    }

    // Push

    /// The registrations of this device.
    pub(super) fn owned(&self) -> impl Iterator<Item = &Registration> {
        self.owner.account.owned(self.owner.device)
    }

    pub(super) fn account_changed(&mut self, now: Instant, account: Account) {
        self.owner.account = account;
        self.hold_changed();
        self.push_for_waiting(now);
    }

    /// The device was in contact, which the store keeps for the choice of whom to forget first.
    pub(super) fn seen(&mut self, now: Instant) {
        if self.owned().next().is_some() {
            self.out(Output::Store(None, Change::Seen { device: self.owner.device, at: self.unix(now) }));
        }
    }

    fn important(&self) -> impl DoubleEndedIterator<Item = &super::queue::Queued> {
        let account = self.bound.jid.to_bare();
        self.queue.iter().filter(move |q| classify::classify(&q.element, &account).is_important())
    }

    /// The client has become unreachable, or can be notified now: what waits already may be worth a push.
    pub(super) fn push_for_waiting(&mut self, now: Instant) {
        let Some(since) = self.liveness.unreachable_since() else {
            return;
        };
        let newest = self.important().next_back().map(|q| q.seq);
        if let Some(newest) = newest {
            self.schedule.waiting(now, since, newest);
            self.push_due(now);
        }
    }

    pub(super) fn push_due(&mut self, now: Instant) {
        while let Some(target) = self.pending.take_late(now) {
            self.event(Event::PublishOutcome(target, Outcome::Unknown));
        }
        if self.owned().next().is_none() || self.schedule.due().is_none_or(|due| due > now) {
            return;
        }
        let Some(newest) = self.important().next_back().cloned() else {
            return self.schedule.cancel();
        };
        self.schedule.fire(now, newest.seq);
        let outer = newest.element.node();
        let message = classify::readable(outer, &self.bound.jid.to_bare());
        let summary = Summary::new(&self.settings.push, self.important().count(), &message);
        let publishes: Vec<_> = self.owned().map(|r| Publish::new(r, summary.clone())).collect();
        for publish in publishes {
            self.out(Output::Publish(publish));
        }
    }

    /// The `session` transport: the user's own stream; the server stamps the full JID.
    pub(super) fn publish_here(&mut self, now: Instant, publish: &Publish) {
        let id = self.pending.id((self.dice)());
        let iq = publish.iq(&id, None);
        let deadline = Some(now + self.settings.push.publish_timeout);
        self.pending.publish(OpenPublish { id, target: publish.target.clone(), deadline });
        self.write_upstream(now, iq);
        self.event(Event::Published(publish.target.clone()));
    }

    fn publish_answered(&mut self, open: OpenPublish, answer: &Node<'_>) {
        let outcome = outcome(answer);
        let target = open.target;
        match &outcome {
            Outcome::Accepted if self.errors_of(&target) > 0 => {
                self.out(Output::Store(None, Change::Succeeded { target: target.clone() }));
            }
            Outcome::Refused(_) => {
                let max_errors = self.settings.push.max_errors;
                self.out(Output::Store(None, Change::Failed { target: target.clone(), max_errors }));
            }
            Outcome::Accepted | Outcome::Wait(_) | Outcome::Unknown => {}
        }
        self.event(Event::PublishOutcome(target, outcome));
    }

    fn errors_of(&self, target: &Target) -> u32 {
        self.owner.account.registrations.iter().find(|r| r.target == *target).map_or(0, |r| r.errors)
    }
}

/// What the answer of a push service means.
fn outcome(answer: &Node<'_>) -> Outcome {
    if answer.attr("type").as_deref() == Some("result") {
        return Outcome::Accepted;
    }
    let error = answer.child("error", ns::CLIENT);
    let condition = error.and_then(|e| e.children().find(|c| c.ns() == ns::STANZA_ERRORS));
    let condition = condition.map_or("undefined-condition", |c| c.name()).to_owned();
    match error.and_then(|e| e.attr("type")).as_deref() {
        Some("wait") => Outcome::Wait(condition),
        _ => Outcome::Refused(condition),
    }
}
