//! Push notifications for devices that have no session. [`AbsentDevices`] runs one task for each account that has such
//! devices and new notices about them.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use tokio::select;
use tokio::sync::oneshot;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::background::Background;
use super::publishing::Publishing;
use super::snapshot::Current;
use super::wake_retries::WakeRetries;
use crate::clock::Instant;
use crate::jid::BareJid;
use crate::limits::RateLimitedLog;
use crate::metrics::Metrics;
use crate::publish::{Interrupted, PublishPermit};
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
    Unpublished(Box<Publish>),
    Freeze(oneshot::Sender<AbsentRecord>),
    Thaw(Box<AbsentRecord>),
}

/// The state of an account's task, for another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct AbsentRecord {
    account: BareJid,
    devices: Absent,
    /// The publishes that were due and were not written, because publishing was interrupted.
    unpublished: Vec<Publish>,
}

impl AbsentRecord {
    fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.unpublished.is_empty()
    }
}

/// The tasks of accounts that have devices without a session.
pub(super) struct AbsentDevices {
    tasks: DashMap<BareJid, mailbox::Sender<AbsentMessage>>,
    wake_retries: Arc<WakeRetries>,
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
        Self { tasks: DashMap::new(), wake_retries: Arc::default(), dropped: RateLimitedLog::default(), uses }
    }

    /// Handles a notice that a session has sent about devices without a session.
    pub(super) fn on_notice(self: &Arc<Self>, account: &BareJid, notice: Notice) {
        let message = AbsentMessage::Seen(Box::new(notice));
        let entry = self.tasks.entry(account.clone()).or_insert_with(|| self.start(account));
        let offered = entry.offer(message);
        drop(entry);
        match offered {
            Ok(()) => {}
            Err(NotTaken::Full(_)) => {
                if let Some(suppressed) = self.dropped.next() {
                    tracing::warn!(%account, suppressed, "updates for devices without a session dropped: too many at once");
                }
            }
            Err(NotTaken::Gone(message)) => self.deliver_to_new(account, message),
        }
    }

    /// Takes a publish that was not written, because publishing was interrupted. Its device has no session any more.
    pub(super) fn on_unpublished(self: &Arc<Self>, account: &BareJid, publish: Box<Publish>) {
        self.deliver(account, AbsentMessage::Unpublished(publish));
    }

    /// Publishes what was kept while publishing was interrupted.
    pub(super) fn resume(&self) {
        self.tasks.iter().for_each(|task| task.notify());
    }

    /// Returns the state of all tasks. They publish nothing while publishing is interrupted, and continue afterwards.
    pub(super) async fn freeze(&self) -> Vec<AbsentRecord> {
        let ask = |task: &mailbox::Sender<AbsentMessage>| {
            let (reply, replied) = oneshot::channel();
            task.deliver(AbsentMessage::Freeze(reply)).is_ok().then_some(replied)
        };
        let asked: Vec<_> = self.tasks.iter().filter_map(|task| ask(&task)).collect();
        let mut records = Vec::new();
        for replied in asked {
            // A task that ends has no state.
            records.extend(replied.await.ok().filter(|record| !record.is_empty()));
        }
        records.sort_by(|a: &AbsentRecord, b| a.account.cmp(&b.account));
        records
    }

    /// Continues with the state of another process.
    pub(super) fn thaw(self: &Arc<Self>, records: Vec<AbsentRecord>) {
        for record in records {
            let account = record.account.clone();
            self.deliver(&account, AbsentMessage::Thaw(Box::new(record)));
        }
    }

    /// Passes a message that must not be lost to the task of an account.
    fn deliver(self: &Arc<Self>, account: &BareJid, message: AbsentMessage) {
        let entry = self.tasks.entry(account.clone()).or_insert_with(|| self.start(account));
        let delivered = entry.deliver(message);
        drop(entry);
        if let Err(message) = delivered {
            self.deliver_to_new(account, message);
        }
    }

    /// Passes a message to a new task, because the last one has just ended.
    fn deliver_to_new(self: &Arc<Self>, account: &BareJid, message: AbsentMessage) {
        let fresh = self.start(account);
        if fresh.deliver(message).is_ok() {
            self.tasks.insert(account.clone(), fresh);
        }
    }

    /// Reports that a device of the account has a session again. Each login sends one such message.
    pub(super) fn on_device_back(&self, account: &BareJid, device: DeviceId) {
        if let Some(task) = self.tasks.get(account) {
            // A task that has just ended holds no state about the device.
            drop(task.deliver(AbsentMessage::Back(device)));
        }
    }

    /// Returns the retries of wake pushes.
    pub(super) fn wake_retries(&self) -> &Arc<WakeRetries> {
        &self.wake_retries
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
        let devices = Absent::new(Arc::clone(&self.settings().push));
        let mut state = AbsentRecord { account, devices, unpublished: Vec::new() };
        loop {
            let idle = Instant::now() + IDLE;
            let wake = state.devices.deadline().unwrap_or(idle);
            let mail = select! {
                mail = messages.recv() => mail,
                () = sleep_until(wake.into()) => None,
                () = self.uses.shutdown.cancelled() => break,
            };
            let now = Instant::now();
            match mail {
                Some(Mail::Message(message)) => self.on_message(now, &mut state, message),
                Some(Mail::Changed) => {}
                None if wake == idle && state.unpublished.is_empty() => break,
                None => {}
            }
            state.devices.change(&self.settings().push);
            self.publish_due(now, &mut state, &own);
        }
        let account = state.account;
        self.tasks.remove_if(&account, |_, sender| sender.is_same(&own));
        messages.close();
        // Messages that arrived while the task was ending.
        while let Some(mail) = messages.try_recv() {
            match mail {
                _ if self.uses.shutdown.is_cancelled() => {}
                Mail::Message(AbsentMessage::Seen(notice)) => self.on_notice(&account, *notice),
                Mail::Message(message @ (AbsentMessage::Unpublished(_) | AbsentMessage::Thaw(_))) => {
                    self.deliver(&account, message);
                }
                Mail::Message(AbsentMessage::Back(_) | AbsentMessage::Answered(..) | AbsentMessage::Freeze(_))
                | Mail::Changed => {}
            }
        }
    }

    fn on_message(&self, now: Instant, state: &mut AbsentRecord, message: AbsentMessage) {
        let AbsentRecord { account, devices, unpublished } = state;
        match message {
            AbsentMessage::Seen(notice) => {
                devices.change(&self.settings().push);
                for verdict in devices.saw(now, &notice) {
                    tracing::debug!(%account, verdict = verdict.name(), "push verdict for a device without a session");
                    self.uses.metrics.verdict(verdict.name());
                }
            }
            AbsentMessage::Back(device) => devices.back(device),
            AbsentMessage::Answered(target, outcome) => devices.answered(now, &target, &outcome),
            AbsentMessage::Unpublished(publish) => unpublished.push(*publish),
            // The requester may have stopped waiting.
            AbsentMessage::Freeze(reply) => drop(reply.send(state.clone())),
            AbsentMessage::Thaw(record) => {
                devices.add(record.devices);
                unpublished.extend(record.unpublished);
            }
        }
    }

    /// Publishes what is due, or keeps it while publishing is interrupted.
    fn publish_due(self: &Arc<Self>, now: Instant, state: &mut AbsentRecord, own: &mailbox::Sender<AbsentMessage>) {
        let mut due = std::mem::take(&mut state.unpublished);
        due.extend(state.devices.next(now, rand::random));
        for publish in due {
            match self.uses.publishing.permit() {
                Some(permit) => self.publish(permit, &state.account, publish, own),
                None => state.unpublished.push(publish),
            }
        }
    }

    /// Publishes for a device without a session, and reports the outcome to the account's task.
    fn publish(
        self: &Arc<Self>,
        permit: PublishPermit,
        account: &BareJid,
        publish: Publish,
        task: &mailbox::Sender<AbsentMessage>,
    ) {
        let (absent, account, task) = (Arc::clone(self), account.clone(), task.clone());
        self.uses.background.spawn(async move {
            let target = publish.target.clone();
            // The registration may have been removed since, or its device may have a session again.
            let known = absent.uses.store.account_now(&account).await.unwrap_or_default();
            let is_away = |r: &Registration| known.device(r.device).is_none_or(|device| !device.is_open());
            if !known.registrations.iter().any(|r| r.target == target && is_away(r)) {
                return;
            }
            match absent.uses.publishing.publish(&permit, &account, publish).await {
                // The task may have ended. It receives one such message for each of its publishes.
                Ok(published) => drop(task.deliver(AbsentMessage::Answered(target, published.outcome))),
                Err(Interrupted(publish)) => absent.on_unpublished(&account, publish),
            }
        });
    }
}
