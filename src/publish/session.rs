//! The `session` transport: publishes through a user's own upstream stream, and who waits for their answers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::choice::Attempt;
use crate::jid::BareJid;
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::push::registration::Target;
use crate::relay::registry::{Command, NotTaken, Registry};

/// Who wants to know what became of a publish.
#[derive(Debug)]
pub enum Asker {
    /// The session that carries it, since then.
    Own(Target, Instant),
    /// Somebody else.
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

    /// The publish with this number is done; says who asked.
    pub fn done(&mut self, number: u64) -> Option<Asker> {
        let asker = self.open.remove(&number);
        if self.open.is_empty() {
            self.open.shrink_to_fit();
        }
        asker
    }
}

/// How long a session may take to say that an answer is late.
const GRACE: Duration = Duration::from_secs(5);

/// Publishes through the user's own stream, whichever session's it is; answers may take `patience`.
pub(super) async fn carry(registry: &Registry, account: &BareJid, (publish, patience): (Publish, Duration)) -> Attempt {
    let none = || Attempt::Skipped("the account has no session".to_owned());
    let Some(carrier) = registry.any_session(account) else { return none() };
    let (reply, replied) = oneshot::channel();
    match carrier.offer(Command::Carry(Box::new(publish), reply)) {
        // The session gives each publish a deadline; one that is stuck gives none.
        Ok(()) => Attempt::Done(match timeout(patience + GRACE, replied).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Outcome::Unknown,
        }),
        Err(NotTaken::Full(_)) => Attempt::Skipped("the account's session is busy".to_owned()),
        Err(NotTaken::Gone(_)) => none(),
    }
}
