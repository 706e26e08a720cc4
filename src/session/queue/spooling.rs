//! The queue between memory and the disk: stanzas that go to the spool, and stanzas that are read back.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::notes::Notes;
use super::queued::Queued;
use super::spilled::NoStanza;
use super::spooled::{Load, Spooled, weight};
use super::unsaved::Unsaved;
use super::{Place, Queue};
use crate::push::account::LoginId;
use crate::xml::{Element, Header, Kind};

/// Stanzas that go to the spool.
impl Queue {
    /// The place of a stanza of so many bytes that came now. [`Queue::hold`] or [`Queue::hold_for_spool`] must follow.
    pub fn place(&mut self, len: usize) -> Place {
        let seq = self.numbers.take();
        if !self.tail.is_open() {
            let full = self.room.shortage(self.bytes(), weight(len));
            if full.is_none() {
                return Place::Memory(seq);
            }
            self.tail.begin(seq - 1);
            self.room.on_full(full);
        }
        Place::SpoolOnly(seq)
    }

    /// Lets a stanza that was given [`Place::SpoolOnly`] wait for the disk.
    pub fn hold_for_spool(&mut self, item: Queued) {
        self.flight.push(item);
        self.on_changed();
    }

    /// Gives away numbers for stanzas that the spool will have: they come before all that is pushed from now on. Returns the
    /// first and the last; [`Queue::committed`] with the last one says that they are there.
    pub fn reserve(&mut self) -> RangeInclusive<u64> {
        let places = self.numbers.reserve();
        self.tail.begin(places.start() - 1);
        self.flight.reserve(places.clone());
        places
    }

    /// The durable stanzas that the spool was not asked to take yet, up to so much weight and one at least; it is now. Those
    /// that only the disk will have are taken of every kind.
    pub fn take_unspooled(&mut self, at_most: usize) -> Vec<Queued> {
        let (mut taken, mut left) = (Vec::new(), at_most);
        let mut take = |item: &mut Queued| {
            let weight = item.weight();
            if !taken.is_empty() && weight > left {
                return false;
            }
            left = left.saturating_sub(weight);
            item.spooled = true;
            taken.push(item.clone());
            true
        };
        if self.segments.hand_over(&mut take) {
            self.flight.hand_over(&mut take);
        }
        // The places of those that are set aside are in front, so that they do not come behind a trial.
        if at_most == usize::MAX && !self.aside.is_empty() {
            self.aside.hand_over(|item| {
                item.spooled = true;
                taken.push(item.clone());
            });
            taken.sort_unstable_by_key(|item| item.seq);
        }
        self.on_changed();
        taken
    }

    /// The oldest durable stanza that the spool was not asked to take.
    pub fn oldest_unspooled(&self) -> Option<&Queued> {
        self.segments.oldest_unspooled()
    }

    /// What was handed to the spool up to this place is on disk.
    pub fn committed(&mut self, seq: u64) {
        self.segments.on_committed(seq);
        self.flight.on_committed(seq);
        self.close_tail();
        self.on_changed();
    }

    /// The spool has refused what it was asked to take, or was not asked in the end. Returns whether numbers were set aside for
    /// adopted stanzas, which are not moved then.
    pub fn refused(&mut self) -> bool {
        let committed = self.last_committed();
        self.segments.on_refused();
        self.aside.on_refused(committed);
        let reserved = self.flight.on_refused(committed);
        self.close_tail();
        self.on_changed();
        reserved
    }

    /// What was handed to the spool up to here is on disk.
    pub fn last_committed(&self) -> u64 {
        self.segments.committed()
    }

    /// Whether all that must not be lost is on disk.
    pub fn is_committed(&self) -> bool {
        self.unsaved().stanzas == 0
    }

    /// The same for what came up to this number.
    pub fn is_committed_to(&self, seq: u64) -> bool {
        let flying = self.flight.stanzas().next().map(|item| item.seq);
        let aside = self.aside.first_unsaved(self.last_committed());
        self.segments.first_unsaved().into_iter().chain(flying).chain(aside).all(|unsaved| unsaved > seq)
    }

    /// The stanzas on their way to the disk.
    pub fn in_flight(&self) -> impl Iterator<Item = &Queued> {
        self.flight.stanzas()
    }

    /// Forgets the stanzas on their way to the disk that need not get there.
    pub fn drop_from_flight(&mut self, unwanted: impl Fn(&Queued) -> bool) {
        self.flight.remove_where(unwanted);
        self.close_tail();
        self.on_changed();
    }

