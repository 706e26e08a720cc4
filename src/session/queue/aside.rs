//! Stanzas that are set aside because the client breaks on them. They are not written and do not count as waiting. They stay in
//! their spools when the places around them are deleted, and can go back to their places in the queue.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;

use super::number::is_inherited;
use super::spooled::weight;
use super::{Queue, Queued};
use crate::push::account::LoginId;

/// The stanzas that are set aside, oldest first. If one is [`Queued::gone`], only the spool has its content.
#[derive(Debug, Default)]
pub(super) struct SetAside(Vec<Queued>);

impl SetAside {
    pub(super) fn has(&self, seq: u64) -> bool {
        self.0.iter().any(|item| item.seq == seq)
    }
}

impl Queue {
    /// The next stanza to be written; `None` if one comes first that is only on disk.
    pub fn next_unwritten(&self) -> Option<&Queued> {
        let next = self.items.get(self.written)?;
        if self.resting.as_ref().and_then(|resting| resting.first()).is_some_and(|first| first < next.seq) {
            return None;
        }
        self.gap().is_none_or(|before| before > next.seq).then_some(next)
    }

    /// Notes the time at which the last stanza was written.
    pub fn note_written(&mut self, at: u32) {
        if let Some(last) = self.written.checked_sub(1).and_then(|last| self.items.get_mut(last)) {
            last.written = at;
        }
    }

    /// The first stanza that was written and is not acknowledged.
    pub fn first_unacked(&self) -> Option<&Queued> {
        self.items.iter().take(self.written).find(|item| !item.gone)
    }

    /// The first `count` written stanzas, including those that were set aside after they were written.
    pub fn first_written(&self, count: usize) -> impl Iterator<Item = &Queued> {
        let written = self.items.iter().take(count.min(self.written));
        written.filter_map(|item| if item.gone { self.aside().find(|aside| aside.seq == item.seq) } else { Some(item) })
    }

    /// Sets a written stanza aside. A placeholder stays in the queue, because the client may count the stanza.
    pub fn set_written_aside(&mut self, seq: u64) {
        let Some(at) = self.items.iter().take(self.written).position(|item| item.seq == seq) else { return };
        let Some(item) = self.items.get(at).cloned() else { return };
        self.forget(&item);
        if let Some(there) = self.items.get_mut(at) {
            *there = item.gone();
            let bytes = weight(there.element.bytes().len());
            self.gain_memory(bytes);
        }
        self.put_aside(item);
    }

    /// Sets aside the next stanza to be written.
    pub fn set_next_aside(&mut self) {
        let at = self.written;
        if let Some(item) = self.items.remove(at) {
            self.forget(&item);
            (self.settled, self.considered) = (self.settled.min(at), self.considered.min(at));
            self.put_aside(item);
        }
    }

    fn put_aside(&mut self, item: Queued) {
        let room = self.limit / 8;
        let held: usize = self.aside().map(|aside| weight(aside.element.bytes().len())).sum();
        let bytes = weight(item.element.bytes().len());
        let on_disk = item.durable && item.is_settled(self.committed) && !item.is_unsaved(self.committed);
        // Without room in memory, only the disk keeps it: it comes back with the device's next session.
        let item = if on_disk && held + bytes > room { Queued { spooled: true, ..item.gone() } } else { item };
        self.gain_memory(weight(item.element.bytes().len()));
        self.aside.get_or_insert_default().0.push(item);
    }

    /// The stanzas that are set aside.
    pub fn aside(&self) -> impl Iterator<Item = &Queued> {
        self.aside.iter().flat_map(|aside| &aside.0)
    }

    /// The number of stanzas that are set aside.
    pub fn count_aside(&self) -> usize {
        self.aside.as_ref().map_or(0, |aside| aside.0.len())
    }

    /// Puts the chosen stanzas back in their places. Call it only when no written stanza awaits its acknowledgement.
    pub fn take_back(&mut self, mut which: impl FnMut(&Queued) -> bool) {
        for item in self.remove_aside(|item| !item.gone && which(item)) {
            self.put_in_order(Queued { waited: true, ..item });
        }
    }

    /// Removes the chosen stanzas from those that are set aside, and returns them.
    pub fn remove_aside(&mut self, mut which: impl FnMut(&Queued) -> bool) -> Vec<Queued> {
        let Some(mut aside) = self.aside.take() else { return Vec::new() };
        let (removed, left): (Vec<_>, Vec<_>) = aside.0.drain(..).partition(|item| which(item));
        removed.iter().for_each(|item| self.lose_memory(weight(item.element.bytes().len())));
        aside.0 = left;
        self.aside = Some(aside).filter(|aside| !aside.0.is_empty());
        removed
    }

    /// Removes and returns the stanzas set aside that are among the first `count` written ones: the client has acknowledged them.
    pub fn acknowledge_aside(&mut self, count: usize) -> Vec<Queued> {
        if self.aside.is_none() {
            return Vec::new();
        }
        let written = self.items.iter().take(count.min(self.written)).filter(|item| item.gone);
        let written: Vec<u64> = written.map(|item| item.seq).collect();
        self.remove_aside(|item| written.contains(&item.seq))
    }

    /// Returns `places` of a spool without the places of stanzas that are set aside. `None` is the session's own spool.
    pub fn spare(&self, spool: Option<LoginId>, places: RangeInclusive<u64>) -> Vec<RangeInclusive<u64>> {
        let place = |item: &Queued| match self.origin(item.seq) {
            Some((other, place)) => (spool == Some(other)).then_some(place),
            None => spool.is_none().then_some(item.seq),
        };
        let mut spared: Vec<u64> = self.aside().filter_map(place).filter(|place| places.contains(place)).collect();
        spared.sort_unstable();
        let (mut start, end) = (Some(*places.start()), *places.end());
        let mut parts = Vec::with_capacity(spared.len() + 1);
        for place in spared {
            parts.extend(start.filter(|start| *start < place).map(|start| start..=place.saturating_sub(1)));
            start = place.checked_add(1);
        }
        parts.extend(start.filter(|start| *start <= end).map(|start| start..=end));
        parts
    }

