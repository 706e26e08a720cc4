//! Reports of sessions, in the log and in the metrics, under the same names.

use std::sync::Arc;

use crate::limits::{ConnectionRefusal, Guards, Limit};
use crate::metrics::{Metrics, Wait};
use crate::session::queue::Full;
use crate::session::{Event, Reported, Shed};
use crate::xml::{Frame, Skipped};

/// The maximum length of a stanza's id in a log line, in characters.
const ID: usize = 128;

/// The log volume for events that a session can repeat without end: normal, or at level debug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Volume {
    Normal,
    Debug,
}

/// Logs and counts the reports of sessions.
pub(super) struct Reports {
    metrics: Arc<Metrics>,
    guards: Arc<Guards>,
}

impl Reports {
    pub(super) fn new(metrics: Arc<Metrics>, guards: Arc<Guards>) -> Self {
        Self { metrics, guards }
    }

    /// Logs and counts a stanza of the server that is not passed on.
    pub(super) fn on_frame(&self, frame: &Frame) {
        let Frame::Skipped(skipped) = frame else { return };
        let Skipped { element, name, bytes, reason } = &**skipped;
        self.metrics.skipped(*reason);
        if let Some(suppressed) = self.guards.watch().refused(ConnectionRefusal::Skipped) {
            let id = element.node().attr("id").map(|id| id.chars().take(ID).collect::<String>());
            let reason = reason.name();
            tracing::warn!(
                name,
                id,
                bytes,
                reason,
                suppressed,
                "stanza_skipped: the server's stanza was not passed on"
            );
        }
    }

    /// Logs and counts an event that a session reports.
    pub(super) fn on_event(&self, event: &Event, volume: Volume) {
        let loud = volume == Volume::Normal;
        match event {
            Event::Dark { queued, registrations } => {
                tracing::info!(queued, registrations, "dark: the session is held");
            }
            Event::Suspect => tracing::info!("suspect: an ack is overdue"),
            Event::Resumed { replayed } => tracing::info!(replayed, "resumed"),
            Event::PushEnabled(target) if loud => tracing::info!(service = %target, "push enabled"),
            Event::PushEnabled(target) => tracing::debug!(service = %target, "push enabled"),
            Event::PushDisabled if loud => tracing::info!("push disabled"),
            Event::PushDisabled => tracing::debug!("push disabled"),
            Event::PushRevoked(target) if loud => tracing::info!(service = %target, "push revoked by its service"),
            Event::PushRevoked(target) => tracing::debug!(service = %target, "push revoked by its service"),
            Event::Judged(verdict) => {
                tracing::debug!(verdict = verdict.name(), "judged");
                self.metrics.verdict(verdict.name());
            }
            Event::Published(target) => tracing::info!(service = %target, "published"),
            Event::PublishOutcome(target, outcome) => {
                tracing::info!(service = %target, ?outcome, "publish outcome")
            }
            Event::SpoolRefuses => {
                tracing::warn!("spool_failed: the session goes on, its stanzas stay in memory");
                self.metrics.spool_failed();
            }
            Event::SpoolAccepts => tracing::info!("spool_accepts: the spool takes stanzas again"),
            Event::SpoolLate => {
                tracing::warn!("the store is late: the session ends without what it has not answered");
                self.metrics.deadline_passed(Wait::Store);
            }
            Event::Shed(Shed { returned, lost }) => {
                if loud {
                    tracing::warn!(returned, lost, "shed: the spool has not taken these stanzas");
                }
                self.metrics.shed(*returned, *lost);
            }
            Event::Unreadable => {
                tracing::error!("a stanza on disk cannot be read: it is lost and deleted");
                self.metrics.lost(1);
            }
            Event::ServerSilent => self.guards.watch().reached(Limit::ServerTimeout, "a session"),
            Event::QueueFull(full) => self.guards.watch().reached(limit(*full), "what waits for a client"),
            Event::Kept(messages) => {
                tracing::info!(messages, "kept: the server's connection broke, and it may send them a second time");
            }
            Event::Redelivered => {
                tracing::debug!("redelivered: a message that was kept came a second time");
                self.metrics.redelivered();
            }
            Event::TooOld => {
                tracing::warn!("never_fetched: a stanza has waited longer than orphan_ttl and is deleted");
                self.metrics.never_fetched(1);
            }
            Event::Suspected(_) | Event::SetAside(_) | Event::GivenBack(_) => self.report_guard(event),
            Event::Lingering => tracing::info!("lingering: the client closed its stream, its pushes go on"),
        }
    }

    /// Logs and counts an event of the poison guard.
    fn report_guard(&self, event: &Event) {
        if let Event::Suspected(Reported { name, id, len }) = event {
            tracing::debug!(
                name,
                id,
                bytes = len,
                "stanza_suspected: the client ended within 5 s after it was written"
            );
        }
        if let Event::SetAside(Reported { name, id, len }) = event {
            tracing::warn!(
                name,
                id,
                bytes = len,
                "set_aside: the client breaks on a stanza, which the device gets no more"
            );
            self.metrics.set_aside();
        }
        if let Event::GivenBack(stanzas) = event {
            tracing::warn!(stanzas, "given_back: the client also breaks without the stanzas that were set aside");
            self.metrics.given_back(*stanzas as u64);
        }
    }
}

fn limit(full: Full) -> Limit {
    match full {
        Full::Session => Limit::SessionQueue,
        Full::All => Limit::QueueMemory,
    }
}
