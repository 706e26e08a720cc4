//! Accepting connections: a permit first, then accept, then hand over; no error of one connection ends the loop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;

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
    address: IpAddr,
    addresses: Arc<DashMap<IpAddr, usize>>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.addresses.entry(self.address) {
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

    /// A connection that nobody may refuse any more, `None` if the address has too many.
    fn admit(&self, all: OwnedSemaphorePermit, address: IpAddr) -> Option<Permit> {
        let mut count = self.addresses.entry(address).or_insert(0);
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Permit { _all: all, address, addresses: Arc::clone(&self.addresses) })
    }
}

/// Accepts for ever and calls `serve` with each connection; end it by dropping the future.
pub async fn accept(listener: TcpListener, gate: Gate, mut serve: impl FnMut(TcpStream, SocketAddr, Permit)) {
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&gate.all).acquire_owned().await {
        match listener.accept().await {
            Ok((tcp, peer)) => match gate.admit(permit, peer.ip().to_canonical()) {
                Some(permit) => serve(tcp, peer, permit),
                None => {
                    tracing::warn!(%peer, limit = gate.per_address, "refused: too many connections from one address")
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
