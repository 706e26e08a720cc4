//! What a session asks of the store: one thing after the other, in order, while the session goes on.

mod changes;
mod places;
mod spools;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, pending, ready};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;

use super::client::Handle;
use super::shared::Relay;
use crate::clock;
use crate::push::account::{Account, Change, DeviceId, LoginId};
use crate::session::queue::{Inherited, Load, Spooled};
use crate::session::{SmId, Token, WakeReason, sm};
use crate::store::{self, Slot, SpoolId, StoreError, Tombstone, Wake};
use places::Places;

/// What the store is asked.
#[derive(Debug)]
pub(super) enum Request {
    Change(Option<Token>, Change),
    /// Stanzas, and the number of the last one: some may have been delivered since.
    Spool(Vec<Spooled>, u64),
    /// Of the spool of this login, or of the own one.
    Unspool(Option<LoginId>, Vec<RangeInclusive<u64>>),
    Load(Load),
    TakeOver,
    /// Of devices with a registration, or of those without; and the numbers that they get.
    Adopt(bool, RangeInclusive<u64>),
    Bury(SmId, sm::Handled),
    Wake(WakeReason),
    /// What the store was asked for already.
    Begun(Begun),
}

/// What came of it, as far as the session is told.
#[derive(Debug)]
pub(super) enum Done {
    Changed(Option<Token>, Result<(Account, Option<DeviceId>), StoreError>),
    Spooled(Spooling),
    Loaded(Result<Vec<Spooled>, StoreError>),
    TookOver(Result<Vec<Inherited>, StoreError>),
    /// Nobody waits for it.
    Quiet(Result<(), StoreError>),
}

/// What came of stanzas that were handed to the spool.
#[derive(Debug)]
pub(super) struct Spooling {
    /// The number of the last one.
    pub(super) last: u64,
    pub(super) result: Result<(), StoreError>,
    /// How many the spool did not take that the client has not acknowledged.
    refused: usize,
    /// Where they are, if they moved.
    moved: Option<Places>,
}

impl Spooling {
    fn new(last: u64, result: Result<(), StoreError>) -> Self {
        Self { last, result, refused: 0, moved: None }
    }
}

type Job = Pin<Box<dyn Future<Output = Done> + Send>>;

/// A job that does not wait for those before it.
pub(super) struct Begun(Job);

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begun").finish_non_exhaustive()
    }
}

impl Done {
    /// Logs what failed, for a session that has ended.
    pub(super) fn report(self, relay: &Relay) {
        match self {
            Self::Spooled(Spooling { result: Err(StoreError::AccountRemoved { .. }), .. }) => {}
            Self::Spooled(Spooling { result: Err(error), refused, .. }) => {
                relay.overload().on_spool_error(&error);
                relay.metrics().lost(refused as u64);
                tracing::error!(%error, stanzas = refused, "spool_failed: stanzas of a session that has ended are lost");
            }
            Self::Changed(_, Err(error))
            | Self::Loaded(Err(error))
            | Self::TookOver(Err(error))
            | Self::Quiet(Err(error)) => tracing::error!(%error, "the store failed as the session ended"),
            Self::Changed(_, Ok(_))
            | Self::Spooled(Spooling { result: Ok(()), .. })
            | Self::Loaded(Ok(_))
            | Self::TookOver(Ok(_))
            | Self::Quiet(Ok(())) => {}
        }
    }
}

/// A session's line to the store.
pub(super) struct Jobs {
    relay: Arc<Relay>,
    handle: Arc<Handle>,
    waiting: VecDeque<Request>,
    at_work: Option<Job>,
    /// Bytes of the stanzas that the store works on.
    bytes_at_work: usize,
    /// Their numbers, without those that the client has acknowledged since.
    offered: Vec<u64>,
    /// Where the session's stanzas are in its spool.
    places: Places,
}

impl Request {
    /// Whether something is waited for until it is done.
    fn is_urgent(&self) -> bool {
        match self {
            Self::Spool(..) | Self::Unspool(..) => false,
            Self::Change(None, change) => {
                !matches!(change, Change::Succeeded { .. } | Change::Resumable { .. } | Change::Guarded { .. })
            }
            Self::Change(Some(_), _)
            | Self::Load(_)
            | Self::TakeOver
            | Self::Adopt(..)
            | Self::Bury(..)
            | Self::Wake(_)
            | Self::Begun(_) => true,
        }
    }

