//! Accepting connections and handing them over; no error of one connection ends the loop.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::limits::{Gate, Limit, Permit};

/// How long to wait when the process is out of descriptors: accepting at once again would only spin.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(200);

/// What comes of a connection: it may be served, or is to be turned away.
pub type Admission = Result<Permit, Limit>;

/// Accepts for ever and calls `serve` with each connection; end it by dropping the future.
pub async fn accept(listener: TcpListener, gate: Gate, mut serve: impl FnMut(TcpStream, SocketAddr, Admission)) {
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => serve(tcp, peer, gate.admit(Some(peer.ip()))),
            Err(error) if out_of_descriptors(&error) => {
                tracing::warn!(%error, "cannot accept: out of descriptors");
                tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
            }
            // The peer was gone before it was accepted (ECONNABORTED and the like).
            Err(error) => tracing::debug!(%error, "a connection was lost before it was accepted"),
        }
    }
}

fn out_of_descriptors(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}
