//! What earlier sessions of the device have left: when a [`Session`] takes it over, and how it reads it.

use std::time::{Duration, Instant};

use super::presence::is_durable;
use super::queue::{Inherited, Spooled};
use super::{Event, Greeting, Output, Session};
use crate::push::account::LoginId;
use crate::xml::{Element, Kind};

/// How long after a failure the disk is read again.
const READ_AGAIN: Duration = Duration::from_secs(5);

impl Session {
    /// Becomes the owner of what ended sessions of the device have spooled. It comes before what has not been written yet.
    pub(super) fn take_over(&mut self) {
        self.queue.open_gap();
        self.track_by_ping();
        self.out(Output::TakeOver);
    }

    /// The same, unless older sessions of the device have not ended or answered.
    pub(super) fn take_over_if_settled(&mut self) {
        if !self.owner.older {
            self.take_over();
        }
    }

    /// The older sessions have ended, or stay: what they left can be taken over.
    pub(super) fn older_settled(&mut self, now: Instant) {
        if !std::mem::take(&mut self.owner.older) {
            return;
        }
        match self.greeting {
            Greeting::Sending(_) | Greeting::Done => self.take_over(),
            Greeting::Backlog | Greeting::Awaited => {}
        }
        self.refill_if_there(now);
    }

    /// A session of the device has ended and left stanzas.
    pub(super) fn inherit(&mut self) {
        match self.greeting {
            Greeting::Awaited => self.greeting = Greeting::Backlog,
            Greeting::Done | Greeting::Sending(_) => self.take_over_if_settled(),
            Greeting::Backlog => {}
        }
    }

    /// The spools that belong to the session now.
    pub(super) fn took_over(&mut self, now: Instant, spools: &[Inherited]) {
        self.queue.took_over(spools);
        self.refill_if_there(now);
        self.write_waiting(now);
    }

    fn refill_if_there(&mut self, now: Instant) {
        if !self.is_dark() && !self.is_ending() {
            self.refill(now);
        }
    }

    /// The disk cannot be read: what it has stays there, and is asked for again.
    pub(super) fn load_failed(&mut self, now: Instant) {
        self.loading = None;
        self.read_again = Some(now + READ_AGAIN);
    }

    /// The same for the spools of earlier sessions.
    pub(super) fn take_over_failed(&mut self, now: Instant) {
        self.queue.not_taken_over();
        self.retake = true;
        self.read_again = Some(now + READ_AGAIN);
    }

    /// Reads again what could not be read.
    pub(super) fn read_again(&mut self, now: Instant) {
        if self.read_again.take_if(|at| *at <= now).is_none() {
            return;
        }
        if std::mem::take(&mut self.retake) {
            self.take_over();
        }
        self.refill_if_there(now);
    }

    /// Stanzas of an earlier session were read.
    pub(super) fn loaded_earlier(&mut self, now: Instant, spool: LoginId, items: Vec<Spooled>) {
        if items.is_empty() {
            self.queue.read_all_of(spool);
        }
        for item in items {
            match self.wanted(now, &item) {
                Some(element) => {
                    self.note_had(&element);
                    self.queue.push_inherited(spool, item.seq, element, item.received);
                }
                None => {
                    self.queue.skip_inherited(spool, item.seq);
                    self.out(Output::Unspool { spool: Some(spool), places: item.seq..=item.seq });
                }
            }
        }
        self.queue.close_gap();
    }

    /// A stanza of another session, if it is not too old, and concerns more than that session.
    pub(super) fn wanted(&mut self, now: Instant, item: &Spooled) -> Option<Element> {
        let element = self.fresh(now, item)?;
        (element.kind() != Kind::Iq && is_durable(&element)).then_some(element)
    }

    /// A stanza from the spool, if it is not too old. One that is no stanza is reported.
    pub(super) fn fresh(&mut self, now: Instant, item: &Spooled) -> Option<Element> {
        let age = Duration::from_millis(self.epoch.unix_ms(now).saturating_sub(item.received));
        let in_time = age <= self.settings.stream_management.orphan_ttl;
        match Element::parse(item.bytes.clone(), &self.bare_header) {
            Ok(element) if in_time => Some(element),
            Ok(_) => {
                self.event(Event::TooOld);
                None
            }
            Err(_) => {
                self.event(Event::Unreadable);
                None
            }
        }
    }
}
