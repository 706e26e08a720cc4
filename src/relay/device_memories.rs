//! The memories of devices ([`DeviceMemory`]). The sessions of a device share one memory. It is kept for the next session
//! while the device has none. A restart clears all of them, a handover to another process does not.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client::Handle;
use crate::clock::Instant;
use crate::jid::BareJid;
use crate::push::account::DeviceId;
use crate::session::{DeviceMemory, DeviceMemoryRecord};
use crate::sync::lock;

/// The limit for the bytes of all memories without a session. Over it, the older half of them is dropped.
const MAX_BYTES: usize = 16 << 20;
/// The overhead of an entry, in bytes.
const ENTRY: usize = 256;
/// The time for which a memory without a session is kept.
const RETENTION: Duration = Duration::from_secs(14 * 24 * 3600);
/// The minimum interval between two searches for memories that were kept for [`RETENTION`].
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// The memories of devices.
#[derive(Debug, Default)]
pub(super) struct Memories(Mutex<HeldMemories>);

/// A session's share of the memory of its device.
pub(super) struct DeviceMemoryShare {
    memories: Arc<Memories>,
    handle: Arc<Handle>,
    device: DeviceId,
    memory: Arc<DeviceMemory>,
}

/// A device of an account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
struct AccountDevice {
    account: BareJid,
    device: DeviceId,
}

/// The memories of devices, for another process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct MemoriesRecord {
    devices: BTreeMap<AccountDevice, HeldMemoryRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct HeldMemoryRecord {
    memory: DeviceMemoryRecord,
    /// The time at which the device's last session ended. `None` if the device has a session.
    left: Option<Instant>,
}

#[derive(Debug, Default)]
struct HeldMemories {
    devices: HashMap<AccountDevice, HeldMemory>,
    /// The bytes of the memories without a session.
    bytes: usize,
    /// The time of the last search for expired memories.
    swept: Option<Instant>,
}

#[derive(Debug, Default)]
struct HeldMemory {
    memory: Arc<DeviceMemory>,
    sessions: usize,
    /// The time at which the device's last session ended, and the bytes of the memory. `None` while the device has a session.
    left: Option<(Instant, usize)>,
}

impl Memories {
    /// Returns the memory of the session's device.
    pub(super) fn share(self: &Arc<Self>, handle: &Arc<Handle>) -> DeviceMemoryShare {
        let (handle, device) = (Arc::clone(handle), handle.device());
        let memory = self.held().share(AccountDevice { account: handle.account().clone(), device });
        DeviceMemoryShare { memories: Arc::clone(self), handle, device, memory }
    }

    /// Drops the memories of an account's devices that have no session. If a device has one, the session itself clears the
    /// memory.
    pub(super) fn forget(&self, account: &BareJid) {
        self.held().retain(|of, _| of.account != *account);
    }

    /// Returns all memories, for another process.
    pub(super) fn freeze(&self) -> MemoriesRecord {
        self.held().freeze()
    }

    /// Continues with the memories of another process. Must run before the sessions begin that share them.
    pub(super) fn thaw(&self, record: MemoriesRecord) {
        self.held().thaw(record, Instant::now());
    }

    fn held(&self) -> MutexGuard<'_, HeldMemories> {
        lock(&self.0)
    }
}

impl DeviceMemoryShare {
    pub(super) fn memory(&self) -> Arc<DeviceMemory> {
        Arc::clone(&self.memory)
    }
}

impl Drop for DeviceMemoryShare {
    fn drop(&mut self) {
        let device = AccountDevice { account: self.handle.account().clone(), device: self.device };
        self.memories.held().leave(&device, Instant::now());
    }
}

