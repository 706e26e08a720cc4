//! [`Publisher`]: publishes over the eligible transports, one after the other.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::component;
use super::error::UnsentReason;
use super::holders::{ComponentHolders, HolderNodes, PassedPublish};
use super::interruption::{Interrupted, PublishPermit, UnderWay};
use super::peer::StreamTimeouts;
use super::s2s::pool::{self, Pool, PoolEnvironment, PoolRecord, Revocation};
use super::selection::{Attempt, ServiceStatus, TransportSelection};
use super::session;
use super::settings::{CurrentSettings, TransportSettings};
use super::stream::{self, PublishQueue, StreamTask};
use crate::clock::{self, Instant};
use crate::config::Transport;
use crate::jid::BareJid;
use crate::metrics::Fates;
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::push::registration::Target;
use crate::registry::{Published, Sessions};
use crate::sync::lock;

/// The time that a transport has to become ready for a publish.
const READY: Duration = Duration::from_secs(5);
/// The limit for waiting affiliations. Further ones are dropped and counted.
const REVOCATIONS: usize = 256;

/// The transports that are eligible for one publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eligible {
    /// None: the operator does not allow this push service (`services`).
    Nothing,
    /// Only the user's own session.
    OwnSession,
    /// More than one.
    Several,
}

/// The knowledge about push services, for another process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PublisherRecord {
    selection: TransportSelection,
    pool: PoolRecord,
}

/// Publishes over any eligible transport.
pub struct Publisher {
    current: Arc<CurrentSettings>,
    sessions: Arc<dyn Sessions>,
    selection: Mutex<TransportSelection>,
    /// The queue of each host's component.
    components: DashMap<String, PublishQueue>,
    holders: ComponentHolders,
    pool: Pool,
    /// The channel of affiliations that push services send, until it is taken.
    revocations: Mutex<Option<mpsc::Receiver<Revocation>>>,
    tasks: TaskTracker,
    under_way: Arc<UnderWay>,
    shutdown: CancellationToken,
}

impl Publisher {
    /// Creates a publisher that ends its streams when `shutdown` is cancelled. Must be called inside a runtime.
    pub fn new(
        settings: Arc<TransportSettings>,
        sessions: Arc<dyn Sessions>,
        fates: Fates,
        shutdown: &CancellationToken,
    ) -> Self {
        let is_node = settings.config.cluster.is_some();
        let (current, tasks) = (Arc::new(CurrentSettings::new(settings)), TaskTracker::new());
        let under_way = Arc::<UnderWay>::default();
        let (sender, receiver) = mpsc::channel(REVOCATIONS);
        let pool = Pool::new(
            Arc::clone(&current),
            PoolEnvironment {
                sessions: Arc::clone(&sessions),
                revocations: sender,
                fates,
                under_way: Arc::clone(&under_way),
                shutdown,
                tasks: &tasks,
            },
        );
        let publisher = Self {
            current,
            sessions,
            selection: Mutex::default(),
            components: DashMap::new(),
            holders: if is_node { ComponentHolders::of_node() } else { ComponentHolders::default() },
            pool,
            revocations: Mutex::new(Some(receiver)),
            tasks,
            under_way,
            shutdown: shutdown.clone(),
        };
        publisher.connect_components();
        publisher
    }

    /// Replaces the settings. Streams under the old settings finish their pending publishes. New streams use the new ones.
    pub fn reload(&self, settings: Arc<TransportSettings>) {
        let before = self.current.swap(settings);
        let now = self.current.load_full();
        *lock(&self.selection) = TransportSelection::default();
        self.pool.replace_streams();
        self.components.retain(|domain, _| now.component(domain) == before.component(domain));
        self.connect_components();
    }

    /// Passes publishes for components that this node does not hold on to these nodes.
    pub fn pass_on_to(&self, nodes: Arc<dyn HolderNodes>) {
        self.holders.set_nodes(nodes);
    }

    /// Connects the components of these hosts, which this node holds, and ends the streams of all others.
    pub fn hold(&self, hosts: HashSet<String>) {
        if self.holders.set_held(hosts) {
            // A task ends once its queue is dropped and its publishes are answered.
            self.components.retain(|host, _| self.holders.is_held(host));
            self.connect_components();
        }
    }

