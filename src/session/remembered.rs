//! The memory of a device: messages that the server may send a second time, and messages that the device has received. All
//! sessions of the device share it, because a server may repeat a message to another session than the first one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::redelivered::{KeptMessages, OwnMessages};
use super::travel::ReceivedMessages;
use crate::clock::UnixMillis;
use crate::sync::lock;
use crate::xml::Element;

/// The content of a [`DeviceMemory`], for another process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceMemoryRecord(Remembered);

/// The memory that the sessions of a device share.
#[derive(Debug, Default)]
pub struct DeviceMemory {
    /// Boxed, because it is empty for most devices.
    remembered: Mutex<Option<Box<Remembered>>>,
    /// Bytes in use. While it is 0, the lock is not taken.
    bytes: AtomicUsize,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Remembered {
    /// Messages that the server may send a second time.
    kept: KeptMessages,
    /// Messages that the device has received.
    received: ReceivedMessages,
}

impl DeviceMemory {
    /// Returns whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.memory() == 0
    }

    /// The bytes of memory in use.
    pub fn memory(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the content, for another process. Its hashes have the key [`Settings::seed`](super::Settings::seed).
    pub fn freeze(&self) -> DeviceMemoryRecord {
        DeviceMemoryRecord(self.lock().as_deref().cloned().unwrap_or_default())
    }

    /// Creates a memory with the content of another process.
    pub fn thaw(record: DeviceMemoryRecord) -> Self {
        let memory = Self::default();
        memory.update(|remembered| *remembered = record.0);
        memory
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.update(|remembered| *remembered = Remembered::default());
    }

    /// Remembers messages that were kept when the server's connection broke. Returns the number of messages added.
    pub(super) fn keep<'a>(
        &self,
        now: UnixMillis,
        messages: impl Iterator<Item = &'a Element>,
        own: OwnMessages<'_>,
    ) -> usize {
        self.update(|remembered| {
            let kept = &mut remembered.kept;
            let before = kept.len();
            messages.for_each(|message| kept.keep(now, message, own));
            kept.len().saturating_sub(before)
        })
    }

    /// Returns whether this is the second delivery of a kept message. A kept message is matched only once.
    pub(super) fn absorbs(&self, now: UnixMillis, message: &Element, own: OwnMessages<'_>) -> bool {
        !self.is_empty()
            && own.comes_late(message)
            && self.update(|remembered| remembered.kept.absorbs(now, message, own))
    }

    /// Remembers a message that the device has received, by its hashes.
    pub(crate) fn note_received(&self, marks: impl Iterator<Item = u64>) {
        let mut marks = marks.peekable();
        if marks.peek().is_some() {
            self.update(|remembered| marks.for_each(|mark| remembered.received.note(mark)));
        }
    }

    /// Returns whether the device has received a message with any of these hashes.
    pub(super) fn has_received(&self, marks: impl Iterator<Item = u64>) -> bool {
        !self.is_empty() && self.lock().as_ref().is_some_and(|remembered| remembered.received.has(marks))
    }

    /// The number of kept messages that are remembered.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.lock().as_ref().map_or(0, |remembered| remembered.kept.len())
    }

    /// Moves everything from another memory into this one.
    pub(super) fn take_from(&self, other: &Self) {
        if other.is_empty() {
            return;
        }
        let taken = other.update(std::mem::take);
        self.update(|remembered| {
            remembered.kept.add(taken.kept);
            remembered.received.add(&taken.received);
        });
    }

    fn update<T>(&self, change: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut held = self.lock();
        let remembered = held.get_or_insert_default();
        let result = change(remembered);
        if remembered.kept.is_empty() && remembered.received.is_empty() {
            *held = None;
        }
        let bytes = |all: &Remembered| size_of::<Remembered>() + all.kept.memory() + all.received.memory();
        self.bytes.store(held.as_deref().map_or(0, bytes), Ordering::Relaxed);
        result
    }

    /// Takes the lock. The memory stays valid if another thread has panicked.
    fn lock(&self) -> MutexGuard<'_, Option<Box<Remembered>>> {
        lock(&self.remembered)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::jid::BareJid;

    #[test]
    fn what_is_remembered_goes_along_to_a_device_that_was_known_before_and_stays_nowhere_else() {
        let (newcomer, known) = (DeviceMemory::default(), DeviceMemory::default());
        newcomer.note_received(1..3);
        known.note_received(3..4);
        known.take_from(&newcomer);
        known.take_from(&known);
        assert!((1..4).all(|mark| known.has_received(std::iter::once(mark))));
        assert_eq!((newcomer.memory(), newcomer.is_empty()), (0, true));
    }

    #[test]
    fn the_next_process_remembers_the_same() {
        let (account, message) = (BareJid::new("juliet@example.org").unwrap(), late_message());
        let own = OwnMessages { account: &account, seed: 7 };
        let (memory, now) = (DeviceMemory::default(), UnixMillis::new(1));
        memory.note_received(1..3);
        memory.keep(now, std::iter::once(&message), own);
        let bytes = rmp_serde::to_vec_named(&memory.freeze()).unwrap();
        let after = DeviceMemory::thaw(rmp_serde::from_slice(&bytes).unwrap());
        assert!(after.has_received(1..2) && after.has_received(2..3) && !after.has_received(3..4));
        assert!(after.absorbs(now, &message, own) && !after.absorbs(now, &message, own));
        assert!(DeviceMemory::thaw(DeviceMemory::default().freeze()).is_empty());
        assert!(rmp_serde::from_slice::<DeviceMemoryRecord>(&bytes[..bytes.len() - 1]).is_err());
    }

    fn late_message() -> Element {
        crate::session::tests::element(
            "<message from='romeo@example.net/x' id='1'><body>b</body>\
             <delay xmlns='urn:xmpp:delay' from='example.org' stamp='2020-01-01T00:00:00Z'/></message>",
        )
    }

    #[test]
    fn a_memory_is_still_good_where_a_thread_has_panicked() {
        let memory = DeviceMemory::default();
        memory.note_received(1..2);
        let panic = catch_unwind(AssertUnwindSafe(|| memory.update(|_| panic!("as planned"))));
        assert!(panic.is_err() && memory.has_received(1..2));
        memory.clear();
        assert!(memory.is_empty() && !memory.has_received(1..2));
    }
}
