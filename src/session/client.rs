//! How a [`Session`] reacts to its client.

use std::time::{Duration, Instant};

use super::answer::{iq_error, iq_result};
use super::liveness::Alarm;
use super::negotiate::failed;
use super::{Closing, EndReason, Event, Output, Promise, Resumption, Session, SmId, Stored, Token, rewrite, sm};
use crate::jid::Jid;
use crate::push::account::Change;
use crate::push::registration::{BadRequest, Registration, Request};
use crate::xml::{self, Element, Frame, Kind, Node, XmlWriter, ns};

/// Requests of one session that wait for the store; more are asked to come back later.
const OPEN_REQUESTS: usize = 32;

impl Session {
    pub(super) fn client_frame(&mut self, now: Instant, frame: Frame) {
        self.liveness.heard(now);
        match frame {
            Frame::Whitespace => {}
            Frame::Element(element) if element.kind() == Kind::Other => self.client_nonza(now, &element),
            Frame::Element(element) => self.client_stanza(now, &element),
            Frame::Close => {
                self.write_client(xml::STREAM_CLOSE);
                self.write_upstream(now, xml::STREAM_CLOSE.into());
                self.end(EndReason::ClientClosed);
            }
            Frame::Open(_) => self.client_error("bad-format"),
        }
    }

    /// The stream error for bytes of the client that are no XML stream (RFC 6120 §4.9.3); the session ends.
    pub fn refuse_bytes(&mut self, error: &xml::FrameError) {
        self.client_error(error.condition());
    }

    fn client_error(&mut self, condition: &str) {
        self.write_client(xml::stream_error(condition, None, None));
        self.out(Output::ToUpstream(xml::STREAM_CLOSE.into()));
        self.end(EndReason::ClientError);
    }

    // Nonzas

    fn client_nonza(&mut self, now: Instant, element: &Element) {
        let node = element.node();
        match (node.ns(), node.name()) {
            (ns::SM, "r") => self.answer_ack_request(),
            (ns::SM, "a") => self.client_acked(&node),
            (ns::SM, "enable") => self.enable_sm(&node),
            (ns::SM, _) => self.write_client(failed("unexpected-request")),
            (ns::CSI, "active" | "inactive") => {
                self.client_inactive = node.name() == "inactive";
                if self.bound.server_csi {
                    self.forward(now, element);
                }
            }
            // Elements that would change the upstream stream behind our back.
            (ns::TLS | ns::SASL | ns::SASL2 | ns::COMPRESS_PROTOCOL | ns::SM2, _) => {
                self.client_error("unsupported-stanza-type");
            }
            _ => self.forward(now, element),
        }
    }

    fn answer_ack_request(&mut self) {
        let Some(leg) = &self.client else { return };
        let mut xml = XmlWriter::new();
        xml.start("a").attr("xmlns", ns::SM).attr("h", &leg.received().get().to_string());
        self.write_client(xml.finish());
    }

    fn client_acked(&mut self, node: &Node<'_>) {
        let Some(leg) = &mut self.client else { return };
        let Some(h) = node.attr("h").and_then(|h| sm::Handled::parse(&h)) else {
            return self.client_error("bad-format");
        };
        match leg.acknowledge(h) {
            Ok(count) => {
                self.queue.acknowledge(count);
                self.liveness.acked();
                self.schedule.cancel();
            }
            Err(too_high) => {
                let text = too_high.to_string();
                self.write_client(xml::stream_error("undefined-condition", Some(&too_high.condition()), Some(&text)));
                self.out(Output::ToUpstream(xml::STREAM_CLOSE.into()));
                self.end(EndReason::ClientError);
            }
        }
    }

    fn enable_sm(&mut self, node: &Node<'_>) {
        if self.client.is_some() {
            return self.write_client(failed("unexpected-request"));
        }
        let mut xml = XmlWriter::new();
        xml.start("enabled").attr("xmlns", ns::SM);
        if matches!(node.attr("resume").as_deref(), Some("true" | "1")) {
            let id = SmId::new(format!("{:032x}", (self.dice)()));
            self.asked_max = node.attr("max").and_then(|max| max.parse().ok());
            let max = self.settings.push.max_hibernation_timeout.as_secs();
            // Not "1": some clients know only the word.
            xml.attr("id", id.as_str()).attr("resume", "true").attr("max", &max.to_string());
            self.sm_id = Some(id.clone());
            self.out(Output::Resumable(id));
        }
        // XEP-0198 §4: both counters are zero from here on.
        self.client = Some(sm::ClientLeg::default());
        self.liveness.enable();
        self.write_client(xml.finish());
    }

