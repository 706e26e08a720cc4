//! [`Relay`]: the state that all connections of a daemon share.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio_util::sync::CancellationToken;

use super::absent::{AbsentDependencies, AbsentDevices};
use super::accounts::Accounts;
use super::background::Background;
use super::certificates::CertificateCheck;
use super::client::Registry;
use super::fast::ClientTokens;
use super::frozen::SessionHandover;
use super::handover::{RelayRecord, RelayRecordError};
use super::node_end::NodeEnd;
use super::node_requests::NodeRequests;
use super::overload::Overload;
use super::publishing::Publishing;
use super::reachability;
use super::report::Reports;
use super::snapshot::{Current, Snapshot};
use super::upstream_warnings::UpstreamWarnings;
use crate::clock::{self, Instant};
use crate::cluster::directory::Directory;
use crate::jid::BareJid;
use crate::limits::Guards;
use crate::metrics::{Metrics, StoreMetrics};
use crate::publish::{Publisher, ServiceStatus};
use crate::push::account::{Account, Change};
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::push::registration::Target;
use crate::registry::{Published, Sessions};
use crate::session::Settings;
use crate::store::{Store, StoreError};
use crate::sync::lock;
use crate::xml::HeaderCache;

/// The state that all connections of a daemon share. It connects the components. Each component owns its own state.
pub struct Relay {
    current: Arc<Current>,
    registry: Arc<Registry>,
    store: Store,
    metrics: Arc<Metrics>,
    guards: Arc<Guards>,
    ending: ProcessEnd,
    background: Background,
    accounts: Arc<Accounts>,
    publishing: Arc<Publishing>,
    absent: Arc<AbsentDevices>,
    /// The other nodes of the cluster, if there is one.
    nodes: Option<NodeRequests>,
    overload: Overload,
    reports: Reports,
    warnings: OperatorWarnings,
    /// Namespace contexts that sessions share.
    headers: Mutex<HeaderCache>,
}

/// Warnings for the operator.
struct OperatorWarnings {
    certificates: CertificateCheck,
    upstream: UpstreamWarnings,
}

/// The end of all sessions of the process.
struct ProcessEnd {
    /// Cancelled when the daemon drains.
    drain: CancellationToken,
    /// The sessions that another process goes on with.
    handover: SessionHandover,
    /// The end of this node's sessions for the sake of other nodes.
    node: NodeEnd,
}

impl Relay {
    /// Creates a relay whose sessions drain when `shutdown` is cancelled. Must be called inside a runtime.
    pub fn new(snapshot: Snapshot, store: Store, shutdown: CancellationToken) -> Self {
        let transports = Arc::clone(&snapshot.transports);
        let current = Arc::new(Current::from_pointee(snapshot));
        let registry = Arc::new(Registry::default());
        let config = &current.load().config;
        let hosts = config.hosts.iter().map(|host| host.domain.as_str());
        let metrics = Arc::new(Metrics::with(
            StoreMetrics { commits: store.commit_time().clone(), lost: store.lost().clone() },
            config.cluster.as_ref().map(|cluster| cluster.node),
            hosts,
        ));
        let guards = Arc::new(Guards::new(&config.limits, &metrics));
        store.set_patience(config.store.patience);
        let background = Background::default();
        let (tokens_current, tokens_registry) = (Arc::clone(&current), Arc::clone(&registry));
        let tokens = ClientTokens::new(store.clone(), tokens_registry, tokens_current, background.clone());
        let accounts =
            Arc::new(Accounts::new(store.clone(), Arc::clone(&registry), Arc::new(tokens), Arc::clone(&metrics)));
        let sessions: Arc<dyn Sessions> = Arc::clone(&registry) as _;
        let publisher = Publisher::new(transports, sessions, metrics.fates(), &shutdown);
        let publishing =
            Arc::new(Publishing::new(publisher, Arc::clone(&accounts), Arc::clone(&current), Arc::clone(&metrics)));
        let absent = Arc::new(AbsentDevices::new(AbsentDependencies {
            current: Arc::clone(&current),
            store: store.clone(),
            publishing: Arc::clone(&publishing),
            metrics: Arc::clone(&metrics),
            background: background.clone(),
            shutdown: shutdown.clone(),
        }));
        Self {
            nodes: None,
            overload: Overload::new(Arc::clone(&guards), Arc::clone(&registry), background.clone()),
            reports: Reports::new(Arc::clone(&metrics), Arc::clone(&guards)),
            warnings: OperatorWarnings {
                certificates: CertificateCheck::new(Arc::clone(&current), Arc::clone(&metrics)),
                upstream: UpstreamWarnings::default(),
            },
            headers: Mutex::default(),
            current,
            registry,
            store,
            metrics,
            guards,
            ending: ProcessEnd { drain: shutdown, handover: SessionHandover::default(), node: NodeEnd::default() },
            background,
            accounts,
            publishing,
            absent,
        }
    }

