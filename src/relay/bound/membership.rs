//! [`Membership`]: a session's entry in the registry. It is removed however the task ends.

use std::sync::Arc;

use crate::relay::client::Handle;
use crate::relay::shared::Relay;

/// Removes the session from the registry when it is dropped, also after a panic of the task.
pub(super) struct Membership {
    relay: Arc<Relay>,
    handle: Arc<Handle>,
    is_left: bool,
}

impl Membership {
    pub(super) fn new(relay: Arc<Relay>, handle: Arc<Handle>) -> Self {
        Self { relay, handle, is_left: false }
    }

    /// Leaves the registry for the next process. The login stays open on disk.
    pub(super) fn hand_over(&mut self) {
        if !std::mem::replace(&mut self.is_left, true) {
            self.relay.registry().leave(&self.handle);
        }
    }

    /// Leaves in order: the session's data is on disk, or will be written before any later request.
    pub(super) fn leave(&mut self) {
        if !std::mem::replace(&mut self.is_left, true) {
            self.relay.accounts().unregister(&self.handle);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        if std::thread::panicking() {
            self.relay.metrics().session_failed();
            tracing::error!("session task failed: client closed");
        }
        self.leave();
        // Without a runtime the process is ending. The next start finds the login open and closes it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (accounts, handle) = (Arc::clone(self.relay.accounts()), Arc::clone(&self.handle));
            let ended = async move { accounts.store_end(&handle).await };
            self.relay.background().spawn_in_span_on(ended, &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::tempdir;

    use super::*;
    use crate::clock::UnixSecs;
    use crate::push::account::{Change, DeviceId};
    use crate::relay::rig::relay;
    use crate::session::negotiate::HeldSession;

    /// A session whose task had failed stayed in the registry without end, and its device counted as connected.
    #[tokio::test]
    async fn a_session_whose_task_fails_leaves_the_registry_and_its_login_is_closed() {
        let directory = tempdir().unwrap();
        let relay = relay(directory.path());
        let held = HeldSession { account: "romeo@localhost".parse().unwrap(), identity: None };
        let (handle, _commands) = relay.registry().enter(relay.store().next_login(), held.clone(), "r".to_owned());
        let (candidate, login) = (DeviceId(1), handle.login());
        let change = Change::Login {
            candidate,
            login,
            resource: "r".to_owned(),
            agent: None,
            presented: None,
            at: UnixSecs::new(1),
        };
        relay.store().change(&held.account, change).await.unwrap();
        let membership = Membership::new(Arc::clone(&relay), Arc::clone(&handle));
        let task = tokio::spawn(async move {
            let _membership = membership;
            panic!("as planned");
        });
        assert!(task.await.unwrap_err().is_panic());
        assert!(relay.registry().is_empty());
        tokio::time::timeout(Duration::from_secs(1), handle.ended()).await.unwrap();
        relay.background().finished().await;
        let account = relay.store().account(&held.account).await.unwrap();
        assert!(!account.device(candidate).unwrap().is_open());
    }
}
