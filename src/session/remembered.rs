//! What a device's next sessions have to know of its earlier ones.

use super::travel::Had;
use super::{Kept, Output, Session};

/// What the sessions of a device remember for each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Messages that the server may send a second time.
    pub kept: Kept,
    /// Messages that the device has got.
    pub had: Had,
}

impl Remembered {
    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.had.is_empty()
    }

    /// Remembers what a session has left later.
    pub fn add(&mut self, later: Self) {
        self.kept.add(later.kept);
        self.had.add(&later.had);
    }

    /// Bytes of memory that it has.
    pub fn memory(&self) -> usize {
        self.kept.memory() + self.had.memory()
    }
}

impl Session {
    /// Earlier sessions of the device have left this.
    pub(super) fn remember(&mut self, mut earlier: Remembered) {
        if let Some(own) = self.remembered.take() {
            earlier.add(*own);
        }
        self.remembered = Some(Box::new(earlier)).filter(|all| !all.is_empty());
    }

    /// Leaves to the device's next sessions what they have to know.
    pub(super) fn leave_memory(&mut self) {
        if let Some(remembered) = self.remembered.take().filter(|all| !all.is_empty() && !self.removed) {
            self.out(Output::Remember(remembered));
        }
    }
}
