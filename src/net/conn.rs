//! [`Conn`], a framed connection: it reads frames and gathers writes. All progress is kept in the struct, so its
//! futures can be dropped.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use super::backlog::WriteBacklog;
pub use super::backlog::{Departure, HIGH_WATER, REPLY_MARK};
use super::wire::Wire;
use crate::clock::Instant;
use crate::limits::Permit;
use crate::xml::{Frame, FrameError, FrameLimits, Framer};

thread_local! {
    /// A spare write buffer, taken by the next connection that writes.
    static SPARE: Cell<BytesMut> = Cell::default();
}

/// An event on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnEvent {
    /// Bytes arrived. Call [`Conn::next_frame`].
    Received,
    /// All gathered bytes were written, or enough of them that reading may continue on some connection.
    Drained,
    /// The peer closed its side.
    Closed,
}

/// The directions in which a connection may move bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// The connection is read and written.
    ReadWrite,
    /// The connection is only written; the peer is not read now.
    WriteOnly,
}

impl Io {
    /// Writes always, and reads if the condition is true.
    pub fn read_if(condition: bool) -> Self {
        if condition { Self::ReadWrite } else { Self::WriteOnly }
    }
}

/// A stream with its framer and the bytes that wait to be written.
pub struct Conn<S> {
    stream: S,
    framer: Framer,
    out: BytesMut,
    waiting: WriteBacklog,
    /// True if bytes were written into the stream and may still be in its buffers.
    unflushed: bool,
    /// The time since which no byte has moved, while bytes wait.
    stalled: Option<Instant>,
    /// The bytes received since the last call of [`Conn::take_received`].
    received: usize,
    permit: Option<Box<Permit>>,
}

/// The state of a connection without its stream.
pub(super) struct ConnParts {
    pub(super) framer: Framer,
    pub(super) out: Bytes,
    pub(super) waiting: WriteBacklog,
    pub(super) stalled: Option<Instant>,
}

impl<S> fmt::Debug for Conn<S> {
    // The content of a connection must not appear in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("backlog", &self.out.len()).finish_non_exhaustive()
    }
}

impl<S: Wire> Conn<S> {
    /// Creates a connection whose next element is a stream header.
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

    /// Creates a connection with a content namespace other than `jabber:client`.
    pub fn in_namespace(stream: S, limits: FrameLimits, ns: &'static str) -> Self {
        Self { framer: Framer::with_default_namespace(limits, ns), ..Self::new(stream, limits) }
    }

    /// Attaches the permit of the connection, which is released when the connection is dropped.
    pub fn with_permit(mut self, permit: Permit) -> Self {
        self.permit = Some(Box::new(permit));
        self
    }

    /// Returns the permit of the connection, if it has one.
    pub fn permit(&mut self) -> Option<&mut Permit> {
        self.permit.as_deref_mut()
    }

    /// Returns the number of bytes received since the last call.
    pub fn take_received(&mut self) -> usize {
        std::mem::take(&mut self.received)
    }

    /// Returns the framer, for limits and restarts.
    pub fn framer(&mut self) -> &mut Framer {
        &mut self.framer
    }

