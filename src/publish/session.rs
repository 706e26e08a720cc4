//! The `session` transport: publishes over a user's own upstream stream. [`SessionPublishes`] holds the requesters that wait
//! for the outcomes.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::select;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::error::UnsentReason;
use super::interruption::Interruption;
use super::selection::Attempt;
use crate::clock::Instant;
use crate::jid::BareJid;
use crate::push::notification::{Publish, PublishId};
use crate::push::outcome::Outcome;
use crate::push::registration::Target;
use crate::registry::{Claim, NotTaken, Sessions};

/// The requester of a publish, who gets its outcome.
#[derive(Debug)]
pub enum Requester {
    /// The session that sends the publish, with the number of the publish and the time of the request.
    Session(PublishId, Target, Instant),
    /// Another task.
    Other(oneshot::Sender<Outcome>),
}

/// The state of [`SessionPublishes`], for another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionPublishesRecord {
    next: u64,
    /// The own publishes without an answer, by number.
    open: Vec<(u64, PublishId, Target, Instant)>,
    unpublished: Vec<Publish>,
}

/// The publishes that a session sends. The session limits their number and gives each a deadline.
#[derive(Debug, Default)]
pub struct SessionPublishes {
    next: u64,
    open: HashMap<u64, Requester>,
    /// The publishes that were not begun, because publishing was interrupted.
    unpublished: Vec<Publish>,
}

