//! The `session` transport: publishes over a user's own upstream stream. [`SessionPublishes`] holds the requesters that wait
//! for the outcomes.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::error::UnsentReason;
use super::selection::Attempt;
use crate::clock::Instant;
use crate::jid::BareJid;
use crate::push::notification::{Publish, PublishId};
use crate::push::outcome::Outcome;
use crate::push::registration::Target;
use crate::registry::{NotTaken, Sessions};

/// The requester of a publish, who gets its outcome.
#[derive(Debug)]
pub enum Requester {
    /// The session that sends the publish, with the number of the publish and the time of the request.
    Session(PublishId, Target, Instant),
    /// Another task.
    Other(oneshot::Sender<Outcome>),
}

/// The publishes that a session sends. The session limits their number and gives each a deadline.
#[derive(Debug, Default)]
pub struct SessionPublishes {
    next: u64,
    open: HashMap<u64, Requester>,
}

impl SessionPublishes {
    /// Adds a publish and returns its number.
    pub fn begin(&mut self, requester: Requester) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.open.insert(self.next, requester);
        self.next
    }

    /// Removes the publish with this number when it is done. Returns its requester.
    pub fn done(&mut self, number: u64) -> Option<Requester> {
        let requester = self.open.remove(&number);
        if self.open.is_empty() {
            self.open.shrink_to_fit();
        }
        requester
    }
}

/// The time that a session has to report that an answer is late.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// Publishes over the user's own stream in any of the sessions. If the session does not answer within `patience`, the outcome
/// is unknown.
pub(super) async fn publish_on_stream(
    sessions: &dyn Sessions,
    account: &BareJid,
    publish: Publish,
    patience: Duration,
) -> Attempt {
    match sessions.publish_on_stream(account, publish) {
        // The session gives each publish a deadline. A stuck session does not, so there is a timeout here.
        Ok(replied) => Attempt::Done(match timeout(patience, replied).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Outcome::Unknown,
        }),
        Err(NotTaken::Full(())) => Attempt::Skipped(UnsentReason::SessionBusy),
        Err(NotTaken::Gone(())) => Attempt::Skipped(UnsentReason::NoSession),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::account::LoginId;
    use crate::push::notification::Summary;
    use crate::push::registration::Registration;
    use crate::registry::Registry;
    use crate::session::negotiate::HeldSession;

    #[tokio::test]
    async fn a_stuck_or_busy_session_delays_no_other_task() {
        let registry = Registry::<()>::default();
        let account = BareJid::new("juliet@example.org").unwrap();
        let enter = |login| {
            registry.enter(LoginId(login), HeldSession { account: account.clone(), identity: None }, "r".to_owned())
        };
        let (handle, commands) = enter(1);
        let registration = r#"{"target":{"service":"push.example","node":"n"},"device":1,"last_seen":0}"#;
        let registration: Registration = serde_json::from_str(registration).unwrap();
        let publish = Publish::new(&registration, Summary::wake(&crate::push::settings::PushSettings::default()), 1);
        let mut last = Attempt::Done(Outcome::Unknown);
        for attempts in 0.. {
            last = publish_on_stream(&registry, &account, publish.clone(), Duration::from_millis(1)).await;
            if last != Attempt::Done(Outcome::Unknown) {
                assert_eq!(attempts, 64);
                break;
            }
        }
        assert_eq!(last, Attempt::Skipped(UnsentReason::SessionBusy));
        registry.leave(&handle);
        drop(commands);
        drop(enter(2));
        let gone = publish_on_stream(&registry, &account, publish, Duration::from_secs(60)).await;
        assert_eq!(gone, Attempt::Skipped(UnsentReason::NoSession));
    }
}
