//! Waits of a login: its connections are served meanwhile, and whatever ends the login ends the wait.

use std::future::Future;
use std::time::Instant;

use tokio::select;
use tokio::time::sleep_until;

use super::{Driver, LoginEvent};
use crate::relay::login::patience::{Patience, STORE};
use crate::relay::read_ahead::{ReadAhead, while_there};
use crate::session::negotiate::Stop;

impl Driver<'_> {
    /// Waits for `work`. `None` if the login is over before: [`Driver::interrupted`] says why.
    pub(super) async fn wait_for<T>(&mut self, work: impl Future<Output = T>, patience: Patience) -> Option<T> {
        let mut near = ReadAhead::new(self.client.as_deref_mut()?);
        let mut far = self.upstream.as_mut().map(ReadAhead::new);
        let over = self.negotiation.deadline();
        let late = match patience {
            Patience::Bounded => over,
            Patience::Store => over.min(Instant::now() + STORE),
        };
        let stop = select! {
            biased;
            done = while_there(&mut near, far.as_mut(), work) => match done {
                Some(done) => return Some(done),
                None => None,
            },
            () = self.eviction.evicted() => Some(Stop::Crowded),
            () = self.relay.shutdown().cancelled() => Some(Stop::Shutdown),
            () = sleep_until(late.into()) => Some(if late < over { Stop::StoreLate } else { Stop::Timeout }),
        };
        self.interrupted = match stop {
            Some(stop) => Some(LoginEvent::Stop(stop)),
            None => near.into_end().map(LoginEvent::Client),
        };
        None
    }
}
