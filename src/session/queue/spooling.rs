//! The part of the queue that moves stanzas to the spool and reads them back.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::notes::Notes;
use super::queued::Queued;
use super::spilled::{ArchiveCopy, NoStanza};
use super::spooled::{Load, Spooled, weight};
use super::unsaved::Unsaved;
use super::{Placement, Queue};
use crate::clock::UnixMillis;
use crate::push::account::LoginId;
use crate::seq::{Seq, ServerSeq};
use crate::xml::{Element, Header, Kind};

/// Stanzas on their way to the spool.
impl Queue {
    /// Allocates a number for a new stanza of this length. [`Queue::hold`] or [`Queue::hold_for_spool`] must follow.
    pub fn place(&mut self, len: usize) -> Placement {
        let seq = self.numbers.take();
        if !self.tail.is_open() {
            let full = self.room.shortage(self.bytes(), weight(len));
            if full.is_none() {
                return Placement::Memory(seq);
            }
            self.tail.begin(seq.previous());
            self.room.on_full(full);
        }
        Placement::SpoolOnly(seq)
    }

    /// Holds a stanza with [`Placement::SpoolOnly`] until it is on disk.
    pub fn hold_for_spool(&mut self, item: Queued) {
        self.flight.push(item);
        self.on_changed();
    }

    /// Reserves numbers for stanzas that the store moves into the spool. They come before all stanzas that are pushed
    /// later. Returns the range; [`Queue::on_committed`] with its end reports that the stanzas are there.
    pub fn reserve(&mut self) -> RangeInclusive<Seq> {
        let places = self.numbers.reserve();
        self.tail.begin(places.start().previous());
        self.flight.reserve(places.clone());
        places
    }

    /// Takes the durable stanzas that were not handed to the spool yet, up to this total weight but one at least, and marks
    /// them as handed over. Of the stanzas that only the disk will hold, all kinds are taken.
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
        // Stanzas set aside come first in the order, so that they do not come behind a trial.
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

    /// The oldest durable stanza that was not handed to the spool.
    pub fn oldest_unspooled(&self) -> Option<&Queued> {
        self.segments.oldest_unspooled()
    }

    /// Notes that everything handed to the spool up to this number is on disk.
    pub fn on_committed(&mut self, seq: Seq) {
        self.segments.on_committed(seq);
        self.flight.on_committed(seq);
        self.close_tail();
        self.on_changed();
    }

    /// Notes that the spool refused the stanzas, or that they were not handed over in the end. Returns whether numbers were
    /// reserved for adopted stanzas; those are not moved in this case.
    pub fn on_refused(&mut self) -> bool {
        let committed = self.last_committed();
        self.segments.on_refused();
        self.aside.on_refused(committed);
        let reserved = self.flight.on_refused(committed);
        self.close_tail();
        self.on_changed();
        reserved
    }

    /// The number up to which everything handed to the spool is on disk.
    pub fn last_committed(&self) -> Seq {
        self.segments.committed()
    }

    /// Returns whether everything that must not be lost is on disk.
    pub fn is_committed(&self) -> bool {
        self.unsaved().stanzas == 0
    }

    /// Returns whether everything that must not be lost, up to this number, is on disk.
    pub fn is_committed_to(&self, seq: Seq) -> bool {
        let flying = self.flight.stanzas().next().map(|item| item.seq);
        let aside = self.aside.first_unsaved(self.last_committed());
        self.segments.first_unsaved().into_iter().chain(flying).chain(aside).all(|unsaved| unsaved > seq)
    }

    /// The stanzas on their way to the disk.
    pub fn in_flight(&self) -> impl Iterator<Item = &Queued> {
        self.flight.stanzas()
    }

    /// Removes the stanzas on their way to the disk that need not get there.
    pub fn drop_from_flight(&mut self, unwanted: impl Fn(&Queued) -> bool) {
        self.flight.remove_where(unwanted);
        self.close_tail();
        self.on_changed();
    }