impl SessionPublishes {
    /// Adds a publish and returns its number.
    pub fn begin(&mut self, requester: Requester) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.open.insert(self.next, requester);
        self.next
    }

    /// Keeps a publish that was not begun, because publishing was interrupted.
    pub fn on_unpublished(&mut self, publish: Publish) {
        self.unpublished.push(publish);
    }

    /// Returns the publishes that were not begun, which are not kept any more.
    pub fn take_unpublished(&mut self) -> Vec<Publish> {
        std::mem::take(&mut self.unpublished)
    }

    /// Returns the state for another process. The publishes of other requesters are not part of it: their outcomes are unknown
    /// once publishing is interrupted.
    pub fn freeze(&self) -> SessionPublishesRecord {
        let own = self.open.iter().filter_map(|(number, requester)| match requester {
            Requester::Session(id, target, since) => Some((*number, *id, target.clone(), *since)),
            Requester::Other(_) => None,
        });
        let mut open: Vec<_> = own.collect();
        open.sort_by_key(|(number, ..)| *number);
        SessionPublishesRecord { next: self.next, open, unpublished: self.unpublished.clone() }
    }

    /// Continues with the state of another process.
    pub fn thaw(record: SessionPublishesRecord) -> Self {
        let SessionPublishesRecord { next, open, unpublished } = record;
        let open = open.into_iter().map(|(number, id, target, since)| (number, Requester::Session(id, target, since)));
        Self { next, open: open.collect(), unpublished }
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
/// is unknown. If publishing is interrupted before the session writes the publish, the publish is withdrawn.
pub(super) async fn publish_on_stream(
    sessions: &dyn Sessions,
    account: &BareJid,
    publish: Publish,
    patience: Duration,
    interruption: &Interruption,
) -> Attempt {
    let claim = Claim::default();
    let mut replied = match sessions.publish_on_stream(account, publish, claim.clone()) {
        Ok(replied) => replied,
        Err(NotTaken::Full(())) => return Attempt::Skipped(UnsentReason::SessionBusy),
        Err(NotTaken::Gone(())) => return Attempt::Skipped(UnsentReason::NoSession),
    };
    // The session gives each publish a deadline. A stuck session does not, so there is a timeout here.
    let late = sleep(patience);
    let mut late = pin!(late);
    let answered = select! {
        answered = &mut replied => answered.ok(),
        () = &mut late => return Attempt::Done(Outcome::Unknown),
        () = interruption.begun() => None,
    };
    Attempt::Done(match answered {
        Some(outcome) => outcome,
        // The session has ended, or publishing is interrupted.
        None if claim.take() => return Attempt::Skipped(UnsentReason::NoSession),
        None if replied.is_terminated() => Outcome::Unknown,
        None => select! {
            answered = replied => answered.unwrap_or(Outcome::Unknown),
            () = late => Outcome::Unknown,
            () = interruption.over() => Outcome::Unknown,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::interruption::UnderWay;
    use crate::push::account::LoginId;
    use crate::push::notification::Summary;
    use crate::push::registration::Registration;
    use crate::registry::mailbox::Receiver;
    use crate::registry::{Command, Handle, Mail, Registry, StreamPublish};
    use crate::session::negotiate::HeldSession;

    fn account() -> BareJid {
        BareJid::new("juliet@example.org").unwrap()
    }

    fn enter(registry: &Registry<()>, login: u64) -> (std::sync::Arc<Handle<()>>, Receiver<Command<()>>) {
        registry.enter(LoginId(login), HeldSession { account: account(), identity: None }, "r".to_owned())
    }

    fn notification() -> Publish {
        let registration = r#"{"target":{"service":"push.example","node":"n"},"device":1,"last_seen":0}"#;
        let registration: Registration = serde_json::from_str(registration).unwrap();
        Publish::new(&registration, Summary::wake(&crate::push::settings::PushSettings::default()), 1)
    }

    #[tokio::test]
    async fn a_stuck_or_busy_session_delays_no_other_task() {
        let (registry, none) = (Registry::default(), Interruption::default());
        let (handle, commands) = enter(&registry, 1);
        let mut last = Attempt::Done(Outcome::Unknown);
        for attempts in 0.. {
            let patience = Duration::from_millis(1);
            last = publish_on_stream(&registry, &account(), notification(), patience, &none).await;
            if last != Attempt::Done(Outcome::Unknown) {
                assert_eq!(attempts, 64);
                break;
            }
        }
        assert_eq!(last, Attempt::Skipped(UnsentReason::SessionBusy));
        registry.leave(&handle);
        drop(commands);
        drop(enter(&registry, 2));
        let gone = publish_on_stream(&registry, &account(), notification(), Duration::from_secs(60), &none).await;
        assert_eq!(gone, Attempt::Skipped(UnsentReason::NoSession));
    }

    #[tokio::test]
    async fn a_publish_that_the_session_has_not_begun_is_withdrawn_at_an_interruption() {
        for (begins, expect) in
            [(false, Attempt::Skipped(UnsentReason::NoSession)), (true, Attempt::Done(Outcome::Unknown))]
        {
            let (registry, under_way) = (Registry::default(), UnderWay::default());
            let (_handle, mut commands) = enter(&registry, 1);
            let interruption = under_way.interruption();
            let (own, minute) = (account(), Duration::from_secs(60));
            let publishing = publish_on_stream(&registry, &own, notification(), minute, &interruption);
            let interrupt = async {
                let mail = commands.recv().await;
                let Some(Mail::Message(Command::PublishOnStream(command))) = mail else { panic!("{mail:?}") };
                let StreamPublish { claim, reply: _reply, .. } = *command;
                let claimed = begins && claim.take();
                let soon = Instant::now() + Duration::from_millis(50);
                under_way.interrupt(soon, &Default::default()).await;
                (claimed, claim)
            };
            let (attempt, (claimed, claim)) = tokio::join!(publishing, interrupt);
            assert_eq!((attempt, claimed), (expect, begins));
            assert!(!claim.take(), "the session cannot write it any more");
        }
    }

    #[tokio::test]
    async fn a_publish_that_a_session_ended_with_was_not_written() {
        let (registry, none) = (Registry::default(), Interruption::default());
        let (_handle, mut commands) = enter(&registry, 1);
        let (own, minute) = (account(), Duration::from_secs(60));
        let publishing = publish_on_stream(&registry, &own, notification(), minute, &none);
        let (attempt, mail) = tokio::join!(publishing, async { drop(commands.recv().await) });
        assert_eq!((attempt, mail), (Attempt::Skipped(UnsentReason::NoSession), ()));
    }

    #[test]
    fn the_next_process_knows_the_numbers_of_unanswered_publishes() {
        let mut publishes = SessionPublishes::default();
        let (reply, _replied) = oneshot::channel();
        let (Publish { id, target, .. }, now) = (notification(), Instant::now());
        let others = publishes.begin(Requester::Other(reply));
        let own = publishes.begin(Requester::Session(id, target.clone(), now));
        publishes.on_unpublished(notification());
        let bytes = rmp_serde::to_vec_named(&publishes.freeze()).unwrap();
        let mut after = SessionPublishes::thaw(rmp_serde::from_slice(&bytes).unwrap());
        assert!(after.done(others).is_none());
        assert!(matches!(after.done(own), Some(Requester::Session(of, to, at)) if (of, &to, at) == (id, &target, now)));
        assert_eq!((after.take_unpublished(), after.take_unpublished()), (vec![notification()], Vec::new()));
        assert!(after.begin(Requester::Session(id, target, now)) > own);
    }
}
