//! Accepting connections and handing them over; no error of one connection ends the loop.

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

/// The pause after a failed accept that would fail again at once: the process may be out of descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// The decision about a connection: it is served, or refused.
pub type Admission = Result<Permit, Limit>;

/// A socket that takes connections.
pub trait Accept {
    /// A connection and the address of its peer.
    type Connection;
    /// Takes the next connection. Cancel safe.
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

/// What follows a failed accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// The next connection is accepted at once.
    Continue,
    /// A pause: the next one is likely to fail, too.
    Pause,
}

/// Accepts without end and calls `serve` with each connection. `failed` logs an error, of which none ends the loop. End it by
/// dropping the future.
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

/// Accepts clients without end and calls `serve` with each connection; end it by dropping the future.
///
/// A connection through a proxy is counted for its client once that is known.
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
    accept_each(&listener, admit, |error| {
        if out_of_descriptors(&error) {
            tracing::warn!(%error, "cannot accept connection: out of file descriptors");
            return AfterFailure::Pause;
        }
        // The peer was gone before it was accepted (ECONNABORTED and the like).
        tracing::debug!(%error, "connection lost before accept");
        AfterFailure::Continue
    })
    .await;
}

fn out_of_descriptors(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}
