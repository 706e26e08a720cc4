//! The operator's two doors: a unix socket for the commands of `pushward`, and a page over HTTP for metrics and probes.
//!
//! ```text
//!  pushward status … ── client ── socket ──┐
//!                                          ├── desk ── relay: registry, store, metrics
//!  Prometheus, a load balancer ── http ────┘
//! ```
//!
//! Both serve until the drain is over, so that it can be watched. The socket is for its owner alone; the page names nobody.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config;
use crate::daemon::Reloader;
use crate::relay::Relay;

pub mod client;
mod desk;
mod history;
mod http;
mod overview;
mod page;
mod ping;
mod places;
pub mod protocol;
mod questions;
mod servers;
mod socket;
mod watch;

use desk::Desk;
use socket::Socket;

/// Why the operator has no way in: the operator's to mend.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The page has no address.
    #[error("cannot listen on {address}: {source}; change [admin] listen, or write \"\" for no page")]
    Listen {
        /// `[admin] listen`
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Another process answers there.
    #[error("another process listens at {path}; is pushward running already, with the same [admin] socket?", path = .0.display())]
    InUse(PathBuf),
    /// There is something else than a socket.
    #[error("{path} is not a socket and is left alone; change [admin] socket", path = .0.display())]
    NotASocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot make the socket {path}: {source}; [admin] socket must be in a directory that this user can write to", path = .path.display())]
    Socket {
        /// `[admin] socket`
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Both doors, still closed: nobody else has them.
#[derive(Debug)]
pub struct Doors {
    page: Option<TcpListener>,
    socket: Socket,
}

/// Both doors, open.
#[derive(Debug)]
pub struct Admin {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Doors {
    /// Takes the addresses.
    ///
    /// # Errors
    /// [`AdminError`], with the remedy.
    pub async fn bind(config: &config::Admin) -> Result<Self, AdminError> {
        let socket = Socket::bind(&config.socket).await?;
        let page = match config.listen {
            Some(address) => {
                let listener = TcpListener::bind(address).await;
                Some(listener.map_err(|source| AdminError::Listen { address, source })?)
            }
            None => None,
        };
        Ok(Self { page, socket })
    }

    /// Serves until [`Admin::stop`].
    pub fn open(self, relay: Arc<Relay>, reloader: Reloader) -> Admin {
        let admin = Admin { stop: CancellationToken::new(), tasks: TaskTracker::new() };
        let desk = Arc::new(Desk::new(relay, reloader));
        let (stop, tasks) = (admin.stop.clone(), admin.tasks.clone());
        let looking = Arc::clone(&desk);
        admin.tasks.spawn(stop.clone().run_until_cancelled_owned(async move { looking.look().await }));
        if let Some(listener) = self.page {
            match listener.local_addr() {
                Ok(address) => tracing::info!(%address, "metrics are served"),
                Err(error) => tracing::warn!(%error, "metrics are served, at an unknown address"),
            }
            admin.tasks.spawn(remember(Arc::clone(&desk), stop.clone()));
            admin.tasks.spawn(http::serve(listener, Arc::clone(&desk), tasks.clone(), stop.clone()));
        }
        admin.tasks.spawn(self.socket.serve(desk, tasks, stop));
        admin
    }
}

/// Keeps the numbers of the last hour, for the page.
async fn remember(desk: Arc<Desk>, stop: CancellationToken) {
    let mut ticks = interval(history::EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let remember = async {
        loop {
            ticks.tick().await;
            desk.remember().await;
        }
    };
    stop.run_until_cancelled(remember).await;
}

impl Admin {
    /// Closes both, and removes the socket.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
