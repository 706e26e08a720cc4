//! Messages that rest: while nobody is there to read them, the spool alone has them, and they come back in their order.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::number::is_inherited;
use super::spooled::{Spooled, weight};
use super::{FEW, Queue, Queued};
use crate::xml::{Element, Header, Kind};

/// What memory must know of a message that rests.
#[derive(Clone, Copy, Debug)]
struct Place {
    seq: u64,
    /// So many bytes were added behind its name for the spool.
    added: u16,
    /// The server's archive has it.
    archived: bool,
}

/// The messages that rest, oldest first. Between them others may be in memory. All came on the stream of one header.
#[derive(Debug)]
pub(super) struct Resting {
    header: Arc<Header>,
    places: VecDeque<Place>,
}

impl Resting {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// What they count for, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.len() * size_of::<Place>()
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.places.front().map(|place| place.seq)
    }

    pub(super) fn has(&self, seq: u64) -> bool {
        self.places.binary_search_by_key(&seq, |place| place.seq).is_ok()
    }

    /// All up to this place is read back, or is no more; what was known of the one there.
    fn take(&mut self, seq: u64) -> Option<Place> {
        let count = self.places.partition_point(|place| place.seq <= seq);
        self.places.drain(..count).next_back().filter(|place| place.seq == seq)
    }

    fn add(&mut self, place: Place) {
        if self.places.len() == self.places.capacity() {
            self.places.reserve_exact((self.places.len() / 4).max(FEW));
        }
        let at = self.places.partition_point(|other| other.seq < place.seq);
        self.places.insert(at, place);
    }

    /// The message as it came, byte for byte.
    fn restored(&self, place: Place, bytes: Bytes) -> Option<Element> {
        let name_end = bytes.iter().position(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'/' | b'>'))?;
        let rest = bytes.get(name_end + usize::from(place.added)..)?;
        if place.added == 0 {
            return Element::parse(bytes, &self.header).ok();
        }
        let mut original = BytesMut::with_capacity(name_end + rest.len());
        original.extend_from_slice(bytes.get(..name_end)?);
        original.extend_from_slice(rest);
        Element::parse(original.freeze(), &self.header).ok()
    }
}

/// What was read back is no stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoStanza;

impl Queue {
    /// Lets unwritten messages rest that are on disk, up to this number on the server's leg, and of which `is_archived` says
    /// that they may, and whether the server's archive has them. `bare`: the header under which the spool has them.
    pub fn rest(&mut self, acked: u64, bare: &Arc<Header>, is_archived: impl Fn(&Queued) -> Option<bool>) {
        let unwritten = self.items.len() - self.written;
        // Those that are to stay need not be looked at for each that comes.
        self.stayed = self.stayed.min(unwritten);
        if unwritten <= self.stayed + self.stayed / 8 {
            return;
        }
        let (mut at, written, committed) = (0, self.written, self.committed);
        let (mut resting, mut freed, mut count) = (self.resting.take(), 0, 0);
        let mut stayed = 0;
        self.items.retain(|item| {
            at += 1;
            let own = !is_inherited(item.seq);
            let on_disk = own && item.spooled && item.seq <= committed && item.ordinal.is_none_or(|o| o.get() <= acked);
            if at <= written || !on_disk && item.durable {
                return true;
            }
            stayed += 1;
            if !on_disk || item.element.kind() != Kind::Message {
                return true;
            }
            let Some(archived) = is_archived(item) else { return true };
            let header = item.element.header();
            let resting = resting
                .get_or_insert_with(|| Box::new(Resting { header: Arc::clone(header), places: VecDeque::new() }));
            let len = item.element.bytes().len();
            let added = u16::try_from(item.element.on_stream(bare).len() - len);
            let same = header.means_the_same(&resting.header);
            let Some(added) = added.ok().filter(|_| same) else { return true };
            resting.add(Place { seq: item.seq, added, archived });
            (freed, count, stayed) = (freed + weight(len), count + 1, stayed - 1);
            false
        });
        self.stayed = stayed;
        (self.settled, self.considered) = (self.settled.min(written), self.considered.min(written));
        self.notifying -= count;
        self.resting = resting.filter(|resting| resting.len() > 0);
        self.lose_memory(freed);
        self.gain_memory(count * size_of::<Place>());
        if self.items.capacity() > 2 * (self.items.len() + FEW) {
            self.items.shrink_to(self.items.len() + FEW);
        }
    }

    /// A stanza was read back from the spool: if it rested, it takes its place again. Returned is one that comes behind all that
    /// is in memory, and is to be appended; memory, or the client, has the others.
    ///
    /// # Errors
    /// [`NoStanza`] if something rested there that is no stanza any more: it does not wait from now on.
    pub fn read_back(&mut self, item: Spooled) -> Result<Option<Spooled>, NoStanza> {
        let mut place = None;
        if let Some(mut resting) = self.resting.take() {
            let weight = resting.weight();
            place = resting.take(item.seq);
            self.lose_memory(weight - resting.weight());
            let restored = place.map(|place| resting.restored(place, item.bytes.clone()));
            self.resting = Some(resting).filter(|resting| resting.len() > 0);
            match restored {
                Some(Some(element)) => self.put_back(element, &item),
                Some(None) => return Err(NoStanza),
                None => {}
            }
        }
        let beyond = place.is_none() && self.tail.is_some_and(|after| item.seq > after);
        Ok(beyond.then_some(item))
    }

    fn put_back(&mut self, element: Element, item: &Spooled) {
        let queued = Queued::new(element, item.seq, item.received);
        self.put_in_order(Queued { durable: true, waited: true, spooled: true, ..queued });
    }

    /// Whether messages rest.
    pub fn rests(&self) -> bool {
        self.resting.is_some()
    }

    /// The spool has none of those any more that rest.
    pub(super) fn forget_resting(&mut self) {
        if let Some(resting) = self.resting.take() {
            self.lose_memory(resting.weight());
        }
    }

    /// The places of messages that rest and are in the server's archive.
    pub fn archived_at_rest(&self) -> impl Iterator<Item = u64> {
        let places = self.resting.iter().flat_map(|resting| &resting.places);
        places.filter(|place| place.archived).map(|place| place.seq)
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
