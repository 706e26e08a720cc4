//! Waits of a login: its connections are served meanwhile, and whatever ends the login ends the wait.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::select;
use tokio::time::sleep_until;

use super::{Driver, Event};
use crate::relay::read_ahead::{Served, while_there};
use crate::session::negotiate::Stop;

/// How long the store may take to answer.
const STORE: Duration = Duration::from_secs(60);

/// How long something may take that a login waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// It has a deadline of its own.
    Bounded,
    /// It is the store's, which has [`STORE`].
    Store,
}

impl Driver<'_> {
    /// Waits for `work`. `None` if the login is over before: [`Driver::interrupted`] says why.
    pub(super) async fn wait_for<T>(&mut self, work: impl Future<Output = T>, patience: Patience) -> Option<T> {
        let mut near = Served::new(self.client.as_deref_mut()?);
        let mut far = self.upstream.as_mut().map(Served::new);
        let over = self.negotiation.deadline();
        let late = match patience {
            Patience::Bounded => over,
            Patience::Store => over.min(Instant::now() + STORE),
        };
        let stop = select! {
            biased;
            done = while_there((&mut near, far.as_mut()), work) => match done {
                Some(done) => return Some(done),
                None => None,
            },
            () = self.eviction.evicted() => Some(Stop::Crowded),
            () = self.relay.shutdown.cancelled() => Some(Stop::Shutdown),
            () = sleep_until(late.into()) => Some(if late < over { Stop::StoreLate } else { Stop::Timeout }),
        };
        self.interrupted = match stop {
            Some(stop) => Some(Event::Stop(stop)),
            None => near.into_end().map(Event::Client),
        };
        None
    }
}
