//! A minimal XMPP server in memory ([`DemoServer`]). It has the functions of an old server, without stream management and
//! push.
//!
//! | file | holds |
//! |---|---|
//! | `connection.rs` | one stream: SASL PLAIN, bind, then stanzas |
//! | `router.rs` | online sessions, the routing of stanzas, messages for offline accounts |
//! | `stanza.rs` | the handling of a message, presence or iq |
//! | `answer.rs` | the server's own answers to iq requests |
//! | `settings.rs`, `edit.rs` | the accounts; changes to stanzas |
//! | `push.rs` | the component `push.DOMAIN`, an app server that records the notifications |

mod answer;
mod connection;
mod edit;
mod push;
mod router;
mod settings;
mod stanza;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, broadcast};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::jid::FullJid;
pub use push::Notification;
use router::Router;
pub use settings::{DemoAccount, ServerSettings};

/// The limit for concurrent connections.
const CONNECTIONS: usize = 10_000;
/// The pause after a failed accept. Without it the loop would spin.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// The time that connections have to end.
const STOP: Duration = Duration::from_secs(2);

/// A running server. It stops when dropped.
pub struct DemoServer {
    address: SocketAddr,
    router: Arc<Router>,
    shutdown: CancellationToken,
    connections: TaskTracker,
}

impl DemoServer {
    /// Listens on a loopback port that the system chooses, without TLS.
    ///
    /// # Errors
    /// Returns an error if no port is available, or an account's name is not valid in a JID.
    pub async fn start(settings: ServerSettings) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let router = Arc::new(Router::new(settings).map_err(io::Error::other)?);
        let (shutdown, connections) = (CancellationToken::new(), TaskTracker::new());
        let accept = accept(listener, Arc::clone(&router), shutdown.clone(), connections.clone());
        let stop = shutdown.clone();
        connections.spawn(async move { stop.run_until_cancelled(accept).await });
        Ok(Self { address, router, shutdown, connections })
    }

    /// Returns the address of the listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a receiver of the notifications that arrive from now on. A receiver that falls 1,024 notifications behind gets
    /// the number of missed ones.
    pub fn notifications(&self) -> broadcast::Receiver<Notification> {
        self.router.notifications()
    }

    /// Returns whether this resource is bound.
    pub fn is_online(&self, jid: &FullJid) -> bool {
        self.router.is_online(jid)
    }

    /// Ends all streams. Waits at most 2 s for that.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.connections.close();
        if timeout(STOP, self.connections.wait()).await.is_err() {
            tracing::warn!(left = self.connections.len(), "closing remaining connections of the embedded server");
        }
    }
}

impl Drop for DemoServer {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn accept(listener: TcpListener, router: Arc<Router>, shutdown: CancellationToken, connections: TaskTracker) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        match listener.accept().await {
            Ok((tcp, _)) => {
                let serve = connection::serve(Arc::clone(&router), tcp, shutdown.clone());
                connections.spawn(async move {
                    serve.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "embedded server cannot accept connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}
