//! What sessions report goes to the log and into the metrics, under the same names.

use super::Relay;
use crate::limits::Limit;
use crate::session::queue::Full;
use crate::session::{Event, Shed};

impl Relay {
    /// Logs and counts what a session reports.
    pub(super) fn report(&self, event: &Event) {
        match event {
            Event::Dark { queued, registrations } => {
                tracing::info!(queued, registrations, "dark: the session is held");
            }
            Event::Suspect => tracing::info!("suspect: an ack is overdue"),
            Event::Resumed { replayed } => tracing::info!(replayed, "resumed"),
            Event::PushEnabled(target) => tracing::info!(service = %target, "push enabled"),
            Event::PushDisabled => tracing::info!("push disabled"),
            Event::PushRevoked(target) => tracing::info!(service = %target, "push revoked by its service"),
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
            Event::Shed(Shed { returned, lost }) => {
                tracing::warn!(returned, lost, "shed: no room for stanzas that the spool refuses");
                self.metrics.shed(*returned, *lost);
            }
            Event::Unreadable => {
                tracing::error!("a stanza on disk cannot be read: it is lost and deleted");
                self.metrics.lost(1);
            }
            Event::QueueFull(full) => {
                let limit = match full {
                    Full::Session => Limit::SessionQueue,
                    Full::All => Limit::QueueMemory,
                };
                self.guards.watch().reached(limit, "what waits for a client");
            }
            Event::Kept(messages) => {
                tracing::info!(
                    messages,
                    "kept: the server's connection broke with messages that it may send a second time"
                );
            }
            Event::Redelivered => {
                tracing::debug!("redelivered: a message that was kept came a second time");
                self.metrics.redelivered();
            }
            Event::TooOld => {
                tracing::warn!("never_fetched: a stanza has waited longer than orphan_ttl and is deleted");
                self.metrics.never_fetched(1);
            }
            Event::Lingering => tracing::info!("lingering: the client closed its stream, its pushes go on"),
        }
    }
}