    /// Moves stanzas that wait for the disk into memory, while memory has room and no stanza on disk comes before them.
    /// Returns whether any was moved.
    pub fn promote(&mut self) -> bool {
        let mut promoted = false;
        while self.tail.is_read_to(self.last_committed())
            && let Some(first) = self.flight.first()
        {
            if !self.segments.is_empty() && !self.room.has_room(self.bytes(), first.weight()) {
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

    /// The stanzas that neither the client nor the disk has.
    pub fn unsaved(&self) -> Unsaved {
        let (memory, flying) = (self.segments.unsaved(), self.flight.unsaved());
        Unsaved { stanzas: memory.stanzas + flying.stanzas, bytes: memory.bytes + flying.bytes }
    }

    /// Returns whether the stanzas that neither the client nor the disk has exceed what memory may hold for long.
    pub fn has_too_much_unsaved(&self) -> bool {
        self.segments.unsaved().bytes + self.flight.bytes() > self.room.for_unsaved()
    }

    /// Takes the oldest stanza that neither the client nor the disk has.
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

    /// Returns whether more stanzas may come from the server. `false` means that the disk is too slow for them.
    pub fn has_room(&self) -> bool {
        self.flight.bytes() < self.room.for_unsaved()
    }

    /// Returns whether this is the number of an adopted stanza.
    pub fn is_adopted(&self, seq: Seq) -> bool {
        self.flight.is_adopted(seq)
    }

    /// The notes about stanzas that only the spool has.
    pub fn noted(&mut self) -> &mut Notes {
        self.tail.notes()
    }

    /// Closes the tail once everything in it was read back: newer stanzas go to memory again.
    fn close_tail(&mut self) {
        if self.flight.is_empty() && self.tail.is_read_to(self.last_committed()) {
            self.tail.close();
        }
    }
}

/// Stanzas that are read back.
impl Queue {
    /// The request to read back that is due now, if any. Memory keeps room for its stanzas until [`Queue::end_load`].
    pub fn begin_load(&mut self) -> Option<Load> {
        let load = self.due_load()?;
        self.room.reserve_for_load(load.weight);
        Some(load)
    }

    /// Notes that the request to read back was answered, or has failed. After the last stanza of the tail, newer stanzas go
    /// to memory again.
    pub fn end_load(&mut self) {
        self.room.reserve_for_load(0);
        self.close_tail();
    }

    fn due_load(&self) -> Option<Load> {
        let (spool, after) = self.next_load()?;
        // One stanza at a time is read even if other sessions use all shared memory.
        let comes_first = spool.is_some() || self.has_spilled();
        // Stanzas that were read and not acknowledged are written again first.
        let none_written = !self.segments.has_written() && self.next_unwritten().is_none();
        let none_to_acknowledge = if comes_first { none_written } else { self.segments.is_empty() };
        let weight = self.room.for_load(self.held()).max(usize::from(none_to_acknowledge));
        (weight > 0).then_some(Load { spool, after, weight })
    }

    /// The spool to read back from, and the number after which to read.
    fn next_load(&self) -> Option<(Option<LoginId>, Seq)> {
        let gap = self.earlier.gap();
        if let Some(first) = self.spill.first().filter(|first| gap.is_none_or(|before| *first < before)) {
            return Some((None, first.previous()));
        }
        match gap {
            Some(before) if !self.has_adopted_before(before) => {
                self.earlier.next().map(|(spool, after)| (Some(spool), after))
            }
            _ => self.tail.after().filter(|after| *after < self.last_committed()).map(|after| (None, after)),
        }
    }

    /// Returns whether adopted stanzas on disk come before this number.
    fn has_adopted_before(&self, seq: Seq) -> bool {
        self.tail.after().is_some_and(|after| self.flight.has_adopted_between(after, seq))
    }

    /// The memory charge of the stanzas in memory, in bytes.
    fn held(&self) -> usize {
        self.segments.bytes() + self.aside.bytes()
    }

    /// Returns whether nothing more can be read back before the client acknowledges something.
    pub fn is_full(&self) -> bool {
        !self.segments.is_empty() && (self.room.is_full_for_load(self.held()) || self.room.is_exhausted())
    }

    /// Takes a stanza that was read back from the spool. A spilled stanza returns to its position. Returns a stanza that
    /// comes after everything in memory and is to be appended. All others are in memory already, or the client has them.
    ///
    /// # Errors
    /// [`NoStanza`] if the stored bytes of a spilled stanza are not a stanza. It does not wait any more.
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
    pub fn push_loaded(&mut self, seq: Seq, element: Element, received: UnixMillis) {
        self.skip_loaded(seq);
        self.hold(Queued::read_back(element, seq, received));
    }

    /// Skips a stanza that was read back and is not for the client.
    pub fn skip_loaded(&mut self, seq: Seq) {
        self.tail.on_read(seq);
    }

    /// Notes that everything that was on disk at the time of the request has been read back.
    pub fn loaded_all(&mut self, committed: Seq) {
        self.tail.on_read_all(committed);
        self.spill.clear();
        self.close_tail();
        self.on_changed();
    }

    /// Removes unwritten messages that are on disk from memory, up to this server number, unless `archive_copy` returns
    /// `None`. `bare` is the header under which the spool stores them.
    pub fn spill(
        &mut self,
        acked: ServerSeq,
        bare: &Arc<Header>,
        archive_copy: impl Fn(&Queued) -> Option<ArchiveCopy>,
    ) {
        let spill = &mut self.spill;
        self.segments.spill(acked, |item| {
            item.element.kind() == Kind::Message && archive_copy(item).is_some_and(|copy| spill.add(item, copy, bare))
        });
        self.on_changed();
    }

    /// Returns whether any messages are spilled.
    pub fn has_spilled(&self) -> bool {
        !self.spill.is_empty()
    }

    /// The numbers of spilled messages that are in the server's archive.
    pub fn archived_of_spilled(&self) -> impl Iterator<Item = Seq> {
        self.spill.archived()
    }

    /// Returns whether stanzas wait in the spool alone; newer stanzas join them.
    pub fn has_tail(&self) -> bool {
        self.tail.is_open() || self.has_spilled() || self.has_gap()
    }

    /// Returns whether the stanza with this number, if it waits, is on disk only.
    pub fn is_on_disk_only(&self, seq: Seq) -> bool {
        self.tail.has(seq) || self.spill.has(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::super::STRIDE;
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_came_whatever_was_added_for_the_spool() {
        let header = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xml:lang='en' xmlns:p='u'>";
        let header = Arc::new(Header::parse(header.into()).unwrap());
        for xml in
            ["<message><p:a/></message>", "<message\n to='a'/>", "<message/>", "<message xml:lang='de'></message>"]
        {
            let (mut queue, first) = (Queue::new(1 << 20), Seq::new(STRIDE));
            for _ in 0..2 {
                let element = Element::parse(xml.into(), &header).unwrap();
                let super::super::Placement::Memory(seq) = queue.place(xml.len()) else { panic!("no room") };
                queue.hold(Queued::new(element, seq, UnixMillis::new(0)).durable());
            }
            let bare = Header::bare();
            let spooled =
                queue.take_unspooled(usize::MAX).into_iter().map(|Queued { element, seq, received, .. }| {
                    let bytes = element.on_stream(&bare);
                    Spooled { seq, received, shared: false, archived: false, bytes }
                });
            let spooled: Vec<_> = spooled.collect();
            queue.on_committed(Seq::new(2 * STRIDE));
            let before = queue.bytes();
            queue.spill(ServerSeq::ZERO, &bare, |item| (item.seq == first).then_some(ArchiveCopy::Absent));
            assert!(queue.bytes() < before && queue.is_on_disk_only(first) && queue.write_next().is_none());
            assert!(spooled.into_iter().all(|item| queue.read_back(item).unwrap().is_none()), "memory has the other");
            assert_eq!((queue.bytes(), queue.len(), queue.has_tail()), (before, 2, false));
            let written = queue.write_next().unwrap();
            assert_eq!((written.seq, &written.element.bytes()[..]), (first, xml.as_bytes()));
            assert!(Arc::ptr_eq(written.element.header(), &header));
        }
    }
}
