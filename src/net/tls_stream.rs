//! A client's TLS connection. Its records are opened where they arrived and sealed where they leave from, in memory that all
//! connections of a thread share: one on which nothing passes holds its keys, and no buffer.

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

use super::wire::{READ, Wire};

/// The most that may wait for the rest of a record, or of a message of the handshake, which spans records (RFC 8446 §5.1).
const INCOMPLETE: usize = 80 * 1024;
/// The most that is sealed at once.
const SEAL: usize = 64 * 1024;

thread_local! {
    /// The buffer in which records arrive, and are opened.
    static ARRIVALS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// The buffer in which records are sealed, and from which they leave.
    static DEPARTURES: RefCell<WriteBuffer> = const { RefCell::new(WriteBuffer { bytes: Vec::new(), filled: 0 }) };
}

/// A TLS connection with a client, from the end of its handshake.
pub struct TlsStream<S> {
    io: S,
    tls: UnbufferedServerConnection,
    /// The beginning of what is not whole.
    incomplete: Vec<u8>,
    /// Bytes that came with the handshake: a client may send right behind its part of it.
    early: BytesMut,
    /// Sealed, and not sent.
    sealed: BytesMut,
    /// Only tickets are sealed, for which nobody waits: they leave in front of the next record.
    tickets: bool,
    /// The client ended its side in order.
    ended: bool,
    /// Our side's end is sealed.
    closing: bool,
}

impl<S> fmt::Debug for TlsStream<S> {
    // What passes through is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("sealed", &self.sealed.len()).finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Takes a client through the handshake. To be given up by the caller, if it takes too long.
    ///
    /// # Errors
    /// The connection is broken, or the client is; it is then told why, as far as it takes that (RFC 8446 §6.2).
    pub async fn accept(io: S, config: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let (early, sealed) = (BytesMut::new(), BytesMut::new());
        let incomplete = Vec::new();
        let mut stream = Self { io, tls, incomplete, early, sealed, tickets: false, ended: false, closing: false };
        let mut early = BytesMut::new();
        while stream.tls.is_handshaking() {
            poll_fn(|cx| {
                // A client may want to be heard before it reads.
                if let Poll::Ready(sent) = stream.poll_sealed(cx) {
                    sent?;
                }
                stream.poll_records(cx, &mut early)
            })
            .await?;
        }
        stream.early = early;
        // RFC 8446 §4.6.1: the client has been told all that it needs to go on.
        stream.tickets = stream.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        // Nor is one waited for that does not read what ends the handshake.
        if let Poll::Ready(sent) = poll_fn(|cx| Poll::Ready(stream.poll_sealed(cx))).await {
            sent?;
        }
        Ok(stream)
    }

    /// The result of the handshake.
    pub fn state(&self) -> &CommonState {
        &self.tls
    }

    /// Reads once, and opens what is whole.
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
                // RFC 8446 §6.1: what ends without notice may have been cut off.
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
                    // The alert goes out now or never.
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

    /// Opens what is whole in `arrived`; seals what that calls for, then what comes last. Returns how much of `arrived` is done with.
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
                // It leaves with what follows.
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
                // Early data, which is not accepted, and what may be invented yet.
                Ok(_) => return Err(io::Error::other("unexpected TLS state")),
            }
            done += discard;
            if over {
                return Ok(done);
            }
        }
    }

    /// Seals what the client is to hear of a failure. Nothing is opened any more.
    fn seal_alert(&mut self, room: &mut WriteBuffer) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(mut message)) => room.seal(|room| Ok(message.encode(room)?))?,
                // What was opened before is nobody's any more.
                Ok(ConnectionState::ReadTraffic(mut traffic)) => while traffic.next_record().is_some() {},
                _ => break,
            }
        }
        Ok(())
    }

    /// Seals this and sends what it can; the rest is kept.
    fn poll_seal(&mut self, cx: &mut Context<'_>, last: LastBytes<'_>) -> Poll<io::Result<()>> {
        DEPARTURES.with_borrow_mut(|room| {
            // The library's state refers to a message of the handshake that has come in part.
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

    /// Sends what is sealed and cannot wait.
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

/// The last bytes, sealed behind the connection's own records.
#[derive(Clone, Copy)]
enum LastBytes<'a> {
    Nothing,
    Data(&'a [u8]),
    Close,
}

/// Bytes, as many as were ever needed at once, and how many of them hold something.
struct WriteBuffer {
    bytes: Vec<u8>,
    filled: usize,
}

/// An error in sealing.
enum Unsealed {
    /// There was no room for so many bytes.
    Room(usize),
    Failed(io::Error),
}

impl WriteBuffer {
    /// Appends what `encode` writes into free room, of which it gets as much as it asks for.
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

    /// Appends what is sealed.
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

    /// Takes its bytes, leaving it empty.
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