impl HeldMemories {
    fn share(&mut self, device: AccountDevice) -> Arc<DeviceMemory> {
        let entry = self.devices.entry(device).or_default();
        entry.sessions += 1;
        if let Some((_, bytes)) = entry.left.take() {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        Arc::clone(&entry.memory)
    }

    /// Records that a session of the device has ended.
    fn leave(&mut self, device: &AccountDevice, now: Instant) {
        let Some(entry) = self.devices.get_mut(device) else { return };
        entry.sessions = entry.sessions.saturating_sub(1);
        if entry.sessions > 0 {
            return;
        }
        if entry.memory.is_empty() {
            self.devices.remove(device);
            return;
        }
        let bytes = ENTRY + entry.memory.memory();
        entry.left = Some((now, bytes));
        self.bytes += bytes;
        while self.bytes > MAX_BYTES {
            // Rare, since half of the bytes are freed at once.
            self.forget_older_half();
        }
        if now.duration_since(*self.swept.get_or_insert(now)) >= SWEEP_INTERVAL {
            self.swept = Some(now);
            self.retain(|_, left| now.duration_since(left) < RETENTION);
        }
    }

    fn freeze(&self) -> MemoriesRecord {
        let remembers = |(_, entry): &(&AccountDevice, &HeldMemory)| !entry.memory.is_empty();
        let record =
            |entry: &HeldMemory| HeldMemoryRecord { memory: entry.memory.freeze(), left: entry.left.map(|(at, _)| at) };
        let devices = self.devices.iter().filter(remembers).map(|(device, entry)| (device.clone(), record(entry)));
        MemoriesRecord { devices: devices.collect() }
    }

    fn thaw(&mut self, record: MemoriesRecord, now: Instant) {
        for (device, HeldMemoryRecord { memory, left }) in record.devices {
            let memory = Arc::new(DeviceMemory::thaw(memory));
            // The bytes of a device with a session do not count: its session begins soon.
            let bytes = left.map_or(0, |_| ENTRY + memory.memory());
            self.bytes += bytes;
            let entry = HeldMemory { memory, sessions: 0, left: Some((left.unwrap_or(now), bytes)) };
            if let Some((_, bytes)) = self.devices.insert(device, entry).and_then(|replaced| replaced.left) {
                self.bytes = self.bytes.saturating_sub(bytes);
            }
        }
    }

    fn forget_older_half(&mut self) {
        let mut ages: Vec<Instant> = self.devices.values().filter_map(|entry| entry.left).map(|(at, _)| at).collect();
        ages.sort_unstable();
        let middle = ages.get(ages.len() / 2).copied();
        self.retain(|_, left| middle.is_some_and(|middle| left > middle));
        tracing::warn!("memory of delivered messages full: messages that a server repeats may arrive twice");
    }

    /// Drops the memories without a session for which `stays` returns false.
    fn retain(&mut self, stays: impl Fn(&AccountDevice, Instant) -> bool) {
        self.devices.retain(|device, entry| entry.left.is_none_or(|(at, _)| stays(device, at)));
        self.bytes = self.devices.values().filter_map(|entry| entry.left).map(|(_, bytes)| bytes).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn device(account: &str, n: u64) -> AccountDevice {
        AccountDevice { account: account.parse().unwrap(), device: DeviceId(n) }
    }

    /// Adds and ends a session of a device that has remembered this many stanzas.
    fn receive(held: &mut HeldMemories, device: &AccountDevice, marks: u64, now: Instant) {
        held.share(device.clone()).note_received(0..marks);
        held.leave(device, now);
    }

    #[test]
    fn sessions_of_a_device_share_a_memory_which_stays_for_the_next_one_if_anything_is_in_it() {
        let (mut held, now) = (HeldMemories::default(), Instant::now());
        let phone = device("romeo@example.org", 1);
        let (one, other) = (held.share(phone.clone()), held.share(phone.clone()));
        assert!(Arc::ptr_eq(&one, &other));
        assert!(!Arc::ptr_eq(&one, &held.share(device("romeo@example.org", 2))));
        held.leave(&phone, now);
        one.note_received(0..1);
        assert_eq!(held.bytes, 0, "a session has it");
        held.leave(&phone, now);
        assert_eq!(held.bytes, ENTRY + one.memory());
        assert!(Arc::ptr_eq(&one, &held.share(phone.clone())));
        assert_eq!(held.bytes, 0);
        one.clear();
        held.leave(&phone, now);
        assert_eq!((held.devices.len(), held.bytes), (1, 0));
    }

    #[test]
    fn memories_without_a_session_are_bounded_and_the_oldest_go() {
        let (mut held, now) = (HeldMemories::default(), Instant::now());
        let used = device("romeo@example.org", 0);
        held.share(used.clone()).note_received(0..1000);
        let (mut n, mut before) = (0, 0);
        while held.bytes >= before {
            (n, before) = (n + 1, held.bytes);
            receive(&mut held, &device("romeo@example.org", n), 1000, now + SECOND * u32::try_from(n).unwrap());
        }
        assert!(before > MAX_BYTES * 9 / 10 && held.bytes > MAX_BYTES / 3, "{before}, then {}", held.bytes);
        let has = |n| held.devices.contains_key(&device("romeo@example.org", n));
        assert!(has(0) && !has(1) && has(n));
    }

    #[test]
    fn a_memory_that_waits_too_long_is_forgotten() {
        let (mut held, now) = (HeldMemories::default(), Instant::now());
        receive(&mut held, &device("romeo@example.org", 1), 1, now);
        receive(&mut held, &device("romeo@example.org", 2), 1, now + RETENTION);
        assert_eq!((held.devices.len(), held.bytes > 0), (1, true));
    }

    #[test]
    fn the_next_process_has_the_memories_of_devices_with_and_without_a_session() {
        let (mut held, now) = (HeldMemories::default(), Instant::now());
        let [gone, used, empty] = [1, 2, 3].map(|n| device("romeo@example.org", n));
        receive(&mut held, &gone, 1, now - RETENTION / 2);
        let memory = held.share(used.clone());
        memory.note_received(1..2);
        held.share(empty.clone());
        let bytes = rmp_serde::to_vec_named(&held.freeze()).unwrap();
        let mut after = HeldMemories::default();
        after.thaw(rmp_serde::from_slice(&bytes).unwrap(), now);
        assert_eq!((after.devices.len(), after.bytes), (2, held.bytes));
        assert_eq!(after.share(used.clone()).memory(), memory.memory());
        assert_eq!(after.bytes, held.bytes);
        after.leave(&used, now);
        assert_eq!(after.bytes, 2 * held.bytes);
        receive(&mut after, &empty, 1, now + RETENTION / 2);
        assert!(!after.devices.contains_key(&gone) && after.devices.contains_key(&used), "it keeps its time");
        // A memory that is there already is replaced.
        let before = after.bytes;
        after.thaw(after.freeze(), now);
        assert_eq!(after.bytes, before);
    }

    #[test]
    fn an_account_is_forgotten() {
        let (memories, now) = (Memories::default(), Instant::now());
        let (romeo, juliet) = (device("romeo@example.org", 1), device("juliet@example.org", 1));
        receive(&mut memories.held(), &romeo, 1, now);
        let used = memories.held().share(device("romeo@example.org", 2));
        receive(&mut memories.held(), &juliet, 1, now);
        let one = memories.held().bytes / 2;
        memories.forget(&romeo.account);
        let held = memories.held();
        assert!(!held.devices.contains_key(&romeo) && held.devices.contains_key(&juliet));
        assert_eq!((held.devices.len(), held.bytes), (2, one));
        drop(used);
    }
}