    // Stanzas

    fn client_stanza(&mut self, now: Instant, element: &Element) {
        // XEP-0198 §4: handled, whoever answers it.
        if let Some(leg) = &mut self.client {
            leg.on_received();
        }
        if element.kind() == Kind::Iq && self.answer_iq(now, element) {
            return;
        }
        self.forward(now, element);
    }

    fn forward(&mut self, now: Instant, element: &Element) {
        let bytes = element.on_stream(&self.bound.client_header);
        self.write_upstream(now, bytes);
    }

    /// Answers an iq that is ours to answer, and notes one whose answer concerns us.
    fn answer_iq(&mut self, now: Instant, element: &Element) -> bool {
        // Most iqs need no second look.
        if !element.mentions(ns::PUSH) && !element.mentions(ns::DISCO_INFO) {
            return false;
        }
        let node = element.node();
        let account = node.attr("to").is_none_or(|to| self.is_account(&to));
        match node.attr("type").as_deref() {
            Some("get") if account => {
                let query = node.child("query", ns::DISCO_INFO).filter(|q| q.attr("node").is_none());
                if let (Some(_), Some(id)) = (query, node.attr("id")) {
                    self.pending.query(id.into_owned());
                }
                false
            }
            Some("set") if account || node.attr("to").is_some_and(|to| self.is_host(&to)) => {
                let request = node.children().find_map(|child| Request::parse(&child, &self.bound.jid));
                let Some(request) = request else { return false };
                self.push_request(now, &node, request);
                true
            }
            _ => false,
        }
    }

    fn is_account(&self, to: &str) -> bool {
        Jid::new(to).is_ok_and(|to| to.resource().is_none() && to.to_bare() == self.bound.jid.to_bare())
    }

    fn is_host(&self, to: &str) -> bool {
        crate::jid::domain(to).is_some_and(|domain| domain == self.bound.jid.domain().as_str())
    }

    fn push_request(&mut self, now: Instant, iq: &Node<'_>, request: Result<Request, BadRequest>) {
        if self.promises.len() >= OPEN_REQUESTS {
            return self.deliver_own(now, iq_error(iq, "wait", "resource-constraint"));
        }
        let (change, event) = match request {
            Err(_) => return self.deliver_own(now, iq_error(iq, "modify", "bad-request")),
            Ok(Request::Enable(target, options)) => {
                let event = Event::PushEnabled(target.clone());
                let (device, last_seen) = (self.owner.device, self.unix(now));
                let registration = Registration { target, options, device, last_seen, errors: 0 };
                let (certain, max_devices) = (self.owner.certain, self.settings.push.max_devices);
                (Change::Enable { registration, certain, max_devices }, event)
            }
            Ok(Request::Disable(service, node)) => (Change::Disable { service, node }, Event::PushDisabled),
        };
        let token = Token(self.next_token);
        self.next_token += 1;
        let on_success = iq_result(iq);
        let on_failure = iq_error(iq, "wait", "internal-server-error");
        self.promises.push_back(Promise { token, event, on_success, on_failure });
        self.out(Output::Store(Some(token), change));
    }

    /// The client hears of its request only once the store has spoken (XEP-0357 §5).
    pub(super) fn stored(&mut self, now: Instant, token: Token, stored: Stored) {
        let Some(at) = self.promises.iter().position(|p| p.token == token) else {
            return;
        };
        let Some(promise) = self.promises.remove(at) else {
            return;
        };
        match stored {
            Stored::Durable(device) => {
                self.owner.device = device.unwrap_or(self.owner.device);
                self.event(promise.event);
                self.deliver_own(now, promise.on_success);
            }
            Stored::Failed => self.deliver_own(now, promise.on_failure),
        }
    }

    // Liveness

    pub(super) fn client_lost(&mut self, now: Instant) {
        if self.sm_id.is_none() {
            self.write_upstream(now, xml::STREAM_CLOSE.into());
            return self.end(EndReason::ClientLost);
        }
        if !self.liveness.is_dark() {
            self.go_dark(now);
        }
    }

