//! Accepting connections: a permit first, then accept, then hand over; no error of one connection ends the loop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
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
    bounds: Arc<Bounds>,
    addresses: Arc<DashMap<IpAddr, usize>>,
}

#[derive(Debug)]
struct Bounds {
    all: AtomicUsize,
    /// Permits that are not given back when they are returned, since there are fewer than there were.
    surplus: AtomicUsize,
    per_address: AtomicUsize,
}

/// The right to be connected, returned when dropped.
#[derive(Debug)]
pub struct Permit {
    all: Option<OwnedSemaphorePermit>,
    bounds: Arc<Bounds>,
    address: IpAddr,
    addresses: Arc<DashMap<IpAddr, usize>>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let is_surplus = self.bounds.surplus.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        if let Some(permit) = self.all.take().filter(|_| is_surplus) {
            permit.forget();
        }
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
        let (surplus, per_address) = (AtomicUsize::new(0), AtomicUsize::new(limits.connections_per_address));
        let bounds = Bounds { all: AtomicUsize::new(all), surplus, per_address };
        Self { all: Arc::new(Semaphore::new(all)), bounds: Arc::new(bounds), addresses: Arc::default() }
    }

    /// Sets other bounds. Connections beyond them stay, and none is added before enough of them have ended. One at a time.
    pub fn change(&self, limits: &Limits) {
        let Bounds { all, surplus, per_address } = &*self.bounds;
        per_address.store(limits.connections_per_address, Relaxed);
        let after = limits.connections.min(Semaphore::MAX_PERMITS);
        let before = all.swap(after, Relaxed);
        if let Some(more) = after.checked_sub(before) {
            let keep = |left: usize| Some(left.saturating_sub(more));
            let kept = surplus.fetch_update(Relaxed, Relaxed, keep).unwrap_or_default().min(more);
            self.all.add_permits(more - kept);
        } else {
            let fewer = before - after;
            surplus.fetch_add(fewer - self.all.forget_permits(fewer), Relaxed);
        }
    }

    fn per_address(&self) -> usize {
        self.bounds.per_address.load(Relaxed)
    }

    /// A connection that nobody may refuse any more, `None` if the address has too many.
    fn admit(&self, all: OwnedSemaphorePermit, address: IpAddr) -> Option<Permit> {
        let mut count = self.addresses.entry(address).or_insert(0);
        if *count >= self.per_address() {
            return None;
        }
        *count += 1;
        let (bounds, addresses) = (Arc::clone(&self.bounds), Arc::clone(&self.addresses));
        Some(Permit { all: Some(all), bounds, address, addresses })
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
                    tracing::warn!(%peer, limit = gate.per_address(), "refused: too many connections from one address")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_change_count_the_connections_that_there_are() {
        let limits = |connections| Limits { connections, connections_per_address: 9, ..Limits::default() };
        let gate = Gate::new(&limits(4));
        let permit = || {
            let all = Arc::clone(&gate.all).try_acquire_owned().ok()?;
            gate.admit(all, IpAddr::from([127, 0, 0, 1]))
        };
        let mut connected: Vec<_> = std::iter::from_fn(permit).collect();
        assert_eq!(connected.len(), 4);
        gate.change(&limits(2));
        connected.truncate(2);
        assert!(permit().is_none(), "two are as many as there may be");
        connected.truncate(1);
        connected.extend(permit());
        assert_eq!(connected.len(), 2);
        gate.change(&limits(1));
        gate.change(&limits(3));
        connected.extend(std::iter::from_fn(permit));
        assert_eq!(connected.len(), 3);
        gate.change(&Limits { connections_per_address: 3, ..limits(5) });
        assert!(permit().is_none(), "three are as many as one address may have");
        connected.clear();
        assert_eq!(std::iter::from_fn(permit).collect::<Vec<_>>().len(), 3);
    }
}
