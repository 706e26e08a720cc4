//! [`TlsStream`], a client's TLS connection. It decrypts and encrypts records in buffers that all connections of a
//! thread share. So an idle connection holds its keys, and no buffer.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};
use rustls::{CommonState, ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::exporter::with_channel_binding;
use super::wire::{READ, Wire};

/// The maximum bytes of an incomplete record, or of an incomplete handshake message, which may span records (RFC 8446
/// §5.1).
const INCOMPLETE: usize = 80 * 1024;
/// The maximum bytes that are encrypted at once.
const SEAL: usize = 64 * 1024;

thread_local! {
    /// The buffer in which records arrive and are decrypted.
    static ARRIVALS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// The buffer in which records are encrypted and from which they are sent.
    static DEPARTURES: RefCell<WriteBuffer> = const { RefCell::new(WriteBuffer { bytes: Vec::new(), filled: 0 }) };
}

/// A TLS connection with a client, after its handshake.
pub struct TlsStream<S> {
    io: S,
    tls: UnbufferedServerConnection,
    /// The channel binding of the connection.
    exporter: Option<Box<[u8; 32]>>,
    /// The beginning of an incomplete record.
    incomplete: Vec<u8>,
    /// Bytes that arrived with the handshake. A client may send data directly after its last handshake message.
    early: BytesMut,
    /// Encrypted bytes that were not sent yet.
    sealed: BytesMut,
    /// True if `sealed` contains only tickets. They are not urgent, and are sent in front of the next record.
    tickets: bool,
    /// True if the client has closed its side in order.
    ended: bool,
    /// True if our close is encrypted.
    closing: bool,
}

impl<S> fmt::Debug for TlsStream<S> {
    // The content of a connection must not appear in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("sealed", &self.sealed.len()).finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Performs the handshake with a client. The caller sets the time limit.
    ///
    /// # Errors
    /// Returns an error if the connection is broken or the client's handshake is invalid. In the second case the client
    /// is sent an alert, if it can take it at once (RFC 8446 §6.2).
    pub async fn accept(io: S, config: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let (early, sealed) = (BytesMut::new(), BytesMut::new());
        let incomplete = Vec::new();
        let mut stream =
            Self { io, tls, exporter: None, incomplete, early, sealed, tickets: false, ended: false, closing: false };
        let mut early = BytesMut::new();
        while stream.tls.is_handshaking() {
            poll_fn(|cx| {
                // Sending must not block reading, since a client may write before it reads.
                if let Poll::Ready(sent) = stream.poll_sealed(cx) {
                    sent?;
                }
                let (polled, binding) = with_channel_binding(|| stream.poll_records(cx, &mut early));
                stream.exporter = binding.map(Box::new).or(stream.exporter.take());
                polled
            })
            .await?;
        }
        stream.early = early;
        // RFC 8446 §4.6.1: the client has received all that it needs to continue.
        stream.tickets = stream.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        // Does not wait for a client that does not read the last handshake message.
        if let Poll::Ready(sent) = poll_fn(|cx| Poll::Ready(stream.poll_sealed(cx))).await {
            sent?;
        }
        Ok(stream)
    }

    /// Returns the result of the handshake.
    pub fn state(&self) -> &CommonState {
        &self.tls
    }

    /// Returns the channel binding `tls-exporter` of the connection (RFC 9266). `None` before TLS 1.3: there the value is
    /// unique only with the extended master secret (RFC 7627).
    pub fn channel_binding(&self) -> Option<[u8; 32]> {
        self.exporter.as_deref().copied()
    }

    /// Reads once and decrypts all complete records.
    fn poll_records(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<()>> {
        ARRIVALS.with_borrow_mut(|room| {
            let held = self.incomplete.len();
            if room.len() < held + READ {
                room.resize(held + READ, 0);
            }
            let (old, new) = room.split_at_mut(held);
            let mut arrivals = ReadBuf::new(new);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut arrivals))?;
            let count = arrivals.filled().len();
            if count == 0 {
                // RFC 8446 §6.1: a connection that ends without a notice may have been truncated.
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            old.copy_from_slice(&self.incomplete);
            let arrived = room.get_mut(..held + count).unwrap_or_default();
            let opened = DEPARTURES.with_borrow_mut(|room| {
                let opened = self.process(arrived, into, LastBytes::Nothing, room);
                let sealed = room.take();
                self.tickets &= sealed.is_empty();
                self.sealed.extend_from_slice(sealed);
                opened
            });
            let done = match opened {
                Ok(done) => done,
                Err(error) => {
                    // The alert is sent now or not at all.
                    drop(self.poll_sealed(cx));
                    return Poll::Ready(Err(error));
                }
            };
            let rest = arrived.get(done..).unwrap_or_default();
            if rest.len() > INCOMPLETE {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "TLS message too long")));
            }
            self.incomplete = rest.to_vec();
            Poll::Ready(Ok(()))
        })
    }

    /// Decrypts the complete records in `arrived`. Encrypts the records that they require, then `last`. Returns the
    /// number of bytes of `arrived` that were processed.
    fn process(
        &mut self,
        arrived: &mut [u8],
        into: &mut BytesMut,
        last: LastBytes<'_>,
        room: &mut WriteBuffer,
    ) -> io::Result<usize> {
        let mut done = 0;
        loop {
            let rest = arrived.get_mut(done..).unwrap_or_default();
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(rest);
            let mut over = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(broken)?;
                        discard += record.discard;
                        into.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => room.seal(|room| Ok(message.encode(room)?))?,
                // It is sent with the following bytes.
                Ok(ConnectionState::TransmitTlsData(sealed)) => sealed.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    match last {
                        LastBytes::Data(plain) => room.seal(|room| Ok(traffic.encrypt(plain, room)?))?,
                        LastBytes::Close => room.seal(|room| Ok(traffic.queue_close_notify(room)?))?,
                        LastBytes::Nothing => {}
                    }
                    over = true;
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => {
                    if let LastBytes::Data(_) = last {
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                    over = true;
                }
                Err(error) => {
                    self.seal_alert(room)?;
                    return Err(broken(error));
                }
                // Early data, which is not accepted, and states that later versions of the library may add.
                Ok(_) => return Err(io::Error::other("unexpected TLS state")),
            }
            done += discard;
            if over {
                return Ok(done);
            }
        }
    }

    /// Encrypts the alert for the client after a failure. Nothing is decrypted any more.
    fn seal_alert(&mut self, room: &mut WriteBuffer) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(mut message)) => room.seal(|room| Ok(message.encode(room)?))?,
                // Discards data that was decrypted before.
                Ok(ConnectionState::ReadTraffic(mut traffic)) => while traffic.next_record().is_some() {},
                _ => break,
            }
        }
        Ok(())
    }

    /// Encrypts `last` and sends as much as possible. The rest is kept in `sealed`.
    fn poll_seal(&mut self, cx: &mut Context<'_>, last: LastBytes<'_>) -> Poll<io::Result<()>> {
        DEPARTURES.with_borrow_mut(|room| {
            // The library's state refers to a handshake message that has arrived in part.
            let (mut arrived, mut early) = (std::mem::take(&mut self.incomplete), std::mem::take(&mut self.early));
            if std::mem::take(&mut self.tickets) {
                room.put(&std::mem::take(&mut self.sealed));
            }
            let processed = self.process(&mut arrived, &mut early, last, room);
            let mut left = room.take();
            arrived.drain(..processed?);
            (self.incomplete, self.early) = (arrived, early);
            while !left.is_empty() {
                match Pin::new(&mut self.io).poll_write(cx, left)? {
                    Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(count) => left = left.get(count..).unwrap_or_default(),
                    Poll::Pending => {
                        self.sealed.extend_from_slice(left);
                        return Poll::Pending;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Sends the encrypted bytes, unless they are only tickets.
    fn poll_sealed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.sealed.is_empty() || self.tickets {
            return Poll::Ready(Ok(()));
        }
        ready!(self.io.poll_send(cx, &mut self.sealed))?;
        self.sealed = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire for TlsStream<S> {
    fn poll_receive(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        let before = into.len();
        into.extend_from_slice(&std::mem::take(&mut self.early));
        while into.len() == before && !self.ended {
            ready!(self.poll_records(cx, into))?;
        }
        Poll::Ready(Ok(into.len() - before))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, from: &mut BytesMut) -> Poll<io::Result<()>> {
        ready!(self.poll_sealed(cx))?;
        while !from.is_empty() {
            let next = from.get(..SEAL).unwrap_or(from);
            let (len, sent) = (next.len(), self.poll_seal(cx, LastBytes::Data(next)));
            from.advance(len);
            ready!(sent)?;
        }
        Poll::Ready(Ok(()))
    }

    fn unsent(&self) -> usize {
        if self.tickets { 0 } else { self.sealed.len() }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sealed(cx))?;
        if !self.closing {
            self.closing = true;
            ready!(self.poll_seal(cx, LastBytes::Close))?;
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The bytes to encrypt after the connection's own records.
#[derive(Clone, Copy)]
enum LastBytes<'a> {
    Nothing,
    Data(&'a [u8]),
    Close,
}

/// A buffer that keeps its largest size, and the number of its bytes that are in use.
struct WriteBuffer {
    bytes: Vec<u8>,
    filled: usize,
}

/// An error in encrypting.
enum Unsealed {
    /// The buffer was too small. Holds the bytes needed.
    Room(usize),
    Failed(io::Error),
}

impl WriteBuffer {
    /// Appends the bytes that `encode` writes. Enlarges the free space once if `encode` needs more.
    fn seal(&mut self, mut encode: impl FnMut(&mut [u8]) -> Result<usize, Unsealed>) -> io::Result<()> {
        let mut sealed = encode(self.bytes.get_mut(self.filled..).unwrap_or_default());
        if let Err(Unsealed::Room(needed)) = sealed {
            self.bytes.resize(self.filled + needed, 0);
            sealed = encode(self.bytes.get_mut(self.filled..).unwrap_or_default());
        }
        match sealed {
            Ok(len) => self.filled += len,
            Err(Unsealed::Failed(error)) => return Err(error),
            Err(Unsealed::Room(_)) => return Err(io::Error::other("room for TLS was asked for twice")),
        }
        Ok(())
    }

    /// Appends encrypted bytes.
    fn put(&mut self, sealed: &[u8]) {
        let end = self.filled + sealed.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        if let Some(free) = self.bytes.get_mut(self.filled..end) {
            free.copy_from_slice(sealed);
            self.filled = end;
        }
    }

    /// Returns its bytes and marks it as empty.
    fn take(&mut self) -> &[u8] {
        let filled = std::mem::take(&mut self.filled);
        self.bytes.get(..filled).unwrap_or_default()
    }
}

impl From<EncodeError> for Unsealed {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Self::Room(required_size),
            EncodeError::AlreadyEncoded => Self::Failed(io::Error::other(error)),
        }
    }
}

impl From<EncryptError> for Unsealed {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Self::Room(required_size),
            EncryptError::EncryptExhausted => Self::Failed(io::Error::other(error)),
        }
    }
}

#[cfg(test)]
mod tests;
