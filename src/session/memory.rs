//! What a [`Session`] keeps beside its queue: presence, rooms, contacts, open requests. Each part is bounded, and all of it is
//! taken from the memory that the queues of all sessions share.

use std::sync::Arc;

use super::Session;
use super::queue::{Aside, Budget};

impl Session {
    /// Takes what is kept beside the queue from the shared memory.
    pub(super) fn share_aside(&mut self, budget: &Arc<Budget>) {
        self.aside = Aside::of(Arc::clone(budget));
    }

    /// Lets others know how much that is now.
    pub(super) fn tell_aside(&mut self) {
        self.aside.set(self.memory_aside());
    }

    /// Bytes of memory that the session has beside its queue.
    pub(super) fn memory_aside(&self) -> usize {
        let beyond = self.beyond.as_deref().map_or(0, |(_, element)| element.bytes().len());
        let presence = self.own_presence.memory() + self.waiting_presence.memory();
        let contacts = self.rooms.memory() + self.roster.memory();
        let given_back = self.given_back.as_ref().map_or(0, |given_back| given_back.memory());
        let remembered = self.device_memory.memory() + given_back;
        remembered + presence + contacts + self.promised() + self.pusher.memory() + self.confirm.memory() + beyond
    }
}
