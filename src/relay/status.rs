//! Publishes the status of a session for operators.

use std::time::{Duration, Instant};

use super::client::Handle;
use super::report::Volume;
use crate::clock;
use crate::limits::{Bucket, Rate};
use crate::metrics::{Metrics, UnsavedGauge};
use crate::push::pusher::Verdict;
use crate::session::liveness::Reach;
use crate::session::{Event, Session};

/// Counts and notes what operators see of one session.
#[derive(Debug)]
pub(super) struct SessionStatus {
    /// When the first stanza was judged that notifies, while no notification has left.
    notifies: Option<Instant>,
    unsaved: UnsavedGauge,
    /// Lines that the client or its peers can cause as often as they like.
    lines: Bucket,
    silent: bool,
}

/// Such lines of one session in a minute.
const LINES: usize = 30;

impl SessionStatus {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self { notifies: None, unsaved: metrics.unsaved(), lines: Bucket::default(), silent: false }
    }

    /// At the end of a wake-up: how the session is now. Returns whether its client can be reached, if that has changed.
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

    /// Takes note of what the session reports.
    pub(super) fn on_event(&mut self, handle: &Handle, event: &Event) {
        if let Event::Judged(verdict) = event {
            if matches!(verdict, Verdict::Push | Verdict::Ring) {
                self.notifies.get_or_insert_with(Instant::now);
            }
            handle.note(|notes| notes.verdict = Some((verdict.name(), clock::unix_secs())));
        }
    }

    /// Returns how loud an event is logged: those that can be repeated without end have so many lines in a minute.
    pub(super) fn volume(&mut self, now: Instant, event: &Event) -> Volume {
        let Some(rate) = Rate::per_minute(LINES).filter(|_| event.is_repeatable()) else { return Volume::Normal };
        // It lasts until there is room for all of them again, so that each line is not followed by one that more are left out.
        let was = self.silent;
        self.silent = if was { !self.lines.is_full(now) } else { self.lines.is_empty(now, rate) };
        if !self.silent {
            self.lines.take(now, rate, 1);
        } else if !was {
            tracing::warn!(a_minute = LINES, "log rate of this session exceeded: further lines at level debug");
        }
        if self.silent { Volume::Debug } else { Volume::Normal }
    }

    /// A notification leaves. Returns how long it took, if it is the first since a stanza was judged that notifies.
    pub(super) fn on_publish(&mut self) -> Option<Duration> {
        self.notifies.take().map(|since| since.elapsed())
    }
}
