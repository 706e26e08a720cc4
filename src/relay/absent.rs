//! Push notifications for devices that have no session. [`AbsentDevices`] runs one task for each account that has such
//! devices and new notices about them.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::select;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::background::Background;
use super::publishing::Publishing;
use super::snapshot::Current;
use crate::clock::Instant;
use crate::jid::BareJid;
use crate::limits::RateLimitedLog;
use crate::metrics::Metrics;
use crate::push::absent::{Absent, Notice};
use crate::push::account::DeviceId;
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::push::registration::{Registration, Target};
use crate::registry::mailbox::{self, Mail, NotTaken, mailbox};
use crate::session::Settings;
use crate::store::Store;

/// The capacity of a task's mailbox. If it is full, the newest messages are dropped: a push that is already due counts the
/// waiting stanzas anyway.
const NEWS: usize = 64;
/// The time after which a task without work ends. It is longer than any pause between two pushes about the same event.
const IDLE: Duration = Duration::from_secs(2 * 60 * 60);

/// A message to the task of an account.
#[derive(Debug)]
enum AbsentMessage {
    Seen(Box<Notice>),
    Back(DeviceId),
    Answered(Target, Outcome),
}

/// The tasks of accounts that have devices without a session.
pub(super) struct AbsentDevices {
    tasks: DashMap<BareJid, mailbox::Sender<AbsentMessage>>,
    dropped: RateLimitedLog,
    uses: AbsentDependencies,
}

/// The parts of the relay that the tasks use.
pub(super) struct AbsentDependencies {
    pub(super) current: Arc<Current>,
    pub(super) store: Store,
    pub(super) publishing: Arc<Publishing>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) background: Background,
    pub(super) shutdown: CancellationToken,
}

impl AbsentDevices {
    /// Creates the set of tasks, which is empty.
    pub(super) fn new(uses: AbsentDependencies) -> Self {
        Self { tasks: DashMap::new(), dropped: RateLimitedLog::default(), uses }
    }

    /// Handles a notice that a session has sent about devices without a session.
    pub(super) fn on_notice(self: &Arc<Self>, account: &BareJid, notice: Notice) {
        let message = AbsentMessage::Seen(Box::new(notice));
        let entry = self.tasks.entry(account.clone()).or_insert_with(|| self.start(account));
        match entry.offer(message) {
            Ok(()) => {}
            Err(NotTaken::Full(_)) => {
                if let Some(suppressed) = self.dropped.next() {
                    tracing::warn!(%account, suppressed, "updates for devices without a session dropped: too many at once");
                }
            }
            Err(NotTaken::Gone(message)) => {
                // The task has just ended because it was idle.
                drop(entry);
                let fresh = self.start(account);
                if fresh.offer(message).is_ok() {
                    self.tasks.insert(account.clone(), fresh);
                }
            }
        }
    }

    /// Reports that a device of the account has a session again. Each login sends one such message.
    pub(super) fn on_device_back(&self, account: &BareJid, device: DeviceId) {
        if let Some(task) = self.tasks.get(account) {
            // A task that has just ended holds no state about the device.
            drop(task.deliver(AbsentMessage::Back(device)));
        }
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.uses.current.load().settings)
    }

    fn start(self: &Arc<Self>, account: &BareJid) -> mailbox::Sender<AbsentMessage> {
        let (sender, receiver) = mailbox(NEWS);
        self.uses.background.spawn(Arc::clone(self).run(account.clone(), sender.clone(), receiver));
        sender
    }

    async fn run(
        self: Arc<Self>,
        account: BareJid,
        own: mailbox::Sender<AbsentMessage>,
        mut messages: mailbox::Receiver<AbsentMessage>,
    ) {
        let mut absent = Absent::new(Arc::clone(&self.settings().push));
        loop {
            let idle = Instant::now() + IDLE;
            let wake = absent.deadline().unwrap_or(idle);
            let message = select! {
                mail = messages.recv() => match mail {
                    Some(Mail::Message(message)) => Some(message),
                    Some(Mail::Changed) | None => continue,
                },
                () = sleep_until(wake.into()) => None,
                () = self.uses.shutdown.cancelled() => break,
            };
            let now = Instant::now();
            absent.change(&self.settings().push);
            match message {
                Some(AbsentMessage::Seen(notice)) => {
                    for verdict in absent.saw(now, &notice) {
                        tracing::debug!(%account, verdict = verdict.name(), "push verdict for a device without a session");
                        self.uses.metrics.verdict(verdict.name());
                    }
                }
                Some(AbsentMessage::Back(device)) => absent.back(device),
                Some(AbsentMessage::Answered(target, outcome)) => absent.answered(now, &target, &outcome),
                None if wake == idle => break,
                None => {}
            }
            for publish in absent.next(now, rand::random) {
                self.publish(&account, publish, &own);
            }
        }
        self.tasks.remove_if(&account, |_, sender| sender.is_same(&own));
        messages.close();
        // Notices that arrived while the task was ending.
        while let Some(Mail::Message(AbsentMessage::Seen(notice))) = messages.try_recv() {
            if !self.uses.shutdown.is_cancelled() {
                self.on_notice(&account, *notice);
            }
        }
    }

    /// Publishes for a device without a session, and reports the outcome to the account's task.
    fn publish(self: &Arc<Self>, account: &BareJid, publish: Publish, task: &mailbox::Sender<AbsentMessage>) {
        let (absent, account, task) = (Arc::clone(self), account.clone(), task.clone());
        self.uses.background.spawn(async move {
            let target = publish.target.clone();
            // The registration may have been removed since, or its device may have a session again.
            let known = absent.uses.store.account_now(&account).await.unwrap_or_default();
            let is_away = |r: &Registration| known.device(r.device).is_none_or(|device| !device.is_open());
            if !known.registrations.iter().any(|r| r.target == target && is_away(r)) {
                return;
            }
            let outcome = absent.uses.publishing.publish(&account, publish).await.outcome;
            // The task may have ended. It receives one such message for each of its publishes.
            drop(task.deliver(AbsentMessage::Answered(target, outcome)));
        });
    }
}
