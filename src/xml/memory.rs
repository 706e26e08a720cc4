//! A limit on the memory of large elements, shared by all streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The memory used by the large elements of all streams.
#[derive(Debug, Default)]
pub struct SharedMemory {
    limit: AtomicUsize,
    used: AtomicUsize,
}

impl SharedMemory {
    /// Sets the limit, in bytes. It applies to later elements.
    pub fn update(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Returns the bytes used by large elements.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// The access of one stream to the shared memory.
#[derive(Clone, Debug)]
pub struct MemoryShare {
    /// The maximum bytes of an element that is not counted.
    pub free: usize,
    /// The shared memory.
    pub memory: Arc<SharedMemory>,
}

/// The bytes that one element uses. Dropping it frees them.
#[derive(Debug)]
pub(super) struct Charge {
    memory: Arc<SharedMemory>,
    bytes: usize,
}

impl Charge {
    pub(super) fn of(memory: &Arc<SharedMemory>) -> Self {
        Self { memory: Arc::clone(memory), bytes: 0 }
    }

    /// Changes the number of bytes in use. Returns false and changes nothing if the limit would be exceeded.
    pub(super) fn set(&mut self, bytes: usize) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes) else {
            self.memory.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            self.bytes = bytes;
            return true;
        };
        let limit = self.memory.limit.load(Ordering::Relaxed);
        let add = |used: usize| used.checked_add(more).filter(|used| *used <= limit);
        let taken = self.memory.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok();
        if taken {
            self.bytes = bytes;
        }
        taken
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_share_the_memory_and_free_it_when_dropped() {
        let memory = Arc::new(SharedMemory::default());
        memory.update(100);
        let (mut one, mut other) = (Charge::of(&memory), Charge::of(&memory));
        assert!(one.set(60) && !other.set(41) && other.set(40) && !one.set(61));
        assert_eq!(memory.used(), 100);
        assert!(one.set(10) && other.set(90));
        drop(other);
        assert_eq!(memory.used(), 10);
        drop(one);
        assert_eq!(memory.used(), 0);
    }
}
