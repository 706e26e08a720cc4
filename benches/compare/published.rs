//! The times of messages to dark devices, and of their notifications.

use std::sync::Mutex;
use std::time::Instant;

use super::link::attribute;

/// The messages and notifications of each device, by its number.
#[derive(Default)]
pub(crate) struct Published {
    devices: Mutex<Vec<Device>>,
}

#[derive(Clone, Default)]
struct Device {
    sent: Option<Instant>,
    /// Seconds from each message to its notification.
    delays: Vec<f64>,
    publishes: usize,
}

impl Published {
    /// Discards everything, and expects this many devices.
    pub(crate) fn reset(&self, devices: usize) {
        *self.devices.lock().unwrap() = vec![Device::default(); devices];
    }

    /// Records that a message is about to be sent to a device.
    pub(crate) fn sent(&self, device: usize) {
        self.devices.lock().unwrap()[device].sent = Some(Instant::now());
    }

    /// Records a publish. A device's node at its push service is `n` and its number.
    pub(crate) fn arrived(&self, publish: &str) {
        let now = Instant::now();
        let (_, publish) = publish.split_once("<publish ").unwrap();
        let node = attribute(&format!(" {publish}"), "node").unwrap();
        let number: usize = node.strip_prefix('n').unwrap().parse().unwrap();
        // Devices of the warm-up are not counted.
        let mut devices = self.devices.lock().unwrap();
        let Some(device) = devices.get_mut(number) else { return };
        device.publishes += 1;
        if let Some(sent) = device.sent.take() {
            device.delays.push((now - sent).as_secs_f64());
        }
    }

    /// Returns the number of publishes.
    pub(crate) fn count(&self) -> usize {
        self.devices.lock().unwrap().iter().map(|device| device.publishes).sum()
    }

    /// Returns the delay of each notified message, in seconds.
    pub(crate) fn delays(&self) -> Vec<f64> {
        self.devices.lock().unwrap().iter().flat_map(|device| device.delays.clone()).collect()
    }
}
