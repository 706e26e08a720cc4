//! How a [`Session`] ends, and what is kept of it.
//!
//! Durable stanzas that the client does not have go to the spool for the device's next session, or stay the server's, which
//! sends them elsewhere. Then the server hears the last `<a/>` and the footer, and what it still sends until its own footer is
//! taken as well.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::answer::iq_error;
use super::deliver::is_archived;
use super::presence::is_durable;
use super::queue::Queued;
use super::sm::ClientLeg;
use super::{Closing, EndReason, Event, Output, Session, Spool, Tracking, WakeReason};
use crate::xml::{self, Element, Kind};

/// How long the spool may take for the last stanzas.
const SPOOL_PATIENCE: Duration = Duration::from_secs(5);
/// How long the server may take to answer behind all that it has sent, where only this session can return it.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// How long the store may take for the last requests of a client that leaves.
const STORE_PATIENCE: Duration = Duration::from_secs(5);
/// How long the server may take to close its stream. While it goes on sending, it has more time.
const FOOTER_PATIENCE: Duration = Duration::from_secs(2);
/// How long it may take in all.
const CLOSING_PATIENCE: Duration = Duration::from_secs(10);

/// How a client left while requests of it were open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// It closed its stream, and gets its answers and a footer.
    Closed,
    /// Its connection was lost.
    Lost,
}

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// The last stanzas are on their way to the disk.
    Spooling(Last),
    /// The footer was written to the server.
    Closing(Footer),
    Over,
}

/// What the footer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    reason: EndReason,
    deadline: Instant,
    /// The number of the newest stanza as the end began. Those that come later follow while the server closes its stream.
    newest: u64,
    /// The server was asked for an answer behind all that it has sent.
    asked: bool,
}

/// What the end waits for once the footer was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    reason: EndReason,
    written: Instant,
    deadline: Instant,
}

impl Phase {
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Spooling(Last { deadline, .. }) | Self::Closing(Footer { deadline, .. }) => Some(deadline),
            Self::Running | Self::Over => None,
        }
    }

    fn reason(self) -> Option<EndReason> {
        match self {
            Self::Spooling(Last { reason, .. }) | Self::Closing(Footer { reason, .. }) => Some(reason),
            Self::Running | Self::Over => None,
        }
    }
}

impl EndReason {
    /// Whether the server is there to be told.
    fn has_upstream(self) -> bool {
        !matches!(self, Self::UpstreamClosed | Self::UpstreamLost | Self::UpstreamSilent)
    }

    /// Whether what the client does not have is kept here for the device's next session, even where the server would keep it.
    fn keeps_all(self) -> bool {
        matches!(self, Self::Expired | Self::Superseded | Self::Crowded | Self::Drained | Self::Exhausted)
    }
}

impl Session {
    /// Whether the end has begun: the session cannot be resumed any more.
    pub fn is_ending(&self) -> bool {
        self.phase != Phase::Running
    }

    /// Whether a stanza can still be answered.
    pub(super) fn can_answer(&self) -> bool {
        match self.phase {
            Phase::Running => true,
            Phase::Spooling(last) => last.reason.has_upstream(),
            Phase::Closing(..) | Phase::Over => false,
        }
    }

    /// Whether stanzas that come now stay the server's.
    pub(super) fn gives_back(&self) -> bool {
        let keeps = matches!(self.phase, Phase::Spooling(last) if self.keeps(last.reason));
        self.is_ending() && self.server.is_on() && !keeps
    }

    /// Whether what the client does not have is kept here. A server whose connection breaks without a word may be dead: it sends
    /// nothing elsewhere then.
    fn keeps(&self, reason: EndReason) -> bool {
        reason.keeps_all() || reason == EndReason::UpstreamLost && !self.server.has_said_why()
    }

    /// The client closed its stream. Its requests are answered before the footer, as far as the store answers in time.
    pub(super) fn client_closes(&mut self, now: Instant) {
        if self.has_open_requests() {
            return self.wait_to_leave(now, Leave::Closed);
        }
        self.client_closed(now);
    }

    /// Lets the client's end wait for the store's answers: a registration decides what becomes of the session.
    pub(super) fn wait_to_leave(&mut self, now: Instant, how: Leave) {
        if matches!(self.tracking, Tracking::None) {
            // What comes meanwhile is not certain to be read.
            self.tracking = Tracking::Ping(ClientLeg::default(), None);
        }
        self.leaving = Some(Box::new((now + STORE_PATIENCE, how)));
    }

    /// The client's end goes on, once the store has answered or is late.
    pub(super) fn leave_if_due(&mut self, now: Instant) {
        // The account is known as it is once no change of it is open.
        let waits = self.has_open_requests() || self.open_changes > 0;
        let leaving = self.leaving.take_if(|leaving| !waits || leaving.0 <= now);
        match leaving.map(|leaving| leaving.1) {
            Some(_) if self.is_ending() => {}
            Some(Leave::Closed) => self.client_closed(now),
            Some(Leave::Lost) => self.client_gone(now),
            None => {}
        }
    }