    fn go_dark(&mut self, now: Instant) {
        self.liveness.go_dark(now, now + self.hold());
        self.event(Event::Dark { queued: self.queue.len() });
        self.push_for_waiting(now);
    }

    /// How long the session is held without its client.
    fn hold(&self) -> Duration {
        if self.owned().next().is_some() {
            return self.settings.push.max_hibernation_timeout;
        }
        let asked = self.asked_max.map_or(Duration::MAX, Duration::from_secs);
        self.settings.stream_management.resume_timeout.min(asked)
    }

    /// A registration that came or went changes how long a dark session is held.
    pub(super) fn hold_changed(&mut self) {
        if let Some(since) = self.liveness.unreachable_since().filter(|_| self.liveness.is_dark()) {
            self.liveness.go_dark(since, since + self.hold());
        }
    }

    pub(super) fn attach(&mut self, now: Instant, resumption: Resumption) {
        let Some((leg, id)) = self.client.as_mut().zip(self.sm_id.clone()) else {
            return;
        };
        // Refused beforehand by `check_resume`.
        let Ok(acked) = leg.acknowledge(resumption.h) else {
            return;
        };
        leg.rewind();
        let h = leg.received().get().to_string();
        self.queue.acknowledge(acked);
        self.queue.rewind();
        self.attachment = self.attachment.next();
        self.attached_header = resumption.server_header;
        self.liveness.attach(now);
        self.schedule.cancel();
        self.seen(now);
        let mut xml = XmlWriter::new();
        xml.start("resumed").attr("xmlns", ns::SM).attr("h", &h).attr("previd", id.as_str());
        self.write_client(xml.finish());
        self.event(Event::Resumed { replayed: self.queue.len() });
        self.replay();
        self.ask_for_ack(now);
        self.reset_csi(now);
    }

    /// XEP-0352 §5.2: a resumed stream begins active, whatever the server last heard.
    fn reset_csi(&mut self, now: Instant) {
        if std::mem::take(&mut self.client_inactive) && self.bound.server_csi {
            let mut xml = XmlWriter::new();
            xml.start("active").attr("xmlns", ns::CSI);
            self.write_upstream(now, xml.finish());
        }
    }

    fn replay(&mut self) {
        let domain = self.bound.jid.domain().as_str().to_owned();
        while let Some(item) = self.queue.write_next().cloned() {
            let stamp = self.wall(item.received);
            let stamped = rewrite::delayed(&item.element, &domain, stamp)
                .and_then(|bytes| Element::parse(bytes, item.element.header()).ok());
            let bytes = stamped.as_ref().unwrap_or(&item.element).on_stream(&self.attached_header);
            self.count_sent();
            self.write_client(bytes);
        }
    }

    pub(super) fn count_sent(&mut self) {
        if let Some(leg) = &mut self.client {
            leg.on_sent();
        }
    }

    pub(super) fn quiet(&mut self, now: Instant) {
        if self.liveness.may_ask() && self.queue.messages() > 0 {
            self.ask_for_ack(now);
        }
    }

    fn ask_for_ack(&mut self, now: Instant) {
        let mut xml = XmlWriter::new();
        xml.start("r").attr("xmlns", ns::SM);
        self.write_client(xml.finish());
        self.liveness.asked(now);
    }

    pub(super) fn timeout(&mut self, now: Instant) {
        match self.liveness.alarm(now) {
            Some(Alarm::Probe) => self.ask_for_ack(now),
            Some(Alarm::Suspect) => {
                self.event(Event::Suspect);
                self.push_for_waiting(now);
            }
            Some(Alarm::GiveUp) => {
                self.out(Output::CloseClient(Closing::Abrupt));
                self.client_lost(now);
            }
            Some(Alarm::Expired) => {
                self.write_upstream(now, xml::STREAM_CLOSE.into());
                self.end(EndReason::Expired);
            }
            None => {}
        }
        if self.ended {
            return;
        }
        self.push_due(now);
        if self.upstream_written + self.settings.stream_management.upstream_keepalive <= now {
            self.write_upstream(now, bytes::Bytes::from_static(b" "));
        }
    }

    pub(super) fn drain(&mut self) {
        if !self.liveness.is_dark() {
            self.write_client(xml::stream_error("system-shutdown", None, None));
        }
        self.out(Output::ToUpstream(xml::STREAM_CLOSE.into()));
        self.end(EndReason::Drained);
    }
}
