//! Accepting connections and passing them on. An error of one connection does not end the loop.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, unix};
use tokio::time::sleep;

use crate::config::Listen;
use crate::limits::{ConnectionRefusal, Gate, Limit, Permit};

/// The pause after an accept that failed and would fail again at once, such as when the process has no free
/// descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// The decision about a connection: it is served or refused.
pub type Admission = Result<Permit, Limit>;

/// A socket that accepts connections.
pub trait Accept {
    /// A connection and the address of its peer.
    type Connection;
    /// Accepts the next connection. Cancel safe.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

impl Accept for TcpListener {
    type Connection = (TcpStream, SocketAddr);

    async fn accept(&self) -> io::Result<Self::Connection> {
        Self::accept(self).await
    }
}

impl Accept for UnixListener {
    type Connection = (UnixStream, unix::SocketAddr);

    async fn accept(&self) -> io::Result<Self::Connection> {
        Self::accept(self).await
    }
}

/// The action after a failed accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// Accept the next connection at once.
    Continue,
    /// Pause first, because the next accept is likely to fail too.
    Pause,
}

/// Accepts connections in an endless loop and calls `serve` with each. `failed` logs an error; no error ends the loop.
/// Drop the future to end it.
pub async fn accept_each<L: Accept>(
    listener: &L,
    mut serve: impl FnMut(L::Connection),
    failed: impl Fn(io::Error) -> AfterFailure,
) {
    loop {
        match listener.accept().await {
            Ok(connection) => serve(connection),
            Err(error) => match failed(error) {
                AfterFailure::Continue => {}
                AfterFailure::Pause => sleep(PAUSE).await,
            },
        }
    }
}

/// Accepts client connections in an endless loop and calls `serve` with each. Drop the future to end it.
///
/// A connection through a proxy is counted for its client once the client's address is known.
pub async fn accept(
    listener: TcpListener,
    listen: Arc<ArcSwap<Listen>>,
    gate: Gate,
    mut serve: impl FnMut(TcpStream, SocketAddr, Admission),
) {
    let admit = |(tcp, peer): (TcpStream, SocketAddr)| match &listen.load().proxies {
        None => serve(tcp, peer, gate.admit(Some(peer.ip().to_canonical()))),
        Some(proxies) if proxies.trust(peer.ip()) => serve(tcp, peer, gate.admit(None)),
        Some(_) => {
            if let Some(suppressed) = gate.watch().refused(ConnectionRefusal::NotTrusted) {
                tracing::warn!(%peer, suppressed, "connection refused: address not in trusted_proxies");
            }
        }
    };
    accept_each(&listener, admit, failed).await;
}

/// Accepts connections of other nodes in an endless loop and calls `serve` with each. Drop the future to end it.
///
/// Each is counted for its client once the client's address is known.
pub async fn accept_nodes(listener: TcpListener, gate: Gate, mut serve: impl FnMut(TcpStream, SocketAddr, Admission)) {
    accept_each(&listener, |(tcp, peer)| serve(tcp, peer, gate.admit(None)), failed).await;
}

fn failed(error: io::Error) -> AfterFailure {
    if out_of_descriptors(&error) {
        tracing::warn!(%error, "cannot accept connection: out of file descriptors");
        return AfterFailure::Pause;
    }
    // The peer closed the connection before it was accepted (ECONNABORTED and the like).
    tracing::debug!(%error, "connection lost before accept");
    AfterFailure::Continue
}

fn out_of_descriptors(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}
