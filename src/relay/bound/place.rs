//! [`Place`]: the place of a session in the registry, as its task holds it.

use std::sync::Arc;

use super::membership::Membership;
use crate::registry::{HandleRecord, mailbox};
use crate::relay::client::{Command, Handle};
use crate::relay::shared::Relay;
use crate::session::negotiate::HeldSession;
use crate::store::AccountOwnership;

/// An entry in the registry, and the commands that come through it.
pub(super) struct Place {
    pub(super) handle: Arc<Handle>,
    pub(super) membership: Membership,
    pub(super) commands: mailbox::Receiver<Command>,
}

impl Place {
    /// Enters a new session of an account that this node owns: its earlier logins are known by now.
    pub(super) fn enter(relay: &Arc<Relay>, held: HeldSession, resource: String, ownership: AccountOwnership) -> Self {
        let (handle, commands) = relay.registry().enter(relay.store().next_login(), held, resource);
        handle.own(ownership);
        Self::of(relay, handle, commands)
    }

    /// Enters a session of the previous process.
    pub(super) fn enter_again(relay: &Arc<Relay>, record: HandleRecord) -> Self {
        let (handle, commands) = relay.registry().enter_again(record);
        Self::of(relay, handle, commands)
    }

    fn of(relay: &Arc<Relay>, handle: Arc<Handle>, commands: mailbox::Receiver<Command>) -> Self {
        let membership = Membership::new(Arc::clone(relay), Arc::clone(&handle));
        Self { handle, membership, commands }
    }
}
