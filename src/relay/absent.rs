//! Notifications for devices that have no session: one task for each account that has such devices and hears of something.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use tokio::select;
use tokio::time::sleep_until;

use super::Relay;
use super::jobs::unix;
use crate::config::Transport;
use crate::jid::BareJid;
use crate::publish::selection::{Published, Standing};
use crate::push::absent::{Absent, Notice};
use crate::push::account::DeviceId;
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::push::registration::{Registration, Target};
use crate::registry::mailbox::{self, Mail, NotTaken, mailbox};
use crate::registry::{Command, Handle};

/// AbsentMessage of one account that wait; of more, the newest are dropped: a push that is due says how much waits anyway.
const NEWS: usize = 64;
/// A task that has nothing to do ends; longer than any pause between two pushes about the same.
const IDLE: Duration = Duration::from_secs(2 * 60 * 60);

/// What an account's task hears.
#[derive(Debug)]
enum AbsentMessage {
    Seen(Box<Notice>),
    Back(DeviceId),
    Answered(Target, Outcome),
}

/// The tasks, by account.
#[derive(Debug, Default)]
pub(super) struct Absentees(DashMap<BareJid, mailbox::Sender<AbsentMessage>>);

impl Relay {
    /// A session saw something that concerns devices without one.
    pub(super) fn elsewhere(self: &Arc<Self>, account: &BareJid, notice: Notice) {
        let news = AbsentMessage::Seen(Box::new(notice));
        let tasks = &self.absentees.0;
        let entry = tasks.entry(account.clone()).or_insert_with(|| self.watch(account));
        match entry.offer(news) {
            Ok(()) => {}
            Err(NotTaken::Full(_)) => {
                if let Some(suppressed) = self.seldom.absent_dropped.next() {
                    tracing::warn!(%account, suppressed, "absent_news_dropped: too much at once");
                }
            }
            Err(NotTaken::Gone(news)) => {
                // It ended for want of work in this moment.
                drop(entry);
                let fresh = self.watch(account);
                if fresh.offer(news).is_ok() {
                    tasks.insert(account.clone(), fresh);
                }
            }
        }
    }

    /// A device of the account has a session again. There is one such message for each login.
    pub(super) fn device_is_back(&self, account: &BareJid, device: DeviceId) {
        if let Some(task) = self.absentees.0.get(account) {
            // One that has just ended knows of no device.
            drop(task.deliver(AbsentMessage::Back(device)));
        }
    }

    fn watch(self: &Arc<Self>, account: &BareJid) -> mailbox::Sender<AbsentMessage> {
        let (sender, receiver) = mailbox(NEWS);
        let task = Arc::clone(self).tell_absent(account.clone(), sender.clone(), receiver);
        self.farewells.spawn(task);
        sender
    }

    async fn tell_absent(
        self: Arc<Self>,
        account: BareJid,
        own: mailbox::Sender<AbsentMessage>,
        mut news: mailbox::Receiver<AbsentMessage>,
    ) {
        let mut absent = Absent::new(Arc::clone(&self.settings().push));
        loop {
            let idle = Instant::now() + IDLE;
            let wake = absent.deadline().unwrap_or(idle);
            let heard = select! {
                mail = news.recv() => match mail {
                    Some(Mail::Message(heard)) => Some(heard),
                    Some(Mail::Changed) | None => continue,
                },
                () = sleep_until(wake.into()) => None,
                () = self.shutdown.cancelled() => break,
            };
            let now = Instant::now();
            absent.change(&self.settings().push);
            match heard {
                Some(AbsentMessage::Seen(notice)) => {
                    for verdict in absent.saw(now, &notice) {
                        tracing::debug!(%account, verdict = verdict.name(), "judged, for a device without a session");
                        self.metrics.verdict(verdict.name());
                    }
                }
                Some(AbsentMessage::Back(device)) => absent.back(device),
                Some(AbsentMessage::Answered(target, outcome)) => absent.answered(now, &target, &outcome),
                None if wake == idle => break,
                None => {}
            }
            for publish in absent.next(now, rand::random) {
                self.publish_for(&account, publish, &own);
            }
        }
        self.absentees.0.remove_if(&account, |_, sender| sender.is_same(&own));
        news.close();
        // What came in the very moment.
        while let Some(Mail::Message(AbsentMessage::Seen(notice))) = news.try_recv() {
            if !self.shutdown.is_cancelled() {
                self.elsewhere(&account, *notice);
            }
        }
    }

