//! [`Daemon`]: starts the components, handles signals and drains. `pushward run` calls [`run`](run::run).

mod cause;
pub(crate) mod database;
mod fenced;
mod file_id;
mod hand_over;
mod legacy;
mod listeners;
mod node_drain;
mod operator;
mod place;
pub mod preflight;
mod previous;
mod reload;
mod requests;
pub mod run;
mod signals;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::directory::{Directory, epoch_of};
use crate::cluster::fingerprint::Fingerprint;
use crate::config::{Config, ListenTls};
use crate::exit;
use crate::relay::Relay;
use crate::relay::snapshot::{LoadError, Snapshot, load_node_tls};
use crate::secret::Secret;
use crate::service::PassedError;
use crate::session::SmIdOrigin;
use crate::store::{Store, StoreError};
pub use database::{DatabaseError, DatabaseTlsError};
use file_id::FileId;
pub use listeners::ListenError;
use listeners::{ListenerSockets, Listeners, NodeListener, Plan};
pub use node_drain::NodeDrain;
pub use operator::{Controls, OperatorInterface, Serving};
use previous::Previous;
use reload::Reloads;
pub use reload::{ReloadReport, Reloader};
pub use requests::ProcessHandle;
use requests::{ProcessRequest, requests};
pub use signals::DaemonSignals;

/// The minimum time that the store has at shutdown to write accepted data, even if the sessions have used all of
/// `drain_timeout`.
const LAST_WRITES: Duration = Duration::from_secs(5);
/// The time that the operator's connections have to close. None of them waits for anything.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The reason why the daemon does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A file or value that the configuration names cannot be loaded.
    #[error("{}", .0.iter().map(LoadError::to_string).collect::<Vec<_>>().join("; "))]
    Load(Vec<LoadError>),
    /// The database cannot be opened.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The operator's interface cannot be opened.
    #[error("{0}")]
    Operator(Box<dyn std::error::Error + Send + Sync>),
    /// The service manager passed sockets that cannot be used.
    #[error(transparent)]
    Passed(#[from] PassedError),
    /// The daemon cannot listen on an address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The listeners of the previous process cannot be used.
    #[error("cannot use the listeners of the previous process: {0}")]
    Descriptors(io::Error),
}

impl StartError {
    /// Returns [`exit::CONFIG`] if the configuration or a file that it names has to be corrected first, else 1.
    fn exit(&self) -> ExitCode {
        match self {
            Self::Load(errors) if errors.iter().any(LoadError::is_of_configuration) => ExitCode::from(exit::CONFIG),
            Self::Load(_)
            | Self::Database(_)
            | Self::Operator(_)
            | Self::Passed(_)
            | Self::Listen(_)
            | Self::Descriptors(_) => ExitCode::FAILURE,
        }
    }
}

impl StartError {
    /// Returns whether another attempt would fail in the same way, until the operator does something.
    fn is_final(&self) -> bool {
        match self {
            Self::Database(DatabaseError::Store(error)) => {
                matches!(error, StoreError::NodeInUse { .. } | StoreError::NewerSchema { .. } | StoreError::Moved)
            }
            Self::Database(DatabaseError::Tls(_)) | Self::Listen(_) | Self::Operator(_) | Self::Descriptors(_) => false,
            Self::Load(_) | Self::Passed(_) => true,
        }
    }
}

/// The settings of a start.
enum StartSettings {
    /// A configuration. The files that it names are loaded.
    Loaded(Box<Config>),
    /// Those of a daemon in this process that has stopped. Nothing is loaded again.
    InForce(Box<Snapshot>),
}

impl StartSettings {
    fn config(&self) -> &Config {
        match self {
            Self::Loaded(config) => config,
            Self::InForce(snapshot) => &snapshot.config,
        }
    }

    /// Returns the certificate that this node shows to others, if there is a cluster.
    fn node_certificate(&self) -> Result<Option<Fingerprint>, StartError> {
        let tls = match self {
            Self::Loaded(config) => load_node_tls(config).map_err(|error| StartError::Load(vec![error.into()]))?,
            Self::InForce(snapshot) => snapshot.node_tls.clone(),
        };
        Ok(tls.map(|tls| tls.fingerprint()))
    }

    fn load(self, resource_key: Secret<u128>) -> Result<Snapshot, StartError> {
        match self {
            Self::Loaded(config) => Snapshot::load(*config, rand::random(), resource_key).map_err(StartError::Load),
            Self::InForce(snapshot) => Ok(*snapshot),
        }
    }
}

/// A running daemon.
pub struct Daemon {
    addresses: Vec<(ListenTls, SocketAddr)>,
    accepting: CancellationToken,
    connections: TaskTracker,
    relay: Arc<Relay>,
    store: Store,
    operator: Serving,
    controls: Controls,
    requests: mpsc::Receiver<ProcessRequest>,
    sockets: ListenerSockets,
    /// The state directory, which the paths of later configurations must lead to.
    state: Option<FileId>,
}

impl Daemon {
    /// Loads certificates, opens the store, binds the listeners and begins to accept connections.
    ///
    /// # Errors
    /// Returns [`StartError`] with the reason and, if there is one, the remedy.
    pub async fn start<I: OperatorInterface>(config: Config) -> Result<Self, StartError> {
        Self::start_after::<I>(StartSettings::Loaded(Box::new(config)), &mut Previous::none()).await
    }

