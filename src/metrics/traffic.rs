//! Counters of the traffic of sessions, on the hot path: one addition for each stanza and one for its bytes, in memory that
//! few sessions share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Unit;

use super::labels::Labels;
use crate::xml::{Frame, Kind};

/// The number of shards. Sessions are distributed over them so that processors seldom count in the same memory.
const SHARDS: usize = 16;

const LEGS: [(MeteredLeg, &str); 2] = [(MeteredLeg::Client, "client"), (MeteredLeg::Upstream, "upstream")];
const DIRECTIONS: [(TrafficDirection, &str); 2] = [(TrafficDirection::In, "in"), (TrafficDirection::Out, "out")];
const KINDS: [(Kind, &str); 4] =
    [(Kind::Message, "message"), (Kind::Presence, "presence"), (Kind::Iq, "iq"), (Kind::Other, "nonza")];

/// One of the two legs of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeteredLeg {
    /// The client leg.
    Client,
    /// The upstream leg.
    Upstream,
}

/// The direction of a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TrafficDirection {
    In,
    Out,
}

/// The counters of one shard. It fills two cache lines and shares them with nothing else.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    elements: [AtomicU64; 16],
    bytes: [AtomicU64; 4],
}

/// The counters of a session. It adds them to its shard in batches.
#[derive(Debug)]
pub struct Tap {
    shard: Arc<Shard>,
    elements: [u32; 16],
    bytes: [u64; 4],
}

impl Tap {
    /// Counts a frame that was received on this leg.
    pub fn came(&mut self, leg: MeteredLeg, frame: &Frame) {
        if let Frame::Element(element) = frame {
            self.count(leg, TrafficDirection::In, element.kind(), element.bytes().len());
        }
    }

    /// Counts an element that is sent on this leg.
    pub fn went(&mut self, leg: MeteredLeg, element: &[u8]) {
        self.count(leg, TrafficDirection::Out, kind(element), element.len());
    }

    fn count(&mut self, leg: MeteredLeg, direction: TrafficDirection, kind: Kind, bytes: usize) {
        let (element, size) = numbers(leg, direction, kind);
        if let (Some(elements), Some(sizes)) = (self.elements.get_mut(element), self.bytes.get_mut(size)) {
            *elements += 1;
            *sizes += bytes as u64;
        }
    }

    /// Adds the counters to the shard, at the end of a wake-up.
    pub fn settle(&mut self) {
        for (bytes, all) in self.bytes.iter_mut().zip(&self.shard.bytes).filter(|(bytes, _)| **bytes > 0) {
            all.fetch_add(std::mem::take(bytes), Ordering::Relaxed);
        }
        for (count, all) in self.elements.iter_mut().zip(&self.shard.elements).filter(|(count, _)| **count > 0) {
            all.fetch_add(std::mem::take(count).into(), Ordering::Relaxed);
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.settle();
    }
}

/// Returns the indexes of the counter of elements of this kind and of the counter of bytes, in this direction.
fn numbers(leg: MeteredLeg, direction: TrafficDirection, kind: Kind) -> (usize, usize) {
    let way = leg as usize * 2 + direction as usize;
    let kind = match kind {
        Kind::Message => 0,
        Kind::Presence => 1,
        Kind::Iq => 2,
        Kind::Other => 3,
    };
    (way * 4 + kind, way)
}

impl Shard {
    /// Returns both counters. They always exist: the indexes leave no gap.
    fn counters(
        &self,
        leg: MeteredLeg,
        direction: TrafficDirection,
        kind: Kind,
    ) -> (Option<&AtomicU64>, Option<&AtomicU64>) {
        let (element, size) = numbers(leg, direction, kind);
        (self.elements.get(element), self.bytes.get(size))
    }
}

/// Returns the kind of an element that is sent. Stanzas use the stream's default namespace, so they have no prefix.
fn kind(element: &[u8]) -> Kind {
    for (name, kind) in [(&b"<message"[..], Kind::Message), (b"<presence", Kind::Presence), (b"<iq", Kind::Iq)] {
        if let Some(rest) = element.strip_prefix(name) {
            let ends = rest.first().is_some_and(|next| matches!(next, b' ' | b'>' | b'/' | b'\t' | b'\r' | b'\n'));
            return if ends { kind } else { Kind::Other };
        }
    }
    Kind::Other
}

/// The counters of all sessions.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    shards: [Arc<Shard>; SHARDS],
    next: AtomicUsize,
}

