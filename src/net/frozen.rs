//! A connection to a server that another process goes on with: [`ConnRecord`] and its socket.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::backlog::WriteBacklog;
use super::conn::{Conn, ConnParts};
use super::socket::Socket;
use super::upstream::{UpstreamConn, UpstreamStream};
use crate::clock::Instant;
use crate::xml::{FrameLimits, Framer, FramerRecord, MemoryShare};

/// The state of a connection to a server, without its socket.
#[derive(Serialize, Deserialize)]
pub struct ConnRecord {
    kind: SocketKind,
    framer: FramerRecord,
    /// The bytes that were not written, from where the last write stopped.
    unsent: Bytes,
    waiting: WriteBacklog,
    stalled: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum SocketKind {
    Tcp,
    Unix,
}

impl ConnRecord {
    /// Takes a connection apart.
    ///
    /// # Errors
    /// Returns an error if the connection has TLS, whose keys cannot be passed on, or if the system refuses.
    pub fn freeze(conn: UpstreamConn) -> io::Result<(Self, OwnedFd)> {
        let (stream, ConnParts { framer, out, waiting, stalled }) = conn.into_parts();
        let (kind, socket) = match stream {
            UpstreamStream::Plain(Socket::Tcp(tcp)) => (SocketKind::Tcp, OwnedFd::from(tcp.into_std()?)),
            UpstreamStream::Plain(Socket::Unix(unix)) => (SocketKind::Unix, OwnedFd::from(unix.into_std()?)),
            UpstreamStream::Tls(_) => return Err(io::Error::new(io::ErrorKind::Unsupported, "TLS to the server")),
        };
        Ok((Self { kind, framer: framer.freeze(), unsent: out, waiting, stalled }, socket))
    }

    /// Goes on with a connection. Must be called inside a runtime.
    ///
    /// # Errors
    /// Returns an error if the record is damaged, or if the system refuses the socket.
    pub fn thaw(self, socket: OwnedFd, limits: FrameLimits, share: MemoryShare) -> io::Result<UpstreamConn> {
        let framer = Framer::thaw(self.framer, limits);
        let mut framer = framer.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "damaged stream"))?;
        framer.skip_unfit(Some(share));
        let socket = match self.kind {
            SocketKind::Tcp => Socket::Tcp(tokio::net::TcpStream::from_std(TcpStream::from(socket))?),
            SocketKind::Unix => Socket::Unix(tokio::net::UnixStream::from_std(UnixStream::from(socket))?),
        };
        let parts = ConnParts { framer, out: self.unsent, waiting: self.waiting, stalled: self.stalled };
        Ok(Conn::from_parts(UpstreamStream::Plain(socket), parts))
    }
}
