//! Accepting connections: a permit first, then accept, then hand over; no error of one connection ends the loop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{Limits, Listen};

/// How long to wait when the process is out of descriptors: accepting at once again would only spin.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(200);

/// How many connections there may be, in all and from one address.
#[derive(Clone, Debug)]
pub struct Gate {
    all: Arc<Semaphore>,
    per_address: usize,
    addresses: Arc<DashMap<IpAddr, usize>>,
}

/// The right to be connected, returned when dropped.
#[derive(Debug)]
pub struct Permit {
    _all: OwnedSemaphorePermit,
    gate: Gate,
    /// The address that it counts for, once that is known.
    address: Option<IpAddr>,
}

impl Permit {
    /// The connection is from this address, and counts for it; `false` if that has too many.
    pub fn count(&mut self, address: IpAddr) -> bool {
        let mut count = self.gate.addresses.entry(address).or_insert(0);
        if *count >= self.gate.per_address {
            drop(count);
            tracing::warn!(%address, limit = self.gate.per_address, "refused: too many connections from one address");
            return false;
        }
        *count += 1;
        self.address = Some(address);
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        if let Entry::Occupied(mut count) = self.gate.addresses.entry(address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Gate {
    /// A gate with the configured bounds.
    pub fn new(limits: &Limits) -> Self {
        let all = limits.connections.min(Semaphore::MAX_PERMITS);
        Self {
            all: Arc::new(Semaphore::new(all)),
            per_address: limits.connections_per_address,
            addresses: Arc::default(),
        }
    }

    /// Whether a connection may go on: one through a proxy is counted when its client is known.
    fn admit(&self, all: OwnedSemaphorePermit, listen: &Listen, peer: SocketAddr) -> Option<Permit> {
        let mut permit = Permit { _all: all, gate: self.clone(), address: None };
        let admitted = match &listen.proxies {
            None => permit.count(peer.ip().to_canonical()),
            Some(proxies) if proxies.trust(peer.ip()) => true,
            Some(_) => {
                tracing::warn!(%peer, "refused: not one of trusted_proxies");
                false
            }
        };
        admitted.then_some(permit)
    }
}

/// Accepts for ever and calls `serve` with each connection; end it by dropping the future.
pub async fn accept(
    listener: TcpListener,
    listen: Arc<Listen>,
    gate: Gate,
    mut serve: impl FnMut(TcpStream, SocketAddr, Permit),
) {
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&gate.all).acquire_owned().await {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                if let Some(permit) = gate.admit(permit, &listen, peer) {
                    serve(tcp, peer, permit);
                }
            }
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
