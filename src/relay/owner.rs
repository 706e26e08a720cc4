//! Whose device a fresh session is, as the store knows it.

use std::sync::Arc;

use tracing::Instrument;

use super::registry::Handle;
use super::{Relay, jobs};
use crate::push::account::{Change, DeviceId};
use crate::session::{Bound, Owner};
use crate::store::{LoggedIn, StoreError};

/// Stores who logged in. Without a store the session goes on, as a device that is new.
pub(super) async fn owner(relay: &Arc<Relay>, handle: &Arc<Handle>, bound: &Bound) -> Owner {
    let candidate = DeviceId(rand::random());
    let presented = bound.presented.as_ref().map(|id| id.as_str().to_owned());
    let resource = bound.jid.resource().to_owned();
    let (agent, login, at) = (bound.agent.clone(), handle.login(), jobs::unix());
    let change = Change::Login { candidate, login, resource, agent, presented: presented.clone(), at };
    let known = relay.registry.news(handle.account()).account;
    let logged_in = match relay.store.log_in_knowing(handle.account(), known, change).await {
        Ok((logged_in, stored)) => {
            let (by, handle) = (Arc::clone(relay), Arc::clone(handle));
            let publish = async move {
                // What failed was logged.
                if let Ok((account, _)) = stored.await {
                    by.registry.publish(handle.account(), &account, Some(&handle));
                }
            };
            relay.farewells.spawn(publish.in_current_span());
            logged_in
        }
        Err(error) => {
            let account = unless_broken(Err(error));
            LoggedIn { account, device: None, knew_agent: false, waits: false }
        }
    };
    let LoggedIn { account, device: known_device, knew_agent, waits } = logged_in;
    let device = known_device.unwrap_or(candidate);
    handle.set_device(device);
    relay.registry.publish(handle.account(), &account, Some(handle));
    relay.device_is_back(handle.account(), device);
    let known = |id: &String| account.device(device).is_some_and(|d| d.sm_ids.contains(id));
    let certain = knew_agent || presented.as_ref().is_some_and(known);
    Owner { device, certain, account, waits, older: false }
}

fn unless_broken<T: Default>(result: Result<T, StoreError>) -> T {
    result.unwrap_or_else(|error| {
        tracing::error!(%error, "the account cannot be read or stored");
        T::default()
    })
}
