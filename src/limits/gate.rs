//! Bounds on client connections: in all, per network, and before login. The listeners ask [`Gate`] for a [`Permit`] for each
//! connection.

use std::collections::HashMap;
use std::future::pending;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use super::limit::Limit;
use super::network::Network;
use super::unauthenticated::{ClientOrigin, EvictionRank, Stage, Unauthenticated};
use super::watch::Watch;
use crate::config::ConnectionLimits;
use crate::sync::lock;

/// Counts connections and admits new ones.
#[derive(Clone, Debug)]
pub struct Gate(Arc<GateState>);

#[derive(Debug)]
struct GateState {
    table: Mutex<Admissions>,
    watch: Arc<Watch>,
}

#[derive(Debug, Default)]
struct Admissions {
    connections: usize,
    per_address: usize,
    unauthenticated: usize,
    all: usize,
    networks: HashMap<Network, usize>,
    waiting: Unauthenticated,
}

/// The result of admitting a connection.
struct Entered {
    /// True if another connection is evicted for it.
    evicted: bool,
    rank: EvictionRank,
    eviction: oneshot::Receiver<()>,
}

/// The admission of a connection; dropping it ends the count.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<GateState>,
    address: Option<IpAddr>,
    /// The rank for eviction; `None` after the login.
    rank: Option<EvictionRank>,
    eviction: Option<oneshot::Receiver<()>>,
}

/// The signal that a connection is evicted before its login.
#[derive(Debug)]
pub struct Eviction(Option<oneshot::Receiver<()>>);

impl Eviction {
    /// Waits until the connection is evicted to make room for another one; never returns once it has logged in. Cancel safe.
    pub async fn evicted(&mut self) {
        if let Some(receiver) = &mut self.0
            && receiver.await.is_ok()
        {
            self.0 = None;
            return;
        }
        self.0 = None;
        pending().await
    }
}

impl Gate {
    /// Creates a gate that admits nothing until [`Gate::update`] is called.
    pub fn new(watch: Arc<Watch>) -> Self {
        Self(Arc::new(GateState { table: Mutex::default(), watch }))
    }

    /// Sets other bounds. They apply to new connections only.
    pub fn update(&self, limits: &ConnectionLimits) {
        let mut table = self.0.table();
        table.connections = limits.all;
        table.per_address = limits.per_address;
        table.unauthenticated = limits.unauthenticated;
    }

    /// Admits a connection. If there are too many connections before login, another one of them is evicted.
    ///
    /// `address` is `None` for the connection of a proxy, which will name the client's address: [`Permit::comes_from`].
    ///
    /// # Errors
    /// The limit that refuses the connection. It is counted and logged.
    pub fn admit(&self, address: Option<IpAddr>) -> Result<Permit, Limit> {
        let mut table = self.0.table();
        let origin = address.map(Network::from);
        let entered = table.enter(origin);
        drop(table);
        match entered {
            Ok(Entered { evicted, rank, eviction }) => {
                if evicted {
                    self.0.reached(Limit::Unauthenticated, address);
                }
                Ok(Permit { gate: Arc::clone(&self.0), address, rank: Some(rank), eviction: Some(eviction) })
            }
            Err(limit) => {
                self.0.reached(limit, address);
                Err(limit)
            }
        }
    }

    /// Returns the counters and log suppression of refusals.
    pub fn watch(&self) -> &Watch {
        &self.0.watch
    }

    /// Returns the number of connections.
    pub fn len(&self) -> usize {
        self.0.table().all
    }

    /// Returns whether there are no connections.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of connections that have not logged in.
    pub fn unauthenticated(&self) -> usize {
        self.0.table().waiting.len()
    }
}

