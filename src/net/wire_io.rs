//! [`WireIo`]: a [`Wire`] for code that reads and writes by the traits of tokio.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::Wire;

/// The bytes that wait to be sent before a writer has to wait.
const WAITING: usize = 16 * 1024;

/// A byte stream for code that reads and writes by the traits of tokio.
#[derive(Debug)]
pub struct WireIo<W> {
    wire: W,
    received: BytesMut,
    unsent: BytesMut,
}

impl<W: Wire> WireIo<W> {
    /// Uses a wire.
    pub fn new(wire: W) -> Self {
        Self { wire, received: BytesMut::new(), unsent: BytesMut::new() }
    }
}

impl<W: Wire + Unpin> AsyncRead for WireIo<W> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { wire, received, .. } = self.get_mut();
        if received.is_empty() {
            ready!(wire.poll_receive(cx, received))?;
        }
        let taken = received.split_to(received.len().min(into.remaining()));
        into.put_slice(&taken);
        Poll::Ready(Ok(()))
    }
}

impl<W: Wire + Unpin> AsyncWrite for WireIo<W> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { wire, unsent, .. } = self.get_mut();
        if unsent.remaining() >= WAITING {
            ready!(wire.poll_send(cx, unsent))?;
        }
        let taken = bytes.get(..WAITING).unwrap_or(bytes);
        unsent.extend_from_slice(taken);
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { wire, unsent, .. } = self.get_mut();
        wire.poll_send(cx, unsent)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { wire, unsent, .. } = self.get_mut();
        ready!(wire.poll_send(cx, unsent))?;
        wire.poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn bytes_pass_in_both_directions_and_the_end_is_seen() {
        let (near, far) = duplex(1000);
        let (mut near, mut far) = (WireIo::new(near), WireIo::new(far));
        let sent: Vec<u8> = (0..100_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let expect = sent.clone();
        let write = async {
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (_, read) = tokio::join!(write, far.read_to_end(&mut got));
        assert_eq!((read.unwrap(), got == expect), (100_000, true));
    }
}