    /// The client closed its stream, and nothing more is to be answered.
    fn client_closed(&mut self, now: Instant) {
        let parting = self.own_presence.take_parting();
        if !self.is_dark() {
            self.reply_client(Bytes::from_static(xml::STREAM_CLOSE));
        }
        if self.may_linger()
            && let Some(presence) = self.own_presence.lingering()
        {
            return self.linger(now, presence);
        }
        if let Some(parting) = parting {
            self.forward_counted(now, parting);
        }
        self.begin_end(now, EndReason::ClientClosed);
    }

    /// Whether the session goes on for its pushes when the client closes its stream, as it does when an app is suspended.
    pub(super) fn may_linger(&self) -> bool {
        self.settings.hibernation.linger
            && !self.has_successor()
            && self.owned().next().is_some()
            && self.own_presence.is_available()
    }

    /// The same, where a registration that is being stored counts.
    pub(super) fn may_come_to_linger(&self) -> bool {
        let awaited = self.settings.hibernation.linger && !self.has_successor() && self.awaits_registration();
        self.may_linger() || awaited && self.own_presence.is_available()
    }

    fn linger(&mut self, now: Instant, presence: Bytes) {
        self.inject(now, presence);
        self.bury();
        self.event(Event::Lingering);
        self.out(Output::CloseClient(Closing::Orderly));
        self.go_dark(now);
    }

    /// The id can be resumed no more; what the client sent is remembered for it.
    pub(super) fn bury(&mut self) {
        if let Some(id) = self.sm_id.take() {
            self.buried = Some(Box::new((id, None)));
            self.engrave();
        }
    }

    /// What the server confirms later was the client's too: it is not to send that again.
    pub(super) fn engrave(&mut self) {
        let h = self.confirm.handled();
        let buried = self.buried.as_deref_mut().filter(|(_, told)| !self.removed && *told != Some(h));
        if let Some((id, told)) = buried {
            *told = Some(h);
            let id = id.clone();
            self.out(Output::Bury(id, h));
        }
    }

    pub(super) fn give_way(&mut self, now: Instant, reason: EndReason) {
        if self.is_dark() {
            self.begin_end(now, reason);
        }
    }

    pub(super) fn drain(&mut self, now: Instant) {
        if self.is_ending() {
            return;
        }
        if !self.is_dark() {
            self.write_client(xml::stream_error("system-shutdown", None, None));
        } else if self.owned().next().is_some() {
            self.out(Output::Wake(WakeReason::Restart));
        }
        self.begin_end(now, EndReason::Drained);
    }

    pub(super) fn begin_end(&mut self, now: Instant, reason: EndReason) {
        if self.is_ending() {
            return;
        }
        let abrupt = reason == EndReason::UpstreamLost;
        self.out(Output::CloseClient(if abrupt { Closing::Abrupt } else { Closing::Orderly }));
        if !reason.has_upstream() && self.is_dark() && self.owned().next().is_some() {
            self.out(Output::Wake(WakeReason::UpstreamLost));
        }
        if reason == EndReason::Expired && self.archive {
            self.forget_archived();
        }
        self.answer_requests(now, reason);
        self.bury();
        let keeps = self.keeps(reason);
        let theirs = !keeps && self.server.is_on();
        if theirs && reason.has_upstream() {
            // Nothing more is acknowledged after it.
            self.settle_with_server(now, true);
        }
        if theirs {
            self.give_back();
        } else if reason == EndReason::UpstreamLost {
            self.keep_what_may_come_again(now);
        }
        let (deadline, newest) = (now + SPOOL_PATIENCE, self.queue.newest());
        self.phase = Phase::Spooling(Last { reason, deadline, newest, asked: false });
        self.spool_rest();
        self.drive_end(now);
    }

    /// What is still to be kept, and what comes until the server's footer.
    pub(super) fn spool_rest(&mut self) {
        if self.is_ending() {
            self.spool_all();
        }
    }

    /// Goes on with the end as far as it can.
    pub(super) fn drive_end(&mut self, now: Instant) {
        match self.phase {
            Phase::Spooling(last) => self.finish_spooling(now, last),
            Phase::Closing(footer) if footer.deadline <= now => self.over(),
            Phase::Running | Phase::Closing(..) | Phase::Over => {}
        }
    }

    /// Writes the footer once the disk has what came before the end, or will not have it.
    fn finish_spooling(&mut self, now: Instant, last: Last) {
        let reason = last.reason;
        if !reason.has_upstream() {
            return self.over();
        }
        // What has come since.
        self.spool_all();
        let late = last.deadline <= now || last.asked;
        if self.spool.accepts() && !late && !self.queue.is_committed_to(last.newest) {
            return;
        }
        if self.server.is_on() && reason.keeps_all() {
            self.settle_with_server(now, true);
            self.give_back();
        }
        if late || !self.spool.accepts() {
            if self.spool.accepts() && !last.asked && !self.queue.is_committed() {
                self.event(Event::SpoolLate);
            }
            // Nobody else has it.
            self.shed_all(now);
            if self.awaits_last(now, last) {
                return;
            }
        }
        if reason != EndReason::ClientClosed && self.buried.is_some() && !self.confirm.is_complete() {
            // Its answer comes before the server's footer.
            self.ask(now);
        }
        self.write_upstream(now, Bytes::from_static(xml::STREAM_CLOSE));
        self.phase = Phase::Closing(Footer { reason, written: now, deadline: now + FOOTER_PATIENCE });
    }

