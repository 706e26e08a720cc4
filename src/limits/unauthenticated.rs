//! Connections that have not logged in, and which of them goes first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::sync::oneshot;

use super::network::Network;

/// How far a connection has come that has not logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It is there, and has sent who knows what.
    Accepted,
    /// It has TLS.
    Secured,
    /// It has named a host, and the server is asked.
    Opened,
}

/// How far, and since when compared with the others: what is smallest goes first.
pub(super) type Place = (Stage, u64);

/// Whose it is; `None` while the header of a trusted proxy is awaited.
pub(super) type Origin = Option<Network>;

type Group = BTreeMap<Place, oneshot::Sender<()>>;

/// All connections that have not logged in. Of the network with the most, the one that came the least far goes first, and of
/// those the oldest: who floods from some addresses loses their own connections, and who floods from very many loses those
/// that do nothing. Somebody who just logs in is done before their turn comes.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    next: u64,
    len: usize,
    groups: HashMap<Origin, Group>,
    /// The groups, the one that loses a connection first at the end. First places differ, so no two have the same rank.
    ranks: BTreeSet<(usize, Reverse<Place>, Origin)>,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A connection more; the receiver hears when it has to go.
    pub(super) fn enter(&mut self, origin: Origin) -> (Place, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let place = (Stage::Accepted, self.next);
        self.next += 1;
        self.insert(origin, place, sender);
        (place, receiver)
    }

    /// It is gone, or has logged in.
    pub(super) fn leave(&mut self, origin: Origin, place: Place) {
        drop(self.take(origin, place));
    }

    /// It has come further, or said whose it is. One that has to go stays where it is.
    pub(super) fn moved(&mut self, from: (Origin, Place), to: (Origin, Stage)) -> Place {
        let (number, stage) = (from.1.1, to.1);
        if let Some(sender) = self.take(from.0, from.1) {
            self.insert(to.0, (stage, number), sender);
        }
        (stage, number)
    }

    /// How many of this origin there are.
    pub(super) fn of(&self, origin: Origin) -> usize {
        self.groups.get(&origin).map_or(0, Group::len)
    }

    /// How many there are of the origin that has the most.
    pub(super) fn most(&self) -> usize {
        self.ranks.last().map_or(0, |(count, ..)| *count)
    }

    /// Makes the first go that has to; returns whose it was.
    pub(super) fn evict(&mut self) -> Option<Origin> {
        let (_, Reverse(place), origin) = *self.ranks.last()?;
        let sender = self.take(origin, place)?;
        // If nobody listens it is going already.
        sender.send(()).ok();
        Some(origin)
    }

    fn insert(&mut self, origin: Origin, place: Place, sender: oneshot::Sender<()>) {
        self.len += 1;
        self.unrank(origin);
        self.groups.entry(origin).or_default().insert(place, sender);
        self.rank(origin);
    }

    fn take(&mut self, origin: Origin, place: Place) -> Option<oneshot::Sender<()>> {
        self.unrank(origin);
        let sender = self.groups.get_mut(&origin).and_then(|group| group.remove(&place));
        self.len -= usize::from(sender.is_some());
        self.rank(origin);
        sender
    }

    fn unrank(&mut self, origin: Origin) {
        if let Some(rank) = self.rank_of(origin) {
            self.ranks.remove(&rank);
        }
    }

    fn rank(&mut self, origin: Origin) {
        match self.rank_of(origin) {
            Some(rank) => drop(self.ranks.insert(rank)),
            None => drop(self.groups.remove(&origin)),
        }
    }

    fn rank_of(&self, origin: Origin) -> Option<(usize, Reverse<Place>, Origin)> {
        let group = self.groups.get(&origin)?;
        group.first_key_value().map(|(place, _)| (group.len(), Reverse(*place), origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u32) -> Origin {
        Some(Network::V4(number))
    }

    fn has_to_go(receiver: &mut oneshot::Receiver<()>) -> bool {
        receiver.try_recv().is_ok()
    }

    #[test]
    fn the_network_with_the_most_loses_its_oldest() {
        let mut waiting = Waiting::default();
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
        let mut waiting = Waiting::default();
        let (first, mut oldest) = waiting.enter(network(1));
        let (_, mut second) = waiting.enter(network(2));
        let (_, mut third) = waiting.enter(network(3));
        let place = waiting.moved((network(1), first), (network(1), Stage::Secured));
        assert_eq!(place, (Stage::Secured, 0));
        for receiver in [&mut second, &mut third, &mut oldest] {
            assert!(waiting.evict().is_some());
            assert!(has_to_go(receiver));
        }
        assert_eq!((waiting.evict(), waiting.len()), (None, 0));
        assert!(waiting.ranks.is_empty() && waiting.groups.is_empty());
    }

    #[test]
    fn who_has_left_or_was_told_to_go_is_not_told_again() {
        let mut waiting = Waiting::default();
        let (first, _one) = waiting.enter(network(1));
        let (second, _two) = waiting.enter(None);
        waiting.leave(network(1), first);
        waiting.leave(network(1), first);
        assert_eq!(waiting.evict(), Some(None));
        // It has not noticed yet.
        let place = waiting.moved((None, second), (network(1), Stage::Accepted));
        assert_eq!(waiting.len(), 0);
        waiting.leave(network(1), place);
        assert_eq!(waiting.len(), 0);
    }

    #[test]
    fn who_says_whose_it_is_counts_there() {
        let mut waiting = Waiting::default();
        let (place, _one) = waiting.enter(None);
        waiting.moved((None, place), (network(1), Stage::Accepted));
        assert_eq!((waiting.of(None), waiting.of(network(1)), waiting.most(), waiting.len()), (0, 1, 1, 1));
    }
}
