//! Two sessions of one device: the older one gives way to the newer, or both stay.
//!
//! A fresh bind or a registration may show that two sessions are one device. The older gives way at once if its client is not
//! there or has the same full JID; else its client is asked. If it answers, it is a second living copy of the installation, and
//! both sessions stay until the older one loses its client.

use std::time::{Duration, Instant};

use super::{EndReason, Output, Session};
use crate::xml;

/// How long a client that is asked whether it is there may take to send anything.
const ANSWER: Duration = Duration::from_secs(2);

/// The newest other session of the device, or of the full JID, that logged in behind this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successor {
    /// Whether it has the same full JID.
    pub same_address: bool,
}

/// What is known of a newer session of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Succession {
    /// There is none.
    #[default]
    Newest,
    /// There is one, and the client has until then to show that it is there as well.
    Asked(Instant),
    /// There is one, and the client is there as well.
    Both,
}

impl Succession {
    pub(super) fn deadline(self) -> Option<Instant> {
        if let Self::Asked(at) = self { Some(at) } else { None }
    }
}

impl Session {
    /// A session of the device has logged in behind this one; `None`: there is none any more.
    pub(super) fn on_successor(&mut self, now: Instant, successor: Option<Successor>) {
        let Some(Successor { same_address }) = successor else {
            self.succession = Succession::Newest;
            return;
        };
        if self.is_ending() {
            return;
        }
        if self.is_dark() || same_address {
            return self.be_superseded(now);
        }
        self.succession = Succession::Asked(now + ANSWER);
        self.ask_presence_of_client(now);
    }

    /// Older sessions turned out to be of the same device: what they have is waited for.
    pub fn expect_older(&mut self) {
        self.owner.older = true;
    }

    /// Whether a newer session of the device exists.
    pub(super) fn has_successor(&self) -> bool {
        self.succession != Succession::Newest
    }

    /// The client has sent something: it is there.
    pub(super) fn on_sign_of_life(&mut self) {
        if let Succession::Asked(_) = self.succession {
            self.succession = Succession::Both;
            self.out(Output::Answered);
        }
    }

    /// Ends in favour of the newer session; a client that is still connected is told why (RFC 6120 §4.9.3.3).
    pub(super) fn be_superseded(&mut self, now: Instant) {
        if !self.is_dark() {
            self.write_client(xml::stream_error("conflict", None, None));
        }
        self.begin_end(now, EndReason::Superseded);
    }

    /// When the client counts as silent; never while it is not read.
    pub(super) fn succession_deadline(&self) -> Option<Instant> {
        self.succession.deadline().filter(|_| !self.liveness.is_paused())
    }

    /// The client is read again: its time to answer begins anew.
    pub(super) fn succession_goes_on(&mut self, now: Instant) {
        if let Succession::Asked(at) = &mut self.succession {
            *at = now + ANSWER;
        }
    }

    pub(super) fn succession_timeout(&mut self, now: Instant) {
        if self.succession_deadline().is_some_and(|at| at <= now) {
            self.be_superseded(now);
        }
    }

    /// Another session of the device has its client, or has it no more: nothing is pushed while it has.
    pub(super) fn on_device_live(&mut self, now: Instant, live: bool) {
        let was_live = std::mem::replace(&mut self.live_elsewhere, live);
        if was_live && !live {
            self.push_due(now);
        }
    }
}
