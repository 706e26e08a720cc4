//! Binds, spawns, handles signals and drains.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{Admin, AdminError, Doors};
use crate::config::{Config, Limits, Listen, ListenTls};
use crate::net::Legs;
use crate::net::certificate::{self, CertificateError};
use crate::net::listener::{self, Gate};
use crate::net::roots::RootsError;
use crate::net::tls::{Certificates, TlsError};
use crate::net::trust::TrustError;
use crate::net::upstream::Ways;
use crate::relay::Relay;
use crate::service::{self, Notify, PassedError, Sockets};
use crate::store::{SpoolLimits, Store, StoreError};

/// Connections that the kernel may complete before they are accepted.
const BACKLOG: u32 = 1024;

/// Why the daemon does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A certificate cannot be used, or made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The authorities of a `[[push.route]]` cannot be used.
    #[error("[[push.route]] ca: {0}")]
    Roots(#[from] RootsError),
    /// The server of a host cannot be trusted.
    #[error("upstream_ca: {0}")]
    Trust(#[from] TrustError),
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
    #[error("cannot listen on {address}: {source}{}", remedy(source))]
    Listen {
        /// `[[listen]] address`
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::AddrInUse {
        "; is the XMPP server itself still there? Move it, or change [[listen]] address"
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "; ports below 1024 need CAP_NET_BIND_SERVICE"
    } else {
        ""
    }
}

/// A running Pushward.
pub struct Daemon {
    addresses: Vec<(ListenTls, SocketAddr)>,
    accepting: CancellationToken,
    shutdown: CancellationToken,
    connections: TaskTracker,
    relay: Arc<Relay>,
    store: Store,
    admin: Option<Admin>,
    drain_timeout: Duration,
}

impl Daemon {
    /// Loads certificates, opens the store, binds and begins to accept.
    ///
    /// # Errors
    /// [`StartError`] with the reason and, where there is one, the remedy.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        for host in &config.hosts {
            if certificate::ensure_development(host)? {
                let (domain, path) = (&host.domain, host.certificate.display());
                tracing::warn!(%domain, %path, "made a self-signed development certificate: no client trusts it by itself");
            }
        }
        let legs = Legs { certificates: Certificates::load(&config.hosts)?, ways: Ways::load(&config.hosts)? };
        let Limits { spool_per_session, spool, .. } = config.limits;
        let limits = SpoolLimits { per_session: spool_per_session as u64, all: spool as u64 };
        let store = Store::open_with(&config.state, limits)?;
        let config = Arc::new(config);
        let (accepting, shutdown) = (CancellationToken::new(), CancellationToken::new());
        let relay = Arc::new(Relay::new(Arc::clone(&config), legs, store.clone(), shutdown.clone())?);
        let mut daemon = Self {
            addresses: Vec::new(),
            accepting,
            shutdown,
            connections: TaskTracker::new(),
            relay,
            store,
            admin: None,
            drain_timeout: config.drain_timeout,
        };
        daemon.relay.recover().await;
        let (relay, accepting) = (Arc::clone(&daemon.relay), daemon.accepting.clone());
        daemon.connections.spawn(async move { accepting.run_until_cancelled(relay.upkeep()).await });
        let gate = Gate::new(&config.limits);
        let doors = Doors::bind(&config.admin).await?;
        let mut passed = Sockets::passed()?;
        let listeners = config.listen.iter().map(|listen| bind(listen, &mut passed)).collect::<Result<Vec<_>, _>>()?;
        passed.finish()?;
        for (listen, listener) in config.listen.iter().zip(listeners) {
            daemon.listen(listen, listener, gate.clone())?;
        }
        daemon.admin = Some(doors.open(Arc::clone(&daemon.relay)));
        Ok(daemon)
    }

    fn listen(&mut self, listen: &Listen, listener: TcpListener, gate: Gate) -> Result<(), StartError> {
        let address = listener.local_addr().map_err(|source| StartError::Listen { address: listen.address, source })?;
        let tls = listen.tls;
        let kind = match tls {
            ListenTls::Starttls => "starttls",
            ListenTls::Direct => "direct",
        };
        tracing::info!(%address, tls = kind, "listening");
        self.addresses.push((tls, address));
        let (relay, connections) = (Arc::clone(&self.relay), self.connections.clone());
        let accept = listener::accept(listener, gate, move |tcp, peer, permit| {
            connections.spawn(Arc::clone(&relay).serve(tcp, peer, tls, permit));
        });
        let accepting = self.accepting.clone();
        self.connections.spawn(async move { accepting.run_until_cancelled(accept).await });
        Ok(())
    }

    /// Where it listens, in the order of the configuration; ports that the system chose are real here.
    pub fn addresses(&self) -> &[(ListenTls, SocketAddr)] {
        &self.addresses
    }

    /// Accepts no more, ends all sessions in order, and waits for them for at most `drain_timeout`.
    pub async fn stop(self) {
        self.accepting.cancel();
        self.shutdown.cancel();
        self.connections.close();
        let drain = async {
            self.connections.wait().await;
            self.relay.finished().await;
        };
        if tokio::time::timeout(self.drain_timeout, drain).await.is_err() {
            tracing::warn!(left = self.connections.len(), "drain_timeout is over: connections are cut off");
        }
        if let Some(admin) = self.admin {
            admin.stop().await;
        }
        self.store.shutdown().await;
        tracing::info!("stopped");
    }
}

/// Takes the listener that the service manager passed for this address, or makes one.
fn bind(listen: &Listen, passed: &mut Sockets) -> Result<TcpListener, StartError> {
    let address = listen.address;
    let mut bind = || {
        if let Some(listener) = passed.take(address)? {
            return Ok(listener);
        }
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|source| StartError::Listen { address, source })
}

/// Runs until SIGTERM or SIGINT, then drains.
pub async fn run(config: Config) -> ExitCode {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
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
    let signal = select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal, "draining");
    notify.stopping(drain_timeout);
    daemon.stop().await;
    watchdog.abort();
    ExitCode::SUCCESS
}