    /// Whether stanzas that come later may be spooled before it.
    fn may_be_passed(&self) -> bool {
        match self {
            Self::Unspool(_, places) => places.iter().all(is_delivered),
            Self::Adopt(..) => false,
            Self::Spool(..)
            | Self::Change(..)
            | Self::Load(_)
            | Self::TakeOver
            | Self::Bury(..)
            | Self::Wake(_)
            | Self::Begun(_) => true,
        }
    }
}

/// Whether a deletion names the beginning of a spool, which the client has.
fn is_delivered(places: &RangeInclusive<u64>) -> bool {
    *places.start() == 0
}

impl Jobs {
    pub(super) fn new(relay: Arc<Relay>, handle: Arc<Handle>) -> Self {
        Self {
            relay,
            handle,
            waiting: VecDeque::new(),
            at_work: None,
            bytes_at_work: 0,
            offered: Vec::new(),
            places: Places::default(),
        }
    }

    /// Asks for something; it waits for what was asked before.
    pub(super) fn ask(&mut self, request: Request) {
        if self.at_work.is_some() && request.is_urgent() {
            self.relay.store().hurry();
        }
        match request {
            Request::Spool(items, last) => self.spool(items, last),
            Request::Unspool(spool, places) => places.into_iter().for_each(|places| self.unspool(spool, places)),
            Request::Change(token, Change::Removed) => self.remove_account(token),
            Request::Change(..)
            | Request::Load(_)
            | Request::TakeOver
            | Request::Adopt(..)
            | Request::Bury(..)
            | Request::Wake(_)
            | Request::Begun(_) => self.waiting.push_back(request),
        }
        self.begin();
    }

    /// Hands the removal of the account to the store at once. From now on somebody else may log in under its name, and must come
    /// behind it, also while the store is late with what was asked before. No change that waits is made to what comes after.
    fn remove_account(&mut self, token: Option<Token>) {
        let account = self.handle.account();
        for request in &mut self.waiting {
            if let Request::Change(token, _) = request {
                let removed = StoreError::AccountRemoved { account: account.clone() };
                *request = Request::Begun(Begun(Box::pin(ready(Done::Changed(*token, Err(removed))))));
            }
        }
        let (relay, handle) = (Arc::clone(&self.relay), Arc::clone(&self.handle));
        let up_to = relay.store().newest_login();
        let removed = relay.store().change_behind(account, Change::Removed);
        let removal = async move {
            let answer = match removed {
                Ok(removed) => removed.await,
                Err(error) => Err(error),
            };
            if let Ok((left, _)) = &answer {
                relay.registry().publish_removal(handle.account(), up_to);
                relay.accounts().memories().forget(handle.account());
                relay.registry().publish(handle.account(), left, Some(&handle));
            }
            Done::Changed(token, answer)
        };
        self.waiting.push_back(Request::Begun(Begun(Box::pin(removal))));
    }

    /// What waits to be spooled goes in one transaction.
    fn spool(&mut self, mut items: Vec<Spooled>, last: u64) {
        for request in self.waiting.iter_mut().rev() {
            if let Request::Spool(waiting, end) = request {
                waiting.append(&mut items);
                *end = last;
                return;
            }
            if !request.may_be_passed() {
                break;
            }
        }
        self.waiting.push_back(Request::Spool(items, last));
    }

    /// What was not handed to the store yet is taken back. The rest is deleted behind what the store works on, all in one
    /// transaction.
    fn unspool(&mut self, spool: Option<LoginId>, places: RangeInclusive<u64>) {
        if spool.is_none() {
            for request in &mut self.waiting {
                if let Request::Spool(items, _) = request {
                    items.retain(|item| !places.contains(&item.seq));
                }
            }
            self.offered.retain(|seq| !places.contains(seq));
        }
        let (delivered, last) = (is_delivered(&places), self.waiting.len().saturating_sub(1));
        let joined = self.waiting.iter_mut().enumerate().rev().find_map(|(at, request)| {
            let Request::Unspool(other, waiting) = request else { return None };
            let joins = *other == spool && (at == last || delivered && waiting.iter().all(is_delivered));
            joins.then_some(waiting)
        });
        let Some(waiting) = joined else {
            return self.waiting.push_back(Request::Unspool(spool, vec![places]));
        };
        match waiting.iter_mut().find(|other| delivered && is_delivered(other)) {
            Some(other) => *other = 0..=*places.end().max(other.end()),
            None => waiting.push(places),
        }
    }

    /// Bytes of the stanzas that the store works on.
    pub(super) fn bytes_at_work(&self) -> usize {
        self.bytes_at_work
    }

