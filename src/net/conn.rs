//! A framed connection: reads that give frames, writes that gather, and progress that lives in the struct.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::time::timeout;

use super::backlog::WriteBacklog;
pub use super::backlog::{Departure, HIGH_WATER, REPLY_MARK};
use super::wire::Wire;
use crate::limits::Permit;
use crate::xml::{Frame, FrameError, FrameLimits, Framer};

thread_local! {
    /// Room for what is to be written, lent to the connection that writes next.
    static SPARE: Cell<BytesMut> = Cell::default();
}

/// An event on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnEvent {
    /// Bytes came: ask for frames.
    Received,
    /// All that was to be written has been, or enough of it that reading may go on somewhere.
    Drained,
    /// The peer closed its side.
    Closed,
}

/// The directions in which a connection may move bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// It is read and written.
    ReadWrite,
    /// It is only written: the peer is not read now.
    WriteOnly,
}

impl Io {
    /// Writes, and reads on this condition.
    pub fn read_if(condition: bool) -> Self {
        if condition { Self::ReadWrite } else { Self::WriteOnly }
    }
}

/// A stream with its framer and what is still to be written.
pub struct Conn<S> {
    stream: S,
    framer: Framer,
    out: BytesMut,
    waiting: WriteBacklog,
    /// Written into the stream, perhaps not yet out of its own buffers.
    unflushed: bool,
    /// Since when no written byte has moved, while there are any.
    stalled: Option<Instant>,
    /// Bytes that came since it was asked.
    received: usize,
    permit: Option<Box<Permit>>,
}

impl<S> fmt::Debug for Conn<S> {
    // What passes through is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("backlog", &self.out.len()).finish_non_exhaustive()
    }
}

impl<S: Wire> Conn<S> {
    /// A connection on which a stream header comes next.
    pub fn new(stream: S, limits: FrameLimits) -> Self {
        Self {
            stream,
            framer: Framer::new(limits),
            out: BytesMut::new(),
            waiting: WriteBacklog::default(),
            unflushed: false,
            stalled: None,
            received: 0,
            permit: None,
        }
    }

    /// The same on a stream with another content namespace than `jabber:client`.
    pub fn in_namespace(stream: S, limits: FrameLimits, ns: &'static str) -> Self {
        Self { framer: Framer::with_default_namespace(limits, ns), ..Self::new(stream, limits) }
    }

    /// The same with the right to be connected, for as long as it is.
    pub fn with_permit(mut self, permit: Permit) -> Self {
        self.permit = Some(Box::new(permit));
        self
    }

    /// The right to be connected, where there is one.
    pub fn permit(&mut self) -> Option<&mut Permit> {
        self.permit.as_deref_mut()
    }

    /// The number of bytes that came since the last call.
    pub fn take_received(&mut self) -> usize {
        std::mem::take(&mut self.received)
    }

    /// The framer, for limits and restarts.
    pub fn framer(&mut self) -> &mut Framer {
        &mut self.framer
    }

