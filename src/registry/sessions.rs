//! What publishing needs of the sessions.

use tokio::sync::oneshot;

use super::mailbox::NotTaken;
use crate::jid::{BareJid, Jid};
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::xml::Element;

/// The sessions of all accounts, for what is published and for what comes back. None of the methods waits.
pub trait Sessions: Send + Sync {
    /// Asks some session of the account to publish through its own stream; without an answer the outcome is unknown.
    ///
    /// # Errors
    /// The session has too much to do, or there is none.
    fn carry(&self, account: &BareJid, publish: Publish) -> Result<oneshot::Receiver<Outcome>, NotTaken<()>>;

    /// Leaves an answer for the session that has exactly this full JID.
    ///
    /// # Errors
    /// Too much waits for the session, or there is none.
    fn route(&self, to: &Jid, stanza: Element) -> Result<(), NotTaken<()>>;
}
