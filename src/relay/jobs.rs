//! What a session asks of the store: one thing after the other, in order, while the session goes on.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use super::Relay;
use super::registry::Handle;
use crate::jid::BareJid;
use crate::push::account::{Account, Change, DeviceId};
use crate::session::queue::Spooled;
use crate::session::{SmId, Source, Token, WakeReason, sm};
use crate::store::{self, Inherited, Slot, SpoolId, Store, StoreError, Tombstone, Wake};

/// What the store is asked.
#[derive(Debug)]
pub(super) enum Request {
    Change(Option<Token>, Change),
    Spool(Vec<Spooled>),
    Unspool(Vec<RangeInclusive<u64>>),
    Load(u64, usize),
    Adopt(Source, RangeInclusive<u64>),
    Bury(SmId, sm::Handled),
    Wake(WakeReason),
}

/// What came of it, as far as the session is told.
#[derive(Debug)]
pub(super) enum Done {
    Changed(Option<Token>, Result<(Account, Option<DeviceId>), StoreError>),
    Spooled(u64, Result<(), StoreError>),
    Loaded(Result<Vec<Spooled>, StoreError>),
    /// Nobody waits for it.
    Quiet(Result<(), StoreError>),
}

type Job = Pin<Box<dyn Future<Output = Done> + Send>>;

impl Done {
    /// Logs what failed, for a session that has ended.
    pub(super) fn report(self) {
        if let Self::Changed(_, Err(error))
        | Self::Spooled(_, Err(error))
        | Self::Loaded(Err(error))
        | Self::Quiet(Err(error)) = self
        {
            tracing::error!(%error, "the store failed as the session ended");
        }
    }
}

/// A session's line to the store.
pub(super) struct Jobs {
    relay: Arc<Relay>,
    handle: Arc<Handle>,
    /// The session's first place in the spool: what lies before is of earlier sessions.
    base: u64,
    /// Stanzas of earlier sessions are still under their old places.
    earlier: bool,
    waiting: VecDeque<Request>,
    at_work: Option<Job>,
}

impl Request {
    /// Whether something is waited for until it is done.
    fn is_urgent(&self) -> bool {
        match self {
            Self::Spool(_) | Self::Unspool(_) => false,
            Self::Change(None, change) => !matches!(change, Change::Succeeded { .. } | Change::Resumable { .. }),
            Self::Change(Some(_), _) | Self::Load(..) | Self::Adopt(..) | Self::Bury(..) | Self::Wake(_) => true,
        }
    }
}

impl Jobs {
    pub(super) fn new(relay: Arc<Relay>, handle: Arc<Handle>, (base, earlier): (u64, bool)) -> Self {
        Self { relay, handle, base, earlier, waiting: VecDeque::new(), at_work: None }
    }

    /// The device turned out to be another one, which may have stanzas waiting.
    pub(super) fn device_changed(&mut self) {
        self.earlier = true;
    }

    /// Asks for something; it waits for what was asked before.
    pub(super) fn ask(&mut self, mut request: Request) {
        if self.at_work.is_some() && request.is_urgent() {
            self.relay.store.hurry();
        }
        // What waits to be spooled, or to be deleted, goes in one transaction.
        match (&mut request, self.waiting.back_mut()) {
            (Request::Spool(more), Some(Request::Spool(items))) => items.append(more),
            (Request::Unspool(more), Some(Request::Unspool(places))) => places.append(more),
            _ => self.waiting.push_back(request),
        }
        self.begin();
    }

    /// The next thing that is done. Cancel safe: work goes on with the next call.
    pub(super) async fn done(&mut self) -> Done {
        let Some(job) = &mut self.at_work else { return pending().await };
        let done = job.await;
        self.at_work = None;
        if let Done::Spooled(_, Err(_)) = done {
            // What follows a gap is not kept: the server has it all.
            self.waiting.retain(|request| !matches!(request, Request::Spool(_)));
        }
        self.begin();
        done
    }

    /// Does all that was asked for.
    pub(super) async fn finish(mut self) {
        while self.at_work.is_some() {
            self.done().await.report();
        }
    }

    /// Whether all that was asked for is done.
    pub(super) fn are_done(&self) -> bool {
        self.at_work.is_none()
    }