    /// Starts, and goes on with what a previous process has left. If the start fails, that is still there.
    async fn start_after<I: OperatorInterface>(
        settings: StartSettings,
        previous: &mut Previous,
    ) -> Result<Self, StartError> {
        let config = settings.config();
        let store = database::open(config, settings.node_certificate()?, previous.has_sessions()).await?;
        let state = FileId::of(&config.state);
        let mut snapshot = settings.load(store.resource_key())?;
        let config = snapshot.config.clone();
        let interface = I::bind(&config.admin).await.map_err(|error| StartError::Operator(Box::new(error)))?;
        let wanted: &[_] = if previous.drain().is_some() { &[] } else { &config.listen };
        let mut passed = previous.listeners().map_err(StartError::Descriptors)?;
        let plan = Plan::first(wanted, &mut passed)?;
        let cluster = config.cluster.as_ref().filter(|_| previous.drain().is_none());
        let for_nodes = cluster.map(|cluster| NodeListener::bind(cluster.listen, &mut passed)).transpose()?;
        passed.finish()?;
        // Nothing can fail from here on.
        let opened = previous.open(store.handover());
        if let Some(seed) = opened.seed() {
            snapshot.set_seed(seed);
        }
        let (accepting, shutdown, connections) =
            (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let relay = Relay::new(snapshot, store.clone(), shutdown.clone());
        let relay = Arc::new(in_cluster(relay, &config, &store));
        let mut listeners = Listeners::new(Arc::clone(&relay), accepting.clone(), connections.clone());
        let taken_up = opened.take_up(&relay).await;
        previous.forget().await;
        relay.configured();
        let (upkeep, stop) = (Arc::clone(&relay), accepting.clone());
        connections.spawn(async move { stop.run_until_cancelled(upkeep.upkeep()).await });
        listeners.apply(plan);
        if let Some(for_nodes) = for_nodes {
            listeners.listen_for_nodes(for_nodes);
        }
        taken_up.go_on(&relay, &connections);
        let (addresses, sockets) = (listeners.addresses(), listeners.sockets());
        let (reloads, reloader) = Reloads::new(Arc::clone(&relay), listeners);
        let stop = accepting.clone();
        connections.spawn(async move { stop.run_until_cancelled(reloads.run()).await });
        let (process, requests) = requests();
        let (place, stop) = (place::watch(Arc::clone(&relay), process.clone()), accepting.clone());
        connections.spawn(async move { stop.run_until_cancelled(place).await });
        let node = NodeDrain::new(Arc::clone(&relay), reloader.clone(), connections.clone(), accepting.clone());
        let controls = Controls { reloader, process, node };
        let operator = interface.serve(Arc::clone(&relay), controls.clone());
        Ok(Self { addresses, accepting, connections, relay, store, operator, controls, requests, sockets, state })
    }

    /// Returns the listening addresses at the start, in the order of the configuration. If the system chose a port, it is the
    /// real port.
    pub fn addresses(&self) -> &[(ListenTls, SocketAddr)] {
        &self.addresses
    }

    /// Returns the address of the operator's page, if it is on.
    pub fn page(&self) -> Option<SocketAddr> {
        self.operator.page
    }

    /// Returns the handle for requesting reloads.
    pub fn reloader(&self) -> &Reloader {
        &self.controls.reloader
    }

    /// Stops accepting connections, ends all sessions in order, and waits for them and the store for at most `drain_timeout`.
    /// The store has at least five seconds.
    pub async fn stop(self) {
        let deadline = Instant::now() + self.relay.current().config.drain_timeout;
        self.accepting.cancel();
        // The last copies: nobody serves a connection that the kernel would complete.
        self.sockets.close();
        self.relay.drain();
        self.connections.close();
        let drain = async {
            self.connections.wait().await;
            self.relay.finished().await;
        };
        if timeout_at(deadline, drain).await.is_err() {
            tracing::warn!(left = self.connections.len(), "drain_timeout expired: closing remaining connections");
        }
        if timeout(LAST_ANSWERS, self.operator.stop()).await.is_err() {
            tracing::warn!(within = ?LAST_ANSWERS, "closing remaining admin connections");
        }
        let deadline = deadline.max(Instant::now() + LAST_WRITES);
        if timeout_at(deadline, self.store.shutdown()).await.is_err() {
            let (changes, sessions) = (self.store.unanswered(), self.relay.registry().all().len());
            let reason = "database does not answer";
            tracing::error!(changes, sessions, reason, "stopped: some changes were not written");
            return;
        }
        tracing::info!("stopped");
    }
}

/// Makes a relay one of a node of a cluster, if there is one.
fn in_cluster(relay: Relay, config: &Config, store: &Store) -> Relay {
    let Some(cluster) = &config.cluster else { return relay };
    if let Some(epoch) = store.lease().and_then(|lease| lease.epoch()) {
        relay.current().settings.sm_ids.set(SmIdOrigin::new(cluster.node, epoch_of(epoch)));
    }
    relay.in_cluster(Directory::new(store.clone(), cluster.node))
}