impl Permit {
    /// Returns the client's address, if it is known.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Sets the client's address, which a proxy has named.
    ///
    /// # Errors
    /// The limit that refuses the connection. It is counted and logged.
    pub fn comes_from(&mut self, address: IpAddr) -> Result<(), Limit> {
        let (from, to) = (self.origin(), Some(Network::from(address)));
        let mut table = self.gate.table();
        if from != to {
            let counted = table.count(to);
            table.uncount(if counted.is_ok() { from } else { None });
            if let Err(limit) = counted {
                drop(table);
                self.gate.reached(limit, Some(address));
                return Err(limit);
            }
            if let Some(rank) = self.rank {
                table.waiting.change_origin(from, to, rank);
            }
        }
        drop(table);
        self.address = Some(address);
        Ok(())
    }

    /// Notes that the connection has reached a later stage before login.
    pub fn reaches(&mut self, stage: Stage) {
        let origin = self.origin();
        self.rank = self.rank.map(|rank| self.gate.table().waiting.reach(origin, rank, stage));
    }

    /// Notes that the connection has logged in. It is not evicted any more.
    pub fn authenticated(&mut self) {
        if let Some(rank) = self.rank.take() {
            self.gate.table().waiting.leave(self.origin(), rank);
        }
    }

    /// Takes the eviction signal; works only once.
    pub fn eviction(&mut self) -> Eviction {
        Eviction(self.eviction.take())
    }

    fn origin(&self) -> ClientOrigin {
        self.address.map(Network::from)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let origin = self.origin();
        let mut table = self.gate.table();
        table.all -= 1;
        table.uncount(origin);
        if let Some(rank) = self.rank {
            table.waiting.leave(origin, rank);
        }
    }
}

impl GateState {
    fn table(&self) -> MutexGuard<'_, Admissions> {
        lock(&self.table)
    }

    fn reached(&self, limit: Limit, address: Option<IpAddr>) {
        match address {
            Some(address) => self.watch.reached(limit, address),
            None => self.watch.reached(limit, "a proxy's"),
        }
    }
}

impl Admissions {
    /// Admits one more connection of this network.
    fn enter(&mut self, origin: ClientOrigin) -> Result<Entered, Limit> {
        self.count(origin)?;
        let evicted = self.make_room(origin).inspect_err(|_| self.uncount(origin))?;
        self.all += 1;
        let (rank, eviction) = self.waiting.enter(origin);
        Ok(Entered { evicted, rank, eviction })
    }

    /// Returns whether another connection is evicted. That connection stays counted until it is closed.
    fn make_room(&mut self, origin: ClientOrigin) -> Result<bool, Limit> {
        if self.all >= self.connections {
            // A network with many idle connections loses one to a network with few. Between equals the existing connection
            // stays; otherwise no connection would succeed when all networks connect at once.
            if self.waiting.most() <= self.waiting.of(origin) + 1 {
                return Err(Limit::Connections);
            }
        } else if self.waiting.len() < self.unauthenticated {
            return Ok(false);
        }
        Ok(self.waiting.evict().is_some())
    }

    fn count(&mut self, origin: ClientOrigin) -> Result<(), Limit> {
        let Some(network) = origin else { return Ok(()) };
        let count = self.networks.entry(network).or_insert(0);
        if *count >= self.per_address {
            return Err(Limit::ConnectionsPerAddress);
        }
        *count += 1;
        Ok(())
    }

    fn uncount(&mut self, origin: ClientOrigin) {
        let Some(network) = origin else { return };
        if let Some(count) = self.networks.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.networks.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn gate(connections: usize, per_address: usize, unauthenticated: usize) -> Gate {
        let gate = Gate::new(Arc::new(Watch::new(Metrics::new().limits_reached())));
        let limits = ConnectionLimits { all: connections, per_address, unauthenticated };
        gate.update(&limits);
        gate
    }

    fn from(number: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(number.into()))
    }

    fn is_evicted(permit: &mut Permit) -> bool {
        permit.eviction.as_mut().unwrap().try_recv().is_ok()
    }

