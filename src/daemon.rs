//! Binds, spawns, handles signals and drains.

mod listeners;
mod reload;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use thiserror::Error;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{Admin, AdminError, Doors};
use crate::config::{Config, ListenTls};
use crate::relay::Relay;
use crate::relay::snapshot::{LoadError, Snapshot};
use crate::service::{self, Notify, PassedError, Sockets};
use crate::store::{Store, StoreError};
pub use listeners::ListenError;
use listeners::Listeners;
use reload::Reloads;
pub use reload::{Outcome, Reloader};

/// Why the daemon does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// What the configuration names cannot be loaded.
    #[error("{}", .0.iter().map(LoadError::to_string).collect::<Vec<_>>().join("; "))]
    Load(Vec<LoadError>),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operator has no way in.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The service manager passed sockets that cannot be used.
    #[error(transparent)]
    Passed(#[from] PassedError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// A running Pushward.
pub struct Daemon {
    addresses: Vec<(ListenTls, SocketAddr)>,
    accepting: CancellationToken,
    connections: TaskTracker,
    relay: Arc<Relay>,
    store: Store,
    admin: Admin,
    reloader: Reloader,
}

impl Daemon {
    /// Loads certificates, opens the store, binds and begins to accept.
    ///
    /// # Errors
    /// [`StartError`] with the reason and, where there is one, the remedy.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let snapshot = Snapshot::load(config, rand::random()).map_err(StartError::Load)?;
        let config = snapshot.config.clone();
        let store = Store::open_with(&config.state, (&config.limits).into())?;
        let (accepting, shutdown, connections) =
            (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let relay = Arc::new(Relay::new(snapshot, store.clone(), shutdown.clone()));
        relay.recover().await;
        let mut listeners = Listeners::new(Arc::clone(&relay), accepting.clone(), connections.clone());
        let doors = Doors::bind(&config.admin).await?;
        let mut passed = Sockets::passed()?;
        let plan = listeners.plan(&config.listen, &mut passed)?;
        passed.finish()?;
        relay.configured();
        let (upkeep, stop) = (Arc::clone(&relay), accepting.clone());
        connections.spawn(async move { stop.run_until_cancelled(upkeep.upkeep()).await });
        listeners.apply(plan);
        let addresses = listeners.addresses();
        let (reloads, reloader) = Reloads::new(Arc::clone(&relay), listeners);
        let stop = accepting.clone();
        connections.spawn(async move { stop.run_until_cancelled(reloads.run()).await });
        let admin = doors.open(Arc::clone(&relay), reloader.clone());
        Ok(Self { addresses, accepting, connections, relay, store, admin, reloader })
    }

    /// Where it listened as it started, in the order of the configuration; ports that the system chose are real here.
    pub fn addresses(&self) -> &[(ListenTls, SocketAddr)] {
        &self.addresses
    }

    /// How a reload is asked for.
    pub fn reloader(&self) -> &Reloader {
        &self.reloader
    }

    /// Accepts no more, ends all sessions in order, and waits for them for at most `drain_timeout`.
    pub async fn stop(self) {
        self.accepting.cancel();
        self.relay.drain();
        self.connections.close();
        let drain = async {
            self.connections.wait().await;
            self.relay.finished().await;
        };
        if tokio::time::timeout(self.relay.current().config.drain_timeout, drain).await.is_err() {
            tracing::warn!(left = self.connections.len(), "drain_timeout is over: connections are cut off");
        }
        self.admin.stop().await;
        self.store.shutdown().await;
        tracing::info!("stopped");
    }
}

/// Runs until SIGTERM or SIGINT, then drains; reloads at SIGHUP.
pub async fn run(config: Config) -> ExitCode {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
        tracing::error!("cannot listen for signals");
        return ExitCode::FAILURE;
    };
    service::descriptors::raise(&config);
    let (notify, drain_timeout) = (Notify, config.drain_timeout);
    let daemon = match Daemon::start(config).await {
        Ok(daemon) => daemon,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    notify.ready();
    let watchdog = tokio::spawn(notify.watch(Arc::clone(&daemon.relay)));
    let signal = loop {
        select! {
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            _ = hangup.recv() => daemon.reloader().ask(),
        }
    };
    tracing::info!(signal, "draining");
    notify.stopping(drain_timeout);
    daemon.stop().await;
    watchdog.abort();
    ExitCode::SUCCESS
}