    /// The stream, for questions about it.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The next frame among the bytes that came.
    ///
    /// # Errors
    /// The bytes are no XML stream.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let frame = self.framer.next_frame()?;
        if frame.is_none() && self.framer.buffer().is_empty() {
            // The room belongs to the frames now, and goes with them.
            *self.framer.buffer() = BytesMut::new();
        }
        Ok(frame)
    }

    /// Gathers bytes that come from elsewhere; they leave with the next [`Conn::event`]. While [`Conn::is_full`], their source
    /// is not to be read.
    pub fn write(&mut self, bytes: &[u8]) {
        self.gather(bytes);
        self.waiting.relayed(bytes.len());
    }

    /// Gathers bytes that answer what this peer has sent. While [`Conn::owes_too_much`], the peer is not to be read.
    pub fn reply(&mut self, bytes: &[u8]) {
        self.gather(bytes);
        self.waiting.replied(bytes.len());
    }

    fn gather(&mut self, bytes: &[u8]) {
        if self.stalled.is_none() {
            self.stalled = Some(Instant::now());
        }
        if self.out.capacity() == 0 {
            self.out = SPARE.take();
        }
        self.out.extend_from_slice(bytes);
    }

    /// The number of bytes that wait to be written.
    pub fn backlog(&self) -> usize {
        self.out.len() + self.stream.unsent()
    }

    /// The number of those that answer the peer itself.
    pub fn replies(&self) -> usize {
        self.waiting.replies()
    }

    /// Returns whether the relayed bytes that wait have come over [`HIGH_WATER`], and not fallen to half of it since.
    pub fn is_full(&self) -> bool {
        self.waiting.is_full()
    }

    /// Returns whether the replies that wait have come over [`REPLY_MARK`], and not fallen to half of it since.
    pub fn owes_too_much(&self) -> bool {
        self.waiting.owes_too_much()
    }

    /// Returns whether the replies that wait have come over half of [`REPLY_MARK`], and not all left since.
    pub fn owes_much(&self) -> bool {
        self.waiting.owes_much()
    }

    /// Watches all that was gathered so far, in place of what was watched before.
    pub fn watch(&mut self) {
        self.waiting.watch();
    }

    /// News of the watched bytes: once that they wait, and then once that the kernel has taken
    /// the last of them, which is an event. Bytes that leave with the next event are no news.
    pub fn departure(&mut self) -> Option<Departure> {
        self.waiting.departure()
    }

    /// The time at which the peer is given up for not reading, if nothing moves until then.
    pub fn write_deadline(&self, write_timeout: Duration) -> Option<Instant> {
        self.stalled.map(|since| since + write_timeout)
    }

    /// Writes what was gathered, and reads if `io` says so.
    ///
    /// Cancel safe: progress lives in the connection.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn event(&mut self, io: Io) -> io::Result<ConnEvent> {
        poll_fn(|cx| self.poll_event(cx, io)).await
    }

    /// As [`Conn::event`], for callers that wait for more than one connection.
    pub fn poll_event(&mut self, cx: &mut Context<'_>, io: Io) -> Poll<io::Result<ConnEvent>> {
        if self.unflushed || self.backlog() > 0 {
            let drained = self.poll_drain(cx)?.is_ready();
            let waited_for = self.waiting.settle(self.backlog());
            if waited_for || drained && io == Io::WriteOnly {
                return Poll::Ready(Ok(ConnEvent::Drained));
            }
        }
        if io == Io::WriteOnly {
            return Poll::Pending;
        }
        let count = ready!(self.stream.poll_receive(cx, self.framer.buffer()))?;
        self.received = self.received.saturating_add(count);
        Poll::Ready(Ok(if count == 0 { ConnEvent::Closed } else { ConnEvent::Received }))
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unflushed = true;
        let before = self.backlog();
        let sent = self.stream.poll_send(cx, &mut self.out);
        if sent.is_pending() && (self.backlog() < before || self.stalled.is_none()) {
            self.stalled = Some(Instant::now());
        }
        ready!(sent)?;
        let mut spare = std::mem::take(&mut self.out);
        spare.clear();
        if spare.try_reclaim(1) && spare.capacity() <= HIGH_WATER {
            SPARE.set(spare);
        }
        self.unflushed = false;
        self.stalled = None;
        Poll::Ready(Ok(()))
    }

    /// Writes what was gathered and closes, for at most `patience`; then the connection is dropped as it is.
    pub async fn finish(mut self, patience: Duration) {
        let close = async {
            poll_fn(|cx| self.poll_drain(cx)).await?;
            poll_fn(|cx| self.stream.poll_close(cx)).await
        };
        match timeout(patience, close).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "peer disconnected before close"),
            Err(_) => tracing::debug!("peer did not accept close in time"),
        }
    }

    /// Writes what was gathered, and waits until it is out.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_drain(cx)).await?;
        self.waiting.settle(self.backlog());
        Ok(())
    }

    /// The bare stream; bytes that were received and not framed are gone (RFC 6120 §5.4.3.3).
    pub fn into_inner(self) -> S {
        self.stream
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const LIMITS: FrameLimits = FrameLimits::new(1 << 20, 128);

    async fn take(peer: &mut DuplexStream, bytes: usize) {
        peer.read_exact(&mut vec![0; bytes]).await.unwrap();
    }

    /// Writes what the connection can, and says whether that is worth an event.
    async fn sends(conn: &mut Conn<DuplexStream>) -> bool {
        // The runtime lets a task do only so much in one turn.
        tokio::task::yield_now().await;
        poll_fn(|cx| Poll::Ready(conn.poll_event(cx, Io::ReadWrite).is_ready())).await
    }

    #[tokio::test]
    async fn what_waits_is_counted_by_its_cause_until_it_is_out() {
        let (stream, mut peer) = duplex(1000);
        let mut conn = Conn::new(stream, LIMITS);
        conn.write(&[b' '; 2000]);
        conn.reply(&[b' '; 100]);
        assert!(!sends(&mut conn).await);
        assert_eq!((conn.backlog(), conn.replies()), (1100, 100));
        take(&mut peer, 1000).await;
        assert!(!sends(&mut conn).await);
        assert_eq!((conn.backlog(), conn.replies()), (100, 100));
        take(&mut peer, 1000).await;
        assert!(!sends(&mut conn).await);
        assert_eq!((conn.backlog(), conn.replies()), (0, 0));
    }

    #[tokio::test]
    async fn an_event_says_that_a_mark_is_no_longer_exceeded() {
        let (stream, mut peer) = duplex(1000);
        let mut conn = Conn::new(stream, LIMITS);
        conn.write(&[b' '; HIGH_WATER]);
        conn.reply(&[b' '; REPLY_MARK]);
        assert!(!sends(&mut conn).await);
        assert!(conn.is_full() && conn.owes_too_much() && conn.owes_much());
        let mut events = Vec::new();
        while conn.backlog() > 0 {
            take(&mut peer, 1000).await;
            if sends(&mut conn).await {
                events.push((conn.is_full(), conn.owes_too_much(), conn.owes_much()));
            }
        }
        assert_eq!(events, [(false, true, true), (false, false, true), (false, false, false)]);
    }

    #[tokio::test]
    async fn an_event_says_that_watched_bytes_have_left() {
        let (stream, mut peer) = duplex(1000);
        let mut conn = Conn::new(stream, LIMITS);
        conn.write(&[b' '; 1500]);
        conn.watch();
        conn.write(&[b' '; 2000]);
        assert!(!sends(&mut conn).await);
        assert_eq!(conn.departure(), Some(Departure::Waits));
        take(&mut peer, 499).await;
        assert!(!sends(&mut conn).await);
        take(&mut peer, 1).await;
        assert!(sends(&mut conn).await);
        assert_eq!(conn.departure(), Some(Departure::Left));
    }

    #[tokio::test]
    async fn a_peer_that_sends_is_received_while_it_does_not_read() {
        let (stream, mut peer) = duplex(1000);
        let mut conn = Conn::new(stream, LIMITS);
        conn.write(&[b' '; HIGH_WATER]);
        peer.write_all(b"<stream:stream").await.unwrap();
        assert_eq!(conn.event(Io::ReadWrite).await.unwrap(), ConnEvent::Received);
        assert!(conn.is_full() && conn.write_deadline(Duration::ZERO).is_some());
    }
}
