//! What the sessions of a device remember for its next ones, while none is there. A restart forgets it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use std::collections::HashMap;

use super::registry::Handle;
use crate::jid::BareJid;
use crate::push::account::DeviceId;
use crate::session::Remembered;

/// Bytes for all devices. Beyond, the oldest memories go.
const MOST: usize = 16 << 20;
/// What an entry costs beside what is remembered.
const ENTRY: usize = 256;
/// How long a memory waits for a session.
const WAITS: Duration = Duration::from_secs(14 * 24 * 3600);

/// The memories of devices.
#[derive(Debug, Default)]
pub(super) struct Memories(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    devices: HashMap<(BareJid, DeviceId), (Instant, Remembered)>,
    bytes: usize,
}

impl Memories {
    /// A session has left this.
    pub(super) fn leave(&self, handle: &Handle, remembered: Remembered) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.leave((handle.account().clone(), handle.device()), remembered, Instant::now());
    }

    /// Takes what earlier sessions of the device have left.
    pub(super) fn take(&self, handle: &Handle) -> Option<Remembered> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.devices.is_empty() {
            return None;
        }
        held.take(&(handle.account().clone(), handle.device()))
    }
}

impl Held {
    fn leave(&mut self, device: (BareJid, DeviceId), remembered: Remembered, now: Instant) {
        let mut all = self.take(&device).unwrap_or_default();
        all.add(remembered);
        self.bytes += ENTRY + all.memory();
        self.devices.insert(device, (now, all));
        while self.bytes > MOST {
            // Seldom: it makes much room at once.
            self.forget_older_half();
        }
        if self.devices.len().is_power_of_two() {
            self.devices.retain(|_, (since, _)| now.duration_since(*since) < WAITS);
            self.bytes = self.devices.values().map(|(_, remembered)| ENTRY + remembered.memory()).sum();
        }
    }

    fn take(&mut self, device: &(BareJid, DeviceId)) -> Option<Remembered> {
        let (_, remembered) = self.devices.remove(device)?;
        self.bytes = self.bytes.saturating_sub(ENTRY + remembered.memory());
        Some(remembered)
    }

    fn forget_older_half(&mut self) {
        let mut ages: Vec<Instant> = self.devices.values().map(|(since, _)| *since).collect();
        ages.sort_unstable();
        let middle = ages.get(ages.len() / 2).copied();
        self.devices.retain(|_, (since, _)| middle.is_some_and(|middle| *since > middle));
        self.bytes = self.devices.values().map(|(_, remembered)| ENTRY + remembered.memory()).sum();
        tracing::warn!("what devices have to remember has no room: messages that a server sends again may come twice");
    }
}
