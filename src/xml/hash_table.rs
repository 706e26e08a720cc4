//! A hash table of byte strings that are stored elsewhere, with five bytes per slot. A peer cannot choose strings that
//! collide. `scope.rs` uses it for prefixes, `exact/` for attributes.

/// The number of slots of the smallest table.
const SMALLEST: usize = 16;

/// A set of numbers. Each is found by the string that it stands for.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The numbers. The length is a power of two.
    slots: Vec<u32>,
    /// A part of the hash of each slot's string, so that few strings must be compared. Zero if the slot is free.
    marks: Vec<u8>,
    used: usize,
}

fn mark(hash: u64) -> u8 {
    (hash >> 56) as u8 | 1
}

impl Table {
    /// Returns the bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<u32>() + self.marks.capacity()
    }

    /// Returns the number whose string has this hash and for which `same` returns true.
    pub(super) fn find(&self, hash: u64, same: impl Fn(u32) -> bool) -> Option<u32> {
        let slot = self.slot(hash, same)?;
        self.slots.get(slot).copied().filter(|_| self.marks.get(slot) != Some(&0))
    }

    /// Replaces the number for which `same` returns true, and returns it. If there is none, adds the number. `hash_of`
    /// returns the hash of a number's string.
    pub(super) fn replace(
        &mut self,
        hash: u64,
        number: u32,
        same: impl Fn(u32) -> bool,
        hash_of: impl Fn(u32) -> u64,
    ) -> Option<u32> {
        if 4 * (self.used + 1) > 3 * self.slots.len() {
            self.grow(hash_of);
        }
        let slot = self.slot(hash, same)?;
        let before = std::mem::replace(self.slots.get_mut(slot)?, number);
        let known = std::mem::replace(self.marks.get_mut(slot)?, mark(hash)) != 0;
        self.used += usize::from(!known);
        known.then_some(before)
    }

    /// Returns the slot of the number, or the free slot for it. Returns `None` if there are no slots.
    fn slot(&self, hash: u64, same: impl Fn(u32) -> bool) -> Option<usize> {
        let (mask, mark) = (self.slots.len().checked_sub(1)?, mark(hash));
        let mut slot = usize::try_from(hash & mask as u64).ok()?;
        loop {
            match self.marks.get(slot).copied()? {
                0 => return Some(slot),
                known if known == mark && same(self.slots.get(slot).copied()?) => return Some(slot),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    #[cold]
    fn grow(&mut self, hash_of: impl Fn(u32) -> u64) {
        let slots = (2 * self.slots.len()).max(SMALLEST);
        let before = std::mem::replace(&mut self.slots, vec![0; slots]);
        let marks = std::mem::replace(&mut self.marks, vec![0; slots]);
        for (number, _) in before.into_iter().zip(marks).filter(|(_, mark)| *mark != 0) {
            let hash = hash_of(number);
            let Some(slot) = self.slot(hash, |_| false) else { return };
            if let (Some(place), Some(own)) = (self.slots.get_mut(slot), self.marks.get_mut(slot)) {
                (*place, *own) = (number, mark(hash));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::of_bytes;

    #[test]
    fn numbers_are_found_by_their_strings_however_many_there_are() {
        let strings: Vec<_> = (0..5000).map(|n| format!("string {n}")).collect();
        let string = |number: u32| strings[number as usize % 5000].as_bytes();
        let mut table = Table::default();
        assert_eq!(table.find(of_bytes(b"x"), |_| true), None);
        let add = |table: &mut Table, number: u32| {
            table.replace(of_bytes(string(number)), number, |n| string(n) == string(number), |n| of_bytes(string(n)))
        };
        for number in 1..5000 {
            assert_eq!(add(&mut table, number), None);
        }
        for number in 1..5000 {
            assert_eq!(add(&mut table, number + 5000), Some(number));
            let found = table.find(of_bytes(string(number)), |n| string(n) == string(number));
            assert_eq!(found, Some(number + 5000));
        }
        assert_eq!(table.find(of_bytes(b"x"), |n| string(n) == b"x"), None);
        assert_eq!((table.used, table.memory()), (4999, 8192 * 5));
    }
}
