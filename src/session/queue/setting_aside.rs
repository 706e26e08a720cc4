//! The part of the queue that sets stanzas aside because the client breaks on them.

use std::ops::RangeInclusive;

use super::Queue;
use super::queued::Queued;
use crate::push::account::LoginId;
use crate::push::guard::Mark;
use crate::seq::Seq;

impl Queue {
    /// Sets a written stanza aside. A placeholder stays in the queue, because the client may count the stanza.
    pub fn set_written_aside(&mut self, seq: Seq, mark: Mark) {
        let item = self.segments.remove_written(seq);
        self.put_aside(item, mark);
    }

    /// Sets aside the next stanza to be written.
    pub fn set_next_aside(&mut self, mark: Mark) {
        let item = self.segments.remove_next();
        self.put_aside(item, mark);
    }

    fn put_aside(&mut self, item: Option<Queued>, mark: Mark) {
        if let Some(item) = item {
            self.aside.add(item, mark, self.room.limit() / 8, self.segments.committed());
        }
        self.on_changed();
    }

    /// The stanzas that are set aside.
    pub fn aside(&self) -> impl Iterator<Item = &Queued> {
        self.aside.iter()
    }

    /// The marks of the first `count` written stanzas, including those that were set aside after they were written. `mark_of`
    /// returns the mark of a stanza with its content.
    pub fn marks_of_written(&self, count: usize, mark_of: fn(&Queued) -> Mark) -> impl Iterator<Item = Mark> {
        let written = self.segments.written().take(count);
        written.filter_map(move |item| if item.gone { self.aside.mark(item.seq) } else { Some(mark_of(item)) })
    }

    /// The number of stanzas that are set aside.
    pub fn count_aside(&self) -> usize {
        self.aside.len()
    }

    /// Puts the chosen stanzas back at their positions. Call it only when no written stanza awaits acknowledgement.
    pub fn take_back(&mut self, mut which: impl FnMut(&Queued) -> bool) {
        for item in self.aside.remove(|item| !item.gone && which(item)) {
            self.segments.insert(Queued { waited: true, ..item });
        }
        self.on_changed();
    }

    /// Removes the chosen stanzas from those that are set aside, and returns them.
    pub fn remove_aside(&mut self, which: impl FnMut(&Queued) -> bool) -> Vec<Queued> {
        let removed = self.aside.remove(which);
        self.on_changed();
        removed
    }

    /// Removes the set-aside stanzas among the first `count` written ones, which the client has acknowledged, and returns
    /// them.
    pub fn acknowledge_aside(&mut self, count: usize) -> Vec<Queued> {
        if self.aside.is_empty() {
            return Vec::new();
        }
        let written = self.segments.written().take(count).filter(|item| item.gone);
        let written: Vec<Seq> = written.map(|item| item.seq).collect();
        self.remove_aside(|item| written.contains(&item.seq))
    }

    /// Returns the range `places` of a spool without the numbers of stanzas that are set aside. `None` is the session's own
    /// spool.
    pub fn spare(&self, spool: Option<LoginId>, places: RangeInclusive<Seq>) -> Vec<RangeInclusive<Seq>> {
        let place = |item: &Queued| match self.origin(item.seq) {
            Some((other, place)) => (spool == Some(other)).then_some(place),
            None => spool.is_none().then_some(item.seq),
        };
        let mut spared: Vec<Seq> = self.aside().filter_map(place).filter(|place| places.contains(place)).collect();
        spared.sort_unstable();
        let (mut start, end) = (Some(*places.start()), *places.end());
        let mut parts = Vec::with_capacity(spared.len() + 1);
        for place in spared {
            parts.extend(start.filter(|start| *start < place).map(|start| start..=place.previous()));
            start = place.checked_next();
        }
        parts.extend(start.filter(|start| *start <= end).map(|start| start..=end));
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::super::spooled::weight;
    use super::super::{Placement, STRIDE};
    use super::*;
    use crate::clock::UnixMillis;
    use crate::seq::ServerSeq;
    use crate::session::tests::{element, message};
    use crate::xml::Kind;

    const S: u64 = STRIDE;

    fn hold(queue: &mut Queue, n: usize) {
        hold_xml(queue, n, &message(n));
    }

    fn hold_xml(queue: &mut Queue, n: usize, xml: &str) {
        let element = element(xml);
        let Placement::Memory(seq) = queue.place(element.bytes().len()) else { panic!("no room") };
        queue.hold(Queued::new(element, seq, UnixMillis::new(0)).of_leg(Some(ServerSeq::new(n as u64))).durable());
    }

    fn spooled(queue: &mut Queue) {
        let last = queue.take_unspooled(usize::MAX).iter().map(|item| item.seq).max();
        queue.on_committed(last.unwrap_or_default());
    }

    fn written(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.write_next().map(|item| item.seq.get() / S)).collect()
    }

