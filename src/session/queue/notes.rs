//! Notes about stanzas that only the spool has, for the end of the session.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use bytes::Bytes;

use super::number::next_own;
use crate::seq::Seq;

/// The bytes of refusals that are kept, each with [`ENTRY`]. Requests beyond this wait on disk until a session takes or
/// drops them.
const REFUSALS: usize = 64 << 10;
/// The memory charge of a refusal in addition to its bytes.
const ENTRY: usize = 64;
/// The number of ranges of archived stanzas that are kept. Archived stanzas beyond are treated like those not archived.
const RUNS: usize = 1024;

/// Notes about stanzas after those in memory, in order of their numbers.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Notes {
    /// iq requests, each with its refusal.
    requests: VecDeque<(Seq, Bytes)>,
    #[serde(skip)]
    refusals: usize,
    /// Ranges of consecutive stanzas that the server's archive has.
    archived: VecDeque<RangeInclusive<Seq>>,
}

impl Notes {
    /// Counts the refusals after they were read from a record.
    pub fn restore(&mut self) {
        self.refusals = self.requests.iter().map(|(_, refusal)| refusal.len() + ENTRY).sum();
    }

    /// Notes an iq request and the refusal to send if the client never receives it.
    pub fn note_request(&mut self, seq: Seq, refusal: Bytes) {
        let cost = refusal.len().saturating_add(ENTRY);
        if self.refusals + cost <= REFUSALS {
            self.refusals += cost;
            self.requests.push_back((seq, refusal));
        }
    }

    /// Notes that the server's archive has the stanza with this number.
    pub fn note_archived(&mut self, seq: Seq) {
        let runs = self.archived.len();
        match self.archived.back_mut() {
            Some(last) if next_own(*last.end()) == seq => *last = *last.start()..=seq,
            _ if runs < RUNS => self.archived.push_back(seq..=seq),
            _ => {}
        }
    }

    /// Removes the notes up to this number: the stanzas have been read back, or are gone.
    pub fn forget(&mut self, up_to: Seq) {
        while let Some((_, refusal)) = self.requests.front().filter(|(seq, _)| *seq <= up_to) {
            self.refusals -= refusal.len() + ENTRY;
            self.requests.pop_front();
        }
        while self.archived.front().is_some_and(|run| *run.end() <= up_to) {
            self.archived.pop_front();
        }
        if let Some(run) = self.archived.front_mut().filter(|run| *run.start() <= up_to) {
            *run = up_to.next()..=*run.end();
        }
    }

    /// Removes the note about a stanza that was returned to its sender.
    pub fn remove(&mut self, seq: Seq) {
        if let Ok(at) = self.requests.binary_search_by_key(&seq, |(seq, _)| *seq)
            && let Some((_, refusal)) = self.requests.remove(at)
        {
            self.refusals -= refusal.len() + ENTRY;
        }
    }

    /// Takes the requests that the client will not answer.
    pub fn take_requests(&mut self) -> VecDeque<(Seq, Bytes)> {
        self.refusals = 0;
        std::mem::take(&mut self.requests)
    }

    /// Takes the ranges of stanzas that the server's archive has.
    pub fn take_archived(&mut self) -> VecDeque<RangeInclusive<Seq>> {
        std::mem::take(&mut self.archived)
    }
}

#[cfg(test)]
mod tests {
    use super::super::STRIDE;
    use super::*;

    #[test]
    fn what_is_read_back_is_not_noted_any_more() {
        let mut tail = Notes::default();
        for seq in [3, 4, 5, 7, 8, 10, 11] {
            tail.note_archived(Seq::new(seq * STRIDE));
            tail.note_request(Seq::new(seq * STRIDE), Bytes::from_static(b"<iq/>"));
        }
        tail.forget(Seq::new(4 * STRIDE));
        tail.forget(Seq::new(7 * STRIDE));
        tail.remove(Seq::new(11 * STRIDE));
        assert_eq!(tail.archived.len(), 2);
        let archived = tail.take_archived();
        for (seq, is_archived) in [(7, false), (8, true), (9, false), (10, true), (11, true), (12, false)] {
            assert_eq!(archived.iter().any(|run| run.contains(&Seq::new(seq * STRIDE))), is_archived, "{seq}");
        }
        let requests: Vec<_> = tail.take_requests().iter().map(|(seq, _)| seq.get() / STRIDE).collect();
        assert_eq!(requests, [8, 10]);
    }

    #[test]
    fn notes_are_bounded_and_room_comes_back() {
        let mut tail = Notes::default();
        let refusal = Bytes::from(vec![b'x'; 1000]);
        for seq in (0..10_000).step_by(2) {
            tail.note_archived(Seq::new(seq * STRIDE));
            tail.note_request(Seq::new(seq * STRIDE), refusal.clone());
        }
        assert_eq!((tail.archived.len(), tail.requests.len()), (RUNS, REFUSALS / (1000 + ENTRY)));
        tail.forget(Seq::new(9_998 * STRIDE));
        tail.note_request(Seq::new(10_001 * STRIDE), refusal.clone());
        assert_eq!((tail.archived.len(), tail.requests.len(), tail.refusals), (0, 1, 1000 + ENTRY));
    }
}
