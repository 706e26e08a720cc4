//! Serves connections while their task waits for something else: writes the collected bytes and reads up to a limit.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use crate::net::conn::{Conn, ConnEvent, Io};
use crate::net::wire::Wire;

/// The limit for bytes that were received and not taken by the task. More bytes stay with the peer.
const UNTAKEN: usize = 64 << 10;

/// A connection while its task waits, and the event that ended it, if any.
pub(super) struct ReadAhead<'a, S> {
    conn: &'a mut Conn<S>,
    end: Option<io::Result<ConnEvent>>,
}

impl<'a, S: Wire> ReadAhead<'a, S> {
    pub(super) fn new(conn: &'a mut Conn<S>) -> Self {
        Self { conn, end: None }
    }

    /// Returns the event that ended the connection. Bytes that were received before can still be taken. A connection is not
    /// polled again after its end.
    pub(super) fn into_end(self) -> Option<io::Result<ConnEvent>> {
        self.end
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        while self.end.is_none() {
            let read = self.conn.framer().buffer().len() < UNTAKEN;
            match self.conn.poll_event(cx, Io::read_if(read)) {
                Poll::Ready(Ok(ConnEvent::Received | ConnEvent::Drained)) => {}
                Poll::Ready(end @ (Ok(ConnEvent::Closed) | Err(_))) => self.end = Some(end),
                Poll::Pending => return,
            }
        }
    }
}

/// Waits for `work`, and serves both connections meanwhile. Cancel safe if `work` is.
pub(super) async fn while_served<A: Wire, B: Wire, T>(
    one: &mut ReadAhead<'_, A>,
    other: &mut ReadAhead<'_, B>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        one.poll(cx);
        other.poll(cx);
        work.as_mut().poll(cx)
    })
    .await
}

/// Like [`while_served`], but stops when the first connection ends. The second one is optional. Cancel safe if `work` is.
pub(super) async fn while_there<A: Wire, B: Wire, T>(
    one: &mut ReadAhead<'_, A>,
    mut other: Option<&mut ReadAhead<'_, B>>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        if let Some(other) = &mut other {
            other.poll(cx);
        }
        one.poll(cx);
        if one.end.is_some() { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}
