//! The operator's interface, as the daemon sees it. `admin` implements it, and the commands plug it in: so the daemon does not
//! know what operators can ask.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::reload::Reloader;
use crate::config;
use crate::relay::Relay;

/// Listeners for operators.
pub trait OperatorInterface: Sized + Send {
    /// The reason why the interface cannot be opened, with the remedy.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Takes the addresses, before the daemon takes those for clients.
    ///
    /// # Errors
    /// An address cannot be had.
    fn bind(config: &config::Admin) -> impl Future<Output = Result<Self, Self::Error>> + Send;

    /// Serves until [`Serving::stop`].
    fn serve(self, relay: Arc<Relay>, reloader: Reloader) -> Serving;
}

/// An interface that serves.
#[derive(Debug, Default)]
pub struct Serving {
    /// Cancelled when it is to stop.
    pub stop: CancellationToken,
    /// All of its tasks.
    pub tasks: TaskTracker,
    /// The address of the page, if it is on.
    pub page: Option<SocketAddr>,
}

impl Serving {
    /// Stops all tasks, and waits for their end.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
