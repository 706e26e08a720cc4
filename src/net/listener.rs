//! Accepting connections: a permit first, then accept, then hand over; no error of one connection ends the loop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
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
    gate: Gate,
    /// The address that it counts for, once that is known.
    address: Option<IpAddr>,
}

impl Permit {
    /// The connection is from this address, and counts for it; `false` if that has too many.
    pub fn count(&mut self, address: IpAddr) -> bool {
        let limit = self.gate.per_address();
        let mut count = self.gate.addresses.entry(address).or_insert(0);
        if *count >= limit {
            drop(count);
            tracing::warn!(%address, limit, "refused: too many connections from one address");
            return false;
        }
        *count += 1;
        self.address = Some(address);
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let is_surplus = self.gate.bounds.surplus.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        if let Some(permit) = self.all.take().filter(|_| is_surplus) {
            permit.forget();
        }
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

    /// Whether a connection may go on: one through a proxy is counted when its client is known.
    fn admit(&self, all: OwnedSemaphorePermit, listen: &Listen, peer: SocketAddr) -> Option<Permit> {
        let mut permit = Permit { all: Some(all), gate: self.clone(), address: None };
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
    listen: Arc<ArcSwap<Listen>>,
    gate: Gate,
    mut serve: impl FnMut(TcpStream, SocketAddr, Permit),
) {
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&gate.all).acquire_owned().await {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                if let Some(permit) = gate.admit(permit, &listen.load(), peer) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_change_count_the_connections_that_there_are() {
        let limits = |connections| Limits { connections, connections_per_address: 9, ..Limits::default() };
        let gate = Gate::new(&limits(4));
        let permit = || {
            let all = Arc::clone(&gate.all).try_acquire_owned().ok()?;
            gate.admit(all, &Listen::default(), SocketAddr::from(([127, 0, 0, 1], 5)))
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
