//! Wake pushes for devices that have no session. They are durable jobs, sent at a limited rate as soon as a transport is
//! available.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::background::Background;
use super::client::Registry;
use super::publishing::Publishing;
use super::shared::Relay;
use super::snapshot::Current;
use super::wake_retries::WakeRetries;
use crate::clock::Instant;
use crate::config::Transport;
use crate::jid::BareJid;
use crate::publish::PublishPermit;
use crate::push::guard::Guard;
use crate::push::notification::{Publish, Summary};
use crate::store::{AccountOwnership, Slot, Store, StoreError, Wake};

/// The interval between two rounds.
const ROUND: Duration = Duration::from_secs(10);
/// The minimum time over which the first round spreads its pushes, so that not all phones reconnect at once.
const JITTER: Duration = Duration::from_secs(5);

/// The state that is kept between rounds.
#[derive(Default)]
struct RoundMemory {
    /// The devices that were logged as waiting.
    logged: HashSet<Slot>,
    under_way: HashMap<Slot, JoinHandle<()>>,
}

/// Sends wake pushes.
pub(super) struct WakePushes {
    store: Store,
    registry: Arc<Registry>,
    publishing: Arc<Publishing>,
    current: Arc<Current>,
    background: Background,
    retries: Arc<WakeRetries>,
    /// Notified when the accounts of a dead node were freed.
    freed: Arc<Notify>,
    memory: RoundMemory,
}

impl WakePushes {
    pub(super) fn new(relay: &Relay, freed: Arc<Notify>) -> Self {
        Self {
            store: relay.store().clone(),
            registry: Arc::clone(relay.registry()),
            publishing: Arc::clone(relay.publishing()),
            current: relay.shared_current(),
            background: relay.background().clone(),
            retries: Arc::clone(relay.absent().wake_retries()),
            freed,
            memory: RoundMemory::default(),
        }
    }

    /// Sends wake pushes until it is dropped.
    pub(super) async fn run(mut self) {
        let mut spread = JITTER;
        loop {
            match self.round(spread).await {
                Ok(true) => spread = Duration::ZERO,
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "cannot read wake pushes"),
            }
            select! {
                () = sleep(ROUND) => {}
                () = self.freed.notified() => {}
            }
        }
    }

    /// Runs one round. Returns whether there were any jobs.
    async fn round(&mut self, spread: Duration) -> Result<bool, StoreError> {
        self.memory.under_way.retain(|_, task| !task.is_finished());
        let wakes = self.store.wakes().await?;
        let pause = Duration::from_secs(1) / self.current.load().config.stream_management.wake_rate.max(1);
        let jitter = |share: f64| spread.mul_f64(share / (wakes.len().max(1) as f64));
        let any = !wakes.is_empty();
        for (slot, wake) in &wakes {
            if self.memory.under_way.contains_key(slot) || self.retries.waits(slot, Instant::now()) {
                continue;
            }
            // Nobody else owns the account from here on, so that the device is woken once.
            let Some(owned) = self.store.cluster().claim_wake(slot).await? else { continue };
            let publishes = match self.publishes(slot).await {
                Err(error) if error.is_of_one_record() => {
                    if self.memory.logged.insert(slot.clone()) {
                        tracing::error!(%error, "cannot wake device");
                    }
                    continue;
                }
                publishes => publishes?,
            };
            if self.may_leave(slot, &publishes) {
                // While publishing is interrupted, all jobs stay.
                let Some(permit) = self.publishing.permit() else { break };
                let task = self.task(slot, *wake, owned).run(permit, publishes);
                self.memory.under_way.insert(slot.clone(), self.background.spawn(task));
                sleep(pause + jitter(rand::random::<f64>() * 2.0)).await;
            } else if self.memory.logged.insert(slot.clone()) {
                log_waits(slot, wake);
            }
        }
        let still_waits = |slot: &Slot| wakes.iter().any(|(waiting, _)| waiting == slot);
        self.memory.logged.retain(still_waits);
        self.retries.retain(still_waits);
        Ok(any)
    }

    fn task(&self, slot: &Slot, wake: Wake, owned: AccountOwnership) -> WakeTask {
        WakeTask {
            publishing: Arc::clone(&self.publishing),
            retries: Arc::clone(&self.retries),
            store: self.store.clone(),
            slot: slot.clone(),
            wake,
            owned,
        }
    }

    /// Returns the wake pushes for a device.
    async fn publishes(&self, slot: &Slot) -> Result<Vec<Publish>, StoreError> {
        let account = self.store.account(&slot.account).await?;
        // Stanzas that are set aside are no reason to wake the device.
        let aside = account.guard(slot.device).map_or(0, Guard::count) as u64;
        let waits = self.store.backlog(slot).await?.count > aside;
        let settings = &self.current.load().config.push.settings;
        let summary = if waits { Summary::wake_for_important(settings) } else { Summary::wake(settings) };
        let publishes = account.owned(slot.device).map(|r| Publish::new(r, summary.clone(), rand::random()));
        Ok(publishes.collect())
    }

    /// Returns whether another session of the account can carry the pushes, or one of them needs no session.
    fn may_leave(&self, slot: &Slot, publishes: &[Publish]) -> bool {
        let needs_none = |publish: &Publish| self.publishing.needs_no_session(&slot.account, &publish.target);
        self.registry.any_session(&slot.account).is_some() || publishes.iter().any(needs_none)
    }
}

