//! The store requests of a session. [`Jobs`] runs them one at a time, in order, while the session continues.

mod changes;
mod renumbering;
mod request;
mod spools;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::future::{pending, ready};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::client::Handle;
use super::shared::Relay;
use crate::clock;
use crate::metrics::Wait;
use crate::push::account::{Change, LoginId};
use crate::push::fast::TokenChange;
use crate::seq::Seq;
use crate::session::Token;
use crate::session::queue::{Inherited, Spooled};
use crate::store::{self, Slot, SpoolId, StoreError, Tombstone, Wake};
pub(super) use renumbering::Renumbering;
use request::{Begun, Job, is_delivered};
pub(super) use request::{Done, Spooling, StoreRequest};

/// The queue of a session's store requests.
pub(super) struct Jobs {
    relay: Arc<Relay>,
    handle: Arc<Handle>,
    waiting: VecDeque<StoreRequest>,
    at_work: Option<Job>,
    /// The bytes of the stanzas in the running request.
    bytes_at_work: usize,
    /// The numbers of those stanzas, without the ones that the client has acknowledged since.
    offered: Vec<Seq>,
    /// The mapping from the session's stanza numbers to sequence numbers in its spool.
    renumbering: Renumbering,
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
            renumbering: Renumbering::default(),
        }
    }

    /// Goes on in another process with the numbers that the spool has.
    pub(super) fn thaw(relay: Arc<Relay>, handle: Arc<Handle>, renumbering: Renumbering) -> Self {
        Self { renumbering, ..Self::new(relay, handle) }
    }

    /// Returns the mapping to the numbers that the spool has.
    pub(super) fn renumbering(&self) -> &Renumbering {
        &self.renumbering
    }

    /// Queues a request. It runs after all earlier requests.
    pub(super) fn ask(&mut self, request: StoreRequest) {
        if self.at_work.is_some() && request.is_urgent() {
            self.relay.store().hurry();
        }
        match request {
            StoreRequest::Spool(items, last) => self.spool(items, last),
            StoreRequest::Unspool(spool, seqs) => seqs.into_iter().for_each(|seqs| self.unspool(spool, seqs)),
            StoreRequest::Change(token, Change::Removed) => self.remove_account(token),
            StoreRequest::Change(token, Change::Token(TokenChange::Revoked)) => self.revoke_tokens(token),
            StoreRequest::Change(..)
            | StoreRequest::Load(_)
            | StoreRequest::TakeOver
            | StoreRequest::Adopt(..)
            | StoreRequest::Tombstone(..)
            | StoreRequest::Wake(_)
            | StoreRequest::Begun(_) => self.waiting.push_back(request),
        }
        self.begin();
    }

    /// Passes the removal of the account to the store at once, ahead of earlier requests. From now on somebody else may log
    /// in under the same name, and that login must follow the removal. Waiting changes are answered with an error, so that
    /// they do not affect the new account.
    fn remove_account(&mut self, token: Option<Token>) {
        let account = self.handle.account();
        for request in &mut self.waiting {
            if let StoreRequest::Change(token, _) = request {
                let removed = StoreError::AccountRemoved { account: account.clone() };
                *request = StoreRequest::Begun(Begun(Box::pin(ready(Done::Changed(*token, Err(removed))))));
            }
        }
        let (relay, handle) = (Arc::clone(&self.relay), Arc::clone(&self.handle));
        relay.revoke_tokens(account);
        let up_to = relay.store().newest_login();
        let removed = relay.store().submit_change(account, Change::Removed);
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
        self.waiting.push_back(StoreRequest::Begun(Begun(Box::pin(removal))));
    }

    /// Revokes the tokens of the account at once, ahead of earlier requests.
    fn revoke_tokens(&mut self, token: Option<Token>) {
        let revoked = self.relay.accounts().tokens().revoke(self.handle.account());
        let answer = async move { Done::Changed(token, revoked.await.unwrap_or(Err(StoreError::Closed))) };
        self.waiting.push_back(StoreRequest::Begun(Begun(Box::pin(answer))));
    }

    /// Queues stanzas to be spooled. All waiting stanzas are stored in one transaction.
    fn spool(&mut self, mut items: Vec<Spooled>, last: Seq) {
        for request in self.waiting.iter_mut().rev() {
            if let StoreRequest::Spool(waiting, end) = request {
                waiting.append(&mut items);
                *end = last;
                return;
            }
            if !request.may_be_passed() {
                break;
            }
        }
        self.waiting.push_back(StoreRequest::Spool(items, last));
    }

    /// Withdraws the stanzas that were not passed to the store yet. The others are deleted after the running request, all in
    /// one transaction.
    fn unspool(&mut self, spool: Option<LoginId>, seqs: RangeInclusive<Seq>) {
        if spool.is_none() {
            for request in &mut self.waiting {
                if let StoreRequest::Spool(items, _) = request {
                    items.retain(|item| !seqs.contains(&item.seq));
                }
            }
            self.offered.retain(|seq| !seqs.contains(seq));
        }
        let (delivered, last) = (is_delivered(&seqs), self.waiting.len().saturating_sub(1));
        let joined = self.waiting.iter_mut().enumerate().rev().find_map(|(at, request)| {
            let StoreRequest::Unspool(other, waiting) = request else { return None };
            let joins = *other == spool && (at == last || delivered && waiting.iter().all(is_delivered));
            joins.then_some(waiting)
        });
        let Some(waiting) = joined else {
            return self.waiting.push_back(StoreRequest::Unspool(spool, vec![seqs]));
        };
        match waiting.iter_mut().find(|other| delivered && is_delivered(other)) {
            Some(other) => *other = Seq::ZERO..=*seqs.end().max(other.end()),
            None => waiting.push(seqs),
        }
    }

    /// Returns the bytes of the stanzas in the running request.
    pub(super) fn bytes_at_work(&self) -> usize {
        self.bytes_at_work
    }

    /// Waits for the next request to complete. Cancel safe: the request continues with the next call.
    pub(super) async fn done(&mut self) -> Done {
        let Some(job) = &mut self.at_work else { return pending().await };
        let mut done = job.await;
        (self.at_work, self.bytes_at_work) = (None, 0);
        if done.is_late() {
            self.relay.metrics().deadline_passed(Wait::Store);
        }
        let offered = std::mem::take(&mut self.offered);
        if let Done::Spooled(spooling) = &mut done {
            if let Some(renumbering) = spooling.moved.take() {
                self.renumbering = renumbering;
            }
            if spooling.result.is_err() {
                spooling.refused = offered.len().saturating_add(self.withdraw());
            }
        }
        self.begin();
        done
    }

    /// Withdraws the stanzas to be spooled after a refusal: they have higher numbers, and the session offers them again.
    /// Returns the number of stanzas.
    fn withdraw(&mut self) -> usize {
        let mut stanzas = 0usize;
        self.waiting.retain(|request| match request {
            StoreRequest::Spool(items, _) => {
                stanzas = stanzas.saturating_add(items.len());
                false
            }
            StoreRequest::Adopt(..) => false,
            StoreRequest::Unspool(..)
            | StoreRequest::Change(..)
            | StoreRequest::Load(_)
            | StoreRequest::TakeOver
            | StoreRequest::Tombstone(..)
            | StoreRequest::Wake(_)
            | StoreRequest::Begun(_) => true,
        });
        stanzas
    }

    /// Completes all requests.
    pub(super) async fn finish(mut self) {
        while self.at_work.is_some() {
            self.done().await.report(&self.relay);
        }
    }

    /// Returns whether all requests are complete.
    pub(super) fn are_done(&self) -> bool {
        self.at_work.is_none()
    }

    /// Returns the number of requests that are not complete.
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
            // Frees the memory: most sessions have no requests most of the time.
            self.waiting = VecDeque::new();
        }
        if let StoreRequest::Spool(items, _) = &request {
            self.bytes_at_work = items.iter().map(Spooled::weight).sum();
            self.offered = items.iter().map(|item| item.seq).collect();
        }
        self.at_work = Some(self.job(request));
    }

    fn job(&self, request: StoreRequest) -> Job {
        let (relay, slot, handle) = (Arc::clone(&self.relay), self.slot(), Arc::clone(&self.handle));
        let store = relay.store().clone();
        let own = SpoolId { account: slot.account.clone(), login: self.handle.login() };
        match request {
            StoreRequest::Begun(Begun(job)) => job,
            StoreRequest::Change(token, change) => {
                Box::pin(async move { Done::Changed(token, changes::change_account(&relay, &handle, change).await) })
            }
            // All stanzas were delivered meanwhile.
            StoreRequest::Spool(items, last) if items.is_empty() => {
                Box::pin(ready(Done::Spooled(Spooling::new(last, Ok(())))))
            }
            StoreRequest::Spool(items, last) => {
                let renumbering = self.renumbering.clone();
                Box::pin(async move {
                    let (result, moved) = spools::spool(&store, &own, slot.device, items, renumbering).await;
                    if moved.is_some() {
                        relay.metrics().sequence_taken();
                    }
                    Done::Spooled(Spooling { moved, ..Spooling::new(last, result) })
                })
            }
            StoreRequest::Unspool(spool, numbers) => {
                let seqs = match spool {
                    None => numbers.into_iter().flat_map(|numbers| self.renumbering.ranges(numbers)).collect(),
                    Some(_) => numbers,
                };
                let spool = spool.map_or(own.clone(), |login| SpoolId { login, ..own });
                Box::pin(async move { Done::Quiet(spools::unspool(&store, &spool, seqs).await) })
            }
            StoreRequest::Load(load) => {
                let is_own = load.spool.is_none();
                let renumbering = if is_own { self.renumbering.clone() } else { Renumbering::default() };
                let spool = load.spool.map_or(own.clone(), |login| SpoolId { login, ..own });
                Box::pin(async move { Done::Loaded(spools::load(&store, &spool, &load, &renumbering).await) })
            }
            StoreRequest::TakeOver => Box::pin(async move {
                let spools = store.take_over(&slot.account, slot.device, own.login).await;
                let inherited =
                    |spool: store::InheritedSpool| Inherited { spool: spool.spool, last_seq: spool.backlog.last_seq };
                Done::TookOver(spools.map(|spools| spools.into_iter().map(inherited).collect()))
            }),
            StoreRequest::Adopt(orphans, numbers) => {
                let last = *numbers.end();
                // None of these numbers was used so far, so their sequence numbers are contiguous.
                let seqs = self.renumbering.seq(*numbers.start())..=self.renumbering.seq(last);
                Box::pin(async move {
                    // A session that is ending does not adopt: it could only pass the stanzas on to the next session.
                    let stays = || !handle.is_ending();
                    spools::adopt(&store, &slot, &own, orphans, stays, seqs).await;
                    Done::Spooled(Spooling::new(last, Ok(())))
                })
            }
            StoreRequest::Tombstone(id, h) => Box::pin(async move {
                let Slot { account, device } = slot;
                let tombstone = Tombstone { account, device, h: h.get(), at: clock::unix_secs() };
                Done::Quiet(store.save_tombstone_of(own.login, id.as_str(), tombstone).await)
            }),
            StoreRequest::Wake(reason) => {
                let wake = Wake { since: clock::unix_secs(), reason };
                Box::pin(async move { Done::Quiet(store.wake(&slot, wake).await) })
            }
        }
    }
}
