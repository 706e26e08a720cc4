//! The reachability of the client: live, suspect (an ack is overdue), or dark (held without a connection). `ClientStream`
//! owns one [`Liveness`].

use std::time::Duration;

use super::pause::Pause;
use crate::clock::Instant;
use crate::session::settings::StreamManagement;

/// The pause before a client that acknowledges is asked again, so that a series of stanzas does not cost a question each.
/// It is well below `spool_after`.
const PACE: Duration = Duration::from_millis(40);

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Link {
    /// Connected, nothing overdue. `asked` is the time of the oldest `<r/>` without an `<a/>`.
    Live { asked: Option<Instant> },
    /// Connected, but `<r/>` had no `<a/>` for `max_ack_delay`.
    Suspect { since: Instant },
    /// No usable connection; the hold ends at `until`.
    Dark { since: Instant, until: Instant, woken: bool },
}

/// The reachability of the client, for operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// It is connected, and no acknowledgement is overdue.
    #[default]
    Live,
    /// It is connected, and an acknowledgement is overdue.
    Suspect,
    /// It is not connected; the session is held.
    Dark,
}

impl Reach {
    /// All values.
    pub const ALL: [Self; 3] = [Self::Live, Self::Suspect, Self::Dark];

    /// The metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Suspect => "suspect",
            Self::Dark => "dark",
        }
    }
}

/// The meaning of a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// The client was silent for `idle_probe`: ask it for an ack.
    Probe,
    /// The ack did not come in `max_ack_delay`: push, but keep the connection.
    Suspect,
    /// The ack did not come within another `ack_timeout`: give the connection up.
    GiveUp,
    /// The hold ends soon: wake the device.
    Wake,
    /// The session was not resumed in time.
    Expired,
}

/// The state of the link to the client. The caller passes the time.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Liveness {
    link: Link,
    last_frame: Instant,
    /// The time of the last question on this connection.
    asked: Option<Instant>,
    /// The number of questions on this connection that were not answered.
    open: u32,
    /// True while the oldest of them is not written, because other bytes are in front of it.
    waits: bool,
    /// True if acks can be requested, because the client has enabled stream management.
    probing: bool,
    /// The pause during which the client is not read.
    pause: Pause,
    #[serde(skip)]
    max_ack_delay: Duration,
    #[serde(skip)]
    ack_timeout: Duration,
    #[serde(skip)]
    idle_probe: Duration,
    #[serde(skip)]
    wake_before_expiry: Duration,
}

/// The open questions that an `<a/>` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckCoverage {
    /// All of them.
    All,
    /// The oldest one.
    Oldest,
}

impl Liveness {
    /// Creates the state of a client that has just bound.
    pub fn new(settings: &StreamManagement, now: Instant) -> Self {
        Self {
            link: Link::Live { asked: None },
            last_frame: now,
            asked: None,
            open: 0,
            waits: false,
            probing: false,
            pause: Pause::default(),
            max_ack_delay: settings.max_ack_delay,
            ack_timeout: settings.ack_timeout,
            idle_probe: settings.idle_probe,
            wake_before_expiry: settings.wake_before_expiry,
        }
    }

    /// Applies other durations from now on.
    pub fn change(&mut self, settings: &StreamManagement) {
        let Self { link, last_frame, asked, open, waits, probing, pause, .. } = *self;
        *self = Self { link, last_frame, asked, open, waits, probing, pause, ..Self::new(settings, last_frame) };
    }

    /// Stops the clocks for the client's answers while the client is not read.
    pub fn stop_clock(&mut self, now: Instant) {
        self.pause.begin(now);
    }

    /// Starts the clocks again when the client is read again.
    pub fn go_on(&mut self, now: Instant) {
        let later = self.pause.end(now);
        match &mut self.link {
            Link::Live { asked: Some(since) } | Link::Suspect { since } => *since += later(*since),
            Link::Live { asked: None } | Link::Dark { .. } => {}
        }
    }

    /// Returns whether the client is connected and not read.
    pub fn is_paused(&self) -> bool {
        self.pause.is_on() && !self.is_dark()
    }

    /// Notes that acks can be requested, because the client enabled stream management. Earlier questions are dropped.
    pub fn enable(&mut self) {
        self.probing = true;
        (self.open, self.waits) = (0, false);
        if !self.is_dark() {
            self.link = Link::Live { asked: None };
        }
    }

    /// Notes that the client sent something. Only an `<a/>` ends the suspect state.
    pub fn on_frame(&mut self, now: Instant) {
        self.last_frame = now;
    }

    /// Returns whether an `<r/>` may be sent: there is a connection, and no other `<r/>` is open.
    pub fn may_ask(&self) -> bool {
        self.probing && matches!(self.link, Link::Live { asked: None })
    }

