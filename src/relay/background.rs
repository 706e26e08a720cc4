//! [`Background`]: the relay's tasks that no session waits for. The shutdown waits for them.

use std::future::Future;
use std::time::Duration;

use tokio::runtime;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::net::conn::Conn;
use crate::net::wire::Wire;

/// The time that a peer has to read the last bytes and to close the connection.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The tasks of a relay that no session waits for. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Background(TaskTracker);

impl Background {
    /// Starts a task outside all spans.
    pub(super) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.0.spawn(task)
    }

    /// Starts a task in the current span.
    pub(super) fn spawn_in_span(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task.in_current_span());
    }

    /// Starts a task in the current span, on this runtime.
    pub(super) fn spawn_in_span_on(&self, task: impl Future<Output = ()> + Send + 'static, runtime: &runtime::Handle) {
        self.0.spawn_on(task.in_current_span(), runtime);
    }

    /// Writes the last bytes of a connection and closes it.
    pub(super) fn close_gracefully<S: Wire + Send + 'static>(&self, conn: Conn<S>) {
        self.spawn_in_span(conn.finish(CLOSE_TIMEOUT));
    }

    /// Waits until all tasks have ended.
    pub(super) async fn finished(&self) {
        self.0.close();
        self.0.wait().await;
    }
}
