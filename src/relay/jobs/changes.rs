//! Changes of accounts that a session requests.

use std::sync::Arc;

use crate::push::account::{Account, Change, DeviceId};
use crate::relay::client::Handle;
use crate::relay::shared::Relay;
use crate::store::StoreError;

/// Changes the account for a session and publishes the change to the account's other sessions.
pub(super) async fn change_account(
    relay: &Relay,
    handle: &Arc<Handle>,
    change: Change,
) -> Result<(Account, Option<DeviceId>), StoreError> {
    let account = handle.account();
    let concerns_others = change.concerns_others();
    let answer = relay.store().change(account, change).await?;
    if let Some(device) = answer.1
        && device != handle.device()
    {
        handle.set_device(device);
        relay.registry().notify_same(handle);
    }
    if concerns_others {
        relay.registry().publish(account, &answer.0, Some(handle));
    } else {
        relay.registry().keep(account, &answer.0);
    }
    Ok(answer)
}