    /// Moves stanzas that wait for the disk into memory, as far as it has room and nothing that is on disk comes before them.
    /// Returns whether there were any.
    pub fn promote(&mut self) -> bool {
        let mut promoted = false;
        while self.tail.is_read_to(self.last_committed())
            && let Some(first) = self.flight.first()
        {
            if !self.segments.is_empty() && self.bytes() + first.weight() > self.room.limit() {
                break;
            }
            let Some(item) = self.flight.take_first() else { break };
            self.tail.on_read(item.seq);
            self.segments.push(Queued { waited: true, ..item });
            promoted = true;
        }
        self.close_tail();
        self.on_changed();
        promoted
    }

    /// What is neither the client's nor on disk.
    pub fn unsaved(&self) -> Unsaved {
        let (memory, flying) = (self.segments.unsaved(), self.flight.unsaved());
        Unsaved { stanzas: memory.stanzas + flying.stanzas, bytes: memory.bytes + flying.bytes }
    }

    /// Whether more is neither the client's nor on disk than memory may hold for long.
    pub fn has_too_much_unsaved(&self) -> bool {
        self.segments.unsaved().bytes + self.flight.bytes() > self.room.for_unsaved()
    }

    /// Takes the oldest stanza that is neither the client's nor on disk.
    pub fn take_oldest_unsaved(&mut self) -> Option<Queued> {
        let taken = self.segments.remove_oldest_unsaved().or_else(|| {
            let item = self.flight.take_oldest()?;
            self.tail.forget_note(item.seq);
            Some(item)
        });
        self.close_tail();
        self.on_changed();
        taken
    }

    /// Whether more stanzas may come from the server: else the disk is too slow for them.
    pub fn has_room(&self) -> bool {
        self.flight.bytes() < self.room.for_unsaved()
    }

    /// Whether this is the number of an adopted stanza.
    pub fn is_adopted(&self, seq: u64) -> bool {
        self.flight.is_adopted(seq)
    }

    /// What is noted about stanzas that only the spool has.
    pub fn noted(&mut self) -> &mut Notes {
        self.tail.notes()
    }

    /// Newer stanzas go to memory again once all that the spool alone has was read back.
    fn close_tail(&mut self) {
        if self.flight.is_empty() && self.tail.is_read_to(self.last_committed()) {
            self.tail.close();
        }
    }
}

/// Stanzas that are read back.
impl Queue {
    /// What is to be read back now.
    pub fn wants_load(&self) -> Option<Load> {
        let (spool, after) = self.next_load()?;
        // One stanza at a time goes on even where others have taken all.
        let comes_first = spool.is_some() || self.rests();
        // What was read and not acknowledged is written again first.
        let none_written = !self.segments.has_written() && self.next_unwritten().is_none();
        let none_to_acknowledge = if comes_first { none_written } else { self.segments.is_empty() };
        let weight = self.room.for_load(self.held()).max(usize::from(none_to_acknowledge));
        (weight > 0).then_some(Load { spool, after, weight })
    }

    /// The spool to read back from, and behind which place.
    fn next_load(&self) -> Option<(Option<LoginId>, u64)> {
        let gap = self.earlier.gap();
        if let Some(first) = self.spill.first().filter(|first| gap.is_none_or(|before| *first < before)) {
            return Some((None, first - 1));
        }
        match gap {
            Some(before) if !self.has_adopted_before(before) => {
                self.earlier.next().map(|(spool, after)| (Some(spool), after))
            }
            _ => self.tail.after().filter(|after| *after < self.last_committed()).map(|after| (None, after)),
        }
    }

    /// Whether adopted stanzas on disk come before this number.
    fn has_adopted_before(&self, seq: u64) -> bool {
        self.tail.after().is_some_and(|after| self.flight.has_adopted_between(after, seq))
    }

    /// What the stanzas in memory count for.
    fn held(&self) -> usize {
        self.segments.bytes() + self.aside.bytes()
    }

    /// Whether more can be read back before the client acknowledges something.
    pub fn is_full(&self) -> bool {
        self.room.is_full(self.held(), self.segments.is_empty())
    }

    /// A stanza was read back from the spool: if it rested, it takes its place again. Returned is one that comes behind all that
    /// is in memory, and is to be appended; memory, or the client, has the others.
    ///
    /// # Errors
    /// [`NoStanza`] if something rested there that is no stanza any more: it does not wait from now on.
    pub fn read_back(&mut self, item: Spooled) -> Result<Option<Spooled>, NoStanza> {
        let restored = self.spill.take(&item);
        let is_new = restored.is_none() && self.tail.has(item.seq);
        let restored = restored.transpose();
        if let Ok(Some(element)) = &restored {
            self.segments.insert(Queued::read_back(element.clone(), item.seq, item.received));
        }
        self.on_changed();
        restored.map(|_| is_new.then_some(item))
    }

