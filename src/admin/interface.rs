//! [`Interface`]: both listeners of the operator. They are bound first, and served once the daemon runs.

use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answers::AnswerWriter;
use super::cluster::ClusterHandlers;
use super::error::AdminError;
use super::handlers::Handlers;
use super::numbers::DaemonNumbers;
use super::protocol::AdminAnswer;
use super::socket::CommandSocket;
use super::{history, http};
use crate::config;
use crate::daemon::{Controls, OperatorInterface, Serving};
use crate::relay::Relay;
use crate::relay::node_requests::OperatorRequest;

/// The requests of other nodes that may wait.
const NODE_REQUESTS: usize = 16;

/// The bound listeners.
#[derive(Debug)]
pub struct Interface {
    page: Option<TcpListener>,
    socket: CommandSocket,
}

impl OperatorInterface for Interface {
    type Error = AdminError;

    async fn bind(config: &config::Admin) -> Result<Self, AdminError> {
        let socket = CommandSocket::bind(&config.socket).await?;
        let page = match config.listen {
            Some(address) => {
                let listener = TcpListener::bind(address).await;
                Some(listener.map_err(|source| AdminError::Listen { address, source })?)
            }
            None => None,
        };
        Ok(Self { page, socket })
    }

    fn serve(self, relay: Arc<Relay>, controls: Controls) -> Serving {
        let mut serving = Serving::default();
        let numbers = Arc::new(DaemonNumbers::new(Arc::clone(&relay)));
        let (stop, tasks) = (serving.stop.clone(), serving.tasks.clone());
        let measuring = Arc::clone(&numbers);
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move { measuring.measure_once().await }));
        if let Some(listener) = self.page {
            match listener.local_addr() {
                Ok(address) => {
                    serving.page = Some(address);
                    tracing::info!(%address, "admin page and metrics served");
                }
                Err(error) => tracing::warn!(%error, "admin page and metrics served at an unknown address"),
            }
            tasks.spawn(sample(Arc::clone(&numbers), stop.clone()));
            tasks.spawn(http::serve(listener, Arc::clone(&numbers), tasks.clone(), stop.clone()));
        }
        let own = Arc::new(Handlers::new(Arc::clone(&relay), controls, numbers));
        let handlers = Arc::new(ClusterHandlers::new(Arc::clone(&relay), own));
        if let Some(nodes) = relay.node_requests() {
            let (sender, requests) = mpsc::channel(NODE_REQUESTS);
            nodes.on_operator(sender);
            tasks.spawn(answer_nodes(requests, Arc::clone(&handlers), tasks.clone(), stop.clone()));
        }
        tasks.spawn(self.socket.serve(handlers, tasks.clone(), stop));
        serving
    }
}

/// Answers the requests of operators that come through other nodes.
async fn answer_nodes(
    mut requests: mpsc::Receiver<OperatorRequest>,
    handlers: Arc<ClusterHandlers>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    while let Some(Some(asked)) = stop.run_until_cancelled(requests.recv()).await {
        let (handlers, stop) = (Arc::clone(&handlers), stop.clone());
        tasks.spawn(async move {
            if let Some(Err(error)) = stop.run_until_cancelled(Box::pin(answer_node(&handlers, asked))).await {
                tracing::debug!(%error, "request of another node failed");
            }
        });
    }
}

async fn answer_node(handlers: &ClusterHandlers, asked: OperatorRequest) -> io::Result<()> {
    let OperatorRequest { request, stream } = asked;
    let mut answers = AnswerWriter::new(stream);
    let last = match serde_json::from_value(request) {
        Ok(request) => match handlers.answer_node(request, &mut answers).await? {
            Ok(()) => AdminAnswer::End,
            Err(reason) => AdminAnswer::Failed { reason },
        },
        // The error may quote a secret.
        Err(_) => {
            AdminAnswer::Failed { reason: "this node does not know the request: it has another version".to_owned() }
        }
    };
    answers.send(&last).await?;
    answers.close().await;
    Ok(())
}

/// Samples the numbers of the last hour, for the page.
async fn sample(numbers: Arc<DaemonNumbers>, stop: CancellationToken) {
    let mut ticks = interval(history::EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let sample = async {
        loop {
            ticks.tick().await;
            numbers.sample().await;
        }
    };
    stop.run_until_cancelled(sample).await;
}
