//! Stanzas that change hands: from a device's earlier session to its next, or from one device to another.

use std::ops::{ControlFlow, RangeInclusive};

use super::batch::Batch;
use super::row;
use super::spool::{Slot, each};
use super::{Store, StoreError};

/// Which stanzas of a slot change hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// All below this place.
    Below(u64),
    /// Those that were addressed to the account itself.
    Shared,
}

impl Store {
    /// Gives stanzas of a slot the first of these places in another, or in the same, in their order; as many as there are
    /// places. An iq is deleted instead: it was meant for the session that it was sent to. Returns how many have moved, once
    /// that is on disk.
    ///
    /// # Errors
    /// As [`Store::spool`], except that the bounds are not checked: nothing is added.
    pub async fn adopt(
        &self,
        from: &Slot,
        to: &Slot,
        which: Adoption,
        places: RangeInclusive<u64>,
    ) -> Result<u64, StoreError> {
        let (from, to) = (from.clone(), to.clone());
        self.write(0, move |batch| batch.adopt(&from, &to, which, places)).await
    }

    /// Deletes places of a slot together, and returns once they are gone from the disk.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn discard(&self, slot: &Slot, places: Vec<RangeInclusive<u64>>) -> Result<(), StoreError> {
        let slot = slot.clone();
        self.write(0, move |batch| places.into_iter().try_for_each(|places| batch.discard(&slot, places))).await
    }
}

impl Batch<'_> {
    fn adopt(
        &mut self,
        from: &Slot,
        to: &Slot,
        which: Adoption,
        mut places: RangeInclusive<u64>,
    ) -> Result<u64, StoreError> {
        let (mut moving, mut unwanted) = (Vec::new(), Vec::new());
        each(&self.spool, from, 0, |item| {
            if matches!(which, Adoption::Below(end) if item.seq >= end) || moving.len() >= AT_ONCE {
                return ControlFlow::Break(());
            }
            if item.bytes.starts_with(b"<iq") {
                unwanted.push(item.seq);
            } else if which != Adoption::Shared || item.shared {
                moving.push(item);
            }
            ControlFlow::Continue(())
        })?;
        for seq in unwanted.iter().copied().chain(moving.iter().map(|item| item.seq)) {
            self.discard(from, seq..=seq)?;
        }
        let mut moved = Vec::new();
        for mut item in moving {
            let Some(place) = places.next() else { break };
            item.seq = place;
            moved.push(item);
        }
        self.place(to, &moved)?;
        Ok(moved.len() as u64)
    }

    fn discard(&mut self, slot: &Slot, places: RangeInclusive<u64>) -> Result<(), StoreError> {
        let before = row::load(&self.slots, slot)?;
        if before.backlog.count > 0 {
            self.delete(slot, before, places)?;
        }
        Ok(())
    }
}

/// Stanzas that change hands in one transaction; the rest comes with the next call.
const AT_ONCE: usize = 1 << 20;