    /// The end of the pause before the next `<r/>` that is sent only because of new stanzas.
    pub fn pause(&self) -> Option<Instant> {
        self.asked.map(|at| at + PACE)
    }

    /// Notes that an `<r/>` was sent. Returns whether the clock starts with it, because it is the only unanswered one.
    pub fn asked(&mut self, now: Instant) -> bool {
        self.asked = Some(now);
        self.open = self.open.saturating_add(1);
        let first = matches!(self.link, Link::Live { asked: None });
        if first {
            self.start(now);
        }
        first
    }

    /// Takes an `<a/>`. If it answers only the oldest question, the next question gets its full time. Returns whether the
    /// clock restarts.
    pub fn acked(&mut self, now: Instant, coverage: AckCoverage) -> bool {
        self.open = match coverage {
            AckCoverage::All => 0,
            AckCoverage::Oldest => self.open.saturating_sub(1),
        };
        if self.is_dark() {
            return false;
        }
        self.waits = false;
        self.link = Link::Live { asked: None };
        if self.open > 0 {
            self.start(now);
        }
        self.open > 0
    }

    fn start(&mut self, now: Instant) {
        (self.link, self.waits) = (Link::Live { asked: Some(now) }, false);
    }

    /// Notes that the oldest open question waits to be written.
    pub fn question_waits(&mut self) {
        self.waits = matches!(self.link, Link::Live { asked: Some(_) });
    }

    /// Starts the clock for the oldest open question, because it has been written.
    pub fn question_left(&mut self, now: Instant) {
        if std::mem::take(&mut self.waits) {
            self.start(now);
        }
    }

    /// Notes that the connection was lost. The session is held until this time.
    pub fn go_dark(&mut self, now: Instant, until: Instant) {
        self.link = Link::Dark { since: now, until, woken: false };
        (self.open, self.waits) = (0, false);
    }

    /// Changes the end of a dark client's hold.
    pub fn hold_until(&mut self, end: Instant) {
        if let Link::Dark { until, .. } = &mut self.link {
            *until = end;
        }
    }

    /// Notes that a new connection was attached.
    pub fn attach(&mut self, now: Instant) {
        self.link = Link::Live { asked: None };
        (self.asked, self.open, self.waits) = (None, 0, false);
        self.last_frame = now;
    }

    /// The reachability of the client.
    pub fn reach(&self) -> Reach {
        match self.link {
            Link::Live { .. } => Reach::Live,
            Link::Suspect { .. } => Reach::Suspect,
            Link::Dark { .. } => Reach::Dark,
        }
    }

    /// Returns whether there is no usable connection.
    pub fn is_dark(&self) -> bool {
        matches!(self.link, Link::Dark { .. })
    }

    /// Limits the hold of a dark client to end at this time.
    pub fn hold_at_most(&mut self, end: Instant) {
        if let Link::Dark { until, .. } = &mut self.link {
            *until = end.min(*until);
        }
    }

    /// The time since which stanzas cannot be expected to be read; `None` while the client is live.
    pub fn unreachable_since(&self) -> Option<Instant> {
        match self.link {
            Link::Live { .. } => None,
            Link::Suspect { since } | Link::Dark { since, .. } => Some(since),
        }
    }

    /// The time at which the next alarm is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self.link {
            Link::Live { .. } if !self.probing => None,
            Link::Live { .. } | Link::Suspect { .. } if self.is_paused() => None,
            Link::Live { asked: Some(_) } if self.waits => None,
            Link::Live { asked: None } => Some(self.last_frame + self.idle_probe),
            Link::Live { asked: Some(at) } => Some(at + self.max_ack_delay),
            Link::Suspect { since } => Some(since + self.ack_timeout),
            Link::Dark { until, woken: true, .. } => Some(until),
            Link::Dark { since, until, woken: false } => Some(self.wake_time(since, until)),
        }
    }

    fn wake_time(&self, since: Instant, until: Instant) -> Instant {
        (until - self.wake_before_expiry).max(since)
    }

    /// The alarm that is due. The suspect state begins here.
    pub fn alarm(&mut self, now: Instant) -> Option<Alarm> {
        if self.deadline().is_none_or(|at| at > now) {
            return None;
        }
        Some(match self.link {
            Link::Live { asked: None } => Alarm::Probe,
            Link::Live { asked: Some(_) } => {
                self.link = Link::Suspect { since: now };
                Alarm::Suspect
            }
            Link::Suspect { .. } => Alarm::GiveUp,
            Link::Dark { until, .. } if until <= now => Alarm::Expired,
            Link::Dark { since, until, .. } => {
                self.link = Link::Dark { since, until, woken: true };
                Alarm::Wake
            }
        })
    }
}
