//! The state that all connections of a daemon share.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio_util::sync::CancellationToken;

use super::absent::{AbsentDependencies, AbsentDevices};
use super::accounts::Accounts;
use super::background::Background;
use super::certificates::CertificateCheck;
use super::client::Registry;
use super::overload::Overload;
use super::publishing::Publishing;
use super::reachability;
use super::report::Reports;
use super::snapshot::{Current, Snapshot};
use super::upstream_warnings::UpstreamWarnings;
use crate::clock;
use crate::jid::BareJid;
use crate::limits::Guards;
use crate::metrics::{Metrics, StoreMetrics};
use crate::publish::{Publisher, Standing};
use crate::push::account::{Account, Change};
use crate::push::notification::Publish;
use crate::push::registration::Target;
use crate::registry::{Published, Sessions};
use crate::session::Settings;
use crate::store::{Store, StoreError};
use crate::sync::lock;
use crate::xml::HeaderCache;

/// The state that all connections of a daemon share. It connects the components, each of which owns its part.
pub struct Relay {
    current: Arc<Current>,
    registry: Arc<Registry>,
    store: Store,
    metrics: Arc<Metrics>,
    guards: Arc<Guards>,
    shutdown: CancellationToken,
    background: Background,
    accounts: Arc<Accounts>,
    publishing: Arc<Publishing>,
    absent: Arc<AbsentDevices>,
    certificates: CertificateCheck,
    overload: Overload,
    reports: Reports,
    warnings: UpstreamWarnings,
    /// Namespace contexts that sessions share.
    headers: Mutex<HeaderCache>,
}

impl Relay {
    /// A relay whose sessions drain when `shutdown` is cancelled. Inside a runtime.
    pub fn new(snapshot: Snapshot, store: Store, shutdown: CancellationToken) -> Self {
        let transports = Arc::clone(&snapshot.transports);
        let current = Arc::new(Current::from_pointee(snapshot));
        let registry = Arc::new(Registry::default());
        let config = &current.load().config;
        let hosts = config.hosts.iter().map(|host| host.domain.as_str());
        let metrics = Arc::new(Metrics::with(
            StoreMetrics { commits: store.commit_time().clone(), lost: store.lost().clone() },
            hosts,
        ));
        let guards = Arc::new(Guards::new(&config.limits, &metrics));
        store.set_patience(config.store.patience);
        let background = Background::default();
        let accounts = Arc::new(Accounts::new(store.clone(), Arc::clone(&registry), Arc::clone(&metrics)));
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
            certificates: CertificateCheck::new(Arc::clone(&current), Arc::clone(&metrics)),
            overload: Overload::new(Arc::clone(&guards), Arc::clone(&registry), background.clone()),
            reports: Reports::new(Arc::clone(&metrics), Arc::clone(&guards)),
            warnings: UpstreamWarnings::default(),
            headers: Mutex::default(),
            current,
            registry,
            store,
            metrics,
            guards,
            shutdown,
            background,
            accounts,
            publishing,
            absent,
        }
    }

    /// Returns the namespace contexts that sessions share. Do not hold them across a wait.
    pub(super) fn headers(&self) -> MutexGuard<'_, HeaderCache> {
        lock(&self.headers)
    }

    // The configuration

    /// Returns what is configured and loaded now.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Puts another configuration into force: for connections that come, publishes, and the rules of sessions that run.
    /// Streams to push services and servers under the one before finish what they have.
    pub fn switch(&self, snapshot: Snapshot) {
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

    /// The configuration has come into force.
    pub fn configured(&self) {
        self.metrics.configured(clock::unix_secs());
        self.certificates.on_loaded();
    }

    /// Returns the settings of sessions that are in force.
    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.current.load().settings)
    }

    // The end

    /// Lets all sessions know that the daemon ends, which [`Relay::is_draining`] returns from now on.
    pub fn drain(&self) {
        self.shutdown.cancel();
        self.notify_all();
    }

    /// Returns whether sessions are asked to end, and none begins.
    pub fn is_draining(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// Waits until the last bytes of ended sessions are written.
    pub async fn finished(&self) {
        self.background.finished().await;
        self.publishing.finished().await;
    }

    pub(super) fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    fn notify_all(&self) {
        self.registry.all().iter().for_each(|session| session.notify());
    }

    // What the daemon and the operator ask for

    /// Publishes for an account by whatever transport is fit, and stores what follows from the answer.
    pub async fn publish(&self, account: &BareJid, publish: Publish) -> Published {
        self.publishing.publish(account, publish).await
    }

    /// How things are with the push service of a registration.
    pub fn standing(&self, account: &BareJid, target: &Target) -> Standing {
        self.publishing.standing(account, target)
    }

    /// Changes an account, and publishes it to its sessions.
    ///
    /// # Errors
    /// As [`Store::change`].
    pub async fn change_account(&self, account: &BareJid, change: Change) -> Result<(), StoreError> {
        self.accounts.change(account, change).await
    }

    /// Ends the held sessions of an account and returns how many there were, once all that they had is on disk.
    pub async fn end_held(&self, account: &BareJid) -> usize {
        self.accounts.end_held(account).await
    }

    /// Writes again what the sessions of a forgotten account need to go on, and returns how many there are.
    /// `before`: what was kept about the account.
    ///
    /// # Errors
    /// As [`Store::change`].
    pub async fn remember_live(&self, account: &BareJid, before: &Account) -> Result<usize, StoreError> {
        self.accounts.remember_live(account, before).await
    }

    /// Returns whether the server of any host takes connections, TLS included where it is used.
    pub async fn reaches_a_server(&self) -> bool {
        reachability::reaches_a_server(&self.current()).await
    }

    // The components

    /// The sessions.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The limits for peers.
    pub fn guards(&self) -> &Guards {
        &self.guards
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
        &self.certificates
    }

    pub(super) fn overload(&self) -> &Overload {
        &self.overload
    }

    pub(super) fn reports(&self) -> &Reports {
        &self.reports
    }

    pub(super) fn warnings(&self) -> &UpstreamWarnings {
        &self.warnings
    }

    /// The settings of new tasks of components.
    pub(super) fn shared_current(&self) -> Arc<Current> {
        Arc::clone(&self.current)
    }
}
