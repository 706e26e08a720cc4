//! Reads frames and writes bytes, for both ends of a stream.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::xml::{Frame, FrameError, FrameLimits, Framer};

/// The limits for the memory that a peer can occupy.
pub const LIMITS: FrameLimits = FrameLimits::new(1 << 20, 128);
/// The time limit for a write: 10 s.
pub const WRITE: Duration = Duration::from_secs(10);

/// The size of one read.
const READ: usize = 8 * 1024;

/// The reason why a stream cannot be used any more.
#[derive(Debug, Error)]
pub enum WireError {
    /// The connection failed.
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    /// The received bytes are invalid.
    #[error("invalid XML stream: {0}")]
    Frame(#[from] FrameError),
    /// The peer does not read.
    #[error("cannot write: the peer did not read for {0:?}")]
    Stalled(Duration),
}

/// Splits the received bytes into frames.
pub struct FrameReader<R> {
    inner: R,
    framer: Framer,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Creates a reader that expects a stream header first.
    pub fn new(inner: R) -> Self {
        Self { inner, framer: Framer::new(LIMITS) }
    }

    /// Returns the next frame. `None` once the peer has closed the connection.
    ///
    /// Cancel safe: progress lives in the reader.
    ///
    /// # Errors
    /// Returns [`WireError::Io`] or [`WireError::Frame`].
    pub async fn next(&mut self) -> Result<Option<Frame>, WireError> {
        loop {
            if let Some(frame) = self.framer.next_frame()? {
                return Ok(Some(frame));
            }
            let buffer = self.framer.buffer();
            buffer.reserve(READ);
            if self.inner.read_buf(buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Expects a stream header next (RFC 6120 §6.4.6).
    pub fn restart(&mut self) {
        self.framer.restart();
    }

    /// Returns the underlying stream.
    pub fn inner(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Returns the underlying stream. Bytes that were read and not framed are lost (RFC 6120 §5.4.3.3).
    pub fn into_inner(self) -> R {
        self.inner
    }
}

/// Writes and flushes all bytes within [`WRITE`].
///
/// # Errors
/// Returns [`WireError::Io`] or [`WireError::Stalled`].
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), WireError> {
    let write = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    timeout(WRITE, write).await.map_err(|_| WireError::Stalled(WRITE))?.map_err(WireError::Io)
}
