//! Whose device a fresh session is, as the store knows it.

use std::sync::Arc;

use super::registry::Handle;
use super::{Relay, jobs};
use crate::push::account::{Account, Change, DeviceId, LoginId};
use crate::session::{Bound, Owner};
use crate::store::{Backlog, Counted, Slot, StoreError};

/// Tells the store who logged in, and ends the device's ghosts. Without a store the session goes on, as a device that is new.
pub(super) async fn owner(relay: &Relay, handle: &Arc<Handle>, bound: &Bound, login: LoginId) -> Owner {
    let candidate = DeviceId(rand::random());
    let presented = bound.presented.as_ref().map(|id| id.as_str().to_owned());
    let resource = bound.jid.resource().as_str().to_owned();
    let agent = bound.agent.clone();
    // Asked first, for the login makes it known.
    let is_known = |account: Account| account.devices.iter().any(|d| d.agent == agent);
    let known_agent = agent.is_some() && relay.store.account(handle.account()).await.is_ok_and(is_known);
    let at = jobs::unix();
    let change = Change::Login { candidate, login, resource, agent, presented: presented.clone(), at };
    // Whoever leaves the registry has all on disk, so that nobody adds to what is counted with the login.
    let alone = relay.registry.siblings(handle).is_empty();
    let (account, known_device, counted) = match relay.store.change_and_count(handle.account(), change).await {
        Ok(Counted { account, device, backlog }) => (account, device, Some(backlog).filter(|_| alone)),
        Err(error) => unless_broken(Err(error)),
    };
    let device = known_device.unwrap_or(candidate);
    handle.set_device(device);
    jobs::tell(relay.registry.siblings(handle), &account).await;
    relay.device_is_back(handle.account(), device).await;
    jobs::supersede(relay, handle, device).await;
    let counted = match counted {
        Some(counted) => counted,
        None => relay.store.backlog(&Slot { account: handle.account().clone(), device }).await,
    };
    let Backlog { count, last_seq, .. } = unless_broken(counted);
    let known = |id: &String| account.device(device).is_some_and(|d| d.sm_ids.contains(id));
    let certain = known_agent || presented.as_ref().is_some_and(known);
    Owner { device, certain, account, last_seq, backlog: count > 0 }
}

fn unless_broken<T: Default>(result: Result<T, StoreError>) -> T {
    result.unwrap_or_else(|error| {
        tracing::error!(%error, "the account cannot be read or stored");
        T::default()
    })
}
