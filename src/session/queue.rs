//! What waits for the client's ack: written stanzas in front, unwritten ones behind, in the order the server sent them.

use std::collections::VecDeque;
use std::time::Instant;

use thiserror::Error;

use crate::xml::{Element, Kind};

/// More waits than the queue may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("more than {limit} bytes wait for the client")]
pub struct Full {
    /// The bound, bytes.
    pub limit: usize,
}

/// One stanza on its way to the client.
#[derive(Clone, Debug)]
pub struct Queued {
    /// The stanza as the server sent it.
    pub element: Element,
    /// When it came.
    pub received: Instant,
    /// Its place among all stanzas of the session, never reused.
    pub seq: u64,
}

/// The unacknowledged stanzas of a session, bounded in bytes.
#[derive(Debug)]
pub struct Queue {
    items: VecDeque<Queued>,
    /// How many at the front were written to the current attachment.
    written: usize,
    messages: usize,
    bytes: usize,
    limit: usize,
    next_seq: u64,
}

/// What a queued stanza costs beside its bytes.
const OVERHEAD: usize = 96;

impl Queue {
    /// An empty queue that holds up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { items: VecDeque::new(), written: 0, messages: 0, bytes: 0, limit, next_seq: 1 }
    }

    /// Appends a stanza and returns its place.
    ///
    /// # Errors
    /// [`Full`] when the bound is passed; the stanza was not taken.
    pub fn push(&mut self, element: Element, received: Instant) -> Result<u64, Full> {
        let cost = element.bytes().len() + OVERHEAD;
        if self.bytes + cost > self.limit {
            return Err(Full { limit: self.limit });
        }
        self.bytes += cost;
        self.messages += usize::from(element.kind() == Kind::Message);
        let seq = self.next_seq;
        self.next_seq += 1;
        self.items.push_back(Queued { element, received, seq });
        Ok(seq)
    }

    /// Takes the next unwritten stanza for writing; it stays until acknowledged.
    pub fn write_next(&mut self) -> Option<&Queued> {
        let next = self.items.get(self.written)?;
        self.written += 1;
        Some(next)
    }

    /// Forgets the first `count` written stanzas: the client has them.
    pub fn acknowledge(&mut self, count: usize) {
        for _ in 0..count.min(self.written) {
            let Some(item) = self.items.pop_front() else {
                break;
            };
            self.bytes -= item.element.bytes().len() + OVERHEAD;
            self.messages -= usize::from(item.element.kind() == Kind::Message);
            self.written -= 1;
        }
        if self.items.is_empty() {
            self.items.shrink_to(16);
        }
    }

    /// Everything is to be written again, to a new attachment.
    pub fn rewind(&mut self) {
        self.written = 0;
    }

    /// All stanzas, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Queued> {
        self.items.iter()
    }

    /// How many of them are messages.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// How many stanzas wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}
