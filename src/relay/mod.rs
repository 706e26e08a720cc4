//! One task per connection, which becomes the task of its session: an event goes into the core, its outputs are performed.
//!
//! ```text
//!  accept ─ handshake (STARTTLS or direct TLS) ─ login (Negotiation) ─┬─ bound: this task drives a Session until it ends
//!                                                                     └─ resumed: the connection moves to the session's task
//! ```

mod absent;
mod bound;
mod forget;
mod handshake;
mod jobs;
mod login;
mod notices;
mod owner;
mod reach;
pub mod registry;
mod report;
mod seen;
mod upkeep;
mod wake;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::config::{Config, ListenTls};
use crate::metrics::Metrics;
use crate::net::Legs;
use crate::net::conn::Conn;
use crate::net::listener::Permit;
use crate::net::roots::RootsError;
use crate::net::tls::Certificates;
use crate::net::upstream::Ways;
use crate::publish::Publisher;
use crate::session::{Settings, negotiate};
use crate::store::Store;
use crate::xml::FrameLimits;
use absent::Absentees;
use registry::Registry;

/// A client's framed connection.
pub type Client = Conn<TlsStream<TcpStream>>;

/// How long a peer may take to read the last bytes and the close.
const FAREWELL: Duration = Duration::from_secs(2);

/// What all connections share.
pub struct Relay {
    config: Arc<Config>,
    settings: Arc<Settings>,
    domains: Arc<HashSet<String>>,
    certificates: Certificates,
    ways: Ways,
    notices: notices::Notices,
    registry: Arc<Registry>,
    publisher: Publisher,
    absentees: Absentees,
    store: Store,
    metrics: Metrics,
    shutdown: CancellationToken,
    /// Tasks that only see a connection off.
    farewells: TaskTracker,
}

impl Relay {
    /// What all connections of a daemon share; sessions drain when `shutdown` is cancelled.
    ///
    /// # Errors
    /// The `ca` of a `[[push.route]]` cannot be used.
    pub fn new(config: Arc<Config>, legs: Legs, store: Store, shutdown: CancellationToken) -> Result<Self, RootsError> {
        let settings = Settings {
            stream_management: config.stream_management.clone(),
            push: Arc::new(config.push.clone()),
            session_queue: config.limits.session_queue,
            unauthenticated_stanza: config.limits.unauthenticated_stanza,
            stanza: config.limits.stanza,
            seed: rand::random(),
        };
        let registry = Arc::new(Registry::default());
        let metrics = Metrics::with(store.commit_time(), config.hosts.iter().map(|host| host.domain.as_str()));
        Ok(Self {
            settings: Arc::new(settings),
            domains: Arc::new(config.hosts.iter().map(|host| host.domain.clone()).collect()),
            publisher: Publisher::new(Arc::clone(&config), Arc::clone(&registry), &legs.certificates, &shutdown)?,
            config,
            certificates: legs.certificates,
            ways: legs.ways,
            notices: notices::Notices::default(),
            registry,
            absentees: Absentees::default(),
            store,
            metrics,
            shutdown,
            farewells: TaskTracker::new(),
        })
    }

    /// Serves one connection for as long as it, or the session that it becomes, lives.
    pub async fn serve(self: Arc<Self>, tcp: TcpStream, peer: SocketAddr, tls: ListenTls, permit: Permit) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let span = tracing::info_span!("session", %peer, jid = tracing::field::Empty);
        // Each stage in a box of its own: a session that lasts for days keeps nothing of its handshake.
        let stages = async {
            let logging_in = self.metrics.logging_in();
            let Some(client) = Box::pin(handshake::secure(&self, tcp, tls)).await else { return };
            let login = Box::pin(login::run(&self, client, peer)).await;
            drop(logging_in);
            if let Some(login) = login {
                tracing::Span::current().record("jid", tracing::field::display(&login.bound.jid));
                Box::pin(bound::run(self, login, permit)).await;
            }
        };
        stages.instrument(span).await;
    }

    /// Waits until the last bytes of ended sessions are out.
    pub async fn finished(&self) {
        self.farewells.close();
        self.farewells.wait().await;
        self.publisher.finished().await;
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The sessions.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What is on disk.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether sessions are told to end, and none begins.
    pub fn is_draining(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    fn limits(&self, authenticated: bool) -> FrameLimits {
        let limits = &self.config.limits;
        let bytes = if authenticated { limits.stanza } else { limits.unauthenticated_stanza };
        FrameLimits { bytes, depth: limits.depth }
    }

    fn negotiation(&self) -> negotiate::Negotiation {
        let deadline = Instant::now() + self.config.limits.authentication_timeout;
        let settings = Arc::clone(&self.settings);
        negotiate::Negotiation::new(Arc::clone(&self.domains), settings, rand::random, deadline)
    }

    /// Sees a connection off without making anybody wait.
    fn farewell<S>(&self, conn: Conn<S>)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        self.farewells.spawn(conn.finish(FAREWELL).in_current_span());
    }
}