    #[test]
    fn an_address_has_a_bounded_number_of_connections_and_closing_one_frees_it() {
        let gate = gate(100, 2, 100);
        let first = gate.admit(from(1)).unwrap();
        let _second = gate.admit(from(1)).unwrap();
        assert_eq!(gate.admit(from(1)).unwrap_err(), Limit::ConnectionsPerAddress);
        let _other = gate.admit(from(2)).unwrap();
        assert_eq!((gate.len(), gate.unauthenticated()), (3, 3));
        drop(first);
        let mut third = gate.admit(from(1)).unwrap();
        third.authenticated();
        assert_eq!((gate.len(), gate.unauthenticated()), (3, 2));
        drop(third);
        assert_eq!((gate.len(), gate.unauthenticated()), (2, 2));
        assert_eq!(gate.0.table().networks.len(), 2);
    }

    #[test]
    fn a_flood_evicts_its_own_connections_and_never_one_that_has_logged_in() {
        let gate = gate(1000, 1000, 10);
        let mut user = gate.admit(from(1)).unwrap();
        user.authenticated();
        let mut flood: Vec<_> = (0..10).map(|_| gate.admit(from(2)).unwrap()).collect();
        let mut newcomer = gate.admit(from(3)).unwrap();
        newcomer.reaches(Stage::Secured);
        flood.extend((0..50).map(|_| gate.admit(from(2)).unwrap()));
        let gone = flood.iter_mut().filter_map(|permit| is_evicted(permit).then_some(())).count();
        assert_eq!(gone, 51);
        assert!(!is_evicted(&mut newcomer));
        assert_eq!(gate.unauthenticated(), 10);
        drop((flood, newcomer));
        assert_eq!((gate.len(), gate.unauthenticated()), (1, 0));
    }

    #[test]
    fn when_the_gate_is_full_only_a_network_with_many_idle_connections_loses_one() {
        let gate = gate(4, 4, 4);
        let mut idle: Vec<_> = (0..3).map(|_| gate.admit(from(2)).unwrap()).collect();
        let mut user = gate.admit(from(1)).unwrap();
        user.authenticated();
        let _newcomer = gate.admit(from(3)).unwrap();
        assert!(is_evicted(&mut idle[0]));
        idle.remove(0);
        idle.iter_mut().for_each(Permit::authenticated);
        assert_eq!(gate.admit(from(4)).unwrap_err(), Limit::Connections);
        drop(idle);
        assert!(gate.admit(from(4)).is_ok());
    }

    #[test]
    fn a_proxied_connection_counts_for_the_address_of_its_client() {
        let gate = gate(100, 1, 100);
        let mut first = gate.admit(None).unwrap();
        let mut second = gate.admit(None).unwrap();
        first.comes_from(from(1).unwrap()).unwrap();
        assert_eq!(second.comes_from(from(1).unwrap()), Err(Limit::ConnectionsPerAddress));
        second.comes_from(from(2).unwrap()).unwrap();
        drop((first, second));
        assert!(gate.is_empty() && gate.0.table().networks.is_empty());
    }

    #[test]
    fn other_bounds_apply_to_new_connections_only() {
        let gate = gate(100, 100, 100);
        let mut all: Vec<_> = (0..5).map(|_| gate.admit(from(1)).unwrap()).collect();
        all.iter_mut().for_each(Permit::authenticated);
        let limits = ConnectionLimits { all: 5, ..ConnectionLimits::default() };
        gate.update(&limits);
        assert_eq!(gate.admit(from(1)).unwrap_err(), Limit::Connections);
        assert_eq!(gate.len(), 5);
    }

    #[tokio::test]
    async fn an_eviction_is_signalled_and_a_login_ends_the_wait_for_it() {
        let gate = gate(100, 100, 1);
        let mut first = gate.admit(from(1)).unwrap();
        let mut eviction = first.eviction();
        let mut second = gate.admit(from(2)).unwrap();
        eviction.evicted().await;
        second.authenticated();
        let mut never = second.eviction();
        assert!(now_or_none(never.evicted()).await.is_none());
    }

    async fn now_or_none<T>(future: impl Future<Output = T>) -> Option<T> {
        tokio::select! { biased; done = future => Some(done), () = std::future::ready(()) => None }
    }
}
