//! The `session` transport: publishes through a user's own upstream stream, and who waits for their answers.

use std::collections::HashMap;
use std::time::Instant;

use tokio::sync::oneshot;

use super::choice::Attempt;
use crate::jid::BareJid;
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::push::registration::Target;
use crate::relay::registry::{Command, Registry};

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
        self.next += 1;
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

/// Publishes through the user's own stream, whichever session's it is.
pub(super) async fn carry(registry: &Registry, account: &BareJid, publish: Publish) -> Attempt {
    let none = || Attempt::Skipped("the account has no session".to_owned());
    let Some(carrier) = registry.any_session(account) else { return none() };
    let (reply, replied) = oneshot::channel();
    match carrier.offer(Command::Carry(Box::new(publish), reply)) {
        Ok(()) => Attempt::Done(replied.await.unwrap_or(Outcome::Unknown)),
        Err(_) => none(),
    }
}
