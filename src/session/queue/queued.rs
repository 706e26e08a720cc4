//! A stanza that waits in memory.

use std::num::NonZeroU64;

use crate::session::Cause;
use crate::xml::Element;

/// One stanza on its way to the client.
#[derive(Clone, Debug)]
pub struct Queued {
    /// The stanza as the server sent it.
    pub element: Element,
    /// When it came, Unix milliseconds.
    pub received: u64,
    /// Its place among all stanzas for the device.
    pub seq: u64,
    /// Its number on the server's stream management leg, if it has one: they count from one.
    pub ordinal: Option<NonZeroU64>,
    /// Of a kind that must not be lost (invariant 2).
    pub durable: bool,
    /// It waited, so it is written with its delay.
    pub waited: bool,
    /// Why it is written.
    pub cause: Cause,
    /// The spool was asked to take it, or had it before.
    pub(super) spooled: bool,
}

impl Queued {
    /// A stanza that came at this time, without a number, and need not be kept.
    pub fn new(element: Element, seq: u64, received: u64) -> Self {
        let (durable, waited, spooled) = (false, false, false);
        Self { element, received, seq, ordinal: None, durable, waited, cause: Cause::Relayed, spooled }
    }

    /// The same for another cause than that somebody has sent it.
    pub fn because(self, cause: Cause) -> Self {
        Self { cause, ..self }
    }

    /// The same with its number on the server's leg, and whether it must not be lost.
    pub fn of_leg(self, ordinal: Option<u64>, durable: bool) -> Self {
        Self { ordinal: ordinal.and_then(NonZeroU64::new), durable, ..self }
    }

    /// Whether the spool was asked to take it.
    pub fn is_spooled(&self) -> bool {
        self.spooled
    }
}