    /// Publishes for a device without a session, and notes what became of it.
    fn publish_for(self: &Arc<Self>, account: &BareJid, publish: Publish, task: &mailbox::Sender<AbsentMessage>) {
        let (relay, account, task) = (Arc::clone(self), account.clone(), task.clone());
        self.farewells.spawn(async move {
            let target = publish.target.clone();
            // It may have been removed since, or its device may be back.
            let known = relay.store.account_now(&account).await.unwrap_or_default();
            let is_away = |r: &Registration| known.device(r.device).is_none_or(|device| !device.is_open());
            if !known.registrations.iter().any(|r| r.target == target && is_away(r)) {
                return;
            }
            let outcome = relay.publish(&account, publish).await.outcome;
            // There is one such message for each publish of the task, which may have ended.
            drop(task.deliver(AbsentMessage::Answered(target, outcome)));
        });
    }

    /// Publishes for an account by whatever transport is fit, and stores what follows from the answer.
    pub async fn publish(&self, account: &BareJid, publish: Publish) -> Published {
        let target = publish.target.clone();
        tracing::info!(%account, service = %target, "published");
        let published = self.publish_counted(account, publish).await;
        let (outcome, transport) = (&published.outcome, published.transport.map_or("none", Transport::name));
        tracing::info!(%account, service = %target, transport, ?outcome, "publish outcome");
        self.note_outcome(account, &target, &published.outcome).await;
        published
    }

    /// Publishes for a session, which then hears what became of it; or its account does, if it is over by then.
    pub(super) async fn publish_for_session(self: Arc<Self>, session: Arc<Handle>, publish: Publish) {
        let target = publish.target.clone();
        let Published { transport, outcome } = self.publish_counted(session.account(), publish).await;
        tracing::info!(service = %target, transport = transport.map_or("none", Transport::name), "transport chosen");
        session.published(Published { transport, outcome: outcome.clone() });
        if session.deliver(Command::Published(Box::new((target.clone(), outcome.clone())))).is_err() {
            self.note_outcome(session.account(), &target, &outcome).await;
        }
    }

    /// A session has carried a publish of its own since then: remembers and counts what became of it.
    pub(super) fn published_by_session(
        &self,
        session: &Handle,
        (target, since): (&Target, Instant),
        outcome: &Outcome,
    ) {
        let published = Published { transport: Some(Transport::Session), outcome: outcome.clone() };
        self.metrics.published(&published, since.elapsed());
        session.published(published.clone());
        self.publisher.ended(target, published);
    }

    /// How things are with the push service of a registration.
    pub fn standing(&self, account: &BareJid, target: &Target) -> Standing {
        self.publisher.standing(account, target)
    }

    /// Publishes for an account, and counts what became of it.
    pub(super) async fn publish_counted(&self, account: &BareJid, publish: Publish) -> Published {
        let began = Instant::now();
        let published = self.publisher.publish(account, publish).await;
        self.metrics.published(&published, began.elapsed());
        published
    }

    /// Stores what follows from an answer.
    pub(super) async fn note_outcome(&self, account: &BareJid, target: &Target, outcome: &Outcome) {
        if let Some(change) = outcome.change(target, self.current().config.push.settings.max_errors, unix())
            && let Err(error) = self.change_account(account, change).await
        {
            self.not_stored(&error);
        }
    }
}
