//! Reports of sessions, in the log and in the metrics, under the same names.

use std::collections::HashSet;
use std::sync::Arc;

use crate::jid;
use crate::limits::{ConnectionRefusal, Guards, Limit};
use crate::metrics::{Metrics, Wait};
use crate::session::negotiate::SaslFailure;
use crate::session::queue::Full;
use crate::session::{Event, Reported, ShedCounts};
use crate::store::StoreError;
use crate::xml::{Frame, Skipped, excerpt};

/// The maximum length of a stanza's id in a log line, in characters.
const ID: usize = 128;

/// The remedy for a connection to a domain that is not served.
const ADD_HOST: &str = "add a [[host]] with this domain, or remove the DNS records that lead its clients here";

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

    /// Logs that this node cannot become the owner of an account, so that the client's connection is closed.
    pub(super) fn on_not_claimed(&self, error: &StoreError) {
        if let Some(suppressed) = self.guards.watch().refused(ConnectionRefusal::NotClaimed) {
            tracing::warn!(%error, suppressed, "account not claimed: client connection closed");
        }
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
                "stanza skipped: upstream server sent a stanza that cannot be relayed"
            );
        }
    }

    /// Logs that a client's stream is for a domain that is not among those that are served.
    pub(super) fn on_client_frame(&self, frame: &Frame, served: &HashSet<String>) {
        let Frame::Open(header) = frame else { return };
        let Some(to) = header.to() else { return };
        if jid::domain(to).is_some_and(|domain| served.contains(&domain)) {
            return;
        }
        if let Some(suppressed) = self.guards.watch().refused(ConnectionRefusal::HostUnknown) {
            tracing::warn!(
                domain = excerpt(to),
                remedy = ADD_HOST,
                suppressed,
                "connection refused: no [[host]] has this domain"
            );
        }
    }

    /// Logs and counts a login that the server refused.
    pub(super) fn on_sasl_failure(&self, failure: &SaslFailure) {
        self.metrics.sasl_failure();
        if let Some(suppressed) = self.guards.watch().refused(ConnectionRefusal::LoginFailed) {
            let SaslFailure { host, mechanism, condition } = failure;
            tracing::info!(host, mechanism, condition, suppressed, "login failed: upstream server refused it");
        }
    }

    /// Logs and counts an event that a session reports.
    pub(super) fn on_event(&self, event: &Event, volume: Volume) {
        let loud = volume == Volume::Normal;
        match event {
            Event::Dark { queued, registrations } => {
                tracing::info!(queued, registrations, "session hibernated (dark)");
            }
            Event::Suspect => tracing::info!("acknowledgement overdue (suspect)"),
            Event::Resumed { replayed } => tracing::info!(replayed, "session resumed"),
            Event::PushEnabled(target) if loud => tracing::info!(service = %target, "push enabled"),
            Event::PushEnabled(target) => tracing::debug!(service = %target, "push enabled"),
            Event::PushDisabled if loud => tracing::info!("push disabled"),
            Event::PushDisabled => tracing::debug!("push disabled"),
            Event::PushRevoked(target) if loud => tracing::info!(service = %target, "push registration revoked"),
            Event::PushRevoked(target) => tracing::debug!(service = %target, "push registration revoked"),
            Event::Judged(verdict) => {
                tracing::debug!(verdict = verdict.name(), "push verdict");
                self.metrics.verdict(verdict.name());
            }
            Event::Published(attempt, target) => {
                tracing::info!(service = %target, %attempt, "push notification sent");
            }
            Event::PublishOutcome(attempt, target, outcome) => {
                let (outcome, condition) = (outcome.name(), outcome.condition());
                tracing::info!(service = %target, %attempt, outcome, condition, "push notification outcome");
            }
            Event::SpoolRefuses => {
                tracing::warn!("spool failed: session continues, its stanzas stay in memory");
                self.metrics.spool_failed();
            }
            Event::SpoolAccepts => tracing::info!("spool recovered: stanzas are stored again"),
            Event::SpoolLate => {
                tracing::warn!("database late: session ended without its pending answers");
                self.metrics.deadline_passed(Wait::Store);
            }
            Event::Shed(ShedCounts { returned, lost }) => {
                if loud {
                    tracing::warn!(returned, lost, "stanzas shed: no room in spool or memory");
                }
                self.metrics.shed(*returned, *lost);
            }
            Event::Unreadable => {
                tracing::error!("unreadable stanza on disk: lost and deleted");
                self.metrics.lost(1);
            }
            Event::ServerSilent => self.guards.watch().reached(Limit::ServerTimeout, "a session"),
            Event::QueueFull(full) => self.guards.watch().reached(limit(*full), "waiting stanzas"),
            Event::Kept(messages) => {
                tracing::info!(messages, "messages remembered: upstream connection lost, server may send them again");
            }
            Event::Redelivered => {
                tracing::debug!("redelivered message dropped: server sent it a second time");
                self.metrics.redelivered();
            }
            Event::TooOld => {
                tracing::warn!("stanza never fetched: deleted after orphan_ttl");
                self.metrics.never_fetched(1);
            }
            Event::Suspected(_) | Event::SetAside(_) | Event::GivenBack(_) => self.report_guard(event),
            Event::Lingering => tracing::info!("session lingers: client closed its stream, push continues"),
        }
    }

    /// Logs and counts an event of the poison guard.
    fn report_guard(&self, event: &Event) {
        if let Event::Suspected(Reported { name, id, len }) = event {
            tracing::debug!(name, id, bytes = len, "stanza suspected: client ended within 5 s after it was written");
        }
        if let Event::SetAside(Reported { name, id, len }) = event {
            tracing::warn!(
                name,
                id,
                bytes = len,
                "stanza set aside: client breaks on it, device does not receive it again"
            );
            self.metrics.set_aside();
        }
        if let Event::GivenBack(stanzas) = event {
            tracing::warn!(stanzas, "stanzas given back: client also breaks without them");
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
