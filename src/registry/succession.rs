//! The end of a session in favour of a newer one of its device: the requests of other tasks ([`SessionRequests`]) and the
//! session's progress. Part of a [`Handle`](super::handle::Handle).

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::push::account::LoginId;
use crate::session::EndReason;
use crate::sync::lock;

/// The requests to a session that it has not handled yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRequests {
    /// To end for this reason, if the session is held.
    pub end: Option<EndReason>,
    /// To take over the stanzas that another session of its device has left.
    pub inherit: bool,
}

/// The requests to one session, and its progress.
#[derive(Debug, Default)]
pub(super) struct Succession {
    requests: Mutex<SessionRequests>,
    /// The newest login that was answered: its session and this one both stay.
    answered: AtomicU64,
    ending: AtomicBool,
    ended: AtomicBool,
    /// Notified when one of the above has changed.
    changed: Notify,
}

impl Succession {
    pub(super) fn request_end(&self, reason: EndReason) {
        lock(&self.requests).end.get_or_insert(reason);
    }

    /// Repeats requests that a previous process has not handled.
    pub(super) fn request(&self, requests: SessionRequests) {
        *lock(&self.requests) = requests;
    }

    /// Returns the newest login that was answered.
    pub(super) fn answered(&self) -> LoginId {
        LoginId(self.answered.load(Ordering::Relaxed))
    }

    pub(super) fn request_inheritance(&self) {
        lock(&self.requests).inherit = true;
    }

    pub(super) fn requests(&self) -> SessionRequests {
        *lock(&self.requests)
    }

    /// Notes that the session has done or declined these requests.
    pub(super) fn settle(&self, handled: SessionRequests) {
        let mut requests = lock(&self.requests);
        if requests.end == handled.end {
            requests.end = None;
        }
        requests.inherit &= !handled.inherit;
        drop(requests);
        self.changed.notify_waiters();
    }

    pub(super) fn note_both_stay(&self, login: LoginId) {
        self.answered.fetch_max(login.0, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    pub(super) fn set_ending(&self) {
        if !self.ending.swap(true, Ordering::Relaxed) {
            self.changed.notify_waiters();
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    pub(super) fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Waits until the session has ended, or has answered this later login or one after it. Cancel safe.
    pub(super) async fn settled(&self, login: LoginId) {
        self.until(|| self.has_ended() || self.answered.load(Ordering::Relaxed) >= login.0).await;
    }

    /// Waits until the session has ended. Cancel safe.
    pub(super) async fn ended(&self) {
        self.until(|| self.has_ended()).await;
    }

    /// Waits until the session has ended, or has declined to end. Cancel safe.
    pub(super) async fn ended_or_stays(&self) {
        let stays = || !self.is_ending() && self.requests().end.is_none();
        self.until(|| self.has_ended() || stays()).await;
    }

    async fn until(&self, is: impl Fn() -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if is() {
                return;
            }
            changed.await;
        }
    }
}