    #[test]
    fn what_is_set_aside_keeps_the_clients_count_and_is_spared_by_deletions() {
        let mut queue = Queue::new(1 << 20);
        (1..=4).for_each(|n| hold(&mut queue, n));
        spooled(&mut queue);
        assert_eq!(written(&mut queue), [1, 2, 3, 4]);
        let bytes = queue.bytes();
        queue.set_written_aside(Seq::new(S), Mark(1));
        queue.set_written_aside(Seq::new(3 * S), Mark(3));
        assert_eq!(queue.first_unacked().map(|item| item.seq), Some(Seq::new(2 * S)));
        assert_eq!((queue.iter().count(), queue.count_aside(), queue.bytes() >= bytes), (2, 2, true));
        assert_eq!(
            queue.spare(None, Seq::range(0..=4 * S)),
            [Seq::range(0..=S - 1), Seq::range(S + 1..=3 * S - 1), Seq::range(3 * S + 1..=4 * S)]
        );
        assert_eq!(queue.spare(None, Seq::range(2 * S..=3 * S)), [Seq::range(2 * S..=3 * S - 1)]);
        assert_eq!(queue.spare(None, Seq::range(3 * S..=3 * S)), []);
        assert_eq!(queue.spare(Some(LoginId(9)), Seq::range(0..=4 * S)), [Seq::range(0..=4 * S)]);
        // The client has acknowledged the first two.
        let mark_of = |item: &Queued| Mark(item.seq.get() / S);
        assert_eq!(queue.marks_of_written(2, mark_of).collect::<Vec<_>>(), [1, 2].map(Mark));
        assert_eq!(queue.acknowledge_aside(2).len(), 1);
        queue.acknowledge(2);
        queue.rewind();
        assert_eq!((written(&mut queue), queue.count_aside()), (vec![4], 1));
        queue.acknowledge(1);
        queue.take_back(|_| true);
        assert_eq!((written(&mut queue), queue.count_aside()), (vec![3], 0));
        queue.acknowledge(1);
        assert_eq!(
            (queue.bytes(), queue.is_empty(), queue.spare(None, Seq::range(0..=S))),
            (0, true, vec![Seq::range(0..=S)])
        );
    }

    #[test]
    fn what_is_set_aside_is_the_servers_until_a_disk_has_it() {
        let mut queue = Queue::new(1 << 20);
        (1..=2).for_each(|n| hold(&mut queue, n));
        queue.set_next_aside(Mark(1));
        assert_eq!((written(&mut queue), queue.first_unsettled()), (vec![2], Some(ServerSeq::new(1))));
        let asked: Vec<Seq> = queue.take_unspooled(usize::MAX).iter().map(|item| item.seq).collect();
        assert_eq!(asked, [S, 2 * S].map(Seq::new));
        queue.on_refused();
        assert!(!queue.is_committed_to(Seq::new(S)));
        let again: Vec<Seq> = queue.take_unspooled(usize::MAX).iter().map(|item| item.seq).collect();
        assert_eq!(again, asked);
        queue.on_committed(Seq::new(2 * S));
        assert_eq!((queue.first_unsettled(), queue.is_committed_to(Seq::new(2 * S))), (None, true));
    }

    #[test]
    fn memory_has_little_of_what_is_set_aside() {
        let mut queue = Queue::new(8 * 1000);
        (1..=5).for_each(|n| hold(&mut queue, n));
        spooled(&mut queue);
        (1..=5).for_each(|n| queue.set_next_aside(Mark(n)));
        assert!(queue.bytes() <= 5 * weight(100), "{}", queue.bytes());
        queue.take_back(|_| true);
        let back = written(&mut queue).len();
        assert_eq!((back + queue.count_aside(), back > 0, queue.count_aside() > 0), (5, true, true));
        assert_eq!(queue.spare(None, Seq::range(5 * S..=5 * S)), []);
    }

    /// A stanza that is not acknowledged to the server goes back to it, whether memory has the content or not.
    #[test]
    fn what_only_the_disk_has_is_still_known_by_its_numbers() {
        let mut queue = Queue::new(8 * 100);
        hold(&mut queue, 1);
        spooled(&mut queue);
        queue.set_next_aside(Mark(1));
        let aside = queue.remove_aside(|item| item.server_seq == Some(ServerSeq::new(1)));
        assert_eq!(aside.iter().map(|item| (item.seq.get(), item.is_gone())).collect::<Vec<_>>(), [(S, true)]);
        assert!(aside[0].is_spooled());
    }

    #[test]
    fn of_requests_that_only_the_disk_has_memory_keeps_the_addresses_up_to_a_limit() {
        let mut queue = Queue::new(1 << 20);
        let id = "i".repeat(1000);
        for n in 1..=200 {
            let xml = format!("<iq type='get' id='{id}{n}' from='a@b/c' to='d@e/f'><x xmlns='y'>{id}{id}</x></iq>");
            hold_xml(&mut queue, n, &xml);
        }
        spooled(&mut queue);
        queue.change_limit(8 * 100);
        (1..=200).for_each(|n| queue.set_next_aside(Mark(n)));
        let requests: Vec<&Queued> = queue.aside().filter(|item| item.element.kind() == Kind::Iq).collect();
        assert!((50..60).contains(&requests.len()), "{}", requests.len());
        let head = format!("<iq type='get' id='{id}1' from='a@b/c' to='d@e/f'/>");
        assert_eq!(requests[0].element.bytes(), head.as_bytes());
        assert!(queue.bytes() < (64 << 10) + 200 * weight(100), "{}", queue.bytes());
    }
}
