//! A session's place in the registry, which it leaves whatever becomes of its task.

use std::sync::Arc;

use tracing::Instrument;

use crate::push::account::Change;
use crate::registry::Handle;
use crate::relay::Relay;

/// Takes the session out of the registry when it is dropped, be it because the task has panicked.
pub(super) struct Membership {
    relay: Arc<Relay>,
    handle: Arc<Handle>,
    is_left: bool,
}

impl Membership {
    pub(super) fn new(relay: Arc<Relay>, handle: Arc<Handle>) -> Self {
        Self { relay, handle, is_left: false }
    }

    /// Leaves in order: what the session had is on disk, or on its way there in front of all that comes.
    pub(super) fn leave(&mut self) {
        if !std::mem::replace(&mut self.is_left, true) {
            self.relay.part_with(&self.handle);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        if std::thread::panicking() {
            self.relay.metrics.session_failed();
            tracing::error!("session task failed: its client is closed");
        }
        self.leave();
        // Without a runtime the process ends: the next start finds the login open, and closes it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (relay, handle) = (Arc::clone(&self.relay), Arc::clone(&self.handle));
            let ended = async move {
                relay.note_end(&handle).await;
            };
            self.relay.farewells.spawn_on(ended.in_current_span(), &runtime);
        }
    }
}

impl Relay {
    /// Takes a session out of the registry, and lets the device's other sessions know.
    pub(super) fn part_with(&self, handle: &Handle) {
        self.registry.leave(handle);
        handle.set_ended();
        self.registry.notify_same(handle);
        if let Some(newer) = self.registry.newer(handle) {
            newer.inherit();
        }
    }

    /// Stores that the session of a login has ended, behind all that was stored for it.
    pub(super) async fn note_end(&self, handle: &Handle) {
        let login = handle.login();
        if let Err(error) = self.change_account(handle.account(), Change::Ended { login }).await {
            tracing::error!(%error, "the end of a session cannot be stored");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::tempdir;

    use super::*;
    use crate::push::account::DeviceId;
    use crate::relay::rig::relay;
    use crate::session::negotiate::Held;

    /// A session whose task failed stayed in the registry for ever, with its device taken for connected.
    #[tokio::test]
    async fn a_session_whose_task_fails_leaves_the_registry_and_its_login_is_closed() {
        let directory = tempdir().unwrap();
        let relay = relay(directory.path());
        let held = Held { account: "romeo@localhost".parse().unwrap(), identity: None };
        let (handle, _commands) = relay.registry.enter(relay.store.next_login(), held.clone(), "r".to_owned());
        let (candidate, login) = (DeviceId(1), handle.login());
        let change = Change::Login { candidate, login, resource: "r".to_owned(), agent: None, presented: None, at: 1 };
        relay.store.change(&held.account, change).await.unwrap();
        let membership = Membership::new(Arc::clone(&relay), Arc::clone(&handle));
        let task = tokio::spawn(async move {
            let _membership = membership;
            panic!("as planned");
        });
        assert!(task.await.unwrap_err().is_panic());
        assert!(relay.registry.is_empty());
        tokio::time::timeout(Duration::from_secs(1), handle.ended()).await.unwrap();
        relay.farewells.close();
        relay.farewells.wait().await;
        let account = relay.store.account(&held.account).await.unwrap();
        assert!(!account.device(candidate).unwrap().is_open());
    }
}
