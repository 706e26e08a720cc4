//! Stanzas that are set aside because the client breaks on them. They are not written and do not count as waiting. They stay in
//! their spools when the places around them are deleted, and can go back to their places in the queue.

use super::queued::Queued;
use crate::push::guard::Mark;
use crate::seq::{Seq, ServerSeq};
use crate::xml::HeaderPool;

/// The bytes in addition to the room for contents up to which placeholders keep what the refusals of iq requests are made of.
/// Requests beyond this wait on disk until a session takes or drops them.
const REQUESTS: usize = 64 << 10;

/// A stanza that is set aside. If it is [`Queued::gone`], only the spool has its content.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct AsideStanza {
    item: Queued,
    mark: Mark,
}

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Stanzas {
    items: Vec<AsideStanza>,
    #[serde(skip)]
    bytes: usize,
}

/// The stanzas that are set aside, oldest first. Most sessions have none.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct SetAside(Option<Box<Stanzas>>);

impl SetAside {
    /// Completes and counts the stanzas after they were read from a record.
    pub(super) fn restore(&mut self, headers: &mut HeaderPool<'_>) {
        self.iter_mut().for_each(|item| item.element.share_header(headers));
        if let Some(aside) = &mut self.0 {
            aside.bytes = aside.items.iter().map(|stanza| stanza.item.weight()).sum();
        }
    }

    fn stanzas(&self) -> impl Iterator<Item = &AsideStanza> {
        self.0.iter().flat_map(|aside| &aside.items)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.stanzas().map(|stanza| &stanza.item)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Queued> {
        self.0.iter_mut().flat_map(|aside| &mut aside.items).map(|stanza| &mut stanza.item)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |aside| aside.items.len())
    }

    /// The memory charge of the stanzas, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |aside| aside.bytes)
    }

    pub(super) fn has(&self, seq: Seq) -> bool {
        self.iter().any(|item| item.seq == seq)
    }

    /// The mark of the stanza with this number.
    pub(super) fn mark(&self, seq: Seq) -> Option<Mark> {
        self.stanzas().find(|stanza| stanza.item.seq == seq).map(|stanza| stanza.mark)
    }

    /// The number of the oldest stanza that neither the client nor the disk has.
    pub(super) fn first_unsaved(&self, committed: Seq) -> Option<Seq> {
        self.iter().filter(|item| item.is_unsaved(committed)).map(|item| item.seq).min()
    }

    /// The server's lowest number of the stanzas that the server has to keep.
    pub(super) fn first_unsettled(&self, committed: Seq) -> Option<ServerSeq> {
        self.iter().filter(|item| !item.is_settled(committed)).filter_map(|item| item.server_seq).min()
    }

    /// Returns whether the byte count is correct. Only debug builds call it.
    pub(super) fn check(&self) -> bool {
        self.bytes() == self.iter().map(Queued::weight).sum::<usize>()
    }

    /// Adds a stanza. If memory would exceed `room` and the disk has the content, only the disk keeps it: the stanza comes
    /// back with the device's next session.
    pub(super) fn add(&mut self, item: Queued, mark: Mark, room: usize, committed: Seq) {
        let on_disk = item.durable && item.is_settled(committed) && !item.is_unsaved(committed);
        let fits = |item: &Queued, room: usize| self.bytes() + item.weight() <= room;
        let item = if on_disk && !fits(&item, room) {
            let request = item.gone_request().filter(|request| fits(request, room + REQUESTS));
            let placeholder = request.unwrap_or_else(|| item.gone());
            Queued { spooled: true, server_seq: item.server_seq, ..placeholder }
        } else {
            item
        };
        let aside = self.0.get_or_insert_default();
        aside.bytes += item.weight();
        aside.items.push(AsideStanza { item, mark });
    }

    /// Removes the chosen stanzas.
    pub(super) fn remove(&mut self, mut which: impl FnMut(&Queued) -> bool) -> Vec<Queued> {
        let Some(aside) = &mut self.0 else { return Vec::new() };
        let (removed, left): (Vec<_>, Vec<_>) = aside.items.drain(..).partition(|stanza| which(&stanza.item));
        let removed: Vec<Queued> = removed.into_iter().map(|stanza| stanza.item).collect();
        aside.bytes -= removed.iter().map(Queued::weight).sum::<usize>();
        aside.items = left;
        if aside.items.is_empty() {
            self.0 = None;
        }
        removed
    }

    /// Passes the stanzas that have to be spooled and were not handed to the spool yet to `take`.
    pub(super) fn hand_over(&mut self, mut take: impl FnMut(&mut Queued)) {
        self.iter_mut().filter(|item| item.must_be_handed()).for_each(&mut take);
    }

    /// Notes that the spool refused the stanzas.
    pub(super) fn on_refused(&mut self, committed: Seq) {
        self.iter_mut().for_each(|item| item.on_refused(committed));
    }
}
