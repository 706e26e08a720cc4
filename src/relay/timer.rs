//! [`Timer`]: one timer for all deadlines of a task.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Sleep, sleep_until};

use crate::clock::Instant;

/// A timer that is only reset if the deadline comes nearer. If the deadline has moved further away, the timer is reset when
/// it expires. One timer serves all events of a task, because adding a timer takes locks that all tasks share.
#[derive(Debug)]
pub(super) struct Timer(Pin<Box<Sleep>>);

impl Timer {
    pub(super) fn new(now: Instant) -> Self {
        Self(Box::pin(sleep_until(now.into())))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline.map(tokio::time::Instant::from) else { return Poll::Pending };
        if deadline < self.0.deadline() {
            self.0.as_mut().reset(deadline);
        }
        loop {
            ready!(self.0.as_mut().poll(cx));
            if deadline <= tokio::time::Instant::now() {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(deadline);
        }
    }
}
