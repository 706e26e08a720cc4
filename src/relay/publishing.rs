//! Publishes for sessions and accounts ([`Publishing`]), and stores the consequences of the outcomes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::accounts::Accounts;
use super::client::{Command, Handle};
use super::snapshot::Current;
use crate::clock::{self, Instant};
use crate::config::Transport;
use crate::jid::BareJid;
use crate::metrics::Metrics;
use crate::publish::{Eligible, Publisher, Revocation, ServiceStatus, TransportSettings};
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::push::registration::Target;
use crate::registry::Published;
use crate::session::PublishResult;

/// Publishes, counts the outcomes and stores their consequences.
pub(super) struct Publishing {
    publisher: Publisher,
    accounts: Arc<Accounts>,
    current: Arc<Current>,
    metrics: Arc<Metrics>,
}

impl Publishing {
    pub(super) fn new(
        publisher: Publisher,
        accounts: Arc<Accounts>,
        current: Arc<Current>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { publisher, accounts, current, metrics }
    }

    /// Publishes for an account over any eligible transport, and stores the consequences of the answer.
    pub(super) async fn publish(&self, account: &BareJid, publish: Publish) -> Published {
        let (target, attempt) = (publish.target.clone(), publish.id);
        tracing::info!(%account, service = %target, %attempt, "push notification sent");
        let published = self.publish_counted(account, publish).await;
        let (outcome, condition) = (published.outcome.name(), published.outcome.condition());
        let transport = published.transport_name();
        tracing::info!(%account, service = %target, %attempt, transport, outcome, condition, "push notification outcome");
        self.note_outcome(account, &target, &published.outcome).await;
        published
    }

    /// Publishes for a session. The session gets the outcome; if it has ended by then, the outcome is stored for its account.
    pub(super) async fn publish_for_session(self: Arc<Self>, session: Arc<Handle>, publish: Publish) {
        let (target, id) = (publish.target.clone(), publish.id);
        let published = self.publish_counted(session.account(), publish).await;
        let transport = published.transport_name();
        tracing::info!(service = %target, attempt = %id, transport, "push transport selected");
        note_push(&session, published.clone());
        let outcome = published.outcome;
        let result = PublishResult { id, target: target.clone(), outcome: outcome.clone() };
        if session.deliver(Command::Published(Box::new(result))).is_err() {
            self.note_outcome(session.account(), &target, &outcome).await;
        }
    }

    /// Records and counts the outcome of a publish that a session sent over its own stream. `since`: the time of the request.
    pub(super) fn on_published_by_session(&self, session: &Handle, target: &Target, since: Instant, outcome: &Outcome) {
        let published = Published { transport: Some(Transport::Session), outcome: outcome.clone() };
        self.count(&published, since.elapsed());
        note_push(session, published.clone());
        self.publisher.on_published(target, published);
    }

    /// Returns the transports that are currently eligible for a publish of an account.
    pub(super) fn eligible(&self, account: &BareJid, target: &Target) -> Eligible {
        self.publisher.eligible(account, target)
    }

    /// Returns whether a transport can publish for an account that has no session.
    pub(super) fn needs_no_session(&self, account: &BareJid, target: &Target) -> bool {
        self.publisher.needs_no_session(account, target)
    }

    /// Returns the state of the push service of a registration.
    pub(super) fn service_status(&self, account: &BareJid, target: &Target) -> ServiceStatus {
        self.publisher.service_status(account, target)
    }

    /// Returns the channel of affiliations that push services send. `None` if it was taken before.
    pub(super) fn revocations(&self) -> Option<mpsc::Receiver<Revocation>> {
        self.publisher.revocations()
    }

    /// Replaces the settings of the transports.
    pub(super) fn reload(&self, settings: Arc<TransportSettings>) {
        self.publisher.reload(settings);
    }

    /// Waits until all streams are closed.
    pub(super) async fn finished(&self) {
        self.publisher.finished().await;
    }

    /// Stores the consequences of an outcome.
    pub(super) async fn note_outcome(&self, account: &BareJid, target: &Target, outcome: &Outcome) {
        let max_errors = self.current.load().config.push.settings.max_errors;
        if let Some(change) = outcome.change(target, max_errors, clock::unix_secs())
            && let Err(error) = self.accounts.change(account, change).await
        {
            self.accounts.log_not_stored(&error);
        }
    }

    async fn publish_counted(&self, account: &BareJid, publish: Publish) -> Published {
        let began = Instant::now();
        let published = self.publisher.publish(account, publish).await;
        self.count(&published, began.elapsed());
        published
    }

    fn count(&self, published: &Published, took: Duration) {
        self.metrics.publish(published.transport_name(), published.outcome.name());
        if let Some(transport) = published.transport {
            self.metrics.publish_took(transport, took);
        }
    }
}

/// Records the outcome of a session's notification for operators.
fn note_push(session: &Handle, published: Published) {
    session.note(|notes| notes.push = Some((published, clock::now())));
}