    /// How many things are asked for and not done.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.at_work.is_some())
    }

    fn slot(&self) -> Slot {
        Slot { account: self.handle.account().clone(), device: self.handle.device() }
    }

    fn begin(&mut self) {
        if self.at_work.is_some() {
            return;
        }
        let Some(request) = self.waiting.pop_front() else { return };
        if self.waiting.is_empty() {
            // Most sessions ask for nothing most of the time.
            self.waiting = VecDeque::new();
        }
        let (relay, slot, handle) = (Arc::clone(&self.relay), self.slot(), Arc::clone(&self.handle));
        let store = relay.store.clone();
        let spool = SpoolId { account: slot.account.clone(), login: self.handle.login() };
        self.at_work = Some(match request {
            Request::Change(token, change) => {
                Box::pin(async move { Done::Changed(token, change_account(&relay, &handle, change).await) })
            }
            Request::Spool(mut items) => {
                // Another device that was there has had what was addressed to the account.
                if relay.registry.siblings(&handle).iter().any(|other| !other.is_dark()) {
                    items.iter_mut().for_each(|item| item.shared = false);
                }
                let last = items.last().map_or(0, |item| item.seq);
                Box::pin(async move { Done::Spooled(last, store.spool(&spool, slot.device, items).await) })
            }
            Request::Unspool(places) => {
                let delivered = |p: &RangeInclusive<u64>| *p.start() <= self.base && *p.end() != u64::MAX;
                let lazily = !self.earlier && places.iter().all(delivered);
                Box::pin(async move {
                    let last = places.iter().map(|p| *p.end()).max().unwrap_or_default();
                    Done::Quiet(if lazily {
                        store.unspool(&spool, last).await
                    } else {
                        store.discard(&spool, places).await
                    })
                })
            }
            Request::Load(after, weight) => {
                Box::pin(async move { Done::Loaded(store.spooled(&spool, after, weight).await) })
            }
            Request::Adopt(Source::Earlier, places) => {
                self.earlier = false;
                Box::pin(async move {
                    let last = *places.end();
                    Done::Spooled(last, inherit(&store, (&spool, slot.device), places).await)
                })
            }
            Request::Adopt(Source::Others { registered }, places) => Box::pin(async move {
                let last = *places.end();
                Done::Spooled(last, orphans(&store, (&spool, slot.device), registered, places).await)
            }),
            Request::Bury(id, h) => Box::pin(async move {
                let Slot { account, device } = slot;
                let tombstone = Tombstone { account, device, h: h.get(), at: unix() };
                Done::Quiet(store.bury_known(spool.login, id.as_str(), tombstone).await)
            }),
            Request::Wake(reason) => Box::pin(async move {
                let reason = match reason {
                    WakeReason::UpstreamLost => store::WakeReason::UpstreamLost,
                    WakeReason::Restart => store::WakeReason::Restart,
                };
                Done::Quiet(store.wake(&slot, Wake { since: unix(), reason }).await)
            }),
        });
    }
}

impl Relay {
    /// Changes an account, and publishes it to its sessions.
    ///
    /// # Errors
    /// As [`Store::change`].
    pub async fn change_account(&self, account: &BareJid, change: Change) -> Result<(), StoreError> {
        let concerns_others = change.concerns_others();
        let (changed, _) = self.store.change(account, change).await?;
        if concerns_others {
            self.registry.publish(account, &changed, None);
        }
        Ok(())
    }
}

/// Changes the account for a session, and publishes it to the others.
async fn change_account(
    relay: &Relay,
    handle: &Arc<Handle>,
    change: Change,
) -> Result<(Account, Option<DeviceId>), StoreError> {
    let account = handle.account();
    let concerns_others = change.concerns_others();
    let is_removed = change == Change::Removed;
    let up_to = relay.store.newest_login();
    let answer = relay.store.change(account, change).await?;
    if is_removed {
        relay.registry.publish_removal(account, up_to);
    }
    if let Some(device) = answer.1
        && device != handle.device()
    {
        handle.set_device(device);
        relay.registry.notify_same(handle);
    }
    if concerns_others {
        relay.registry.publish(account, &answer.0, Some(handle));
    }
    Ok(answer)
}

/// Moves what ended sessions of the device have left into the own spool. Requests are left out: they were for those sessions.
async fn inherit(
    store: &Store,
    (spool, device): (&SpoolId, DeviceId),
    places: RangeInclusive<u64>,
) -> Result<(), StoreError> {
    /// Stanzas that move together, by their weight.
    const PIECE: usize = 1 << 20;
    let mut free = places;
    for Inherited { spool: login, .. } in store.take_over(&spool.account, device, spool.login).await? {
        let from = SpoolId { account: spool.account.clone(), login };
        loop {
            let items = store.spooled(&from, 0, PIECE).await?;
            let Some(last) = items.last().map(|item| item.seq) else { break };
            let wanted = items.into_iter().filter(|item| !item.bytes.starts_with(b"<iq"));
            let moved = wanted.zip(&mut free).map(|(item, seq)| Spooled { seq, ..item }).collect();
            store.spool(spool, device, moved).await?;
            store.discard(&from, vec![0..=last]).await?;
        }
    }
    Ok(())
}

/// Takes what was addressed to the account and waits for devices without a session.
async fn orphans(
    store: &Store,
    (spool, own): (&SpoolId, DeviceId),
    registered: bool,
    mut places: RangeInclusive<u64>,
) -> Result<(), StoreError> {
    let account = store.account_now(&spool.account).await?;
    for (device, _) in store.orphans(&spool.account, own).await? {
        // Of a device that is not known any more nobody may have anything: its account was removed.
        let Some(known) = account.device(device) else { continue };
        if known.is_open() || account.owned(device).next().is_some() != registered {
            continue;
        }
        loop {
            let moved = store.adopt_shared(&spool.account, device, (spool, own), places.clone()).await?;
            places = places.start().saturating_add(moved)..=*places.end();
            if moved == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// Unix seconds now.
pub(super) fn unix() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