impl Traffic {
    /// Creates the counters of one more session.
    pub(super) fn tap(&self) -> Tap {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let shard = self.shards.get(next).map(Arc::clone).unwrap_or_default();
        Tap { shard, elements: [0; 16], bytes: [0; 4] }
    }

    /// Returns the number of messages received and sent on this leg.
    pub(super) fn messages(&self, leg: MeteredLeg) -> (u64, u64) {
        let way = |direction| self.sum(|shard| shard.counters(leg, direction, Kind::Message).0);
        (way(TrafficDirection::In), way(TrafficDirection::Out))
    }

    fn sum(&self, counter: impl Fn(&Shard) -> Option<&AtomicU64>) -> u64 {
        self.shards.iter().filter_map(|shard| counter(shard)).map(|counter| counter.load(Ordering::Relaxed)).sum()
    }
}

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Stanzas and nonzas of sessions, by leg, direction and kind.";
        let mut elements = encoder.encode_descriptor("stanzas", help, None, MetricType::Counter)?;
        for ((leg, direction), words) in ways() {
            for (kind, word) in KINDS {
                let labels = [words[0], words[1], ("kind", word)];
                encode(&mut elements, &labels, self.sum(|shard| shard.counters(leg, direction, kind).0))?;
            }
        }
        let help = "Bytes of stanzas and nonzas of sessions, by leg and direction, without TLS overhead.";
        let mut bytes = encoder.encode_descriptor("stanza", help, Some(&Unit::Bytes), MetricType::Counter)?;
        for ((leg, direction), words) in ways() {
            encode(&mut bytes, &words, self.sum(|shard| shard.counters(leg, direction, Kind::Other).1))?;
        }
        Ok(())
    }
}

fn ways() -> impl Iterator<Item = ((MeteredLeg, TrafficDirection), Labels<2>)> {
    LEGS.into_iter().flat_map(|(leg, leg_word)| {
        DIRECTIONS
            .into_iter()
            .map(move |(direction, word)| ((leg, direction), [("leg", leg_word), ("direction", word)]))
    })
}

fn encode<const N: usize>(family: &mut MetricEncoder<'_>, labels: &Labels<N>, count: u64) -> Result<(), fmt::Error> {
    ConstCounter::new(count).encode(family.encode_family(labels)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_that_is_written_is_counted_by_its_kind() {
        for (element, expect) in [
            ("<message/>", Kind::Message),
            ("<message to='a'>", Kind::Message),
            ("<presence\nid='1'/>", Kind::Presence),
            ("<iq>", Kind::Iq),
            ("<iqs/>", Kind::Other),
            ("<r xmlns='urn:xmpp:sm:3'/>", Kind::Other),
            ("</stream:stream>", Kind::Other),
            ("<iq", Kind::Other),
            ("", Kind::Other),
        ] {
            assert_eq!(kind(element.as_bytes()), expect, "{element}");
        }
    }

    #[test]
    fn every_way_and_kind_has_a_counter_of_its_own() {
        let shard = Shard::default();
        for ((leg, direction), _) in ways() {
            for (kind, _) in KINDS {
                let (elements, bytes) = shard.counters(leg, direction, kind);
                assert_eq!(elements.unwrap().fetch_add(1, Ordering::Relaxed), 0, "{leg:?} {direction:?} {kind:?}");
                bytes.unwrap().fetch_add(1, Ordering::Relaxed);
            }
        }
        assert!(shard.bytes.iter().all(|bytes| bytes.load(Ordering::Relaxed) == 4));
    }

    #[test]
    fn what_sessions_count_in_different_shards_is_added_up() {
        let traffic = Traffic::default();
        for _ in 0..SHARDS + 1 {
            traffic.tap().went(MeteredLeg::Client, b"<message/>");
        }
        assert_eq!(traffic.messages(MeteredLeg::Client), (0, SHARDS as u64 + 1));
        assert_eq!(traffic.messages(MeteredLeg::Upstream), (0, 0));
    }
}