    /// The lowest server sequence number of the stanzas set aside that are not on disk yet.
    pub(super) fn unsettled_aside(&self) -> Option<NonZeroU64> {
        self.aside().filter(|item| !item.is_settled(self.committed)).filter_map(|item| item.ordinal).min()
    }

    /// Returns the stanzas set aside that have to be spooled and were not handed to the spool yet. They count as handed over now.
    pub(super) fn take_unspooled_aside(&mut self) -> Vec<Queued> {
        let aside = self.aside.iter_mut().flat_map(|aside| &mut aside.0);
        let unspooled = aside.filter(|item| item.durable && !item.spooled && !is_inherited(item.seq));
        unspooled
            .map(|item| {
                item.spooled = true;
                item.clone()
            })
            .collect()
    }

    /// Takes note that the spool has refused the stanzas set aside that were handed to it.
    pub(super) fn aside_refused(&mut self) {
        let (base, committed) = (self.base, self.committed);
        let aside = self.aside.iter_mut().flat_map(|aside| &mut aside.0);
        for item in aside.filter(|item| item.is_asked(base, committed)) {
            (item.spooled, item.doubtful) = (false, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Place, STRIDE};
    use super::*;
    use crate::session::tests::{element, message};

    const S: u64 = STRIDE;

    fn hold(queue: &mut Queue, n: usize) {
        let element = element(&message(n));
        let Place::Memory(seq) = queue.place(element.bytes().len()) else { panic!("no room") };
        queue.hold(Queued::new(element, seq, 0).of_leg(Some(n as u64), true));
    }

    fn spooled(queue: &mut Queue) {
        let last = queue.take_unspooled(usize::MAX).iter().map(|item| item.seq).max();
        queue.committed(last.unwrap_or_default());
    }

    fn written(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.write_next().map(|item| item.seq / S)).collect()
    }

    #[test]
    fn what_is_set_aside_keeps_the_clients_count_and_is_spared_by_deletions() {
        let mut queue = Queue::new(1 << 20);
        (1..=4).for_each(|n| hold(&mut queue, n));
        spooled(&mut queue);
        assert_eq!(written(&mut queue), [1, 2, 3, 4]);
        let bytes = queue.bytes();
        queue.set_written_aside(S);
        queue.set_written_aside(3 * S);
        assert_eq!(queue.first_unacked().map(|item| item.seq), Some(2 * S));
        assert_eq!((queue.iter().count(), queue.count_aside(), queue.bytes() >= bytes), (2, 2, true));
        assert_eq!(queue.spare(None, 0..=4 * S), [0..=S - 1, S + 1..=3 * S - 1, 3 * S + 1..=4 * S]);
        assert_eq!(queue.spare(None, 2 * S..=3 * S), [2 * S..=3 * S - 1]);
        assert_eq!(queue.spare(None, 3 * S..=3 * S), []);
        assert_eq!(queue.spare(Some(LoginId(9)), 0..=4 * S), [0..=4 * S]);
        // The client has the first two.
        assert_eq!(queue.first_written(2).map(|item| item.seq).collect::<Vec<_>>(), [S, 2 * S]);
        assert_eq!(queue.acknowledge_aside(2).len(), 1);
        queue.acknowledge(2);
        queue.rewind();
        assert_eq!((written(&mut queue), queue.count_aside()), (vec![4], 1));
        queue.acknowledge(1);
        queue.take_back(|_| true);
        assert_eq!((written(&mut queue), queue.count_aside()), (vec![3], 0));
        queue.acknowledge(1);
        assert_eq!((queue.bytes(), queue.is_empty(), queue.spare(None, 0..=S)), (0, true, vec![0..=S]));
    }

    #[test]
    fn what_is_set_aside_is_the_servers_until_a_disk_has_it() {
        let mut queue = Queue::new(1 << 20);
        (1..=2).for_each(|n| hold(&mut queue, n));
        queue.set_next_aside();
        assert_eq!((written(&mut queue), queue.first_unsettled()), (vec![2], Some(1)));
        let asked: Vec<u64> = queue.take_unspooled(usize::MAX).iter().map(|item| item.seq).collect();
        assert_eq!(asked, [S, 2 * S]);
        queue.refused();
        assert!(!queue.is_committed_to(S));
        let again: Vec<u64> = queue.take_unspooled(usize::MAX).iter().map(|item| item.seq).collect();
        assert_eq!(again, asked);
        queue.committed(2 * S);
        assert_eq!((queue.first_unsettled(), queue.is_committed_to(2 * S)), (None, true));
    }

    #[test]
    fn memory_has_little_of_what_is_set_aside() {
        let mut queue = Queue::new(8 * 1000);
        (1..=5).for_each(|n| hold(&mut queue, n));
        spooled(&mut queue);
        (0..5).for_each(|_| queue.set_next_aside());
        assert!(queue.bytes() <= 5 * weight(100), "{}", queue.bytes());
        queue.take_back(|_| true);
        let back = written(&mut queue).len();
        assert_eq!((back + queue.count_aside(), back > 0, queue.count_aside() > 0), (5, true, true));
        assert_eq!(queue.spare(None, 5 * S..=5 * S), []);
    }
}