    /// The next thing that is done. Cancel safe: work goes on with the next call.
    pub(super) async fn done(&mut self) -> Done {
        let Some(job) = &mut self.at_work else { return pending().await };
        let mut done = job.await;
        (self.at_work, self.bytes_at_work) = (None, 0);
        let offered = std::mem::take(&mut self.offered);
        if let Done::Spooled(spooling) = &mut done {
            if let Some(places) = spooling.moved.take() {
                self.places = places;
            }
            if spooling.result.is_err() {
                spooling.refused = offered.len().saturating_add(self.withdraw());
            }
        }
        self.begin();
        done
    }

    /// Withdraws what is to be spooled behind what was refused: it has higher numbers, and is offered again. Returns how many
    /// stanzas that are.
    fn withdraw(&mut self) -> usize {
        let mut stanzas = 0usize;
        self.waiting.retain(|request| match request {
            Request::Spool(items, _) => {
                stanzas = stanzas.saturating_add(items.len());
                false
            }
            Request::Adopt(..) => false,
            Request::Unspool(..)
            | Request::Change(..)
            | Request::Load(_)
            | Request::TakeOver
            | Request::Bury(..)
            | Request::Wake(_)
            | Request::Begun(_) => true,
        });
        stanzas
    }

    /// Does all that was asked for.
    pub(super) async fn finish(mut self) {
        while self.at_work.is_some() {
            self.done().await.report(&self.relay);
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
        if let Request::Spool(items, _) = &request {
            self.bytes_at_work = items.iter().map(Spooled::weight).sum();
            self.offered = items.iter().map(|item| item.seq).collect();
        }
        self.at_work = Some(self.job(request));
    }

    fn job(&self, request: Request) -> Job {
        let (relay, slot, handle) = (Arc::clone(&self.relay), self.slot(), Arc::clone(&self.handle));
        let store = relay.store().clone();
        let own = SpoolId { account: slot.account.clone(), login: self.handle.login() };
        match request {
            Request::Begun(Begun(job)) => job,
            Request::Change(token, change) => {
                Box::pin(async move { Done::Changed(token, changes::change_account(&relay, &handle, change).await) })
            }
            // All of it was delivered meanwhile.
            Request::Spool(items, last) if items.is_empty() => {
                Box::pin(ready(Done::Spooled(Spooling::new(last, Ok(())))))
            }
            Request::Spool(items, last) => {
                let places = self.places.clone();
                Box::pin(async move {
                    let (result, moved) = spools::spool(&store, (&own, slot.device), items, places).await;
                    if moved.is_some() {
                        relay.metrics().place_taken();
                    }
                    Done::Spooled(Spooling { moved, ..Spooling::new(last, result) })
                })
            }
            Request::Unspool(spool, numbers) => {
                let places = match spool {
                    None => numbers.into_iter().flat_map(|numbers| self.places.ranges(numbers)).collect(),
                    Some(_) => numbers,
                };
                let spool = spool.map_or(own.clone(), |login| SpoolId { login, ..own });
                Box::pin(async move { Done::Quiet(spools::unspool(&store, &spool, places).await) })
            }
            Request::Load(load) => {
                let places = if load.spool.is_none() { self.places.clone() } else { Places::default() };
                let spool = load.spool.map_or(own.clone(), |login| SpoolId { login, ..own });
                Box::pin(async move { Done::Loaded(spools::load(&store, &spool, &load, &places).await) })
            }
            Request::TakeOver => Box::pin(async move {
                let spools = store.take_over(&slot.account, slot.device, own.login).await;
                let inherited =
                    |spool: store::Inherited| Inherited { spool: spool.spool, last_seq: spool.backlog.last_seq };
                Done::TookOver(spools.map(|spools| spools.into_iter().map(inherited).collect()))
            }),
            Request::Adopt(registered, numbers) => {
                let last = *numbers.end();
                // None of them was used so far: they are side by side.
                let places = self.places.place(*numbers.start())..=self.places.place(last);
                Box::pin(async move {
                    // One that ends could only leave it to the next.
                    let stays = || !handle.is_ending();
                    spools::adopt(&store, (&slot, &own), (registered, stays), places).await;
                    Done::Spooled(Spooling::new(last, Ok(())))
                })
            }
            Request::Bury(id, h) => Box::pin(async move {
                let Slot { account, device } = slot;
                let tombstone = Tombstone { account, device, h: h.get(), at: clock::unix_secs().get() };
                Done::Quiet(store.bury_known(own.login, id.as_str(), tombstone).await)
            }),
            Request::Wake(reason) => {
                let wake = Wake { since: clock::unix_secs().get(), reason };
                Box::pin(async move { Done::Quiet(store.wake(&slot, wake).await) })
            }
        }
    }
}
