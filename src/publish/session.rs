//! The `session` transport: publishes through a user's own upstream stream, and the askers that wait for their answers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::error::UnsentReason;
use super::selection::Attempt;
use crate::jid::BareJid;
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::push::registration::Target;
use crate::registry::{NotTaken, Sessions};

/// The asker of a publish, who gets its outcome.
#[derive(Debug)]
pub enum Asker {
    /// The session that carries it, since then.
    Own(Target, Instant),
    /// Another task.
    Other(oneshot::Sender<Outcome>),
}

/// The publishes that a session carries. The session bounds them, and gives each a deadline.
#[derive(Debug, Default)]
pub struct Carried {
    next: u64,
    open: HashMap<u64, Asker>,
}

impl Carried {
    /// A number for a publish that is to be carried.
    pub fn begin(&mut self, asker: Asker) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.open.insert(self.next, asker);
        self.next
    }

    /// The publish with this number is done; returns its asker.
    pub fn done(&mut self, number: u64) -> Option<Asker> {
        let asker = self.open.remove(&number);
        if self.open.is_empty() {
            self.open.shrink_to_fit();
        }
        asker
    }
}

/// How long a session may take to say that an answer is late.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// Publishes through the user's own stream, by any of the sessions; one that has not answered within `patience` leaves the
/// outcome unknown.
pub(super) async fn carry(sessions: &dyn Sessions, account: &BareJid, publish: Publish, patience: Duration) -> Attempt {
    match sessions.carry(account, publish) {
        // The session gives each publish a deadline; one that is stuck gives none.
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
    async fn a_session_that_is_stuck_or_busy_holds_nobody_up() {
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
            last = carry(&registry, &account, publish.clone(), Duration::from_millis(1)).await;
            if last != Attempt::Done(Outcome::Unknown) {
                assert_eq!(attempts, 64);
                break;
            }
        }
        assert_eq!(last, Attempt::Skipped(UnsentReason::SessionBusy));
        registry.leave(&handle);
        drop(commands);
        drop(enter(2));
        let gone = carry(&registry, &account, publish, Duration::from_secs(60)).await;
        assert_eq!(gone, Attempt::Skipped(UnsentReason::NoSession));
    }
}