    /// Whether stanzas may be on their way that only this session can return to their senders, which it cannot behind its footer: the
    /// server is to send no more, and its answer to a ping is behind the last one (RFC 6120 §10.1).
    fn awaits_last(&mut self, now: Instant, last: Last) -> bool {
        if self.server.is_on() {
            return false;
        }
        if last.asked {
            return self.confirm.is_asked() && last.deadline > now;
        }
        self.inject(now, Bytes::from_static(b"<presence type='unavailable'/>"));
        self.ask(now);
        self.phase = Phase::Spooling(Last { asked: true, deadline: now + LAST_PATIENCE, ..last });
        true
    }

    /// The server sends on, though our footer was written: its own comes behind that.
    pub(super) fn server_sends(&mut self, now: Instant) {
        if let Phase::Closing(footer) = &mut self.phase {
            footer.deadline = (now + FOOTER_PATIENCE).min(footer.written + CLOSING_PATIENCE);
        }
    }

    /// The server closes its stream while the session ends. The footer is answered (RFC 6120 §4.4).
    pub(super) fn upstream_closed_while_ending(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Spooling(_)) {
            self.write_upstream(now, Bytes::from_static(xml::STREAM_CLOSE));
        }
        self.upstream_ended_in_order();
    }

    /// The server has ended its stream in order: it sends elsewhere all that it was not acknowledged.
    fn upstream_ended_in_order(&mut self) {
        if let Phase::Spooling(last) = self.phase
            && self.server.is_on()
            && self.keeps(last.reason)
        {
            self.give_back();
        }
        self.over();
    }

    pub(super) fn upstream_lost_while_ending(&mut self, now: Instant) {
        if self.server.has_said_why() {
            return self.upstream_ended_in_order();
        }
        if let Phase::Spooling(last) = self.phase
            && self.keeps(last.reason)
        {
            self.keep_what_may_come_again(now);
        }
        self.keep_given_back(now);
        self.over();
    }

    /// What came last is kept, and the session is no more.
    pub(super) fn over(&mut self) {
        let Some(reason) = self.phase.reason() else { return };
        // A spool that has refused is asked once more.
        self.spool = Spool::Accepts;
        self.spool_rest();
        self.report_shed();
        self.phase = Phase::Over;
        self.out(Output::End(reason));
    }

    /// Nobody will answer the iq requests that the client does not have (RFC 6120 §8.2.3).
    fn answer_requests(&mut self, now: Instant, reason: EndReason) {
        let aside = self.queue.remove_aside(|item| is_request(&item.element));
        for request in self.queue.remove_where(|item| is_request(&item.element)).into_iter().chain(aside) {
            self.discard(&request);
            if reason.has_upstream() {
                self.answer_upstream(now, refusal(&request.element));
            }
        }
        let noted = self.queue.noted().take_requests();
        self.queue.drop_from_flight(|item| noted.iter().any(|(seq, _)| *seq == item.seq));
        for (seq, refusal) in noted {
            self.out(Output::Unspool { spool: None, places: seq..=seq });
            if reason.has_upstream() {
                self.answer_upstream(now, refusal);
            }
        }
    }

    /// Deletes a stanza from the spool that has it, if one has.
    pub(super) fn discard(&mut self, item: &Queued) {
        let (spool, place) = match self.queue.origin(item.seq) {
            Some((spool, place)) => (Some(spool), place),
            None if item.is_spooled() => (None, item.seq),
            None => return,
        };
        self.out(Output::Unspool { spool, places: place..=place });
    }

    fn forget_archived(&mut self) {
        let archived: Vec<u64> =
            self.queue.iter().filter(|item| self.is_archived(&item.element)).map(|item| item.seq).collect();
        for item in self.queue.remove_where(|item| archived.contains(&item.seq)) {
            self.discard(&item);
        }
        let at_rest: Vec<u64> = self.queue.archived_at_rest().collect();
        for seq in at_rest {
            self.out(Output::Unspool { spool: None, places: seq..=seq });
        }
        let account = self.account.clone();
        self.queue.drop_from_flight(|item| is_archived(&item.element, &account));
        for places in self.queue.noted().take_archived() {
            self.out(Output::Unspool { spool: None, places });
        }
    }
}

/// Whether somebody waits for an answer to it (RFC 6120 §8.2.3).
pub(super) fn is_request(element: &Element) -> bool {
    element.kind() == Kind::Iq && is_durable(element)
}

/// How a request is answered that the client will never have.
pub(super) fn refusal(request: &Element) -> Bytes {
    iq_error(&request.node(), "cancel", "service-unavailable")
}
