//! Accepting connections and handing them over; no error of one connection ends the loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};

use crate::config::Listen;
use crate::limits::{Gate, Limit, Permit, Refusal};

/// The pause when the process is out of descriptors: accepting again at once would only spin.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(200);

/// The decision about a connection: it is served, or refused.
pub type Admission = Result<Permit, Limit>;

/// Accepts for ever and calls `serve` with each connection; end it by dropping the future.
///
/// A connection through a proxy is counted for its client once that is known.
pub async fn accept(
    listener: TcpListener,
    listen: Arc<ArcSwap<Listen>>,
    gate: Gate,
    mut serve: impl FnMut(TcpStream, SocketAddr, Admission),
) {
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => match &listen.load().proxies {
                None => serve(tcp, peer, gate.admit(Some(peer.ip().to_canonical()))),
                Some(proxies) if proxies.trust(peer.ip()) => serve(tcp, peer, gate.admit(None)),
                Some(_) => {
                    if let Some(suppressed) = gate.watch().refused(Refusal::NotTrusted) {
                        tracing::warn!(%peer, suppressed, "refused: not one of trusted_proxies");
                    }
                }
            },
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
