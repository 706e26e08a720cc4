//! The sessions of the previous process: [`thaw`] reads them, [`ThawedSessions::go_on`] runs them.

use std::collections::HashSet;
use std::sync::Arc;

use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::bound::ThawedSession;
use super::frozen::FrozenSession;
use super::shared::Relay;
use crate::push::account::LoginId;

/// The sessions of the previous process, before their tasks run.
pub struct ThawedSessions {
    sessions: Vec<ThawedSession>,
    unreadable: usize,
}

impl ThawedSessions {
    /// Returns the logins of the sessions.
    pub fn logins(&self) -> HashSet<LoginId> {
        self.sessions.iter().map(ThawedSession::login).collect()
    }

    /// Returns the number of sessions.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Returns whether there are no sessions.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Returns the number of sessions that cannot be continued.
    pub fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// Goes on with the sessions.
    pub fn go_on(self, relay: &Arc<Relay>, tasks: &TaskTracker) {
        for session in self.sessions {
            let span = tracing::info_span!("session", peer = tracing::field::Empty, jid = session.jid());
            if let Some(peer) = session.peer() {
                span.record("peer", tracing::field::display(peer));
            }
            tasks.spawn(session.run(Arc::clone(relay)).instrument(span));
        }
    }
}

/// Reads the sessions of the previous process and enters them into the registry. Nothing is read from or written to a server
/// yet. Those that cannot be read are lost.
pub fn thaw(relay: &Arc<Relay>, frozen: Vec<FrozenSession>) -> ThawedSessions {
    let total = frozen.len();
    let thaw = |frozen| match ThawedSession::thaw(relay, frozen) {
        Ok(thawed) => Some(thawed),
        Err(error) => {
            tracing::error!(%error, "cannot go on with session of previous process");
            None
        }
    };
    let sessions: Vec<_> = frozen.into_iter().filter_map(thaw).collect();
    ThawedSessions { unreadable: total.saturating_sub(sessions.len()), sessions }
}