    /// Lets accounts belong to other nodes too: those that this directory names.
    #[must_use]
    pub fn in_cluster(self, directory: Directory) -> Self {
        let nodes = NodeRequests::new(Arc::clone(&self.current), directory);
        Self { nodes: Some(nodes), ..self }
    }

    /// Locks the namespace contexts that sessions share. Do not hold the guard across a wait.
    pub(super) fn headers(&self) -> MutexGuard<'_, HeaderCache> {
        lock(&self.headers)
    }

    // The configuration

    /// Returns the configuration and loaded files that are in force.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Puts another configuration into force: for new connections, for publishes, and for the rules of running sessions.
    /// Streams to push services and servers under the old configuration finish their pending requests.
    pub fn switch(&self, mut snapshot: Snapshot) {
        snapshot.go_on_from(&self.current());
        let transports = Arc::clone(&snapshot.transports);
        self.current.store(Arc::new(snapshot));
        self.store.set_limits((&self.current.load().config.limits.spools).into());
        self.store.set_patience(self.current.load().config.store.patience);
        let now = self.current();
        self.guards.update(&now.config.limits);
        now.config.hosts.iter().for_each(|host| self.metrics.serve_host(&host.domain));
        self.publishing.reload(transports);
        self.configured();
        self.notify_all();
    }

    /// Records that the configuration has come into force.
    pub fn configured(&self) {
        self.metrics.configured(clock::unix_secs());
        self.certificates().on_loaded();
    }

    /// Returns the session settings that are in force.
    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.current.load().settings)
    }

    // Shutdown

    /// Notifies all sessions that the daemon is shutting down. [`Relay::is_draining`] returns true from now on.
    pub fn drain(&self) {
        self.ending.drain.cancel();
        self.notify_all();
    }

    /// As [`Relay::drain`], for a node in whose place another one acts: nothing can be stored, and clients are disconnected
    /// without a footer, so that they connect again at once.
    pub fn fence(&self) {
        self.ending.node.fence();
        self.drain();
    }

    /// Returns the end of this node's sessions for the sake of other nodes.
    pub fn node_end(&self) -> &NodeEnd {
        &self.ending.node
    }

    /// Returns the handover of the sessions to another process.
    pub fn handover(&self) -> &SessionHandover {
        &self.ending.handover
    }

    /// Returns whether the daemon is draining: sessions are asked to end, and no new session begins.
    pub fn is_draining(&self) -> bool {
        self.ending.drain.is_cancelled()
    }

    /// Waits until the last bytes of ended sessions are written.
    pub async fn finished(&self) {
        self.background.finished().await;
        self.publishing.finished().await;
    }

    pub(super) fn shutdown(&self) -> &CancellationToken {
        &self.ending.drain
    }

    // Handover

    /// Interrupts publishing: begins no more publishes, and gives those back that were not written. The outcome of a publish that
    /// was written and is not answered until `deadline` is unknown. Sessions and tasks keep what is given back or becomes due.
    /// Returns whether all publishes under way have their results, with their consequences submitted to the store; if not, the
    /// store was too slow.
    pub async fn interrupt_publishing(&self, deadline: Instant) -> bool {
        self.publishing.interrupt(deadline).await
    }

    /// Publishes again after [`Relay::interrupt_publishing`], beginning with what was kept.
    pub fn resume_publishing(&self) {
        self.publishing.resume();
        self.absent.resume();
        self.notify_all();
    }

    /// Returns the state beside the sessions, for another process. Publishing must be interrupted and the sessions frozen. The
    /// relay can go on after [`Relay::resume_publishing`].
    pub async fn freeze_rest(&self) -> RelayRecord {
        let mut record = RelayRecord::new(&self.current());
        record.absent = self.absent.freeze().await;
        record.wake_retries = self.absent.wake_retries().freeze();
        record.failed_logins = self.guards.logins().freeze(Instant::now());
        record.publisher = self.publishing.freeze();
        record.memories = self.accounts.memories().freeze();
        record.refused_tokens = self.accounts.tokens().freeze();
        record
    }

    /// Continues with the state of another process. Must run before the first session begins.
    ///
    /// # Errors
    /// The state belongs to another seed. Nothing of it is used then.
    pub fn thaw_rest(&self, mut record: RelayRecord) -> Result<(), RelayRecordError> {
        if record.seed() != self.settings().seed {
            return Err(RelayRecordError::OtherSeed);
        }
        record.thaw_fronting(&self.current());
        self.absent.thaw(record.absent);
        self.absent.wake_retries().thaw(record.wake_retries);
        self.guards.logins().thaw(record.failed_logins);
        self.publishing.thaw(record.publisher);
        self.accounts.memories().thaw(record.memories);
        self.accounts.tokens().thaw(record.refused_tokens);
        Ok(())
    }

    /// Asks all sessions to freeze, and cancels logins. The tasks of the connections end; those of sessions that can be handed
    /// over leave them for [`SessionHandover::take`].
    pub fn freeze(&self) {
        self.handover().begin();
        self.notify_all();
    }

    fn notify_all(&self) {
        self.registry.all().iter().for_each(|session| session.notify());
    }

    // Requests of the daemon and the operator

    /// Publishes for an account over any eligible transport, and stores the consequences of the answer. While publishing is
    /// interrupted, the publish is not sent and has no consequences.
    pub async fn publish(&self, account: &BareJid, publish: Publish) -> Published {
        let not_sent = Published { transport: None, outcome: Outcome::NotSent };
        let Some(permit) = self.publishing.permit() else { return not_sent };
        self.publishing.publish(&permit, account, publish).await.unwrap_or(not_sent)
    }

    /// Returns the state of the push service of a registration.
    pub fn service_status(&self, account: &BareJid, target: &Target) -> ServiceStatus {
        self.publishing.service_status(account, target)
    }

    /// Changes an account, and publishes it to its sessions.
    ///
    /// # Errors
    /// As [`Store::change`].
    pub async fn change_account(&self, account: &BareJid, change: Change) -> Result<(), StoreError> {
        self.accounts.change(account, change).await
    }

    /// Ends all tokens of an account's clients. They are not valid any more when this returns.
    pub fn revoke_tokens(&self, account: &BareJid) {
        // A change that the disk refuses is repeated with the next one.
        drop(self.accounts.tokens().revoke(account));
    }

    /// Ends the held sessions of an account. Returns their number, once all of their data is on disk.
    pub async fn end_held(&self, account: &BareJid) -> usize {
        self.accounts.end_held(account).await
    }

    /// Stores again the devices of an account's sessions after the account was deleted. Returns the number of sessions.
    /// `before`: the account before it was deleted.
    ///
    /// # Errors
    /// As [`Store::change`].
    pub async fn remember_live(&self, account: &BareJid, before: &Account) -> Result<usize, StoreError> {
        self.accounts.remember_live(account, before).await
    }

    /// Returns whether the server of any host accepts connections, including TLS if it is configured.
    pub async fn reaches_a_server(&self) -> bool {
        reachability::reaches_a_server(&self.current()).await
    }

    // Components

    /// Returns the registry of sessions.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Returns the store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns the limits for peers.
    pub fn guards(&self) -> &Guards {
        &self.guards
    }

    pub(super) fn directory(&self) -> Option<&Directory> {
        self.nodes.as_ref().map(NodeRequests::directory)
    }

    /// Returns the requests between this node and others, if there is a cluster.
    pub fn node_requests(&self) -> Option<&NodeRequests> {
        self.nodes.as_ref()
    }

    pub(super) fn background(&self) -> &Background {
        &self.background
    }

    pub(super) fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    pub(super) fn publishing(&self) -> &Arc<Publishing> {
        &self.publishing
    }

    pub(super) fn absent(&self) -> &Arc<AbsentDevices> {
        &self.absent
    }

    pub(super) fn certificates(&self) -> &CertificateCheck {
        &self.warnings.certificates
    }

    pub(super) fn overload(&self) -> &Overload {
        &self.overload
    }

    pub(super) fn reports(&self) -> &Reports {
        &self.reports
    }

    pub(super) fn warnings(&self) -> &UpstreamWarnings {
        &self.warnings.upstream
    }

    /// Returns the shared current snapshot, for new tasks of components.
    pub(super) fn shared_current(&self) -> Arc<Current> {
        Arc::clone(&self.current)
    }
}
