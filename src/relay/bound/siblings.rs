//! [`Siblings`]: the device's other sessions, as far as a session follows them, and the device memory that they share.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::predecessors::Predecessors;
use crate::push::account::LoginId;
use crate::relay::client::{Handle, Registry};
use crate::relay::device_memories::DeviceMemoryShare;
use crate::relay::shared::Relay;
use crate::session::{DeviceMemory, Successor};

/// The state that one session tracks of the device's other sessions.
pub(super) struct Siblings {
    relay: Arc<Relay>,
    handle: Arc<Handle>,
    /// The older sessions that have not handed over yet.
    predecessors: Predecessors,
    successor: Option<LoginId>,
    is_live_elsewhere: bool,
    memory: DeviceMemoryShare,
}

/// The state of [`Siblings`] that another process goes on with.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct SiblingsRecord {
    are_settled: bool,
    successor: Option<LoginId>,
    is_live_elsewhere: bool,
}

impl Siblings {
    /// Returns the state for another process.
    pub(super) fn freeze(&self) -> SiblingsRecord {
        let Self { successor, is_live_elsewhere, .. } = *self;
        SiblingsRecord { are_settled: self.are_settled(), successor, is_live_elsewhere }
    }

    /// Goes on in another process, once the registry has all sessions. Older sessions that have not handed over are waited
    /// for again.
    pub(super) fn thaw(relay: Arc<Relay>, handle: Arc<Handle>, record: SiblingsRecord) -> Self {
        let predecessors = if record.are_settled { Predecessors::none() } else { Predecessors::of(&relay, &handle) };
        let memory = relay.accounts().memories().share(&handle);
        let SiblingsRecord { successor, is_live_elsewhere, .. } = record;
        Self { relay, handle, predecessors, successor, is_live_elsewhere, memory }
    }

    /// Notifies the older sessions of the device about their successor.
    pub(super) fn new(relay: Arc<Relay>, handle: Arc<Handle>) -> Self {
        Self {
            predecessors: Predecessors::of(&relay, &handle),
            memory: relay.accounts().memories().share(&handle),
            relay,
            handle,
            successor: None,
            is_live_elsewhere: false,
        }
    }

    /// Handles the news that the session belongs to a known device.
    pub(super) fn on_device_changed(&mut self) {
        self.predecessors = Predecessors::of(&self.relay, &self.handle);
        self.memory = self.relay.accounts().memories().share(&self.handle);
    }

    /// Returns the memory of the device.
    pub(super) fn memory(&self) -> Arc<DeviceMemory> {
        self.memory.memory()
    }

    /// Returns whether no older session is waited for.
    pub(super) fn are_settled(&self) -> bool {
        self.predecessors.are_settled()
    }

    /// Waits until all older sessions have ended, handed over or answered, or until the deadline. Cancel safe.
    pub(super) async fn settled(&mut self) {
        self.predecessors.settled().await;
    }

    /// Looks up a newer session of the device. Returns it, or `Some(None)` if there is none any more, if that has changed.
    pub(super) fn take_successor(&mut self) -> Option<Option<Successor>> {
        let newer = self.registry().newer(&self.handle);
        let login = newer.as_ref().map(|newer| newer.login());
        if login == self.successor {
            return None;
        }
        self.successor = login;
        Some(newer.map(|newer| Successor { same_address: newer.resource() == self.handle.resource() }))
    }

    /// Returns whether another session of the device has its client attached, if that has changed.
    pub(super) fn take_live_elsewhere(&mut self) -> Option<bool> {
        let live = self.registry().is_live_elsewhere(&self.handle);
        let before = std::mem::replace(&mut self.is_live_elsewhere, live);
        (live != before).then_some(live)
    }

    fn registry(&self) -> &Registry {
        self.relay.registry()
    }
}
