//! The messages of the run, and what has become of each.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::time::sleep;

/// The fate of a message.
#[derive(Clone, Debug, Default)]
struct Fate {
    to: String,
    arrived: u32,
    returned: u32,
}

/// The messages of the run.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    messages: Mutex<BTreeMap<u64, Fate>>,
    strays: Mutex<Vec<String>>,
    stopped: AtomicBool,
}

impl Ledger {
    pub(crate) fn stop_sending(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Notes that a message is sent. Returns its number.
    pub(crate) fn send(&self, to: &str) -> u64 {
        let mut messages = self.messages.lock().unwrap();
        let number = messages.len() as u64;
        messages.insert(number, Fate { to: to.to_owned(), ..Fate::default() });
        number
    }

    /// Notes that a message has reached an account.
    pub(crate) fn arrive(&self, number: u64, account: &str) {
        let mut messages = self.messages.lock().unwrap();
        match messages.get_mut(&number) {
            Some(fate) if fate.to == account => fate.arrived += 1,
            _ => self.strays.lock().unwrap().push(format!("message {number} came to {account}")),
        }
    }

    /// Notes that a message came back to its sender with an error.
    pub(crate) fn come_back(&self, number: u64) {
        if let Some(fate) = self.messages.lock().unwrap().get_mut(&number) {
            fate.returned += 1;
        }
    }

    /// Waits until each message has arrived or come back. Returns whether that happened in time.
    pub(crate) async fn settled(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if self.missing() == 0 {
                return true;
            }
            sleep(Duration::from_millis(200)).await;
        }
        false
    }

    fn missing(&self) -> usize {
        self.messages.lock().unwrap().values().filter(|fate| fate.arrived + fate.returned == 0).count()
    }

    /// Returns the numbers in one line.
    pub(crate) fn line(&self) -> String {
        let missing = self.missing();
        let messages = self.messages.lock().unwrap();
        let (sent, arrived) = (messages.len(), messages.values().filter(|fate| fate.arrived > 0).count());
        let twice = messages.values().filter(|fate| fate.arrived > 1).count();
        let returned = messages.values().filter(|fate| fate.returned > 0).count();
        format!(
            "{sent} sent, {arrived} arrived, {twice} of them more than once, {returned} returned, {missing} on the way"
        )
    }

    /// Returns what must not be.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = self.strays.lock().unwrap().clone();
        for (number, fate) in &*self.messages.lock().unwrap() {
            if fate.arrived + fate.returned == 0 {
                problems.push(format!("message {number} to {} is lost", fate.to));
            }
        }
        problems
    }
}
