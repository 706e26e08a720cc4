//! Spilled messages: while no client reads them, only the spool holds them. They come back in their order.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::queued::Queued;
use super::spooled::Spooled;
use crate::seq::Seq;
use crate::xml::{Element, Header, HeaderPool};

/// The initial capacity.
const FEW: usize = 4;

/// The data in memory about a spilled message.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct SpilledPlace {
    seq: Seq,
    /// The number of bytes that were added after the element's name for the spool.
    added: u16,
    /// True if the server's archive has it.
    archived: bool,
}

/// The spilled messages, oldest first. All came on streams with the same header.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct SpilledPlaces {
    header: Arc<Header>,
    places: VecDeque<SpilledPlace>,
}

/// The presence of a message in the server's archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveCopy {
    /// The archive has it.
    Present,
    /// The archive does not have it, or this is unknown.
    Absent,
}

/// Error: the bytes that were read back are not a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoStanza;

/// The messages that are spilled. Other stanzas between them may be in memory.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Spill(Option<Box<SpilledPlaces>>);

impl Spill {
    /// Completes the entries after they were read from a record.
    pub(super) fn restore(&mut self, headers: &mut HeaderPool<'_>) {
        self.0.iter_mut().for_each(|spilled| headers.share(&mut spilled.header));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |spilled| spilled.places.len())
    }

    /// The memory charge of the entries, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.len() * size_of::<SpilledPlace>()
    }

    /// The number of the first spilled message.
    pub(super) fn first(&self) -> Option<Seq> {
        self.0.as_ref()?.places.front().map(|place| place.seq)
    }

    pub(super) fn has(&self, seq: Seq) -> bool {
        self.0.as_ref().is_some_and(|spilled| spilled.places.binary_search_by_key(&seq, |place| place.seq).is_ok())
    }

    /// The numbers of the messages that are in the server's archive.
    pub(super) fn archived(&self) -> impl Iterator<Item = Seq> {
        let places = self.0.iter().flat_map(|spilled| &spilled.places);
        places.filter(|place| place.archived).map(|place| place.seq)
    }

    /// Adds a message. `bare` is the header under which the spool stores it. Returns `false` if it could not be restored as
    /// it came.
    pub(super) fn add(&mut self, item: &Queued, archive_copy: ArchiveCopy, bare: &Arc<Header>) -> bool {
        let header = item.element.header();
        if self.0.as_ref().is_some_and(|spilled| !header.means_the_same(&spilled.header)) {
            return false;
        }
        let added = item.element.on_stream(bare).len() - item.element.bytes().len();
        let Ok(added) = u16::try_from(added) else { return false };
        let new = || Box::new(SpilledPlaces { header: Arc::clone(header), places: VecDeque::new() });
        let archived = archive_copy == ArchiveCopy::Present;
        self.0.get_or_insert_with(new).add(SpilledPlace { seq: item.seq, added, archived });
        true
    }

    /// Removes all entries up to the stanza that was read back. Returns the message itself, byte for byte as it came.
    pub(super) fn take(&mut self, item: &Spooled) -> Option<Result<Element, NoStanza>> {
        let spilled = self.0.as_mut()?;
        let place = spilled.take(item.seq);
        let restored = place.map(|place| spilled.restored(place, item.bytes.clone()).ok_or(NoStanza));
        if spilled.places.is_empty() {
            self.0 = None;
        }
        restored
    }

    /// Removes all entries: the spool holds none of these messages any more.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}

impl SpilledPlaces {
    /// Removes all entries up to this number. Returns the entry with this number.
    fn take(&mut self, seq: Seq) -> Option<SpilledPlace> {
        let count = self.places.partition_point(|place| place.seq <= seq);
        self.places.drain(..count).next_back().filter(|place| place.seq == seq)
    }

    fn add(&mut self, place: SpilledPlace) {
        if self.places.len() == self.places.capacity() {
            self.places.reserve_exact((self.places.len() / 4).max(FEW));
        }
        let at = self.places.partition_point(|other| other.seq < place.seq);
        self.places.insert(at, place);
    }

    fn restored(&self, place: SpilledPlace, bytes: Bytes) -> Option<Element> {
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
