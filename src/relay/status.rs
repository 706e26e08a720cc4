//! What a session's task lets operators see of it.

use std::time::{Duration, Instant, SystemTime};

use super::jobs::unix;
use crate::config::Transport;
use crate::limits::{Bucket, Rate};
use crate::metrics::{Metrics, Tap, Unsaved};
use crate::publish::selection::Published;
use crate::push::pusher::Verdict;
use crate::registry::Handle;
use crate::session::liveness::Reach;
use crate::session::{Event, Session};

/// What is counted and noted of one session.
#[derive(Debug)]
pub(super) struct Seen {
    /// What passes through.
    pub(super) tap: Tap,
    /// When the first stanza was judged that notifies, while no notification has left.
    notifies: Option<Instant>,
    unsaved: Unsaved,
    /// Lines that the client or its peers can cause as often as they like.
    lines: Bucket,
    silent: bool,
}

/// Such lines of one session in a minute.
const LINES: usize = 30;

impl Seen {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self { tap: metrics.tap(), notifies: None, unsaved: metrics.unsaved(), lines: Bucket::default(), silent: false }
    }

    /// At the end of a wake-up: how the session is now. Returns whether its client can be reached, if that has changed.
    pub(super) fn settle(&mut self, handle: &Handle, session: &Session) -> Option<Reach> {
        self.tap.settle();
        let reach = session.reach();
        let changed = handle.set_reach(reach);
        handle.set_queued(session.queued());
        handle.note_set_aside(session.set_aside());
        let unsaved = session.unsaved();
        self.unsaved.set(unsaved.stanzas, unsaved.bytes);
        if reach == Reach::Live {
            self.notifies = None;
        }
        changed.then_some(reach)
    }

    /// What the session reports.
    pub(super) fn heard(&mut self, handle: &Handle, event: &Event) {
        if let Event::Judged(verdict) = event {
            if matches!(verdict, Verdict::Push | Verdict::Ring) {
                self.notifies.get_or_insert_with(Instant::now);
            }
            handle.note(|notes| notes.verdict = Some((verdict.name(), unix())));
        }
    }

    /// Whether an event may be logged above level debug: some can be repeated without end, and have so many lines in a minute.
    pub(super) fn may_say(&mut self, now: Instant, event: &Event) -> bool {
        let Some(rate) = Rate::per_minute(LINES).filter(|_| event.is_repeatable()) else { return true };
        // It lasts until there is room for all of them again, so that each line is not followed by one that more are left out.
        let was = self.silent;
        self.silent = if was { !self.lines.is_full(now) } else { self.lines.is_empty(now, rate) };
        if !self.silent {
            self.lines.take(now, rate, 1);
        } else if !was {
            tracing::warn!(a_minute = LINES, "too many lines of one session: more of them are at level debug only");
        }
        !self.silent
    }

    /// A notification leaves.
    pub(super) fn notified(&mut self, metrics: &Metrics) {
        if let Some(since) = self.notifies.take() {
            metrics.notified(since.elapsed());
        }
    }
}

impl Metrics {
    /// A notification has come to its outcome, after so long.
    pub(super) fn published(&self, published: &Published, took: Duration) {
        self.publish(published.transport.map_or("none", Transport::name), published.outcome.name());
        if let Some(transport) = published.transport {
            self.publish_took(transport, took);
        }
    }
}

impl Handle {
    /// A notification for the session has come to its outcome.
    pub(super) fn published(&self, published: Published) {
        self.note(|notes| notes.push = Some((published, SystemTime::now())));
    }
}
