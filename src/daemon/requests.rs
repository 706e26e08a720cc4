//! Requests of the operator that end this process: to stop, or to be replaced by a newer version. [`ProcessHandle`] is the handle;
//! the daemon's main loop takes the [`ProcessRequest`]s.

use tokio::sync::{mpsc, oneshot};

/// The limit for waiting requests. The first one that is carried out ends the process.
const WAITING: usize = 4;

/// A request.
#[derive(Debug)]
pub(super) enum ProcessRequest {
    /// Drain, then exit. The answer says that it has begun.
    Stop(oneshot::Sender<()>),
    /// Replace the process by the program that is installed now. The answer comes before anything ends.
    Upgrade(UpgradeReply),
    /// End the sessions, because another node acts in the place of this one, and join the cluster again.
    Rejoin,
}

/// The answer to a request for an upgrade: it has begun, or the reason why not.
pub(super) type UpgradeReply = oneshot::Sender<Result<(), String>>;

/// The process ends or is replaced before it carries out a request.
const ENDING: &str = "the daemon is shutting down or being replaced: repeat the command";

/// A handle for requests.
#[derive(Clone, Debug)]
pub struct ProcessHandle(mpsc::Sender<ProcessRequest>);

/// Creates a handle and the receiver of its requests.
pub(super) fn requests() -> (ProcessHandle, mpsc::Receiver<ProcessRequest>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (ProcessHandle(sender), receiver)
}

impl ProcessHandle {
    /// Requests that the daemon drains and ends. Returns once that has begun.
    ///
    /// # Errors
    /// The reason why it has not, as text.
    pub async fn stop(&self) -> Result<(), String> {
        let (reply, replied) = oneshot::channel();
        self.0.try_send(ProcessRequest::Stop(reply)).map_err(|_| ENDING.to_owned())?;
        replied.await.map_err(|_| ENDING.to_owned())
    }

    /// Requests that the node ends its sessions and joins its cluster again. Returns whether the request waits, or the process
    /// ends already; if not, too many requests wait.
    pub(super) fn rejoin(&self) -> bool {
        !matches!(self.0.try_send(ProcessRequest::Rejoin), Err(mpsc::error::TrySendError::Full(_)))
    }

    /// Requests that the installed program replaces the process. Returns once that has begun.
    ///
    /// # Errors
    /// The reason why the process goes on, as text.
    pub async fn upgrade(&self) -> Result<(), String> {
        let (reply, replied) = oneshot::channel();
        self.0.try_send(ProcessRequest::Upgrade(reply)).map_err(|_| ENDING.to_owned())?;
        replied.await.unwrap_or_else(|_| Err(ENDING.to_owned()))
    }
}

/// Takes the requests that have come, and returns whether one of them is to stop. Others are refused.
pub(super) fn take_stop(requests: &mut mpsc::Receiver<ProcessRequest>) -> bool {
    let mut stops = false;
    while let Ok(request) = requests.try_recv() {
        if let ProcessRequest::Stop(reply) = request {
            // The operator may have stopped waiting.
            reply.send(()).ok();
            stops = true;
        }
    }
    stops
}
