//! [`Predecessors`]: the older sessions of a device, until each has ended, handed over or answered.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::Instrument;

use crate::metrics::Wait;
use crate::registry::handle::END_TIMEOUT;
use crate::relay::client::Handle;
use crate::relay::shared::Relay;

/// The older sessions that were asked to hand over, all at once.
pub(super) struct Predecessors(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Predecessors {
    /// No older session is waited for.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Notifies the older sessions of the device about their successor. They never wait for this session: their login numbers
    /// are smaller.
    pub(super) fn of(relay: &Arc<Relay>, handle: &Arc<Handle>) -> Self {
        let older = relay.registry().older(handle);
        if older.is_empty() {
            return Self(None);
        }
        let (relay, login) = (Arc::clone(relay), handle.login());
        let settled = async move {
            let mut waiting = JoinSet::new();
            for session in older {
                session.notify();
                waiting.spawn(async move { session.settled(login).await });
            }
            let all = async { while waiting.join_next().await.is_some() {} };
            if timeout(END_TIMEOUT, all).await.is_err() {
                relay.metrics().deadline_passed(Wait::OlderSessions);
                tracing::warn!(within = ?END_TIMEOUT, "older sessions of the device did not end in time: they hand over later");
            }
        };
        Self(Some(Box::pin(settled.in_current_span())))
    }

    /// Returns whether no older session is waited for.
    pub(super) fn are_settled(&self) -> bool {
        self.0.is_none()
    }

    /// Waits until all have ended, handed over or answered, or until the deadline. Cancel safe.
    pub(super) async fn settled(&mut self) {
        match &mut self.0 {
            Some(waiting) => waiting.await,
            None => pending().await,
        }
        self.0 = None;
    }
}
