//! [`OpenElements`]: the open elements, and the names that their end tags must repeat.

use super::scope::ScopeId;

/// The number of innermost elements that are kept unpacked. The outer ones are packed, with about two bytes each.
const AT_HAND: usize = 64;

/// A name as written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spelled {
    pub(super) start: usize,
    pub(super) len: usize,
    /// The eight bytes from `start` on, the first one lowest. Bytes after the name have no meaning.
    pub(super) word: u64,
}

/// An element whose end tag has not arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenElement {
    pub(super) name: Spelled,
    /// The namespace scope within it.
    pub(super) scope: ScopeId,
}

/// The open elements, the innermost last.
#[derive(Debug, Default)]
pub(super) struct OpenElements {
    /// The innermost elements; empty only if no element is open.
    near: Vec<OpenElement>,
    far: Option<Box<Packed>>,
}

/// A compact list of elements. Each entry is read from its end: the distance of its name from the previous one, its
/// length, and the number of additional declarations in scope.
#[derive(Debug, Default)]
struct Packed {
    bytes: Vec<u8>,
    count: usize,
    /// The place of the last element's name.
    start: usize,
    /// The scope within the last element.
    scope: ScopeId,
}

impl OpenElements {
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.near.is_empty()
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.near.len() + self.far.as_ref().map_or(0, |far| far.count)
    }

    #[inline(always)]
    pub(super) fn last(&self) -> Option<&OpenElement> {
        self.near.last()
    }

    #[inline(always)]
    pub(super) fn push(&mut self, open: OpenElement) {
        if self.near.len() == AT_HAND {
            self.pack();
        }
        self.near.push(open);
    }

    /// Removes the innermost element. `bytes` contains the names.
    #[inline(always)]
    pub(super) fn pop(&mut self, bytes: &[u8]) -> Option<OpenElement> {
        let open = self.near.pop();
        if self.near.is_empty() && self.far.is_some() {
            self.unpack(bytes);
        }
        open
    }

    /// Frees unused memory.
    pub(super) fn shrink(&mut self) {
        self.near.shrink_to_fit();
    }

    /// Returns the bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        self.near.capacity() * size_of::<OpenElement>() + self.far.as_ref().map_or(0, |far| far.bytes.capacity())
    }

    #[cold]
    #[inline(never)]
    fn pack(&mut self) {
        let far = self.far.get_or_insert_default();
        for open in self.near.drain(..AT_HAND / 2) {
            far.push(open);
        }
    }

    #[cold]
    #[inline(never)]
    fn unpack(&mut self, bytes: &[u8]) {
        let Some(far) = &mut self.far else { return };
        for _ in 0..AT_HAND / 2 {
            let Some(open) = far.pop(bytes) else { break };
            self.near.push(open);
        }
        self.near.reverse();
        if far.count == 0 {
            self.far = None;
        }
    }
}

impl Packed {
    fn push(&mut self, OpenElement { name, scope }: OpenElement) {
        let gained = scope.since(self.scope);
        if gained > 0 {
            self.put(gained);
        }
        self.put(name.len << 1 | usize::from(gained > 0));
        self.put(name.start - self.start);
        (self.start, self.scope) = (name.start, scope);
        self.count += 1;
    }

    fn pop(&mut self, bytes: &[u8]) -> Option<OpenElement> {
        self.count = self.count.checked_sub(1)?;
        let (start, scope) = (self.start, self.scope);
        self.start -= self.take();
        let len = self.take();
        if len & 1 == 1 {
            self.scope = scope.before(self.take());
        }
        Some(OpenElement { name: Spelled::new(bytes, start, start + (len >> 1)), scope })
    }

    /// Appends a number with seven bits per byte, the lowest last. Each byte but the first is marked.
    fn put(&mut self, number: usize) {
        let digits = (usize::BITS - number.leading_zeros()).div_ceil(7).max(1);
        if self.bytes.capacity() - self.bytes.len() < 10 {
            self.bytes.reserve_exact(self.bytes.len() / 4 + 32);
        }
        for digit in (0..digits).rev() {
            let mark = if digit + 1 == digits { 0 } else { 0x80 };
            let [low, ..] = (number >> (7 * digit)).to_le_bytes();
            self.bytes.push(low & 0x7F | mark);
        }
    }

    fn take(&mut self) -> usize {
        let (mut number, mut shift) = (0, 0);
        while let Some(byte) = self.bytes.pop() {
            number |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }
}

impl Spelled {
    /// Reads the name at `start..end`.
    pub(super) fn new(bytes: &[u8], start: usize, end: usize) -> Self {
        let name = bytes.get(start..end).unwrap_or_default();
        let word = name.iter().take(8).rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        Self { start, len: name.len(), word }
    }

    /// Returns the name in these bytes.
    pub(super) fn bytes<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.start..self.start + self.len).unwrap_or_default()
    }

    /// Returns whether the name fits into a word.
    #[inline(always)]
    pub(super) fn is_short(&self) -> bool {
        self.len <= 8
    }

    /// Returns whether a word begins with this name, which must be short.
    #[inline(always)]
    pub(super) fn begins(&self, word: u64) -> bool {
        // Only bytes after the name are shifted out.
        (word ^ self.word) << ((64 - 8 * self.len) % 64) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_back_as_they_were_however_many_are_open() {
        let bytes: Vec<u8> = (0..200_000).map(|at| b'a' + (at % 23) as u8).collect();
        // xorshift, for the same sequence in every run.
        let mut state = 88_172_645_463_325_252_u64;
        let mut below = |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % n).unwrap()
        };
        let (mut opens, mut expected) = (OpenElements::default(), Vec::<OpenElement>::new());
        let (mut at, mut scope, mut deepest) = (0, ScopeId::default(), 0);
        for round in 0..40_000 {
            let deeper = if round % 2000 < 1200 { 8 } else { 3 };
            if below(10) < deeper && at < 190_000 {
                let len = 1 + if below(50) == 0 { below(3000) } else { below(12) };
                scope = if below(4) == 0 { scope.after(below(400)) } else { scope };
                let name = Spelled::new(&bytes, at + 1, (at + 1 + len).min(bytes.len()));
                expected.push(OpenElement { name, scope });
                opens.push(OpenElement { name, scope });
                at += len + 2;
            } else if let Some(open) = expected.pop() {
                let OpenElement { name, scope: within } = opens.pop(&bytes).unwrap();
                assert_eq!((name.start, name.len, name.word), (open.name.start, open.name.len, open.name.word));
                assert_eq!(within, open.scope);
                scope = expected.last().map(|open| open.scope).unwrap_or_default();
            }
            assert_eq!((opens.len(), opens.is_empty()), (expected.len(), expected.is_empty()));
            deepest = deepest.max(opens.len());
        }
        assert!(deepest > 4 * AT_HAND, "{deepest}");
    }

    #[test]
    fn an_open_element_of_three_bytes_costs_three_at_most() {
        let bytes = b"<a>".repeat(100_000);
        let mut opens = OpenElements::default();
        for at in (1..bytes.len()).step_by(3) {
            opens.push(OpenElement { name: Spelled::new(&bytes, at, at + 1), scope: ScopeId::default() });
        }
        assert!(opens.memory() <= bytes.len() + AT_HAND * size_of::<OpenElement>(), "{}", opens.memory());
    }
}
