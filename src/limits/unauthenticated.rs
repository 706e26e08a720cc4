//! Connections that have not logged in, and which of them goes first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::sync::oneshot;

use super::network::Network;

/// The stage that a connection has reached before its login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It is there, and has sent who knows what.
    Accepted,
    /// It has TLS.
    Secured,
    /// It has named a host, and the server is asked.
    Opened,
}

/// The order in which connections of one origin are evicted: the smallest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EvictionRank {
    stage: Stage,
    /// Rises with each connection.
    number: u64,
}

/// The network of a connection; `None` while the header of a trusted proxy is awaited.
pub(super) type ClientOrigin = Option<Network>;

type AddressGroup = BTreeMap<EvictionRank, oneshot::Sender<()>>;

/// All connections that have not logged in. Of the network with the most, the one that came the least far goes first, and of
/// those the oldest: who floods from some addresses loses their own connections, and who floods from very many loses those
/// that do nothing. Somebody who just logs in is done before their turn comes.
#[derive(Debug, Default)]
pub(super) struct Unauthenticated {
    next: u64,
    len: usize,
    groups: HashMap<ClientOrigin, AddressGroup>,
    /// The groups, the one that loses a connection first at the end. First places differ, so no two have the same rank.
    ranks: BTreeSet<(usize, Reverse<EvictionRank>, ClientOrigin)>,
}

impl Unauthenticated {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a connection. The receiver gets a message when it has to go.
    pub(super) fn enter(&mut self, origin: ClientOrigin) -> (EvictionRank, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let rank = EvictionRank { stage: Stage::Accepted, number: self.next };
        self.next += 1;
        self.insert(origin, rank, sender);
        (rank, receiver)
    }

    /// Removes a connection that is gone, or has logged in.
    pub(super) fn leave(&mut self, origin: ClientOrigin, rank: EvictionRank) {
        drop(self.take(origin, rank));
    }

    /// Notes that a connection has reached a stage. One that has to go is left as it is.
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

    /// The number of connections of this origin.
    pub(super) fn of(&self, origin: ClientOrigin) -> usize {
        self.groups.get(&origin).map_or(0, AddressGroup::len)
    }

    /// The number of connections of the origin that has the most.
    pub(super) fn most(&self) -> usize {
        self.ranks.last().map_or(0, |(count, ..)| *count)
    }

    /// Evicts the first in order; returns its origin.
    pub(super) fn evict(&mut self) -> Option<ClientOrigin> {
        let (_, Reverse(rank), origin) = *self.ranks.last()?;
        let sender = self.take(origin, rank)?;
        // If nobody listens it is going already.
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

    fn has_to_go(receiver: &mut oneshot::Receiver<()>) -> bool {
        receiver.try_recv().is_ok()
    }

    #[test]
    fn the_network_with_the_most_loses_its_oldest() {
        let mut waiting = Unauthenticated::default();
        let (_, mut single) = waiting.enter(network(1));
        let mut many: Vec<_> = (0..3).map(|_| waiting.enter(network(2)).1).collect();
        assert_eq!(waiting.evict(), Some(network(2)));
        assert!(has_to_go(&mut many[0]));
        assert_eq!(waiting.evict(), Some(network(2)));
        assert!(has_to_go(&mut many[1]));
        assert!(!has_to_go(&mut single) && !has_to_go(&mut many[2]));
        assert_eq!(waiting.len(), 2);
    }

    #[test]
    fn among_equals_the_one_that_came_least_far_goes_and_then_the_oldest() {
        let mut waiting = Unauthenticated::default();
        let (first, mut oldest) = waiting.enter(network(1));
        let (_, mut second) = waiting.enter(network(2));
        let (_, mut third) = waiting.enter(network(3));
        let rank = waiting.reach(network(1), first, Stage::Secured);
        assert_eq!(rank, EvictionRank { stage: Stage::Secured, number: 0 });
        for receiver in [&mut second, &mut third, &mut oldest] {
            assert!(waiting.evict().is_some());
            assert!(has_to_go(receiver));
        }
        assert_eq!((waiting.evict(), waiting.len()), (None, 0));
        assert!(waiting.ranks.is_empty() && waiting.groups.is_empty());
    }

    #[test]
    fn who_has_left_or_was_told_to_go_is_not_told_again() {
        let mut waiting = Unauthenticated::default();
        let (first, _one) = waiting.enter(network(1));
        let (second, _two) = waiting.enter(None);
        waiting.leave(network(1), first);
        waiting.leave(network(1), first);
        assert_eq!(waiting.evict(), Some(None));
        // It has not noticed yet.
        waiting.change_origin(None, network(1), second);
        assert_eq!(waiting.len(), 0);
        waiting.leave(network(1), second);
        assert_eq!(waiting.len(), 0);
    }

    #[test]
    fn who_says_whose_it_is_counts_there() {
        let mut waiting = Unauthenticated::default();
        let (place, _one) = waiting.enter(None);
        waiting.change_origin(None, network(1), place);
        assert_eq!((waiting.of(None), waiting.of(network(1)), waiting.most(), waiting.len()), (0, 1, 1, 1));
    }
}
