//! [`Wire`], the transport of a connection's bytes.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The buffer size for one read. No TLS record is larger.
pub(super) const READ: usize = 64 * 1024;

thread_local! {
    /// The buffer of all reads, so that an idle connection holds none.
    static ARRIVALS: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// A byte stream in both directions that uses the caller's buffers.
pub trait Wire {
    /// Appends received bytes to `into`. Returns their number, 0 at an orderly end.
    ///
    /// # Errors
    /// Returns an error if the connection is broken.
    fn poll_receive(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>>;

    /// Sends all these bytes, and removes the accepted ones from the front. Ready when all bytes are sent.
    ///
    /// # Errors
    /// Returns an error if the connection is broken.
    fn poll_send(&mut self, cx: &mut Context<'_>, from: &mut BytesMut) -> Poll<io::Result<()>>;

    /// Returns the number of bytes that it has accepted and not sent. [`Wire::poll_send`] sends them, even without new
    /// bytes.
    fn unsent(&self) -> usize {
        0
    }

    /// Closes its own side in order after all bytes are sent.
    ///
    /// # Errors
    /// Returns an error if the connection is broken.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire for S {
    fn poll_receive(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        ARRIVALS.with_borrow_mut(|arrivals| {
            let mut arrivals = ReadBuf::new(arrivals);
            ready!(Pin::new(self).poll_read(cx, &mut arrivals))?;
            into.extend_from_slice(arrivals.filled());
            Poll::Ready(Ok(arrivals.filled().len()))
        })
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, from: &mut BytesMut) -> Poll<io::Result<()>> {
        while !from.is_empty() {
            let count = ready!(Pin::new(&mut *self).poll_write(cx, from))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            from.advance(count);
        }
        Pin::new(self).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_shutdown(cx)
    }
}
