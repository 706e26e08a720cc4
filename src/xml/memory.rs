//! A bound on the memory of large elements, shared by all streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The shared bound.
#[derive(Debug, Default)]
pub struct Room {
    limit: AtomicUsize,
    used: AtomicUsize,
}

impl Room {
    /// Sets the bound, in bytes. It applies to elements that come later.
    pub fn update(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Bytes in use by large elements.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// The bytes that one element uses. Dropping it frees them.
#[derive(Debug)]
pub(super) struct Charge {
    room: Arc<Room>,
    bytes: usize,
}

impl Charge {
    pub(super) fn of(room: &Arc<Room>) -> Self {
        Self { room: Arc::clone(room), bytes: 0 }
    }

    /// Changes the number of bytes in use. Returns false, and changes nothing, if there is no room.
    pub(super) fn set(&mut self, bytes: usize) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes) else {
            self.room.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            self.bytes = bytes;
            return true;
        };
        let limit = self.room.limit.load(Ordering::Relaxed);
        let add = |used: usize| used.checked_add(more).filter(|used| *used <= limit);
        let taken = self.room.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok();
        if taken {
            self.bytes = bytes;
        }
        taken
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_share_the_room_and_give_back_what_they_had() {
        let room = Arc::new(Room::default());
        room.update(100);
        let (mut one, mut other) = (Charge::of(&room), Charge::of(&room));
        assert!(one.set(60) && !other.set(41) && other.set(40) && !one.set(61));
        assert_eq!(room.used(), 100);
        assert!(one.set(10) && other.set(90));
        drop(other);
        assert_eq!(room.used(), 10);
        drop(one);
        assert_eq!(room.used(), 0);
    }
}
