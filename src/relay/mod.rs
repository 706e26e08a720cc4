//! One task per connection, which becomes the task of its session: an event goes into the core, its outputs are performed.
//!
//! ```text
//!  accept ─ handshake (STARTTLS or direct TLS) ─ login (Negotiation) ─┬─ bound: this task drives a Session until it ends
//!                                                                     └─ resumed: the connection moves to the session's task
//! ```

mod absent;
mod alarm;
mod arrival;
mod bound;
mod certificates;
mod crowd;
mod forget;
mod handle;
mod handshake;
mod jobs;
mod login;
pub mod mailbox;
mod notices;
mod owner;
mod reach;
mod reading;
pub mod registry;
mod remembered;
mod report;
mod revoke;
#[cfg(test)]
mod rig;
mod seen;
mod serve;
pub mod snapshot;
mod upkeep;
mod wake;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::config::Listen;
use crate::limits::{Guards, Seldom};
use crate::metrics::Metrics;
use crate::net::conn::Conn;
use crate::net::listener::Admission;
use crate::net::tls_stream::TlsStream;
use crate::net::wire::Wire;
use crate::publish::Publisher;
use crate::session::Settings;
use crate::store::Store;
use absent::Absentees;
use registry::Registry;
use snapshot::{Current, Snapshot};

/// A client's framed connection.
pub type Client = Conn<TlsStream<TcpStream>>;

/// How long a peer may take to read the last bytes and the close.
const FAREWELL: Duration = Duration::from_secs(2);

/// What all connections share.
pub struct Relay {
    current: Arc<Current>,
    notices: notices::Notices,
    certificates_said: certificates::Said,
    seldom: Seldoms,
    registry: Arc<Registry>,
    publisher: Publisher,
    absentees: Absentees,
    memories: Arc<remembered::Memories>,
    store: Store,
    metrics: Metrics,
    guards: Guards,
    shutdown: CancellationToken,
    /// Tasks that only see a connection off.
    farewells: TaskTracker,
}

/// Log lines that others can cause without end.
#[derive(Debug, Default)]
struct Seldoms {
    absent_dropped: Seldom,
    not_revoked: Seldom,
    not_stored: Seldom,
}

impl Relay {
    /// What all connections of a daemon share; sessions drain when `shutdown` is cancelled.
    pub fn new(snapshot: Snapshot, store: Store, shutdown: CancellationToken) -> Self {
        let current = Arc::new(Current::from_pointee(snapshot));
        let registry = Arc::new(Registry::default());
        let config = &current.load().config;
        let hosts = config.hosts.iter().map(|host| host.domain.as_str());
        let metrics = Metrics::with((store.commit_time(), store.lost()), hosts);
        let guards = Guards::new(&config.limits, &metrics);
        store.set_patience(config.store.patience);
        Self {
            publisher: Publisher::new(Arc::clone(&current), Arc::clone(&registry), (metrics.fates(), &shutdown)),
            current,
            notices: notices::Notices::default(),
            certificates_said: certificates::Said::default(),
            seldom: Seldoms::default(),
            registry,
            absentees: Absentees::default(),
            memories: Arc::default(),
            store,
            guards,
            metrics,
            shutdown,
            farewells: TaskTracker::new(),
        }
    }

    /// Serves one connection for as long as it, or the session that it becomes, lives.
    pub fn serve(
        self: Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        listen: Arc<Listen>,
        admission: Admission,
    ) -> impl Future<Output = ()> + Send + use<> {
        use tracing::field::Empty;
        let span = tracing::info_span!("session", peer = Empty, proxy = Empty, jid = Empty);
        // Made here, so that the task has no room for what only the login is about.
        let login = Box::pin(Arc::clone(&self).log_in(tcp, peer, listen, admission));
        let stages = async move {
            if let Some(login) = login.await {
                tracing::Span::current().record("jid", tracing::field::display(&login.bound.jid));
                Box::pin(bound::run(self, login)).await;
            }
        };
        stages.instrument(span)
    }

    /// Each stage, and what it gives to the next, in a box of its own: a connection that says nothing needs little, and a session
    /// that lasts for days keeps nothing of its handshake.
    async fn log_in(
        self: Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        listen: Arc<Listen>,
        admission: Admission,
    ) -> Option<Box<login::Login>> {
        let permit = match admission {
            Ok(permit) => permit,
            Err(limit) => {
                self.turn_away(tcp, listen.tls, limit);
                return None;
            }
        };
        let _logging_in = self.metrics.logging_in();
        let snapshot = self.current();
        let deadline = Instant::now() + snapshot.config.limits.handshake_timeout;
        let arrival = Box::pin(arrival::of(&self, (tcp, peer), &listen, permit, deadline)).await?;
        let addresses = arrival.addresses;
        let secured = Box::pin(handshake::secure(&self, &snapshot, arrival, listen.tls, deadline)).await?;
        Box::pin(login::run(&self, snapshot, secured, addresses)).await
    }

    /// Waits until the last bytes of ended sessions are out.
    pub async fn finished(&self) {
        self.farewells.close();
        self.farewells.wait().await;
        self.publisher.finished().await;
    }

    /// What is configured and loaded now.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Another configuration serves from now on: connections that come, publishes, and the rules of sessions that run.
    /// Streams to push services and servers under the one before finish what they have.
    pub fn switch(self: &Arc<Self>, snapshot: Snapshot) {
        let before = self.current.swap(Arc::new(snapshot));
        self.store.set_limits((&self.current.load().config.limits).into());
        self.store.set_patience(self.current.load().config.store.patience);
        let now = self.current();
        self.guards.update(&now.config.limits);
        now.config.hosts.iter().for_each(|host| self.metrics.serve_host(&host.domain));
        self.publisher.reloaded(&before);
        self.configured();
        self.notify_all();
    }

    /// Lets all sessions know that the daemon ends, which [`Relay::is_draining`] says from now on.
    pub fn drain(&self) {
        self.shutdown.cancel();
        self.notify_all();
    }

    fn notify_all(&self) {
        self.registry.all().iter().for_each(|session| session.notify());
    }

    /// The configuration has come to serve.
    pub fn configured(&self) {
        self.metrics.configured(jobs::unix());
        self.look_at_certificates();
    }

    /// What sessions go by now.
    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.current.load().settings)
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

    /// What peers may ask of this process.
    pub fn guards(&self) -> &Guards {
        &self.guards
    }

    /// Whether sessions are told to end, and none begins.
    pub fn is_draining(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// Sees a connection off without making anybody wait.
    fn farewell<S: Wire + Send + 'static>(&self, conn: Conn<S>) {
        self.farewells.spawn(conn.finish(FAREWELL).in_current_span());
    }
}
