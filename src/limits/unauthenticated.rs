//! Connections that have not logged in, and the order in which they are evicted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::sync::oneshot;

use super::network::Network;

/// The stage that a connection has reached before its login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Connected; nothing that it sent has been checked yet.
    Accepted,
    /// TLS is established.
    Secured,
    /// The client has named a host, and the server is being connected or was not needed yet.
    Opened,
}

/// The order in which connections of one network are evicted, the smallest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EvictionRank {
    stage: Stage,
    /// Increases with each connection.
    number: u64,
}

/// The network of a connection; `None` while the header of a trusted proxy is awaited.
pub(super) type ClientOrigin = Option<Network>;

type AddressGroup = BTreeMap<EvictionRank, oneshot::Sender<()>>;

/// All connections that have not logged in. The next to be evicted is of the network with the most connections; of these, the
/// one at the earliest stage, and then the oldest. An attacker who floods from a few addresses loses only their own
/// connections; one who floods from very many loses those that are idle. A normal login completes before its connection is
/// evicted.
#[derive(Debug, Default)]
pub(super) struct Unauthenticated {
    next: u64,
    len: usize,
    groups: HashMap<ClientOrigin, AddressGroup>,
    /// The groups, ordered so that the next one to lose a connection is last. Each group has a different first rank, so no two
    /// entries are equal.
    ranks: BTreeSet<(usize, Reverse<EvictionRank>, ClientOrigin)>,
}

impl Unauthenticated {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a connection. The receiver gets a message when the connection is evicted.
    pub(super) fn enter(&mut self, origin: ClientOrigin) -> (EvictionRank, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let rank = EvictionRank { stage: Stage::Accepted, number: self.next };
        self.next += 1;
        self.insert(origin, rank, sender);
        (rank, receiver)
    }

    /// Removes a connection that is closed or has logged in.
    pub(super) fn leave(&mut self, origin: ClientOrigin, rank: EvictionRank) {
        drop(self.take(origin, rank));
    }

    /// Notes that a connection has reached a stage. Has no effect on one that is evicted already.
    pub(super) fn reach(&mut self, origin: ClientOrigin, rank: EvictionRank, stage: Stage) -> EvictionRank {
        let reached = EvictionRank { stage, ..rank };
        if let Some(sender) = self.take(origin, rank) {
            self.insert(origin, reached, sender);
        }
        reached
    }

    /// Moves a connection to the network that a proxy has named.
    pub(super) fn change_origin(&mut self, from: ClientOrigin, to: ClientOrigin, rank: EvictionRank) {
        if let Some(sender) = self.take(from, rank) {
            self.insert(to, rank, sender);
        }
    }

    /// Returns the number of connections of this network.
    pub(super) fn of(&self, origin: ClientOrigin) -> usize {
        self.groups.get(&origin).map_or(0, AddressGroup::len)
    }

    /// Returns the number of connections of the network that has the most.
    pub(super) fn most(&self) -> usize {
        self.ranks.last().map_or(0, |(count, ..)| *count)
    }

    /// Evicts the next connection; returns its network.
    pub(super) fn evict(&mut self) -> Option<ClientOrigin> {
        let (_, Reverse(rank), origin) = *self.ranks.last()?;
        let sender = self.take(origin, rank)?;
        // An error means that the connection is being closed already.
        sender.send(()).ok();
        Some(origin)
    }

    fn insert(&mut self, origin: ClientOrigin, rank: EvictionRank, sender: oneshot::Sender<()>) {
        self.len += 1;
        self.unrank(origin);
        self.groups.entry(origin).or_default().insert(rank, sender);
        self.rank(origin);
    }

    fn take(&mut self, origin: ClientOrigin, rank: EvictionRank) -> Option<oneshot::Sender<()>> {
        self.unrank(origin);
        let sender = self.groups.get_mut(&origin).and_then(|group| group.remove(&rank));
        self.len -= usize::from(sender.is_some());
        self.rank(origin);
        sender
    }

    fn unrank(&mut self, origin: ClientOrigin) {
        if let Some(rank) = self.rank_of(origin) {
            self.ranks.remove(&rank);
        }
    }

    fn rank(&mut self, origin: ClientOrigin) {
        match self.rank_of(origin) {
            Some(rank) => drop(self.ranks.insert(rank)),
            None => drop(self.groups.remove(&origin)),
        }
    }

    fn rank_of(&self, origin: ClientOrigin) -> Option<(usize, Reverse<EvictionRank>, ClientOrigin)> {
        let group = self.groups.get(&origin)?;
        group.first_key_value().map(|(rank, _)| (group.len(), Reverse(*rank), origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u32) -> ClientOrigin {
        Some(Network::V4(number))
    }

    fn is_evicted(receiver: &mut oneshot::Receiver<()>) -> bool {
        receiver.try_recv().is_ok()
    }

    #[test]
    fn the_network_with_the_most_connections_loses_its_oldest() {
        let mut waiting = Unauthenticated::default();
        let (_, mut single) = waiting.enter(network(1));
        let mut many: Vec<_> = (0..3).map(|_| waiting.enter(network(2)).1).collect();
        assert_eq!(waiting.evict(), Some(network(2)));
        assert!(is_evicted(&mut many[0]));
        assert_eq!(waiting.evict(), Some(network(2)));
        assert!(is_evicted(&mut many[1]));
        assert!(!is_evicted(&mut single) && !is_evicted(&mut many[2]));
        assert_eq!(waiting.len(), 2);
    }

    #[test]
    fn among_equals_the_earliest_stage_is_evicted_and_then_the_oldest() {
        let mut waiting = Unauthenticated::default();
        let (first, mut oldest) = waiting.enter(network(1));
        let (_, mut second) = waiting.enter(network(2));
        let (_, mut third) = waiting.enter(network(3));
        let rank = waiting.reach(network(1), first, Stage::Secured);
        assert_eq!(rank, EvictionRank { stage: Stage::Secured, number: 0 });
        for receiver in [&mut second, &mut third, &mut oldest] {
            assert!(waiting.evict().is_some());
            assert!(is_evicted(receiver));
        }
        assert_eq!((waiting.evict(), waiting.len()), (None, 0));
        assert!(waiting.ranks.is_empty() && waiting.groups.is_empty());
    }

    #[test]
    fn a_connection_that_has_left_or_was_evicted_is_not_evicted_again() {
        let mut waiting = Unauthenticated::default();
        let (first, _one) = waiting.enter(network(1));
        let (second, _two) = waiting.enter(None);
        waiting.leave(network(1), first);
        waiting.leave(network(1), first);
        assert_eq!(waiting.evict(), Some(None));
        // The connection has not reacted to its eviction yet.
        waiting.change_origin(None, network(1), second);
        assert_eq!(waiting.len(), 0);
        waiting.leave(network(1), second);
        assert_eq!(waiting.len(), 0);
    }

    #[test]
    fn a_connection_counts_for_the_network_that_its_proxy_names() {
        let mut waiting = Unauthenticated::default();
        let (place, _one) = waiting.enter(None);
        waiting.change_origin(None, network(1), place);
        assert_eq!((waiting.of(None), waiting.of(network(1)), waiting.most(), waiting.len()), (0, 1, 1, 1));
    }
}