    /// Publishes over the component of the account's host, which another node has passed on.
    pub async fn publish_passed(&self, permit: &PublishPermit, account: &BareJid, publish: Publish) -> PassedPublish {
        if !self.holders.is_held(account.domain()) {
            return PassedPublish::NotSent("it does not hold it any more".to_owned());
        }
        match self.attempt(Transport::Component, permit, account, publish).await {
            Attempt::Done(outcome) => PassedPublish::Sent(outcome),
            Attempt::Skipped(reason) => PassedPublish::NotSent(reason.to_string()),
        }
    }

    /// Returns the channel of affiliations that push services send, for the task that checks and stores them. `None` if it
    /// was taken before.
    pub fn revocations(&self) -> Option<mpsc::Receiver<Revocation>> {
        lock(&self.revocations).take()
    }

    /// Connects the components that are not connected yet.
    fn connect_components(&self) {
        let settings = self.current.load_full();
        let config = &settings.config;
        for domain in config.hosts.iter().map(|host| &host.domain) {
            let Some(component) = settings.component(domain).filter(|_| !self.components.contains_key(domain)) else {
                continue;
            };
            if !self.holders.is_held(domain) {
                continue;
            }
            let (queue, jobs) = stream::queue();
            let span = tracing::info_span!("component", domain = %component.domain);
            let peer = component::ComponentPort::new(Arc::clone(config), domain.clone(), component.clone());
            let timeouts =
                StreamTimeouts { answer: config.push.publish_timeout, write: config.stream_management.write_timeout };
            let interruption = self.under_way.interruption();
            let task =
                StreamTask { peer: Arc::new(peer), jobs, timeouts, interruption, shutdown: self.shutdown.clone() };
            self.tasks.spawn(task.run().instrument(span));
            self.components.insert(domain.clone(), queue);
        }
    }

    /// Permits a publish, unless publishing is interrupted.
    pub fn permit(&self) -> Option<PublishPermit> {
        self.under_way.permit()
    }

    /// Returns whether publishing is interrupted.
    pub fn is_interrupted(&self) -> bool {
        self.under_way.interruption().has_begun()
    }

    /// Begins no more publishes, and ends all streams. A publish that was not written returns [`Interrupted`]. The outcome of one
    /// that was written and is not answered until `deadline` is unknown. Returns whether all permits are dropped, so that
    /// nothing is under way.
    pub async fn interrupt(&self, deadline: Instant) -> bool {
        self.under_way.interrupt(deadline, &self.tasks).await
    }

    /// Publishes again, if publishing is interrupted. Streams are connected again.
    pub fn resume(&self) {
        if !self.is_interrupted() {
            return;
        }
        self.under_way.resume();
        self.pool.replace_streams();
        self.components.clear();
        self.connect_components();
    }

    /// Returns what is known about push services, for another process.
    pub fn freeze(&self) -> PublisherRecord {
        PublisherRecord { selection: lock(&self.selection).clone(), pool: self.pool.freeze() }
    }

    /// Continues with the knowledge of another process.
    pub fn thaw(&self, record: PublisherRecord) {
        *lock(&self.selection) = record.selection;
        self.pool.thaw(record.pool);
    }

    /// Waits until all streams are closed.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Returns the transports that are currently eligible for a publish of an account.
    pub fn eligible(&self, account: &BareJid, target: &Target) -> Eligible {
        let settings = self.current.load();
        if !settings.config.push.allows(&target.service) {
            return Eligible::Nothing;
        }
        if settings.config.push.transports == [Transport::Session] {
            return Eligible::OwnSession;
        }
        match self.fit(account, target).as_slice() {
            [Transport::Session] => Eligible::OwnSession,
            _ => Eligible::Several,
        }
    }

    /// Returns whether a transport can publish for an account that has no session.
    pub fn needs_no_session(&self, account: &BareJid, target: &Target) -> bool {
        self.current.load().config.push.allows(&target.service)
            && self.fit(account, target).iter().any(|transport| *transport != Transport::Session)
    }

    /// Publishes for an account. A publish that was written is not written again, unless it was refused because of its
    /// sender.
    ///
    /// # Errors
    /// Publishing was interrupted before the publish was written.
    pub async fn publish(
        &self,
        permit: &PublishPermit,
        account: &BareJid,
        publish: Publish,
    ) -> Result<Published, Interrupted> {
        if !self.current.load().config.push.allows(&publish.target.service) {
            return Ok(Published { transport: None, outcome: Outcome::Refused("not-allowed".to_owned()) });
        }
        let target = publish.target.clone();
        let published = self.try_all(permit, account, publish).await?;
        self.on_published(&target, published.clone());
        Ok(published)
    }

