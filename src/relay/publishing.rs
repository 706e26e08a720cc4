//! Publishes for sessions and accounts ([`Publishing`]), and stores the consequences of the outcomes.

use std::collections::HashSet;
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
use crate::publish::{
    Eligible, HolderNodes, Interrupted, PassedPublish, PublishPermit, Publisher, PublisherRecord, Revocation,
    ServiceStatus, TransportSettings,
};
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

    /// Permits a publish, unless publishing is interrupted. [`Publishing::interrupt`] waits until the permit is dropped.
    pub(super) fn permit(&self) -> Option<PublishPermit> {
        self.publisher.permit()
    }

    /// Returns whether publishing is interrupted.
    pub(super) fn is_interrupted(&self) -> bool {
        self.publisher.is_interrupted()
    }

    /// Interrupts publishing: see [`Publisher::interrupt`].
    pub(super) async fn interrupt(&self, deadline: Instant) -> bool {
        self.publisher.interrupt(deadline).await
    }

    /// Publishes again after an interruption.
    pub(super) fn resume(&self) {
        self.publisher.resume();
    }

    /// Returns what is known about push services, for another process.
    pub(super) fn freeze(&self) -> PublisherRecord {
        self.publisher.freeze()
    }

    /// Continues with the knowledge of another process.
    pub(super) fn thaw(&self, record: PublisherRecord) {
        self.publisher.thaw(record);
    }

    /// Publishes for an account over any eligible transport, and stores the consequences of the answer.
    ///
    /// # Errors
    /// Publishing was interrupted before the publish was written.
    pub(super) async fn publish(
        &self,
        permit: &PublishPermit,
        account: &BareJid,
        publish: Publish,
    ) -> Result<Published, Interrupted> {
        let (target, attempt) = (publish.target.clone(), publish.id);
        tracing::info!(%account, service = %target, %attempt, "push notification sent");
        let published = self.publish_counted(permit, account, publish).await?;
        let (outcome, condition) = (published.outcome.name(), published.outcome.condition());
        let transport = published.transport_name();
        tracing::info!(%account, service = %target, %attempt, transport, outcome, condition, "push notification outcome");
        self.note_outcome(account, &target, &published.outcome).await;
        Ok(published)
    }

    /// Publishes for a session. The session gets the outcome; if it has ended by then, the outcome is stored for its account. If
    /// publishing is interrupted, the session gets the publish back, or the caller does if the session has ended.
    pub(super) async fn publish_for_session(
        &self,
        permit: PublishPermit,
        session: &Handle,
        publish: Publish,
    ) -> Result<(), Interrupted> {
        let (target, id) = (publish.target.clone(), publish.id);
        let published = match self.publish_counted(&permit, session.account(), publish).await {
            Ok(published) => published,
            Err(Interrupted(publish)) => return give_back(session, publish),
        };
        let transport = published.transport_name();
        tracing::info!(service = %target, attempt = %id, transport, "push transport selected");
        note_push(session, published.clone());
        let outcome = published.outcome;
        let result = PublishResult { id, target: target.clone(), outcome: outcome.clone() };
        if session.deliver(Command::Published(Box::new(result))).is_err() {
            self.note_outcome(session.account(), &target, &outcome).await;
        }
        Ok(())
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

    /// As [`Publisher::pass_on_to`].
    pub(super) fn pass_on_to(&self, nodes: Arc<dyn HolderNodes>) {
        self.publisher.pass_on_to(nodes);
    }

    /// As [`Publisher::hold`].
    pub(super) fn hold(&self, hosts: HashSet<String>) {
        self.publisher.hold(hosts);
    }

    /// As [`Publisher::publish_passed`]. The node that asks counts the outcome.
    pub(super) async fn publish_passed(
        &self,
        permit: &PublishPermit,
        account: &BareJid,
        publish: Publish,
    ) -> PassedPublish {
        match self.accounts.may_act() {
            true => self.publisher.publish_passed(permit, account, publish).await,
            false => PassedPublish::NotSent("it has no lease".to_owned()),
        }
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

    async fn publish_counted(
        &self,
        permit: &PublishPermit,
        account: &BareJid,
        publish: Publish,
    ) -> Result<Published, Interrupted> {
        let began = Instant::now();
        let (target, attempt) = (publish.target.clone(), publish.id);
        let published = match self.accounts.may_act() {
            true => self.publisher.publish(permit, account, publish).await,
            // Another node may act in the place of this one.
            false => Err(Interrupted(Box::new(publish))),
        };
        match &published {
            Ok(published) => self.count(published, began.elapsed()),
            Err(_) => tracing::info!(%account, service = %target, %attempt, "push notification not sent: interrupted"),
        }
        published
    }

    fn count(&self, published: &Published, took: Duration) {
        self.metrics.publish(published.transport_name(), published.outcome.name());
        if let Some(transport) = published.transport {
            self.metrics.publish_took(transport, took);
        }
    }
}

/// Gives a publish back to its session, or to the caller if the session has ended.
fn give_back(session: &Handle, publish: Box<Publish>) -> Result<(), Interrupted> {
    match session.deliver(Command::Unpublished(publish)) {
        Err(Command::Unpublished(publish)) => Err(Interrupted(publish)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Records the outcome of a session's notification for operators.
fn note_push(session: &Handle, published: Published) {
    session.note(|notes| notes.push = Some((published, clock::now())));
}
