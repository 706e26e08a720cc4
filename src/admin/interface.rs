//! [`Interface`]: both listeners of the operator. They are bound first, and served once the daemon runs.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::error::AdminError;
use super::handlers::Handlers;
use super::numbers::DaemonNumbers;
use super::socket::CommandSocket;
use super::{history, http};
use crate::config;
use crate::daemon::{Controls, OperatorInterface, Serving};
use crate::relay::Relay;

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
        let handlers = Arc::new(Handlers::new(relay, controls, numbers));
        tasks.spawn(self.socket.serve(handlers, tasks.clone(), stop));
        serving
    }
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
