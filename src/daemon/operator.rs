//! The interface between the daemon and the operator's listeners. [`crate::admin`] implements [`OperatorInterface`], and the
//! commands pass it to the daemon. So the daemon does not depend on the requests of operators.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::node_drain::NodeDrain;
use super::reload::Reloader;
use super::requests::ProcessHandle;
use crate::config;
use crate::relay::Relay;

/// The handles by which operators control the daemon.
#[derive(Clone, Debug)]
pub struct Controls {
    /// Reloads the configuration.
    pub reloader: Reloader,
    /// Ends or replaces the process.
    pub process: ProcessHandle,
    /// Moves the sessions to other nodes.
    pub node: NodeDrain,
}

/// The listeners for operators.
pub trait OperatorInterface: Sized + Send {
    /// The reason why the listeners cannot be opened, with the remedy.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Binds the addresses, before the daemon binds those for clients.
    ///
    /// # Errors
    /// Returns an error if an address cannot be bound.
    fn bind(config: &config::Admin) -> impl Future<Output = Result<Self, Self::Error>> + Send;

    /// Serves until [`Serving::stop`] is called.
    fn serve(self, relay: Arc<Relay>, controls: Controls) -> Serving;
}

/// A running interface.
#[derive(Debug, Default)]
pub struct Serving {
    /// Cancelled when the interface must stop.
    pub stop: CancellationToken,
    /// All tasks of the interface.
    pub tasks: TaskTracker,
    /// The address of the page, if it is on.
    pub page: Option<SocketAddr>,
}

impl Serving {
    /// Stops all tasks and waits until they have ended.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
