//! The interface through which publishing reaches sessions: [`Sessions`].

use tokio::sync::oneshot;

use super::claim::Claim;
use super::mailbox::NotTaken;
use crate::jid::{BareJid, Jid};
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::xml::Element;

/// The sessions of all accounts, for outgoing publishes and for the answers. No method waits.
pub trait Sessions: Send + Sync {
    /// Asks one session of the account to publish through its own stream, which it does if it gets the claim. If the claim is
    /// taken and there is no answer, the outcome is unknown.
    ///
    /// # Errors
    /// The session is overloaded, or there is none.
    fn publish_on_stream(
        &self,
        account: &BareJid,
        publish: Publish,
        claim: Claim,
    ) -> Result<oneshot::Receiver<Outcome>, NotTaken<()>>;

    /// Sends an answer to the session that has exactly this full JID.
    ///
    /// # Errors
    /// Too much waits for the session, or there is none.
    fn route(&self, to: &Jid, stanza: Element) -> Result<(), NotTaken<()>>;
}
