//! Publishes the status of a session for operators.

use std::time::Duration;

use super::client::Handle;
use super::report::Volume;
use crate::clock::{self, Instant};
use crate::limits::{Bucket, Rate};
use crate::metrics::{Metrics, UnsavedGauge};
use crate::push::pusher::Verdict;
use crate::session::liveness::Reach;
use crate::session::{Event, Session};

/// Tracks what operators see of one session.
#[derive(Debug)]
pub(super) struct SessionStatus {
    /// The time of the first stanza that was judged to notify, until a notification is sent.
    notifies: Option<Instant>,
    unsaved: UnsavedGauge,
    /// The rate limit for log lines that the client or its peers can cause as often as they like.
    lines: Bucket,
    silent: bool,
}

/// The limit of that bucket, in lines a minute.
const LINES: usize = 30;

impl SessionStatus {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self { notifies: None, unsaved: metrics.unsaved(), lines: Bucket::default(), silent: false }
    }

    /// Publishes the state of the session at the end of a wake-up. Returns whether its client can be reached, if that has
    /// changed.
    pub(super) fn publish(&mut self, handle: &Handle, session: &Session) -> Option<Reach> {
        let reach = session.reach();
        let changed = handle.set_reach(reach);
        let (stanzas, bytes) = session.queued();
        handle.set_queued(stanzas, bytes);
        handle.set_set_aside(session.set_aside());
        let unsaved = session.unsaved();
        self.unsaved.set(unsaved.stanzas, unsaved.bytes);
        if reach == Reach::Live {
            self.notifies = None;
        }
        changed.then_some(reach)
    }

    /// Records an event that the session reports.
    pub(super) fn on_event(&mut self, handle: &Handle, event: &Event) {
        if let Event::Judged(verdict) = event {
            if matches!(verdict, Verdict::Push | Verdict::Ring) {
                self.notifies.get_or_insert_with(Instant::now);
            }
            handle.note(|notes| notes.verdict = Some((verdict.name().into(), clock::unix_secs())));
        }
    }

    /// Returns the log volume for an event. Repeatable events share a limited number of lines a minute.
    pub(super) fn volume(&mut self, now: Instant, event: &Event) -> Volume {
        let Some(rate) = Rate::per_minute(LINES).filter(|_| event.is_repeatable()) else { return Volume::Normal };
        // The silence lasts until the bucket is full again. Otherwise each further line would be followed by another warning.
        let was = self.silent;
        self.silent = if was { !self.lines.is_full(now) } else { self.lines.is_empty(now, rate) };
        if !self.silent {
            self.lines.take(now, rate, 1);
        } else if !was {
            tracing::warn!(a_minute = LINES, "log rate of this session exceeded: further lines at level debug");
        }
        if self.silent { Volume::Debug } else { Volume::Normal }
    }

    /// Records that a notification is sent. Returns the time since the first stanza that was judged to notify, if this is the
    /// first notification for it.
    pub(super) fn on_publish(&mut self) -> Option<Duration> {
        self.notifies.take().map(|since| since.elapsed())
    }
}