    /// Returns the stream, for its properties.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Returns the next frame in the received bytes.
    ///
    /// # Errors
    /// Returns an error if the bytes are not an XML stream.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let frame = self.framer.next_frame()?;
        if frame.is_none() && self.framer.buffer().is_empty() {
            // The frames own this memory now and free it.
            *self.framer.buffer() = BytesMut::new();
        }
        Ok(frame)
    }

    /// Gathers bytes that come from another connection. The next [`Conn::event`] sends them. While [`Conn::is_full`]
    /// returns true, their source must not be read.
    pub fn write(&mut self, bytes: &[u8]) {
        self.gather(bytes);
        self.waiting.relayed(bytes.len());
    }

    /// Gathers bytes that answer this peer. While [`Conn::replies_full`] returns true, the peer must not be read.
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

    /// Returns the number of bytes that wait to be written.
    pub fn backlog(&self) -> usize {
        self.out.len() + self.stream.unsent()
    }

    /// Returns the number of waiting bytes that answer the peer itself.
    pub fn replies(&self) -> usize {
        self.waiting.replies()
    }

    /// Returns whether the waiting relayed bytes reached [`HIGH_WATER`] and have not fallen below half of it.
    pub fn is_full(&self) -> bool {
        self.waiting.is_full()
    }

    /// Returns whether the waiting replies reached [`REPLY_MARK`] and have not fallen below half of it.
    pub fn replies_full(&self) -> bool {
        self.waiting.replies_full()
    }

    /// Returns whether the waiting replies reached half of [`REPLY_MARK`] and have not all been sent since.
    pub fn has_many_replies(&self) -> bool {
        self.waiting.has_many_replies()
    }

    /// Watches all bytes gathered so far, instead of those watched before.
    pub fn watch(&mut self) {
        self.waiting.watch();
    }

    /// Returns each change of the watched bytes once: first that they wait, then that the kernel has taken the last of
    /// them. The second change is an event. Bytes that the next event sends at once cause no change.
    pub fn departure(&mut self) -> Option<Departure> {
        self.waiting.departure()
    }

    /// Returns the time at which the peer counts as not reading, if no byte moves until then.
    pub fn write_deadline(&self, write_timeout: Duration) -> Option<Instant> {
        self.stalled.map(|since| since + write_timeout)
    }

    /// Writes the gathered bytes, and reads if `io` allows it.
    ///
    /// Cancel safe: the progress is kept in the connection.
    ///
    /// # Errors
    /// Returns an error if the connection is broken.
    pub async fn event(&mut self, io: Io) -> io::Result<ConnEvent> {
        poll_fn(|cx| self.poll_event(cx, io)).await
    }

    /// Polls like [`Conn::event`], for callers that wait for several connections.
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

    /// Writes the gathered bytes, then closes this side of the connection. The peer can still be read. Do not poll again when it is
    /// ready.
    ///
    /// # Errors
    /// Returns an error if the connection is broken.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        self.stream.poll_close(cx)
    }

    /// Writes the gathered bytes and closes the connection, within `patience`. After that time the connection is
    /// dropped.
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

    /// Writes the gathered bytes and waits until they are sent.
    ///
    /// # Errors
    /// Returns an error if the connection is broken.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_drain(cx)).await?;
        self.waiting.settle(self.backlog());
        Ok(())
    }

    /// Returns the stream, and everything that another process needs to go on with it: the received bytes that were not
    /// framed, and the bytes from where the last write stopped.
    pub(super) fn into_parts(self) -> (S, ConnParts) {
        let Self { stream, framer, out, waiting, stalled, .. } = self;
        (stream, ConnParts { framer, out: out.freeze(), waiting, stalled })
    }

    /// Goes on with a connection.
    pub(super) fn from_parts(stream: S, parts: ConnParts) -> Self {
        let ConnParts { framer, out, waiting, stalled } = parts;
        let out = BytesMut::from(out);
        Self { stream, framer, out, waiting, unflushed: false, stalled, received: 0, permit: None }
    }

    /// Returns the bare stream. Discards bytes that were received and not framed (RFC 6120 §5.4.3.3).
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

    /// Writes as much as the connection can, and returns whether that causes an event.
    async fn sends(conn: &mut Conn<DuplexStream>) -> bool {
        // The runtime limits the work of a task per turn.
        tokio::task::yield_now().await;
        poll_fn(|cx| Poll::Ready(conn.poll_event(cx, Io::ReadWrite).is_ready())).await
    }

    #[tokio::test]
    async fn waiting_bytes_are_counted_by_their_cause_until_they_are_sent() {
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
        assert!(conn.is_full() && conn.replies_full() && conn.has_many_replies());
        let mut events = Vec::new();
        while conn.backlog() > 0 {
            take(&mut peer, 1000).await;
            if sends(&mut conn).await {
                events.push((conn.is_full(), conn.replies_full(), conn.has_many_replies()));
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