    /// Records the outcome of a publish, over the user's own session or any other transport.
    pub fn on_published(&self, target: &Target, published: Published) {
        let domain = target.service.domain();
        lock(&self.selection).on_end(Instant::now(), domain, published, clock::now());
    }

    /// Returns the state of the push service of a registration, as far as this process has seen it.
    pub fn service_status(&self, account: &BareJid, target: &Target) -> ServiceStatus {
        let allowed = self.current.load().config.push.allows(&target.service);
        let fit = if allowed { self.fit(account, target) } else { Vec::new() };
        let domain = target.service.domain();
        let (now, time) = (Instant::now(), clock::now());
        let one_way = self.pool.one_way_until(domain).filter(|_| fit.contains(&Transport::S2s));
        let one_way_until = one_way.map(|until| time + until.duration_since(now));
        let service_status = lock(&self.selection).service_status(now, domain, &fit);
        ServiceStatus { one_way_until, ..service_status }
    }

    async fn try_all(
        &self,
        permit: &PublishPermit,
        account: &BareJid,
        publish: Publish,
    ) -> Result<Published, Interrupted> {
        let service = publish.target.service.domain().to_owned();
        let fit = self.fit(account, &publish.target);
        let mut trial = lock(&self.selection).trial(Instant::now(), &service, fit);
        while let Some(transport) = trial.next_transport() {
            if permit.interruption.has_begun() {
                return Err(Interrupted(Box::new(publish)));
            }
            let attempt = self.attempt(transport, permit, account, publish.clone()).await;
            if permit.interruption.has_begun() && matches!(attempt, Attempt::Skipped(_)) {
                return Err(Interrupted(Box::new(publish)));
            }
            let reason = match &attempt {
                Attempt::Skipped(reason) => reason.to_string(),
                Attempt::Done(outcome) => format!("{outcome:?}"),
            };
            match trial.tried(transport, attempt) {
                Some(published) => {
                    lock(&self.selection).on_success(Instant::now(), &service, transport, &trial);
                    return Ok(published);
                }
                None => self.log_passed_over(&service, transport, &reason),
            }
        }
        Ok(trial.end())
    }

    /// Logs why a transport was passed over. The line is above level debug only if the reason is new.
    fn log_passed_over(&self, service: &str, transport: Transport, reason: &str) {
        let transport_name = transport.name();
        let is_news = lock(&self.selection).is_news(Instant::now(), service, transport, reason);
        if is_news {
            tracing::warn!(%service, transport = transport_name, %reason, "push transport skipped");
        } else {
            tracing::debug!(%service, transport = transport_name, %reason, "push transport skipped");
        }
    }

    async fn attempt(
        &self,
        transport: Transport,
        permit: &PublishPermit,
        account: &BareJid,
        publish: Publish,
    ) -> Attempt {
        let interruption = &permit.interruption;
        match transport {
            Transport::S2s => stream::submit(account, publish, READY, interruption, |job| self.pool.enqueue(job)).await,
            Transport::Component => match self.components.get(account.domain()).map(|queue| queue.clone()) {
                Some(queue) => {
                    stream::submit(account, publish, READY, interruption, |job| stream::enqueue(&queue, job)).await
                }
                None if self.holders.is_held(account.domain()) => Attempt::Skipped(UnsentReason::NoComponent),
                None => self.holders.pass_on(account, &publish).await,
            },
            Transport::Session => {
                let patience = self.current.load().config.push.publish_timeout + session::GRACE;
                session::publish_on_stream(&*self.sessions, account, publish, patience, interruption).await
            }
        }
    }

    /// Returns the eligible transports, in the configured order.
    fn fit(&self, account: &BareJid, target: &Target) -> Vec<Transport> {
        let host = account.domain();
        let config = &self.current.load().config;
        let is_fit = |transport: &Transport| match transport {
            Transport::S2s => pool::is_fit(config, &target.service),
            Transport::Component => component::is_fit(config, host, &target.service),
            Transport::Session => true,
        };
        config.push.transports.iter().copied().filter(is_fit).collect()
    }
}

#[cfg(test)]
mod tests;