    /// Appends a stanza that was read back from the spool.
    pub fn push_loaded(&mut self, seq: u64, element: Element, received: u64) {
        self.skip_loaded(seq);
        self.hold(Queued::read_back(element, seq, received));
    }

    /// A stanza that was read back is not for the client.
    pub fn skip_loaded(&mut self, seq: u64) {
        self.tail.on_read(seq);
    }

    /// A batch was read back: if it was the last one, newer stanzas go to memory again.
    pub fn loaded_some(&mut self) {
        self.close_tail();
    }

    /// All that was on disk when it was asked for has been read back.
    pub fn loaded_all(&mut self, committed: u64) {
        self.tail.on_read_all(committed);
        self.spill.clear();
        self.close_tail();
        self.on_changed();
    }

    /// Lets unwritten messages rest that are on disk, up to this number on the server's leg, and of which `is_archived` says
    /// that they may, and whether the server's archive has them. `bare`: the header under which the spool has them.
    pub fn rest(&mut self, acked: u64, bare: &Arc<Header>, is_archived: impl Fn(&Queued) -> Option<bool>) {
        let spill = &mut self.spill;
        self.segments.spill(acked, |item| {
            item.element.kind() == Kind::Message
                && is_archived(item).is_some_and(|archived| spill.add(item, archived, bare))
        });
        self.on_changed();
    }

    /// Whether messages rest.
    pub fn rests(&self) -> bool {
        !self.spill.is_empty()
    }

    /// The places of messages that rest and are in the server's archive.
    pub fn archived_at_rest(&self) -> impl Iterator<Item = u64> {
        self.spill.archived()
    }

    /// Whether stanzas wait in the spool alone, behind which newer ones join.
    pub fn has_tail(&self) -> bool {
        self.tail.is_open() || self.rests() || self.has_gap()
    }

    /// Whether the stanza at this place is not in memory, as far as it waits.
    pub fn is_on_disk_only(&self, seq: u64) -> bool {
        self.tail.has(seq) || self.spill.has(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::super::STRIDE;
    use super::*;

    #[test]
    fn what_was_not_written_stays_unwritten_when_written_stanzas_are_removed() {
        let mut queue = Queue::new(1 << 20);
        for xml in ["<iq/>", "<message/>", "<message id='2'/>", "<message id='3'/>"] {
            let element = Element::parse(xml.into(), &Header::bare()).unwrap();
            let super::super::Place::Memory(seq) = queue.place(xml.len()) else { panic!("no room") };
            queue.hold(Queued::new(element, seq, 0).of_leg(None, true));
        }
        for _ in 0..2 {
            assert!(queue.write_next().is_some());
        }
        assert_eq!(queue.remove_where(|item| item.seq == STRIDE).len(), 1);
        assert_eq!(queue.next_unwritten().map(|next| next.seq), Some(3 * STRIDE));
    }

    #[test]
    fn a_message_comes_back_as_it_came_whatever_was_added_for_the_spool() {
        let header = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xml:lang='en' xmlns:p='u'>";
        let header = Arc::new(Header::parse(header.into()).unwrap());
        for xml in
            ["<message><p:a/></message>", "<message\n to='a'/>", "<message/>", "<message xml:lang='de'></message>"]
        {
            let mut queue = Queue::new(1 << 20);
            for _ in 0..2 {
                let element = Element::parse(xml.into(), &header).unwrap();
                let super::super::Place::Memory(seq) = queue.place(xml.len()) else { panic!("no room") };
                queue.hold(Queued::new(element, seq, 0).of_leg(None, true));
            }
            let bare = Header::bare();
            let spooled =
                queue.take_unspooled(usize::MAX).into_iter().map(|Queued { element, seq, received, .. }| {
                    let bytes = element.on_stream(&bare);
                    Spooled { seq, received, shared: false, archived: false, bytes }
                });
            let spooled: Vec<_> = spooled.collect();
            queue.committed(2 * STRIDE);
            let before = queue.bytes();
            queue.rest(0, &bare, |item| (item.seq == STRIDE).then_some(false));
            assert!(queue.bytes() < before && queue.is_on_disk_only(STRIDE) && queue.write_next().is_none());
            assert!(spooled.into_iter().all(|item| queue.read_back(item).unwrap().is_none()), "memory has the other");
            assert_eq!((queue.bytes(), queue.len(), queue.has_tail()), (before, 2, false));
            let written = queue.write_next().unwrap();
            assert_eq!((written.seq, &written.element.bytes()[..]), (STRIDE, xml.as_bytes()));
            assert!(Arc::ptr_eq(written.element.header(), &header));
        }
    }
}