/// A wake push on its way.
struct WakeTask {
    publishing: Arc<Publishing>,
    retries: Arc<WakeRetries>,
    store: Store,
    slot: Slot,
    wake: Wake,
    /// Keeps the account with this node until the note is deleted.
    owned: AccountOwnership,
}

impl WakeTask {
    /// Wakes a device through all its registrations. The job is done as soon as one push service may have the push.
    async fn run(self, permit: PublishPermit, publishes: Vec<Publish>) {
        let Self { publishing, retries, store, slot, wake, owned: _owned } = self;
        let (account, reason) = (&slot.account, wake.reason.name());
        let (mut left, mut sent, mut out_of_reach, mut interrupted) = (publishes.is_empty(), false, false, false);
        for publish in publishes {
            let Ok(published) = publishing.publish(&permit, account, publish).await else {
                interrupted = true;
                continue;
            };
            let Some(transport) = published.transport else { continue };
            if published.outcome.may_be_repeated() {
                out_of_reach = true;
            } else {
                let refused = published.outcome.condition();
                if refused.is_some() || !sent {
                    log_outcome(account, reason, transport, refused);
                }
                sent |= refused.is_none();
                left = true;
            }
        }
        if left {
            retries.settle(&slot);
            woken(&store, &slot).await;
        } else if interrupted {
            // The job stays, and is due at once when publishing continues.
        } else if out_of_reach {
            tracing::info!(%account, reason, "wake push failed: retrying later");
            if !retries.on_out_of_reach(Instant::now(), &slot) {
                woken(&store, &slot).await;
            }
        } else {
            retries.settle(&slot);
            log_waits(&slot, &wake);
        }
    }
}

/// Logs that a push service may have the push, or with which condition it was refused.
fn log_outcome(account: &BareJid, reason: &str, transport: Transport, refused: Option<&str>) {
    let transport = transport.name();
    if let Some(condition) = refused {
        tracing::info!(%account, reason, transport, condition, "wake push refused");
    } else {
        tracing::info!(%account, reason, transport, "wake push sent");
    }
}

/// Deletes the wake job, so that the device is not woken again for the same reason.
async fn woken(store: &Store, slot: &Slot) {
    if let Err(error) = store.woken(slot).await {
        tracing::error!(%error, "cannot record sent wake push");
    }
}

fn log_waits(slot: &Slot, wake: &Wake) {
    tracing::info!(account = %slot.account, reason = wake.reason.name(), transport = "no_transport", "wake push waiting: no \
        transport");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{UnixMillis, UnixSecs};
    use crate::push::account::{Change, DeviceId, DeviceRecognition};
    use crate::push::guard::Mark;
    use crate::push::guard::tests::with_aside;
    use crate::push::registration::{Registration, Target};
    use crate::relay::rig;
    use crate::seq::Seq;
    use crate::store::{SpoolId, Spooled, WakeReason};

    /// The round ended at that account, and no later device was woken.
    #[tokio::test]
    async fn an_account_that_cannot_be_read_does_not_keep_others_from_being_woken() {
        let directory = tempfile::tempdir().unwrap();
        let relay = rig::relay(directory.path());
        let slots = ["a@localhost", "b@localhost", "c@localhost"]
            .map(|account| Slot { account: account.parse().unwrap(), device: DeviceId(1) });
        for slot in &slots {
            relay.store().wake(slot, Wake { since: UnixSecs::new(1), reason: WakeReason::Restart }).await.unwrap();
        }
        relay.store().set_account(&slots[1].account, b"hunter2");
        let mut pushes = WakePushes::new(&relay, Arc::default());
        for _ in 0..2 {
            assert!(pushes.round(Duration::ZERO).await.unwrap());
            assert_eq!(pushes.memory.logged, HashSet::from(slots.clone()));
        }
    }

    #[tokio::test]
    async fn a_device_for_which_all_is_set_aside_is_not_told_that_something_waits() {
        let directory = tempfile::tempdir().unwrap();
        let relay = rig::relay(directory.path());
        let slot = Slot { account: BareJid::new("juliet@example.org").unwrap(), device: DeviceId(1) };
        let (candidate, login) = (slot.device, relay.store().next_login());
        let known = Change::Login {
            candidate,
            login,
            resource: "r".into(),
            agent: None,
            presented: None,
            at: UnixSecs::new(1),
        };
        let registration = Registration {
            target: Target { service: "push.example.net".parse().unwrap(), node: None },
            options: None,
            device: slot.device,
            last_seen: UnixSecs::new(1),
            errors: 0,
            extensions: Default::default(),
            last_success: None,
            undelivered_since: None,
        };
        let enable = Change::Enable { registration, recognition: DeviceRecognition::Certain, max_devices: 1 };
        let guarded = Change::Guarded { device: slot.device, guard: with_aside(Mark(1)) };
        for change in [known, enable, guarded] {
            relay.store().change(&slot.account, change).await.unwrap();
        }
        let spool = SpoolId { account: slot.account.clone(), login };
        let pushes = WakePushes::new(&relay, Arc::default());
        for (seq, count) in [(1, 0), (2, 1)] {
            let item = Spooled {
                seq: Seq::new(seq),
                received: UnixMillis::new(1),
                shared: false,
                archived: false,
                bytes: "<message/>".into(),
            };
            relay.store().spool(&spool, slot.device, vec![item]).await.unwrap();
            let counts: Vec<_> = pushes.publishes(&slot).await.unwrap().iter().map(|push| push.summary.count).collect();
            assert_eq!(counts, [count]);
        }
    }
}
