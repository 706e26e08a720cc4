//! The elements that are open, and the names that their end tags have to repeat.

use super::scope::Scope;

/// A name as it is spelled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spelled {
    pub(super) start: usize,
    pub(super) len: usize,
    /// The eight bytes from `start` on, the first lowest; those behind the name mean nothing.
    pub(super) word: u64,
}

/// An element whose end tag has not come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) name: Spelled,
    /// What is in scope within it.
    pub(super) scope: Scope,
}

impl Spelled {
    /// The name at `start..end`.
    pub(super) fn new(bytes: &[u8], start: usize, end: usize) -> Self {
        let name = bytes.get(start..end).unwrap_or_default();
        let word = name.iter().take(8).rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        Self { start, len: name.len(), word }
    }

    /// The name in these bytes, where it was found.
    pub(super) fn bytes<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.start..self.start + self.len).unwrap_or_default()
    }

    /// Whether it fits into a word.
    #[inline(always)]
    pub(super) fn is_short(&self) -> bool {
        self.len <= 8
    }

    /// Whether a word begins with this short name.
    #[inline(always)]
    pub(super) fn begins(&self, word: u64) -> bool {
        // Nothing is shifted out but what stands behind the name.
        (word ^ self.word) << ((64 - 8 * self.len) % 64) == 0
    }
}
